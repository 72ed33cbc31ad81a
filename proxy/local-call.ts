import { CALL_WINDOW_BYTES, type Call, type CallHandler, type CallReset } from './call.ts'

/** Stands where no handler was set yet. */
const DEAF: CallHandler = { onHead() {}, onData() {}, onTrailers() {}, onEnd() {}, onDrain() {}, onReset() {} }
/** Heads of one answer, interim ones included: as many as a link takes (docs/wire.md). */
const HEADS_MAX = 256

/**
 * Both ends of a call that stays on this node: ingress and egress face each other as if a link lay between them.
 *
 * What one end sends is told to the other in a later microtask, in order; a paused end holds the sender after a window.
 * What comes before a handler was set waits for it until the turn of the event loop ends. A handler that throws ends its
 * own call as `internal` at both ends, and nothing else; `onThrown` is told what it threw.
 */
export function createLocalCall(onThrown: (error: unknown) => void): [opener: Call, acceptor: Call] {
  const a = new LocalEnd(onThrown)
  const b = new LocalEnd(onThrown)
  a.peer = b
  b.peer = a
  return [a, b]
}

type Told =
  | { type: 'head'; bytes: Buffer }
  | { type: 'data'; bytes: Buffer }
  | { type: 'trailers'; bytes: Buffer }
  | { type: 'end' }

class LocalEnd implements Call {
  handler: CallHandler = DEAF
  peer: LocalEnd | undefined
  private inbox: Told[] = []
  private waitingBytes = 0
  private heads = 0
  private isPaused = false
  private isPlanned = false
  private hasWaitedForHandler = false
  private hasSentEnd = false
  private hasToldEnd = false
  private isOver = false
  /** This end has reset the call: it hears nothing more, not even a reset that crossed its own. */
  private isDeaf = false
  private isSenderHeld = false
  private readonly onThrown: (error: unknown) => void

  constructor(onThrown: (error: unknown) => void) {
    this.onThrown = onThrown
  }

  sendHead(bytes: Buffer): void {
    if (this.isOver || this.hasSentEnd) return
    if (++this.heads > HEADS_MAX) this.fail(`an answer began more than ${HEADS_MAX} times`, 'bad-answer')
    else this.tell({ type: 'head', bytes })
  }

  write(bytes: Buffer, isShared = false): boolean {
    const peer = this.peer
    if (peer === undefined || this.isOver || this.hasSentEnd) return true
    if (bytes.length > 0) {
      peer.waitingBytes += bytes.length
      this.tell({ type: 'data', bytes: isShared ? Buffer.from(bytes) : bytes })
    }
    peer.isSenderHeld ||= peer.waitingBytes > CALL_WINDOW_BYTES
    return !peer.isSenderHeld
  }

  sendTrailers(bytes: Buffer): void {
    if (bytes.length > 0) this.tell({ type: 'trailers', bytes })
  }

  end(): void {
    this.tell({ type: 'end' })
    this.hasSentEnd = true
  }

  reset(reset: CallReset): void {
    this.isDeaf = true
    const peer = this.peer
    if (this.isOver || peer === undefined) return
    this.finish()
    peer.finish()
    peer.hearReset(reset)
  }

  pause(): void {
    this.isPaused = true
  }

  resume(): void {
    this.isPaused = false
    this.plan()
  }

  private tell(told: Told): void {
    if (this.isOver || this.hasSentEnd || this.peer === undefined) return
    this.peer.inbox.push(told)
    this.peer.plan()
  }

  private plan(): void {
    if (this.isPlanned || this.isPaused || this.isOver || this.inbox.length === 0) return
    this.isPlanned = true
    const deliver = (): void => {
      this.isPlanned = false
      this.deliver()
    }
    if (this.handler !== DEAF || this.hasWaitedForHandler) queueMicrotask(deliver)
    else this.waitForHandler(deliver)
  }

  /** The owner may set its handler until the turn of the event loop ends. */
  private waitForHandler(task: () => void): void {
    queueMicrotask(() => {
      if (this.handler !== DEAF) task()
      else {
        setImmediate(() => {
          this.hasWaitedForHandler = true
          task()
        })
      }
    })
  }

  private deliver(): void {
    try {
      this.tellHandler()
    } catch (error) {
      this.onThrown(error)
      this.fail('this node failed to handle the call', 'internal')
    }
  }

  private tellHandler(): void {
    while (!this.isPaused && !this.isOver) {
      const told = this.inbox.shift()
      if (told === undefined) break
      if (told.type === 'head') this.handler.onHead(told.bytes)
      else if (told.type === 'trailers') this.handler.onTrailers(told.bytes)
      else if (told.type === 'data') {
        this.waitingBytes -= told.bytes.length
        this.handler.onData(told.bytes)
      } else {
        this.hasToldEnd = true
        this.handler.onEnd()
      }
    }
    if (this.isSenderHeld && this.waitingBytes <= CALL_WINDOW_BYTES / 2 && !this.isOver) {
      this.isSenderHeld = false
      this.peer?.handler.onDrain()
    }
    if (this.hasToldEnd && this.hasSentEnd && this.peer?.hasToldEnd === true) {
      this.finish()
      this.peer.finish()
    }
  }

  /** Ends the call at both ends, which both hear of it. */
  private fail(reason: string, code: CallReset['code']): void {
    const { peer } = this
    if (this.isOver || peer === undefined) return
    const reset: CallReset = { code, reason, node: '', unexecuted: false }
    this.finish()
    peer.finish()
    this.hearReset(reset)
    peer.hearReset(reset)
  }

  private hearReset(reset: CallReset): void {
    const tell = (): void => {
      if (this.isDeaf) return
      this.isDeaf = true
      try {
        this.handler.onReset(reset)
      } catch (error) {
        // The call is over at both ends: there is nobody left to be told of it there.
        this.onThrown(error)
      }
    }
    if (this.handler !== DEAF) queueMicrotask(tell)
    else this.waitForHandler(tell)
  }

  private finish(): void {
    this.isOver = true
    this.inbox = []
  }
}
