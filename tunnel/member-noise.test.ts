import { X509Certificate } from 'node:crypto'
import { privateKeyFromRaw } from '@libp2p/crypto/keys'
import type { MessageStream } from '@libp2p/interface'
import { multiaddrConnectionPair } from '@libp2p/utils'
import { describe, expect, test, vi } from 'vitest'
import { MeshError } from '../router/errors.ts'
import { rootFingerprint, verifyNodeCertificate } from './certificate.ts'
import type { Identity } from './identity.ts'
import { type MemberNoiseDeps, memberNoise } from './member-noise.ts'
import { createTestMesh } from './test-identities.ts'

const MESH = createTestMesh()
const noop = (): void => {}
const log = Object.assign(noop, { error: noop, trace: noop, enabled: false, newScope: () => log })
const der = (identity: Identity): Uint8Array => new X509Certificate(identity.certificatePem).raw

interface End {
  readonly members: string[]
  readonly strangers: string[]
  readonly encrypter: ReturnType<ReturnType<typeof memberNoise>>
}

/** One end of a handshake: its key, and the certificate it shows, its own unless said otherwise. */
function end(identity: Identity, over: Partial<MemberNoiseDeps> = {}): End {
  const members: string[] = []
  const strangers: string[] = []
  const { d = '', x = '' } = identity.key.export({ format: 'jwk' })
  const privateKey = privateKeyFromRaw(Buffer.concat([Buffer.from(d, 'base64url'), Buffer.from(x, 'base64url')]))
  const deps: MemberNoiseDeps = {
    certificate: der(identity),
    meshFingerprint: rootFingerprint(identity.rootPem),
    verify: certificate => verifyNodeCertificate(certificate, identity.rootPem, Date.now()),
    onMember: node => void members.push(node),
    onStranger: reason => void strangers.push(reason),
    ...over,
  }
  const components = { privateKey, logger: { forComponent: () => log }, upgrader: { getStreamMuxers: () => new Map() } }
  const encrypter = memberNoise(deps)(components as unknown as Parameters<ReturnType<typeof memberNoise>>[0])
  return { members, strangers, encrypter }
}

/** Both outcomes of `dialler` dialling `listener`: the node each has proven, or why not. */
async function shake(dialler: End, listener: End): Promise<[string, string]> {
  const [out, inbound] = multiaddrConnectionPair({ delay: 0 })
  const signal = AbortSignal.timeout(5000)
  const outcome = async (
    side: Promise<{ remotePeer: { toString(): string } }>,
    line: MessageStream,
  ): Promise<string> => {
    try {
      return (await side).remotePeer.toString()
    } catch (error) {
      line.abort(new Error('refused'))
      return error instanceof MeshError ? `${error.code}: ${error.message}` : 'refused'
    }
  }
  return Promise.all([
    outcome(dialler.encrypter.secureOutbound(out, { signal }), out),
    outcome(listener.encrypter.secureInbound(inbound, { signal }), inbound),
  ])
}

describe('the proof of membership', () => {
  test('two members prove themselves to each other, and both learn who the other is', async () => {
    const [a, b] = [MESH.identity('a'), MESH.identity('b')]
    const [dialler, listener] = [end(a), end(b)]
    expect(await shake(dialler, listener)).toEqual([b.nodeId, a.nodeId])
    expect([dialler.members, listener.members]).toEqual([[b.nodeId], [a.nodeId]])
  })

  test('the connection carries what is said after the proof, from the first byte on', async () => {
    const [a, b] = [end(MESH.identity('a')), end(MESH.identity('b'))]
    const [out, inbound] = multiaddrConnectionPair({ delay: 0 })
    const [mine, theirs] = await Promise.all([a.encrypter.secureOutbound(out), b.encrypter.secureInbound(inbound)])
    const got: Buffer[] = []
    theirs.connection.addEventListener('message', ({ data }) => void got.push(Buffer.from(data.subarray())))
    mine.connection.send(Buffer.from('hello'))
    await vi.waitFor(() => expect(Buffer.concat(got).toString()).toBe('hello'))
    out.abort(new Error('the test is over'))
    inbound.abort(new Error('the test is over'))
  })

  test('a daemon of another mesh fails in the handshake, before a certificate is shown', async () => {
    const verify = vi.fn(() => ({ ok: false as const, reason: 'never asked' }))
    const [a, b] = [end(MESH.identity('a'), { verify }), end(createTestMesh('other').identity('b'), { verify })]
    expect(await shake(a, b)).toEqual(['refused', 'refused'])
    expect(verify).not.toHaveBeenCalled()
  })

  test('a certificate of another root is refused at both ends, with the reason', async () => {
    const meshFingerprint = rootFingerprint(MESH.rootPem)
    const stranger = end(createTestMesh().identity('b'), { meshFingerprint })
    const a = end(MESH.identity('a'))
    const [mine, theirs] = await shake(a, stranger)
    expect([mine, theirs]).toEqual([
      expect.stringMatching(/^not-a-member/),
      expect.stringMatching(/^not-a-member|refused/),
    ])
    expect([a.members, stranger.members]).toEqual([[], []])
    expect(a.strangers).toHaveLength(1)
  })

  test('a stolen certificate is of no use without its key', async () => {
    const [a, thief, victim] = [MESH.identity('a'), MESH.identity('thief'), MESH.identity('victim')]
    const listener = end(a)
    const dialler = end(thief, { certificate: der(victim) })
    const [, theirs] = await shake(dialler, listener)
    expect(theirs).toMatch(/^not-a-member.*the certificate is for/)
    expect([listener.members, dialler.members]).toEqual([[], []])
  })

  test('an expired member is refused', async () => {
    const listener = end(MESH.identity('a'))
    const [, theirs] = await shake(end(MESH.identity('old', 2 * 3_600_000)), listener)
    expect(theirs).toMatch(/^not-a-member/)
    expect(listener.members).toEqual([])
  })

  test.each([
    ['nothing', new Uint8Array(0)],
    ['noise', new Uint8Array(500).fill(0x30)],
    ['more than is accepted', new Uint8Array(5000)],
  ])('%s in place of a certificate is refused, not thrown over', async (_, certificate) => {
    const listener = end(MESH.identity('a'))
    const [, theirs] = await shake(end(MESH.identity('b'), { certificate }), listener)
    expect(theirs).toMatch(/^not-a-member|^refused$/)
    expect(listener.members).toEqual([])
  })
})
