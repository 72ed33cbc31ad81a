import type { ServiceName } from '../router/model.ts'
import type { Call, CallHandler, CallOpen, CallReset } from './call.ts'
import type { Dispatcher, Seeker, Ticket } from './dispatcher.ts'
import type { EgressCallDeps } from './egress.ts'
import { egressNoteLine } from './egress-note.ts'
import type { RequestHead } from './http1-head.ts'
import type { InstanceState } from './instances.ts'
import { isIdempotent } from './retry.ts'

/**
 * One call at its egress, whatever its instance speaks: how it comes by a connection, and what came of its request before
 * that. `C` is the connection.
 */
export abstract class EgressCallBase<C> implements CallHandler, Seeker<C> {
  readonly isIdempotent: boolean
  protected readonly deps: EgressCallDeps
  protected readonly call: Call
  protected readonly open: CallOpen
  protected readonly head: RequestHead
  protected readonly onDone: () => void
  protected instance: InstanceState | undefined
  /** What came of the body while no instance was connected yet; at most a window, the call is paused meanwhile. */
  protected early: Buffer[] = []
  /** Of the body that was announced, what has not come yet; -1: not announced. */
  protected bodyLeft: number
  protected trailers: Buffer | undefined
  protected hasRequestEnded = false
  protected isDone = false
  private readonly dispatcher: Dispatcher<C>
  private ticket: Ticket<C> | undefined
  private readonly takenAtMs: number
  /** When the instance was given the request. */
  private sentAtMs: number

  constructor(
    deps: EgressCallDeps,
    dispatcher: Dispatcher<C>,
    call: Call,
    open: CallOpen,
    head: RequestHead,
    onDone: () => void,
  ) {
    this.deps = deps
    this.dispatcher = dispatcher
    this.call = call
    this.open = open
    this.head = head
    this.onDone = onDone
    this.isIdempotent = isIdempotent(head.method)
    this.bodyLeft = head.contentLength
    this.takenAtMs = deps.pool.nowMs()
    this.sentAtMs = this.takenAtMs
    call.handler = this
  }

  start(): void {
    this.seek()
  }

  get service(): ServiceName {
    return this.open.service
  }

  get timeoutMs(): number {
    return this.open.timeoutMs
  }

  abstract onConnection(instance: InstanceState, connection: C, isWarm: boolean): void
  abstract onNone(code: CallReset['code'], reason: string): void
  abstract onData(chunk: Buffer): void
  abstract onEnd(): void
  abstract onDrain(): void
  abstract onReset(): void

  onHead(): void {}

  onTrailers(trailers: Buffer): void {
    this.trailers = Buffer.from(trailers)
  }

  protected abstract writeBody(chunk: Buffer): void
  protected abstract finishRequest(): void

  /** `tried`: instances that it was given already, in vain. */
  protected seek(tried?: ReadonlySet<InstanceState>): void {
    const ticket = this.dispatcher.seek(this, tried)
    if (ticket === undefined || this.isDone) return
    this.ticket = ticket
    this.call.pause()
  }

  /** It has its instance. */
  protected settle(instance: InstanceState): void {
    if (this.ticket !== undefined) this.call.resume()
    this.ticket = undefined
    this.sentAtMs = this.deps.pool.nowMs()
    this.instance = instance
    instance.inFlight++
  }

  /** The head was sent: what came of the body meanwhile follows. */
  protected sendEarly(): void {
    const { early } = this
    this.early = []
    for (const chunk of early) this.writeBody(chunk)
    if (this.hasRequestEnded) this.finishRequest()
  }

  /** For the ingress: where the answer came from, and what it waited for here. */
  protected note(): string {
    const { deps, instance, takenAtMs, sentAtMs } = this
    if (instance === undefined) return ''
    return egressNoteLine(instance.address, sentAtMs - takenAtMs, deps.pool.nowMs() - sentAtMs)
  }

  /** What happened at the instance, for people. */
  protected told(reason: string): string {
    return `instance ${this.instance?.address} of ${this.open.service} at ${this.deps.self.name}: ${reason}`
  }

  /** How long ago the call came. */
  protected sinceTakenMs(): number {
    return this.deps.pool.nowMs() - this.takenAtMs
  }

  /** It is over, whatever came of it: it waits for nothing any more. False: it was over before. */
  protected close(): boolean {
    if (this.isDone) return false
    this.isDone = true
    this.early = []
    if (this.ticket !== undefined) this.dispatcher.leave(this.ticket)
    return true
  }
}
