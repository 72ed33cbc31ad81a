import type { Call, CallHandler, CallOpen, CallReset } from '../proxy/call.ts'
import { FRAME, NO_BYTES, type OPEN_KIND } from './frame.ts'
import { ReceiveWindow } from './receive-window.ts'

/** Bytes a call may hold back, beyond what its window and the carrier took, before `write` answers false. */
const QUEUE_HIGH_BYTES = 128 * 1024
/** `onDrain` comes when the queue has fallen below this: a quarter, so that writer and sender do not take turns per chunk. */
export const QUEUE_LOW_BYTES = 32 * 1024
/** What a queued chunk costs besides its bytes, so that a writer of single bytes meets the limit too. */
export const QUEUE_ITEM_BYTES = 64

/** What a link opens: a call, or a stream to be passed on, which has no service and whose `head` is its route. */
export interface LinkOpen extends Omit<CallOpen, 'kind'> {
  readonly kind: keyof typeof OPEN_KIND
}

/** A frame of a call that has not left yet. */
export interface QueueItem {
  readonly type: number
  readonly payload: Buffer
  /** Where `payload` lies, if that is to be given back. */
  readonly room: Buffer | undefined
  /** Bytes of a DATA payload that have left already. */
  sent: number
}

/** What one end of a call asks of the link it runs on. */
export interface CallOwner {
  /** Sends now or queues. The call is neither over nor ended. */
  sendFrame(call: LinkCall, type: number, payload: Buffer, isShared: boolean): void
  resetByOwner(call: LinkCall, reset: CallReset): void
  onResume(call: LinkCall): void
}

/** Stands where no handler was set yet; what arrives meanwhile is kept until the turn of the event loop ends. */
export const NO_HANDLER: CallHandler = {
  onHead() {},
  onData() {},
  onTrailers() {},
  onEnd() {},
  onDrain() {},
  onReset() {},
}

/** One end of one call on a link. The link reads and writes its fields; everyone else sees it as a `Call`. */
export class LinkCall implements Call {
  handler: CallHandler = NO_HANDLER
  /** 0: opened here, and its OPEN has not left. */
  id: number
  readonly opening: LinkOpen | undefined
  readonly #owner: CallOwner

  // sending
  sendWindowBytes = 0
  readonly queue: QueueItem[] = []
  queuedBytes = 0
  /** `write` answered false and `onDrain` is owed. */
  owesDrain = false
  /** In the link's ring of calls that have something to send. */
  inRing = false
  nextInRing: LinkCall | undefined
  ended = false
  endSent = false

  // receiving
  readonly window: ReceiveWindow
  /** By how much the window has grown: it is the link's to give. */
  grownBytes = 0
  /** Bytes delivered while it was paused: they count against what the link lets stopped readers hold. */
  heldBytes = 0
  paused = false
  peerEnded = false
  headsReceived = 0
  dataReceived = false
  trailersReceived = false

  /** Events that wait for a handler. */
  backlog: ((handler: CallHandler) => void)[] | undefined
  /** The link has forgotten it; every method is a no-op. */
  over = false
  /** The handler is to hear nothing more. */
  deaf = false

  constructor(owner: CallOwner, id: number, opening: LinkOpen | undefined, receiveWindowBytes: number) {
    this.#owner = owner
    this.id = id
    this.opening = opening
    this.window = new ReceiveWindow(receiveWindowBytes)
  }

  sendHead(head: Buffer): void {
    if (this.over || this.ended) return
    this.#owner.sendFrame(this, FRAME.HEAD, head, false)
  }

  write(chunk: Buffer, isShared = false): boolean {
    if (this.over || this.ended) return true
    if (chunk.length > 0) this.#owner.sendFrame(this, FRAME.DATA, chunk, isShared)
    if (this.queuedBytes < QUEUE_HIGH_BYTES) return true
    this.owesDrain = true
    return false
  }

  sendTrailers(trailers: Buffer): void {
    if (this.over || this.ended || trailers.length === 0) return
    this.#owner.sendFrame(this, FRAME.TRAILERS, trailers, false)
  }

  end(): void {
    if (this.over || this.ended) return
    this.ended = true
    this.#owner.sendFrame(this, FRAME.END, NO_BYTES, false)
  }

  reset(reset: CallReset): void {
    this.deaf = true
    this.backlog = undefined
    if (!this.over) this.#owner.resetByOwner(this, reset)
  }

  pause(): void {
    this.paused = true
  }

  resume(): void {
    if (!this.paused) return
    this.paused = false
    if (!this.over) this.#owner.onResume(this)
  }
}
