import { createPublicKey, type KeyObject, sign, verify } from 'node:crypto'
import { peerIdFromString } from '@libp2p/peer-id'
import type { NodeId } from '../router/model.ts'

/** Public keys of signers seen lately: making one from an id costs more than a check with it. */
const KEYS_MAX = 20_000
const keys = new Map<NodeId, KeyObject>()

/** Signs with a node's Ed25519 key. */
export function signAs(key: KeyObject): (bytes: Uint8Array) => Uint8Array {
  return bytes => sign(null, bytes, key)
}

/** Whether `signer` signed these bytes: a node's id holds its public key, so nothing else is needed. Never throws. */
export function verifySignature(signer: NodeId, bytes: Uint8Array, signature: Uint8Array): boolean {
  const key = publicKeyOf(signer)
  return key !== undefined && signature.length === 64 && verify(null, bytes, key, signature)
}

function publicKeyOf(node: NodeId): KeyObject | undefined {
  const known = keys.get(node)
  if (known !== undefined) return known
  try {
    const raw = peerIdFromString(node).publicKey?.raw
    if (raw === undefined || raw.length !== 32) return undefined
    const key = createPublicKey({
      key: { kty: 'OKP', crv: 'Ed25519', x: Buffer.from(raw).toString('base64url') },
      format: 'jwk',
    })
    if (keys.size >= KEYS_MAX) keys.clear()
    keys.set(node, key)
    return key
  } catch {
    return undefined
  }
}
