import type { Scope } from './digest-index.ts'
import type { NodeId } from './model.ts'

/** What one node has is under way to its neighbours for about so long, and the other way round. */
export const UNDER_WAY_MS = 500
/** Summaries in a row, of whomever, in which a bucket differs: news come as often in few buckets, what was lost is different in all. */
export const LASTING_SUMMARIES = 4

/** Buckets in which a neighbour's summary differs, and that may be alike as soon as what is under way has come. */
export interface Doubt {
  readonly from: NodeId
  readonly scope: Scope
  /** What has changed here since then tells nothing. */
  readonly sinceMs: number
}

/**
 * In a mesh of a thousand there is always news under way, and so each summary differs from the next node's. Where this
 * node has changed just now, it is the other that waits; and where the other has, this one will hear of it. Only what
 * stays different while nothing changes was lost, or what is different again and again, and is asked for. Decides when; does nothing.
 */
export class Doubts {
  private waiting: Doubt | undefined
  /** By bucket: in how many summaries in a row it was different. */
  private times = new Uint8Array(0)
  /** When what waits is to be looked at again. */
  atMs = Number.POSITIVE_INFINITY

  /**
   * A summary that differs in these of `count` buckets; undefined: in none. Answers those that have been different for long enough
   * to be asked for at once; the rest waits, one summary at a time: another comes soon.
   */
  onSummary(from: NodeId, scope: Scope | undefined, count: number, nowMs: number): Scope | undefined {
    const lasting = this.lasting(scope, count)
    if (scope !== undefined && this.waiting === undefined) {
      this.waiting = { from, scope, sinceMs: nowMs - UNDER_WAY_MS }
      this.atMs = nowMs + UNDER_WAY_MS
    }
    return lasting
  }

  take(): Doubt | undefined {
    const { waiting } = this
    this.waiting = undefined
    this.atMs = Number.POSITIVE_INFINITY
    return waiting
  }

  private lasting(scope: Scope | undefined, count: number): Scope | undefined {
    if (this.times.length !== count) this.times = new Uint8Array(count)
    const { times } = this
    const indexes = new Set<number>()
    for (let index = 0; index < count; index++) {
      times[index] = scope?.indexes.has(index) ? (times[index] as number) + 1 : 0
      if (times[index] !== LASTING_SUMMARIES) continue
      indexes.add(index)
      times[index] = 0
    }
    return indexes.size === 0 ? undefined : { count, indexes }
  }
}
