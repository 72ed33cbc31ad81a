import { CALL_WINDOW_BYTES, type Call, type CallHandler, type CallReset } from './call.ts'

const DEAF: CallHandler = { onHead() {}, onData() {}, onTrailers() {}, onEnd() {}, onDrain() {}, onReset() {} }

/**
 * Both ends of a call that stays on this node: ingress and egress face each other as if a link lay between them.
 * What one end sends is told to the other in a later microtask, in order; a paused end holds the sender after a window.
 */
export function createLocalCall(): [opener: Call, acceptor: Call] {
  const a = new LocalEnd()
  const b = new LocalEnd()
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
  private isPaused = false
  private isPlanned = false
  private hasSentEnd = false
  private hasToldEnd = false
  private isOver = false
  private isSenderHeld = false

  sendHead(bytes: Buffer): void {
    this.tell({ type: 'head', bytes })
  }

  write(bytes: Buffer): boolean {
    const peer = this.peer
    if (peer === undefined || this.isOver || this.hasSentEnd) return true
    peer.waitingBytes += bytes.length
    this.tell({ type: 'data', bytes })
    peer.isSenderHeld ||= peer.waitingBytes > CALL_WINDOW_BYTES
    return !peer.isSenderHeld
  }

  sendTrailers(bytes: Buffer): void {
    this.tell({ type: 'trailers', bytes })
  }

  end(): void {
    this.tell({ type: 'end' })
    this.hasSentEnd = true
  }

  reset(reset: CallReset): void {
    const peer = this.peer
    if (this.isOver || peer === undefined) return
    this.finish()
    if (peer.isOver) return
    peer.finish()
    queueMicrotask(() => peer.handler.onReset(reset))
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
    queueMicrotask(() => {
      this.isPlanned = false
      this.deliver()
    })
  }

  private deliver(): void {
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

  private finish(): void {
    this.isOver = true
    this.inbox = []
  }
}
