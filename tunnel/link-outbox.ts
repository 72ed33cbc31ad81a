import type { Carrier } from './carrier.ts'
import { copyOf, giveBack } from './copy-pool.ts'
import { DATA_BYTES_MAX, FRAME } from './frame.ts'
import { FrameBatch } from './frame-batch.ts'
import { type LinkCall, QUEUE_ITEM_BYTES, QUEUE_LOW_BYTES } from './link-call.ts'
import type { LinkCounts } from './link-counts.ts'
import type { LinkLoad } from './link-load.ts'

/** Handed to the carrier at a time: bounds what a control frame waits behind; 128 KiB costs TLS about 50 µs to encrypt. */
const BATCH_BYTES_MAX = 128 * 1024
/** A call's share of a round while others have data too: one TLS record. */
const QUANTUM_BYTES = 16 * 1024
/** Control frames a peer may make this node gather by not reading them. 1 MiB is 10,000 refusals. */
const CONTROL_BYTES_MAX = 1024 * 1024

export interface LinkOutboxDeps {
  readonly carrier: Carrier
  readonly counts: LinkCounts
  readonly load: LinkLoad
  /** Puts a frame of a call that is not DATA into the batch, and keeps the books of opening and ending. */
  readonly emit: (call: LinkCall, type: number, payload: Buffer, batch: FrameBatch) => void
  /** At the end of each flush: `drained` have room again. */
  readonly onFlushed: (drained: readonly LinkCall[]) => void
  /** The peer makes this node answer and takes nothing. */
  readonly onStuck: () => void
}

const NOBODY: readonly LinkCall[] = []

/**
 * What leaves on one link, and in which order.
 *
 * Frames of one turn of the event loop leave together at its end. What cannot leave (carrier full, window used up) waits
 * in its call's queue; calls with something to send stand in a ring and take turns. Control frames wait for no data.
 * Memory: each call's queue is bounded by `write` answering false, control frames by `CONTROL_BYTES_MAX`.
 */
export class LinkOutbox {
  readonly #deps: LinkOutboxDeps
  readonly #batch = new FrameBatch()
  /** Frames of calls may leave: the peer has said HELLO. */
  #open = false
  #closed = false
  #writable = true
  #scheduled = false
  #windowBytes = 0
  #framesCounted = 0
  #first: LinkCall | undefined
  #last: LinkCall | undefined
  #linkBlocked: LinkCall[] = []
  #drained: LinkCall[] = []
  #pong: Buffer | undefined

  constructor(deps: LinkOutboxDeps) {
    this.#deps = deps
  }

  /** Something waits that the link itself holds up: the carrier takes no more, or its window is used up. */
  get isHeldUp(): boolean {
    return !this.#writable || this.#linkBlocked.length > 0
  }

  /** The peer's HELLO came, and with it the link's window. */
  open(windowBytes: number): void {
    this.#open = true
    this.#windowBytes = windowBytes
    this.#schedule()
  }

  /** Drops what waits; nothing leaves any more. */
  close(): void {
    this.#closed = true
    this.#first = undefined
    this.#last = undefined
    this.#linkBlocked = []
    this.#drained = []
    this.#batch.take()
  }

  /** A frame of a call: at once if nothing is in its way, else into the call's queue. `isShared`: what is queued must be copied. */
  send(call: LinkCall, type: number, payload: Buffer, isShared: boolean): void {
    if (this.#closed) return
    const now =
      this.#first === undefined &&
      call.queue.length === 0 &&
      this.#writable &&
      this.#open &&
      this.#batch.bytes < BATCH_BYTES_MAX
    if (now && type !== FRAME.DATA) {
      this.#deps.emit(call, type, payload, this.#batch)
    } else if (
      now &&
      payload.length <= DATA_BYTES_MAX &&
      payload.length <= call.sendWindowBytes &&
      payload.length <= this.#windowBytes
    ) {
      this.#emitData(call, payload)
    } else {
      if (isShared) {
        const { bytes, room } = copyOf(payload)
        call.queue.push({ type, payload: bytes, room, sent: 0 })
      } else call.queue.push({ type, payload, room: undefined, sent: 0 })
      call.queuedBytes += payload.length + QUEUE_ITEM_BYTES
      this.#enterRing(call)
    }
    this.#schedule()
  }

  control(type: number, callId: number, payload: Buffer): void {
    if (this.#closed) return
    this.#batch.add(type, callId, payload)
    if (this.#writable) this.#schedule()
    // Not now: this may run inside a method of a call, where no event may be delivered.
    else if (this.#batch.bytes > CONTROL_BYTES_MAX) setImmediate(this.#deps.onStuck)
  }

  /** Only the newest ping is answered: a peer that pings without reading must not fill this node's memory. */
  answerPing(payload: Buffer): void {
    this.#pong = Buffer.from(payload)
    this.#schedule()
  }

  /** The last frame: written now if the carrier takes it. */
  lastWord(type: number, payload: Buffer): void {
    this.#batch.add(type, 0, payload)
    if (this.#writable) this.#deps.carrier.write(this.#batch.take(), this.#batch.written)
  }

  /** The link's window grows; answers its size. */
  grantLink(bytes: number): number {
    this.#windowBytes += bytes
    const blocked = this.#linkBlocked
    this.#linkBlocked = []
    for (const call of blocked) this.#enterRing(call)
    if (blocked.length > 0) this.#schedule()
    return this.#windowBytes
  }

  /** A call's window grows; answers its size. */
  grantCall(call: LinkCall, bytes: number): number {
    call.sendWindowBytes += bytes
    if (call.queue.length > 0) {
      this.#enterRing(call)
      this.#schedule()
    }
    return call.sendWindowBytes
  }

  /** Calls whose OPEN still waits: a call that never left stands in the ring, for OPEN needs no window. */
  unsent(): LinkCall[] {
    const unsent: LinkCall[] = []
    for (let call = this.#first; call !== undefined; call = call.nextInRing) {
      if (call.id === 0 && !call.over) unsent.push(call)
    }
    return unsent
  }

  onCarrierDrain(): void {
    this.#writable = true
    this.flush()
  }

  /** Control frames gathered so far are ahead of the data this adds. */
  flush(): void {
    if (this.#closed || !this.#writable) return
    const pong = this.#pong
    if (pong !== undefined) {
      this.#pong = undefined
      this.#batch.add(FRAME.PONG, 0, pong)
    }
    if (this.#open) this.#pump()
    if (this.#batch.bytes > 0) {
      const { counts, load, carrier } = this.#deps
      counts.bytesOut += this.#batch.bytes
      load.passedBytes += this.#batch.bytes
      counts.framesOut += this.#batch.frames - this.#framesCounted
      this.#framesCounted = this.#batch.frames
      this.#writable = carrier.write(this.#batch.take(), this.#batch.written)
    }
    let drained = NOBODY
    if (this.#drained.length > 0) {
      drained = this.#drained
      this.#drained = []
    }
    this.#deps.onFlushed(drained)
    if (this.#first !== undefined && this.#writable) this.#schedule()
  }

  #schedule(): void {
    if (this.#scheduled || this.#closed) return
    this.#scheduled = true
    setImmediate(this.#onTurnEnd)
  }

  readonly #onTurnEnd = (): void => {
    this.#scheduled = false
    this.flush()
  }

  /** Calls take turns until the batch is full or no one has both data and window. */
  #pump(): void {
    while (this.#batch.bytes < BATCH_BYTES_MAX) {
      const call = this.#first
      if (call === undefined) return
      this.#first = call.nextInRing
      if (this.#first === undefined) this.#last = undefined
      call.nextInRing = undefined
      call.inRing = false
      if (!call.over) this.#sendQueued(call, this.#first === undefined ? DATA_BYTES_MAX : QUANTUM_BYTES)
    }
  }

  #sendQueued(call: LinkCall, quantumBytes: number): void {
    let left = quantumBytes
    for (let item = call.queue[0]; item !== undefined && left > 0; item = call.queue[0]) {
      if (item.type !== FRAME.DATA) {
        call.queue.shift()
        call.queuedBytes -= item.payload.length + QUEUE_ITEM_BYTES
        left -= item.payload.length
        this.#deps.emit(call, item.type, item.payload, this.#batch)
        if (call.over) return
        continue
      }
      const unsent = item.payload.length - item.sent
      const take = Math.min(unsent, left, call.sendWindowBytes, this.#windowBytes)
      if (take === 0) break
      const whole = take === item.payload.length
      this.#emitData(call, whole ? item.payload : item.payload.subarray(item.sent, item.sent + take))
      item.sent += take
      left -= take
      call.queuedBytes -= take
      if (take === unsent) {
        call.queue.shift()
        call.queuedBytes -= QUEUE_ITEM_BYTES
        giveBack(item.room)
      }
    }
    if (call.owesDrain && call.queuedBytes < QUEUE_LOW_BYTES) {
      call.owesDrain = false
      this.#drained.push(call)
    }
    if (call.queue.length === 0) return
    if (left <= 0) this.#enterRing(call)
    else if (call.sendWindowBytes > 0) {
      this.#deps.counts.linkWindowsExhausted++
      this.#linkBlocked.push(call)
    } else {
      // The call's own WINDOW brings it back.
      this.#deps.counts.callWindowsExhausted++
    }
  }

  #emitData(call: LinkCall, payload: Buffer): void {
    call.sendWindowBytes -= payload.length
    this.#windowBytes -= payload.length
    this.#deps.load.onDataSent(payload.length)
    this.#batch.add(FRAME.DATA, call.id, payload)
  }

  #enterRing(call: LinkCall): void {
    if (call.inRing) return
    call.inRing = true
    if (this.#last === undefined) this.#first = call
    else this.#last.nextInRing = call
    this.#last = call
  }
}
