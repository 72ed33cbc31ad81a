import { Duplex } from 'node:stream'
import type { Call, CallHandler, CallReset } from '../proxy/call.ts'
import { MeshError } from '../router/errors.ts'
import type { NodeId } from '../router/model.ts'
import { countPassed } from './young-garbage.ts'

/** What a TLS session over a call may hold at each end beyond the call's own window: four TLS records. */
const HIGH_WATER_BYTES = 64 * 1024

/** After its last word a stream that was closed in order is reset if the other end has not done so by then. */
const LINGER_MS = 2000

/**
 * A call as a stream of bytes, for what speaks over streams: the TLS session of a relayed link.
 *
 * Back-pressure is the call's: what is not read is not credited, and a write ends when the call has room again.
 * Errors: a reset destroys the stream with a MeshError of its code; the reset itself stays in `resetBy`.
 */
export class CallDuplex extends Duplex implements CallHandler {
  /** The reset that ended it, if one did. */
  resetBy: CallReset | undefined
  readonly call: Call
  readonly #self: NodeId
  #onRoom: (() => void) | undefined
  #linger: NodeJS.Timeout | undefined
  #hasSentEnd = false
  #hasHeardEnd = false

  constructor(call: Call, self: NodeId) {
    super({ readableHighWaterMark: HIGH_WATER_BYTES, writableHighWaterMark: HIGH_WATER_BYTES })
    this.call = call
    this.#self = self
    call.handler = this
    // Whoever uses the stream hears of its end by 'close'; the reason must not end the process meanwhile.
    this.on('error', () => {})
  }

  override _read(): void {
    this.call.resume()
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    countPassed(chunk.length)
    if (this.call.write(chunk)) done()
    else this.#onRoom = done
  }

  override _final(done: () => void): void {
    this.#hasSentEnd = true
    this.call.end()
    done()
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    if (this.resetBy === undefined) this.#leave(error)
    done(error)
  }

  #leave(error: Error | null): void {
    const reset = (): void => {
      const reason = error?.message ?? 'the relayed connection was closed'
      this.call.reset({ code: 'cancelled', reason, node: this.#self, unexecuted: false })
    }
    if (error !== null || !this.#hasSentEnd) reset()
    // A reset would overtake the last bytes, here or at a relay. Who reads their end closes the other direction.
    else if (!this.#hasHeardEnd) this.#linger = setTimeout(reset, LINGER_MS).unref()
  }

  onHead(): void {
    this.destroy(new MeshError('bad-frame', 'expected bytes on a relayed stream, found a head'))
  }

  onTrailers(): void {
    this.destroy(new MeshError('bad-frame', 'expected bytes on a relayed stream, found trailers'))
  }

  onData(chunk: Buffer): void {
    countPassed(chunk.length)
    if (!this.destroyed && !this.push(Buffer.from(chunk))) this.call.pause()
  }

  onEnd(): void {
    this.#hasHeardEnd = true
    clearTimeout(this.#linger)
    if (!this.destroyed) this.push(null)
  }

  onDrain(): void {
    const onRoom = this.#onRoom
    this.#onRoom = undefined
    onRoom?.()
  }

  onReset(reset: CallReset): void {
    this.resetBy = reset
    clearTimeout(this.#linger)
    this.destroy(new MeshError(reset.code, reset.reason))
  }
}
