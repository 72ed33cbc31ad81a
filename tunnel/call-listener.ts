import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { createServer as createTlsServer, type TLSSocket, type TlsOptions, type Server as TlsServer } from 'node:tls'
import type { Call } from '../proxy/call.ts'
import { MeshError } from '../router/errors.ts'
import type { NodeId } from '../router/model.ts'
import type { Identity } from './identity.ts'
import { formatAddress } from './tls-carrier.ts'
import { CALLS_ALPN, provenPeer } from './tls-peer.ts'

export interface CallListenerOptions {
  readonly listen: { readonly host: string; readonly port: number }
  readonly extraAlpn: readonly string[]
  readonly handshakeTimeoutMs: number
  /** Connections that have not proven themselves yet: what strangers can hold open. */
  readonly handshakesMax: number
  /** The same from one address. */
  readonly handshakesPerIpMax: number
  /** New connections of one address per second. */
  readonly connectionsPerIpPerSecondMax: number
}

/** Where a stream that is not a connection to the port comes from. */
export interface StreamOrigin {
  readonly kind: 'relayed' | 'overlay'
  /** Who is said to speak: it has yet to prove it. */
  readonly peer: NodeId
  /** The relays that passed it on, the nearest to this node first; empty for a stream of the overlay. */
  readonly via: readonly NodeId[]
  /** Of a relayed stream: the call that carries it here. */
  readonly call?: Call
}

export interface CallListenerDeps {
  readonly identity: Identity
  readonly isMember: (node: NodeId) => boolean
  /** `origin` undefined: a connection to the port. */
  readonly onPeer: (socket: TLSSocket, peer: NodeId, origin: StreamOrigin | undefined) => void
  readonly onExtraProtocol: (socket: TLSSocket, alpn: string) => void
  /** A connection was turned away; `who` is the address it came from. */
  readonly onRefused: (kind: 'stranger' | 'handshake' | 'flood', who: string, reason: string) => void
}

/** Addresses whose connections of this second are counted apart; the rest share one count. Bounds the memory of a scan. */
const COUNTED_IPS_MAX = 4_096

/**
 * The port other nodes connect to. A connection reaches `onPeer` only after both ends are proven; before that it costs
 * one TLS handshake at most, and no frame of it is read.
 */
export class CallListener {
  readonly #deps: CallListenerDeps
  readonly #options: CallListenerOptions
  #server: Server | undefined
  #tls: TlsServer | undefined
  /** By remote address and port, which the raw and the TLS socket of a connection share. */
  readonly #unproven = new Map<string, Duplex>()
  readonly #unprovenByIp = new Map<string, number>()
  readonly #newByIp = new Map<string, number>()
  #second = 0
  #streams = 0
  #closed: Promise<void> | undefined

  constructor(deps: CallListenerDeps, options: CallListenerOptions) {
    this.#deps = deps
    this.#options = options
  }

  /** Rejects with MeshError `port-in-use` or `bad-config` if the address cannot be used. */
  async start(): Promise<AddressInfo> {
    const { onRefused } = this.#deps
    const { host, port } = this.#options.listen
    const tls = createTlsServer(this.#tlsOptions([CALLS_ALPN, ...this.#options.extraAlpn]), socket => {
      this.#leaveUnproven(connectionKey(socket), socket.remoteAddress ?? '?')
      this.#onSecure(socket, socket.remoteAddress ?? '?', undefined)
    })
    tls.on('tlsClientError', (error, socket) => {
      onRefused('handshake', socket.remoteAddress ?? '?', error.message)
      this.#leaveUnproven(connectionKey(socket), socket.remoteAddress ?? '?')
      socket.destroy()
    })
    const server = createServer({ noDelay: true, pauseOnConnect: false }, socket => this.#onConnection(socket))
    await new Promise<void>((resolve, reject) => {
      server.once('error', (error: NodeJS.ErrnoException) => reject(listenError(error, host, port)))
      server.listen(port, host, () => resolve())
    })
    server.removeAllListeners('error')
    // Accepting can fail for a while (too many open files); what is open goes on.
    server.on('error', error => onRefused('flood', '?', error.message))
    this.#server = server
    this.#tls = tls
    const address = server.address()
    if (address === null || typeof address === 'string') throw new Error('bug: a TCP server has no port')
    return address
  }

  /**
   * Takes a stream that did not come by the port: the same handshake, the same proofs, the same limits. Strangers cannot
   * bring one, for it came over a link with a member; but who speaks on it has yet to be proven.
   */
  take(stream: Duplex, origin: StreamOrigin): void {
    const { onRefused } = this.#deps
    stream.on('error', () => {})
    const refusal = this.#closed === undefined ? this.#refusal(origin.peer) : 'this node takes no new links'
    if (refusal !== undefined) {
      onRefused('flood', origin.peer, refusal)
      stream.destroy()
      return
    }
    const key = `stream ${this.#streams++}`
    this.#enterUnproven(key, origin.peer, stream)
    stream.once('close', () => this.#leaveUnproven(key, origin.peer))
    // One for each, because what it takes does not say where it comes from. It listens nowhere, and costs 0.3 ms.
    const tls = createTlsServer(this.#tlsOptions([CALLS_ALPN]), socket => {
      this.#leaveUnproven(key, origin.peer)
      this.#onSecure(socket, origin.peer, origin)
    })
    tls.on('tlsClientError', (error, socket) => {
      onRefused('handshake', origin.peer, error.message)
      this.#leaveUnproven(key, origin.peer)
      socket.destroy()
      stream.destroy()
    })
    tls.emit('connection', stream)
  }

  /** Takes no further connection; those that are proven go on. Resolves when the last of them is closed. */
  close(): Promise<void> {
    const server = this.#server
    if (server === undefined) return Promise.resolve()
    this.#closed ??= new Promise(resolve => server.close(() => resolve()))
    for (const socket of [...this.#unproven.values()]) socket.destroy()
    return this.#closed
  }

  #tlsOptions(protocols: string[]): TlsOptions {
    const { identity } = this.#deps
    return {
      key: identity.keyPem,
      cert: identity.certificatePem,
      ca: identity.rootPem,
      minVersion: 'TLSv1.3',
      requestCert: true,
      // Judged in #onSecure: a node that is joining has no certificate yet and speaks an extra protocol.
      rejectUnauthorized: false,
      ALPNProtocols: protocols,
      handshakeTimeout: this.#options.handshakeTimeoutMs,
    }
  }

  #onConnection(socket: Socket): void {
    const ip = socket.remoteAddress ?? '?'
    const refusal = this.#refusal(ip)
    if (refusal !== undefined) {
      this.#deps.onRefused('flood', ip, refusal)
      socket.destroy()
      return
    }
    const key = connectionKey(socket)
    this.#enterUnproven(key, ip, socket)
    socket.once('close', () => this.#leaveUnproven(key, ip))
    socket.on('error', () => {})
    this.#tls?.emit('connection', socket)
  }

  /** Why one more connection of this address is too many. */
  #refusal(ip: string): string | undefined {
    const { handshakesMax, handshakesPerIpMax, connectionsPerIpPerSecondMax } = this.#options
    const second = Math.floor(performance.now() / 1_000)
    if (second !== this.#second) {
      this.#second = second
      this.#newByIp.clear()
    }
    const counted = this.#newByIp.size < COUNTED_IPS_MAX || this.#newByIp.has(ip) ? ip : 'others'
    const connections = (this.#newByIp.get(counted) ?? 0) + 1
    this.#newByIp.set(counted, connections)
    if (connections > connectionsPerIpPerSecondMax) {
      return `expected at most ${connectionsPerIpPerSecondMax} connections of an address per second, found more`
    }
    if (this.#unproven.size >= handshakesMax) return `expected at most ${handshakesMax} open handshakes, found more`
    if ((this.#unprovenByIp.get(ip) ?? 0) >= handshakesPerIpMax) {
      return `expected at most ${handshakesPerIpMax} open handshakes of an address, found more`
    }
    return undefined
  }

  #onSecure(socket: TLSSocket, who: string, origin: StreamOrigin | undefined): void {
    const deps = this.#deps
    socket.on('error', () => {})
    const refuse = (reason: string): void => {
      deps.onRefused('stranger', who, reason)
      socket.destroy()
    }
    const alpn = socket.alpnProtocol
    if (typeof alpn !== 'string') {
      refuse(`expected ${CALLS_ALPN}, found no protocol`)
      return
    }
    if (alpn !== CALLS_ALPN) {
      deps.onExtraProtocol(socket, alpn)
      return
    }
    const proven = provenPeer(socket, deps.identity.rootPem)
    if ('reason' in proven) refuse(proven.reason)
    else if (proven.node === deps.identity.nodeId) refuse('expected another node, found this one')
    else if (!deps.isMember(proven.node)) refuse(`expected a member of this mesh, found ${proven.node}`)
    else if (origin !== undefined && proven.node !== origin.peer)
      refuse(`expected ${origin.peer}, found ${proven.node}`)
    else deps.onPeer(socket, proven.node, origin)
  }

  #enterUnproven(key: string, from: string, stream: Duplex): void {
    this.#unproven.set(key, stream)
    this.#unprovenByIp.set(from, (this.#unprovenByIp.get(from) ?? 0) + 1)
  }

  #leaveUnproven(key: string, ip: string): void {
    if (!this.#unproven.delete(key)) return
    const left = (this.#unprovenByIp.get(ip) ?? 1) - 1
    if (left === 0) this.#unprovenByIp.delete(ip)
    else this.#unprovenByIp.set(ip, left)
  }
}

function connectionKey(socket: Socket): string {
  return `${socket.remoteAddress ?? '?'}|${socket.remotePort ?? 0}`
}

function listenError(error: NodeJS.ErrnoException, host: string, port: number): MeshError {
  const at = formatAddress(host, port)
  if (error.code === 'EADDRINUSE') {
    const message = `the call port ${at} is in use: stop the other program or set listen.calls to a free port`
    return new MeshError('port-in-use', message, { cause: error })
  }
  const message = `cannot listen for calls at ${at}: ${error.message}; set listen.calls to an address of this machine`
  return new MeshError('bad-config', message, { cause: error })
}
