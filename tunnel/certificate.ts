import { createHash, createPublicKey, type KeyObject, randomBytes, sign, X509Certificate } from 'node:crypto'
import { invariant } from '../router/errors.ts'
import type { NodeId } from '../router/model.ts'
import { nodeIdOfPublicKey } from './peer-identity.ts'

/**
 * The two certificates of a mesh: its root, and one per node issued by that root.
 *
 * A root says `spiffe://<mesh>`; a node certificate says `spiffe://<mesh>/region/<region>/node/<name>` and is for the
 * very key that is the node's libp2p identity. Both are Ed25519 throughout. There are no intermediates: a node
 * certificate is valid when the root's own key signed it, so a chain can never be longer than we looked at.
 *
 * The encoder below writes exactly these two shapes (RFC 5280, RFC 8410 for Ed25519). Reading is left to OpenSSL,
 * through `X509Certificate`: certificates come from peers, and nothing of ours parses ASN.1 that a peer wrote.
 */

/** Mesh and node names: a DNS label, since both end up in one (a certificate's CN, `orders.mesh`). */
export const MESH_NAME = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/
export const NODE_NAME = MESH_NAME
/** A region is a path segment of the SPIFFE URI, and SPIFFE forbids `.` and `..` there: hence the first character. */
export const REGION = /^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}$/

const DAY_MS = 24 * 3600_000

/**
 * How far two members' clocks may differ. Certificates begin this long before they are issued, so that a node whose
 * clock is slow can use one at once. 5 minutes: what Kerberos has allowed for decades (RFC 4120, 5.2.1).
 */
export const CLOCK_SKEW_MS = 5 * 60_000
/** 10 years: the root cannot be exchanged yet, so it must outlive the installations made with this version. */
export const ROOT_LIFETIME_MS = 3650 * DAY_MS
/** A year: nothing renews a node certificate yet, so a short life would only mean outages. Days, once renewal exists. */
export const NODE_LIFETIME_MS = 365 * DAY_MS
/** Largest certificate that is looked at. Ours take about 420 bytes as DER, 620 as PEM; the rest is room for later extensions. */
const CERTIFICATE_BYTES_MAX = 16 * 1024

/** What a node certificate proves, once verified. */
export interface NodeCertificate {
  readonly nodeId: NodeId
  readonly mesh: string
  readonly region: string
  readonly name: string
  readonly publicKey: KeyObject
  readonly issuedAtMs: number
  /** Last valid instant, Unix milliseconds. */
  readonly expiresAtMs: number
}

export type NodeCertificateVerdict =
  | ({ readonly ok: true } & NodeCertificate)
  | { readonly ok: false; readonly code: 'not-a-member' | 'clock-wrong'; readonly reason: string }

/**
 * A new root certificate, signed by its own key.
 *
 * Shape: PEM. CN is the mesh's name, CA with path length 0, key usage keyCertSign only.
 * Units: `nowMs` is Unix milliseconds; the certificate begins `CLOCK_SKEW_MS` earlier.
 */
export function createRootCertificate(mesh: string, rootKey: KeyObject, nowMs: number): string {
  invariant(MESH_NAME.test(mesh), `mesh name ${mesh} was not checked`)
  const publicKey = createPublicKey(rootKey)
  return encodeCertificate({
    issuer: mesh,
    subject: mesh,
    uri: `spiffe://${mesh}`,
    publicKey,
    issuerKey: rootKey,
    notBeforeMs: nowMs - CLOCK_SKEW_MS,
    notAfterMs: nowMs + ROOT_LIFETIME_MS,
    role: 'root',
  })
}

/**
 * A certificate for a node's key, issued by the root.
 *
 * Shape: PEM and what it says. CN is the node's name; extended key usage serverAuth and clientAuth.
 * Units: `nowMs` and `expiresAtMs` are Unix milliseconds, whole seconds in the certificate. It never outlives the root.
 * Errors: none; names and the key's type must have been checked, or it is a bug.
 */
export function issueNodeCertificate(
  root: { readonly certificatePem: string; readonly key: KeyObject },
  node: { readonly name: string; readonly region: string; readonly publicKey: KeyObject },
  nowMs: number,
  lifetimeMs: number = NODE_LIFETIME_MS,
): { certificatePem: string; serial: string; expiresAtMs: number } {
  invariant(
    NODE_NAME.test(node.name) && REGION.test(node.region),
    `names ${node.name}, ${node.region} were not checked`,
  )
  invariant(node.publicKey.asymmetricKeyType === 'ed25519', 'a node key is Ed25519')
  const read = readRootCertificate(root.certificatePem)
  invariant(read.ok, 'the root certificate was not checked')
  const notAfterMs = Math.min(nowMs + lifetimeMs, read.expiresAtMs)
  const certificatePem = encodeCertificate({
    issuer: read.mesh,
    subject: node.name,
    uri: `spiffe://${read.mesh}/region/${node.region}/node/${node.name}`,
    publicKey: node.publicKey,
    issuerKey: root.key,
    notBeforeMs: nowMs - CLOCK_SKEW_MS,
    notAfterMs,
    role: 'node',
  })
  const issued = new X509Certificate(certificatePem)
  return { certificatePem, serial: issued.serialNumber, expiresAtMs: issued.validToDate.getTime() }
}

/**
 * What a root certificate says, or why it is none. Whether it is the *right* root only its fingerprint can tell.
 */
export function readRootCertificate(
  root: string | Uint8Array,
):
  | { ok: true; mesh: string; certificate: X509Certificate; issuedAtMs: number; expiresAtMs: number }
  | { ok: false; reason: string } {
  const certificate = readX509(root)
  if (certificate === undefined) return { ok: false, reason: 'the root is not a readable X.509 certificate' }
  if (!certificate.ca) return { ok: false, reason: 'the root certificate is not a CA' }
  const publicKey = publicKeyOf(certificate)
  if (publicKey?.asymmetricKeyType !== 'ed25519') {
    return { ok: false, reason: `the root has a ${publicKey?.asymmetricKeyType ?? 'unknown'} key, expected ed25519` }
  }
  if (!isSignedBy(certificate, publicKey)) return { ok: false, reason: 'the root is not signed by itself' }
  const mesh = /^URI:spiffe:\/\/([a-z0-9-]+)$/.exec(certificate.subjectAltName ?? '')?.[1]
  if (mesh === undefined || !MESH_NAME.test(mesh)) {
    return { ok: false, reason: 'the root certificate does not name a mesh (spiffe://<mesh>)' }
  }
  return {
    ok: true,
    mesh,
    certificate,
    issuedAtMs: certificate.validFromDate.getTime(),
    expiresAtMs: certificate.validToDate.getTime(),
  }
}

/**
 * Whether `certificate` (PEM or DER, from anywhere) makes its holder a member of the root's mesh now, and who that is.
 * It says nothing about who is at the other end: the holder must still prove the key, as TLS and noise do.
 *
 * Shape: the node, or a code and a reason in the operator's words. `clock-wrong`: all is well but the time.
 * Units: `nowMs` is Unix milliseconds.
 * Errors: none; never throws, whatever the bytes.
 */
export function verifyNodeCertificate(
  certificate: string | Uint8Array,
  root: string | Uint8Array,
  nowMs: number,
): NodeCertificateVerdict {
  const rootRead = readRootCertificate(root)
  if (!rootRead.ok) return stranger(rootRead.reason)
  const leaf = readX509(certificate)
  if (leaf === undefined) return stranger('not a readable X.509 certificate')
  const publicKey = publicKeyOf(leaf)
  if (publicKey?.asymmetricKeyType !== 'ed25519') {
    return stranger(`the certificate has a ${publicKey?.asymmetricKeyType ?? 'unknown'} key, expected ed25519`)
  }
  if (!leaf.checkIssued(rootRead.certificate) || !isSignedBy(leaf, rootRead.certificate.publicKey)) {
    return stranger(`the certificate was not issued by the root of mesh ${rootRead.mesh}`)
  }
  if (leaf.ca) return stranger('the certificate is a CA, a node certificate must not be one')
  const usages = leaf.keyUsage ?? []
  if (!usages.includes(SERVER_AUTH) || !usages.includes(CLIENT_AUTH)) {
    return stranger('the certificate is not for both ends of a link (serverAuth and clientAuth)')
  }
  const [, mesh, region, name] = NODE_SAN.exec(leaf.subjectAltName ?? '') ?? []
  if (mesh === undefined || region === undefined || name === undefined) {
    return stranger('the certificate does not name a node (one URI, spiffe://<mesh>/region/<region>/node/<name>)')
  }
  if (mesh !== rootRead.mesh) return stranger(`the certificate is for mesh ${mesh}, the root is of ${rootRead.mesh}`)
  if (!NODE_NAME.test(name) || !REGION.test(region)) return stranger('the certificate has a malformed name or region')
  for (const [what, read] of [
    ['root', rootRead.certificate],
    ['certificate', leaf],
  ] as const) {
    const fromMs = read.validFromDate.getTime()
    const toMs = read.validToDate.getTime()
    if (nowMs >= fromMs && nowMs <= toMs) continue
    const state = nowMs < fromMs ? 'not yet valid' : 'expired'
    const window = `valid from ${instant(fromMs)} to ${instant(toMs)}`
    return {
      ok: false,
      code: 'clock-wrong',
      reason: `the ${what} of ${name} is ${state}: ${window}, the clock here says ${instant(nowMs)}`,
    }
  }
  return {
    ok: true,
    nodeId: nodeIdOfPublicKey(publicKey),
    mesh,
    region,
    name,
    publicKey,
    issuedAtMs: leaf.validFromDate.getTime(),
    expiresAtMs: leaf.validToDate.getTime(),
  }
}

/** SHA-256 of the certificate's DER, base64url (43 characters): what a join token pins. Throws if it is no certificate. */
export function rootFingerprint(root: string | Uint8Array): string {
  return createHash('sha256').update(new X509Certificate(root).raw).digest('base64url')
}

/** An instant as people read it: UTC, whole seconds. Total: a clock may say anything. */
export function instant(ms: number): string {
  return Number.isFinite(ms) && Math.abs(ms) < 8.64e15 ? `${new Date(ms).toISOString().slice(0, -5)}Z` : String(ms)
}

const SERVER_AUTH = '1.3.6.1.5.5.7.3.1'
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2'
/** Node prints several names joined by `, ` and quotes odd ones: the anchors admit exactly one plain URI. */
const NODE_SAN = /^URI:spiffe:\/\/([a-z0-9-]+)\/region\/([a-zA-Z0-9._-]+)\/node\/([a-z0-9-]+)$/

function stranger(reason: string): NodeCertificateVerdict {
  return { ok: false, code: 'not-a-member', reason }
}

function readX509(certificate: string | Uint8Array): X509Certificate | undefined {
  if (certificate.length > CERTIFICATE_BYTES_MAX) return undefined
  try {
    return new X509Certificate(certificate)
  } catch {
    return undefined
  }
}

function publicKeyOf(certificate: X509Certificate): KeyObject | undefined {
  try {
    return certificate.publicKey
  } catch {
    return undefined
  }
}

function isSignedBy(certificate: X509Certificate, key: KeyObject): boolean {
  try {
    return certificate.verify(key)
  } catch {
    return false
  }
}

/** The contents of one of our two certificates. */
export interface CertificateContents {
  /** Common names. */
  readonly issuer: string
  readonly subject: string
  readonly uri: string
  readonly publicKey: KeyObject
  /** Ed25519 private key. */
  readonly issuerKey: KeyObject
  readonly notBeforeMs: number
  readonly notAfterMs: number
  readonly role: 'root' | 'node'
}

/** The certificate as PEM, signed. Checks nothing: `createRootCertificate` and `issueNodeCertificate` do. */
export function encodeCertificate(contents: CertificateContents): string {
  const algorithm = sequence(oid('1.3.101.112'))
  const spki = contents.publicKey.export({ type: 'spki', format: 'der' })
  const issuerSpki = createPublicKey(contents.issuerKey).export({ type: 'spki', format: 'der' })
  const tbs = sequence(
    der(0xa0, integer(Buffer.from([2]))), // version 3
    integer(randomBytes(16)), // 127 random bits at least, as RFC 5280 and CA practice ask of a serial
    algorithm,
    commonName(contents.issuer),
    sequence(time(contents.notBeforeMs), time(contents.notAfterMs)),
    commonName(contents.subject),
    spki,
    der(0xa3, sequence(...extensions(contents, keyIdentifier(spki), keyIdentifier(issuerSpki)))),
  )
  const certificate = sequence(tbs, algorithm, bitString(sign(null, tbs, contents.issuerKey)))
  const lines = certificate.toString('base64').match(/.{1,64}/g) ?? []
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`
}

function extensions(contents: CertificateContents, subjectKeyId: Buffer, issuerKeyId: Buffer): Buffer[] {
  const root = contents.role === 'root'
  const list = [
    // basicConstraints: CA with path length 0, or the empty sequence that means "not a CA"
    extension(
      '2.5.29.19',
      true,
      root ? sequence(der(0x01, Buffer.from([0xff])), integer(Buffer.from([0]))) : sequence(),
    ),
    // keyUsage, bits counted from the left: 0 digitalSignature, 5 keyCertSign
    extension('2.5.29.15', true, root ? bitString(Buffer.from([0x04]), 2) : bitString(Buffer.from([0x80]), 7)),
    extension('2.5.29.14', false, der(0x04, subjectKeyId)),
    extension('2.5.29.35', false, sequence(der(0x80, issuerKeyId))),
    extension('2.5.29.17', false, sequence(der(0x86, Buffer.from(contents.uri, 'ascii')))),
  ]
  if (!root) list.push(extension('2.5.29.37', false, sequence(oid(SERVER_AUTH), oid(CLIENT_AUTH))))
  return list
}

/** RFC 7093, method 1: the leftmost 160 bits of SHA-256. Over the whole SPKI: an identifier need only be unique. */
function keyIdentifier(spki: Buffer): Buffer {
  return createHash('sha256').update(spki).digest().subarray(0, 20)
}

function extension(id: string, critical: boolean, value: Buffer): Buffer {
  const parts = [oid(id)]
  if (critical) parts.push(der(0x01, Buffer.from([0xff])))
  return sequence(...parts, der(0x04, value))
}

function commonName(name: string): Buffer {
  return sequence(der(0x31, sequence(oid('2.5.4.3'), der(0x0c, Buffer.from(name, 'utf8')))))
}

/** UTCTime through 2049, GeneralizedTime from 2050 on (RFC 5280, 4.1.2.5). */
function time(ms: number): Buffer {
  const digits = new Date(ms)
    .toISOString()
    .replace(/\.\d+Z$/, 'Z')
    .replace(/[-:T]/g, '')
  const year = Number(digits.slice(0, 4))
  const utc = year >= 1950 && year < 2050
  return utc ? der(0x17, Buffer.from(digits.slice(2), 'ascii')) : der(0x18, Buffer.from(digits, 'ascii'))
}

function der(tag: number, ...parts: Buffer[]): Buffer {
  const body = Buffer.concat(parts)
  if (body.length < 0x80) return Buffer.concat([Buffer.from([tag, body.length]), body])
  const size = body.length < 0x100 ? [0x81, body.length] : [0x82, body.length >> 8, body.length & 0xff]
  invariant(body.length < 0x10000, 'a certificate of ours is below 64 KiB')
  return Buffer.concat([Buffer.from([tag, ...size]), body])
}

function sequence(...parts: Buffer[]): Buffer {
  return der(0x30, ...parts)
}

function bitString(bytes: Buffer, unusedBits = 0): Buffer {
  return der(0x03, Buffer.from([unusedBits]), bytes)
}

/** A positive INTEGER in its shortest form, which DER demands. */
function integer(magnitude: Buffer): Buffer {
  let start = 0
  while (start < magnitude.length - 1 && magnitude[start] === 0) start++
  const bytes = magnitude.subarray(start)
  const signBit = ((bytes[0] ?? 0) & 0x80) !== 0
  return der(0x02, signBit ? Buffer.from([0]) : Buffer.alloc(0), bytes)
}

function oid(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number)
  const bytes = [first * 40 + second]
  for (const arc of rest) {
    const groups = [arc & 0x7f]
    for (let left = arc >> 7; left > 0; left >>= 7) groups.unshift((left & 0x7f) | 0x80)
    bytes.push(...groups)
  }
  return der(0x06, Buffer.from(bytes))
}
