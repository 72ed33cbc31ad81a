import type { Said } from './entry.ts'
import type { NodeId } from './model.ts'
import { decodeMsgpack, encodeMsgpack } from './msgpack.ts'
import { TextPool } from './text-pool.ts'

/**
 * A batch: some entries of one node's record, signed by that node, passed on by others byte for byte.
 *
 * The batches of one origin and incarnation are numbered 1, 2, 3 … (`seq`). `base` says that every batch below it has
 * been superseded: whatever was still true in it stands again in one at or after `base`. So the record of an origin is
 * the window `base..newest`, and whoever holds that window whole holds the record, deletions included: an entry of a
 * batch below `base` that does not stand again is gone. That is why a tombstone needs no lifetime here.
 */
export interface Batch {
  readonly origin: NodeId
  readonly incarnation: number
  readonly seq: number
  readonly base: number
  readonly entries: readonly Entry[]
  /** What was signed, verbatim. */
  readonly payload: Uint8Array
  readonly signature: Uint8Array
}

/** `value` undefined: a tombstone. */
export interface Entry {
  readonly key: string
  readonly value: unknown
  /** What `saidBy` has read in it. */
  said?: Said | undefined
}

export const BATCH_VERSION = 1
/** One batch; 64 KiB holds about a thousand services and still interleaves with heartbeats on a slow link. */
export const BATCH_BYTES_MAX = 64 * 1024
/** Where the origin cuts: small enough that several fit in one frame. */
export const BATCH_BYTES_TARGET = 16 * 1024
export const BATCH_ENTRIES_MAX = 4096
export const ENTRY_KEY_BYTES_MAX = 160
const ID_BYTES_MAX = 128

/** Mixed into what is signed, so that a signature made for a batch can never be taken for one of anything else. */
const CONTEXT = new TextEncoder().encode('flatmesh batch 1\n')

/** Makes `signedBytes` in one piece of memory, again and again: what it answers is overwritten by the next. */
export class SigningBuffer {
  private readonly bytes = new Uint8Array(CONTEXT.length + BATCH_BYTES_MAX)

  constructor() {
    this.bytes.set(CONTEXT)
  }

  signedBytes(payload: Uint8Array): Uint8Array {
    this.bytes.set(payload, CONTEXT.length)
    return this.bytes.subarray(0, CONTEXT.length + payload.length)
  }
}

/** The bytes a signature is made over. */
export function signedBytes(payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(CONTEXT.length + payload.length)
  bytes.set(CONTEXT)
  bytes.set(payload, CONTEXT.length)
  return bytes
}

export function encodeBatchPayload(
  batch: Pick<Batch, 'origin' | 'incarnation' | 'seq' | 'base' | 'entries'>,
): Uint8Array {
  const flat: unknown[] = []
  for (const entry of batch.entries) flat.push(entry.key, entry.value === undefined ? null : entry.value)
  return encodeMsgpack([BATCH_VERSION, batch.origin, batch.incarnation, batch.seq, batch.base, flat])
}

/** Ids of nodes read lately: those of a few meshes of the largest size. */
const IDS_MAX = 16_384
const ids = new TextPool(IDS_MAX)

/** Which batch of whom, read from its first bytes. */
export type BatchHead = Pick<Batch, 'origin' | 'incarnation' | 'seq'>

/**
 * Reads only which batch this is: most batches that arrive are known already, and need not be taken apart to see it.
 * Undefined: not written as plainly as an encoder of this version does; reading it whole tells.
 */
export function peekBatch(payload: Uint8Array): BatchHead | undefined {
  // An array of 6 to 15, the version, a string of up to 128 characters.
  const array = payload[0] ?? 0
  if (array < 0x96 || array > 0x9f || payload[1] !== BATCH_VERSION) return undefined
  const short = payload[2] ?? 0
  const isShort = short >= 0xa1 && short <= 0xbf
  if (!isShort && short !== 0xd9) return undefined
  const length = isShort ? short & 0x1f : (payload[3] ?? 0)
  const from = isShort ? 3 : 4
  const end = from + length
  if (length === 0 || length > ID_BYTES_MAX || end + 2 > payload.length) return undefined
  const view = new DataView(payload.buffer, payload.byteOffset, payload.length)
  const incarnation = readCount(view, end)
  if (incarnation === undefined) return undefined
  const seq = readCount(view, incarnation.end)
  if (seq === undefined) return undefined
  const origin = ids.read(payload, from, end)
  return { origin, incarnation: incarnation.value, seq: seq.value }
}

function readCount(view: DataView, at: number): { value: number; end: number } | undefined {
  const left = view.byteLength - at
  if (left < 1) return undefined
  const byte = view.getUint8(at)
  if (byte <= 0x7f) return { value: byte, end: at + 1 }
  if (byte === 0xcc && left >= 2) return { value: view.getUint8(at + 1), end: at + 2 }
  if (byte === 0xcd && left >= 3) return { value: view.getUint16(at + 1), end: at + 3 }
  if (byte === 0xce && left >= 5) return { value: view.getUint32(at + 1), end: at + 5 }
  if (byte !== 0xcb || left < 9) return undefined
  const value = view.getFloat64(at + 1)
  return isCount(value) ? { value, end: at + 9 } : undefined
}

/** Reads a batch that came from a peer. The signature is not checked here. Elements after the sixth are of later versions. */
export function decodeBatch(
  payload: Uint8Array,
  signature: Uint8Array,
): { ok: true; batch: Batch } | { ok: false; reason: string } {
  if (payload.length > BATCH_BYTES_MAX) return no(`batch of ${payload.length} bytes, at most ${BATCH_BYTES_MAX}`)
  if (signature.length > 128) return no('signature longer than 128 bytes')
  const decoded = decodeMsgpack(payload)
  if (!decoded.ok) return no(decoded.reason)
  if (!Array.isArray(decoded.value) || decoded.value.length < 6) return no('a batch is an array of six')
  const [version, origin, incarnation, seq, base, flat]: unknown[] = decoded.value
  if (version !== BATCH_VERSION) {
    // Only numbers are shown: a map with a `toString` of the peer's making cannot be turned into text.
    const found = typeof version === 'number' ? version : typeof version
    return no(`batch version ${found}, this node reads ${BATCH_VERSION}`)
  }
  if (typeof origin !== 'string' || origin.length === 0 || origin.length > ID_BYTES_MAX) return no('bad origin')
  if (!isCount(incarnation) || !isCount(seq) || !isCount(base)) return no('bad version numbers')
  if (seq < 1 || base < 1 || base > seq) return no(`base ${base} of batch ${seq}`)
  if (!Array.isArray(flat) || flat.length % 2 !== 0) return no('entries are pairs')
  if (flat.length / 2 > BATCH_ENTRIES_MAX) return no(`${flat.length / 2} entries, at most ${BATCH_ENTRIES_MAX}`)
  const entries: Entry[] = []
  for (let i = 0; i < flat.length; i += 2) {
    const key: unknown = flat[i]
    if (typeof key !== 'string' || key.length === 0 || key.length > ENTRY_KEY_BYTES_MAX) return no('bad entry key')
    const value: unknown = flat[i + 1]
    entries.push({ key, value: value === null ? undefined : value, said: undefined })
  }
  return { ok: true, batch: { origin, incarnation, seq, base, entries, payload, signature } }
}

function no(reason: string): { ok: false; reason: string } {
  return { ok: false, reason }
}

export function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
}
