import type { Call, CallHandler, CallOpen, CallReset } from '../proxy/call.ts'
import { NO_HANDLER } from './link-call.ts'

/** Bytes of a body that are kept while a call waits for its link; then `write` answers false. What a socket holds. */
const KEPT_BYTES_MAX = 64 * 1024

type Sent = { type: 'head' | 'data' | 'trailers'; bytes: Buffer } | { type: 'end' }

/**
 * A call whose link is on its way: keeps what is sent, and hands it over when there is a link to open it on.
 *
 * Memory: `KEPT_BYTES_MAX` and one chunk, a head, and trailers.
 */
export class PendingCall implements Call {
  readonly open: CallOpen
  /** Takes the call off the list of those that wait, and its time-out with it. */
  onLeave: () => void = () => {}
  readonly #sinceMs: number
  readonly #onReset: () => void
  #handler: CallHandler = NO_HANDLER
  #call: Call | undefined
  #isOver = false
  #isEnded = false
  #isPaused = false
  #owesDrain = false
  #sent: Sent[] = []
  #keptBytes = 0

  /** `onReset`: the holder gave up before a link was there. */
  constructor(open: CallOpen, nowMs: number, onReset: () => void) {
    this.open = open
    this.#sinceMs = nowMs
    this.#onReset = onReset
  }

  get handler(): CallHandler {
    return this.#call?.handler ?? this.#handler
  }

  set handler(handler: CallHandler) {
    this.#handler = handler
    if (this.#call !== undefined) this.#call.handler = handler
  }

  /** The call as it is to be opened now: the time it waited is taken off the time it has. */
  openNow(nowMs: number): CallOpen {
    const { open } = this
    if (open.timeoutMs === 0) return open
    return { ...open, timeoutMs: Math.max(1, open.timeoutMs - (nowMs - this.#sinceMs)) }
  }

  /** There is a link, and `call` was just opened on it. */
  attach(call: Call): void {
    if (this.#isOver) return
    this.#call = call
    call.handler = this.#handler
    let isWritable = true
    for (const item of this.#sent.splice(0)) {
      if (item.type === 'head') call.sendHead(item.bytes)
      else if (item.type === 'data') isWritable = call.write(item.bytes)
      else if (item.type === 'trailers') call.sendTrailers(item.bytes)
      else call.end()
    }
    this.#keptBytes = 0
    if (this.#isPaused) call.pause()
    // The link says when there is room again only if it had none.
    if (this.#owesDrain && isWritable) setImmediate(() => this.#drain())
  }

  /** There will be no link. Must not be called from inside a method of this call. */
  fail(reset: CallReset): void {
    if (this.#isOver || this.#call !== undefined) return
    this.#isOver = true
    this.#sent = []
    this.#handler.onReset(reset)
  }

  sendHead(head: Buffer): void {
    if (this.#call !== undefined) this.#call.sendHead(head)
    else this.#keep({ type: 'head', bytes: head })
  }

  write(chunk: Buffer, isShared = false): boolean {
    if (this.#call !== undefined) return this.#call.write(chunk, isShared)
    if (this.#isOver || this.#isEnded) return true
    this.#keep({ type: 'data', bytes: isShared ? Buffer.from(chunk) : chunk })
    this.#keptBytes += chunk.length
    this.#owesDrain = this.#keptBytes >= KEPT_BYTES_MAX
    return !this.#owesDrain
  }

  sendTrailers(trailers: Buffer): void {
    if (this.#call !== undefined) this.#call.sendTrailers(trailers)
    else this.#keep({ type: 'trailers', bytes: trailers })
  }

  end(): void {
    if (this.#call !== undefined) this.#call.end()
    else {
      this.#keep({ type: 'end' })
      this.#isEnded = true
    }
  }

  reset(reset: CallReset): void {
    if (this.#call !== undefined) {
      this.#call.reset(reset)
    } else if (!this.#isOver) {
      this.#isOver = true
      this.#sent = []
      this.#onReset()
    }
  }

  pause(): void {
    this.#isPaused = true
    this.#call?.pause()
  }

  resume(): void {
    this.#isPaused = false
    this.#call?.resume()
  }

  #keep(item: Sent): void {
    if (!this.#isOver && !this.#isEnded) this.#sent.push(item)
  }

  #drain(): void {
    if (!this.#isOver && this.#call !== undefined) this.#handler.onDrain()
  }
}
