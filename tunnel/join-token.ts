import { createHash, randomBytes } from 'node:crypto'
import { z } from 'zod'
import { MeshError } from '../router/errors.ts'
import { decodeMsgpack, encodeMsgpack } from '../router/msgpack.ts'
import { instant, MESH_NAME, rootFingerprint } from './certificate.ts'
import { addToken, readRootAuthority, type TokenState, takeToken } from './membership-store.ts'

/**
 * What `flatmesh invite` prints: everything a new node needs to find one member, to know that it is the right one, and
 * to be let in once.
 *
 * Text: `fmj1_` and base64url of a msgpack map and four bytes of checksum. The checksum tells a mangled paste from a
 * wrong token; it guards against nothing else. Whoever holds the text can join until it expires or is used.
 */
export interface JoinToken {
  readonly mesh: string
  /** SHA-256 of the root certificate's DER, base64url. */
  readonly rootFingerprint: string
  /** Admits one node. 16 random bytes. */
  readonly secret: Uint8Array
  /** Unix milliseconds, by the inviter's clock. */
  readonly expiresAtMs: number
  /** `host:port` of the inviter's call port, best first; at least one. */
  readonly calls: readonly string[]
  /** Multiaddrs of the overlay; may be empty. */
  readonly overlay: readonly string[]
}

/** 15 minutes, as Skupper's tokens: long enough to carry one to another machine, short enough to forget about it. */
export const TOKEN_TTL_MS = 15 * 60_000
/** A week: longer, and a token is a password lying about. A guess. */
export const TOKEN_TTL_MS_MAX = 7 * 24 * 3600_000
/** 128 bits: not to be guessed, however often one may try. */
export const TOKEN_SECRET_BYTES = 16
/** A token with all its addresses at their longest is below this; a longer text is refused unread. */
export const TOKEN_CHARS_MAX = 4096
/** The first so many addresses of each kind go into a token; a text that people paste should stay short. */
export const TOKEN_ADDRESSES_MAX = 8
/** A DNS name of 253 characters and a port; multiaddrs with such a name are a little longer. */
const ADDRESS_CHARS_MAX = 300

const PREFIX = 'fmj1_'
const CHECKSUM_BYTES = 4
const FINGERPRINT_BYTES = 32

const CALL_ADDRESS = /^(?:\[[0-9a-fA-F:.]{2,45}\]|[a-zA-Z0-9._-]{1,253}):([1-9][0-9]{0,4})$/
const OVERLAY_ADDRESS = /^\/[!-~]+$/

/** Whether this is `host:port` that can be dialled: an IPv6 host in brackets, a port from 1 to 65535. */
function isCallAddress(address: string): boolean {
  return address.length <= ADDRESS_CHARS_MAX && Number(CALL_ADDRESS.exec(address)?.[1]) <= 65535
}

/** Whether this can be a multiaddr; libp2p says later whether it is one. */
export function isOverlayAddress(address: string): boolean {
  return address.length <= ADDRESS_CHARS_MAX && OVERLAY_ADDRESS.test(address)
}

/** The shape of so many bytes, for what a peer or a paste claims to be a key, a hash or a secret. */
export function bytesOf(length: number) {
  return z.custom<Uint8Array>(value => value instanceof Uint8Array && value.length === length)
}

const tokenShape = z.object({
  v: z.literal(1),
  mesh: z.string().regex(MESH_NAME),
  root: bytesOf(FINGERPRINT_BYTES),
  secret: bytesOf(TOKEN_SECRET_BYTES),
  expiresAtMs: z.int().positive(),
  calls: z.array(z.string().refine(isCallAddress)).min(1).max(TOKEN_ADDRESSES_MAX),
  overlay: z.array(z.string().refine(isOverlayAddress)).max(TOKEN_ADDRESSES_MAX),
})

/** Errors: none; a token that `decodeJoinToken` would refuse is the caller's bug. */
export function encodeJoinToken(token: JoinToken): string {
  const body = Buffer.from(
    encodeMsgpack({
      v: 1,
      mesh: token.mesh,
      root: Buffer.from(token.rootFingerprint, 'base64url'),
      secret: Buffer.from(token.secret),
      expiresAtMs: token.expiresAtMs,
      calls: token.calls,
      overlay: token.overlay,
    }),
  )
  return PREFIX + Buffer.concat([body, checksum(body)]).toString('base64url')
}

/**
 * The token in a text that somebody pasted. White space around it is forgiven, nothing else.
 *
 * Units: `nowMs` is Unix milliseconds by this machine's clock.
 * Errors: MeshError `bad-token` (not a token, or damaged), `token-expired`. Messages never repeat the text.
 */
export function decodeJoinToken(text: string, nowMs: number): JoinToken {
  const trimmed = text.length > TOKEN_CHARS_MAX ? text : text.trim()
  if (trimmed.length > TOKEN_CHARS_MAX) {
    throw badToken(`it has ${trimmed.length} characters, expected at most ${TOKEN_CHARS_MAX}`)
  }
  if (!trimmed.startsWith(PREFIX)) {
    const version = /^fmj\d+_/.test(trimmed)
    throw badToken(version ? `it is of a version this flatmesh does not read` : `it does not begin with ${PREFIX}`)
  }
  const encoded = trimmed.slice(PREFIX.length)
  const bytes = Buffer.from(encoded, 'base64url')
  const body = bytes.subarray(0, -CHECKSUM_BYTES)
  // Decoding skips foreign characters and spare bits; encoding again shows whether there were any.
  const whole = bytes.length > CHECKSUM_BYTES && bytes.toString('base64url') === encoded
  if (!whole || !checksum(body).equals(bytes.subarray(-CHECKSUM_BYTES))) {
    throw badToken('it is damaged: characters are missing or changed; copy the whole line again')
  }
  const decoded = decodeMsgpack(body)
  const parsed = tokenShape.safeParse(decoded.ok ? decoded.value : undefined)
  if (!parsed.success) {
    throw badToken(`${parsed.error.issues[0]?.path.join('.') || 'its content'} is not what a token holds`)
  }
  const { mesh, root, secret, expiresAtMs, calls, overlay } = parsed.data
  if (expiresAtMs <= nowMs) {
    throw new MeshError(
      'token-expired',
      `the token was good until ${instant(expiresAtMs)} and the clock here says ${instant(nowMs)}: ` +
        'ask for a new one (flatmesh invite), or set the clock if it is wrong',
    )
  }
  return { mesh, rootFingerprint: Buffer.from(root).toString('base64url'), secret, expiresAtMs, calls, overlay }
}

function badToken(why: string): MeshError {
  return new MeshError('bad-token', `this is not a usable join token: ${why}`)
}

/** Over the prefix too, so that a token of another version never passes by accident. */
function checksum(body: Uint8Array): Buffer {
  return createHash('sha256').update(PREFIX).update(body).digest().subarray(0, CHECKSUM_BYTES)
}

/**
 * Makes a new token and notes it in the data folder, where the daemon that will be asked finds it.
 * Only the secret's hash is kept: whoever reads the folder cannot join with what is there.
 *
 * Shape: the token's text. Of each kind of address the first `TOKEN_ADDRESSES_MAX` go in.
 * Units: `ttlMs` is a span; `nowMs` is Unix milliseconds.
 * Errors: MeshError `data-dir` if this node has no `root.key` and so may not invite, or the folder cannot be written;
 * `usage` for a life out of range, or addresses that nobody could dial.
 */
export function issueToken(
  dataDir: string,
  options: {
    readonly ttlMs?: number
    readonly calls: readonly string[]
    readonly overlay: readonly string[]
    readonly nowMs: number
  },
): string {
  const { ttlMs = TOKEN_TTL_MS, calls, overlay, nowMs } = options
  if (!(ttlMs >= 1000 && ttlMs <= TOKEN_TTL_MS_MAX)) {
    throw new MeshError('usage', `a token lives for 1 second to 7 days, found ${ttlMs} ms`)
  }
  const secret = randomBytes(TOKEN_SECRET_BYTES)
  const expiresAtMs = Math.floor(nowMs + ttlMs)
  const { mesh, certificatePem } = readRootAuthority(dataDir)
  if (calls.length === 0) {
    throw new MeshError('usage', 'a token needs an address of this daemon that others can dial: set advertise')
  }
  const wrong = calls.find(address => !isCallAddress(address)) ?? overlay.find(address => !isOverlayAddress(address))
  if (wrong !== undefined) {
    throw new MeshError('usage', `a token cannot carry the address ${JSON.stringify(wrong.slice(0, 100))}`)
  }
  const token = encodeJoinToken({
    mesh,
    rootFingerprint: rootFingerprint(certificatePem),
    secret,
    expiresAtMs,
    calls: calls.slice(0, TOKEN_ADDRESSES_MAX),
    overlay: overlay.slice(0, TOKEN_ADDRESSES_MAX),
  })
  if (token.length > TOKEN_CHARS_MAX) {
    throw new MeshError(
      'usage',
      'the addresses of this daemon are too long for a token: advertise fewer or shorter ones',
    )
  }
  addToken(dataDir, secret, { mesh, issuedAtMs: nowMs, expiresAtMs })
  return token
}

/**
 * Uses a token up. `ok` for exactly one caller, whoever races, in any process on this folder.
 *
 * Units: `nowMs` is Unix milliseconds by the inviter's clock, the same that set the expiry.
 * Errors: MeshError `data-dir` if the folder cannot be read or written; everything about the token is an answer.
 */
export function consumeToken(dataDir: string, secret: Uint8Array, nowMs: number): TokenState {
  return takeToken(dataDir, secret, nowMs)
}
