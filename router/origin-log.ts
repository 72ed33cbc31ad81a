import type { Batch } from './batch.ts'
import { BatchStore, type StoredBatch } from './batch-store.ts'
import type { NodeId } from './model.ts'

/** What is kept of one origin, at most. A record of 10,000 services is about 1 MiB; windows hold up to twice the record. */
const ORIGIN_BYTES_MAX = 8 * 1024 * 1024
const ORIGIN_BATCHES_MAX = 8192
/** Keys, tombstones included: what 8 MiB of batches name at their shortest is more than anyone offers. */
const ORIGIN_ENTRIES_MAX = 65_536

/** Keys whose value is now another one; undefined: gone. */
export type Changes = ReadonlyMap<string, unknown>

export type ApplyOutcome =
  | { outcome: 'new'; changed: Changes }
  | { outcome: 'duplicate' }
  /** Of an incarnation or a window that is over. */
  | { outcome: 'stale' }
  | { outcome: 'over-limit' }

/**
 * What this node knows of one origin's record: a window of that origin's batches, and which of them last spoke of each key.
 * The values themselves are told once, as changes: whoever wants them keeps them.
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
  /** Highest number held; 0: none. */
  newest = 0
  private readonly batches = new BatchStore()
  /** The batch that last spoke of each key; negative: it spoke of its end. */
  private readonly spoken = new Map<string, number>()
  private readonly share: (key: string) => string

  /** `share` gives one string for all that are equal: the same keys stand in the records of many. */
  constructor(origin: NodeId, share: (key: string) => string = key => key) {
    this.origin = origin
    this.share = share
  }

  /** Bytes of batches held. */
  get bytes(): number {
    return this.batches.bytes
  }

  /** Sequence number of the batch that last spoke of `key`; 0 if none did. */
  seqOf(key: string): number {
    return Math.abs(this.spoken.get(key) ?? 0)
  }

  /** Whether the batch is held, or is of a part of the window that is over. */
  holds(seq: number): boolean {
    return seq < this.base || this.batches.has(seq)
  }

  batch(seq: number): StoredBatch | undefined {
    return this.batches.get(seq)
  }

  /** Held batches with a number above `seq`, oldest first. */
  batchesAfter(seq: number): StoredBatch[] {
    return this.batches.after(seq)
  }

  apply(batch: Batch): ApplyOutcome {
    if (batch.incarnation < this.incarnation) return { outcome: 'stale' }
    const changed = new Map<string, unknown>()
    if (batch.incarnation > this.incarnation) this.restart(batch.incarnation, changed)
    if (batch.seq < this.base) return { outcome: 'stale' }
    if (this.batches.has(batch.seq)) return { outcome: 'duplicate' }
    const size = batch.payload.length + batch.signature.length
    const isTooMuch =
      this.bytes + size > ORIGIN_BYTES_MAX ||
      this.batches.size >= ORIGIN_BATCHES_MAX ||
      this.spoken.size + batch.entries.length > ORIGIN_ENTRIES_MAX
    if (isTooMuch) return { outcome: 'over-limit' }

    const { seq } = batch
    this.batches.put(batch)
    this.newest = Math.max(this.newest, seq)
    for (const { key, value } of batch.entries) {
      const known = this.spoken.get(key) ?? 0
      if (Math.abs(known) > seq) continue
      const shared = known === 0 ? this.share(key) : key
      if (known > 0 || value !== undefined) changed.set(shared, value)
      this.spoken.set(shared, value === undefined ? -seq : seq)
    }
    this.advanceBase(seq, changed)
    while (this.batches.has(this.contiguous + 1)) this.contiguous++
    return { outcome: 'new', changed }
  }

  private restart(incarnation: number, changed: Map<string, unknown>): void {
    for (const [key, seq] of this.spoken) if (seq > 0) changed.set(key, undefined)
    this.spoken.clear()
    this.batches.clear()
    this.incarnation = incarnation
    this.base = 1
    this.contiguous = 0
    this.newest = 0
  }

  /** Takes the base that the run of batches around `arrived` declares, if the run reaches down to it. */
  private advanceBase(arrived: number, changed: Map<string, unknown>): void {
    let newest = arrived
    while (this.batches.has(newest + 1)) newest++
    const base = this.batches.baseOf(newest) ?? 1
    if (base <= this.base) return
    for (let seq = arrived - 1; seq >= base && seq > this.contiguous; seq--) if (!this.batches.has(seq)) return
    this.batches.dropBelow(base)
    for (const [key, seq] of this.spoken) {
      if (Math.abs(seq) >= base) continue
      this.spoken.delete(key)
      if (seq > 0) changed.set(key, undefined)
    }
    this.base = base
    this.contiguous = Math.max(this.contiguous, newest)
  }
}
