import type { Batch, Entry } from './batch.ts'
import { type KeptBatch, keepCopy, sizeOf } from './kept-batch.ts'
import type { NodeId } from './model.ts'

/** What is kept of one origin, at most. A record of 10,000 services is about 1 MiB; windows hold up to twice the record. */
const ORIGIN_BYTES_MAX = 8 * 1024 * 1024
const ORIGIN_BATCHES_MAX = 8192
/** Entries of all its batches: what 8 MiB name at their shortest is more than anyone offers. */
const ORIGIN_ENTRIES_MAX = 131_072
/** Keys that are looked for one by one; for more, those of the whole window are gathered first. */
const KEYS_SEARCHED_MAX = 8

/** Keys and what they mean now, one after the other; undefined: gone, if it was there. */
export type Changes = readonly Entry[]

export type ApplyOutcome =
  | { outcome: 'new'; changed: Changes }
  | { outcome: 'duplicate' }
  /** Of an incarnation or a window that is over. */
  | { outcome: 'stale' }
  | { outcome: 'over-limit' }

const DUPLICATE: ApplyOutcome = { outcome: 'duplicate' }
const STALE: ApplyOutcome = { outcome: 'stale' }
const OVER_LIMIT: ApplyOutcome = { outcome: 'over-limit' }

/**
 * What this node knows of one origin's record: a window of that origin's batches.
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
  /** Bytes of batches held. */
  bytes = 0
  /** By number, lowest first; nearly always without gaps, and added to at the end. */
  private readonly held: KeptBatch[] = []
  private entries = 0
  private readonly keep: (batch: Batch) => KeptBatch

  /** `keep` gives what is kept of a batch. */
  constructor(origin: NodeId, keep: (batch: Batch) => KeptBatch = batch => keepCopy(batch, key => key)) {
    this.origin = origin
    this.keep = keep
  }

  /** Highest number held; 0: none. */
  get newest(): number {
    return this.held.at(-1)?.seq ?? 0
  }

  /** Whether the batch is held, or is of a part of the window that is over. */
  holds(seq: number): boolean {
    return seq < this.base || this.batch(seq) !== undefined
  }

  batch(seq: number): KeptBatch | undefined {
    const found = this.held[this.placeOf(seq)]
    return found?.seq === seq ? found : undefined
  }

  /** Held batches with a number above `seq`, oldest first. */
  batchesAfter(seq: number): readonly KeptBatch[] {
    return this.held.slice(this.placeOf(seq + 1))
  }

  apply(batch: Batch): ApplyOutcome {
    if (batch.incarnation < this.incarnation) return STALE
    const gone = batch.incarnation > this.incarnation ? this.restart(batch) : []
    if (batch.seq < this.base) return STALE
    const place = this.placeOf(batch.seq)
    if (this.held[place]?.seq === batch.seq) return DUPLICATE
    const isTooMuch =
      this.bytes + sizeOf(batch) > ORIGIN_BYTES_MAX ||
      this.held.length >= ORIGIN_BATCHES_MAX ||
      this.entries + batch.entries.length > ORIGIN_ENTRIES_MAX
    if (isTooMuch) return OVER_LIMIT

    const kept = this.keep(batch)
    const newer = this.held.slice(place)
    this.held.splice(place, 0, kept)
    this.bytes += sizeOf(kept)
    this.entries += kept.keys.length
    const fresh = newer.length === 0 ? batch.entries : without(batch.entries, newer)
    const dropped = this.advanceBase(place)
    while (this.batch(this.contiguous + 1) !== undefined) this.contiguous++
    const hasGone = gone.length > 0 || dropped.length > 0
    return { outcome: 'new', changed: hasGone ? [...gone, ...fresh, ...dropped] : fresh }
  }

  /** Where the batch `seq` stands, or would: the first that is not below it. */
  private placeOf(seq: number): number {
    const { held } = this
    let low = 0
    let high = held.length
    // Without gaps, it is as far from the first as their numbers are.
    const guess = seq - (held[0]?.seq ?? seq)
    if (guess >= high && (held[high - 1]?.seq ?? 0) < seq) return high
    if (guess >= 0 && held[guess]?.seq === seq) return guess
    while (low < high) {
      const middle = (low + high) >> 1
      if ((held[middle] as KeptBatch).seq < seq) low = middle + 1
      else high = middle
    }
    return low
  }

  /** Answers what is gone by the new incarnation, but for what its first batch speaks of. */
  private restart({ incarnation, entries }: Batch): Entry[] {
    const keys = new Set(this.held.flatMap(batch => batch.keys))
    for (const { key } of entries) keys.delete(key)
    this.held.length = 0
    this.bytes = 0
    this.entries = 0
    this.incarnation = incarnation
    this.base = 1
    this.contiguous = 0
    return goneOf(keys)
  }

  /** Takes the base that the run of batches around `place` declares, if the run reaches down to it. Answers what is gone by it. */
  private advanceBase(place: number): Entry[] {
    const { held } = this
    let last = place
    while (held[last + 1]?.seq === (held[last] as KeptBatch).seq + 1) last++
    const { seq: newest, base } = held[last] as KeptBatch
    if (base <= this.base) return []
    // Below this there are no gaps.
    const low = Math.max(base, this.contiguous + 1)
    let first = place
    while ((held[first] as KeptBatch).seq > low && held[first - 1]?.seq === (held[first] as KeptBatch).seq - 1) first--
    if ((held[first] as KeptBatch).seq > low) return []
    const dropped = held.splice(0, this.placeOf(base))
    const keys = new Set<string>()
    for (const batch of dropped) {
      this.bytes -= sizeOf(batch)
      this.entries -= batch.keys.length
      for (const key of batch.keys) keys.add(key)
    }
    this.base = base
    this.contiguous = Math.max(this.contiguous, newest)
    removeSpoken(keys, held)
    return goneOf(keys)
  }
}

/** Those entries of which no newer batch speaks. */
function without(entries: readonly Entry[], newer: readonly KeptBatch[]): Entry[] {
  const keys = new Set(entries.map(({ key }) => key))
  removeSpoken(keys, newer)
  return entries.filter(({ key }) => keys.has(key))
}

/** Takes out of `keys` those of which the batches speak; the newest is the likeliest. */
function removeSpoken(keys: Set<string>, batches: readonly KeptBatch[]): void {
  if (keys.size <= KEYS_SEARCHED_MAX) {
    for (const key of keys) if (batches.findLast(batch => batch.keys.includes(key)) !== undefined) keys.delete(key)
    return
  }
  for (let i = batches.length - 1; i >= 0 && keys.size > 0; i--) {
    for (const key of (batches[i] as KeptBatch).keys) keys.delete(key)
  }
}

function goneOf(keys: ReadonlySet<string>): Entry[] {
  return Array.from(keys, key => ({ key, value: undefined }))
}
