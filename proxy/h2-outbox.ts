import type { Socket } from 'node:net'
import { REUSED_BYTES_MAX } from './call.ts'
import {
  encodeFrame,
  encodeFrameHead,
  FLAG,
  FRAME,
  FRAME_HEAD_BYTES,
  FRAME_PAYLOAD_BYTES_MAX,
  TABLE_BYTES_DEFAULT,
  WINDOW_BYTES_DEFAULT,
  WINDOW_BYTES_MAX,
  writeFrameHead,
} from './h2-frame.ts'
import type { H2Stream } from './h2-stream.ts'
import { HpackEncoder } from './hpack-encoder.ts'
import { TurnWriter } from './turn-writer.ts'

/** What a stream may hold back before `write` answers false, as on links between nodes. */
const QUEUE_HIGH_BYTES = 128 * 1024
/** `onDrain` comes below this: a quarter, so that writer and sender do not take turns per chunk. */
const QUEUE_LOW_BYTES = 32 * 1024
/** What a queued chunk costs besides its bytes, so that a writer of single bytes meets the limit too. */
const QUEUE_ITEM_BYTES = 64
/** Data up to this is copied behind its frame's head. A copy costs less than another entry in a write. Guess. */
const COPIED_BYTES_MAX = 2048
/** A DATA frame below this that is not the end of what waits was cut by the peer's window. */
const DRIBBLE_BYTES = 256

/**
 * The sending half of a connection: header blocks at once and in order, data as the windows of stream and connection and
 * the socket allow, the streams taking turns of one frame.
 */
export class H2Outbox {
  readonly socket: Socket
  readonly out: TurnWriter
  private readonly encoder = new HpackEncoder(TABLE_BYTES_DEFAULT)
  private readonly onSentEnd: (stream: H2Stream) => void
  private readonly onDribble: () => void
  /** Streams that have data to send or are owed `onDrain`, in turn. */
  private readonly waiting = new Set<H2Stream>()
  private isPumping = false
  windowBytes = WINDOW_BYTES_DEFAULT

  constructor(socket: Socket, handler: { onSentEnd(stream: H2Stream): void; onDribble(): void }) {
    this.socket = socket
    this.out = new TurnWriter(socket)
    this.onSentEnd = handler.onSentEnd
    this.onDribble = handler.onDribble
  }

  resizeTable(bytes: number): void {
    this.encoder.resize(Math.min(bytes, TABLE_BYTES_DEFAULT))
  }

  /** A head; with `ended` the whole message. Trailers go through `end`. */
  sendHead(stream: H2Stream, fields: readonly string[], ended: boolean): void {
    if (stream.isOver || stream.hasEnded) return
    this.writeBlock(stream.id, fields, ended)
    if (!ended) return
    stream.hasEnded = true
    this.sentEnd(stream)
  }

  /** Queues body bytes, which may be used again afterwards if they are `REUSED_BYTES_MAX` or less. False: stop until `onDrain`. */
  write(stream: H2Stream, chunk: Buffer): boolean {
    if (stream.isOver || stream.hasEnded) return true
    let at = 0
    if (stream.queue.length === 0) {
      while (at < chunk.length) {
        const bytes = this.sendable(stream, chunk.length - at)
        if (bytes === 0) break
        this.writeData(stream, chunk, at, at + bytes, false)
        at += bytes
      }
    }
    if (at < chunk.length) {
      this.enqueue(stream, at === 0 ? chunk : chunk.subarray(at))
    }
    if (stream.queuedBytes < QUEUE_HIGH_BYTES && !this.socket.writableNeedDrain) return true
    stream.owesDrain = true
    this.waiting.add(stream)
    return false
  }

  private enqueue(stream: H2Stream, rest: Buffer): void {
    const { queue } = stream
    const last = queue.at(-1)
    if (last !== undefined && last.length + rest.length <= COPIED_BYTES_MAX) {
      // A window of tiny messages must not become a queue as long as the window.
      queue[queue.length - 1] = Buffer.concat([last, rest])
      stream.queuedBytes += rest.length
    } else {
      queue.push(rest.length > REUSED_BYTES_MAX ? rest : Buffer.from(rest))
      stream.queuedBytes += rest.length + QUEUE_ITEM_BYTES
    }
    this.waiting.add(stream)
  }

  /** Finishes this direction after all that was written, with trailers if there are any. */
  end(stream: H2Stream, trailers: readonly string[] | undefined): void {
    if (stream.isOver || stream.hasEnded) return
    stream.hasEnded = true
    stream.trailers = trailers
    if (stream.queue.length === 0) this.writeEnd(stream)
  }

  /** Trailers now, in place of what still waits: the message is over before its end. */
  abort(stream: H2Stream, trailers: readonly string[]): void {
    if (stream.isOver || stream.hasSentEnd) return
    stream.queue.length = 0
    stream.queuedBytes = 0
    stream.hasEnded = true
    stream.trailers = trailers
    this.writeEnd(stream)
  }

  /** The stream is over: what it still had to send is not wanted. */
  forget(stream: H2Stream): void {
    stream.queue.length = 0
    stream.queuedBytes = 0
    this.waiting.delete(stream)
  }

  /** The peer has enlarged a window. False: beyond what RFC 9113 allows. */
  enlarge(stream: H2Stream | undefined, bytes: number): boolean {
    if (stream !== undefined) {
      stream.sendWindowBytes += bytes
      // Its own window concerns nobody else: a flood of these must not make us look at all the others.
      let moved = true
      while (moved && this.waiting.delete(stream)) moved = this.turn(stream)
      return stream.sendWindowBytes <= WINDOW_BYTES_MAX
    }
    const wasUsedUp = this.windowBytes <= 0
    this.windowBytes += bytes
    if (wasUsedUp) this.pump()
    return this.windowBytes <= WINDOW_BYTES_MAX
  }

  /** Sends what may be sent now: after a window has grown, or the socket has room again. */
  pump(): void {
    if (this.isPumping) return
    this.isPumping = true
    let idle = 0
    // A turn is one frame. When all have had theirs and none could send, the windows are used up.
    while (this.waiting.size > 0 && idle <= this.waiting.size && !this.socket.writableNeedDrain) {
      const [stream] = this.waiting
      if (stream === undefined) break
      this.waiting.delete(stream)
      idle = this.turn(stream) ? 0 : idle + 1
    }
    this.isPumping = false
  }

  private turn(stream: H2Stream): boolean {
    const [chunk] = stream.queue
    let moved = false
    if (chunk !== undefined) {
      const bytes = this.sendable(stream, chunk.length)
      if (bytes > 0) {
        moved = true
        const isLast = bytes === chunk.length && stream.queue.length === 1
        if (bytes === chunk.length) stream.queue.shift()
        else stream.queue[0] = chunk.subarray(bytes)
        stream.queuedBytes -= bytes + (bytes === chunk.length ? QUEUE_ITEM_BYTES : 0)
        const ends = isLast && stream.hasEnded && stream.trailers === undefined
        this.writeData(stream, chunk, 0, bytes, ends)
        if (ends) this.sentEnd(stream)
        else if (isLast && stream.hasEnded) this.writeEnd(stream)
      }
    }
    if (stream.isOver) return moved
    const drains = stream.owesDrain && stream.queuedBytes <= QUEUE_LOW_BYTES && !this.socket.writableNeedDrain
    if (drains) stream.owesDrain = false
    if (stream.queue.length > 0 || stream.owesDrain) this.waiting.add(stream)
    if (drains) stream.handler.onDrain()
    return moved || drains
  }

  /** How much of `bytes` may leave now; 0: nothing. */
  private sendable(stream: H2Stream, bytes: number): number {
    if (this.socket.writableNeedDrain) return 0
    return Math.max(0, Math.min(bytes, FRAME_PAYLOAD_BYTES_MAX, stream.sendWindowBytes, this.windowBytes))
  }

  private writeData(stream: H2Stream, chunk: Buffer, from: number, to: number, ends: boolean): void {
    const bytes = to - from
    const flags = ends ? FLAG.END_STREAM : 0
    stream.sendWindowBytes -= bytes
    this.windowBytes -= bytes
    if (bytes < DRIBBLE_BYTES && to < chunk.length) this.onDribble()
    if (bytes <= COPIED_BYTES_MAX) {
      const frame = Buffer.allocUnsafe(FRAME_HEAD_BYTES + bytes)
      chunk.copy(frame, writeFrameHead(frame, 0, bytes, FRAME.DATA, flags, stream.id), from, to)
      this.out.write(frame)
      return
    }
    this.out.write(encodeFrameHead(bytes, FRAME.DATA, flags, stream.id))
    this.out.write(chunk.subarray(from, to))
  }

  private writeEnd(stream: H2Stream): void {
    if (stream.trailers === undefined) this.out.write(encodeFrameHead(0, FRAME.DATA, FLAG.END_STREAM, stream.id))
    else this.writeBlock(stream.id, stream.trailers, true)
    this.sentEnd(stream)
  }

  private sentEnd(stream: H2Stream): void {
    stream.hasSentEnd = true
    this.onSentEnd(stream)
  }

  private writeBlock(id: number, fields: readonly string[], ended: boolean): void {
    const block = this.encoder.encode(fields)
    const end = ended ? FLAG.END_STREAM : 0
    if (block.length <= FRAME_PAYLOAD_BYTES_MAX) {
      this.out.write(encodeFrame(FRAME.HEADERS, FLAG.END_HEADERS | end, id, block))
      return
    }
    for (let at = 0; at < block.length; at += FRAME_PAYLOAD_BYTES_MAX) {
      const piece = block.subarray(at, at + FRAME_PAYLOAD_BYTES_MAX)
      const isLast = at + piece.length === block.length
      const flags = (isLast ? FLAG.END_HEADERS : 0) | (at === 0 ? end : 0)
      this.out.write(encodeFrame(at === 0 ? FRAME.HEADERS : FRAME.CONTINUATION, flags, id, piece))
    }
  }
}
