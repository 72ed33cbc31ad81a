import { readFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { createSecureContext, type SecureContext, TLSSocket } from 'node:tls'
import { MeshError, messageOf } from '../router/errors.ts'
import type { ClientConnection } from './ingress.ts'

/** PEM files: the certificate with those between it and a root its clients trust, and its key. */
export interface TlsFiles {
  readonly cert: string
  readonly key: string
}

/** The first byte of a TLS handshake record. No method of HTTP begins like it. */
const HANDSHAKE_RECORD = 0x16

export function looksLikeTls(first: Buffer): boolean {
  return first[0] === HANDSHAKE_RECORD
}

/** Reads certificate and key. Errors: MeshError `bad-config` that names the file or what does not fit. */
export function loadTls(files: TlsFiles): SecureContext {
  const [cert, key] = (['cert', 'key'] as const).map(name => {
    try {
      return readFileSync(files[name])
    } catch (cause) {
      const reason = messageOf(cause)
      throw new MeshError('bad-config', `proxy.tls.${name}: expected a PEM file, found none: ${reason}`, { cause })
    }
  })
  try {
    return createSecureContext({ ...(cert !== undefined && { cert }), ...(key !== undefined && { key }) })
  } catch (cause) {
    const reason = messageOf(cause)
    throw new MeshError('bad-config', `proxy.tls: ${files.cert} and ${files.key} do not make a server: ${reason}`, {
      cause,
    })
  }
}

/** A client's connection during its TLS handshake. Afterwards its bytes are told apart as those of any other. */
export class TlsHandshake implements ClientConnection {
  readonly inFlight = 0
  readonly idleSinceMs = undefined
  private readonly socket: Socket
  private readonly context: SecureContext
  private readonly untilMs: number
  private readonly events: { onGone(): void; onSecure(socket: TLSSocket): void }
  private isOver = false

  /** `first`: what was read of the socket already. */
  constructor(
    socket: Socket,
    first: Buffer,
    context: SecureContext,
    untilMs: number,
    events: { onGone(): void; onSecure(socket: TLSSocket): void },
  ) {
    this.socket = socket
    this.context = context
    this.untilMs = untilMs
    this.events = events
    socket.pause()
    socket.unshift(first)
  }

  start(): void {
    const { socket, context } = this
    // Both speak for themselves afterwards; ALPN only tells the client that it may.
    const secure = new TLSSocket(socket, { isServer: true, secureContext: context, ALPNProtocols: ['h2', 'http/1.1'] })
    secure.on('error', () => {})
    secure.once('close', () => this.finish(undefined))
    socket.once('close', () => secure.destroy())
    socket.on('error', () => secure.destroy())
    secure.once('secure', () => this.finish(secure))
  }

  tick(nowMs: number): void {
    if (nowMs >= this.untilMs) this.destroy()
  }

  /** No request has begun on it. */
  drain(): void {
    this.destroy()
  }

  destroy(): void {
    this.socket.destroy()
  }

  private finish(secure: TLSSocket | undefined): void {
    if (this.isOver) return
    this.isOver = true
    this.events.onGone()
    if (secure !== undefined) this.events.onSecure(secure)
  }
}
