import type { Socket } from 'node:net'
import type { MeshErrorCode } from '../router/errors.ts'
import type { Candidate, NodeId, ServiceName } from '../router/model.ts'
import type { Call, CallHandler, CallReset } from './call.ts'
import { viaLine } from './egress.ts'
import type { Http1Fault } from './http1-fault.ts'
import { fieldValue } from './http1-fields.ts'
import {
  type AnswerFraming,
  chooseAnswerFraming,
  encodeChunk,
  forwardRequestHead,
  forwardResponseHead,
  lastChunk,
} from './http1-forward.ts'
import { decodeResponseHead, type RequestHead } from './http1-head.ts'
import { FORWARDED_HTTP1_LIMITS } from './http1-limits.ts'
import { type MessageHandler, RequestReader } from './http1-reader.ts'
import type { IngressCounters, IngressDeps, IngressOptions } from './ingress.ts'
import { type Attempt, meshAnswer } from './mesh-answer.ts'
import { mayRetry } from './retry.ts'
import { serviceOf } from './service-name.ts'
import { chooseTimeoutMs } from './timeout.ts'
import { TurnWriter } from './turn-writer.ts'

/** Fields that steer the mesh and end at the ingress. */
const MESH_FIELDS = ['x-flatmesh-service', 'x-flatmesh-timeout', 'x-forwarded-for'] as const
/** How long a client may still send after it got its whole answer, before it is cut off; gives it time to read the answer. */
const LINGER_MS = 2000
const CONTINUE = Buffer.from('HTTP/1.1 100 Continue\r\n\r\n')

/** A request from its head to the end of its answer. */
interface Exchange {
  readonly head: RequestHead
  readonly service: ServiceName
  readonly forwarded: Buffer
  readonly attempts: Attempt[]
  readonly tried: Set<NodeId>
  readonly timeoutMs: number
  /** Bytes of the body so far, for another try; undefined once they are too many or an answer has begun. */
  replay: Buffer[] | undefined
  replayBytes: number
  /** Of the request, for another try. */
  trailers: Buffer | undefined
  answerTrailers: Buffer | undefined
  call: Call | undefined
  target: Candidate | undefined
  framing: AnswerFraming | undefined
  answered: boolean
  answerEnded: boolean
  requestEnded: boolean
  switched: boolean
  /** When waiting for the answer began: the last byte of the request that moved. */
  waitingSinceMs: number
}

/**
 * One client connection: reads its requests one after the other, finds each a place, and writes the answers.
 *
 * While an answer has not begun, a call that came to nothing may go to the next candidate (retry.ts decides). After
 * that the only honest way to fail is to cut the connection.
 */
export class IngressConnection implements MessageHandler<RequestHead> {
  private readonly deps: IngressDeps
  private readonly options: IngressOptions
  private readonly counters: IngressCounters
  private readonly socket: Socket
  private readonly onGone: () => void
  private readonly reader: RequestReader
  private readonly out: TurnWriter
  private exchange: Exchange | undefined
  private isDraining = false
  private isGone = false
  private isClosing = false
  private activeAtMs: number
  private lingerUntilMs = Number.POSITIVE_INFINITY
  private closingLeftBytes = -1

  constructor(
    deps: IngressDeps,
    options: IngressOptions,
    counters: IngressCounters,
    socket: Socket,
    onGone: () => void,
  ) {
    this.deps = deps
    this.options = options
    this.counters = counters
    this.socket = socket
    this.onGone = onGone
    this.reader = new RequestReader(this)
    this.out = new TurnWriter(socket)
    this.activeAtMs = deps.nowMs()
  }

  start(): void {
    const { socket } = this
    socket.on('data', chunk => this.onBytes(chunk))
    socket.on('drain', () => this.exchange?.call?.resume())
    socket.on('end', () => this.onClientEnd())
    socket.on('error', () => {})
    socket.on('close', () => this.onClientGone())
  }

  get isBusy(): boolean {
    return this.exchange !== undefined
  }

  drain(): void {
    this.isDraining = true
    if (this.exchange === undefined && this.reader.idle) this.close()
  }

  destroy(): void {
    this.socket.destroy()
  }

  /** Time-outs, looked at by the ingress a few times a second. */
  tick(nowMs: number): void {
    const { exchange } = this
    if (nowMs >= this.lingerUntilMs) this.socket.destroy()
    else if (this.isClosing) this.tickClosing(nowMs)
    else if (exchange === undefined) this.tickIdle(nowMs)
    else if (exchange.answered) return
    else if (nowMs - exchange.waitingSinceMs >= exchange.timeoutMs && exchange.requestEnded) {
      this.fail(exchange, 'deadline', `no answer of ${exchange.service} began within ${exchange.timeoutMs} ms`)
    } else if (!exchange.requestEnded && nowMs - exchange.waitingSinceMs >= this.options.clientTimeoutMs) {
      const code: MeshErrorCode =
        exchange.call === undefined || !this.socket.isPaused() ? 'request-timeout' : 'deadline'
      this.fail(exchange, code, `no byte of the request's body moved for ${this.options.clientTimeoutMs} ms`)
    }
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
      this.refuse('request-timeout', `no whole request head came within ${this.options.clientTimeoutMs} ms`)
    }
  }

  private onBytes(chunk: Buffer): void {
    const { exchange } = this
    if (this.isClosing) return
    if (this.reader.idle) this.activeAtMs = this.deps.nowMs()
    if (exchange?.switched === true) this.writeRaw(exchange, chunk)
    else this.reader.push(chunk)
    // Requests that wait for their turn stay in the kernel, not here.
    if (this.reader.buffered > 0) this.socket.pause()
  }

  // The request -----------------------------------------------------------------------------------------------------

  onHead(head: RequestHead): void {
    this.counters.total++
    const service = serviceOf(head)
    if (head.method === 'CONNECT')
      return this.refuse('bad-request', 'CONNECT is not supported; use http:// addresses', head)
    if (service === undefined) {
      const found = fieldValue(head.fields, 'x-flatmesh-service') ?? head.host
      const reason = `"${found}" names no service; expected a host such as orders.mesh, or the field x-flatmesh-service`
      return this.refuse('unknown-service', reason, head)
    }
    const loop = `flatmesh-${this.deps.self.name} (${service})`
    if (head.fields.some((text, i) => i % 2 === 1 && text.includes(loop))) {
      return this.refuse(
        'loop',
        `the call has passed ${this.deps.self.name} before, as a call for ${service}`,
        head,
        service,
      )
    }
    const timeoutMs = chooseTimeoutMs(fieldValue(head.fields, 'x-flatmesh-timeout'), this.options.timeoutMs)
    if (timeoutMs === undefined) {
      return this.refuse('bad-request', 'x-flatmesh-timeout: expected a span such as 1500ms or 2s', head, service)
    }
    const exchange: Exchange = {
      head,
      service,
      forwarded: forwardRequestHead(head, { drop: MESH_FIELDS, add: this.addedFields(head, service) }),
      attempts: [],
      tried: new Set(),
      timeoutMs,
      replay: [],
      replayBytes: 0,
      trailers: undefined,
      answerTrailers: undefined,
      call: undefined,
      target: undefined,
      framing: undefined,
      answered: false,
      answerEnded: false,
      requestEnded: false,
      switched: false,
      waitingSinceMs: this.deps.nowMs(),
    }
    this.exchange = exchange
    this.attempt(exchange)
    if (head.expectContinue && this.exchange === exchange && !exchange.answered) this.out.write(CONTINUE)
  }

  onData(chunk: Buffer): void {
    const { exchange } = this
    if (exchange === undefined) return
    exchange.waitingSinceMs = this.deps.nowMs()
    if (exchange.replay !== undefined) {
      exchange.replayBytes += chunk.length
      if (exchange.replayBytes > this.options.retryBodyBytes) exchange.replay = undefined
      else exchange.replay.push(Buffer.from(chunk))
    }
    if (exchange.call?.write(chunk) === false) this.socket.pause()
  }

  onTrailers(trailers: Buffer): void {
    const { exchange } = this
    if (exchange === undefined) return
    exchange.trailers = Buffer.from(trailers)
    exchange.call?.sendTrailers(exchange.trailers)
  }

  onEnd(): void {
    const { exchange } = this
    if (exchange === undefined) return
    exchange.requestEnded = true
    exchange.waitingSinceMs = this.deps.nowMs()
    // An upgrade's request ends only when its client does, should the answer switch protocols.
    if (exchange.head.upgrade === '') exchange.call?.end()
    this.finishIfOver(exchange)
  }

  onError(fault: Http1Fault): void {
    const { exchange } = this
    if (exchange === undefined) this.refuse(fault.code, fault.reason)
    else if (exchange.answered) this.socket.destroy()
    else this.fail(exchange, fault.code, fault.reason)
  }

  private addedFields(head: RequestHead, service: ServiceName): string {
    const { fields, host } = head
    const address = this.socket.remoteAddress ?? 'unknown'
    const earlier = fieldValue(fields, 'x-forwarded-for')
    let lines = `Via: 1.1 flatmesh-${this.deps.self.name} (${service})\r\n`
    lines += `X-Forwarded-For: ${earlier === undefined ? address : `${earlier}, ${address}`}\r\n`
    if (fieldValue(fields, 'x-forwarded-host') === undefined) lines += `X-Forwarded-Host: ${host}\r\n`
    if (fieldValue(fields, 'x-forwarded-proto') === undefined) lines += 'X-Forwarded-Proto: http\r\n'
    return lines
  }

  // A place for it --------------------------------------------------------------------------------------------------

  private attempt(exchange: Exchange): void {
    for (;;) {
      const target = this.nextCandidate(exchange)
      if (target === undefined) return this.giveUp(exchange)
      exchange.tried.add(target.node)
      exchange.target = target
      const waitedMs = this.deps.nowMs() - exchange.waitingSinceMs
      const call = this.deps.open(target, {
        service: exchange.service,
        kind: 'http',
        timeoutMs: Math.max(1, Math.ceil(exchange.timeoutMs - waitedMs)),
        head: exchange.forwarded,
      })
      if (call === undefined) {
        const reason = `no link to ${target.name} carries calls at this moment`
        exchange.attempts.push({ node: target.name, code: 'unreachable', reason })
        continue
      }
      exchange.call = call
      call.handler = new AnswerHandler(this, exchange, call)
      this.replay(exchange, call)
      return
    }
  }

  private nextCandidate(exchange: Exchange): Candidate | undefined {
    const candidates = this.deps.candidates(exchange.service)
    if (exchange.tried.size === 0) return candidates[0]
    return candidates.find(candidate => !exchange.tried.has(candidate.node))
  }

  private replay(exchange: Exchange, call: Call): void {
    let isWritable = true
    for (const chunk of exchange.replay ?? []) isWritable = call.write(chunk)
    if (exchange.trailers !== undefined) call.sendTrailers(exchange.trailers)
    if (exchange.requestEnded && exchange.head.upgrade === '') call.end()
    if (isWritable) this.socket.resume()
    else this.socket.pause()
  }

  private giveUp(exchange: Exchange): void {
    const { service, attempts } = exchange
    const last = attempts.at(-1)
    if (last !== undefined) this.fail(exchange, last.code, last.reason)
    else if (this.deps.knows(service)) {
      this.fail(exchange, 'no-healthy-place', `no reachable node has a healthy instance of ${service} now`)
    } else this.fail(exchange, 'unknown-service', `no node of the mesh offers a service named ${service}`)
  }

  // The answer ------------------------------------------------------------------------------------------------------

  answerHead(exchange: Exchange, bytes: Buffer): void {
    const head = decodeResponseHead(bytes, FORWARDED_HTTP1_LIMITS)
    if ('code' in head) {
      exchange.call?.reset(this.ownReset('bad-answer', head.reason))
      this.callFailed(exchange, this.ownReset('bad-answer', `the answer's head cannot be read: ${head.reason}`))
      return
    }
    const { method, version, keepAlive, upgrade } = exchange.head
    const add = viaLine(this.deps.self.name)
    if (head.status < 200 && head.status !== 101) {
      if (version === 11) {
        this.out.write(forwardResponseHead(head, 11, chooseAnswerFraming(head, method, 11, true), { add: '' }))
      }
      return
    }
    exchange.answered = true
    exchange.replay = undefined
    const keep = keepAlive && !this.isDraining
    exchange.framing = chooseAnswerFraming(head, method, version, keep)
    this.out.write(forwardResponseHead(head, version, exchange.framing, { add }))
    if (head.status === 101) this.switchProtocols(exchange)
    else if (upgrade !== '') exchange.call?.end()
  }

  answerData(exchange: Exchange, chunk: Buffer): void {
    let isWritable = true
    if (exchange.framing?.body === 'chunked') {
      for (const part of encodeChunk(chunk)) isWritable = this.out.write(part)
    } else isWritable = this.out.write(chunk)
    if (!isWritable) exchange.call?.pause()
  }

  answerTrailers(exchange: Exchange, trailers: Buffer): void {
    if (exchange.framing?.body === 'chunked') exchange.answerTrailers = Buffer.from(trailers)
  }

  answerEnd(exchange: Exchange): void {
    exchange.answerEnded = true
    if (exchange.switched) this.out.end()
    else if (exchange.framing?.body === 'chunked') {
      this.out.write(lastChunk(exchange.answerTrailers))
    }
    this.finishIfOver(exchange)
  }

  /** The client may send again. */
  requestDrain(): void {
    this.socket.resume()
  }

  callFailed(exchange: Exchange, reset: CallReset): void {
    exchange.call = undefined
    if (exchange.answered) {
      this.counters.failed++
      this.end(exchange)
      this.socket.destroy()
      return
    }
    exchange.attempts.push({ node: exchange.target?.name ?? '', code: reset.code, reason: reset.reason })
    if (!mayRetry(exchange.head.method, reset, { answered: false, bodyReplayable: exchange.replay !== undefined })) {
      this.fail(exchange, reset.code, reset.reason)
      return
    }
    this.counters.retries++
    this.attempt(exchange)
  }

  private switchProtocols(exchange: Exchange): void {
    exchange.switched = true
    this.socket.resume()
    const rest = this.reader.takeRest()
    if (rest.length > 0) this.writeRaw(exchange, rest)
  }

  private writeRaw(exchange: Exchange, chunk: Buffer): void {
    if (exchange.call?.write(chunk) === false) this.socket.pause()
  }

  // The end ---------------------------------------------------------------------------------------------------------

  private finishIfOver(exchange: Exchange): void {
    if (!exchange.answerEnded) return
    if (exchange.switched) {
      if (this.socket.readableEnded) this.end(exchange)
      return
    }
    this.end(exchange)
    if (!exchange.requestEnded) {
      // An answer before the whole request: the rest is not wanted, and what follows could not be told from it.
      exchange.call?.reset(this.ownReset('cancelled', 'the answer came before the request was whole'))
      this.close()
    } else if (exchange.framing?.keepAlive === true && !this.isDraining) this.nextRequest()
    else this.close()
  }

  private nextRequest(): void {
    this.activeAtMs = this.deps.nowMs()
    this.reader.next()
    if (this.exchange === undefined && this.reader.buffered === 0) this.socket.resume()
  }

  /** A failure before an answer began: the mesh answers itself. */
  private fail(exchange: Exchange, code: MeshErrorCode, reason: string): void {
    exchange.call?.reset(this.ownReset(code, reason))
    exchange.call = undefined
    this.end(exchange)
    this.counters.failed++
    const { service, attempts, head, requestEnded } = exchange
    const keepAlive = requestEnded && head.keepAlive && head.upgrade === '' && !this.isDraining
    this.out.write(meshAnswer({ code, reason, node: this.deps.self.name, service, attempts }, head.method, keepAlive))
    if (keepAlive) this.nextRequest()
    else this.close()
  }

  /** A request that never became an exchange. */
  private refuse(code: MeshErrorCode, reason: string, head?: RequestHead, service?: ServiceName): void {
    this.counters.failed++
    if (head === undefined) this.counters.total++
    const failure = { code, reason, node: this.deps.self.name, ...(service !== undefined && { service }) }
    this.out.write(meshAnswer(failure, head?.method ?? '', false))
    this.close()
  }

  private end(exchange: Exchange): void {
    exchange.answered = true
    if (this.exchange === exchange) this.exchange = undefined
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

  private ownReset(code: MeshErrorCode, reason: string): CallReset {
    return { code, reason, node: this.deps.self.id, unexecuted: false }
  }

  private onClientEnd(): void {
    const { exchange } = this
    if (exchange?.switched === true) {
      exchange.call?.end()
      this.finishIfOver(exchange)
    } else if (exchange === undefined && !this.isClosing) {
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
    const { exchange } = this
    if (exchange !== undefined) {
      this.exchange = undefined
      exchange.call?.reset(this.ownReset('cancelled', 'the client closed its connection'))
    }
    this.reader.destroy()
    this.onGone()
  }
}

/** Passes what one attempt's call tells to the connection, as long as it is that exchange's present attempt. */
class AnswerHandler implements CallHandler {
  private readonly connection: IngressConnection
  private readonly exchange: Exchange
  private readonly call: Call

  constructor(connection: IngressConnection, exchange: Exchange, call: Call) {
    this.connection = connection
    this.exchange = exchange
    this.call = call
  }

  private get isPresent(): boolean {
    return this.exchange.call === this.call
  }

  onHead(head: Buffer): void {
    if (this.isPresent) this.connection.answerHead(this.exchange, head)
  }

  onData(chunk: Buffer): void {
    if (this.isPresent) this.connection.answerData(this.exchange, chunk)
  }

  onTrailers(trailers: Buffer): void {
    if (this.isPresent) this.connection.answerTrailers(this.exchange, trailers)
  }

  onEnd(): void {
    if (this.isPresent) this.connection.answerEnd(this.exchange)
  }

  onDrain(): void {
    if (this.isPresent) this.connection.requestDrain()
  }

  onReset(reset: CallReset): void {
    if (this.isPresent) this.connection.callFailed(this.exchange, reset)
  }
}
