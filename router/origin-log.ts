import type { Batch } from './batch.ts'
import type { NodeId } from './model.ts'

/** What is kept of one origin, at most. A record of 10,000 services is about 1 MiB; windows hold up to twice the record. */
const ORIGIN_BYTES_MAX = 8 * 1024 * 1024
const ORIGIN_BATCHES_MAX = 8192

/** A batch as it is kept: what is needed to pass it on. Its entries live in the log's map. */
export interface StoredBatch {
  readonly seq: number
  readonly base: number
  readonly payload: Uint8Array
  readonly signature: Uint8Array
}

interface EntryState {
  readonly seq: number
  /** undefined: a tombstone. */
  readonly value: unknown
}

export type ApplyOutcome =
  /** It was new; `changed` lists keys whose value is now another one, or gone. */
  | { outcome: 'new'; changed: readonly string[] }
  | { outcome: 'duplicate' }
  /** Of an incarnation or a window that is over. */
  | { outcome: 'stale' }
  | { outcome: 'over-limit' }

/**
 * What this node knows of one origin's record: a window of that origin's batches and the entries they add up to.
 *
 * The rule is only "newer wins" by (incarnation, seq), so two nodes that hold the same batches hold the same entries,
 * whatever the order they came in. A batch that declares a higher `base` takes effect once the window from that base
 * to the declaring batch is whole: not earlier, or entries that stand again in a batch still under way would flicker.
 * Bases never fall from batch to batch, so the newest batch of a run without gaps speaks for the whole run.
 */
export class OriginLog {
  readonly origin: NodeId
  incarnation = 0
  base = 1
  /** Every batch from `base` to here is held. `base - 1`: none. */
  contiguous = 0
  bytes = 0
  /** Highest number held; 0: none. */
  newest = 0
  private readonly batches = new Map<number, StoredBatch>()
  private readonly entries = new Map<string, EntryState>()

  constructor(origin: NodeId) {
    this.origin = origin
  }

  get(key: string): unknown {
    return this.entries.get(key)?.value
  }

  /** Sequence number of the batch that last spoke of `key`; 0 if none did. */
  seqOf(key: string): number {
    return this.entries.get(key)?.seq ?? 0
  }

  /** Keys that have a value now. */
  *liveKeys(): IterableIterator<string> {
    for (const [key, entry] of this.entries) if (entry.value !== undefined) yield key
  }

  /** Whether the batch is held, or is of a part of the window that is over. */
  holds(seq: number): boolean {
    return seq < this.base || this.batches.has(seq)
  }

  /** Held batches with a number above `seq`, oldest first. */
  batchesAfter(seq: number): StoredBatch[] {
    return [...this.batches.values()].filter(batch => batch.seq > seq).sort((a, b) => a.seq - b.seq)
  }

  apply(batch: Batch): ApplyOutcome {
    if (batch.incarnation < this.incarnation) return { outcome: 'stale' }
    const changed = new Set<string>()
    if (batch.incarnation > this.incarnation) this.restart(batch.incarnation, changed)
    if (batch.seq < this.base) return { outcome: 'stale' }
    if (this.batches.has(batch.seq)) return { outcome: 'duplicate' }
    const size = batch.payload.length + batch.signature.length
    if (this.bytes + size > ORIGIN_BYTES_MAX || this.batches.size >= ORIGIN_BATCHES_MAX)
      return { outcome: 'over-limit' }

    const { seq, base, payload, signature } = batch
    this.batches.set(seq, { seq, base, payload, signature })
    this.bytes += size
    this.newest = Math.max(this.newest, seq)
    for (const { key, value } of batch.entries) {
      const known = this.entries.get(key)
      if (known !== undefined && known.seq > seq) continue
      if (known?.value !== undefined || value !== undefined) changed.add(key)
      this.entries.set(key, { seq, value })
    }
    this.advanceBase(seq, changed)
    while (this.batches.has(this.contiguous + 1)) this.contiguous++
    return { outcome: 'new', changed: [...changed] }
  }

  private restart(incarnation: number, changed: Set<string>): void {
    for (const key of this.liveKeys()) changed.add(key)
    this.entries.clear()
    this.batches.clear()
    this.incarnation = incarnation
    this.base = 1
    this.contiguous = 0
    this.bytes = 0
    this.newest = 0
  }

  /** Takes the base that the run of batches around `arrived` declares, if the run reaches down to it. */
  private advanceBase(arrived: number, changed: Set<string>): void {
    let newest = arrived
    while (this.batches.has(newest + 1)) newest++
    const base = this.batches.get(newest)?.base ?? 1
    if (base <= this.base) return
    for (let seq = arrived - 1; seq >= base && seq > this.contiguous; seq--) if (!this.batches.has(seq)) return
    for (const [seq, batch] of this.batches) {
      if (seq >= base) continue
      this.batches.delete(seq)
      this.bytes -= batch.payload.length + batch.signature.length
    }
    for (const [key, entry] of this.entries) {
      if (entry.seq >= base) continue
      this.entries.delete(key)
      if (entry.value !== undefined) changed.add(key)
    }
    this.base = base
    this.contiguous = Math.max(this.contiguous, newest)
  }
}
