import type { Batch } from './batch.ts'
import type { SignedBatch } from './frame.ts'

/** A batch as it is kept: what is needed to pass it on. The bytes are views: copy them to keep them. */
export interface StoredBatch extends SignedBatch {
  readonly seq: number
}

interface Place {
  at: number
  readonly payloadLength: number
  readonly signatureLength: number
  readonly base: number
}

/** Room kept free for what follows, as a share of what is held: each growth copies everything. */
const ROOM_RATIO = 0.25
const ROOM_BYTES_MIN = 512

/** The batches of one origin, end to end in one piece of memory: a mesh holds very many small ones. */
export class BatchStore {
  /** Bytes of batches held. */
  bytes = 0
  private buffer = new Uint8Array(0)
  private used = 0
  private readonly places = new Map<number, Place>()

  /** Batches held. */
  get size(): number {
    return this.places.size
  }

  has(seq: number): boolean {
    return this.places.has(seq)
  }

  baseOf(seq: number): number | undefined {
    return this.places.get(seq)?.base
  }

  /** Keeps a copy. */
  put({ seq, base, payload, signature }: Pick<Batch, 'seq' | 'base' | 'payload' | 'signature'>): void {
    const size = payload.length + signature.length
    if (this.used + size > this.buffer.length) this.move(size)
    this.buffer.set(payload, this.used)
    this.buffer.set(signature, this.used + payload.length)
    this.places.set(seq, {
      at: this.used,
      payloadLength: payload.length,
      signatureLength: signature.length,
      base,
    })
    this.used += size
    this.bytes += size
  }

  get(seq: number): StoredBatch | undefined {
    const place = this.places.get(seq)
    return place && this.view(seq, place)
  }

  /** Batches with a number above `seq`, oldest first. */
  after(seq: number): StoredBatch[] {
    const found = [...this.places.keys()].filter(held => held > seq).sort((a, b) => a - b)
    return found.map(held => this.view(held, this.places.get(held) as Place))
  }

  dropBelow(base: number): void {
    for (const [seq, { payloadLength, signatureLength }] of this.places) {
      if (seq >= base) continue
      this.places.delete(seq)
      this.bytes -= payloadLength + signatureLength
    }
    if (this.bytes < this.used / 2) this.move(0)
  }

  clear(): void {
    this.places.clear()
    this.buffer = new Uint8Array(0)
    this.used = 0
    this.bytes = 0
  }

  private view(seq: number, { at, payloadLength, signatureLength }: Place): StoredBatch {
    const end = at + payloadLength
    return { seq, payload: this.buffer.subarray(at, end), signature: this.buffer.subarray(end, end + signatureLength) }
  }

  /** Makes room for `more` bytes: what was dropped goes when it is a quarter, else all is copied as it lies. */
  private move(more: number): void {
    const isTidy = this.bytes >= this.used * (1 - ROOM_RATIO)
    const needed = (isTidy ? this.used : this.bytes) + more
    const buffer = new Uint8Array(needed + Math.max(ROOM_BYTES_MIN, Math.floor(needed * ROOM_RATIO)))
    if (isTidy) buffer.set(this.buffer.subarray(0, this.used))
    else this.used = this.tidyInto(buffer)
    this.buffer = buffer
  }

  private tidyInto(buffer: Uint8Array): number {
    let used = 0
    for (const place of this.places.values()) {
      const size = place.payloadLength + place.signatureLength
      buffer.set(this.buffer.subarray(place.at, place.at + size), used)
      place.at = used
      used += size
    }
    return used
  }
}
