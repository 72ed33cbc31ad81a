import { BATCH_BYTES_TARGET, type Batch, type Entry, encodeBatchPayload, signedBytes } from './batch.ts'
import type { NodeId } from './model.ts'
import { encodeMsgpack } from './msgpack.ts'
import { type Changes, OriginLog } from './origin-log.ts'

/**
 * Superseded entries the window may hold for each live one, beyond `DEAD_FREE`, before the oldest batches are written
 * anew. 1: the window is at most about twice the record, and each change costs at most one entry more. As log-structured
 * stores clean their tail.
 */
const DEAD_PER_LIVE = 1
const DEAD_FREE = 64
/** Batches the window may have before its tail is written anew whatever it holds: a quarter of what others keep of one origin. */
const WINDOW_BATCHES_MAX = 2048
/** What one batch may grow to by entries taken over from the tail, beside those that are new. */
const CARRY_BYTES_MAX = BATCH_BYTES_TARGET

/**
 * This node's own record: changes gather here and leave as signed batches.
 *
 * A change to what is already published and back again before it was published costs nothing.
 */
export class OwnRecord {
  readonly log: OriginLog
  private readonly sign: (bytes: Uint8Array) => Uint8Array
  /** What others were told under this incarnation. */
  private readonly published = new Map<string, unknown>()
  private readonly pending = new Map<string, unknown>()
  /** The batch of the window that last spoke of each key. */
  private readonly spokenIn = new Map<string, number>()
  /** Keys each batch of the window speaks of, oldest batch first. */
  private readonly keysOf = new Map<number, readonly string[]>()
  private entriesInWindow = 0
  private seq = 0
  private incarnation: number

  constructor(self: NodeId, incarnation: number, sign: (bytes: Uint8Array) => Uint8Array) {
    this.log = new OriginLog(self)
    this.incarnation = incarnation
    this.sign = sign
  }

  /** The value as it will stand after the next `publish`. */
  get(key: string): unknown {
    return this.pending.has(key) ? this.pending.get(key) : this.published.get(key)
  }

  set(key: string, value: unknown): void {
    if (sameValue(this.published.get(key), value)) this.pending.delete(key)
    else this.pending.set(key, value)
  }

  remove(key: string): void {
    this.set(key, undefined)
  }

  /** Whether others were told of `key` and may still believe it, or its end. */
  wasTold(key: string): boolean {
    return this.spokenIn.has(key)
  }

  get dirty(): boolean {
    return this.pending.size > 0
  }

  /**
   * Starts anew under an incarnation higher than `above` and than any used here (someone holds a record of ours that we
   * do not know): all is published again.
   */
  reincarnate(above: number): void {
    const all = new Map([...this.published, ...this.pending])
    this.published.clear()
    this.pending.clear()
    for (const [key, value] of all) if (value !== undefined) this.pending.set(key, value)
    this.incarnation = Math.max(this.incarnation, above) + 1
    this.seq = 0
    this.entriesInWindow = 0
    this.keysOf.clear()
    this.spokenIn.clear()
  }

  /** Signs and applies what is pending: 0..n batches, in order, with the keys that changed. */
  publish(): { batches: Batch[]; changed: Changes } {
    const entries: Entry[] = [...this.pending].map(([key, value]) => ({ key, value }))
    this.pending.clear()
    const batches: Batch[] = []
    const changed: Entry[] = []
    let from = 0
    while (from < entries.length) {
      const to = cut(entries, from)
      const batch = this.seal(entries.slice(from, to))
      batches.push(batch)
      const applied = this.log.apply(batch)
      if (applied.outcome === 'new') changed.push(...applied.changed)
      from = to
    }
    return { batches, changed }
  }

  private seal(fresh: Entry[]): Batch {
    const seq = ++this.seq
    const entries = [...fresh]
    for (const { key, value } of fresh) {
      if (value === undefined) this.published.delete(key)
      else this.published.set(key, value)
    }
    const base = this.clean(seq, entries)
    for (const { key } of entries) this.spokenIn.set(key, seq)
    this.keysOf.set(
      seq,
      entries.map(entry => entry.key),
    )
    this.entriesInWindow += entries.length
    const head = { origin: this.log.origin, incarnation: this.incarnation, seq, base, entries }
    const payload = encodeBatchPayload(head)
    return { ...head, payload, signature: this.sign(signedBytes(payload)) }
  }

  /**
   * Takes what still holds out of the oldest batches into `entries`, as much as one batch may carry, and answers the new
   * base. The rest of a batch that was taken over in part follows with the next change: a full tail costs each change a
   * little, never one change everything.
   */
  private clean(seq: number, entries: Entry[]): number {
    const taken = new Set(entries.map(entry => entry.key))
    let carriedBytes = 0
    for (const [oldest, keys] of this.keysOf) {
      const live = this.published.size
      const dead = this.entriesInWindow + entries.length - live
      if (dead <= live * DEAD_PER_LIVE + DEAD_FREE && this.keysOf.size < WINDOW_BATCHES_MAX) return oldest
      for (const key of keys) {
        const value = this.published.get(key)
        if (this.spokenIn.get(key) !== oldest || value === undefined || taken.has(key)) continue
        const bytes = entryBytes({ key, value })
        // One entry always goes, however large, or the tail would stand still.
        if (carriedBytes > 0 && carriedBytes + bytes > CARRY_BYTES_MAX) return oldest
        carriedBytes += bytes
        taken.add(key)
        entries.push({ key, value })
      }
      for (const key of keys) if (this.spokenIn.get(key) === oldest) this.spokenIn.delete(key)
      this.keysOf.delete(oldest)
      this.entriesInWindow -= keys.length
    }
    return seq
  }
}

/** Entry values are plain data; key order is fixed by the encoders, so their JSON is a fair comparison. */
export function sameValue(a: unknown, b: unknown): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b)
}

/** Bytes of an entry in a batch, rounded up. */
function entryBytes({ key, value }: Entry): number {
  return key.length + 4 + (value === undefined ? 1 : encodeMsgpack(value).length)
}

function cut(entries: readonly Entry[], from: number): number {
  let bytes = 0
  let to = from
  while (to < entries.length) {
    bytes += entryBytes(entries[to] as Entry)
    if (to > from && bytes > BATCH_BYTES_TARGET) break
    to++
  }
  return to
}
