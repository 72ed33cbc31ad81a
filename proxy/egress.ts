import type { Log } from '../router/log.ts'
import type { NodeId } from '../router/model.ts'
import type { Call, CallHandler, CallOpen, CallReset } from './call.ts'
import { connectInstance } from './connect-instance.ts'
import { H2EgressCall } from './h2-egress.ts'
import { isGrpc } from './h2-forward.ts'
import type { Http1Fault } from './http1-fault.ts'
import { chooseAnswerFraming, encodeChunk, forwardResponseHead, lastChunk } from './http1-forward.ts'
import { decodeRequestHead, decodeTrailers, type RequestHead, type ResponseHead } from './http1-head.ts'
import { FORWARDED_HTTP1_LIMITS } from './http1-limits.ts'
import type { InstanceConnection, InstanceHandler, InstancePool } from './instance-pool.ts'
import type { InstanceState, Instances } from './instances.ts'
import { MESH_FIELDS, viaLine } from './mesh-fields.ts'
import { isIdempotent } from './retry.ts'

export interface EgressDeps {
  readonly self: { readonly id: NodeId; readonly name: string }
  readonly log: Log
  readonly instances: Instances
  readonly pool: InstancePool
}

/**
 * Where calls of HTTP leave the mesh (of TCP: tcp-egress.ts): takes a call for a service of this node to one of its instances and the answer back.
 *
 * It speaks HTTP/1.1 to instances, and HTTP/2 to those whose service says so and for every call of gRPC.
 * A call whose instance refuses the connection goes to the next one; once bytes were sent to an instance it is that
 * one or none, and the caller's side decides about another try.
 */
export class Egress {
  private readonly deps: EgressDeps
  private readonly calls = new Set<EgressCall | H2EgressCall>()

  constructor(deps: EgressDeps) {
    this.deps = deps
  }

  get inFlight(): number {
    return this.calls.size
  }

  accept(call: Call, open: CallOpen): void {
    const refuse = (code: CallReset['code'], reason: string): void => {
      call.handler = SILENT
      call.reset({ code, reason, node: this.deps.self.id, unexecuted: true })
    }
    if (!this.deps.instances.has(open.service)) {
      refuse('no-healthy-place', `${this.deps.self.name} no longer offers ${open.service}`)
      return
    }
    if (this.deps.instances.speaksTcp(open.service)) {
      const hint = 'connect to a listener for it, or ask for a tunnel with CONNECT'
      refuse('bad-request', `${open.service} is a service of protocol tcp, not of HTTP: ${hint}`)
      return
    }
    const head = decodeRequestHead(open.head, FORWARDED_HTTP1_LIMITS)
    if ('reason' in head) {
      refuse('bad-request', `the request head from the mesh cannot be read: ${head.reason}`)
      return
    }
    const onDone = (): unknown => this.calls.delete(egressCall)
    const isH2 = isGrpc(head) || this.deps.instances.speaksH2(open.service)
    const egressCall = isH2
      ? new H2EgressCall(this.deps, call, open, head, onDone)
      : new EgressCall(this.deps, call, open, head, onDone)
    this.calls.add(egressCall)
    egressCall.start()
  }
}

const CRLF = Buffer.from('\r\n')
const SILENT: CallHandler = { onHead() {}, onData() {}, onTrailers() {}, onEnd() {}, onDrain() {}, onReset() {} }

/** One call at its egress: from the call's frames to an instance's connection, and back. */
class EgressCall implements CallHandler, InstanceHandler {
  private readonly deps: EgressDeps
  private readonly call: Call
  private readonly open: CallOpen
  private readonly head: RequestHead
  private readonly onDone: () => void
  private instance: InstanceState | undefined
  private connection: InstanceConnection | undefined
  /** What came of the body while no instance was connected yet; at most a window, the call is paused meanwhile. */
  private early: Buffer[] = []
  private bodyLeft: number
  private trailers: Buffer | undefined
  private hasRequestEnded = false
  private hasAnswerEnded = false
  private isDone = false
  /** The connection was used before: it may have been closed by the instance just as the request was sent. */
  private isWarm = false

  constructor(deps: EgressDeps, call: Call, open: CallOpen, head: RequestHead, onDone: () => void) {
    this.deps = deps
    this.call = call
    this.open = open
    this.head = head
    this.onDone = onDone
    this.bodyLeft = head.contentLength
    call.handler = this
  }

  start(): void {
    const idempotent = isIdempotent(this.head.method)
    const instance = this.deps.instances.choose(this.open.service)
    const warm = instance === undefined ? undefined : this.deps.pool.take(instance.address, idempotent)
    if (instance !== undefined && warm !== undefined) {
      this.isWarm = true
      this.send(instance, warm)
    } else this.startConnecting(instance)
  }

  private startConnecting(instance: InstanceState | undefined): void {
    this.isWarm = false
    this.call.pause()
    this.connect(instance).catch((error: unknown) => this.fail('internal', String(error), false))
  }

  private async connect(first: InstanceState | undefined): Promise<void> {
    const { deps, open } = this
    const connect = (address: string): Promise<InstanceConnection> => deps.pool.connect(address)
    const found = await connectInstance(deps, open.service, first, connect, () => !this.isDone)
    if ('code' in found) this.fail(found.code, found.reason, true)
    else if (this.isDone) found.connection.socket.destroy()
    else {
      this.call.resume()
      this.send(found.instance, found.connection)
    }
  }

  private send(instance: InstanceState, connection: InstanceConnection): void {
    this.instance = instance
    this.connection = connection
    instance.inFlight++
    connection.expect(this, this.head.method, this.head.upgrade !== '')
    connection.out.write(this.open.head)
    const early = this.early
    this.early = []
    for (const chunk of early) this.writeBody(chunk)
    if (this.hasRequestEnded) this.finishRequest()
  }

  // The call's side: the request ------------------------------------------------------------------------------------

  onHead(): void {}

  onData(chunk: Buffer): void {
    if (this.connection === undefined) this.early.push(chunk)
    else this.writeBody(chunk)
  }

  onTrailers(trailers: Buffer): void {
    this.trailers = trailers
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

  private writeBody(chunk: Buffer): void {
    const { connection } = this
    if (connection === undefined || this.hasAnswerEnded) return
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

  private finishRequest(): void {
    const { connection, trailers } = this
    if (connection === undefined) return
    if (this.hasAnswerEnded) this.finish(false)
    else if (connection.isRaw) connection.out.end()
    else if (this.head.chunked) {
      const fault = trailers === undefined ? undefined : trailersFault(trailers)
      if (fault !== undefined) this.fail('bad-request', fault, false)
      else connection.out.write(lastChunk(trailers))
    } else if (this.bodyLeft > 0) this.fail('bad-request', 'less body came than Content-Length says', false)
    this.finishIfBothEnded()
  }

  // The instance's side: the answer ---------------------------------------------------------------------------------

  onAnswerHead(head: ResponseHead): void {
    // The ingress has settled 100-continue with its client already.
    if (head.status === 100) return
    const { name } = this.deps.self
    const framing = chooseAnswerFraming(head, this.head.method, 11, true)
    this.call.sendHead(forwardResponseHead(head, 11, framing, { drop: MESH_FIELDS, add: viaLine(name) }))
    if (head.status === 101) this.switchProtocols()
  }

  onAnswerData(chunk: Buffer): void {
    if (!this.call.write(chunk)) this.connection?.socket.pause()
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
    const { name } = this.deps.self
    const reason = `instance ${this.instance?.address} of ${this.open.service} at ${name}: ${fault.reason}`
    this.fail(fault.reason.includes('connection ended') ? 'instance-lost' : 'bad-answer', reason, false)
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
    const { name } = this.deps.self
    const { connection, instance, head } = this
    const isBodiless = head.contentLength <= 0 && !head.chunked
    if (this.isWarm && isBodiless && isIdempotent(head.method) && connection?.hasAnswerBegun === false) {
      // The instance closed an idle connection at the very moment it was used again: nobody's failure.
      this.release(false)
      this.connection = undefined
      this.startConnecting(instance)
      return
    }
    this.fail(
      'instance-lost',
      `instance ${this.instance?.address} of ${this.open.service} at ${name}: ${reason}`,
      false,
    )
  }

  private switchProtocols(): void {
    const rest = this.connection?.goRaw()
    if (rest !== undefined && rest.length > 0) this.onRaw(rest)
    if (this.hasRequestEnded) this.connection?.out.end()
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
    if (this.hasRequestEnded) this.finish(!isRaw)
    // The answer came before the whole request was sent: the rest is of no use to anyone. The ingress will say so; a
    // reset from here could overtake the end of the answer.
    else if (!isRaw) this.release(false)
  }

  private finish(reusable: boolean): void {
    if (this.isDone) return
    this.isDone = true
    this.early = []
    this.release(reusable)
    this.onDone()
  }

  /** Lets go of the instance: its connection goes back to the pool, or is closed. */
  private release(reusable: boolean): void {
    const { connection, instance } = this
    this.instance = undefined
    if (connection === undefined || instance === undefined) return
    instance.inFlight--
    connection.handler = undefined
    if (reusable) this.deps.pool.give(instance.address, connection)
    else connection.socket.destroy()
  }
}

function trailersFault(trailers: Buffer): string | undefined {
  const decoded = decodeTrailers(Buffer.concat([trailers, CRLF]), 'bad-request', FORWARDED_HTTP1_LIMITS)
  return 'reason' in decoded ? `the trailers from the mesh cannot be read: ${decoded.reason}` : undefined
}
