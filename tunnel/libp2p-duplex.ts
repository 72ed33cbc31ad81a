import { Duplex } from 'node:stream'
import type { Stream } from '@libp2p/interface'

/** Held at each end beside the muxer's window, in bytes: four TLS records. */
const HIGH_WATER_BYTES = 64 * 1024

/**
 * A libp2p stream as a stream of Node.
 *
 * Back-pressure both ways: `pause` before the muxer's window (1 MiB) reaches what libp2p resets a stream for (4 MiB), and
 * one write after the other, each when `send` has said that there is room. The ways libp2p offers itself either buffer
 * without bound or hang after a half-close.
 */
export class Libp2pDuplex extends Duplex {
  readonly #stream: Stream
  #onRoom: (() => void) | undefined
  #isEnded = false

  constructor(stream: Stream) {
    super({ readableHighWaterMark: HIGH_WATER_BYTES, writableHighWaterMark: HIGH_WATER_BYTES })
    this.#stream = stream
    // Whoever uses the stream hears of its end by 'close'; the reason must not end the process meanwhile.
    this.on('error', () => {})
    stream.addEventListener('message', event => {
      const { data } = event
      const bytes = data instanceof Uint8Array ? data : data.subarray()
      if (this.destroyed || this.#isEnded) return
      const goOn = this.push(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength))
      if (!goOn && stream.readStatus === 'readable') stream.pause()
    })
    stream.addEventListener('drain', () => this.#hasRoom())
    stream.addEventListener('remoteCloseWrite', () => {
      this.#isEnded = true
      if (!this.destroyed) this.push(null)
    })
    stream.addEventListener('close', event => this.destroy(event.error ?? undefined))
    if (stream.status !== 'open') setImmediate(() => this.destroy(new Error(`the stream was ${stream.status} at once`)))
  }

  override _read(): void {
    if (this.#stream.readStatus === 'paused') this.#stream.resume()
  }

  override _write(chunk: Buffer, _encoding: string, done: (error?: Error) => void): void {
    try {
      if (this.#stream.send(chunk)) done()
      else this.#onRoom = done
    } catch (error) {
      done(error instanceof Error ? error : new Error(String(error)))
    }
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#stream.close().then(
      () => done(),
      (error: unknown) => done(error instanceof Error ? error : new Error(String(error))),
    )
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#hasRoom()
    if (this.#stream.status === 'open') this.#stream.abort(error ?? new Error('closed'))
    done(error)
  }

  #hasRoom(): void {
    const onRoom = this.#onRoom
    this.#onRoom = undefined
    onRoom?.()
  }
}
