import type { MeshErrorCode } from '../router/errors.ts'
import type { Candidate, NodeId, ServiceName } from '../router/model.ts'
import type { RouteFilter } from '../router/route-filter.ts'
import type { Call, CallHandler, CallReset } from './call.ts'
import type { CallOutcome } from './call-report.ts'
import { egressNoteOf } from './egress-note.ts'
import { decodeResponseHead, type ResponseHead } from './http1-head.ts'
import { FORWARDED_HTTP1_LIMITS } from './http1-limits.ts'
import type { IngressCounters, IngressDeps } from './ingress.ts'
import { type Attempt, meshStatus } from './mesh-answer.ts'
import { noPlace } from './no-place.ts'
import { mayRetry } from './retry.ts'

const NOBODY: readonly NodeId[] = []
const NO_ATTEMPTS: readonly Attempt[] = []

/** A request as the mesh sees it, whatever protocol it came by. */
export interface ExchangeRequest {
  readonly service: ServiceName
  /** Which places may answer; undefined: any. */
  readonly filter: RouteFilter | undefined
  readonly method: string
  /** As reports of calls have them (call-report.ts). */
  readonly protocol: string
  readonly target: string
  readonly client: string | undefined
  /** How long an answer may take to begin, from the last byte of the request; 0: no limit. */
  readonly timeoutMs: number
  /** When the whole exchange must be over; Infinity: no limit. */
  readonly deadlineAtMs: number
  /** Without a byte of a body that is owed for so long, the client is too slow. Infinity: silence is usual. */
  readonly clientTimeoutMs: number
  /** The request's end is not its own: it may become a tunnel, which ends when the client does. */
  readonly isUpgrade: boolean
  /** The head as the next node gets it. Asked for anew for each attempt. */
  head(nowMs: number): Buffer
}

/** Who has asked: a connection of HTTP/1, or a stream of HTTP/2. */
export interface ExchangeClient {
  /** Interim answers (1xx) come first, then one final head. */
  onAnswerHead(head: ResponseHead): void
  onAnswerData(chunk: Buffer): void
  onAnswerTrailers(trailers: Buffer): void
  onAnswerEnd(): void
  /** `write` may go on after it answered false. */
  onRequestDrain(): void
  /** It came to nothing before an answer began: the mesh answers. Nothing follows. */
  onFailed(code: MeshErrorCode, reason: string): void
  /** It came to nothing in the middle of its answer. Nothing follows. */
  onCut(code: MeshErrorCode, reason: string): void
}

export interface ExchangeDeps
  extends Pick<IngressDeps, 'self' | 'candidates' | 'knows' | 'open' | 'nowMs' | 'onCallOver'> {
  readonly counters: IngressCounters
  readonly retryBodyBytes: number
}

/**
 * One request from its head to the end of its answer: finds it a place, and another one if that fails.
 *
 * While an answer has not begun, a call that came to nothing may go to the next candidate (retry.ts decides). After
 * that the only honest way to fail is to cut the answer.
 */
export class Exchange {
  readonly request: ExchangeRequest
  /** For the report: whoever can read the answer of gRPC sets it. */
  grpcStatus: string | undefined
  private readonly deps: ExchangeDeps
  private readonly client: ExchangeClient
  /** Places that were tried, a handful at most, and what came of those that failed: most calls need one try. */
  private tried: readonly NodeId[] = NOBODY
  private failed: readonly Attempt[] = NO_ATTEMPTS
  /** A place that was not at fault when a relay on the way to it was lost: it may be tried once more, on another way. */
  private again: { readonly node: NodeId; isUsed: boolean } | undefined
  /** The body can be sent again: it is not too much, and no answer has begun. */
  private isReplayable = true
  /** Its bytes so far, as long as it is. */
  private replay: Buffer[] | undefined
  private replayBytes = 0
  /** Of the request, for another try. */
  private trailers: Buffer | undefined
  private call: Call | undefined
  private target: Candidate | undefined
  private hasRequestEnded = false
  private isAnswered = false
  private hasAnswerEnded = false
  private isOver = false
  /** `write` answered false: the client waits for a word. */
  private isHeld = false
  /** When waiting for the answer began: the last byte of the request that moved. */
  private waitingSinceMs: number
  private readonly beganAtMs: number
  private openedAtMs: number
  private answeredAtMs = Number.NaN
  private status = 0
  private egressNote: string | undefined
  private bytesIn = 0
  private bytesOut = 0
  private hasTunnelEnded = false
  private isReported = false

  constructor(deps: ExchangeDeps, request: ExchangeRequest, client: ExchangeClient) {
    this.deps = deps
    this.request = request
    this.client = client
    this.beganAtMs = deps.nowMs()
    this.openedAtMs = this.beganAtMs
    this.waitingSinceMs = this.beganAtMs
  }

  /** The final head of an answer has been told. */
  get hasAnswerBegun(): boolean {
    return this.isAnswered
  }

  /** Tries that came to nothing. */
  get attempts(): readonly Attempt[] {
    return this.failed
  }

  get requestEnded(): boolean {
    return this.hasRequestEnded
  }

  get answerEnded(): boolean {
    return this.hasAnswerEnded
  }

  /** Looks for a place; `onFailed` may be told at once. */
  start(): void {
    this.attempt()
  }

  /** Looked at a few times a second. */
  tick(nowMs: number): void {
    if (this.isOver) return
    const { service, timeoutMs, deadlineAtMs, clientTimeoutMs } = this.request
    const waitedMs = nowMs - this.waitingSinceMs
    if (nowMs >= deadlineAtMs) this.fail('deadline', `the call of ${service} was not over within its deadline`)
    else if (this.isAnswered) return
    else if (this.hasRequestEnded) {
      if (timeoutMs > 0 && waitedMs >= timeoutMs) {
        this.fail('deadline', `no answer of ${service} began within ${timeoutMs} ms`)
      }
    } else if (waitedMs >= clientTimeoutMs) {
      const code = this.isHeld ? 'deadline' : 'request-timeout'
      this.fail(code, `no byte of the request's body moved for ${clientTimeoutMs} ms`)
    }
  }

  // The request ------------------------------------------------------------------------------------------------------

  /** Body bytes, which must not be changed afterwards unless they are `isShared`. False: stop until `onRequestDrain`. */
  write(chunk: Buffer, isShared = false): boolean {
    this.waitingSinceMs = this.deps.nowMs()
    this.bytesIn += chunk.length
    if (this.isReplayable) {
      this.replayBytes += chunk.length
      if (this.replayBytes > this.deps.retryBodyBytes) this.keepNothing()
      else {
        this.replay ??= []
        this.replay.push(Buffer.from(chunk))
      }
    }
    this.isHeld = this.call?.write(chunk, isShared) === false
    return !this.isHeld
  }

  private keepNothing(): void {
    this.isReplayable = false
    this.replay = undefined
  }

  sendTrailers(trailers: Buffer): void {
    this.trailers = Buffer.from(trailers)
    this.call?.sendTrailers(this.trailers)
  }

  endRequest(): void {
    this.hasRequestEnded = true
    this.waitingSinceMs = this.deps.nowMs()
    if (!this.request.isUpgrade) this.call?.end()
  }

  /** Bytes of what the request has become, a tunnel: they are not kept, and `chunk` may be used again. */
  writeRaw(chunk: Buffer): boolean {
    this.bytesIn += chunk.length
    return this.call?.write(chunk, true) !== false
  }

  endRaw(): void {
    this.call?.end()
    this.hasTunnelEnded = true
    if (this.hasAnswerEnded) this.report('ok', '')
  }

  // The answer, as its reader takes it -------------------------------------------------------------------------------

  pauseAnswer(): void {
    this.call?.pause()
  }

  resumeAnswer(): void {
    this.call?.resume()
  }

  /** The client is gone, or wants no more of it. Nothing is told of it any more. */
  cancel(code: MeshErrorCode, reason: string): void {
    this.isOver = true
    this.resetCall(code, reason)
    if (code !== 'cancelled') this.report(code, reason)
    else this.report(this.hasAnswerEnded ? 'ok' : 'client-gone', '')
  }

  // A place for it ---------------------------------------------------------------------------------------------------

  private attempt(): void {
    const { service } = this.request
    for (;;) {
      const target = this.nextCandidate()
      if (target === undefined) return this.giveUp()
      this.tried = [...this.tried, target.node]
      this.target = target
      const nowMs = this.deps.nowMs()
      this.openedAtMs = nowMs
      const call = this.deps.open(target, {
        service,
        kind: 'http',
        timeoutMs: this.leftMs(nowMs),
        head: this.request.head(nowMs),
      })
      if (call === undefined) {
        const reason = `no link to ${target.name} carries calls at this moment`
        this.onAttemptFailed({ node: target.name, code: 'unreachable', reason })
        continue
      }
      this.call = call
      call.handler = new AnswerHandler(this, call)
      this.sendAgain(call)
      return
    }
  }

  private onAttemptFailed(attempt: Attempt): void {
    this.failed = [...this.failed, attempt]
  }

  /** As `CallOpen.timeoutMs` has it: 0 is no limit. */
  private leftMs(nowMs: number): number {
    const { timeoutMs, deadlineAtMs } = this.request
    const beginMs = timeoutMs === 0 ? Number.POSITIVE_INFINITY : timeoutMs - (nowMs - this.waitingSinceMs)
    const leftMs = Math.min(beginMs, deadlineAtMs - nowMs)
    return leftMs === Number.POSITIVE_INFINITY ? 0 : Math.max(1, Math.ceil(leftMs))
  }

  private nextCandidate(): Candidate | undefined {
    const candidates = this.deps.candidates(this.request.service, this.request.filter)
    if (this.tried.length === 0) return candidates[0]
    const fresh = candidates.find(candidate => !this.tried.includes(candidate.node))
    const { again } = this
    if (fresh !== undefined || again === undefined || again.isUsed) return fresh
    again.isUsed = true
    return candidates.find(candidate => candidate.node === again.node)
  }

  private sendAgain(call: Call): void {
    let isWritable = true
    for (const chunk of this.replay ?? []) isWritable = call.write(chunk)
    if (this.trailers !== undefined) call.sendTrailers(this.trailers)
    if (this.hasRequestEnded && !this.request.isUpgrade) call.end()
    if (!isWritable) this.isHeld = true
    else if (this.isHeld) this.requestDrain()
  }

  private giveUp(): void {
    const { service, filter } = this.request
    const { code, reason } = this.failed.at(-1) ?? noPlace(this.deps, service, filter)
    this.fail(code, reason)
  }

  // What the present attempt's call tells ------------------------------------------------------------------------------

  isPresent(call: Call): boolean {
    return this.call === call && !this.isOver
  }

  answerHead(bytes: Buffer): void {
    if (this.isAnswered) return this.badAnswer('it has another head')
    const head = decodeResponseHead(bytes, FORWARDED_HTTP1_LIMITS)
    if ('code' in head) return this.badAnswer(`its head cannot be read: ${head.reason}`)
    if (head.status >= 200 || head.status === 101) {
      this.isAnswered = true
      this.answeredAtMs = this.deps.nowMs()
      this.status = head.status
      this.egressNote = egressNoteOf(head)
      this.keepNothing()
      // A tunnel was refused: the request is over like any other.
      if (this.request.isUpgrade && head.status !== 101) this.call?.end()
    }
    this.client.onAnswerHead(head)
  }

  answerData(chunk: Buffer): void {
    if (!this.isAnswered) return this.badAnswer('it has a body and no head')
    this.bytesOut += chunk.length
    this.client.onAnswerData(chunk)
  }

  answerTrailers(trailers: Buffer): void {
    if (!this.isAnswered) return this.badAnswer('it has trailers and no head')
    this.client.onAnswerTrailers(trailers)
  }

  answerEnd(): void {
    if (!this.isAnswered) return this.badAnswer('it has no head')
    this.hasAnswerEnded = true
    this.client.onAnswerEnd()
    if (this.status !== 101 || this.hasTunnelEnded) this.report('ok', '')
  }

  requestDrain(): void {
    this.isHeld = false
    this.client.onRequestDrain()
  }

  /** The other node did not say what an answer is: one that is honest does not pass on anything else. */
  badAnswer(reason: string): void {
    this.resetCall('bad-answer', reason)
    this.callFailed(this.reset('bad-answer', `the answer from ${this.target?.name}: ${reason}`))
  }

  callFailed(reset: CallReset): void {
    this.call = undefined
    const { code, reason } = reset
    if (!this.isAnswered) {
      const { target } = this
      this.onAttemptFailed({ node: target?.name ?? '', code, reason })
      if (code === 'link-lost' && target !== undefined && target.path.length > 1) {
        this.again ??= { node: target.node, isUsed: false }
      }
      if (mayRetry(this.request.method, reset, { answered: false, bodyReplayable: this.isReplayable })) {
        this.deps.counters.retries++
        this.attempt()
        return
      }
    }
    this.fail(code, reason)
  }

  // The end ------------------------------------------------------------------------------------------------------------

  /** Ends it with an error of the mesh. */
  fail(code: MeshErrorCode, reason: string): void {
    if (this.isOver) return
    this.isOver = true
    this.resetCall(code, reason)
    this.deps.counters.failed++
    if (this.isAnswered) this.client.onCut(code, reason)
    else this.client.onFailed(code, reason)
    this.report(code, reason)
  }

  private report(outcome: CallOutcome, reason: string): void {
    const { onCallOver, nowMs } = this.deps
    if (this.isReported || onCallOver === undefined) return
    this.isReported = true
    const { service, method, protocol, target, client } = this.request
    const isFailed = outcome !== 'ok' && outcome !== 'client-gone'
    // Field by field: to spread objects into one costs more than all the rest of it.
    onCallOver({
      kind: 'http',
      protocol,
      service,
      method,
      target,
      client,
      status: this.status === 0 && isFailed ? meshStatus(outcome)[0] : this.status,
      grpcStatus: this.grpcStatus,
      outcome,
      reason,
      egress: this.target,
      egressNote: this.egressNote,
      attempts: this.failed,
      beganAtMs: this.beganAtMs,
      openedAtMs: this.openedAtMs,
      answeredAtMs: this.answeredAtMs,
      endedAtMs: nowMs(),
      bytesIn: this.bytesIn,
      bytesOut: this.bytesOut,
    })
  }

  private resetCall(code: MeshErrorCode, reason: string): void {
    const { call } = this
    this.call = undefined
    call?.reset(this.reset(code, reason))
  }

  private reset(code: MeshErrorCode, reason: string): CallReset {
    return { code, reason, node: this.deps.self.id, unexecuted: false }
  }
}

/** Passes what one attempt's call tells to the exchange, as long as it is the present attempt. */
class AnswerHandler implements CallHandler {
  private readonly exchange: Exchange
  private readonly call: Call

  constructor(exchange: Exchange, call: Call) {
    this.exchange = exchange
    this.call = call
  }

  onHead(head: Buffer): void {
    if (this.exchange.isPresent(this.call)) this.exchange.answerHead(head)
  }

  onData(chunk: Buffer): void {
    if (this.exchange.isPresent(this.call)) this.exchange.answerData(chunk)
  }

  onTrailers(trailers: Buffer): void {
    if (this.exchange.isPresent(this.call)) this.exchange.answerTrailers(trailers)
  }

  onEnd(): void {
    if (this.exchange.isPresent(this.call)) this.exchange.answerEnd()
  }

  onDrain(): void {
    if (this.exchange.isPresent(this.call)) this.exchange.requestDrain()
  }

  onReset(reset: CallReset): void {
    if (this.exchange.isPresent(this.call)) this.exchange.callFailed(reset)
  }
}
