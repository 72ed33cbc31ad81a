import { Duplex } from 'node:stream'
import type { Call, CallHandler, CallReset } from '../proxy/call.ts'
import { MeshError } from '../router/errors.ts'
import type { NodeId } from '../router/model.ts'

/** What a TLS session over a call may hold at each end beyond the call's own window: four TLS records. */
const HIGH_WATER_BYTES = 64 * 1024

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
    if (this.call.write(chunk)) done()
    else this.#onRoom = done
  }

  override _final(done: () => void): void {
    this.call.end()
    done()
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    if (this.resetBy === undefined) {
      const reason = error?.message ?? 'the relayed connection was closed'
      this.call.reset({ code: 'cancelled', reason, node: this.#self, unexecuted: false })
    }
    done(error)
  }

  onHead(): void {
    this.destroy(new MeshError('bad-frame', 'expected bytes on a relayed stream, found a head'))
  }

  onTrailers(): void {
    this.destroy(new MeshError('bad-frame', 'expected bytes on a relayed stream, found trailers'))
  }

  onData(chunk: Buffer): void {
    if (!this.destroyed && !this.push(chunk)) this.call.pause()
  }

  onEnd(): void {
    if (!this.destroyed) this.push(null)
  }

  onDrain(): void {
    const onRoom = this.#onRoom
    this.#onRoom = undefined
    onRoom?.()
  }

  onReset(reset: CallReset): void {
    this.resetBy = reset
    this.destroy(new MeshError(reset.code, reset.reason))
  }
}
