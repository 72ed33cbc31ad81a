import { createPublicKey, generateKeyPairSync, type KeyObject, sign, X509Certificate } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  CLOCK_SKEW_MS,
  createRootCertificate,
  encodeCertificate,
  issueNodeCertificate,
  MESH_NAME,
  NODE_LIFETIME_MS,
  NODE_NAME,
  REGION,
  ROOT_LIFETIME_MS,
  readRootCertificate,
  rootFingerprint,
  verifyNodeCertificate,
} from './certificate.ts'
import { nodeIdOfPublicKey } from './peer-identity.ts'

const nowMs = Date.parse('2026-03-01T12:00:00Z')
const newKey = () => generateKeyPairSync('ed25519').privateKey

function newRoot(mesh = 'acme', atMs = nowMs) {
  const key = newKey()
  return { key, certificatePem: createRootCertificate(mesh, key, atMs) }
}

const root = newRoot()
const nodeKey = newKey()
const publicKey = createPublicKey(nodeKey)
const node = { name: 'use1-a', region: 'aws-us-east-1', publicKey }
const issued = issueNodeCertificate(root, node, nowMs)

/** A certificate that the mesh would never issue, signed by its root all the same. */
function odd(change: Partial<Parameters<typeof encodeCertificate>[0]>): string {
  return encodeCertificate({
    issuer: 'acme',
    subject: 'use1-a',
    uri: 'spiffe://acme/region/aws-us-east-1/node/use1-a',
    publicKey,
    issuerKey: root.key,
    notBeforeMs: nowMs - CLOCK_SKEW_MS,
    notAfterMs: nowMs + NODE_LIFETIME_MS,
    role: 'node',
    ...change,
  })
}

function derOf(pem: string): Buffer {
  return Buffer.from(new X509Certificate(pem).raw)
}

describe('a node certificate', () => {
  test('names the node, its region and its mesh, and is for the key that is its node id', () => {
    expect(verifyNodeCertificate(issued.certificatePem, root.certificatePem, nowMs)).toMatchObject({
      ok: true,
      nodeId: nodeIdOfPublicKey(publicKey),
      mesh: 'acme',
      region: 'aws-us-east-1',
      name: 'use1-a',
      issuedAtMs: nowMs - CLOCK_SKEW_MS,
      expiresAtMs: nowMs + NODE_LIFETIME_MS,
    })
    expect(issued.expiresAtMs).toBe(nowMs + NODE_LIFETIME_MS)
  })

  test('is accepted as DER as well as PEM', () => {
    expect(verifyNodeCertificate(derOf(issued.certificatePem), derOf(root.certificatePem), nowMs).ok).toBe(true)
  })

  test('never outlives its root', () => {
    const late = nowMs + ROOT_LIFETIME_MS - 1000
    const last = issueNodeCertificate(root, node, late)
    expect(last.expiresAtMs).toBe(nowMs + ROOT_LIFETIME_MS)
  })

  test('can bear the same name as its mesh', () => {
    const named = issueNodeCertificate(root, { ...node, name: 'acme' }, nowMs)
    expect(verifyNodeCertificate(named.certificatePem, root.certificatePem, nowMs)).toMatchObject({
      ok: true,
      name: 'acme',
    })
  })

  test('passes for any mesh, name, region and time that the rules admit, dates past 2050 included', () => {
    const label = fc.stringMatching(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/)
    const region = fc.stringMatching(/^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}$/)
    const second = fc.integer({ min: Date.UTC(1990, 0) / 1000, max: Date.UTC(2080, 0) / 1000 })
    fc.assert(
      fc.property(label, label, region, second, (mesh, name, where, atSeconds) => {
        const atMs = atSeconds * 1000
        const someRoot = newRoot(mesh, atMs)
        const some = issueNodeCertificate(someRoot, { name, region: where, publicKey }, atMs)
        const verdict = verifyNodeCertificate(some.certificatePem, someRoot.certificatePem, atMs)
        expect(verdict).toMatchObject({ ok: true, mesh, name, region: where, expiresAtMs: atMs + NODE_LIFETIME_MS })
      }),
      { numRuns: 60 },
    )
  })
})

describe('a certificate is refused', () => {
  const other = newRoot()
  const globex = newRoot('globex')
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey
  const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey
  const uri = (text: string) => odd({ uri: text })
  const flipped = (at: number) => {
    const bytes = derOf(issued.certificatePem)
    bytes[at] = (bytes[at] ?? 0) ^ 1
    return bytes
  }
  const cases: [why: string, certificate: string | Uint8Array, rootPem: string, code: string, reason: RegExp][] = [
    [
      'when another root of the same mesh name issued it',
      issueNodeCertificate(other, node, nowMs).certificatePem,
      root.certificatePem,
      'not-a-member',
      /not issued by the root/,
    ],
    [
      'when the root of another mesh issued it',
      issueNodeCertificate(globex, node, nowMs).certificatePem,
      root.certificatePem,
      'not-a-member',
      /not issued by the root/,
    ],
    [
      'when it is for another mesh than its root',
      uri('spiffe://globex/region/x/node/y'),
      root.certificatePem,
      'not-a-member',
      /mesh globex/,
    ],
    [
      'when it is a CA',
      odd({ role: 'root', uri: 'spiffe://acme/region/x/node/y' }),
      root.certificatePem,
      'not-a-member',
      /is a CA/,
    ],
    ['when it is the root itself', root.certificatePem, root.certificatePem, 'not-a-member', /is a CA|not issued/],
    ['when its key is RSA', odd({ publicKey: rsa }), root.certificatePem, 'not-a-member', /rsa key, expected ed25519/],
    [
      'when its key is elliptic but not Ed25519',
      odd({ publicKey: ec }),
      root.certificatePem,
      'not-a-member',
      /ec key, expected ed25519/,
    ],
    [
      'when its signature was touched',
      flipped(derOf(issued.certificatePem).length - 3),
      root.certificatePem,
      'not-a-member',
      /not issued by the root/,
    ],
    [
      'when its name was touched',
      Buffer.from(derOf(issued.certificatePem).toString('latin1').replaceAll('use1-a', 'use1-b'), 'latin1'),
      root.certificatePem,
      'not-a-member',
      /not issued by the root/,
    ],
    [
      'when its name has a slash too many',
      uri('spiffe://acme/region/x/node/y/z'),
      root.certificatePem,
      'not-a-member',
      /does not name a node/,
    ],
    [
      'when its name has a query',
      uri('spiffe://acme/region/x/node/y?z'),
      root.certificatePem,
      'not-a-member',
      /does not name a node/,
    ],
    [
      'when its mesh has a port',
      uri('spiffe://acme:1/region/x/node/y'),
      root.certificatePem,
      'not-a-member',
      /does not name a node/,
    ],
    [
      'when its name is written in capitals',
      uri('spiffe://acme/region/x/node/Y'),
      root.certificatePem,
      'not-a-member',
      /does not name a node/,
    ],
    [
      'when its region is two dots',
      uri('spiffe://acme/region/../node/y'),
      root.certificatePem,
      'not-a-member',
      /malformed/,
    ],
    [
      'when its name is too long',
      uri(`spiffe://acme/region/x/node/${'y'.repeat(64)}`),
      root.certificatePem,
      'not-a-member',
      /malformed/,
    ],
    [
      'when it hides a second name behind a comma',
      uri('spiffe://acme/region/x/node/y, URI:spiffe://acme/region/x/node/z'),
      root.certificatePem,
      'not-a-member',
      /does not name a node/,
    ],
    ['when it names the mesh only', uri('spiffe://acme'), root.certificatePem, 'not-a-member', /does not name a node/],
    [
      'when the root is a node certificate',
      issued.certificatePem,
      issued.certificatePem,
      'not-a-member',
      /root certificate is not a CA/,
    ],
    ['when the root is no certificate', issued.certificatePem, 'nonsense', 'not-a-member', /not a readable/],
    ['when it is no certificate', 'nonsense', root.certificatePem, 'not-a-member', /not a readable/],
    ['when it is empty', new Uint8Array(), root.certificatePem, 'not-a-member', /not a readable/],
    ['when it is too large to be one', new Uint8Array(20_000), root.certificatePem, 'not-a-member', /not a readable/],
  ]
  test.each(cases)('%s', (_why, certificate, rootPem, code, reason) => {
    const verdict = verifyNodeCertificate(certificate, rootPem, nowMs)
    expect(verdict).toMatchObject({ ok: false, code })
    expect(verdict.ok ? '' : verdict.reason).toMatch(reason)
  })

  test('when it lacks either use, so that it cannot stand for one end of a link only', () => {
    const der = derOf(issued.certificatePem).toString('latin1')
    // 1.3.6.1.5.5.7.3.2 (clientAuth) becomes .3.3 (codeSigning), and the root signs that again.
    const changed = der.replace('\x2b\x06\x01\x05\x05\x07\x03\x02', '\x2b\x06\x01\x05\x05\x07\x03\x03')
    expect(changed).not.toBe(der)
    const again = signedAgain(Buffer.from(changed, 'latin1'), root.key)
    expect(new X509Certificate(again).verify(createPublicKey(root.key))).toBe(true)
    const verdict = verifyNodeCertificate(again, root.certificatePem, nowMs)
    expect(verdict).toMatchObject({ ok: false, code: 'not-a-member' })
    expect(verdict.ok ? '' : verdict.reason).toMatch(/both ends of a link/)
  })

  test('with the clock to blame when only the time is wrong, naming the times', () => {
    const early = verifyNodeCertificate(issued.certificatePem, root.certificatePem, nowMs - CLOCK_SKEW_MS - 1000)
    expect(early).toMatchObject({ ok: false, code: 'clock-wrong' })
    const late = verifyNodeCertificate(issued.certificatePem, root.certificatePem, nowMs + NODE_LIFETIME_MS + 1)
    expect(late).toMatchObject({
      ok: false,
      code: 'clock-wrong',
      reason:
        'the certificate of use1-a is expired: valid from 2026-03-01T11:55:00Z to 2027-03-01T12:00:00Z, ' +
        'the clock here says 2027-03-01T12:00:00Z',
    })
  })

  test('when the root has expired under it', () => {
    const eternal = odd({ notAfterMs: nowMs + 2 * ROOT_LIFETIME_MS })
    const verdict = verifyNodeCertificate(eternal, root.certificatePem, nowMs + ROOT_LIFETIME_MS + 1000)
    expect(verdict).toMatchObject({ ok: false, code: 'clock-wrong' })
    expect(verdict.ok ? '' : verdict.reason).toMatch(/^the root of/)
  })

  test('whichever single bit of it is changed, and never with an exception', () => {
    const whole = derOf(issued.certificatePem)
    for (let at = 0; at < whole.length; at++) {
      const bytes = flipped(at)
      expect(verifyNodeCertificate(bytes, root.certificatePem, nowMs).ok, `bit flipped in byte ${at}`).toBe(false)
    }
  })

  test('for any bytes at all, and never with an exception', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 600 }), fc.nat(410), (noise, at) => {
        const bytes = derOf(issued.certificatePem)
        bytes.set(noise.subarray(0, bytes.length - at), at)
        const same = bytes.equals(derOf(issued.certificatePem))
        expect(verifyNodeCertificate(bytes, root.certificatePem, nowMs).ok).toBe(same)
        expect(verifyNodeCertificate(noise, root.certificatePem, nowMs).ok).toBe(false)
      }),
      { numRuns: 500 },
    )
  })
})

describe('a root certificate', () => {
  test('is a CA for one level, for ten years, and signs itself', () => {
    expect(readRootCertificate(root.certificatePem)).toMatchObject({
      ok: true,
      mesh: 'acme',
      issuedAtMs: nowMs - CLOCK_SKEW_MS,
      expiresAtMs: nowMs + ROOT_LIFETIME_MS,
    })
  })

  test('is refused when somebody else signed it, or when it names no mesh', () => {
    const base = { issuer: 'acme', subject: 'acme', publicKey, notBeforeMs: nowMs, notAfterMs: nowMs + 1e6 } as const
    const foreign = encodeCertificate({ ...base, uri: 'spiffe://acme', issuerKey: root.key, role: 'root' })
    expect(readRootCertificate(foreign)).toEqual({ ok: false, reason: 'the root is not signed by itself' })
    const nameless = encodeCertificate({ ...base, uri: 'spiffe://acme/x', issuerKey: nodeKey, role: 'root' })
    expect(readRootCertificate(nameless)).toMatchObject({ ok: false, reason: expect.stringMatching(/name a mesh/) })
  })

  test('has a fingerprint that does not depend on its encoding and differs from root to root', () => {
    const print = rootFingerprint(root.certificatePem)
    expect(print).toMatch(/^[A-Za-z0-9_-]{43}$/)
    expect(rootFingerprint(derOf(root.certificatePem))).toBe(print)
    expect(rootFingerprint(newRoot().certificatePem)).not.toBe(print)
  })
})

test('names that could not stand in a DNS label or a SPIFFE path are refused', () => {
  for (const good of ['a', '0', 'use1-a', 'a'.repeat(63)]) expect(good).toMatch(MESH_NAME)
  for (const bad of ['', '-a', 'a-', 'A', 'a.b', 'a_b', 'a b', 'ä', 'a\n', 'a'.repeat(64)]) {
    expect(bad).not.toMatch(NODE_NAME)
  }
  for (const good of ['aws-us-east-1', 'GCP_europe.west3', 'x']) expect(good).toMatch(REGION)
  for (const bad of ['', '.', '..', '-x', 'a/b', 'a b', 'a\n', 'x'.repeat(64)]) expect(bad).not.toMatch(REGION)
})

/** The certificate with its signature made anew: the signed part is the first element, the signature the last 64 bytes. */
function signedAgain(der: Buffer, key: KeyObject): Buffer {
  const tbs = der.subarray(4, 4 + 4 + der.readUInt16BE(6))
  return Buffer.concat([der.subarray(0, -64), sign(null, tbs, key)])
}
