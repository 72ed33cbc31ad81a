import type { Duplex } from 'node:stream'
import { type ConnectionOptions, connect, createSecureContext, type SecureContext, type TLSSocket } from 'node:tls'
import { MeshError, messageOf } from '../router/errors.ts'
import type { NodeId } from '../router/model.ts'
import { verifyNodeCertificate } from './certificate.ts'
import type { Identity } from './identity.ts'

/** The protocol of `docs/wire.md`, "Calls", as TLS names it. */
export const CALLS_ALPN = 'flatmesh-calls/1'

/** What this node proves itself with, and the only root it believes. */
export function meshSecureContext(identity: Identity): SecureContext {
  return createSecureContext({
    key: identity.keyPem,
    cert: identity.certificatePem,
    ca: identity.rootPem,
    minVersion: 'TLSv1.3',
  })
}

/** Who the other end of a finished handshake has proven to be, or why it is nobody of this mesh. */
export function provenPeer(socket: TLSSocket, rootPem: string): { node: NodeId } | { reason: string } {
  const certificate = socket.getPeerX509Certificate()
  if (certificate === undefined) return { reason: 'expected a certificate of this mesh, found none' }
  if (!socket.authorized) {
    const error: unknown = socket.authorizationError
    const found = messageOf(error)
    return { reason: `expected a valid certificate of this mesh, found one refused as ${found}` }
  }
  // TLS has proven the key and the chain; this also asks that it is a node's certificate, not just one of the root's.
  const verdict = verifyNodeCertificate(certificate.raw, rootPem, Date.now())
  return verdict.ok ? { node: verdict.nodeId } : { reason: verdict.reason }
}

/** A connection on its way; `cancel` ends it, and `socket` then rejects. */
export interface Dial {
  readonly socket: Promise<TLSSocket>
  cancel(): void
}

/**
 * Connects to `peer` at `address` and proves both ends to each other.
 *
 * Errors: MeshError `unreachable` (no connection, no handshake, or none in time), `not-a-member` (someone else answered).
 */
export function dialPeer(
  context: SecureContext,
  rootPem: string,
  peer: NodeId,
  address: string,
  timeoutMs: number,
): Dial {
  const target = parseAddress(address)
  if (target === undefined) {
    const error = new MeshError('unreachable', `expected host:port as the address of ${peer}, found ${address}`)
    return { socket: Promise.reject(error), cancel() {} }
  }
  return handshake(context, rootPem, peer, address, target, timeoutMs)
}

/**
 * The same over a stream that leads to `peer` already; `at` says in messages where it leads along.
 * The stream is the connection's: it is destroyed with it.
 */
export function dialOver(
  context: SecureContext,
  rootPem: string,
  peer: NodeId,
  at: string,
  stream: Duplex,
  timeoutMs: number,
): Dial {
  return handshake(context, rootPem, peer, at, { socket: stream }, timeoutMs)
}

function handshake(
  context: SecureContext,
  rootPem: string,
  peer: NodeId,
  address: string,
  target: ConnectionOptions,
  timeoutMs: number,
): Dial {
  // The chain is checked here, the name below: a node is its key, not the address it has today.
  const socket = connect({
    ...target,
    secureContext: context,
    minVersion: 'TLSv1.3',
    ALPNProtocols: [CALLS_ALPN],
    rejectUnauthorized: true,
    checkServerIdentity: () => undefined,
  })
  const promise = new Promise<TLSSocket>((resolve, reject) => {
    const fail = (code: 'unreachable' | 'not-a-member', reason: string): void => {
      clearTimeout(timer)
      socket.destroy()
      reject(new MeshError(code, `cannot reach ${peer} at ${address}: ${reason}`))
    }
    const timer = setTimeout(() => fail('unreachable', `no answer within ${timeoutMs} ms`), timeoutMs)
    socket.on('error', error => fail('unreachable', error.message))
    socket.once('close', () => fail('unreachable', 'the connection was closed'))
    socket.once('secureConnect', () => {
      const proven = provenPeer(socket, rootPem)
      if ('reason' in proven) fail('not-a-member', proven.reason)
      else if (proven.node !== peer) fail('not-a-member', `another node answers there: ${proven.node}`)
      else if (socket.alpnProtocol !== CALLS_ALPN) fail('unreachable', `it does not speak ${CALLS_ALPN}`)
      else {
        clearTimeout(timer)
        resolve(socket)
      }
    })
  })
  return { socket: promise, cancel: () => socket.destroy() }
}

/** `host:port` or `[v6]:port`. */
function parseAddress(address: string): { host: string; port: number } | undefined {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(address)
  const host = match?.[1] ?? match?.[2]
  const port = Number(match?.[3])
  return host === undefined || port < 1 || port > 65_535 ? undefined : { host, port }
}
