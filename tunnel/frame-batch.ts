import { FRAME, FRAME_HEADER_BYTES, openBytes, writeHeader, writeOpenPrefix } from './frame.ts'

/** Frames are gathered here: what an outbox hands over at a time (128 KiB), the frame that passes it (64 KiB), and some control frames. */
const SLAB_BYTES = 200 * 1024
/** A batch up to this size leaves in a buffer of its own, so that a link that is stuck holds no slab for a ping. */
const LENT_BYTES_MIN = 4 * 1024
/** Slabs kept for the next batch, 1.6 MB: one is filled while another is written, on the few links that are busy at once. */
const SPARE_MAX = 8

/**
 * Slabs that were written and can be filled again. Buffers that are made for each write are dear in a way that is easy
 * to overlook: V8 collects the whole heap each time a few dozen megabytes of them have come together.
 */
const spare: Buffer[] = []

/** The frames of one turn of the event loop, in order, as the few buffers they leave in. */
export class FrameBatch {
  /** Bytes gathered since the last `take`. */
  bytes = 0
  /** Frames since it was made. */
  frames = 0
  #slab: Buffer | undefined
  #at = 0
  /** Slabs that are full, and the part of each that is. */
  #full: Buffer[] = []
  #parts: Buffer[] = []
  /** Slabs of the takes whose bytes are not yet written, in order. */
  readonly #lent: Buffer[][] = []

  add(type: number, callId: number, payload: Buffer): void {
    const { length } = payload
    const slab = this.#room(FRAME_HEADER_BYTES + length)
    writeHeader(slab, this.#at, type, callId, length)
    slab.set(payload, this.#at + FRAME_HEADER_BYTES)
    this.#took(FRAME_HEADER_BYTES + length)
  }

  addOpen(callId: number, kind: number, timeoutMs: number, service: string, head: Buffer): void {
    const length = openBytes(service, head)
    const slab = this.#room(FRAME_HEADER_BYTES + length)
    writeHeader(slab, this.#at, FRAME.OPEN, callId, length)
    slab.set(head, writeOpenPrefix(slab, this.#at + FRAME_HEADER_BYTES, kind, timeoutMs, service))
    this.#took(FRAME_HEADER_BYTES + length)
  }

  /** Hands over what was gathered and begins anew. The buffers are used again after `written`, which is told once for each take, in order. */
  take(): Buffer[] {
    const { bytes } = this
    const slab = this.#slab
    this.bytes = 0
    const at = this.#at
    this.#at = 0
    if (this.#full.length === 0 && slab !== undefined && bytes <= LENT_BYTES_MIN) {
      this.#lent.push([])
      return bytes === 0 ? [] : [Buffer.from(slab.subarray(0, at))]
    }
    const slabs = this.#full
    const parts = this.#parts
    if (slab !== undefined) {
      slabs.push(slab)
      parts.push(slab.subarray(0, at))
    }
    this.#full = []
    this.#parts = []
    this.#slab = undefined
    this.#lent.push(slabs)
    return parts
  }

  /** What the oldest take handed over has been written, or never will be. */
  readonly written = (): void => {
    for (const slab of this.#lent.shift() ?? []) if (spare.length < SPARE_MAX) spare.push(slab)
  }

  /** A slab with so much room at `#at`. No frame is larger than a slab. */
  #room(bytes: number): Buffer {
    if (this.#slab !== undefined && this.#at + bytes > SLAB_BYTES) {
      this.#full.push(this.#slab)
      this.#parts.push(this.#slab.subarray(0, this.#at))
      this.#slab = undefined
      this.#at = 0
    }
    this.#slab ??= spare.pop() ?? Buffer.allocUnsafeSlow(SLAB_BYTES)
    return this.#slab
  }

  #took(bytes: number): void {
    this.frames++
    this.#at += bytes
    this.bytes += bytes
  }
}
