/** Frames of HTTP/2 (RFC 9113 section 4): reading them out of a byte stream, and writing them. */

export const FRAME = {
  DATA: 0,
  HEADERS: 1,
  PRIORITY: 2,
  RST_STREAM: 3,
  SETTINGS: 4,
  PUSH_PROMISE: 5,
  PING: 6,
  GOAWAY: 7,
  WINDOW_UPDATE: 8,
  CONTINUATION: 9,
} as const

export const FLAG = { END_STREAM: 0x1, ACK: 0x1, END_HEADERS: 0x4, PADDED: 0x8, PRIORITY: 0x20 } as const

export const SETTING = {
  HEADER_TABLE_SIZE: 1,
  ENABLE_PUSH: 2,
  MAX_CONCURRENT_STREAMS: 3,
  INITIAL_WINDOW_SIZE: 4,
  MAX_FRAME_SIZE: 5,
  MAX_HEADER_LIST_SIZE: 6,
} as const

/** RFC 9113 section 7. */
export const H2_ERROR = {
  NO_ERROR: 0,
  PROTOCOL_ERROR: 1,
  INTERNAL_ERROR: 2,
  FLOW_CONTROL_ERROR: 3,
  SETTINGS_TIMEOUT: 4,
  STREAM_CLOSED: 5,
  FRAME_SIZE_ERROR: 6,
  REFUSED_STREAM: 7,
  CANCEL: 8,
  COMPRESSION_ERROR: 9,
  CONNECT_ERROR: 10,
  ENHANCE_YOUR_CALM: 11,
  INADEQUATE_SECURITY: 12,
  HTTP_1_1_REQUIRED: 13,
} as const

export type H2ErrorCode = (typeof H2_ERROR)[keyof typeof H2_ERROR]

/** The name of an error code as RFC 9113 writes it, for people. */
export function h2ErrorName(code: number): string {
  for (const [name, known] of Object.entries(H2_ERROR)) if (known === code) return name
  return `error ${code}`
}

/** What a client says first (RFC 9113 section 3.4). */
export const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1')
/** No HTTP/1 method begins like this, so four bytes tell the two protocols apart. */
const PREFACE_TELLING_BYTES = 4

/** Whether what a client sent first begins HTTP/2. `maybe`: too few bytes to tell. */
export function looksLikeH2(first: Buffer): boolean | 'maybe' {
  const bytes = Math.min(first.length, PREFACE_TELLING_BYTES)
  if (first.compare(PREFACE, 0, bytes, 0, bytes) !== 0) return false
  return first.length >= PREFACE_TELLING_BYTES || 'maybe'
}

export const FRAME_HEAD_BYTES = 9
/** Largest payload we take and send: the least a peer must take, which every stack uses unless told otherwise. */
export const FRAME_PAYLOAD_BYTES_MAX = 16_384
export const WINDOW_BYTES_MAX = 0x7fff_ffff
/** Windows and tables before SETTINGS say otherwise (RFC 9113 section 6.5.2). */
export const WINDOW_BYTES_DEFAULT = 65_535
export const TABLE_BYTES_DEFAULT = 4096

/** Takes whole frames: the payload is `bytes[from, to)`, and stays as it is afterwards. */
export type TakeFrame = (type: number, flags: number, stream: number, bytes: Buffer, from: number, to: number) => void

/**
 * Cuts a byte stream into frames. What came whole is told as a slice of what was pushed; only frames that lie across
 * two pushes are copied, and never more than one of them is held.
 */
export class FrameReader {
  private readonly onFrame: TakeFrame
  private readonly onTooLarge: (bytes: number) => void
  /** A frame that has begun: its head is whole or not yet. */
  private held: Buffer | undefined
  private heldBytes = 0
  private isStopped = false

  constructor(handler: { onFrame: TakeFrame; onTooLarge(bytes: number): void }) {
    this.onFrame = handler.onFrame
    this.onTooLarge = handler.onTooLarge
  }

  /** Nothing more is read or told. */
  stop(): void {
    this.isStopped = true
    this.held = undefined
  }

  push(chunk: Buffer): void {
    let at = this.heldBytes > 0 ? this.complete(chunk) : 0
    while (!this.isStopped && at < chunk.length) {
      const left = chunk.length - at
      const payloadBytes = left < FRAME_HEAD_BYTES ? 0 : payloadBytesAt(chunk, at)
      if (payloadBytes > FRAME_PAYLOAD_BYTES_MAX) return this.refuse(payloadBytes)
      if (left < FRAME_HEAD_BYTES + payloadBytes) {
        this.hold(chunk, at, FRAME_HEAD_BYTES + payloadBytes)
        return
      }
      const from = at + FRAME_HEAD_BYTES
      at = from + payloadBytes
      this.tell(chunk, from, at)
    }
  }

  /** Adds to the frame that has begun. Answers how much of the chunk it took. */
  private complete(chunk: Buffer): number {
    let at = 0
    for (;;) {
      const { held } = this
      if (held === undefined) return chunk.length
      const taken = chunk.copy(held, this.heldBytes, at)
      at += taken
      this.heldBytes += taken
      if (this.heldBytes < held.length) return at
      const payloadBytes = payloadBytesAt(held, 0)
      if (payloadBytes > FRAME_PAYLOAD_BYTES_MAX) {
        this.refuse(payloadBytes)
        return chunk.length
      }
      const wholeBytes = FRAME_HEAD_BYTES + payloadBytes
      if (held.length === wholeBytes) {
        this.held = undefined
        this.heldBytes = 0
        this.tell(held, FRAME_HEAD_BYTES, wholeBytes)
        return at
      }
      this.hold(held, 0, wholeBytes)
    }
  }

  private hold(bytes: Buffer, from: number, wholeBytes: number): void {
    const held = Buffer.allocUnsafe(wholeBytes)
    this.heldBytes = bytes.copy(held, 0, from)
    this.held = held
  }

  private tell(bytes: Buffer, from: number, to: number): void {
    const head = from - FRAME_HEAD_BYTES
    const stream = readUint32(bytes, head + 5) & 0x7fff_ffff
    this.onFrame(bytes[head + 3] ?? 0, bytes[head + 4] ?? 0, stream, bytes, from, to)
  }

  private refuse(bytes: number): void {
    this.stop()
    this.onTooLarge(bytes)
  }
}

function payloadBytesAt(bytes: Buffer, at: number): number {
  return ((bytes[at] ?? 0) << 16) | ((bytes[at + 1] ?? 0) << 8) | (bytes[at + 2] ?? 0)
}

export function readUint32(bytes: Buffer, at: number): number {
  return (
    (bytes[at] ?? 0) * 0x100_0000 + (((bytes[at + 1] ?? 0) << 16) | ((bytes[at + 2] ?? 0) << 8) | (bytes[at + 3] ?? 0))
  )
}

/** Writes a frame's head at `at` and answers the offset after it. */
export function writeFrameHead(
  into: Buffer,
  at: number,
  payloadBytes: number,
  type: number,
  flags: number,
  stream: number,
): number {
  into[at] = payloadBytes >>> 16
  into[at + 1] = payloadBytes >>> 8
  into[at + 2] = payloadBytes
  into[at + 3] = type
  into[at + 4] = flags
  into[at + 5] = stream >>> 24
  into[at + 6] = stream >>> 16
  into[at + 7] = stream >>> 8
  into[at + 8] = stream
  return at + FRAME_HEAD_BYTES
}

export function encodeFrameHead(payloadBytes: number, type: number, flags: number, stream: number): Buffer {
  const head = Buffer.allocUnsafe(FRAME_HEAD_BYTES)
  writeFrameHead(head, 0, payloadBytes, type, flags, stream)
  return head
}

/** A small frame in one buffer; the payload is copied. */
export function encodeFrame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const frame = Buffer.allocUnsafe(FRAME_HEAD_BYTES + payload.length)
  payload.copy(frame, writeFrameHead(frame, 0, payload.length, type, flags, stream))
  return frame
}

/** A frame whose payload is numbers of 32 bits each: RST_STREAM, WINDOW_UPDATE, the beginning of GOAWAY. */
export function encodeNumbersFrame(type: number, stream: number, ...numbers: readonly number[]): Buffer {
  const frame = Buffer.allocUnsafe(FRAME_HEAD_BYTES + 4 * numbers.length)
  let at = writeFrameHead(frame, 0, 4 * numbers.length, type, 0, stream)
  for (const number of numbers) at = frame.writeUInt32BE(number >>> 0, at)
  return frame
}

/** `settings`: identifier and value of each. */
export function encodeSettings(settings: readonly (readonly [id: number, value: number])[]): Buffer {
  const payload = Buffer.alloc(6 * settings.length)
  let at = 0
  for (const [id, value] of settings) {
    at = payload.writeUInt16BE(id, at)
    at = payload.writeUInt32BE(value, at)
  }
  return encodeFrame(FRAME.SETTINGS, 0, 0, payload)
}
