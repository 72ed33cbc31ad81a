import { BATCH_BYTES_TARGET, type Batch, type Entry, encodeBatchPayload, signedBytes } from './batch.ts'
import type { NodeId } from './model.ts'
import { encodeMsgpack } from './msgpack.ts'
import { OriginLog } from './origin-log.ts'

/**
 * Superseded entries the window may hold for each live one, beyond `DEAD_FREE`, before the oldest batches are written
 * anew. 1: the window is at most about twice the record, and each change costs at most one entry more. As log-structured
 * stores clean their tail.
 */
const DEAD_PER_LIVE = 1
const DEAD_FREE = 64

/**
 * This node's own record: changes gather here and leave as signed batches.
 *
 * A change to what is already published and back again before it was published costs nothing.
 */
export class OwnRecord {
  readonly log: OriginLog
  private readonly sign: (bytes: Uint8Array) => Uint8Array
  private readonly pending = new Map<string, unknown>()
  /** Keys each batch of the window speaks of, oldest batch first. */
  private readonly keysOf = new Map<number, readonly string[]>()
  private entriesInWindow = 0
  private live = 0
  private seq = 0
  private incarnation: number

  constructor(self: NodeId, incarnation: number, sign: (bytes: Uint8Array) => Uint8Array) {
    this.log = new OriginLog(self)
    this.incarnation = incarnation
    this.sign = sign
  }

  /** The value as it will stand after the next `publish`. */
  get(key: string): unknown {
    return this.pending.has(key) ? this.pending.get(key) : this.log.get(key)
  }

  set(key: string, value: unknown): void {
    this.pending.set(key, value)
  }

  remove(key: string): void {
    if (this.get(key) !== undefined) this.pending.set(key, undefined)
  }

  get dirty(): boolean {
    return this.pending.size > 0
  }

  /** Starts anew under a higher incarnation (someone holds a record of ours that we do not know): all is published again. */
  reincarnate(incarnation: number): void {
    const all = new Map<string, unknown>()
    for (const key of this.log.liveKeys()) all.set(key, this.log.get(key))
    for (const [key, value] of this.pending) all.set(key, value)
    this.pending.clear()
    for (const [key, value] of all) if (value !== undefined) this.pending.set(key, value)
    this.incarnation = incarnation
    this.seq = 0
    this.live = 0
    this.entriesInWindow = 0
    this.keysOf.clear()
  }

  /** Signs and applies what is pending: 0..n batches, in order, with the keys that changed. */
  publish(): { batches: Batch[]; changed: string[] } {
    const entries: Entry[] = [...this.pending].map(([key, value]) => ({ key, value }))
    this.pending.clear()
    const batches: Batch[] = []
    const changed: string[] = []
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
    for (const { key, value } of fresh) this.live += Number(value !== undefined) - Number(this.isLive(key))
    const base = this.clean(seq, entries)
    this.keysOf.set(
      seq,
      entries.map(entry => entry.key),
    )
    this.entriesInWindow += entries.length
    const head = { origin: this.log.origin, incarnation: this.incarnation, seq, base, entries }
    const payload = encodeBatchPayload(head)
    return { ...head, payload, signature: this.sign(signedBytes(payload)) }
  }

  private isLive(key: string): boolean {
    return this.log.incarnation === this.incarnation && this.log.get(key) !== undefined
  }

  /** Takes what still holds out of the oldest batches into `entries`, and answers the new base. */
  private clean(seq: number, entries: Entry[]): number {
    const fresh = new Set(entries.map(entry => entry.key))
    for (const [oldest, keys] of this.keysOf) {
      const dead = this.entriesInWindow + entries.length - this.live
      if (dead <= this.live * DEAD_PER_LIVE + DEAD_FREE) return oldest
      for (const key of keys) {
        const value = this.log.get(key)
        if (this.log.seqOf(key) === oldest && value !== undefined && !fresh.has(key)) entries.push({ key, value })
      }
      this.keysOf.delete(oldest)
      this.entriesInWindow -= keys.length
    }
    return seq
  }
}

function cut(entries: readonly Entry[], from: number): number {
  let bytes = 0
  let to = from
  while (to < entries.length) {
    const entry = entries[to] as Entry
    bytes += entry.key.length + 4 + (entry.value === undefined ? 1 : encodeMsgpack(entry.value).length)
    if (to > from && bytes > BATCH_BYTES_TARGET) break
    to++
  }
  return to
}
