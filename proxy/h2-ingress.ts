import type { Socket } from 'node:net'
import type { MeshErrorCode } from '../router/errors.ts'
import { IdMap } from '../router/id-map.ts'
import { reportRefused } from './call-report.ts'
import { Exchange, type ExchangeClient, type ExchangeDeps, type ExchangeRequest } from './exchange.ts'
import { formatGrpcTimeout, grpcFailure, parseGrpcTimeoutMs } from './grpc.ts'
import { H2Connection, type H2ConnectionHandler } from './h2-connection.ts'
import { h2ResponseFields, h2TrailerFields, isGrpc } from './h2-forward.ts'
import { H2_ERROR } from './h2-frame.ts'
import { readH2Request, readH2Trailers } from './h2-head.ts'
import type { H2Reset, H2Stream, H2StreamHandler } from './h2-stream.ts'
import type { HpackField } from './hpack-table.ts'
import { Http1Fault } from './http1-fault.ts'
import { fieldValue } from './http1-fields.ts'
import { chooseAnswerFraming, forwardRequestHead } from './http1-forward.ts'
import type { RequestHead, ResponseHead } from './http1-head.ts'
import type { ClientConnection, IngressOptions } from './ingress.ts'
import { ForwardedLines, INGRESS_FIELDS, type Refusal, readWishes, schemeOf, type Wishes } from './ingress-request.ts'
import { type MeshFailure, meshAnswerH2, meshStatus } from './mesh-answer.ts'
import { readShared } from './shared-read.ts'

/** Between saying goodbye and cutting off a client that does not hang up. */
const LINGER_MS = 2000
/** How long a draining connection waits for the client to confirm that it has stopped sending requests. */
const DRAIN_NOTICE_MS = 1000
const GRPC_DROPPED = [...INGRESS_FIELDS, 'grpc-timeout']

/** One client connection of HTTP/2: each of its streams is a request of its own, routed and balanced like all others. */
export class H2Ingress implements ClientConnection, H2ConnectionHandler {
  readonly deps: ExchangeDeps
  readonly options: IngressOptions
  readonly socket: Socket
  readonly connection: H2Connection
  readonly forwarded: ForwardedLines
  private readonly onClosed: () => void
  private readonly streams = new IdMap<H2IngressStream>()
  /** When the last stream ended, or the last byte came while there was none. */
  private activeAtMs: number
  private noticedAtMs = Number.POSITIVE_INFINITY
  private lingerUntilMs = Number.POSITIVE_INFINITY

  constructor(deps: ExchangeDeps, options: IngressOptions, socket: Socket, onClosed: () => void) {
    this.deps = deps
    this.options = options
    this.socket = socket
    this.onClosed = onClosed
    const { name: node } = deps.self
    this.forwarded = new ForwardedLines({ node, address: socket.remoteAddress, scheme: schemeOf(socket) })
    this.activeAtMs = deps.nowMs()
    this.connection = new H2Connection({ socket, nowMs: deps.nowMs, handler: this }, { role: 'server' })
  }

  start(): void {
    const { socket, connection } = this
    readShared(socket, (chunk, end) => this.push(chunk.subarray(0, end)))
    socket.on('drain', () => connection.onSocketDrain())
    // Whoever half-closes is taken for gone, as with HTTP/1: HTTP/2 has its own word for "no more requests".
    socket.on('end', () => socket.destroy())
    socket.on('error', () => {})
    socket.on('close', () => {
      connection.lost('the client closed its connection')
      this.onClosed()
    })
    connection.start()
  }

  push(chunk: Buffer): void {
    this.connection.push(chunk)
  }

  get inFlight(): number {
    return this.connection.streamCount
  }

  get idleSinceMs(): number | undefined {
    return this.connection.streamCount === 0 ? this.activeAtMs : undefined
  }

  tick(nowMs: number): void {
    const { connection, options } = this
    if (nowMs >= this.lingerUntilMs) return void this.socket.destroy()
    if (nowMs - this.noticedAtMs >= DRAIN_NOTICE_MS) connection.finishDrain()
    for (const stream of this.streams.all()) stream.tick(nowMs)
    const { headSinceMs } = connection
    if (headSinceMs !== undefined && nowMs - headSinceMs >= options.clientTimeoutMs) {
      connection.fail(H2_ERROR.PROTOCOL_ERROR, `no whole request head came within ${options.clientTimeoutMs} ms`)
    } else if (connection.streamCount === 0 && nowMs - this.activeAtMs >= options.idleTimeoutMs) connection.close()
  }

  drain(): void {
    this.noticedAtMs = this.deps.nowMs()
    this.connection.drain()
  }

  destroy(): void {
    this.socket.destroy()
  }

  // What the connection tells ----------------------------------------------------------------------------------------

  onStream(stream: H2Stream): H2StreamHandler {
    const one = new H2IngressStream(this, stream)
    this.streams.set(stream.id, one)
    return one
  }

  onReady(): void {}

  onGoaway(): void {}

  onStreamOver(): void {
    this.activeAtMs = this.deps.nowMs()
  }

  onGone(reason: string): void {
    this.lingerUntilMs = this.deps.nowMs() + LINGER_MS
    for (const stream of this.streams.all()) stream.onReset({ reason })
  }

  streamOver(stream: H2Stream): void {
    this.streams.delete(stream.id)
  }
}

/** One request of a client of HTTP/2, and its answer. */
class H2IngressStream implements H2StreamHandler, ExchangeClient {
  private readonly owner: H2Ingress
  private readonly stream: H2Stream
  private exchange: Exchange | undefined
  private head: RequestHead | undefined
  private isGrpc = false
  /** Of the body that was announced, what has not come yet; -1: not announced. */
  private bodyLeft = -1
  private answerTrailers: Buffer | undefined
  /** The answer's head said that nothing follows. */
  private hasEndedWithHead = false
  private isDone = false

  constructor(owner: H2Ingress, stream: H2Stream) {
    this.owner = owner
    this.stream = stream
  }

  tick(nowMs: number): void {
    this.exchange?.tick(nowMs)
  }

  // The request ------------------------------------------------------------------------------------------------------

  onFields(fields: readonly HpackField[], ended: boolean): void {
    if (this.head !== undefined) return this.onTrailerFields(fields, ended)
    const { deps, options } = this.owner
    deps.counters.total++
    const head = readH2Request(fields, ended)
    if (head instanceof Http1Fault) {
      if (head.code === 'head-too-large') return this.refuse(head)
      return this.malformed(head.reason)
    }
    this.head = head
    this.isGrpc = isGrpc(head)
    this.bodyLeft = ended ? 0 : head.contentLength
    if (head.method === 'CONNECT') {
      const reason = 'CONNECT is not supported over HTTP/2; ask for the tunnel over HTTP/1.1, on the same port'
      return this.refuse({ code: 'bad-request', reason })
    }
    // A gRPC call without a deadline of its own has none: streams that are silent for hours are usual.
    const wishes = readWishes(head, deps.self, this.isGrpc ? 0 : options.timeoutMs)
    if ('code' in wishes) return this.refuse(wishes)
    const grpcTimeout = this.isGrpc ? fieldValue(head.fields, 'grpc-timeout') : undefined
    const grpcTimeoutMs = grpcTimeout === undefined ? Number.POSITIVE_INFINITY : parseGrpcTimeoutMs(grpcTimeout)
    if (grpcTimeoutMs === undefined) {
      const reason = 'grpc-timeout: expected up to eight digits and one of H, M, S, m, u, n'
      return this.refuse({ code: 'bad-request', reason, service: wishes.service })
    }
    this.exchange = new Exchange(deps, this.requestOf(head, wishes, deps.nowMs() + grpcTimeoutMs), this)
    this.exchange.start()
    if (head.expectContinue && !this.isDone && !this.exchange.hasAnswerBegun) {
      this.owner.connection.outbox.sendHead(this.stream, [':status', '100'], false)
    }
  }

  private requestOf(head: RequestHead, wishes: Wishes, deadlineAtMs: number): ExchangeRequest {
    const { options, socket } = this.owner
    const add = this.owner.forwarded.of(head, wishes.service)
    let forwarded: Buffer | undefined
    return {
      ...{ protocol: this.protocol, target: head.target, client: socket.remoteAddress },
      ...{ ...wishes, deadlineAtMs, method: head.method, isUpgrade: false },
      clientTimeoutMs: this.isGrpc ? Number.POSITIVE_INFINITY : options.clientTimeoutMs,
      head(nowMs) {
        if (deadlineAtMs === Number.POSITIVE_INFINITY) {
          forwarded ??= forwardRequestHead(head, { drop: INGRESS_FIELDS, add })
          return forwarded
        }
        const left = `grpc-timeout: ${formatGrpcTimeout(Math.max(0, deadlineAtMs - nowMs))}\r\n`
        return forwardRequestHead(head, { drop: GRPC_DROPPED, add: add + left })
      },
    }
  }

  private onTrailerFields(fields: readonly HpackField[], ended: boolean): void {
    if (!ended) return this.malformed('a second head that is not the end of the stream')
    const trailers = readH2Trailers(fields, 'bad-request')
    if (trailers instanceof Http1Fault) return this.malformed(trailers.reason)
    // Only a body of unknown length can be followed by them in HTTP/1; elsewhere they are left out, as may be done.
    if (this.head?.chunked === true && trailers.length > 0) this.exchange?.sendTrailers(trailers)
  }

  onData(chunk: Buffer): void {
    if (this.bodyLeft >= 0) {
      this.bodyLeft -= chunk.length
      if (this.bodyLeft < 0) return this.malformed('more body came than content-length says')
    }
    if (this.exchange?.write(chunk, true) === false) this.owner.connection.pause(this.stream)
  }

  onEnd(): void {
    if (this.bodyLeft > 0) return this.malformed('less body came than content-length says')
    this.exchange?.endRequest()
    if (this.exchange?.answerEnded === true) this.done()
  }

  onDrain(): void {
    this.exchange?.resumeAnswer()
  }

  onReset({ reason }: Pick<H2Reset, 'reason'>): void {
    if (this.isDone) return
    this.done()
    this.exchange?.cancel('cancelled', `the client gave up: ${reason}`)
  }

  // The answer -------------------------------------------------------------------------------------------------------

  onAnswerHead(head: ResponseHead): void {
    if (this.isDone) return
    const { connection, deps } = this.owner
    const method = this.head?.method ?? ''
    const isInterim = head.status < 200
    if (head.status === 101) return this.onCut('bad-answer')
    const via = isInterim ? '' : `1.1 flatmesh-${deps.self.name}`
    this.hasEndedWithHead = !isInterim && chooseAnswerFraming(head, method, 11, true).body === 'none'
    if (this.hasEndedWithHead && this.isGrpc) this.noteGrpcStatus(head.fields)
    connection.outbox.sendHead(this.stream, h2ResponseFields(head, via), this.hasEndedWithHead)
  }

  onAnswerData(chunk: Buffer): void {
    if (this.isDone || this.hasEndedWithHead) return
    if (!this.owner.connection.outbox.write(this.stream, chunk)) this.exchange?.pauseAnswer()
  }

  onAnswerTrailers(trailers: Buffer): void {
    this.answerTrailers = Buffer.from(trailers)
  }

  onAnswerEnd(): void {
    if (this.isDone) return
    const { connection } = this.owner
    const trailers = this.answerTrailers === undefined ? undefined : h2TrailerFields(this.answerTrailers)
    if (trailers instanceof Http1Fault) {
      this.exchange?.cancel('bad-answer', trailers.reason)
      return this.onCut('bad-answer', trailers.reason)
    }
    if (trailers !== undefined && this.isGrpc) this.noteGrpcStatus(trailers)
    if (!this.hasEndedWithHead) connection.outbox.end(this.stream, trailers)
    if (this.exchange?.requestEnded === false) {
      this.exchange.cancel('cancelled', 'the answer came before the request was whole')
      connection.stopPeerAtEnd(this.stream)
    }
    this.done()
  }

  private noteGrpcStatus(fields: readonly string[]): void {
    const status = fieldValue(fields, 'grpc-status')
    if (this.exchange !== undefined && status !== undefined) this.exchange.grpcStatus = status
  }

  onRequestDrain(): void {
    this.owner.connection.resume(this.stream)
  }

  onFailed(code: MeshErrorCode, reason: string): void {
    if (this.isDone) return
    // A cancelled call is told as what it is; clients of gRPC read CANCELLED from it.
    if (code === 'cancelled') return this.resetStream(H2_ERROR.CANCEL)
    const { service } = this.exchange?.request ?? {}
    const { attempts } = this.exchange ?? {}
    this.answer({
      ...{ code, reason, node: this.owner.deps.self.name },
      ...(service !== undefined && { service }),
      ...(attempts !== undefined && { attempts }),
    })
  }

  /** In the middle of an answer: gRPC has a place for the reason, all others see a stream that breaks off. */
  onCut(code: MeshErrorCode, reason = ''): void {
    if (this.isDone) return
    const { connection, deps } = this.owner
    if (code === 'cancelled') return this.resetStream(H2_ERROR.CANCEL)
    if (!this.isGrpc || this.hasEndedWithHead) return this.resetStream(H2_ERROR.INTERNAL_ERROR)
    connection.outbox.abort(this.stream, grpcFailure({ code, reason, node: deps.self.name }))
    connection.stopPeerAtEnd(this.stream)
    this.done()
  }

  // The end ----------------------------------------------------------------------------------------------------------

  private refuse(refusal: Refusal): void {
    this.owner.deps.counters.failed++
    this.answer({ ...refusal, node: this.owner.deps.self.name })
    this.reportRefused(refusal)
  }

  private reportRefused({ code: outcome, reason, service = '' }: Refusal): void {
    const { deps, socket } = this.owner
    const { method = '', target = '' } = this.head ?? {}
    const refused = { outcome, reason, service, status: meshStatus(outcome)[0] }
    const asked = { protocol: this.protocol, client: socket.remoteAddress, method, target }
    deps.onCallOver?.(reportRefused({ ...refused, ...asked }, deps.nowMs()))
  }

  private get protocol(): string {
    return this.isGrpc ? 'gRPC' : 'HTTP/2'
  }

  /** The mesh's own answer. */
  private answer(failure: MeshFailure): void {
    const { outbox } = this.owner.connection
    if (this.isGrpc) {
      const fields = [':status', '200', 'content-type', 'application/grpc', ...grpcFailure(failure)]
      outbox.sendHead(this.stream, fields, true)
    } else {
      const { fields, body } = meshAnswerH2(failure, this.head?.method ?? '')
      outbox.sendHead(this.stream, fields, body === '')
      outbox.write(this.stream, Buffer.from(body))
      outbox.end(this.stream, undefined)
    }
    this.owner.connection.stopPeerAtEnd(this.stream)
    this.done()
  }

  /** RFC 9113 section 8.1.1: not a request at all. */
  private malformed(reason: string): void {
    if (this.isDone) return
    this.done()
    this.owner.deps.counters.failed++
    if (this.exchange === undefined) this.reportRefused({ code: 'bad-request', reason })
    else this.exchange.cancel('bad-request', reason)
    this.owner.connection.streamError(this.stream, H2_ERROR.PROTOCOL_ERROR, reason)
  }

  private resetStream(code: typeof H2_ERROR.CANCEL | typeof H2_ERROR.INTERNAL_ERROR): void {
    this.done()
    this.owner.connection.reset(this.stream, code)
  }

  private done(): void {
    this.isDone = true
    this.owner.streamOver(this.stream)
  }
}
