import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import type { MeshErrorCode } from '../router/errors.ts'
import type { ServiceName } from '../router/model.ts'
import type { RouteFilter } from '../router/route-filter.ts'
import { reportRefused } from './call-report.ts'
import { NOTE_FIELDS } from './egress-note.ts'
import { Exchange, type ExchangeClient, type ExchangeDeps, type ExchangeRequest } from './exchange.ts'
import { looksLikeH2 } from './h2-frame.ts'
import type { Http1Fault } from './http1-fault.ts'
import {
  type AnswerFraming,
  answerHeadText,
  chooseAnswerFraming,
  encodeChunk,
  type ForwardChanges,
  forwardRequestHead,
  lastChunk,
} from './http1-forward.ts'
import { forwardedTrailersFault, type RequestHead, type ResponseHead } from './http1-head.ts'
import { type MessageHandler, RequestReader } from './http1-reader.ts'
import type { ClientConnection, IngressOptions } from './ingress.ts'
import { ForwardedLines, INGRESS_FIELDS, type Refusal, readWishes, schemeOf, type Wishes } from './ingress-request.ts'
import { looksLikeTls } from './ingress-tls.ts'
import { meshAnswer, meshStatus } from './mesh-answer.ts'
import { viaLine } from './mesh-fields.ts'
import { readShared } from './shared-read.ts'
import { TurnWriter } from './turn-writer.ts'

/** How long a client may still send after it got its whole answer, before it is cut off; gives it time to read the answer. */
const LINGER_MS = 2000
const NO_NOTE = { drop: NOTE_FIELDS, add: '' }
const CONTINUE = Buffer.from('HTTP/1.1 100 Continue\r\n\r\n')

/** The request under way, as its exchange sees it and with what this connection's protocol keeps of it: one object, for calls are many. */
class Present implements ExchangeRequest {
  readonly asked: RequestHead
  readonly service: ServiceName
  readonly filter: RouteFilter | undefined
  readonly timeoutMs: number
  readonly client: string | undefined
  readonly clientTimeoutMs: number
  readonly exchange: Exchange
  framing: AnswerFraming | undefined
  /** Of the answer's body that was announced, what has not come yet; -1: not announced. */
  answerLeft = -1
  answerTrailers: Buffer | undefined
  switched = false
  private readonly forwarded: Buffer

  /** `forwarded`: the head as the next node gets it. `of`: the connection that it came by. */
  constructor(
    asked: RequestHead,
    { service, filter, timeoutMs }: Wishes,
    forwarded: Buffer,
    of: { deps: ExchangeDeps; client: ExchangeClient; address: string | undefined; clientTimeoutMs: number },
  ) {
    this.asked = asked
    this.service = service
    this.filter = filter
    this.timeoutMs = timeoutMs
    this.client = of.address
    this.clientTimeoutMs = of.clientTimeoutMs
    this.forwarded = forwarded
    this.exchange = new Exchange(of.deps, this, of.client)
  }

  get method(): string {
    return this.asked.method
  }

  get protocol(): string {
    return protocolOf(this.asked)
  }

  get target(): string {
    return this.asked.target
  }

  get deadlineAtMs(): number {
    return Number.POSITIVE_INFINITY
  }

  get isUpgrade(): boolean {
    return this.asked.upgrade !== ''
  }

  head(): Buffer {
    return this.forwarded
  }
}

/** One client connection of HTTP/1: reads its requests one after the other, has each exchanged, and writes the answers. */
export class IngressConnection implements MessageHandler<RequestHead>, ExchangeClient, ClientConnection {
  private readonly deps: ExchangeDeps
  private readonly options: IngressOptions
  private readonly socket: Socket
  private readonly onGone: () => void
  private readonly onOther: (protocol: 'h2' | 'tls', first: Buffer) => void
  private readonly onTunnel: (wishes: Wishes, first: Buffer) => void
  private readonly reader: RequestReader
  private readonly out: TurnWriter
  private readonly listeners: readonly (readonly [event: string, listener: () => void])[] = [
    ['drain', () => this.present?.exchange.resumeAnswer()],
    ['end', () => this.onClientEnd()],
    ['error', () => {}],
    ['close', () => this.onClientGone()],
  ]
  /** Gives the socket's bytes to who comes after this connection. */
  private stopReading: () => void = () => {}
  private readonly address: string | undefined
  private readonly forwarded: ForwardedLines
  /** What all requests of this connection have in common. */
  private readonly own: ConstructorParameters<typeof Present>[3]
  private readonly answerChanges: ForwardChanges
  private present: Present | undefined
  /** Nothing was read yet: the client may turn out to speak HTTP/2. */
  private isFresh = true
  /** The first bytes, too few to tell. */
  private first: Buffer | undefined
  /** What CONNECT asked for, until its head is over. */
  private tunnel: Wishes | undefined
  private isDraining = false
  private isGone = false
  private isClosing = false
  private activeAtMs: number
  private lingerUntilMs = Number.POSITIVE_INFINITY
  private closingLeftBytes = -1

  /**
   * `onOther`: the client speaks another protocol; this connection has let go of the socket, `first` is what was read.
   * `onTunnel`: the same, after CONNECT.
   */
  constructor(
    deps: ExchangeDeps,
    options: IngressOptions,
    socket: Socket,
    events: {
      onGone(): void
      onOther(protocol: 'h2' | 'tls', first: Buffer): void
      onTunnel(wishes: Wishes, first: Buffer): void
    },
  ) {
    this.deps = deps
    this.options = options
    this.socket = socket
    this.onGone = events.onGone
    this.onOther = events.onOther
    this.onTunnel = events.onTunnel
    this.reader = new RequestReader(this)
    this.out = new TurnWriter(socket)
    this.address = socket.remoteAddress
    const { name: node } = deps.self
    this.forwarded = new ForwardedLines({ node, address: this.address, scheme: schemeOf(socket) })
    this.own = { deps, client: this, address: this.address, clientTimeoutMs: options.clientTimeoutMs }
    this.answerChanges = { drop: NOTE_FIELDS, add: viaLine(node) }
    this.activeAtMs = deps.nowMs()
  }

  start(): void {
    for (const [event, listener] of this.listeners) this.socket.on(event, listener)
    this.stopReading = readShared(this.socket, (chunk, end) => this.onBytes(chunk, end))
  }

  get inFlight(): number {
    return this.present === undefined ? 0 : 1
  }

  get idleSinceMs(): number | undefined {
    return this.present === undefined && !this.isClosing && this.reader.idle ? this.activeAtMs : undefined
  }

  /** There are too many connections: says so instead of reading a request. */
  turnAway(reason: string): void {
    this.refuse({ code: 'overloaded', reason })
  }

  drain(): void {
    this.isDraining = true
    if (this.present === undefined && this.reader.idle) this.close()
  }

  destroy(): void {
    this.socket.destroy()
  }

  /** Time-outs, looked at by the ingress a few times a second. */
  tick(nowMs: number): void {
    if (nowMs >= this.lingerUntilMs) this.socket.destroy()
    else if (this.isClosing) this.tickClosing(nowMs)
    else if (this.present === undefined) this.tickIdle(nowMs)
    else this.present.exchange.tick(nowMs)
  }

  /** What is left of an answer is sent as long as the client takes any of it. */
  private tickClosing(nowMs: number): void {
    const leftBytes = this.socket.writableLength
    if (leftBytes !== this.closingLeftBytes) {
      this.closingLeftBytes = leftBytes
      this.activeAtMs = nowMs
    } else if (nowMs - this.activeAtMs >= this.options.clientTimeoutMs) this.socket.destroy()
  }

  private tickIdle(nowMs: number): void {
    const quietMs = nowMs - this.activeAtMs
    if (this.reader.idle) {
      if (quietMs >= this.options.idleTimeoutMs) this.close()
    } else if (quietMs >= this.options.clientTimeoutMs) {
      const reason = `no whole request head came within ${this.options.clientTimeoutMs} ms`
      this.refuse({ code: 'request-timeout', reason })
    }
  }

  /** The bytes of `chunk` before `end`; it is used again afterwards. */
  private onBytes(chunk: Buffer, end: number): void {
    if (this.isClosing) return
    if (this.isFresh) this.onFirst(Buffer.from(chunk.subarray(0, end)))
    else this.read(chunk, end)
  }

  /** Tells protocols apart. `chunk` is this connection's to keep. */
  private onFirst(chunk: Buffer): void {
    const first = this.first === undefined ? chunk : Buffer.concat([this.first, chunk])
    this.first = undefined
    const isH2 = looksLikeH2(first)
    const isTls = this.mayBeTls && looksLikeTls(first)
    if (isH2 === 'maybe') this.first = first
    else {
      this.isFresh = false
      if (isH2 || isTls) {
        this.letGo()
        this.onOther(isH2 ? 'h2' : 'tls', first)
      } else this.read(first, first.length)
    }
  }

  private read(chunk: Buffer, end: number): void {
    if (this.reader.idle) this.activeAtMs = this.deps.nowMs()
    if (this.present?.switched === true) this.writeRaw(this.present, chunk.subarray(0, end))
    else this.reader.push(chunk, end)
    // Requests that wait for their turn stay in the kernel, not here.
    if (this.reader.buffered > 0) this.socket.pause()
  }

  /** TLS is offered, and this is not inside it already. */
  private get mayBeTls(): boolean {
    return this.options.tls !== undefined && !(this.socket instanceof TLSSocket)
  }

  private letGo(): void {
    this.isGone = true
    this.reader.destroy()
    this.stopReading()
    for (const [event, listener] of this.listeners) this.socket.removeListener(event, listener)
    this.onGone()
  }

  // The request -----------------------------------------------------------------------------------------------------

  onHead(head: RequestHead): void {
    this.deps.counters.total++
    const { self } = this.deps
    const wishes = readWishes(head, self, this.options.timeoutMs)
    if ('code' in wishes) return this.refuse(wishes, head)
    if (head.method === 'CONNECT') {
      this.tunnel = wishes
      return
    }
    const add = this.forwarded.of(head, wishes.service)
    const present = new Present(head, wishes, forwardRequestHead(head, { drop: INGRESS_FIELDS, add }), this.own)
    const { exchange } = present
    this.present = present
    exchange.start()
    if (head.expectContinue && this.present === present && !exchange.hasAnswerBegun) this.out.write(CONTINUE)
  }

  onData(chunk: Buffer): void {
    if (this.present?.exchange.write(chunk, true) === false) this.socket.pause()
  }

  onTrailers(trailers: Buffer): void {
    this.present?.exchange.sendTrailers(trailers)
  }

  onEnd(): void {
    const { present, tunnel } = this
    if (tunnel !== undefined) {
      const first = Buffer.from(this.reader.takeRest())
      this.out.flush()
      this.letGo()
      this.onTunnel(tunnel, first)
    }
    if (present === undefined) return
    present.exchange.endRequest()
    this.finishIfOver(present)
  }

  onError(fault: Http1Fault): void {
    const exchange = this.present?.exchange
    if (exchange === undefined) this.refuse(fault)
    else if (exchange.hasAnswerBegun) this.socket.destroy()
    else exchange.fail(fault.code, fault.reason)
  }

  // The answer ------------------------------------------------------------------------------------------------------

  onAnswerHead(head: ResponseHead): void {
    const { present } = this
    if (present === undefined) return
    const { method, version, keepAlive } = present.asked
    if (head.status < 200 && head.status !== 101) {
      if (version === 11) {
        this.out.writeText(answerHeadText(head, 11, chooseAnswerFraming(head, method, 11, true), NO_NOTE))
      }
      return
    }
    const keep = keepAlive && !this.isDraining
    present.framing = chooseAnswerFraming(head, method, version, keep)
    this.out.writeText(answerHeadText(head, version, present.framing, this.answerChanges))
    if (head.status === 101) this.switchProtocols(present)
    else if (present.framing.body === 'none') present.answerLeft = 0
    else if (present.framing.body === 'length') present.answerLeft = head.contentLength
  }

  /** What is not of the answer as its head has it would be read as the answer to the next request, which may be of another service. */
  onAnswerData(chunk: Buffer): void {
    const { present } = this
    if (present === undefined) return
    if (present.answerLeft >= 0) {
      present.answerLeft -= chunk.length
      if (present.answerLeft < 0) return present.exchange.badAnswer('it has more body than its head says')
    }
    let isWritable = true
    if (present.framing?.body === 'chunked') {
      for (const part of encodeChunk(chunk)) isWritable = this.out.write(part)
    } else isWritable = this.out.write(chunk)
    if (!isWritable) present.exchange.pauseAnswer()
  }

  onAnswerTrailers(trailers: Buffer): void {
    const { present } = this
    if (present?.framing?.body !== 'chunked') return
    const fault = forwardedTrailersFault(trailers, 'bad-answer')
    if (fault === undefined) present.answerTrailers = Buffer.from(trailers)
    else present.exchange.badAnswer(fault)
  }

  onAnswerEnd(): void {
    const { present } = this
    if (present === undefined) return
    if (present.answerLeft > 0) return present.exchange.badAnswer('it has less body than its head says')
    if (present.switched) this.out.end()
    else if (present.framing?.body === 'chunked') this.out.write(lastChunk(present.answerTrailers))
    this.out.flush()
    this.finishIfOver(present)
  }

  /** The client may send again. */
  onRequestDrain(): void {
    this.socket.resume()
  }

  /** A failure before an answer began: the mesh answers itself. */
  onFailed(code: MeshErrorCode, reason: string): void {
    const { present } = this
    if (present === undefined) return
    this.present = undefined
    const { asked: head, service, exchange } = present
    const { attempts, requestEnded } = exchange
    const keepAlive = requestEnded && head.keepAlive && head.upgrade === '' && !this.isDraining
    this.out.write(meshAnswer({ code, reason, node: this.deps.self.name, service, attempts }, head.method, keepAlive))
    if (keepAlive) this.nextRequest()
    else this.close()
  }

  onCut(): void {
    this.present = undefined
    this.socket.destroy()
  }

  private switchProtocols(present: Present): void {
    present.switched = true
    this.socket.resume()
    const rest = this.reader.takeRest()
    if (rest.length > 0) this.writeRaw(present, rest)
  }

  private writeRaw(present: Present, chunk: Buffer): void {
    if (!present.exchange.writeRaw(chunk)) this.socket.pause()
  }

  // The end ---------------------------------------------------------------------------------------------------------

  private finishIfOver(present: Present): void {
    const { exchange } = present
    if (!exchange.answerEnded) return
    if (present.switched) {
      if (this.socket.readableEnded) this.end(present)
      return
    }
    this.end(present)
    if (!exchange.requestEnded) {
      // An answer before the whole request: the rest is not wanted, and what follows could not be told from it.
      exchange.cancel('cancelled', 'the answer came before the request was whole')
      this.close()
    } else if (present.framing?.keepAlive === true && !this.isDraining) this.nextRequest()
    else this.close()
  }

  private nextRequest(): void {
    this.activeAtMs = this.deps.nowMs()
    // Before: the next request may be here in part, and stop the client anew; what waits behind it does so as well.
    this.socket.resume()
    this.reader.next()
    if (this.reader.buffered > 0 && !this.isClosing) this.socket.pause()
  }

  /** A request that never became an exchange. */
  private refuse(refusal: Refusal, head?: RequestHead): void {
    this.deps.counters.failed++
    if (head === undefined) this.deps.counters.total++
    this.out.write(meshAnswer({ ...refusal, node: this.deps.self.name }, head?.method ?? '', false))
    this.close()
    const { code: outcome, reason, service = '' } = refusal
    const [status] = meshStatus(outcome)
    const refused = { outcome, reason, service, status, client: this.socket.remoteAddress }
    const asked = { protocol: protocolOf(head), method: head?.method ?? '', target: head?.target ?? '' }
    this.deps.onCallOver?.(reportRefused({ ...refused, ...asked }, this.deps.nowMs()))
  }

  private end(present: Present): void {
    if (this.present === present) this.present = undefined
  }

  /** Says goodbye, and lets the client read what it was told: bytes of its own still under way must not reset the connection. */
  private close(): void {
    if (this.isClosing) return
    this.isClosing = true
    this.reader.destroy()
    this.socket.once('finish', () => {
      this.lingerUntilMs = this.deps.nowMs() + LINGER_MS
    })
    this.out.end()
    this.socket.resume()
  }

  private onClientEnd(): void {
    const { present, first } = this
    // It ended so early that there was nothing to tell HTTP/2 by.
    if (first !== undefined) {
      this.isFresh = false
      this.first = undefined
      this.read(first, first.length)
    }
    if (present?.switched === true) {
      present.exchange.endRaw()
      this.finishIfOver(present)
    } else if (present === undefined && !this.isClosing) {
      // Half a head is worth an answer; nothing at all is a goodbye.
      if (this.reader.idle) this.close()
      else this.reader.finish()
    }
    // A process that dies looks just like one that half-closes and waits. nginx and Go take it for gone, and so do we:
    // or work for clients that are no more would go on at the instances.
    else this.socket.destroy()
  }

  private onClientGone(): void {
    if (this.isGone) return
    this.isGone = true
    const { present } = this
    this.present = undefined
    present?.exchange.cancel('cancelled', 'the client closed its connection')
    this.reader.destroy()
    this.onGone()
  }
}

function protocolOf(head: RequestHead | undefined): string {
  return head?.version === 10 ? 'HTTP/1.0' : 'HTTP/1.1'
}
