import { createServer, type Server, type Socket } from 'node:net'
import type { SecureContext } from 'node:tls'
import { MeshError } from '../router/errors.ts'
import type { Log } from '../router/log.ts'
import type { Candidate, NodeId, ServiceName } from '../router/model.ts'
import type { RouteFilter } from '../router/route-filter.ts'
import type { Call, CallOpen } from './call.ts'
import { openConnectTunnel } from './connect-tunnel.ts'
import type { ExchangeDeps } from './exchange.ts'
import { H2Ingress } from './h2-ingress.ts'
import { IngressConnection } from './ingress-connection.ts'
import type { Wishes } from './ingress-request.ts'
import { loadTls, type TlsFiles, TlsHandshake } from './ingress-tls.ts'

/** What the ingress needs of the rest: where a service is answered, and a call to there. */
export interface IngressDeps {
  readonly self: { readonly id: NodeId; readonly name: string }
  readonly log: Log
  /** Nodes that can take the call now, best first; see Table.candidates. */
  candidates(service: ServiceName, filter: RouteFilter | undefined): readonly Candidate[]
  /** Whether anyone offers it, in good health or not; with a filter: whether anyone does whom it lets through. */
  knows(service: ServiceName, filter?: RouteFilter): boolean
  /** Undefined: there is no way to that node at this moment; nothing was sent. */
  open(target: Candidate, open: CallOpen): Call | undefined
  nowMs(): number
}

export interface IngressOptions {
  readonly host: string
  readonly port: number
  /** How long an answer may take to begin, unless the request says otherwise; counted from the last byte of the request. */
  readonly timeoutMs: number
  /** How much of a request's body is kept so that it can be sent to another place. */
  readonly retryBodyBytes: number
  /** A client that sends no byte of a head it began, or of a body it owes, for so long is too slow. 60 s: nginx's. */
  readonly clientTimeoutMs: number
  /** A connection without a request is closed after this. 75 s: nginx's keepalive_timeout; longer than most clients'. */
  readonly idleTimeoutMs: number
  /** A tunnel (CONNECT) on which nothing moves for so long is reset; 0: never. */
  readonly tcpIdleMs: number
  /** With them the port takes TLS as well, told apart by its first byte. */
  readonly tls?: TlsFiles
}

export const INGRESS_DEFAULTS = { clientTimeoutMs: 60_000, idleTimeoutMs: 75_000, tcpIdleMs: 3_600_000 }

/** How often time-outs are looked at: a coarse clock costs nothing per call. */
const TICK_MS = 100

export interface IngressCounters {
  total: number
  failed: number
  retries: number
}

/** A client's connection, of whichever protocol. */
export interface ClientConnection {
  /** Requests under way. */
  readonly inFlight: number
  start(): void
  /** Time-outs. */
  tick(nowMs: number): void
  /** Takes no new request, finishes those that have begun, and closes. */
  drain(): void
  destroy(): void
}

/** Where calls enter the mesh: HTTP/1.1 and HTTP/2, told apart by their first bytes, from the applications of this datacenter. */
export class Ingress {
  private readonly deps: IngressDeps
  private readonly options: IngressOptions
  private readonly connections = new Set<ClientConnection>()
  private readonly server: Server
  private timer: NodeJS.Timeout | undefined
  readonly counters: IngressCounters = { total: 0, failed: 0, retries: 0 }
  private readonly exchangeDeps: ExchangeDeps
  private context: SecureContext | undefined
  private isDraining = false
  private whenIdle: (() => void) | undefined

  constructor(deps: IngressDeps, options: IngressOptions) {
    this.deps = deps
    this.options = options
    this.exchangeDeps = { ...deps, counters: this.counters, retryBodyBytes: options.retryBodyBytes }
    this.server = createServer({ allowHalfOpen: true, noDelay: true }, socket => this.onConnection(socket))
  }

  /** The port it listens on. Rejects with MeshError `port-in-use`, or `bad-config` for the files of `tls`. */
  async start(): Promise<number> {
    const { host, port, tls } = this.options
    if (tls !== undefined) this.context = loadTls(tls)
    await new Promise<void>((resolve, reject) => {
      this.server.once('error', error =>
        reject(
          new MeshError(
            'port-in-use',
            `listen.http: cannot listen on ${host}:${port} (${error.message}); stop what holds it or choose another port`,
            { cause: error },
          ),
        ),
      )
      this.server.listen({ host, port }, resolve)
    })
    this.server.on('error', error => this.deps.log.error({ reason: error.message }, 'the HTTP ingress has a problem'))
    this.timer = setInterval(() => {
      const nowMs = this.deps.nowMs()
      for (const connection of this.connections) connection.tick(nowMs)
    }, TICK_MS)
    const address = this.server.address()
    return typeof address === 'object' && address !== null ? address.port : port
  }

  get inFlight(): number {
    let count = 0
    for (const connection of this.connections) count += connection.inFlight
    return count
  }

  /** Takes no new connection, finishes every request that has begun, and closes. */
  async drain(): Promise<void> {
    this.isDraining = true
    this.server.close()
    for (const connection of this.connections) connection.drain()
    if (this.connections.size === 0) return
    await new Promise<void>(resolve => {
      this.whenIdle = resolve
    })
  }

  /** Ends everything at once. */
  async stop(): Promise<void> {
    clearInterval(this.timer)
    for (const connection of this.connections) connection.destroy()
    if (this.server.listening) await new Promise(resolve => this.server.close(resolve))
  }

  private onConnection(socket: Socket): void {
    const connection = new IngressConnection(this.exchangeDeps, this.options, socket, {
      onGone: () => this.remove(connection),
      onOther: (protocol, first) => (protocol === 'h2' ? this.onH2(socket, first) : this.onTls(socket, first)),
      onTunnel: (wishes, first) => this.onTunnel(socket, wishes, first),
    })
    this.add(connection)
  }

  private onH2(socket: Socket, first: Buffer): void {
    const connection = new H2Ingress(this.exchangeDeps, this.options, socket, () => this.remove(connection))
    this.add(connection)
    connection.push(first)
    if (this.isDraining) connection.drain()
  }

  private onTls(socket: Socket, first: Buffer): void {
    const { context, options } = this
    if (context === undefined) return void socket.destroy()
    const untilMs = this.deps.nowMs() + options.clientTimeoutMs
    const handshake = new TlsHandshake(socket, first, context, untilMs, {
      onGone: () => this.remove(handshake),
      onSecure: secure => this.onConnection(secure),
    })
    this.add(handshake)
  }

  private onTunnel(socket: Socket, wishes: Wishes, first: Buffer): void {
    const request = { ...wishes, socket, first, idleMs: this.options.tcpIdleMs }
    this.add(openConnectTunnel(this.exchangeDeps, request, tunnel => this.remove(tunnel)))
  }

  private add(connection: ClientConnection): void {
    this.connections.add(connection)
    connection.start()
  }

  private remove(connection: ClientConnection): void {
    this.connections.delete(connection)
    // One that has turned out to speak HTTP/2 is gone and back within the turn.
    queueMicrotask(() => {
      if (this.connections.size === 0) this.whenIdle?.()
    })
  }
}
