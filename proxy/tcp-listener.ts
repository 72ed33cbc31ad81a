import { createServer, type Server, type Socket } from 'node:net'
import type { MeshErrorCode } from '../router/errors.ts'
import type { Log } from '../router/log.ts'
import type { ServiceName } from '../router/model.ts'
import { KEEP_ALIVE_MS } from './address.ts'
import { listen } from './listen.ts'
import { resetSocket, SPLICE_TICK_MS } from './splice.ts'
import { TcpTunnel, type TunnelClient, type TunnelDeps } from './tcp-tunnel.ts'

/** Connections the kernel keeps until they are taken. 4096: Linux's own limit (net.core.somaxconn) since 5.4. */
const BACKLOG = 4096
/** Between two lines in the log about connections that came to nothing. Guess: seen at once, and no flood. */
const LOG_MS = 10_000
const NO_BYTES = Buffer.alloc(0)

export interface TcpListenerOptions {
  readonly host: string
  readonly port: number
  readonly service: ServiceName
  /** Open at once; one more is reset as it comes. */
  readonly connectionsMax: number
  /** How long it may take until an instance has a connection; 0: no limit. */
  readonly timeoutMs: number
  /** A connection on which nothing moves for so long is reset; 0: never. */
  readonly idleMs: number
}

/**
 * A port whose connections go to one service, byte for byte.
 *
 * Errors: there is no way to tell a client of TCP why, so a connection that comes to nothing is reset, never closed in order,
 * and the log says why, a line each `LOG_MS`.
 */
export class TcpListener {
  private readonly deps: TunnelDeps & { readonly log: Log }
  private readonly options: TcpListenerOptions
  private readonly server: Server
  private readonly tunnels = new Set<TcpTunnel>()
  private timer: NodeJS.Timeout | undefined
  private whenIdle: (() => void) | undefined
  private loggedAtMs = Number.NEGATIVE_INFINITY
  private unloggedCount = 0

  constructor(deps: TcpListener['deps'], options: TcpListenerOptions) {
    this.deps = deps
    this.options = options
    const socket = { allowHalfOpen: true, noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS }
    this.server = createServer(socket, connection => this.onConnection(connection))
  }

  get inFlight(): number {
    return this.tunnels.size
  }

  /** The port it listens on. Rejects with MeshError `port-in-use`. */
  async start(): Promise<number> {
    const { host, port, service } = this.options
    const at = { host, port, backlog: BACKLOG, field: 'listeners', what: ` for ${service}` }
    const listening = await listen(this.server, at)
    this.server.on('error', error => {
      this.deps.log.error({ service, reason: error.message }, 'a TCP listener has a problem')
    })
    this.timer = setInterval(() => {
      const nowMs = this.deps.nowMs()
      for (const tunnel of this.tunnels) tunnel.tick(nowMs)
    }, SPLICE_TICK_MS)
    return listening
  }

  /** Takes no new connection and resolves when those there are have ended. */
  async drain(): Promise<void> {
    this.server.close()
    if (this.tunnels.size === 0) return
    await new Promise<void>(resolve => {
      this.whenIdle = resolve
    })
  }

  /** Resets everything at once. */
  async stop(): Promise<void> {
    clearInterval(this.timer)
    for (const tunnel of this.tunnels) tunnel.destroy()
    if (this.server.listening) await new Promise(resolve => this.server.close(resolve))
  }

  private onConnection(socket: Socket): void {
    const { service, connectionsMax, timeoutMs, idleMs } = this.options
    this.deps.counters.total++
    if (this.tunnels.size >= connectionsMax) {
      socket.on('error', () => {})
      resetSocket(socket)
      this.deps.counters.failed++
      this.onReset('overloaded', `${connectionsMax} connections are open, the most this listener takes`)
      return
    }
    const client: TunnelClient = {
      onConnected() {},
      onFailed: (code, reason) => {
        tunnel.destroy()
        this.onReset(code, reason)
      },
      onCut: (code, reason) => {
        // That an instance has reset a connection is what the instance had to say.
        if (code !== 'instance-lost') this.onReset(code, reason)
      },
      onGone: () => {
        this.tunnels.delete(tunnel)
        if (this.tunnels.size === 0) this.whenIdle?.()
      },
    }
    const request = { service, filter: undefined, socket, first: NO_BYTES, timeoutMs, idleMs }
    const tunnel = new TcpTunnel(this.deps, request, client)
    this.tunnels.add(tunnel)
    tunnel.start()
  }

  private onReset(code: MeshErrorCode, reason: string): void {
    const nowMs = this.deps.nowMs()
    this.unloggedCount++
    if (nowMs - this.loggedAtMs < LOG_MS) return
    const { service } = this.options
    this.deps.log.warn({ service, code, reason, count: this.unloggedCount }, 'TCP connections were reset')
    this.loggedAtMs = nowMs
    this.unloggedCount = 0
  }
}
