import { createHash, generateKeyPairSync, type KeyObject, sign, verify } from 'node:crypto'
import { type Batch, decodeBatch } from '../../router/batch.ts'
import { BoundedMap } from '../../router/bounded-map.ts'
import { invariant } from '../../router/errors.ts'
import { type KeptBatch, keepCopy } from '../../router/kept-batch.ts'
import { KeyPool } from '../../router/key-pool.ts'
import type { NodeId } from '../../router/model.ts'
import type { RouterDeps } from '../../router/router.ts'
import { TextPool } from '../../router/text-pool.ts'
import { randomFor } from './rng.ts'

/** Bytes of an Ed25519 signature (RFC 8032), so that frames have their real size. */
const SIGNATURE_BYTES = 64
/** Bytes of a node's certificate as the router carries it: that of a node `use1-a` in a mesh `acme`, measured. */
const PROOF_BYTES = 408

const BASE58 = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz'

type Signing = Pick<RouterDeps, 'proof' | 'verifyProof' | 'sign' | 'verify' | 'decode' | 'keep' | 'keepProof'>

/** Batches remembered with what they say: those under way in the largest mesh. */
const DECODED_MAX = 20_000

/**
 * Signatures of simulated nodes, and a count of them.
 *
 * `stub`: a keyed hash of 64 bits. It proves nothing against an attacker; it does tell a batch that was altered or put in
 * another's mouth. `ed25519`: the real thing, about 100 µs a signature and a check together.
 */
export class SimSigning {
  signed = 0
  checked = 0
  private readonly kind: 'stub' | 'ed25519'
  private readonly decoded = new BoundedMap<number, ReturnType<typeof decodeBatch>>(DECODED_MAX)
  private readonly kept = new WeakMap<Batch, KeptBatch>()
  private readonly proofs = new Map<NodeId, Uint8Array>()
  private readonly keys = new KeyPool()
  private readonly keyPairs = new Map<NodeId, { privateKey: KeyObject; publicKey: KeyObject }>()

  constructor(kind: 'stub' | 'ed25519') {
    this.kind = kind
  }

  of(self: NodeId): Signing {
    const proof = new Uint8Array(PROOF_BYTES)
    proof.set(new TextEncoder().encode(self))
    return {
      proof,
      verifyProof: claimed => decodeProof(claimed),
      ...(this.kind === 'stub' && {
        decode: (payload, signature) => this.decode(payload, signature),
        keep: batch => this.keep(batch),
        keepProof: proof => this.keepProof(proof),
      }),
      sign: bytes => {
        this.signed++
        return this.kind === 'stub' ? stubSignature(self, bytes) : sign(null, bytes, this.keyOf(self).privateKey)
      },
      verify: (signer, bytes, signature) => {
        this.checked++
        if (this.kind === 'ed25519') return verify(null, bytes, this.keyOf(signer).publicKey, signature)
        return isStubSignature(signer, bytes, signature)
      },
    }
  }

  /** What the same bytes said before; a thousand nodes read each batch. With real signatures everyone reads for itself. */
  private decode(payload: Uint8Array, signature: Uint8Array): ReturnType<typeof decodeBatch> {
    const [high, low] = keyedHash('', payload)
    const key = high * 0x200000 + (low & 0x1fffff)
    const known = this.decoded.get(key)
    if (known?.ok && isSame(known.batch.payload, payload) && isSame(known.batch.signature, signature)) return known
    const decoded = decodeBatch(new Uint8Array(payload), new Uint8Array(signature))
    this.decoded.set(key, decoded)
    return decoded
  }

  /** One for all who keep the batch as it was decoded here. */
  private keep(batch: Batch): KeptBatch {
    const known = this.kept.get(batch)
    if (known !== undefined) return known
    const kept = keepCopy(batch, key => this.keys.share(key))
    this.kept.set(batch, kept)
    return kept
  }

  /** One for all: a node's proof never changes. Only one that was verified is kept, so it names a node. */
  private keepProof(proof: Uint8Array): Uint8Array {
    const node = decodeProof(proof)
    invariant(node !== undefined, 'a proof is verified before it is kept')
    const known = this.proofs.get(node)
    if (known !== undefined) return known
    const kept = new Uint8Array(proof)
    this.proofs.set(node, kept)
    return kept
  }

  private keyOf(node: NodeId): { privateKey: KeyObject; publicKey: KeyObject } {
    const known = this.keyPairs.get(node)
    if (known !== undefined) return known
    const created = generateKeyPairSync('ed25519')
    this.keyPairs.set(node, created)
    return created
  }
}

function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0
}

/** A node id as long as a real one (52 characters of base58), the same for the same name. */
export function nodeIdOf(name: string): NodeId {
  const random = randomFor(0, `node id ${name}`)
  let id = '12D3KooW'
  while (id.length < 52) id += BASE58[Math.floor(random() * BASE58.length)]
  return id
}

/** Ids of all nodes of a few meshes. */
const ids = new TextPool(10_000)

function decodeProof(proof: Uint8Array): NodeId | undefined {
  if (proof.length !== PROOF_BYTES) return undefined
  const end = proof.indexOf(0)
  return end > 0 ? ids.read(proof, 0, end) : undefined
}

function stubSignature(signer: NodeId, bytes: Uint8Array): Uint8Array {
  const signature = new Uint8Array(SIGNATURE_BYTES)
  const [high, low] = keyedHash(signer, bytes)
  new DataView(signature.buffer).setUint32(0, high)
  new DataView(signature.buffer).setUint32(4, low)
  return signature
}

function isStubSignature(signer: NodeId, bytes: Uint8Array, signature: Uint8Array): boolean {
  if (signature.length !== SIGNATURE_BYTES) return false
  const [high, low] = keyedHash(signer, bytes)
  const view = new DataView(signature.buffer, signature.byteOffset)
  return view.getUint32(0) === high && view.getUint32(4) === low
}

const seeds = new Map<NodeId, number>()

/** Two lanes of FNV-1a over four bytes at a time; faster than calling into OpenSSL for a few hundred bytes. */
function keyedHash(signer: NodeId, bytes: Uint8Array): [number, number] {
  let seed = seeds.get(signer)
  if (seed === undefined) {
    seed = createHash('sha256').update(signer).digest().readUInt32LE()
    seeds.set(signer, seed)
  }
  let high = seed | 0
  let low = ~seed
  const { length } = bytes
  const whole = length - (length % 4)
  for (let i = 0; i < whole; i += 4) {
    const word =
      (bytes[i] as number) |
      ((bytes[i + 1] as number) << 8) |
      ((bytes[i + 2] as number) << 16) |
      ((bytes[i + 3] as number) << 24)
    high = Math.imul(high ^ word, 0x01000193)
    low = Math.imul((low ^ word) + (high >>> 15), 0x85ebca6b)
  }
  for (let i = whole; i < length; i++) {
    high = Math.imul(high ^ (bytes[i] as number), 0x01000193)
    low = Math.imul((low ^ (bytes[i] as number)) + (high >>> 15), 0x85ebca6b)
  }
  high = Math.imul(high ^ length ^ (high >>> 16), 0xc2b2ae35)
  low = Math.imul(low ^ length ^ (low >>> 13), 0x27d4eb2f)
  return [(high ^ (high >>> 15)) >>> 0, (low ^ (low >>> 16)) >>> 0]
}
