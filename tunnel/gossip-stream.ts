import type { Stream } from '@libp2p/interface'
import { messageOf } from '../router/errors.ts'
import { Heartbeat, SILENCE_MS, TICK_MS } from './heartbeat.ts'

/** One message, at most: a gossip frame and its type byte. */
const MESSAGE_BYTES_MAX = 256 * 1024 + 1
/** What may wait for a slow link; beyond it gossip is dropped, and the next digest exchange makes up for it. */
const QUEUE_BYTES_MAX = 4 * 1024 * 1024
/** Handed to the stream at once; libp2p's own buffer then never holds much more than this. */
const WRITE_BYTES_TARGET = 64 * 1024

const GOSSIP = 0
const PING = 1
const PONG = 2

export interface GossipStreamHandler {
  /** The other end answers: the link works both ways. First and every later round trip. */
  onRtt(): void
  onFrame(bytes: Uint8Array): void
  onClose(reason: string): void
}

/**
 * Gossip frames and heartbeats over one long-lived libp2p stream: `u32 length | u8 type | bytes`.
 *
 * Reads by the `message` event and writes by `send` and the `drain` event alone: the other ways that libp2p offers
 * buffer without bound or hang after a half-close.
 */
export class GossipStream {
  readonly heartbeat = new Heartbeat()
  dropped = 0
  private readonly stream: Stream
  private readonly handler: GossipStreamHandler
  private readonly nowMs: () => number
  private timer: NodeJS.Timeout | undefined
  private queue: Buffer[] = []
  private queuedBytes = 0
  private isBlocked = false
  private isFlushPlanned = false
  private isClosed = false
  private parts: Buffer[] = []
  private partBytes = 0
  /** Bytes that must have come before the next message can be whole. */
  private neededBytes = 4

  constructor(stream: Stream, handler: GossipStreamHandler, nowMs: () => number) {
    this.stream = stream
    this.handler = handler
    this.nowMs = nowMs
  }

  start(): void {
    this.stream.addEventListener('message', event => {
      const { data } = event
      this.onBytes(data instanceof Uint8Array ? data : data.subarray())
    })
    this.stream.addEventListener('drain', () => {
      this.isBlocked = false
      this.flush()
    })
    this.stream.addEventListener('remoteCloseWrite', () => this.close('the other end finished'))
    this.stream.addEventListener('close', event => this.close(event.error?.message ?? 'closed'))
    this.timer = setInterval(() => this.beat(), TICK_MS)
    if (this.stream.status !== 'open') this.close(`the stream was ${this.stream.status} at once`)
    else this.beat()
  }

  /** Best effort: queued, or dropped when the link is too slow. Never throws. */
  send(frame: Uint8Array): void {
    if (this.queuedBytes + frame.length > QUEUE_BYTES_MAX) this.dropped++
    else this.enqueue(GOSSIP, frame)
  }

  close(reason: string): void {
    if (this.isClosed) return
    this.isClosed = true
    clearInterval(this.timer)
    this.queue = []
    this.stream.abort(new Error(reason))
    this.handler.onClose(reason)
  }

  private beat(): void {
    const verdict = this.heartbeat.tick(this.nowMs())
    if (verdict === 'dead') this.close(`silent for ${SILENCE_MS} ms`)
    else if (verdict !== 'none') this.enqueue(PING, number(verdict))
  }

  private enqueue(type: number, bytes: Uint8Array): void {
    if (this.isClosed) return
    if (this.queuedBytes > QUEUE_BYTES_MAX) {
      this.close('the other end asks for answers and reads none')
      return
    }
    const message = Buffer.allocUnsafe(5 + bytes.length)
    message.writeUInt32BE(1 + bytes.length, 0)
    message[4] = type
    message.set(bytes, 5)
    // Heartbeats overtake what waits, or a large sync over a slow link would look like its death.
    if (type === GOSSIP) this.queue.push(message)
    else this.queue.unshift(message)
    this.queuedBytes += message.length
    if (this.isFlushPlanned) return
    this.isFlushPlanned = true
    setImmediate(() => this.flush())
  }

  private flush(): void {
    this.isFlushPlanned = false
    while (this.queue.length > 0 && !this.isBlocked && !this.isClosed) {
      const parts: Buffer[] = []
      let bytes = 0
      while (this.queue.length > 0 && bytes < WRITE_BYTES_TARGET) {
        const message = this.queue.shift() as Buffer
        parts.push(message)
        bytes += message.length
      }
      this.queuedBytes -= bytes
      try {
        this.isBlocked = !this.stream.send(Buffer.concat(parts, bytes))
      } catch (error) {
        this.close(messageOf(error))
      }
    }
  }

  private onBytes(bytes: Uint8Array): void {
    this.heartbeat.heard = true
    this.parts.push(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength))
    this.partBytes += bytes.byteLength
    // Pieces of a message are joined once, when it is whole: bytes that drip must not be copied again and again.
    if (this.partBytes < this.neededBytes) return
    const data = this.parts.length === 1 ? (this.parts[0] as Buffer) : Buffer.concat(this.parts, this.partBytes)
    let at = 0
    this.neededBytes = 4
    while (!this.isClosed && data.length - at >= 4) {
      const length = data.readUInt32BE(at)
      if (length < 1 || length > MESSAGE_BYTES_MAX) {
        this.close(`a message of ${length} bytes, expected 1 to ${MESSAGE_BYTES_MAX}`)
        return
      }
      if (data.length - at - 4 < length) {
        this.neededBytes = 4 + length
        break
      }
      this.onMessage(data[at + 4] as number, data.subarray(at + 5, at + 4 + length))
      at += 4 + length
    }
    // A copy: the rest must not hold on to the whole read.
    const rest = Buffer.from(data.subarray(at))
    this.parts = rest.length > 0 ? [rest] : []
    this.partBytes = rest.length
  }

  private onMessage(type: number, bytes: Buffer): void {
    if (type === GOSSIP) this.handler.onFrame(bytes)
    // Types of later versions are skipped.
    else if (type !== PING && type !== PONG) return
    else if (bytes.length !== 4) this.close('a heartbeat that is not 4 bytes long')
    else if (type === PING) this.enqueue(PONG, Buffer.from(bytes))
    else if (this.heartbeat.onPong(bytes.readUInt32BE(0), this.nowMs())) this.handler.onRtt()
  }
}

function number(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(4)
  bytes.writeUInt32BE(value >>> 0, 0)
  return bytes
}
