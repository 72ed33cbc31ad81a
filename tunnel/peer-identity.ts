import type { KeyObject } from 'node:crypto'
import { publicKeyFromRaw } from '@libp2p/crypto/keys'
import { peerIdFromPublicKey } from '@libp2p/peer-id'
import { invariant } from '../router/errors.ts'
import type { NodeId } from '../router/model.ts'

/** The node id that belongs to an Ed25519 public key: its libp2p peer id as text, `12D3KooW…`. */
export function nodeIdOfPublicKey(key: KeyObject): NodeId {
  const { x } = key.export({ format: 'jwk' })
  invariant(key.asymmetricKeyType === 'ed25519' && typeof x === 'string', 'a node id is made of an Ed25519 key')
  return peerIdFromPublicKey(publicKeyFromRaw(Buffer.from(x, 'base64url'))).toString()
}
