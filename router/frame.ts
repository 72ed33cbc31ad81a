import { BATCH_BYTES_MAX, isCount } from './batch.ts'
import { isBucketCount, type Scope } from './digest-index.ts'
import type { NodeId } from './model.ts'
import { decodeMsgpack, encodeMsgpack } from './msgpack.ts'

/** A gossip frame, at most. Above one batch with its proof; the tunnel cuts the connection of a peer that sends more. */
export const FRAME_BYTES_MAX = 256 * 1024
/** Where the sender cuts, so that heartbeats are never behind more than this. */
export const FRAME_BYTES_TARGET = 64 * 1024
const PROOF_BYTES_MAX = 4096
/** Proofs in one frame. Checking one costs about 0.1 ms, so a frame of nothing else stands still for 25 ms at most. */
export const FRAME_PROOFS_MAX = 256
/** Origins in one digest: what fits in a frame with ids of 52 characters and both numbers at their longest (73 bytes). */
export const DIGEST_ORIGINS_MAX = 3_500

/** How far a node's knowledge of one origin reaches without a gap. */
export interface Version {
  readonly incarnation: number
  readonly contiguous: number
}

export interface SignedBatch {
  readonly payload: Uint8Array
  readonly signature: Uint8Array
}

/**
 * batches: entries of records, and the membership proofs of origins the receiver may not know. `isAnswer`: they answer a
 * digest, and may be old news to all but the receiver.
 * summary: hashes of what the sender knows, by buckets of origins; equal ones end the exchange after a few bytes.
 * `handOn`: from now on, hand on to me what is fresh to you; false: do not. `load`: how many I hand on to.
 * digest: how far the sender knows each origin of some buckets (`scope`; undefined: of all). `reply`: send yours back if
 * I have more than you of anything.
 */
export type GossipFrame =
  | { type: 'batches'; proofs: readonly Uint8Array[]; batches: readonly SignedBatch[]; isAnswer: boolean }
  | { type: 'summary'; hashes: Uint8Array; handOn: boolean; load: number }
  | { type: 'digest'; versions: ReadonlyMap<NodeId, Version>; reply: boolean; scope?: Scope | undefined }

const BATCHES = 1
const SUMMARY = 2
const DIGEST = 3

export function encodeGossipFrame(frame: GossipFrame): Uint8Array {
  if (frame.type === 'summary') return encodeMsgpack([SUMMARY, frame.hashes, frame.handOn, frame.load])
  if (frame.type === 'batches') {
    const flat = frame.batches.flatMap(batch => [batch.payload, batch.signature])
    return encodeMsgpack([BATCHES, frame.proofs, flat, frame.isAnswer])
  }
  const flat: unknown[] = []
  for (const [origin, version] of frame.versions) flat.push(origin, version.incarnation, version.contiguous)
  if (frame.scope === undefined) return encodeMsgpack([DIGEST, frame.reply, flat])
  return encodeMsgpack([DIGEST, frame.reply, flat, frame.scope.count, [...frame.scope.indexes]])
}

/** Undefined frame: a type of a later version, to be ignored. */
export function decodeGossipFrame(
  bytes: Uint8Array,
): { ok: true; frame: GossipFrame | undefined } | { ok: false; reason: string } {
  if (bytes.length > FRAME_BYTES_MAX) return no(`frame of ${bytes.length} bytes, at most ${FRAME_BYTES_MAX}`)
  const decoded = decodeMsgpack(bytes)
  if (!decoded.ok) return no(decoded.reason)
  if (!Array.isArray(decoded.value)) return no('a frame is an array')
  const [type, first, second, third, fourth]: unknown[] = decoded.value
  if (typeof type !== 'number') return no('a frame begins with its type')
  if (type === BATCHES) return decodeBatches(first, second, third === true)
  if (type === SUMMARY) {
    const isSummary = first instanceof Uint8Array && isBucketCount(first.length / 4)
    return isSummary
      ? yes({ type: 'summary', hashes: first, handOn: second === true, load: isCount(third) ? third : 0 })
      : no('a summary is 4 bytes for each of 1, 2, 4 … 1024 buckets')
  }
  if (type === DIGEST) return decodeDigest(first, second, third, fourth)
  return { ok: true, frame: undefined }
}

type Decoded = ReturnType<typeof decodeGossipFrame>

function decodeBatches(proofs: unknown, flat: unknown, isAnswer: boolean): Decoded {
  if (!Array.isArray(proofs) || !proofs.every(proof => isBytes(proof, PROOF_BYTES_MAX))) return no('bad proofs')
  if (proofs.length > FRAME_PROOFS_MAX) return no(`${proofs.length} proofs, at most ${FRAME_PROOFS_MAX}`)
  if (!Array.isArray(flat) || flat.length % 2 !== 0 || !flat.every(part => isBytes(part, BATCH_BYTES_MAX))) {
    return no('batches are pairs of bytes')
  }
  const batches: SignedBatch[] = []
  for (let i = 0; i < flat.length; i += 2) {
    batches.push({ payload: flat[i] as Uint8Array, signature: flat[i + 1] as Uint8Array })
  }
  return yes({ type: 'batches', proofs: proofs as Uint8Array[], batches, isAnswer })
}

function decodeDigest(reply: unknown, flat: unknown, count: unknown, indexes: unknown): Decoded {
  if (!Array.isArray(flat) || flat.length % 3 !== 0) return no('a digest is triples')
  if (flat.length / 3 > DIGEST_ORIGINS_MAX)
    return no(`digest of ${flat.length / 3} origins, at most ${DIGEST_ORIGINS_MAX}`)
  const versions = new Map<NodeId, Version>()
  for (let i = 0; i < flat.length; i += 3) {
    const [origin, incarnation, contiguous]: unknown[] = flat.slice(i, i + 3)
    if (typeof origin !== 'string' || !isCount(incarnation) || !isCount(contiguous)) return no('bad digest entry')
    versions.set(origin, { incarnation, contiguous })
  }
  const scope = decodeScope(count, indexes)
  return scope === 'bad' ? no('bad digest scope') : yes({ type: 'digest', versions, reply: reply === true, scope })
}

function decodeScope(count: unknown, indexes: unknown): Scope | undefined | 'bad' {
  if (count === undefined) return undefined
  if (typeof count !== 'number' || !isBucketCount(count) || !Array.isArray(indexes) || indexes.length > count)
    return 'bad'
  if (!indexes.every(index => isCount(index) && index < count)) return 'bad'
  return { count, indexes: new Set<number>(indexes) }
}

function isBytes(value: unknown, max: number): value is Uint8Array {
  return value instanceof Uint8Array && value.length <= max
}

function yes(frame: GossipFrame): Decoded {
  return { ok: true, frame }
}

function no(reason: string): Decoded {
  return { ok: false, reason }
}
