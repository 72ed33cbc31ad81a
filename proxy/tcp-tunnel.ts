import type { Socket } from 'node:net'
import type { MeshErrorCode } from '../router/errors.ts'
import type { Candidate, NodeId, ServiceName } from '../router/model.ts'
import type { RouteFilter } from '../router/route-filter.ts'
import type { CallReset } from './call.ts'
import type { ExchangeDeps } from './exchange.ts'
import type { ClientConnection } from './ingress.ts'
import type { Attempt } from './mesh-answer.ts'
import { noPlace } from './no-place.ts'
import { Splice, type SpliceOwner } from './splice.ts'

const NO_HEAD = Buffer.alloc(0)

export type TunnelDeps = Pick<
  ExchangeDeps,
  'self' | 'candidates' | 'knows' | 'open' | 'nowMs' | 'counters' | 'onCallOver'
>

export interface TunnelRequest {
  readonly service: ServiceName
  /** Which places may take it; undefined: any. */
  readonly filter: RouteFilter | undefined
  readonly socket: Socket
  /** What was read of the socket already. */
  readonly first: Buffer
  /** How long it may take until an instance has the connection; 0: no limit. */
  readonly timeoutMs: number
  /** A connection on which nothing moves for so long is reset; 0: never. */
  readonly idleMs: number
}

/** Who has asked for the tunnel. */
export interface TunnelClient {
  /** An instance has the connection, says `head`. Bytes may be written now, before its own; or `fail` says that it is no good. */
  onConnected(head: Buffer): void
  /** It came to nothing, before an instance had it. Nothing follows but `onGone`. */
  onFailed(code: MeshErrorCode, reason: string): void
  /** It was cut after an instance had it. */
  onCut(code: MeshErrorCode, reason: string): void
  /** The socket is closed. */
  onGone(): void
}

/**
 * One TCP connection where it enters the mesh: finds it a place, and another one if that fails.
 *
 * Another place is tried as long as no instance has the connection and nothing the client said can have reached one.
 * What it says meanwhile is sent at once, and kept for the next place (`Splice`).
 */
export class TcpTunnel implements ClientConnection, SpliceOwner {
  readonly request: TunnelRequest
  readonly attempts: Attempt[] = []
  /** A tunnel is in use until it is closed. */
  readonly idleSinceMs = undefined
  private readonly deps: TunnelDeps
  private readonly client: TunnelClient
  private readonly splice: Splice
  private readonly tried = new Set<NodeId>()
  private target: Candidate | undefined
  private address: string | undefined
  private isConnected = false
  private isOver = false
  private failure: { readonly code: MeshErrorCode; readonly reason: string } | undefined
  private startedAtMs = 0
  private openedAtMs = Number.NaN
  private connectedAtMs = Number.NaN

  constructor(deps: TunnelDeps, request: TunnelRequest, client: TunnelClient) {
    this.deps = deps
    this.request = request
    this.client = client
    this.splice = new Splice(request.socket, this, { code: 'cancelled', node: deps.self.id, who: 'the client' }, true)
  }

  /** Takes the socket over and looks for a place; `onFailed` may be told at once. */
  start(): void {
    this.startedAtMs = this.deps.nowMs()
    this.openedAtMs = this.startedAtMs
    this.address = this.request.socket.remoteAddress
    this.splice.start(this.request.first)
    this.attempt()
  }

  get inFlight(): number {
    return 1
  }

  tick(nowMs: number): void {
    if (this.isOver) return
    const { service, timeoutMs, idleMs } = this.request
    if (!this.splice.tick(nowMs, idleMs)) this.fail('deadline', `nothing moved on the connection for ${idleMs} ms`)
    else if (!this.isConnected && timeoutMs > 0 && nowMs - this.startedAtMs >= timeoutMs) {
      this.fail('deadline', `no instance of ${service} took the connection within ${timeoutMs} ms`)
    }
  }

  /** It ends when its ends do. */
  drain(): void {}

  destroy(): void {
    this.isOver = true
    this.splice.reset('draining', `${this.deps.self.name} is stopping`)
  }

  /** Bytes of the mesh's own, before the instance's. */
  write(bytes: Buffer): void {
    this.splice.write(bytes)
  }

  /** Tells the client why there is no tunnel, and closes. */
  finish(lastWord: Buffer): void {
    this.splice.finish(lastWord)
  }

  /** Ends it with an error of the mesh. */
  fail(code: MeshErrorCode, reason: string): void {
    if (this.isOver) return
    this.isOver = true
    this.deps.counters.failed++
    this.failure = { code, reason }
    if (this.isConnected) {
      this.splice.reset(code, reason)
      this.client.onCut(code, reason)
    } else {
      this.splice.detach(code, reason)
      this.client.onFailed(code, reason)
    }
  }

  // A place for it ---------------------------------------------------------------------------------------------------

  private attempt(): void {
    const { deps } = this
    const { service, filter, timeoutMs } = this.request
    for (const target of deps.candidates(service, filter)) {
      if (this.tried.has(target.node)) continue
      this.tried.add(target.node)
      this.target = target
      this.openedAtMs = deps.nowMs()
      const call = deps.open(target, { service, kind: 'tcp', timeoutMs, head: NO_HEAD })
      if (call !== undefined) return this.splice.attach(call)
      const reason = `no link to ${target.name} carries calls at this moment`
      this.attempts.push({ node: target.name, code: 'unreachable', reason })
    }
    const { code, reason: why } = this.attempts.at(-1) ?? noPlace(deps, service, filter)
    this.fail(code, why)
  }

  // What the splice tells --------------------------------------------------------------------------------------------

  onHead(head: Buffer): void {
    if (this.isConnected || this.isOver) return
    this.client.onConnected(head)
    if (this.isOver) return
    this.isConnected = true
    this.connectedAtMs = this.deps.nowMs()
    this.splice.settle()
  }

  onReset(reset: CallReset): boolean {
    const { code, reason } = reset
    if (this.isConnected) {
      if (!this.isOver) this.deps.counters.failed++
      this.isOver = true
      this.failure ??= { code, reason }
      this.client.onCut(code, reason)
      return false
    }
    this.attempts.push({ node: this.target?.name ?? '', code, reason })
    if (reset.unexecuted || !this.splice.hasSpoken) {
      this.deps.counters.retries++
      this.attempt()
    } else this.fail(code, reason)
    return true
  }

  onGone(): void {
    this.isOver = true
    this.client.onGone()
    this.report()
  }

  private report(): void {
    const { deps, request, splice, failure, target } = this
    deps.onCallOver?.({
      ...{ kind: 'tcp', protocol: 'TCP', service: request.service, method: '', target: '', client: this.address },
      ...{ status: 0, grpcStatus: undefined, egressNote: undefined, attempts: this.attempts },
      outcome: failure?.code ?? (splice.isWhole ? 'ok' : 'client-gone'),
      reason: failure?.reason ?? '',
      egress: target && { node: target.node, name: target.name },
      ...{ beganAtMs: this.startedAtMs, openedAtMs: this.openedAtMs, answeredAtMs: this.connectedAtMs },
      endedAtMs: deps.nowMs(),
      ...{ bytesIn: splice.bytesIn, bytesOut: splice.bytesOut },
    })
  }
}
