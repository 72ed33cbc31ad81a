import { invariant } from '../router/errors.ts'
import { ChunkedDecoder } from './http1-chunked.ts'
import { Http1Fault, type Http1FaultCode } from './http1-fault.ts'
import { tooLarge } from './http1-fields.ts'
import { BlockGatherer, HeldBytes } from './http1-gather.ts'
import { type RequestHead, type ResponseHead, readRequestHead, readResponseHead } from './http1-head.ts'
import { HTTP1_LIMITS, type Http1Limits } from './http1-limits.ts'

/** What the owner of a reader is told, from inside `push`, `next` or `finish`. It may call any method of the reader back. */
export interface MessageHandler<H> {
  onHead(head: H): void
  /** Body, chunked coding taken off: a slice of what was pushed, not a copy. */
  onData(chunk: Buffer): void
  /** Trailer lines, each with its line end, without the closing empty line; at most once, never empty. */
  onTrailers(text: Buffer): void
  onEnd(): void
  /** The peer broke the protocol or left in the middle. Nothing follows. */
  onError(fault: Http1Fault): void
}

/** Between two messages, or in the middle of a head. */
const HEAD = 0
const BODY_LENGTH = 1
const BODY_CHUNKED = 2
const BODY_CLOSE = 3
/** A message is over, or a head was read after which the protocol may change: nothing is read until the owner says so. */
const WAIT = 4
/** Responses only: no request is under way. */
const IDLE = 5
/** Responses only: the message is over and more followed than was asked for; `onError` is next. */
const POISONED = 6
const DEAD = 7

/** What both readers share: one direction of one connection, as a push parser. */
abstract class MessageReader<H extends { readonly headBytes: number; readonly chunked: boolean }> {
  protected readonly handler: MessageHandler<H>
  protected readonly limits: Http1Limits
  protected readonly code: Http1FaultCode
  protected state: number
  protected eof = false
  readonly #held = new HeldBytes()
  #gatherer: BlockGatherer | undefined
  #chunked: ChunkedDecoder | undefined
  #bodyLeft = 0
  /** What is being read now, how far it was read, and where its bytes end. */
  #chunk: Buffer | undefined
  #at = 0
  #end = 0
  /** `#chunk` is a copy of ours, so it can be kept as it is. */
  #owned = false

  constructor(handler: MessageHandler<H>, limits: Http1Limits, code: Http1FaultCode, state: number) {
    this.handler = handler
    this.limits = limits
    this.code = code
    this.state = state
  }

  protected abstract readHead(bytes: Buffer, from: number, to: number): H | Http1Fault | undefined
  /** Tells the head, after it has chosen how the body is read. */
  protected abstract headRead(head: H): void
  /** Tells the end. */
  protected abstract messageRead(): void
  /** The bytes are over and so is all that was held. */
  protected abstract bytesEnded(): void

  /** Bytes that were pushed and not yet read. While it is not 0 the owner should not read its socket. */
  get buffered(): number {
    return this.#held.length + (this.#chunk === undefined ? 0 : this.#end - this.#at)
  }

  /**
   * Reads the next bytes, those of `chunk` before `end`. It may be used again afterwards if `onData` keeps nothing of it: what
   * is kept here is copied. That whole buffers come with an end, and not views of them, spares making a view for each read.
   */
  push(chunk: Buffer, end = chunk.length): void {
    if (this.state >= POISONED || this.eof) return
    if (this.#chunk !== undefined || this.state === WAIT) this.#hold(chunk, 0, end)
    else this.run(chunk, end, false)
  }

  /**
   * Hands over the bytes that were pushed and not read, when another protocol follows: after an upgrade or CONNECT.
   * The reader is done then and ignores everything.
   */
  takeRest(): Buffer {
    invariant(this.state === WAIT || this.state >= POISONED, 'takeRest() in the middle of a message')
    const parts: Buffer[] = []
    if (this.#chunk !== undefined) parts.push(this.#chunk.subarray(this.#at, this.#end))
    if (this.#held.length > 0) parts.push(this.#held.take())
    this.destroy()
    return parts.length === 1 && parts[0] !== undefined ? parts[0] : Buffer.concat(parts)
  }

  /** Ends everything without a word. */
  destroy(): void {
    this.state = DEAD
    this.#gatherer = undefined
    this.#chunked = undefined
    this.#held.take()
    if (this.#chunk !== undefined) this.#at = this.#end
  }

  /** The peer will send nothing more. What is held is still read, message by message. */
  finish(): void {
    if (this.eof || this.state >= POISONED) return
    this.eof = true
    if (this.#chunk === undefined && this.state !== WAIT) this.bytesEnded()
  }

  protected get gathering(): boolean {
    return this.#gatherer !== undefined
  }

  /** Goes on with what is held, unless a read is under way and will come to it. */
  protected resume(): void {
    if (this.#chunk !== undefined) return
    if (this.#held.length > 0) this.#runHeld()
    else if (this.eof) this.bytesEnded()
  }

  protected fail(fault: Http1Fault): void {
    this.destroy()
    this.handler.onError(fault)
  }

  protected expectLength(bytes: number): void {
    this.#bodyLeft = bytes
    this.state = BODY_LENGTH
  }

  protected expectChunked(): void {
    this.#chunked = new ChunkedDecoder(this.code, this.limits)
    this.state = BODY_CHUNKED
  }

  protected expectClose(): void {
    this.state = BODY_CLOSE
  }

  /** One loop, however often the owner calls back: a thousand pipelined messages do not deepen the stack. */
  protected run(first: Buffer, end: number, owned: boolean): void {
    let chunk: Buffer | undefined = first
    this.#end = end
    this.#owned = owned
    try {
      while (chunk !== undefined) {
        this.#chunk = chunk
        this.#at = 0
        while (this.#at < this.#end) this.#step(chunk)
        if (this.#held.length === 0 || this.state === WAIT) break
        chunk = this.#held.take()
        this.#end = chunk.length
        this.#owned = true
      }
    } finally {
      this.#chunk = undefined
    }
    if (this.eof && this.state < WAIT) this.bytesEnded()
  }

  #runHeld(): void {
    const held = this.#held.take()
    this.run(held, held.length, true)
  }

  #step(chunk: Buffer): void {
    switch (this.state) {
      case HEAD:
        this.#head(chunk)
        return
      case BODY_LENGTH:
        this.#length(chunk)
        return
      case BODY_CHUNKED:
        this.#chunks(chunk)
        return
      case BODY_CLOSE: {
        const from = this.#at
        this.#at = this.#end
        this.handler.onData(part(chunk, from, this.#end))
        return
      }
      case WAIT:
        this.#holdRest(chunk)
        return
      case IDLE:
        this.fail(new Http1Fault(this.code, 'bytes came on an idle connection; no request was under way'))
        return
      default:
        this.#at = this.#end
    }
  }

  #head(chunk: Buffer): void {
    if (this.#gatherer === undefined) {
      const head = this.readHead(chunk, this.#at, this.#end)
      if (head !== undefined) {
        if (head instanceof Http1Fault) {
          this.fail(head)
          return
        }
        this.#at += head.headBytes
        this.headRead(head)
        return
      }
      this.#gatherer = new BlockGatherer(false)
    }
    const { headBytesMax, startLineBytesMax } = this.limits
    const end = this.#gatherer.take(chunk, this.#at, this.#end, headBytesMax, startLineBytesMax)
    if (end === 'too-large') {
      this.fail(
        tooLarge(this.code, `the head or its first line is longer than ${headBytesMax} or ${startLineBytesMax} bytes`),
      )
      return
    }
    if (end === 'bad-byte') {
      this.fail(new Http1Fault(this.code, 'the head holds a control character or a bare line end; is this HTTP?'))
      return
    }
    this.#at = end === -1 ? this.#end : end
    if (end === -1) return
    const bytes = this.#gatherer.bytes()
    this.#gatherer = undefined
    const head = this.readHead(bytes, 0, bytes.length)
    if (head === undefined) {
      this.fail(new Http1Fault(this.code, 'the head begins with an empty line'))
      return
    }
    if (head instanceof Http1Fault) {
      this.fail(head)
      return
    }
    this.headRead(head)
  }

  #length(chunk: Buffer): void {
    const from = this.#at
    const to = this.#bodyLeft < this.#end - from ? from + this.#bodyLeft : this.#end
    this.#bodyLeft -= to - from
    this.#at = to
    this.handler.onData(part(chunk, from, to))
    if (this.#bodyLeft === 0 && this.state === BODY_LENGTH) this.messageRead()
  }

  #chunks(chunk: Buffer): void {
    const decoder = this.#chunked
    invariant(decoder !== undefined, 'a chunked body without a decoder')
    this.#at = decoder.step(chunk, this.#at, this.#end)
    if (decoder.event === 'data') {
      this.handler.onData(chunk.subarray(decoder.dataFrom, decoder.dataTo))
      return
    }
    if (decoder.event === 'more') return
    this.#chunked = undefined
    if (decoder.fault !== undefined) {
      this.fail(decoder.fault)
      return
    }
    if (decoder.trailers !== undefined) this.handler.onTrailers(decoder.trailers)
    if (this.state === BODY_CHUNKED) this.messageRead()
  }

  /** Copies bytes once at most, however many `next()` they last for; what was pushed meanwhile comes after them. */
  #holdRest(chunk: Buffer): void {
    const from = this.#at
    const later = this.#held.take()
    this.#at = this.#end
    if (this.#owned) this.#held.restore(chunk.subarray(from, this.#end))
    else this.#hold(chunk, from, this.#end)
    if (later.length > 0 && this.state === WAIT) this.#hold(later, 0, later.length)
  }

  #hold(chunk: Buffer, from: number, to: number): void {
    const bytesMax = this.limits.heldBytesMax
    if (this.#held.length + to - from > bytesMax) {
      this.fail(new Http1Fault(this.code, `more than ${bytesMax} bytes were sent ahead of their turn`))
      return
    }
    this.#held.append(chunk, from, to)
  }
}

function part(chunk: Buffer, from: number, to: number): Buffer {
  return from === 0 && to === chunk.length ? chunk : chunk.subarray(from, to)
}

/**
 * Reads the requests of one client connection, strictly one after the other.
 *
 * After `onEnd` it waits, and keeps what comes meanwhile (`buffered`, bounded), until `next()`; pipelined requests are
 * therefore never told early. A head with `upgrade`, or CONNECT, ends at once: when the answer switches protocols the
 * owner calls `takeRest()`, else `next()`.
 * Errors: `onError` with `bad-request` or `head-too-large`. Nothing is thrown for what a client sends.
 */
export class RequestReader extends MessageReader<RequestHead> {
  constructor(handler: MessageHandler<RequestHead>, limits: Http1Limits = HTTP1_LIMITS) {
    super(handler, limits, 'bad-request', HEAD)
  }

  /** True between two requests, before the first byte of the next one. */
  get idle(): boolean {
    return this.state === HEAD && !this.gathering && this.buffered === 0
  }

  /** The answer is on its way: the next request may be read. Not after a head without `keepAlive`: nothing may follow that. */
  next(): void {
    if (this.state === DEAD) return
    invariant(this.state === WAIT, 'next() before the request was over')
    this.state = HEAD
    this.resume()
  }

  protected override readHead(bytes: Buffer, from: number, to: number): RequestHead | Http1Fault | undefined {
    return readRequestHead(bytes, from, to, this.limits)
  }

  protected override headRead(head: RequestHead): void {
    if (head.chunked) this.expectChunked()
    else this.expectLength(Math.max(head.contentLength, 0))
    this.handler.onHead(head)
    if (this.state === BODY_LENGTH && head.contentLength <= 0) this.messageRead()
  }

  protected override messageRead(): void {
    this.state = WAIT
    this.handler.onEnd()
  }

  protected override bytesEnded(): void {
    if (this.idle) {
      this.destroy()
      return
    }
    this.fail(new Http1Fault('bad-request', 'the connection ended in the middle of a request'))
  }
}

/**
 * Reads the answers of one instance connection, one for each `expect`.
 *
 * Errors: `onError` with `bad-answer`: also for bytes that nobody asked for, before or after an answer. The bytes after
 * an answer are then told after its `onEnd`, and `idle` is already false inside it, so a pool cannot take the
 * connection for a good one and give the next caller somebody else's answer.
 */
export class ResponseReader extends MessageReader<ResponseHead> {
  #method = ''
  #upgradeAsked = false
  #interimHeads = 0

  constructor(handler: MessageHandler<ResponseHead>, limits: Http1Limits = HTTP1_LIMITS) {
    super(handler, limits, 'bad-answer', IDLE)
  }

  /** True when no answer is awaited and nothing is wrong: the connection can take a request. */
  get idle(): boolean {
    return this.state === IDLE && this.buffered === 0 && !this.eof
  }

  /** A request was sent: read its answer. `upgradeAsked`: it asked for a protocol upgrade, so 101 is an answer. */
  expect(method: string, upgradeAsked = false): void {
    if (this.state >= POISONED) return
    invariant(this.state === IDLE, 'expect() before the answer was over')
    this.#method = method
    this.#upgradeAsked = upgradeAsked
    this.#interimHeads = 0
    this.state = HEAD
  }

  protected override readHead(bytes: Buffer, from: number, to: number): ResponseHead | Http1Fault | undefined {
    return readResponseHead(bytes, from, to, this.limits)
  }

  /** After 101, or 2xx to CONNECT, it keeps what follows until `takeRest()`; there is no `onEnd`. */
  protected override headRead(head: ResponseHead): void {
    const { status } = head
    if (status === 101 || (this.#method === 'CONNECT' && status >= 200 && status < 300)) {
      if (status === 101 && !this.#upgradeAsked) {
        this.fail(new Http1Fault('bad-answer', 'the instance switched protocols (101) without being asked'))
        return
      }
      if (head.chunked || head.contentLength > 0) {
        this.fail(new Http1Fault('bad-answer', 'the answer that opens a tunnel announces a body; it has none'))
        return
      }
      this.state = WAIT
      this.handler.onHead(head)
      return
    }
    if (status < 200) {
      if (++this.#interimHeads > this.limits.interimHeadsMax) {
        const most = this.limits.interimHeadsMax
        this.fail(new Http1Fault('bad-answer', `the instance sent more than ${most} interim (1xx) answers`))
        return
      }
      this.handler.onHead(head)
      return
    }
    const body = hasBody(this.#method, head)
    if (!body) this.expectLength(0)
    else if (head.chunked) this.expectChunked()
    else if (head.contentLength > 0) this.expectLength(head.contentLength)
    else this.expectClose()
    this.handler.onHead(head)
    if (!body && this.state === BODY_LENGTH) this.messageRead()
  }

  protected override messageRead(): void {
    if (this.buffered === 0) {
      this.state = IDLE
      this.handler.onEnd()
      return
    }
    this.state = POISONED
    this.handler.onEnd()
    if (this.state !== POISONED) return
    this.fail(new Http1Fault('bad-answer', 'bytes follow the end of the answer; no request was under way for them'))
  }

  protected override bytesEnded(): void {
    if (this.state === IDLE) {
      this.destroy()
      return
    }
    if (this.state === BODY_CLOSE) {
      this.destroy()
      this.handler.onEnd()
      return
    }
    this.fail(new Http1Fault('bad-answer', 'the connection ended in the middle of an answer'))
  }
}

/** False when the message ends with its head, whatever its fields say (RFC 9112 section 6.3, rules 1 and 2) or at length 0. */
function hasBody(method: string, head: ResponseHead): boolean {
  return method !== 'HEAD' && head.status !== 204 && head.status !== 304 && (head.chunked || head.contentLength !== 0)
}
