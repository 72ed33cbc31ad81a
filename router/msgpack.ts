import { Packr, Unpackr } from 'msgpackr'
import { messageOf } from './errors.ts'

const packr = new Packr({ useRecords: false, mapsAsObjects: true, variableMapSize: true })
const unpackr = new Unpackr({ useRecords: false, mapsAsObjects: true })

/** Levels of arrays and maps that decoding accepts. A frame of ours needs 5; the rest is room for later versions. */
const DEPTH_MAX = 12

/** msgpack bytes of a plain value (null, boolean, number, string, Uint8Array, array, object). */
export function encodeMsgpack(value: unknown): Uint8Array {
  return packr.pack(value)
}

/**
 * The value in `bytes`, or the reason why there is none. Made for bytes that a peer controls: a first pass over the
 * bytes checks that every declared length fits in what is there, so that five bytes cannot ask for gigabytes, that
 * nesting is bounded, that exactly one value is there, and that no extension types are used.
 */
export function decodeMsgpack(bytes: Uint8Array): { ok: true; value: unknown } | { ok: false; reason: string } {
  const end = skim(bytes, 0, 0)
  if (end < 0) return { ok: false, reason: 'not msgpack, or longer than it says' }
  if (end !== bytes.length) return { ok: false, reason: `${bytes.length - end} bytes after the end` }
  try {
    return { ok: true, value: unpackr.unpack(bytes) }
  } catch (error) {
    return { ok: false, reason: messageOf(error) }
  }
}

/** Offset after the value at `at`, or -1 if it is not whole, too deep, or an extension. Allocates nothing. */
function skim(bytes: Uint8Array, at: number, depth: number): number {
  if (at >= bytes.length || depth > DEPTH_MAX) return -1
  const byte = bytes[at] as number
  if (byte <= 0x7f || byte >= 0xe0) return at + 1
  if (byte <= 0x8f) return skimItems(bytes, at + 1, (byte & 0x0f) * 2, depth)
  if (byte <= 0x9f) return skimItems(bytes, at + 1, byte & 0x0f, depth)
  if (byte <= 0xbf) return skimBytes(bytes, at + 1, byte & 0x1f)
  switch (byte) {
    case 0xc0: // nil
    case 0xc2: // false
    case 0xc3: // true
      return at + 1
    case 0xcc: // uint 8
    case 0xd0: // int 8
      return skimBytes(bytes, at + 1, 1)
    case 0xcd: // uint 16
    case 0xd1: // int 16
      return skimBytes(bytes, at + 1, 2)
    case 0xca: // float 32
    case 0xce: // uint 32
    case 0xd2: // int 32
      return skimBytes(bytes, at + 1, 4)
    case 0xcb: // float 64
    case 0xcf: // uint 64
    case 0xd3: // int 64
      return skimBytes(bytes, at + 1, 8)
    case 0xc4: // bin 8
    case 0xd9: // str 8
      return skimSized(bytes, at + 1, 1)
    case 0xc5: // bin 16
    case 0xda: // str 16
      return skimSized(bytes, at + 1, 2)
    case 0xc6: // bin 32
    case 0xdb: // str 32
      return skimSized(bytes, at + 1, 4)
    case 0xdc: // array 16
      return skimItems(bytes, at + 3, readUint(bytes, at + 1, 2), depth)
    case 0xdd: // array 32
      return skimItems(bytes, at + 5, readUint(bytes, at + 1, 4), depth)
    case 0xde: // map 16
      return skimItems(bytes, at + 3, readUint(bytes, at + 1, 2) * 2, depth)
    case 0xdf: // map 32
      return skimItems(bytes, at + 5, readUint(bytes, at + 1, 4) * 2, depth)
    default: // extensions, and the byte msgpack never uses
      return -1
  }
}

function skimBytes(bytes: Uint8Array, at: number, length: number): number {
  return at + length <= bytes.length ? at + length : -1
}

function skimSized(bytes: Uint8Array, at: number, sizeBytes: number): number {
  const length = readUint(bytes, at, sizeBytes)
  return length < 0 ? -1 : skimBytes(bytes, at + sizeBytes, length)
}

/** Every item takes a byte at least, so more items than bytes left is a lie told before anything was allocated. */
function skimItems(bytes: Uint8Array, at: number, count: number, depth: number): number {
  if (count < 0 || at + count > bytes.length) return -1
  let next = at
  for (let i = 0; i < count; i++) {
    next = skim(bytes, next, depth + 1)
    if (next < 0) return -1
  }
  return next
}

function readUint(bytes: Uint8Array, at: number, sizeBytes: number): number {
  if (at + sizeBytes > bytes.length) return -1
  let value = 0
  for (let i = 0; i < sizeBytes; i++) value = value * 256 + (bytes[at + i] as number)
  return value
}
