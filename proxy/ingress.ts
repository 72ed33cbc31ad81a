import { createServer, type Server, type Socket } from 'node:net'
import type { SecureContext } from 'node:tls'
import type { Log } from '../router/log.ts'
import type { Candidate, NodeId, ServiceName } from '../router/model.ts'
import type { RouteFilter } from '../router/route-filter.ts'
import { KEEP_ALIVE_MS } from './address.ts'
import type { Call, CallOpen } from './call.ts'
import type { CallReport } from './call-report.ts'
import { openConnectTunnel } from './connect-tunnel.ts'
import type { ExchangeDeps } from './exchange.ts'
import { H2Ingress } from './h2-ingress.ts'
import { IngressConnection } from './ingress-connection.ts'
import type { Wishes } from './ingress-request.ts'
import { loadTls, type TlsFiles, TlsHandshake } from './ingress-tls.ts'
import { listen } from './listen.ts'

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
  /** Told once for each call when it is over, and for each request that was refused. Must not throw. */
  onCallOver?: (report: CallReport) => void
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
  /** Connections of clients at a time. For one more, those that have been without a request for longest are closed. */
  readonly clientConnectionsMax: number
  /** With them the port takes TLS as well, told apart by its first byte. */
  readonly tls?: TlsFiles
}

/** 32,768 connections: about 250 MB when all are idle (`npm run bench -- calls` measures it). */
export const INGRESS_DEFAULTS = {
  clientTimeoutMs: 60_000,
  idleTimeoutMs: 75_000,
  clientConnectionsMax: 32_768,
  tcpIdleMs: 3_600_000,
}

/** Idle connections closed at once when there are too many, so that looking for them is not done for each new one. nginx's. */
const CLOSED_AT_ONCE = 32
/** Those beyond the limit that are told so at a time; more are closed without a word. */
const TURNED_AWAY_MAX = 1000
/** Between two lines in the log about connections that are turned away. */
const TOLD_EVERY_MS = 60_000

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
  /** Since when there is no request on it and none has begun to come; undefined: there is one. */
  readonly idleSinceMs: number | undefined
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
  /** Those of them that were asked to go because there were too many, and have not gone yet. */
  private readonly leaving = new Set<ClientConnection>()
  private toldAtMs = Number.NEGATIVE_INFINITY
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
    const keepAlive = { keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS }
    this.server = createServer({ allowHalfOpen: true, noDelay: true, ...keepAlive }, socket => this.onSocket(socket))
  }

  /** The port it listens on. Rejects with MeshError `port-in-use`, or `bad-config` for the files of `tls`. */
  async start(): Promise<number> {
    const { host, port, tls } = this.options
    if (tls !== undefined) this.context = loadTls(tls)
    const listening = await listen(this.server, { host, port, field: 'listen.http' })
    this.server.on('error', error => this.deps.log.error({ reason: error.message }, 'the HTTP ingress has a problem'))
    this.timer = setInterval(() => {
      const nowMs = this.deps.nowMs()
      for (const connection of this.connections) connection.tick(nowMs)
    }, TICK_MS)
    return listening
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

  private onSocket(socket: Socket): void {
    const { clientConnectionsMax } = this.options
    if (this.connections.size - this.leaving.size < clientConnectionsMax || this.closeIdle()) {
      this.onConnection(socket)
    } else this.turnAway(socket)
  }

  /** Closes those that are idle for longest. False: there are none. */
  private closeIdle(): boolean {
    const idle: { connection: ClientConnection; sinceMs: number }[] = []
    for (const connection of this.connections) {
      const sinceMs = this.leaving.has(connection) ? undefined : connection.idleSinceMs
      if (sinceMs !== undefined) idle.push({ connection, sinceMs })
    }
    idle.sort((a, b) => a.sinceMs - b.sinceMs)
    // No more than a part of them, or a small limit would leave none.
    const count = Math.min(CLOSED_AT_ONCE, Math.ceil(idle.length / 4))
    for (const { connection } of idle.slice(0, count)) {
      this.leaving.add(connection)
      connection.drain()
    }
    return count > 0
  }

  private turnAway(socket: Socket): void {
    const nowMs = this.deps.nowMs()
    const reason = `all ${this.options.clientConnectionsMax} client connections of this node are in use`
    if (nowMs - this.toldAtMs >= TOLD_EVERY_MS) {
      this.toldAtMs = nowMs
      this.deps.log.warn({ reason }, 'client connections are turned away')
    }
    if (this.leaving.size >= TURNED_AWAY_MAX) return void socket.destroy()
    const connection = this.onConnection(socket)
    this.leaving.add(connection)
    connection.turnAway(reason)
  }

  private onConnection(socket: Socket): IngressConnection {
    const connection: IngressConnection = new IngressConnection(this.exchangeDeps, this.options, socket, {
      onGone: () => this.remove(connection),
      onOther: (protocol, first) => (protocol === 'h2' ? this.onH2(socket, first) : this.onTls(socket, first)),
      onTunnel: (wishes, first) => this.onTunnel(socket, wishes, first),
    })
    this.add(connection)
    return connection
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
    this.leaving.delete(connection)
    // One that has turned out to speak HTTP/2 is gone and back within the turn.
    queueMicrotask(() => {
      if (this.connections.size === 0) this.whenIdle?.()
    })
  }
}
