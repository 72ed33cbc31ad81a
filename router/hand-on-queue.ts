import type { SignedBatch } from './frame.ts'
import type { NodeId } from './model.ts'
import { RateLimit } from './rate-limit.ts'

/** A batch that was new here, and who brought it. */
export interface Fresh {
  readonly from: NodeId
  readonly origin: NodeId
  /** As it is kept, not as it came. */
  readonly batch: SignedBatch
  /** Goes with the first batch of a life, which may be the first that anyone hears of its origin. */
  readonly proof: Uint8Array | undefined
}

/** What comes within this time of the last that was handed on leaves together: in a storm one frame takes the place of ten. */
const GATHER_MS = 10
/**
 * When news keep coming, as in a mesh of a thousand, more of them share a frame: a frame costs everyone on its way as much
 * as several batches in it. 40 ms, over the four or five links of a large mesh, is less than what its round trips are.
 */
const GATHER_BUSY_MS = 40
/** So often something is handed on without that: a burst of news is soon over. */
const AT_ONCE = { perSecond: 10, burst: 25 }
/** Batches that wait, at most; the digests bring what was not handed on. */
const FRESH_MAX = 4096

/** Fresh batches that are to be handed on: the first at once, those on its heels together, the more of them the longer it lasts. Decides, does nothing. */
export class HandOnQueue {
  /** When what waits is due. */
  atMs = Number.POSITIVE_INFINITY
  private lastMs = Number.NEGATIVE_INFINITY
  private readonly calm = new RateLimit(AT_ONCE)
  private gatherMs = GATHER_MS
  private waiting: Fresh[] = []

  add(fresh: Fresh, nowMs: number): void {
    if (this.waiting.length >= FRESH_MAX) return
    this.waiting.push(fresh)
    this.atMs = Math.max(nowMs, this.lastMs + this.gatherMs)
  }

  /** Everything that waits, in the order in which it came. */
  take(nowMs: number): Fresh[] {
    const taken = this.waiting
    this.waiting = []
    this.lastMs = nowMs
    this.gatherMs = this.calm.take(1, nowMs) ? GATHER_MS : GATHER_BUSY_MS
    this.atMs = Number.POSITIVE_INFINITY
    return taken
  }
}
