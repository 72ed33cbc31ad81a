import { createHash } from 'node:crypto'
import { noise } from '@chainsafe/libp2p-noise'
import type { ConnectionEncrypter, MessageStream, SecureConnectionOptions, SecuredConnection } from '@libp2p/interface'
import { lpStream } from '@libp2p/utils'
import { MeshError } from '../router/errors.ts'
import type { NodeId } from '../router/model.ts'

/** A certificate is about 500 bytes, a verdict a sentence. */
const MESSAGE_BYTES_MAX = 4096

export interface MemberNoiseDeps {
  /** This node's certificate, DER. */
  readonly certificate: Uint8Array
  /** sha-256 of the mesh's root: mixed into the noise handshake, so that daemons of other meshes fail in its first message. */
  readonly meshFingerprint: string
  verify(certificate: Uint8Array): { ok: true; nodeId: NodeId } | { ok: false; reason: string }
  onMember(node: NodeId, certificate: Uint8Array): void
  /** Of those this node dialled: whoever listens hears of the others by their failed connections. */
  onStranger(reason: string): void
}

/**
 * Noise, and then proof of membership, before anything else can be said on the connection.
 *
 * After the handshake has proven each end's key, both send the certificate that the mesh's root issued for that key,
 * and then their verdict on the other's: empty, or the reason for a refusal. No muxer, no protocol and no stream
 * exists until both verdicts are good, so a stranger never reaches code that could cost memory.
 * Errors: MeshError `not-a-member`, which makes libp2p drop the connection.
 */
export function memberNoise(
  deps: MemberNoiseDeps,
): (components: Parameters<ReturnType<typeof noise>>[0]) => ConnectionEncrypter {
  const prologueBytes = createHash('sha256').update(`flatmesh overlay 1\n${deps.meshFingerprint}`).digest()
  return components => {
    const inner = noise({ prologueBytes })(components)
    return {
      protocol: '/flatmesh/noise/1',
      secureInbound: async (connection, options) =>
        prove({ ...deps, onStranger() {} }, await inner.secureInbound(connection, options), options),
      secureOutbound: async (connection, options) =>
        prove(deps, await inner.secureOutbound(connection, options), options),
    }
  }
}

async function prove(
  deps: MemberNoiseDeps,
  secured: SecuredConnection,
  options: SecureConnectionOptions | undefined,
): Promise<SecuredConnection> {
  const messages = lpStream<MessageStream>(secured.connection, { maxDataLength: MESSAGE_BYTES_MAX })
  const signal = options?.signal === undefined ? {} : { signal: options.signal }
  await messages.write(deps.certificate, signal)
  const certificate = (await messages.read(signal)).subarray()
  const verified = deps.verify(certificate)
  const claimed = secured.remotePeer.toString()
  const refusal = !verified.ok
    ? verified.reason
    : verified.nodeId !== claimed
      ? `the certificate is for ${verified.nodeId}, the key on this connection is of ${claimed}`
      : ''
  await messages.write(new TextEncoder().encode(refusal.slice(0, 500)), signal)
  if (refusal !== '') {
    deps.onStranger(refusal)
    throw new MeshError('not-a-member', refusal)
  }
  const theirs = new TextDecoder().decode((await messages.read(signal)).subarray())
  if (theirs !== '') throw new MeshError('not-a-member', `refused by ${claimed}: ${theirs}`)
  deps.onMember(claimed, certificate)
  return { ...secured, connection: messages.unwrap() }
}
