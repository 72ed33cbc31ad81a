import { once } from 'node:events'
import net from 'node:net'
import { encodeFrame, encodeSettings, FLAG, FRAME, FrameReader, h2ErrorName, PREFACE, readUint32 } from './h2-frame.ts'
import { HpackDecoder } from './hpack-decoder.ts'
import { waitUntil } from './test-places.ts'

export interface SeenFrame {
  readonly type: number
  readonly flags: number
  readonly stream: number
  readonly payload: Buffer
}

/** A header block with every field as it is, so that anything can be sent. `fields`: name, value, …; latin1. */
export function rawBlock(fields: readonly string[]): Buffer {
  const parts: Buffer[] = []
  for (let i = 0; i < fields.length; i += 2) {
    parts.push(Buffer.from([0]))
    for (const text of [fields[i] ?? '', fields[i + 1] ?? ''])
      parts.push(textLength(text.length), Buffer.from(text, 'latin1'))
  }
  return Buffer.concat(parts)
}

function textLength(length: number): Buffer {
  if (length < 127) return Buffer.from([length])
  const bytes = [127]
  let rest = length - 127
  for (; rest >= 128; rest >>= 7) bytes.push(128 | (rest & 127))
  return Buffer.from([...bytes, rest])
}

export function headers(
  stream: number,
  fields: readonly string[],
  flags: number = FLAG.END_HEADERS | FLAG.END_STREAM,
): Buffer {
  return encodeFrame(FRAME.HEADERS, flags, stream, rawBlock(fields))
}

export const GET = [':method', 'GET', ':scheme', 'http', ':path', '/', ':authority', 'orders'] as const
export const POST = [':method', 'POST', ':scheme', 'http', ':path', '/', ':authority', 'orders'] as const

/** A client that says what it is told to, byte for byte, and keeps what it hears. */
export class RawClient {
  readonly socket: net.Socket
  readonly frames: SeenFrame[] = []
  isClosed = false

  constructor(port: number) {
    this.socket = net.connect(port, '127.0.0.1')
    this.socket.on('error', () => {})
    this.socket.on('close', () => {
      this.isClosed = true
    })
    const reader = new FrameReader({
      onFrame: (type, flags, stream, bytes, from, to) =>
        this.frames.push({ type, flags, stream, payload: Buffer.from(bytes.subarray(from, to)) }),
      onTooLarge: bytes => {
        throw new Error(`a frame of ${bytes} bytes`)
      },
    })
    this.socket.on('data', chunk => reader.push(chunk))
  }

  /** With preface and SETTINGS already said. */
  static greeted(port: number): RawClient {
    const client = new RawClient(port)
    client.send(PREFACE, encodeSettings([]))
    return client
  }

  send(...parts: readonly Buffer[]): void {
    this.socket.write(Buffer.concat(parts))
  }

  /** Waits until all is said and taken. */
  async sendAll(...parts: readonly Buffer[]): Promise<void> {
    for (const part of parts) if (!this.socket.write(part) && !this.isClosed) await once(this.socket, 'drain')
  }

  of(type: number): SeenFrame[] {
    return this.frames.filter(frame => frame.type === type)
  }

  /** How the server ended the connection: the name of the error and the reason. */
  async goaway(): Promise<{ code: string; reason: string }> {
    await waitUntil('the server says goodbye', () => this.of(FRAME.GOAWAY).length > 0)
    const payload = this.of(FRAME.GOAWAY)[0]?.payload ?? Buffer.alloc(8)
    return { code: h2ErrorName(readUint32(payload, 4)), reason: payload.toString('latin1', 8) }
  }

  /** What became of a stream: `:status` of its answer, or the name of the error it was reset with, or the connection's. */
  async outcome(stream: number): Promise<string> {
    const isFor = (frame: SeenFrame): boolean =>
      (frame.stream === stream && (frame.type === FRAME.HEADERS || frame.type === FRAME.RST_STREAM)) ||
      frame.type === FRAME.GOAWAY
    await waitUntil(`stream ${stream} is answered`, () => this.frames.some(isFor))
    const frame = this.frames.find(isFor)
    if (frame?.type === FRAME.RST_STREAM) return h2ErrorName(readUint32(frame.payload, 0))
    if (frame?.type === FRAME.GOAWAY) return `GOAWAY ${h2ErrorName(readUint32(frame.payload, 4))}`
    const decoder = new HpackDecoder({ tableBytesMax: 4096, listBytesMax: 65_536 })
    const fields = decoder.decode(frame?.payload ?? Buffer.alloc(0), 0, frame?.payload.length ?? 0)
    return typeof fields === 'string' ? fields : (fields.find(({ name }) => name === ':status')?.value ?? 'no status')
  }
}
