import type { CallReset } from '../proxy/call.ts'
import type { MeshErrorCode } from '../router/errors.ts'

/**
 * The frames that calls travel in between two nodes: an 8-byte header and a payload. `docs/wire.md` ("Calls") is the
 * same in prose, with the byte layout of every payload.
 *
 * Header, big endian: payload length u24 · type u8 · call id u32 (0: the link itself).
 */
export const FRAME = {
  HELLO: 1,
  OPEN: 2,
  HEAD: 3,
  DATA: 4,
  TRAILERS: 5,
  END: 6,
  RESET: 7,
  WINDOW: 8,
  PING: 9,
  PONG: 10,
  GOAWAY: 11,
  CROWDED: 12,
} as const

export const FRAME_HEADER_BYTES = 8
/** A bigger write is split, so that calls interleave: 64 KiB is 5 ms of a 100 Mbit/s line, the longest a small call waits. */
export const DATA_BYTES_MAX = 64 * 1024
/** A head or a block of trailers. Twice what the largest HTTP servers accept by default (64 KiB). */
export const HEAD_BYTES_MAX = 128 * 1024
/** What OPEN may carry before its head: kind, deadline, name, and an extension block of at most 4 KiB. */
const OPEN_PREFIX_BYTES_MAX = 8 * 1024
const EXTENSION_BYTES_MAX = 4 * 1024
/** HELLO, RESET and GOAWAY: a few numbers and a sentence for people. */
const NOTE_BYTES_MAX = 1024
const REASON_BYTES_MAX = 512
/** Unknown types from here on are skipped, so that a newer node may say more; below, an unknown type ends the link. */
export const FRAME_IGNORABLE_FROM = 0x80
const IGNORABLE_BYTES_MAX = 64 * 1024

export const WIRE_MAJOR = 1
const WIRE_MINOR = 1
/** Windows a peer may state or grant: below, a link could not move; above, u32 arithmetic would no longer be exact. */
const WINDOW_BYTES_MIN = 1024
export const WINDOW_BYTES_MAX = 0x7fffffff

export const NO_BYTES = Buffer.alloc(0)

interface FrameRule {
  readonly min: number
  readonly max: number
  /** Which call ids it may carry. */
  readonly on: 'link' | 'call' | 'both'
}

const RULES: readonly (FrameRule | undefined)[] = [
  undefined,
  { min: 10, max: NOTE_BYTES_MAX, on: 'link' },
  { min: 8, max: OPEN_PREFIX_BYTES_MAX + HEAD_BYTES_MAX, on: 'call' },
  { min: 1, max: HEAD_BYTES_MAX, on: 'call' },
  { min: 1, max: DATA_BYTES_MAX, on: 'call' },
  { min: 1, max: HEAD_BYTES_MAX, on: 'call' },
  { min: 0, max: 0, on: 'call' },
  { min: 3, max: NOTE_BYTES_MAX, on: 'call' },
  { min: 4, max: 4, on: 'both' },
  { min: 8, max: 8, on: 'link' },
  { min: 8, max: 8, on: 'link' },
  { min: 5, max: NOTE_BYTES_MAX, on: 'link' },
  { min: 0, max: 0, on: 'link' },
]

/** Why a header cannot be accepted, or undefined. Looked at before a byte of the payload is kept. */
function headerFault(type: number, length: number, callId: number): string | undefined {
  const rule = RULES[type]
  if (rule === undefined) {
    if (type < FRAME_IGNORABLE_FROM) return `expected a known frame type, found ${type}`
    return length <= IGNORABLE_BYTES_MAX ? undefined : `expected at most ${IGNORABLE_BYTES_MAX} bytes, found ${length}`
  }
  if (length < rule.min || length > rule.max) {
    return `expected ${rule.min}..${rule.max} bytes in a frame of type ${type}, found ${length}`
  }
  if (callId === 0 ? rule.on === 'call' : rule.on === 'link') {
    return `expected ${callId === 0 ? 'a call id' : 'call id 0'} on a frame of type ${type}, found ${callId}`
  }
  return undefined
}

/**
 * What the decoder hands on. Each answers why the frame cannot be accepted (the link is then closed), or undefined.
 * Payloads are views of the bytes read; DATA comes in the pieces it arrived in, so a body is never gathered.
 */
export interface FrameSink {
  onFrame(type: number, callId: number, payload: Buffer): string | undefined
  onDataPiece(callId: number, piece: Buffer): string | undefined
}

/**
 * Cuts the byte stream of a peer into frames.
 *
 * Memory: at most one unfinished frame that is not DATA (`HEAD_BYTES_MAX` and a little), and a header.
 * Errors: `push` answers the reason; the decoder must then be dropped. It never throws for any input.
 */
export class FrameDecoder {
  /** Headers read since the start. */
  frames = 0
  readonly #sink: FrameSink
  readonly #header = Buffer.alloc(FRAME_HEADER_BYTES)
  #headerBytes = 0
  #type = 0
  #callId = 0
  /** Bytes of the current payload still to come; 0: between two frames. */
  #missing = 0
  #assembly: Buffer = NO_BYTES
  #assembled = 0

  constructor(sink: FrameSink) {
    this.#sink = sink
  }

  push(chunk: Buffer): string | undefined {
    const end = chunk.length
    let at = 0
    while (at < end) {
      let fault: string | undefined
      if (this.#missing > 0) {
        const take = Math.min(this.#missing, end - at)
        fault = this.#piece(at === 0 && take === end ? chunk : chunk.subarray(at, at + take))
        at += take
      } else {
        let from = chunk
        let start = at
        if (this.#headerBytes > 0 || end - at < FRAME_HEADER_BYTES) {
          const take = Math.min(FRAME_HEADER_BYTES - this.#headerBytes, end - at)
          chunk.copy(this.#header, this.#headerBytes, at, at + take)
          this.#headerBytes += take
          at += take
          if (this.#headerBytes < FRAME_HEADER_BYTES) return undefined
          this.#headerBytes = 0
          from = this.#header
          start = 0
        } else {
          at += FRAME_HEADER_BYTES
        }
        const length = ((from[start] ?? 0) << 16) | ((from[start + 1] ?? 0) << 8) | (from[start + 2] ?? 0)
        const type = from[start + 3] ?? 0
        const callId = readU32(from, start + 4)
        fault = headerFault(type, length, callId)
        if (fault !== undefined) return fault
        this.frames++
        if (type !== FRAME.DATA && type < FRAME_IGNORABLE_FROM && end - at >= length) {
          fault = this.#sink.onFrame(type, callId, length === 0 ? NO_BYTES : chunk.subarray(at, at + length))
          at += length
        } else {
          this.#type = type
          this.#callId = callId
          this.#missing = length
          this.#assembled = 0
          this.#assembly = type === FRAME.DATA || type >= FRAME_IGNORABLE_FROM ? NO_BYTES : Buffer.allocUnsafe(length)
        }
      }
      if (fault !== undefined) return fault
    }
    return undefined
  }

  #piece(piece: Buffer): string | undefined {
    this.#missing -= piece.length
    if (this.#type === FRAME.DATA) return this.#sink.onDataPiece(this.#callId, piece)
    if (this.#type >= FRAME_IGNORABLE_FROM) return undefined
    piece.copy(this.#assembly, this.#assembled)
    this.#assembled += piece.length
    if (this.#missing > 0) return undefined
    const payload = this.#assembly
    this.#assembly = NO_BYTES
    return this.#sink.onFrame(this.#type, this.#callId, payload)
  }
}

/** `at + 4` must lie within `bytes`. */
export function readU32(bytes: Buffer, at: number): number {
  return (
    (((bytes[at] ?? 0) << 24) | ((bytes[at + 1] ?? 0) << 16) | ((bytes[at + 2] ?? 0) << 8) | (bytes[at + 3] ?? 0)) >>> 0
  )
}

/** Writes a header; there must be `FRAME_HEADER_BYTES` of room. */
export function writeHeader(to: Buffer, at: number, type: number, callId: number, length: number): void {
  to[at] = length >>> 16
  to[at + 1] = length >>> 8
  to[at + 2] = length
  to[at + 3] = type
  to[at + 4] = callId >>> 24
  to[at + 5] = callId >>> 16
  to[at + 6] = callId >>> 8
  to[at + 7] = callId
}

export function encodeU32(value: number): Buffer {
  const payload = Buffer.allocUnsafe(4)
  payload.writeUInt32BE(value)
  return payload
}

// ---- HELLO ----

/** What a node says first: how much each direction may send before it hears a WINDOW. */
export interface Hello {
  readonly callWindowBytes: number
  readonly linkWindowBytes: number
  /** It knows of parallel links and of CROWDED. */
  readonly knowsParallel: boolean
  /** This link is to stay beside others; only the end that dialled it can say so. */
  readonly isParallel: boolean
}

const KNOWS_PARALLEL = 1
const IS_PARALLEL = 2

/** major u8 · minor u8 · call window u32 · link window u32 · flags u8 · whatever later minors add. Before minor 1 there were no flags. */
export function encodeHello(hello: Hello): Buffer {
  const payload = Buffer.alloc(11)
  payload[0] = WIRE_MAJOR
  payload[1] = WIRE_MINOR
  payload.writeUInt32BE(hello.callWindowBytes, 2)
  payload.writeUInt32BE(hello.linkWindowBytes, 6)
  payload[10] = (hello.knowsParallel ? KNOWS_PARALLEL : 0) | (hello.isParallel ? IS_PARALLEL : 0)
  return payload
}

/** The peer's settings, or the reason why this node cannot talk to it. */
export function decodeHello(payload: Buffer): Hello | string {
  const major = payload[0] ?? 0
  if (major !== WIRE_MAJOR) return `this node speaks version ${WIRE_MAJOR} of the call protocol, the peer ${major}`
  const callWindowBytes = readU32(payload, 2)
  const linkWindowBytes = readU32(payload, 6)
  for (const window of [callWindowBytes, linkWindowBytes]) {
    if (window < WINDOW_BYTES_MIN || window > WINDOW_BYTES_MAX) {
      return `expected windows of ${WINDOW_BYTES_MIN}..${WINDOW_BYTES_MAX} bytes, found ${window}`
    }
  }
  const flags = payload[10] ?? 0
  const [knowsParallel, isParallel] = [(flags & KNOWS_PARALLEL) !== 0, (flags & IS_PARALLEL) !== 0]
  return { callWindowBytes, linkWindowBytes, knowsParallel, isParallel }
}

// ---- OPEN ----

/** The kinds of OPEN. A relayed stream has no service's name; where it goes stands in place of the head (`route.ts`). */
export const OPEN_KIND = { http: 1, tcp: 2, relay: 3 } as const

/** A call as it stands in an OPEN frame: structure checked, the name and the kind not yet judged. */
export interface OpenFrame {
  /** One of `OPEN_KIND`; a later version may know more. */
  readonly kind: number
  readonly timeoutMs: number
  readonly service: string
  readonly head: Buffer
}

const OPEN_FIXED_BYTES = 8
const TIMEOUT_MS_MAX = 0xffffffff

export function openBytes(service: string, head: Buffer): number {
  return OPEN_FIXED_BYTES + service.length + head.length
}

/**
 * Writes all of an OPEN payload except the head and answers where the head goes.
 * kind u8 · timeoutMs u32 · name length u8 · name · extension length u16 (0: nothing to say yet) · head.
 */
export function writeOpenPrefix(to: Buffer, at: number, kind: number, timeoutMs: number, service: string): number {
  to[at] = kind
  to.writeUInt32BE(Math.min(TIMEOUT_MS_MAX, Math.max(0, Math.ceil(timeoutMs))), at + 1)
  to[at + 5] = service.length
  to.write(service, at + 6, service.length, 'latin1')
  const rest = at + 6 + service.length
  to[rest] = 0
  to[rest + 1] = 0
  return rest + 2
}

/** The call, or why the payload is not one. Extensions this node does not know (all of them, today) are skipped unread. */
export function decodeOpen(payload: Buffer): OpenFrame | string {
  const nameBytes = payload[5] ?? 0
  const extensionAt = 6 + nameBytes
  if (payload.length < extensionAt + 2) return 'expected a service name in OPEN, found the end of the frame'
  const extensionBytes = ((payload[extensionAt] ?? 0) << 8) | (payload[extensionAt + 1] ?? 0)
  if (extensionBytes > EXTENSION_BYTES_MAX) {
    return `expected at most ${EXTENSION_BYTES_MAX} extension bytes, found ${extensionBytes}`
  }
  const headAt = extensionAt + 2 + extensionBytes
  if (payload.length < headAt) return 'expected extensions in OPEN, found the end of the frame'
  if (payload.length - headAt > HEAD_BYTES_MAX) return `expected a head of at most ${HEAD_BYTES_MAX} bytes`
  return {
    kind: payload[0] ?? 0,
    timeoutMs: readU32(payload, 1),
    service: payload.toString('latin1', 6, extensionAt),
    head: payload.subarray(headAt),
  }
}

// ---- RESET and GOAWAY ----

/** Position is the number on the wire: append only. 0 is never sent; what this node does not know reads as `internal`. */
const WIRE_CODES: readonly (MeshErrorCode | undefined)[] = [
  undefined,
  'bad-request',
  'head-too-large',
  'request-timeout',
  'unknown-service',
  'no-healthy-place',
  'unreachable',
  'link-lost',
  'instance-refused',
  'instance-lost',
  'bad-answer',
  'deadline',
  'loop',
  'draining',
  'overloaded',
  'cancelled',
  'internal',
  'not-a-member',
  'bad-frame',
  'relay-refused',
  'instance-busy',
]
const WIRE_NUMBERS = new Map(WIRE_CODES.map((code, number) => [code, number]))

export function wireNumberOfCode(code: MeshErrorCode): number {
  return WIRE_NUMBERS.get(code) ?? WIRE_NUMBERS.get('internal') ?? 0
}

export function codeOfWireNumber(number: number): MeshErrorCode {
  return WIRE_CODES[number] ?? 'internal'
}

const NODE_ID = /^[1-9A-HJ-NP-Za-km-z]{1,128}$/
const UNEXECUTED = 1

/** code u8 · flags u8 (1: unexecuted) · node length u8 (0: the sender) · node · reason, UTF-8. */
export function encodeReset(reset: CallReset, self: string): Buffer {
  const node = reset.node === self || !NODE_ID.test(reset.node) ? '' : reset.node
  const flags = reset.unexecuted ? UNEXECUTED : 0
  const start = Buffer.from([wireNumberOfCode(reset.code), flags, node.length])
  return Buffer.concat([start, Buffer.from(node, 'latin1'), reasonBytes(reset.reason)])
}

export function decodeReset(payload: Buffer, sender: string): CallReset | string {
  const nodeBytes = payload[2] ?? 0
  if (payload.length < 3 + nodeBytes) return 'expected a node id in RESET, found the end of the frame'
  const node = payload.toString('latin1', 3, 3 + nodeBytes)
  if (nodeBytes > 0 && !NODE_ID.test(node)) return 'expected a node id in RESET, found other characters'
  return {
    code: codeOfWireNumber(payload[0] ?? 0),
    unexecuted: ((payload[1] ?? 0) & UNEXECUTED) !== 0,
    node: nodeBytes === 0 ? sender : node,
    reason: reasonText(payload.subarray(3 + nodeBytes)),
  }
}

/** No call the peer opens after this one will be answered. */
export interface GoAway {
  /** The last id of the peer's that was or will be answered; `LAST_ID_ANY`: every one already on its way still will be. */
  readonly lastId: number
  readonly code: MeshErrorCode
  readonly reason: string
}

export const LAST_ID_ANY = 0xffffffff

/** last id u32 · code u8 · reason, UTF-8. */
export function encodeGoAway(goAway: GoAway): Buffer {
  const start = Buffer.alloc(5)
  start.writeUInt32BE(goAway.lastId)
  start[4] = wireNumberOfCode(goAway.code)
  return Buffer.concat([start, reasonBytes(goAway.reason)])
}

export function decodeGoAway(payload: Buffer): GoAway {
  return {
    lastId: readU32(payload, 0),
    code: codeOfWireNumber(payload[4] ?? 0),
    reason: reasonText(payload.subarray(5)),
  }
}

function reasonBytes(reason: string): Buffer {
  return Buffer.from(reason.slice(0, REASON_BYTES_MAX)).subarray(0, REASON_BYTES_MAX)
}

/** A peer's words end up in logs and terminals: control characters would let it write there as it likes. */
function reasonText(bytes: Buffer): string {
  return bytes
    .subarray(0, REASON_BYTES_MAX)
    .toString()
    .replace(/\p{Cc}/gu, ' ')
}
