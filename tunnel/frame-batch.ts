import { FRAME, FRAME_HEADER_BYTES, openBytes, writeHeader, writeOpenPrefix } from './frame.ts'

/** Frames are gathered here; 32 KiB holds about 150 small calls, and a chunk this size costs little to allocate. */
const SLAB_BYTES = 32 * 1024
/** Payloads up to this are copied beside their header; bigger ones are written from where they lie. */
export const COPY_BYTES_MAX = 4 * 1024

/** The frames of one turn of the event loop, in order, as the few buffers they leave in. */
export class FrameBatch {
  /** Bytes gathered since the last `take`. */
  bytes = 0
  /** Frames since it was made. */
  frames = 0
  #slab: Buffer = Buffer.allocUnsafeSlow(SLAB_BYTES)
  #start = 0
  #at = 0
  #parts: Buffer[] = []

  add(type: number, callId: number, payload: Buffer): void {
    const length = payload.length
    if (length > COPY_BYTES_MAX) {
      this.#header(type, callId, length, 0)
      this.#reference(payload)
    } else {
      this.#header(type, callId, length, length)
      this.#copy(payload)
    }
    this.bytes += FRAME_HEADER_BYTES + length
  }

  addOpen(callId: number, kind: number, timeoutMs: number, service: string, head: Buffer): void {
    const length = openBytes(service, head)
    const prefixBytes = length - head.length
    const copied = head.length <= COPY_BYTES_MAX
    this.#header(FRAME.OPEN, callId, length, copied ? length : prefixBytes)
    this.#at = writeOpenPrefix(this.#slab, this.#at, kind, timeoutMs, service)
    if (copied) this.#copy(head)
    else this.#reference(head)
    this.bytes += FRAME_HEADER_BYTES + length
  }

  /** Hands over what was gathered and begins anew. The buffers may be written at leisure: nothing is written to them again. */
  take(): Buffer[] {
    this.#cut()
    const parts = this.#parts
    this.#parts = []
    this.bytes = 0
    return parts
  }

  #header(type: number, callId: number, length: number, room: number): void {
    if (this.#at + FRAME_HEADER_BYTES + room > SLAB_BYTES) {
      this.#cut()
      this.#slab = Buffer.allocUnsafeSlow(SLAB_BYTES)
      this.#start = 0
      this.#at = 0
    }
    this.frames++
    writeHeader(this.#slab, this.#at, type, callId, length)
    this.#at += FRAME_HEADER_BYTES
  }

  #copy(payload: Buffer): void {
    this.#slab.set(payload, this.#at)
    this.#at += payload.length
  }

  #reference(payload: Buffer): void {
    this.#cut()
    this.#parts.push(payload)
  }

  #cut(): void {
    if (this.#at === this.#start) return
    this.#parts.push(this.#slab.subarray(this.#start, this.#at))
    this.#start = this.#at
  }
}
