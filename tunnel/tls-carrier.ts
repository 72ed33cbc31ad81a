import type { TLSSocket } from 'node:tls'
import { readShared } from '../proxy/shared-read.ts'
import type { Carrier, CarrierHandler, CarrierKind } from './carrier.ts'

/** How long `close` waits for a peer that does not read. Guess: a last frame needs one round trip, not two seconds. */
const CLOSE_WAIT_MS = 2_000

/** Of a record of TLS: more is never read at once. */
const RECORD_BYTES_MAX = 16 * 1024

const NO_BYTES = Buffer.alloc(0)
const nothing = (): void => {}

/** A mutual TLS 1.3 session over a socket or another stream, whose handshake is over and whose peer was checked. */
export class TlsCarrier implements Carrier {
  readonly kind: CarrierKind
  readonly address: string
  readonly #socket: TLSSocket

  /** `address`: what stands for the other end where there is no address. */
  constructor(socket: TLSSocket, kind: CarrierKind = 'direct', address?: string) {
    this.#socket = socket
    this.kind = kind
    this.address = address ?? formatAddress(socket.remoteAddress ?? '?', socket.remotePort ?? 0)
  }

  start(handler: CarrierHandler): void {
    const socket = this.#socket
    let reason = 'the other end closed the connection'
    socket.setNoDelay(true)
    // Of its own: what one link says may be the bytes of another, which is then read while this one's are being handed on.
    const buffer = Buffer.allocUnsafeSlow(RECORD_BYTES_MAX)
    readShared(socket, (chunk, end) => handler.onBytes(chunk.subarray(0, end)), buffer)
    socket.on('drain', () => handler.onDrain())
    socket.on('error', error => {
      reason = error.message
    })
    // A link is both directions or nothing: half of one cannot answer a call.
    socket.on('end', () => socket.destroy())
    if (socket.closed) setImmediate(() => handler.onClose(reason))
    else socket.on('close', () => handler.onClose(reason))
  }

  write(parts: readonly Buffer[], onWritten: () => void = nothing): boolean {
    const socket = this.#socket
    const last = parts.length - 1
    if (last < 0 || socket.destroyed || socket.writableEnded) {
      process.nextTick(onWritten)
      return true
    }
    // One buffer is encrypted where it lies, several would be copied together first.
    let goOn = true
    for (let i = 0; i <= last; i++) {
      const part = parts[i] ?? NO_BYTES
      goOn = socket.write(part, i === last ? onWritten : nothing)
    }
    return goOn
  }

  close(): void {
    const socket = this.#socket
    if (socket.destroyed) return
    const timer = setTimeout(() => socket.destroy(), CLOSE_WAIT_MS)
    socket.once('close', () => clearTimeout(timer))
    socket.destroySoon()
  }

  destroy(): void {
    this.#socket.destroy()
  }
}

/** `host:port`, with brackets around an IPv6 host. */
export function formatAddress(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}
