import { REUSED_BYTES_MAX } from '../proxy/call.ts'
import type { Carrier, CarrierHandler } from './carrier.ts'

/** Bytes on their way before `write` answers false: a socket's usual buffer. */
const HIGH_WATER_BYTES = 64 * 1024

/** What was handed on becomes this, so that who keeps it is found out. */
const SCRIBBLE = 0xa5

/** Cuts a run of bytes the way a network might; answers the length of the next piece, 1..`length`. */
export type Cut = (length: number) => number

/** One end of a pair in memory: bytes arrive in a later turn of the event loop, in pieces of any size. */
export class MemoryCarrier implements Carrier {
  readonly kind = 'memory'
  readonly address: string
  /** The most bytes that were on their way at once: what a test of back-pressure looks at. */
  bytesOnTheWayMax = 0
  /** Bytes delivered at this end. */
  bytesArrived = 0
  /** While true, nothing arrives at this end: a network that swallows packets, or a reader that stopped. */
  held = false
  readonly #cut: Cut
  #other: MemoryCarrier | undefined
  #handler: CarrierHandler | undefined
  readonly #arriving: Buffer[] = []
  #arrivingBytes = 0
  #scheduled = false
  #owesDrain = false
  #ended: string | undefined
  #closed = false

  constructor(address: string, cut: Cut) {
    this.address = address
    this.#cut = cut
  }

  join(other: MemoryCarrier): void {
    this.#other = other
  }

  start(handler: CarrierHandler): void {
    this.#handler = handler
    this.#schedule()
  }

  write(parts: readonly Buffer[], onWritten: () => void = () => {}): boolean {
    const other = this.#other
    process.nextTick(onWritten)
    if (this.#closed || this.#ended !== undefined || other === undefined || other.#closed) return true
    for (const part of parts) {
      other.#arriving.push(Buffer.from(part))
      other.#arrivingBytes += part.length
    }
    this.bytesOnTheWayMax = Math.max(this.bytesOnTheWayMax, other.#arrivingBytes)
    other.#schedule()
    this.#owesDrain = other.#arrivingBytes >= HIGH_WATER_BYTES
    return !this.#owesDrain
  }

  close(): void {
    if (this.#other !== undefined) this.#other.#end('the other end closed the connection')
    this.#end('closed by this node')
  }

  destroy(): void {
    this.#arriving.length = 0
    this.close()
  }

  /** Both ends learn that the line is cut; what was on its way is lost. */
  sever(): void {
    if (this.#other !== undefined) this.#other.#arriving.length = 0
    this.destroy()
  }

  /** Delivers again after `held`. */
  release(): void {
    this.held = false
    this.#schedule()
  }

  #end(reason: string): void {
    this.#ended ??= reason
    this.#schedule()
  }

  #drain(): void {
    if (!this.#owesDrain || this.#closed) return
    this.#owesDrain = false
    this.#handler?.onDrain()
  }

  #schedule(): void {
    if (this.#scheduled || this.#closed || this.#handler === undefined) return
    this.#scheduled = true
    setImmediate(() => this.#deliver())
  }

  #deliver(): void {
    this.#scheduled = false
    const handler = this.#handler
    if (handler === undefined || this.#closed || this.held) return
    for (let part = this.#arriving.shift(); part !== undefined; part = this.#arriving.shift()) {
      let at = 0
      while (at < part.length) {
        const next = Math.min(part.length, at + this.#cut(part.length - at))
        this.bytesArrived += next - at
        const chunk = part.subarray(at, next)
        handler.onBytes(chunk)
        if (chunk.length <= REUSED_BYTES_MAX) chunk.fill(SCRIBBLE)
        at = next
      }
      this.#arrivingBytes -= part.length
    }
    const other = this.#other
    if (other !== undefined) other.#drain()
    if (this.#ended !== undefined) {
      this.#closed = true
      handler.onClose(this.#ended)
    }
  }
}

/** Two ends of one line. Without `cut` every write arrives whole. */
export function memoryCarriers(cut: Cut = length => length): [MemoryCarrier, MemoryCarrier] {
  const pair: [MemoryCarrier, MemoryCarrier] = [new MemoryCarrier('memory:b', cut), new MemoryCarrier('memory:a', cut)]
  pair[0].join(pair[1])
  pair[1].join(pair[0])
  return pair
}
