import type { Call, CallOpen, CallReset } from './call.ts'
import type { EgressCallDeps } from './egress.ts'
import { EgressCallBase } from './egress-call.ts'
import { formatGrpcTimeout, parseGrpcTimeoutMs } from './grpc.ts'
import { h2RequestFields, h2TrailerFields, isGrpc } from './h2-forward.ts'
import { H2_ERROR, type H2ErrorCode } from './h2-frame.ts'
import { readH2Response, readH2Trailers } from './h2-head.ts'
import type { H2InstanceConnection } from './h2-pool.ts'
import type { H2Reset, H2Stream, H2StreamHandler } from './h2-stream.ts'
import type { HpackField } from './hpack-table.ts'
import { Http1Fault } from './http1-fault.ts'
import { fieldValue } from './http1-fields.ts'
import { chooseAnswerFraming, forwardResponseHead } from './http1-forward.ts'
import type { RequestHead, ResponseHead } from './http1-head.ts'
import type { InstanceState } from './instances.ts'
import { MESH_FIELDS, viaLine } from './mesh-fields.ts'
import { mayRetry, SENT_BYTES_MAX } from './retry.ts'

/** Interim (1xx) answers before the final one, as for HTTP/1. */
const INTERIM_HEADS_MAX = 1000

/** One call at its egress, to an instance that speaks HTTP/2: a stream on a shared connection. */
export class H2EgressCall extends EgressCallBase<H2InstanceConnection> {
  private owner: H2InstanceConnection | undefined
  private stream: H2Stream | undefined
  /** The body so far, for another try; undefined once it is too much or an answer has begun. */
  private sent: Buffer[] | undefined = []
  private sentBytes = 0
  /** Of the answer's body that was announced, what has not come yet; -1: not announced. */
  private answerLeft = -1
  private readonly hasBody: boolean
  private interimHeads = 0
  /** The instance takes no more for now. */
  private isHeld = false
  private hasAnswered = false
  private hasAnswerEnded = false
  /** Instances that did not answer it, and what was said of the last one. */
  private tried: Set<InstanceState> | undefined
  private lost: Pick<CallReset, 'code' | 'reason' | 'unexecuted'> | undefined
  private hasTriedAgain = false

  constructor(deps: EgressCallDeps, call: Call, open: CallOpen, head: RequestHead, onDone: () => void) {
    super(deps, deps.h2, call, open, head, onDone)
    this.hasBody = head.chunked || head.contentLength > 0
  }

  onNone(code: CallReset['code'], reason: string): void {
    // One instance may have seen it already: that is what the caller must know, whatever came after.
    if (this.lost !== undefined) this.fail(this.lost.code, this.lost.reason, this.lost.unexecuted)
    else this.fail(code, reason, true)
  }

  onConnection(instance: InstanceState, owner: H2InstanceConnection): void {
    this.settle(instance)
    this.isHeld = false
    this.owner = owner
    this.stream = owner.openStream(new AnswerSide(this), h2RequestFields(this.head, this.grpcTimeout()), !this.hasBody)
    this.sendEarly()
  }

  /** What is left of the caller's time; undefined: it set no limit, or one that is not to be understood here. */
  private grpcTimeout(): string | undefined {
    const field = isGrpc(this.head) ? fieldValue(this.head.fields, 'grpc-timeout') : undefined
    const ms = field === undefined ? undefined : parseGrpcTimeoutMs(field)
    return ms === undefined ? undefined : formatGrpcTimeout(Math.max(0, ms - this.sinceTakenMs()))
  }

  // The call's side: the request -------------------------------------------------------------------------------------

  onData(chunk: Buffer): void {
    if (this.stream !== undefined) this.writeBody(chunk)
    else if (!this.hasAnswerEnded) this.early.push(Buffer.from(chunk))
  }

  onEnd(): void {
    this.hasRequestEnded = true
    if (this.stream !== undefined) this.finishRequest()
    // The answer was faster.
    if (this.hasAnswerEnded) this.finish(H2_ERROR.CANCEL)
  }

  /** The caller takes more of the answer. */
  onDrain(): void {
    if (this.stream !== undefined) this.owner?.connection.resume(this.stream)
  }

  /** The caller went away, or its node did: nobody waits for the answer. */
  onReset(): void {
    this.finish(H2_ERROR.CANCEL)
  }

  protected writeBody(chunk: Buffer): void {
    const { stream, owner } = this
    if (stream === undefined || owner === undefined || this.isDone) return
    if (!this.head.chunked) {
      this.bodyLeft -= chunk.length
      if (this.bodyLeft < 0) return this.fail('bad-request', 'more body came than Content-Length says', false)
    }
    if (this.sent !== undefined) {
      this.sentBytes += chunk.length
      if (this.sentBytes > SENT_BYTES_MAX) this.sent = undefined
      else this.sent.push(Buffer.from(chunk))
    }
    if (owner.connection.outbox.write(stream, chunk)) return
    this.isHeld = true
    if (this.hasAnswerEnded) this.dropRest()
    else this.call.pause()
  }

  protected finishRequest(): void {
    const { stream, owner } = this
    if (stream === undefined || owner === undefined || !this.hasBody) return
    if (this.bodyLeft > 0) return this.fail('bad-request', 'less body came than Content-Length says', false)
    const trailers = this.trailers === undefined ? undefined : h2TrailerFields(this.trailers)
    if (trailers instanceof Http1Fault) {
      return this.fail('bad-request', `the trailers from the mesh cannot be read: ${trailers.reason}`, false)
    }
    owner.connection.outbox.end(stream, trailers)
  }

  // The instance's side: the answer ----------------------------------------------------------------------------------

  answerFields(fields: readonly HpackField[], ended: boolean): void {
    if (this.isDone) return
    if (this.hasAnswered) return this.answerTrailers(fields, ended)
    const head = readH2Response(fields, this.head.method, ended)
    if (head instanceof Http1Fault) return this.badAnswer(head.reason)
    if (head.status >= 200) {
      this.hasAnswered = true
      this.sent = undefined
      const isBodiless = this.head.method === 'HEAD' || head.status === 204 || head.status === 304
      this.answerLeft = isBodiless ? 0 : head.contentLength
    } else if (++this.interimHeads > INTERIM_HEADS_MAX) {
      return this.badAnswer(`more than ${INTERIM_HEADS_MAX} interim (1xx) answers`)
    }
    // The ingress has settled 100-continue with its client already.
    if (head.status !== 100) this.call.sendHead(this.forwarded(head))
  }

  private forwarded(head: ResponseHead): Buffer {
    const framing = chooseAnswerFraming(head, this.head.method, 11, true)
    const via = viaLine(this.deps.self.name)
    const add = head.status < 200 ? via : via + this.note()
    return forwardResponseHead(head, 11, framing, { drop: MESH_FIELDS, add })
  }

  private answerTrailers(fields: readonly HpackField[], ended: boolean): void {
    if (!ended) return this.badAnswer('a second head that is not the end of the stream')
    const trailers = readH2Trailers(fields, 'bad-answer')
    if (trailers instanceof Http1Fault) return this.badAnswer(trailers.reason)
    if (trailers.length > 0) this.call.sendTrailers(trailers)
  }

  answerData(chunk: Buffer): void {
    if (this.isDone || this.stream === undefined) return
    if (!this.hasAnswered) return this.badAnswer('a body without a head')
    if (this.answerLeft >= 0) {
      this.answerLeft -= chunk.length
      if (this.answerLeft < 0) return this.badAnswer('more body than its content-length says')
    }
    if (!this.call.write(chunk, true)) this.owner?.connection.pause(this.stream)
  }

  answerEnd(): void {
    if (this.isDone) return
    if (!this.hasAnswered) return this.badAnswer('the stream ended without an answer')
    if (this.answerLeft > 0) return this.badAnswer('less body than its content-length says')
    this.hasAnswerEnded = true
    this.call.end()
    // If the answer came before the whole request, the ingress will say so; a reset from here could overtake its end.
    if (this.hasRequestEnded) this.finish(H2_ERROR.CANCEL)
    else if (this.isHeld) this.dropRest()
  }

  /** The answer is over, and the instance does not take the rest of the request, whose end waits behind it: nobody waits for that. */
  private dropRest(): void {
    const { stream, owner } = this
    this.stream = undefined
    if (stream !== undefined) owner?.connection.reset(stream, H2_ERROR.CANCEL)
    this.call.resume()
  }

  requestDrain(): void {
    this.isHeld = false
    this.call.resume()
  }

  answerReset(reset: H2Reset): void {
    if (this.isDone) return
    this.stream = undefined
    // The answer is whole, and the instance does not want the rest of the request.
    if (this.hasAnswerEnded) return this.dropRest()
    const unexecuted = reset.unexecuted && this.lost?.unexecuted !== false
    const lost = { code: codeOf(reset), reason: this.told(reset.reason), unexecuted }
    const isReplayable = this.sent !== undefined && TRIED_AGAIN.has(lost.code)
    const answered = this.hasAnswered || this.interimHeads > 0
    if (mayRetry(this.head.method, lost, { answered, bodyReplayable: isReplayable })) {
      this.tryAgain(lost, reset.unexecuted)
    } else this.fail(lost.code, lost.reason, unexecuted)
  }

  /** At another instance; or once at the same, if it closed its connection or had no room on it just as the call came. */
  private tryAgain(lost: Pick<CallReset, 'code' | 'reason' | 'unexecuted'>, wasUnseen: boolean): void {
    const { instance, sent } = this
    this.lost = lost
    this.tried ??= new Set()
    if (instance !== undefined) {
      if (!wasUnseen || this.hasTriedAgain) this.tried.add(instance)
      instance.inFlight--
    }
    this.hasTriedAgain = true
    this.instance = undefined
    this.early = sent ?? []
    this.sent = []
    this.sentBytes = 0
    this.bodyLeft = this.head.contentLength
    this.seek(this.tried)
  }

  // The end ----------------------------------------------------------------------------------------------------------

  private badAnswer(reason: string): void {
    this.fail('bad-answer', this.told(reason), false)
  }

  private fail(code: CallReset['code'], reason: string, unexecuted: boolean): void {
    if (this.isDone) return
    this.call.reset({ code, reason, node: this.deps.self.id, unexecuted })
    this.finish(code === 'bad-answer' ? H2_ERROR.PROTOCOL_ERROR : H2_ERROR.CANCEL)
  }

  private finish(code: H2ErrorCode): void {
    if (!this.close()) return
    this.sent = undefined
    const { stream, owner, instance } = this
    if (instance !== undefined) instance.inFlight--
    const hasEnded = stream?.hasSentEnd === true && stream.hasPeerEnded
    if (stream !== undefined && !hasEnded) owner?.connection.reset(stream, code)
    this.onDone()
  }
}

/** What another instance need not meet: this one, or its connection, is gone, or it did not look at the call. */
const TRIED_AGAIN: ReadonlySet<CallReset['code']> = new Set(['instance-refused', 'instance-lost'])

function codeOf({ code, by, unexecuted }: H2Reset): CallReset['code'] {
  if (unexecuted) return 'instance-refused'
  if (by === 'peer' && code === H2_ERROR.CANCEL) return 'cancelled'
  if (by === 'here' || code === H2_ERROR.HTTP_1_1_REQUIRED) return 'bad-answer'
  // A connection that was not lost was ended here, because the instance broke the protocol.
  return by === 'connection' && code !== H2_ERROR.CONNECT_ERROR ? 'bad-answer' : 'instance-lost'
}

/** Passes what the instance's stream tells to the call; a class of its own because both sides use the same words. */
class AnswerSide implements H2StreamHandler {
  private readonly egress: H2EgressCall

  constructor(egress: H2EgressCall) {
    this.egress = egress
  }

  onFields(fields: readonly HpackField[], ended: boolean): void {
    this.egress.answerFields(fields, ended)
  }

  onData(chunk: Buffer): void {
    this.egress.answerData(chunk)
  }

  onEnd(): void {
    this.egress.answerEnd()
  }

  onDrain(): void {
    this.egress.requestDrain()
  }

  onReset(reset: H2Reset): void {
    this.egress.answerReset(reset)
  }
}
