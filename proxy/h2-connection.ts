import type { Socket } from 'node:net'
import { IdMap } from '../router/id-map.ts'
import { RateLimit } from '../router/rate-limit.ts'
import {
  encodeFrame,
  encodeNumbersFrame,
  encodeSettings,
  FLAG,
  FRAME,
  FRAME_PAYLOAD_BYTES_MAX,
  FrameReader,
  H2_ERROR,
  type H2ErrorCode,
  h2ErrorName,
  PREFACE,
  readUint32,
  SETTING,
  TABLE_BYTES_DEFAULT,
  WINDOW_BYTES_DEFAULT,
  WINDOW_BYTES_MAX,
} from './h2-frame.ts'
import { H2_LIMITS, type H2Limits } from './h2-limits.ts'
import { H2Outbox } from './h2-outbox.ts'
import { H2Stream, type H2StreamHandler } from './h2-stream.ts'
import { HpackDecoder } from './hpack-decoder.ts'
import type { HpackField } from './hpack-table.ts'

/** Ids of streams that were reset here, whose late frames are no fault of the peer. As many as can be on their way. */
const RESET_IDS_MAX = 1024
const PING_BYTES = 8
/** The PING that follows the first GOAWAY: its answer says that no request is on its way any more. */
const LAST_PING = Buffer.from('goodbye!', 'latin1')
/** Streams of a server that has not told its limit: the least RFC 9113 section 6.5.2 recommends. */
const PEER_STREAMS_DEFAULT = 100
const STREAM_ID_MAX = 0x7fff_ffff

/** What the owner of a connection is told. */
export interface H2ConnectionHandler {
  /** Servers only: a client has begun a stream. Its handler is told what follows, beginning with its head. */
  onStream(stream: H2Stream): H2StreamHandler
  /** The peer has said what it accepts. Once. */
  onReady(): void
  /** The connection will take no new streams. Those under way go on. */
  onGoaway(reason: string): void
  /** A stream has ended, one way or another. */
  onStreamOver(): void
  /** It is over: every stream was told before. Once. */
  onGone(reason: string): void
}

export interface H2ConnectionOptions {
  readonly role: 'server' | 'client'
  readonly limits?: H2Limits
}

/**
 * One HTTP/2 connection, either end of it (RFC 9113): frames in, streams out, and the other way round.
 *
 * Strict: what the RFC calls an error ends the stream or the connection, as it says there. What a peer can make us do
 * for nothing is counted (h2-limits.ts), and more than that ends the connection with ENHANCE_YOUR_CALM. Nothing is
 * thrown for what a peer sends.
 */
export class H2Connection {
  readonly outbox: H2Outbox
  private readonly socket: Socket
  private readonly nowMs: () => number
  private readonly handler: H2ConnectionHandler
  private readonly isServer: boolean
  private readonly limits: H2Limits
  private readonly reader: FrameReader
  private readonly decoder: HpackDecoder
  private readonly streams = new IdMap<H2Stream>()
  private readonly resetIds = new Set<number>()
  private readonly resets: RateLimit
  private readonly idleFrames: RateLimit
  private readonly dribbles: RateLimit
  /** What is left to come of the preface; servers only. */
  private prefaceLeft: Buffer
  private hasPeerSettings = false
  private lastPeerId = 0
  private nextId = 1
  private receiveWindowBytes: number
  private uncreditedBytes = 0
  private peerStreamWindowBytes = WINDOW_BYTES_DEFAULT
  private peerStreamsMax = PEER_STREAMS_DEFAULT
  /** A header block that goes on in CONTINUATION frames. */
  private block: { id: number; ended: boolean; frames: number; parts: Buffer[]; bytes: number } | undefined
  private hasBlockBegunAtMs = 0
  /** `noticed`: told the peer to stop. `final`: nothing new is taken. */
  private goaway: 'none' | 'noticed' | 'final' = 'none'
  private hasPeerGoneAway = false
  private isOver = false

  constructor(
    deps: { readonly socket: Socket; readonly nowMs: () => number; readonly handler: H2ConnectionHandler },
    options: H2ConnectionOptions,
  ) {
    const limits = options.limits ?? H2_LIMITS
    this.socket = deps.socket
    this.nowMs = deps.nowMs
    this.handler = deps.handler
    this.isServer = options.role === 'server'
    this.limits = limits
    this.prefaceLeft = this.isServer ? PREFACE : PREFACE.subarray(PREFACE.length)
    this.receiveWindowBytes = limits.connectionWindowBytes
    const nowMs = deps.nowMs()
    this.resets = new RateLimit(limits.resets, nowMs)
    this.idleFrames = new RateLimit(limits.idleFrames, nowMs)
    this.dribbles = new RateLimit(limits.dribbles, nowMs)
    this.decoder = new HpackDecoder({ tableBytesMax: TABLE_BYTES_DEFAULT, listBytesMax: limits.listBytesMax })
    this.outbox = new H2Outbox(deps.socket, {
      onSentEnd: stream => this.onSentEnd(stream),
      onDribble: () => this.charge(this.dribbles, 'its windows are too small for what it asks for'),
    })
    this.reader = new FrameReader({
      onFrame: (type, flags, id, bytes, from, to) => this.onFrame(type, flags, id, bytes, from, to),
      onTooLarge: bytes =>
        this.fail(H2_ERROR.FRAME_SIZE_ERROR, `a frame of ${bytes} bytes; at most ${FRAME_PAYLOAD_BYTES_MAX} are taken`),
    })
  }

  /** Says what this end accepts; the first bytes of it. */
  start(): void {
    const { streamsMax, streamWindowBytes, connectionWindowBytes, listBytesMax } = this.limits
    if (!this.isServer) this.outbox.out.write(PREFACE)
    this.outbox.out.write(
      encodeSettings([
        this.isServer ? [SETTING.MAX_CONCURRENT_STREAMS, streamsMax] : [SETTING.ENABLE_PUSH, 0],
        [SETTING.INITIAL_WINDOW_SIZE, streamWindowBytes],
        [SETTING.MAX_HEADER_LIST_SIZE, listBytesMax],
      ]),
    )
    this.outbox.out.write(encodeNumbersFrame(FRAME.WINDOW_UPDATE, 0, connectionWindowBytes - WINDOW_BYTES_DEFAULT))
  }

  get streamCount(): number {
    return this.streams.size
  }

  /** Clients only: how many more streams may be opened now. */
  get room(): number {
    const isClosing = this.isOver || this.hasPeerGoneAway || this.goaway !== 'none' || this.nextId >= STREAM_ID_MAX
    return isClosing ? 0 : Math.min(this.peerStreamsMax, this.limits.streamsMax) - this.streams.size
  }

  /** When a head began to come that is not whole yet; undefined: there is none. For slow clients. */
  get headSinceMs(): number | undefined {
    return this.block === undefined ? undefined : this.hasBlockBegunAtMs
  }

  push(chunk: Buffer): void {
    if (this.isOver) return
    let bytes = chunk
    if (this.prefaceLeft.length > 0) {
      const length = Math.min(chunk.length, this.prefaceLeft.length)
      if (chunk.compare(this.prefaceLeft, 0, length, 0, length) !== 0) {
        this.fail(H2_ERROR.PROTOCOL_ERROR, 'the connection preface is not that of HTTP/2')
        return
      }
      this.prefaceLeft = this.prefaceLeft.subarray(length)
      bytes = chunk.subarray(length)
    }
    this.reader.push(bytes)
  }

  /** The socket has room again. */
  onSocketDrain(): void {
    this.outbox.pump()
  }

  // What owners of streams do ----------------------------------------------------------------------------------------

  /** Clients only: begins a stream with its head. */
  openStream(handler: H2StreamHandler, fields: readonly string[], ended: boolean): H2Stream {
    const stream = new H2Stream(this.nextId, handler, this.peerStreamWindowBytes, this.limits.streamWindowBytes)
    this.nextId += 2
    this.streams.set(stream.id, stream)
    this.outbox.sendHead(stream, fields, ended)
    return stream
  }

  /** Stop giving credit: the sender stops after at most one window. */
  pause(stream: H2Stream): void {
    stream.isPaused = true
  }

  resume(stream: H2Stream): void {
    stream.isPaused = false
    this.credit(stream)
  }

  /** Ends a stream at once, both ways. Its handler hears nothing more. */
  reset(stream: H2Stream, code: H2ErrorCode): void {
    if (stream.isOver) return
    this.writeReset(stream.id, code)
    this.forget(stream)
  }

  /** This end has answered: when the end has left, a peer that still sends is told to stop (RFC 9113 section 8.1). */
  stopPeerAtEnd(stream: H2Stream): void {
    if (stream.hasPeerEnded || stream.isOver) return
    stream.stopsPeerAtEnd = true
    if (stream.hasSentEnd) this.reset(stream, H2_ERROR.NO_ERROR)
  }

  /** Takes no new streams, after those on their way have come; the connection ends with the last one. */
  drain(): void {
    if (this.isOver || this.goaway !== 'none') return
    this.goaway = 'noticed'
    this.outbox.out.write(encodeNumbersFrame(FRAME.GOAWAY, 0, STREAM_ID_MAX, H2_ERROR.NO_ERROR))
    this.outbox.out.write(encodeFrame(FRAME.PING, 0, 0, LAST_PING))
  }

  /** The second step of `drain`, when its PING was answered or too long is not. */
  finishDrain(): void {
    if (this.isOver || this.goaway !== 'noticed') return
    this.goaway = 'final'
    this.outbox.out.write(encodeNumbersFrame(FRAME.GOAWAY, 0, this.lastPeerId, H2_ERROR.NO_ERROR))
    this.closeIfDone()
  }

  /** Nothing is open and nothing will be: says goodbye and closes. */
  close(): void {
    if (this.isOver) return
    this.outbox.out.write(encodeNumbersFrame(FRAME.GOAWAY, 0, this.lastPeerId, H2_ERROR.NO_ERROR))
    this.end(H2_ERROR.NO_ERROR, 'closed')
    this.outbox.out.end()
  }

  /** The socket is gone, or what comes from it is not HTTP/2 (`HTTP_1_1_REQUIRED`). */
  lost(reason: string, code: H2ErrorCode = H2_ERROR.CONNECT_ERROR): void {
    this.end(code, reason)
  }

  /** The peer broke the protocol: says so and closes. */
  fail(code: H2ErrorCode, reason: string): void {
    if (this.isOver) return
    const head = encodeNumbersFrame(FRAME.GOAWAY, 0, this.lastPeerId, code)
    const why = Buffer.from(reason.slice(0, 200), 'latin1')
    this.outbox.out.write(encodeFrame(FRAME.GOAWAY, 0, 0, Buffer.concat([head.subarray(9), why])))
    this.end(code, `${h2ErrorName(code)}: ${reason}`)
    this.outbox.out.end()
  }

  // Frames -----------------------------------------------------------------------------------------------------------

  private onFrame(type: number, flags: number, id: number, bytes: Buffer, from: number, to: number): void {
    if (this.isOver) return
    if (this.block !== undefined && (type !== FRAME.CONTINUATION || id !== this.block.id)) {
      return this.protocolError('a header block is interrupted by another frame')
    }
    if (!this.hasPeerSettings && type !== FRAME.SETTINGS) {
      return this.protocolError('the first frame is not SETTINGS')
    }
    switch (type) {
      case FRAME.DATA:
        return this.onData(flags, id, bytes, from, to)
      case FRAME.HEADERS:
        return this.onHeaders(flags, id, bytes, from, to)
      case FRAME.CONTINUATION:
        return this.onContinuation(flags, bytes, from, to)
      case FRAME.WINDOW_UPDATE:
        return this.onWindowUpdate(id, bytes, from, to)
      case FRAME.RST_STREAM:
        return this.onRstStream(id, bytes, from, to)
      case FRAME.SETTINGS:
        return this.onSettings(flags, id, bytes, from, to)
      case FRAME.PING:
        return this.onPing(flags, id, bytes, from, to)
      case FRAME.GOAWAY:
        return this.onGoaway(id, bytes, from, to)
      case FRAME.PRIORITY:
        return this.onPriority(id, bytes, from, to)
      case FRAME.PUSH_PROMISE:
        return this.protocolError('PUSH_PROMISE, which was not allowed')
    }
    this.chargeIdle()
  }

  private onData(flags: number, id: number, bytes: Buffer, from: number, to: number): void {
    if (id === 0) return this.protocolError('DATA without a stream')
    const sizeBytes = to - from
    if (!this.countAgainstConnection(sizeBytes)) return
    const stream = this.streams.get(id)
    if (stream === undefined) return this.onClosedStream(id, 'DATA')
    if (stream.hasPeerEnded) return this.streamError(stream, H2_ERROR.STREAM_CLOSED, 'DATA after its end')
    const padding = unpad(flags, bytes, from, to)
    if (padding < 0) return this.protocolError('padding as long as the frame')
    const ended = (flags & FLAG.END_STREAM) !== 0
    stream.receiveWindowBytes -= sizeBytes
    if (stream.receiveWindowBytes < 0) {
      return this.streamError(stream, H2_ERROR.FLOW_CONTROL_ERROR, 'DATA beyond its window')
    }
    const dataFrom = (flags & FLAG.PADDED) === 0 ? from : from + 1
    const dataTo = to - padding
    if (dataFrom === dataTo && !ended) this.chargeIdle()
    if (this.isOver) return
    stream.uncreditedBytes += sizeBytes
    stream.hasPeerEnded = ended
    if (dataTo > dataFrom) stream.handler.onData(bytes.subarray(dataFrom, dataTo))
    if (stream.isOver) return
    if (ended) this.peerEnded(stream)
    else this.credit(stream)
  }

  private onHeaders(flags: number, id: number, bytes: Buffer, from: number, to: number): void {
    if (id === 0 || id % 2 === 0) return this.protocolError(`HEADERS on stream ${id}`)
    const padding = unpad(flags, bytes, from, to)
    let at = (flags & FLAG.PADDED) === 0 ? from : from + 1
    if ((flags & FLAG.PRIORITY) !== 0) {
      if (to - at >= 5 && (readUint32(bytes, at) & STREAM_ID_MAX) === id) {
        return this.protocolError('a stream that depends on itself')
      }
      at += 5
    }
    if (padding < 0 || at > to - padding) return this.protocolError('padding as long as the frame')
    const ended = (flags & FLAG.END_STREAM) !== 0
    if ((flags & FLAG.END_HEADERS) !== 0) {
      this.onBlock(id, ended, bytes, at, to - padding)
      return
    }
    this.hasBlockBegunAtMs = this.nowMs()
    this.block = { id, ended, frames: 0, parts: [], bytes: 0 }
    this.gather(bytes, at, to - padding)
  }

  private onContinuation(flags: number, bytes: Buffer, from: number, to: number): void {
    const { block } = this
    if (block === undefined) return this.protocolError('CONTINUATION of nothing')
    this.gather(bytes, from, to)
    if (this.isOver || (flags & FLAG.END_HEADERS) === 0) return
    this.block = undefined
    const whole = Buffer.concat(block.parts, block.bytes)
    this.onBlock(block.id, block.ended, whole, 0, whole.length)
  }

  private gather(bytes: Buffer, from: number, to: number): void {
    const { block } = this
    if (block === undefined) return
    block.frames++
    block.bytes += to - from
    const { blockBytesMax, blockFramesMax } = this.limits
    if (block.bytes > blockBytesMax || block.frames > blockFramesMax) {
      const reason = `a header block of more than ${blockBytesMax} bytes or ${blockFramesMax} frames`
      this.fail(H2_ERROR.ENHANCE_YOUR_CALM, reason)
      return
    }
    block.parts.push(Buffer.from(bytes.subarray(from, to)))
  }

  /** A whole header block. It is always decoded: the table must not miss it. */
  private onBlock(id: number, ended: boolean, bytes: Buffer, from: number, to: number): void {
    const fields = this.decoder.decode(bytes, from, to)
    if (typeof fields === 'string') return this.fail(H2_ERROR.COMPRESSION_ERROR, `a header block: ${fields}`)
    const { isTooLarge } = this.decoder
    const stream = this.streams.get(id)
    if (stream === undefined) {
      if (this.isServer && id > this.lastPeerId) this.onNewStream(id, ended, fields, isTooLarge)
      else this.onClosedStream(id, 'HEADERS')
      return
    }
    if (stream.hasPeerEnded) return this.streamError(stream, H2_ERROR.STREAM_CLOSED, 'HEADERS after its end')
    this.tellFields(stream, fields, isTooLarge, ended)
  }

  private onNewStream(id: number, ended: boolean, fields: HpackField[], isTooLarge: boolean): void {
    this.lastPeerId = id
    if (this.goaway === 'final' || this.streams.size >= this.limits.streamsMax) {
      this.writeReset(id, H2_ERROR.REFUSED_STREAM)
      this.charge(this.resets, 'more streams than it was told to open')
      return
    }
    const stream = new H2Stream(id, NO_HANDLER, this.peerStreamWindowBytes, this.limits.streamWindowBytes)
    this.streams.set(id, stream)
    stream.handler = this.handler.onStream(stream)
    this.tellFields(stream, fields, isTooLarge, ended)
  }

  private tellFields(stream: H2Stream, fields: HpackField[], isTooLarge: boolean, ended: boolean): void {
    stream.hasPeerEnded = ended
    // What is larger than anyone accepts is told without its fields, which the owner refuses in its own words.
    stream.handler.onFields(isTooLarge ? TOO_LARGE : fields, ended)
    if (ended && !stream.isOver) this.peerEnded(stream)
  }

  private peerEnded(stream: H2Stream): void {
    stream.handler.onEnd()
    this.forgetIfEnded(stream)
  }

  private onWindowUpdate(id: number, bytes: Buffer, from: number, to: number): void {
    if (to - from !== 4) return this.fail(H2_ERROR.FRAME_SIZE_ERROR, 'WINDOW_UPDATE is not 4 bytes long')
    const increment = readUint32(bytes, from) & WINDOW_BYTES_MAX
    if (id === 0) {
      if (increment === 0) return this.protocolError('a window enlarged by 0')
      if (!this.outbox.enlarge(undefined, increment)) this.fail(H2_ERROR.FLOW_CONTROL_ERROR, 'a window beyond 2^31 - 1')
      return
    }
    const stream = this.streams.get(id)
    if (stream === undefined) {
      // Credit for a stream that has just ended is usual; for one that never was it is not.
      if (this.isIdle(id)) this.protocolError('WINDOW_UPDATE on a stream that was never opened')
      return
    }
    if (increment === 0) return this.streamError(stream, H2_ERROR.PROTOCOL_ERROR, 'a window enlarged by 0')
    if (!this.outbox.enlarge(stream, increment)) {
      this.streamError(stream, H2_ERROR.FLOW_CONTROL_ERROR, 'a window beyond 2^31 - 1')
    }
  }

  private onRstStream(id: number, bytes: Buffer, from: number, to: number): void {
    if (to - from !== 4) return this.fail(H2_ERROR.FRAME_SIZE_ERROR, 'RST_STREAM is not 4 bytes long')
    if (this.isIdle(id)) return this.protocolError('RST_STREAM on a stream that was never opened')
    const stream = this.streams.get(id)
    if (this.isServer) this.charge(this.resets, 'it resets too many of its streams')
    else this.chargeIdle()
    if (stream === undefined || this.isOver) return
    const code = readUint32(bytes, from)
    this.rememberReset(id)
    this.forget(stream)
    const reason = `the peer reset the stream, ${h2ErrorName(code)}`
    stream.handler.onReset({ code, by: 'peer', unexecuted: code === H2_ERROR.REFUSED_STREAM, reason })
  }

  private onSettings(flags: number, id: number, bytes: Buffer, from: number, to: number): void {
    if (id !== 0) return this.protocolError('SETTINGS on a stream')
    if ((flags & FLAG.ACK) !== 0) {
      if (!this.hasPeerSettings) return this.protocolError('the first frame is not SETTINGS')
      if (to !== from) this.fail(H2_ERROR.FRAME_SIZE_ERROR, 'SETTINGS with ACK that says something')
      return
    }
    if ((to - from) % 6 !== 0) return this.fail(H2_ERROR.FRAME_SIZE_ERROR, 'SETTINGS is not a list of six bytes each')
    this.chargeIdle()
    let windowBytes = this.peerStreamWindowBytes
    for (let at = from; at < to && !this.isOver; at += 6) {
      const value = readUint32(bytes, at + 2)
      switch (((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0)) {
        case SETTING.HEADER_TABLE_SIZE:
          this.outbox.resizeTable(value)
          break
        case SETTING.ENABLE_PUSH:
          if (value > (this.isServer ? 1 : 0)) return this.protocolError(`ENABLE_PUSH is ${value}`)
          break
        case SETTING.MAX_CONCURRENT_STREAMS:
          this.peerStreamsMax = value
          break
        case SETTING.INITIAL_WINDOW_SIZE:
          if (value > WINDOW_BYTES_MAX) return this.fail(H2_ERROR.FLOW_CONTROL_ERROR, 'a window beyond 2^31 - 1')
          windowBytes = value
          break
        case SETTING.MAX_FRAME_SIZE:
          if (value < FRAME_PAYLOAD_BYTES_MAX || value > 0xff_ffff) {
            return this.protocolError(`MAX_FRAME_SIZE is ${value}`)
          }
      }
    }
    const isFirst = !this.hasPeerSettings
    this.hasPeerSettings = true
    if (!this.isOver) this.writeAnswer(encodeFrame(FRAME.SETTINGS, FLAG.ACK, 0, NO_BYTES))
    if (!this.isOver) this.changeWindows(windowBytes)
    if (isFirst && !this.isOver) this.handler.onReady()
  }

  private changeWindows(windowBytes: number): void {
    const change = windowBytes - this.peerStreamWindowBytes
    this.peerStreamWindowBytes = windowBytes
    if (change === 0) return
    for (const stream of this.streams.all()) {
      stream.sendWindowBytes += change
      if (stream.sendWindowBytes > WINDOW_BYTES_MAX) {
        return this.fail(H2_ERROR.FLOW_CONTROL_ERROR, 'a window beyond 2^31 - 1')
      }
    }
    this.outbox.pump()
  }

  private onPing(flags: number, id: number, bytes: Buffer, from: number, to: number): void {
    if (id !== 0) return this.protocolError('PING on a stream')
    if (to - from !== PING_BYTES) return this.fail(H2_ERROR.FRAME_SIZE_ERROR, 'PING is not 8 bytes long')
    if ((flags & FLAG.ACK) !== 0) {
      if (LAST_PING.compare(bytes, from, to) === 0) this.finishDrain()
      return
    }
    this.chargeIdle()
    if (!this.isOver) this.writeAnswer(encodeFrame(FRAME.PING, FLAG.ACK, 0, bytes.subarray(from, to)))
  }

  private onGoaway(id: number, bytes: Buffer, from: number, to: number): void {
    if (id !== 0) return this.protocolError('GOAWAY on a stream')
    if (to - from < 8) return this.fail(H2_ERROR.FRAME_SIZE_ERROR, 'GOAWAY is shorter than 8 bytes')
    this.chargeIdle()
    const lastId = readUint32(bytes, from) & STREAM_ID_MAX
    const reason = `the peer takes no more streams, ${h2ErrorName(readUint32(bytes, from + 4))}`
    this.hasPeerGoneAway = true
    for (const stream of this.isServer ? [] : this.streams.all()) {
      if (stream.id <= lastId || stream.isOver) continue
      this.forget(stream)
      stream.handler.onReset({ code: H2_ERROR.REFUSED_STREAM, by: 'peer', unexecuted: true, reason })
    }
    if (this.isOver) return
    this.handler.onGoaway(reason)
    this.closeIfDone()
  }

  private onPriority(id: number, bytes: Buffer, from: number, to: number): void {
    if (id === 0) return this.protocolError('PRIORITY without a stream')
    if (to - from !== 5) return this.fail(H2_ERROR.FRAME_SIZE_ERROR, 'PRIORITY is not 5 bytes long')
    if ((readUint32(bytes, from) & STREAM_ID_MAX) === id) return this.protocolError('a stream that depends on itself')
    this.chargeIdle()
  }

  // Accounts ---------------------------------------------------------------------------------------------------------

  /** Every byte of DATA counts, of whatever stream; credit comes back at once, since streams have windows of their own. */
  private countAgainstConnection(bytes: number): boolean {
    this.receiveWindowBytes -= bytes
    if (this.receiveWindowBytes < 0) {
      this.fail(H2_ERROR.FLOW_CONTROL_ERROR, 'DATA beyond the window of the connection')
      return false
    }
    this.uncreditedBytes += bytes
    if (this.uncreditedBytes * 2 >= this.limits.connectionWindowBytes) {
      this.outbox.out.write(encodeNumbersFrame(FRAME.WINDOW_UPDATE, 0, this.uncreditedBytes))
      this.receiveWindowBytes += this.uncreditedBytes
      this.uncreditedBytes = 0
    }
    return true
  }

  private credit(stream: H2Stream): void {
    const bytes = stream.uncreditedBytes
    if (stream.isPaused || stream.isOver || stream.hasPeerEnded || bytes * 2 < this.limits.streamWindowBytes) return
    stream.uncreditedBytes = 0
    stream.receiveWindowBytes += bytes
    this.outbox.out.write(encodeNumbersFrame(FRAME.WINDOW_UPDATE, stream.id, bytes))
  }

  /** A frame on a stream that is not there: late if it was reset here, else the peer's mistake. */
  private onClosedStream(id: number, what: string): void {
    if (this.isIdle(id)) this.protocolError(`${what} on stream ${id}, which was never opened`)
    else if (this.resetIds.has(id)) this.chargeIdle()
    else this.fail(H2_ERROR.STREAM_CLOSED, `${what} on stream ${id}, which has ended`)
  }

  /** Never opened, by either side. Even ids never are: nobody pushes. */
  private isIdle(id: number): boolean {
    return id % 2 === 0 || (this.isServer ? id > this.lastPeerId : id >= this.nextId)
  }

  private chargeIdle(): void {
    this.charge(this.idleFrames, 'too many frames that move nothing')
  }

  private charge(account: RateLimit, reason: string): void {
    if (!account.take(1, this.nowMs())) this.fail(H2_ERROR.ENHANCE_YOUR_CALM, reason)
  }

  /** An answer to a control frame: a peer that asks and does not read must not make us keep the answers. */
  private writeAnswer(frame: Buffer): void {
    if (this.socket.writableLength > this.limits.unreadBytesMax && this.socket.writableNeedDrain) {
      this.fail(H2_ERROR.ENHANCE_YOUR_CALM, 'it asks without reading the answers')
    } else this.outbox.out.write(frame)
  }

  // The end ----------------------------------------------------------------------------------------------------------

  /** The peer broke the rules of one stream: that one ends, and it is counted like a reset of its own (CVE-2025-8671). */
  streamError(stream: H2Stream, code: H2ErrorCode, reason: string): void {
    if (stream.isOver) return
    this.reset(stream, code)
    stream.handler.onReset({ code, by: 'here', unexecuted: false, reason })
    this.charge(this.resets, `it breaks the rules on too many streams: ${reason}`)
  }

  private protocolError(reason: string): void {
    this.fail(H2_ERROR.PROTOCOL_ERROR, reason)
  }

  private onSentEnd(stream: H2Stream): void {
    if (stream.stopsPeerAtEnd && !stream.hasPeerEnded) this.reset(stream, H2_ERROR.NO_ERROR)
    else this.forgetIfEnded(stream)
  }

  private writeReset(id: number, code: H2ErrorCode): void {
    this.rememberReset(id)
    this.outbox.out.write(encodeNumbersFrame(FRAME.RST_STREAM, id, code))
  }

  private rememberReset(id: number): void {
    this.resetIds.add(id)
    if (this.resetIds.size <= RESET_IDS_MAX) return
    const [oldest] = this.resetIds
    if (oldest !== undefined) this.resetIds.delete(oldest)
  }

  private forgetIfEnded(stream: H2Stream): void {
    if (stream.hasPeerEnded && stream.hasSentEnd) this.forget(stream)
  }

  private forget(stream: H2Stream): void {
    if (stream.isOver) return
    stream.isOver = true
    this.outbox.forget(stream)
    this.streams.delete(stream.id)
    this.handler.onStreamOver()
    this.closeIfDone()
  }

  private closeIfDone(): void {
    if (this.streams.size > 0 || this.isOver) return
    if (this.goaway === 'final' || (this.hasPeerGoneAway && !this.isServer)) this.close()
  }

  private end(code: H2ErrorCode, reason: string): void {
    if (this.isOver) return
    this.isOver = true
    this.reader.stop()
    this.block = undefined
    const streams = this.streams.all()
    this.streams.clear()
    for (const stream of streams) {
      stream.isOver = true
      this.outbox.forget(stream)
    }
    for (const stream of streams) stream.handler.onReset({ code, by: 'connection', unexecuted: false, reason })
    this.handler.onGone(reason)
  }
}

/** Stands in until the owner has named its own. */
const NO_HANDLER: H2StreamHandler = { onFields() {}, onData() {}, onEnd() {}, onDrain() {}, onReset() {} }
const NO_BYTES = Buffer.alloc(0)
/** Told in place of a header list that is too large to be kept; compared by identity. */
export const TOO_LARGE: readonly HpackField[] = Object.freeze([])

/** Bytes of padding at the end of a frame, 0 without; -1: more than there is room for. */
function unpad(flags: number, bytes: Buffer, from: number, to: number): number {
  if ((flags & FLAG.PADDED) === 0) return 0
  const padding = bytes[from] ?? 0
  return to > from && padding < to - from ? padding : -1
}
