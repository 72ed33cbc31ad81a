import type { Log } from '../router/log.ts'
import type { NodeId, ServiceName } from '../router/model.ts'
import type { Call, CallHandler, CallOpen, CallReset } from './call.ts'
import { DISPATCHER_DEFAULTS, Dispatcher, type DispatcherCounters, type DispatcherOptions } from './dispatcher.ts'
import { EgressCallBase } from './egress-call.ts'
import { H2EgressCall } from './h2-egress.ts'
import { isGrpc } from './h2-forward.ts'
import type { H2InstanceConnection } from './h2-pool.ts'
import type { Http1Fault } from './http1-fault.ts'
import { chooseAnswerFraming, encodeChunk, forwardResponseHead, lastChunk } from './http1-forward.ts'
import { decodeRequestHead, forwardedTrailersFault, type RequestHead, type ResponseHead } from './http1-head.ts'
import { FORWARDED_HTTP1_LIMITS } from './http1-limits.ts'
import type { InstanceConnection, InstanceHandler, InstancePool } from './instance-pool.ts'
import type { InstanceState, Instances } from './instances.ts'
import { MESH_FIELDS, viaLine } from './mesh-fields.ts'
import { mayRetry, SENT_BYTES_MAX } from './retry.ts'

export interface EgressDeps {
  readonly self: { readonly id: NodeId; readonly name: string }
  readonly log: Log
  readonly instances: Instances
  readonly pool: InstancePool
}

/** What calls at an egress share. */
export interface EgressCallDeps extends EgressDeps {
  readonly h1: Dispatcher<InstanceConnection>
  readonly h2: Dispatcher<H2InstanceConnection>
}

/** Connections to the instances of a service, and the calls that wait for one. */
export interface PoolCounts {
  readonly service: ServiceName
  /** Connections without a call, and with; tunnels are neither. */
  readonly idle: number
  readonly busy: number
  readonly queued: number
}

/**
 * Where calls of HTTP leave the mesh (of TCP: tcp-egress.ts): takes a call for a service of this node to one of its instances and the answer back.
 *
 * It speaks HTTP/1.1 to instances, and HTTP/2 to those whose service says so and for every call of gRPC.
 * A call whose instance refuses the connection, or is lost before it began to answer, goes to the next one if that can
 * do no harm (retry.ts); after that the caller's side decides about another place. Instances that have as many calls as
 * they may are waited for (dispatcher.ts).
 */
export class Egress {
  private readonly deps: EgressCallDeps
  private callsUnderWay = 0

  constructor(deps: EgressDeps, options: DispatcherOptions = DISPATCHER_DEFAULTS) {
    const { self, instances, pool } = deps
    const shared = { self, instances, nowMs: pool.nowMs }
    this.deps = {
      ...deps,
      h1: new Dispatcher({ ...shared, connections: pool }, options),
      h2: new Dispatcher({ ...shared, connections: pool.h2 }, options),
    }
  }

  /** The pool tells that an instance may have room for a call again. */
  onRoom(): void {
    this.deps.h1.onRoom()
    this.deps.h2.onRoom()
  }

  /** What became of calls that found no room at once, since the start. */
  get queueCounters(): DispatcherCounters {
    const [h1, h2] = [this.deps.h1.counters, this.deps.h2.counters]
    return {
      queued: h1.queued + h2.queued,
      refused: h1.refused + h2.refused,
      expired: h1.expired + h2.expired,
    }
  }

  /** A line for each service of this node. */
  poolCounts(): PoolCounts[] {
    const { instances, pool, h1, h2 } = this.deps
    const lines = new Map<ServiceName, { service: ServiceName; idle: number; busy: number; queued: number }>()
    for (const { service, address } of instances.all()) {
      const queued = h1.queued(service) + h2.queued(service)
      const line = lines.get(service) ?? { service, idle: 0, busy: 0, queued }
      const { idle, busy } = pool.counts(address)
      line.idle += idle
      line.busy += busy
      lines.set(service, line)
    }
    return [...lines.values()]
  }

  get inFlight(): number {
    return this.callsUnderWay
  }

  accept(call: Call, open: CallOpen): void {
    if (!this.deps.instances.has(open.service)) {
      this.refuse(call, 'no-healthy-place', `${this.deps.self.name} no longer offers ${open.service}`)
      return
    }
    if (this.deps.instances.speaksTcp(open.service)) {
      const hint = 'connect to a listener for it, or ask for a tunnel with CONNECT'
      this.refuse(call, 'bad-request', `${open.service} is a service of protocol tcp, not of HTTP: ${hint}`)
      return
    }
    const head = decodeRequestHead(open.head, FORWARDED_HTTP1_LIMITS)
    if ('reason' in head) {
      this.refuse(call, 'bad-request', `the request head from the mesh cannot be read: ${head.reason}`)
      return
    }
    const isH2 = isGrpc(head) || this.deps.instances.speaksH2(open.service)
    const egressCall = isH2
      ? new H2EgressCall(this.deps, call, open, head, this.onDone)
      : new EgressCall(this.deps, call, open, head, this.onDone)
    this.callsUnderWay++
    egressCall.start()
  }

  private readonly onDone = (): void => {
    this.callsUnderWay--
  }

  private refuse(call: Call, code: CallReset['code'], reason: string): void {
    call.handler = SILENT
    call.reset({ code, reason, node: this.deps.self.id, unexecuted: true })
  }
}

const SILENT: CallHandler = { onHead() {}, onData() {}, onTrailers() {}, onEnd() {}, onDrain() {}, onReset() {} }

/** One call at its egress: from the call's frames to an instance's connection, and back. */
class EgressCall extends EgressCallBase<InstanceConnection> implements InstanceHandler {
  private connection: InstanceConnection | undefined
  /** The body so far, as long as it may be sent again. */
  private sent: Buffer[] = []
  private sentBytes = 0
  private isReplayable: boolean
  /** Instances that were lost before they answered, and what was said of the last one. */
  private lost: Set<InstanceState> | undefined
  private lostReason = ''
  private hasAnswerEnded = false
  /** The connection was used before: it may have been closed by the instance just as the request was sent. */
  private isWarm = false

  constructor(deps: EgressCallDeps, call: Call, open: CallOpen, head: RequestHead, onDone: () => void) {
    super(deps, deps.h1, call, open, head, onDone)
    this.isReplayable = this.isIdempotent
  }

  onNone(code: CallReset['code'], reason: string): void {
    // One instance had it already: that is what the caller must know, whatever came after.
    if (this.lostReason !== '') this.fail('instance-lost', this.lostReason, false)
    else this.fail(code, reason, true)
  }

  onConnection(instance: InstanceState, connection: InstanceConnection, isWarm: boolean): void {
    this.settle(instance)
    this.isWarm = isWarm
    this.connection = connection
    connection.expect(this, this.head.method, this.head.upgrade !== '')
    connection.out.write(this.open.head)
    this.sendEarly()
  }

  // The call's side: the request ------------------------------------------------------------------------------------

  onData(chunk: Buffer): void {
    if (this.connection === undefined) this.early.push(Buffer.from(chunk))
    else this.writeBody(chunk)
  }

  onEnd(): void {
    this.hasRequestEnded = true
    if (this.connection !== undefined) this.finishRequest()
  }

  onDrain(): void {
    this.connection?.socket.resume()
  }

  /** The caller went away, or its node did: nobody waits for the answer. */
  onReset(): void {
    this.finish(false)
  }

  protected writeBody(chunk: Buffer): void {
    const { connection } = this
    // Without an instance: it has been let go, and what still comes is of no use.
    if (connection === undefined || this.instance === undefined) return
    if (this.isReplayable) this.keep(chunk)
    let isWritable = true
    if (connection.isRaw || !this.head.chunked) {
      this.bodyLeft -= chunk.length
      if (this.bodyLeft < 0 && !connection.isRaw) {
        this.fail('bad-request', 'more body came than Content-Length says', false)
        return
      }
      isWritable = connection.out.write(chunk)
    } else {
      for (const part of encodeChunk(chunk)) isWritable = connection.out.write(part)
    }
    if (!isWritable) this.call.pause()
  }

  private keep(chunk: Buffer): void {
    this.sentBytes += chunk.length
    if (this.sentBytes <= SENT_BYTES_MAX) this.sent.push(Buffer.from(chunk))
    else this.keepNothing()
  }

  private keepNothing(): void {
    this.isReplayable = false
    this.sent = []
  }

  protected finishRequest(): void {
    const { connection, trailers } = this
    if (connection === undefined) return
    if (this.instance === undefined) this.finish(false)
    else if (connection.isRaw) connection.out.end()
    else if (this.head.chunked) {
      const fault = trailers === undefined ? undefined : forwardedTrailersFault(trailers, 'bad-request')
      if (fault !== undefined) this.fail('bad-request', fault, false)
      else connection.out.write(lastChunk(trailers))
    } else if (this.bodyLeft > 0) this.fail('bad-request', 'less body came than Content-Length says', false)
    connection.out.flush()
    this.finishIfBothEnded()
  }

  // The instance's side: the answer ---------------------------------------------------------------------------------

  onAnswerHead(head: ResponseHead): void {
    if (this.isReplayable) this.keepNothing()
    // The ingress has settled 100-continue with its client already.
    if (head.status === 100) return
    const { name } = this.deps.self
    const framing = chooseAnswerFraming(head, this.head.method, 11, true)
    const add = head.status < 200 && head.status !== 101 ? viaLine(name) : viaLine(name) + this.note()
    this.call.sendHead(forwardResponseHead(head, 11, framing, { drop: MESH_FIELDS, add }))
    if (head.status === 101) this.switchProtocols()
  }

  onAnswerData(chunk: Buffer): void {
    if (!this.call.write(chunk, true)) this.connection?.socket.pause()
  }

  onAnswerTrailers(trailers: Buffer): void {
    this.call.sendTrailers(trailers)
  }

  onAnswerEnd(): void {
    this.hasAnswerEnded = true
    this.call.end()
    this.finishIfBothEnded()
  }

  onAnswerFault(fault: Http1Fault): void {
    const code = fault.reason.includes('connection ended') ? 'instance-lost' : 'bad-answer'
    this.fail(code, this.told(fault.reason), false)
  }

  onRaw(chunk: Buffer): void {
    this.onAnswerData(chunk)
  }

  onRawEnd(): void {
    this.onAnswerEnd()
  }

  onInstanceDrain(): void {
    this.call.resume()
  }

  onInstanceLost(reason: string): void {
    // A tunnel that it had ended for its part: all it said was passed on.
    if (this.hasAnswerEnded) return this.dropRest()
    const { connection, instance } = this
    const told = this.told(reason)
    const hasBegun = connection === undefined || connection.hasAnswerBegun
    const reset = { code: 'instance-lost', unexecuted: false } as const
    if (!mayRetry(this.head.method, reset, { answered: hasBegun, bodyReplayable: this.isReplayable })) {
      this.fail('instance-lost', told, false)
      return
    }
    // One that closes an idle connection at the very moment it is used again has not failed.
    this.lost ??= new Set()
    if (!this.isWarm && instance !== undefined) this.lost.add(instance)
    this.lostReason = told
    this.release(false)
    this.connection = undefined
    this.early = this.sent
    this.sent = []
    this.sentBytes = 0
    this.bodyLeft = this.head.contentLength
    this.seek(this.lost)
  }

  private switchProtocols(): void {
    if (this.connection === undefined) return
    const rest = this.connection.goRaw()
    this.deps.pool.release(this.connection)
    if (rest.length > 0) this.onRaw(rest)
    if (this.hasRequestEnded) this.connection.out.end()
  }

  // The end ---------------------------------------------------------------------------------------------------------

  private fail(code: CallReset['code'], reason: string, unexecuted: boolean): void {
    if (this.isDone) return
    this.call.reset({ code, reason, node: this.deps.self.id, unexecuted })
    this.finish(false)
  }

  private finishIfBothEnded(): void {
    if (!this.hasAnswerEnded || this.isDone) return
    const isRaw = this.connection?.isRaw === true
    if (this.hasRequestEnded) this.finish(true)
    // The answer came before the whole request was sent: the rest is of no use to anyone. The ingress will say so; a
    // reset from here could overtake the end of the answer.
    else if (!isRaw) this.dropRest()
  }

  /** The rest of the request is taken and thrown away: its end may wait behind it. */
  private dropRest(): void {
    this.release(false)
    this.call.resume()
  }

  private finish(reusable: boolean): void {
    if (!this.close()) return
    this.sent = []
    this.release(reusable)
    this.onDone()
  }

  /** Lets go of the instance: its connection goes back to the pool, or is closed. */
  private release(reusable: boolean): void {
    const { connection, instance } = this
    this.instance = undefined
    if (connection === undefined || instance === undefined) return
    instance.inFlight--
    if (reusable) this.deps.pool.give(connection)
    else this.deps.pool.drop(connection)
  }
}
