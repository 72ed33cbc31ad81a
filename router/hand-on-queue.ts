import type { BatchHead } from './batch.ts'
import type { NodeId } from './model.ts'

/** A batch that was new here, and who brought it. */
export interface Fresh extends BatchHead {
  readonly from: NodeId
}

/** What comes within this time of the last that was handed on leaves together: in a storm one frame takes the place of ten. */
const GATHER_MS = 10
/** Batches that wait, at most; the digests bring what was not handed on. */
const FRESH_MAX = 4096

/** Fresh batches that are to be handed on: the first at once, those on its heels together. Decides, does nothing. */
export class HandOnQueue {
  /** When what waits is due. */
  atMs = Number.POSITIVE_INFINITY
  private lastMs = Number.NEGATIVE_INFINITY
  private waiting: Fresh[] = []

  add(fresh: Fresh, nowMs: number): void {
    if (this.waiting.length >= FRESH_MAX) return
    this.waiting.push(fresh)
    this.atMs = Math.max(nowMs, this.lastMs + GATHER_MS)
  }

  /** Everything that waits, in the order in which it came. */
  take(nowMs: number): Fresh[] {
    const taken = this.waiting
    this.waiting = []
    this.lastMs = nowMs
    this.atMs = Number.POSITIVE_INFINITY
    return taken
  }
}
