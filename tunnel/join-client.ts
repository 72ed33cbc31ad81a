import { createPublicKey, type KeyObject, sign, type X509Certificate } from 'node:crypto'
import { connect, type TLSSocket } from 'node:tls'
import { MeshError, messageOf } from '../router/errors.ts'
import { readRootCertificate, rootFingerprint, verifyNodeCertificate } from './certificate.ts'
import { createKey, type Identity, parseIdentity, wrongNames } from './identity.ts'
import {
  ANSWER_TIMEOUT_MS,
  type Answer,
  answerShape,
  CONNECT_TIMEOUT_MS,
  frame,
  ignore,
  JOIN_ALPN,
  JOIN_VERSION,
  REASON_CHARS_MAX,
  receiveMessage,
  signedBytes,
} from './join-message.ts'
import { decodeJoinToken, type JoinToken } from './join-token.ts'
import { stageMember } from './membership-store.ts'

export interface JoinOptions {
  /** As pasted. */
  readonly token: string
  readonly dataDir: string
  readonly name: string
  readonly region: string
  /** Unix milliseconds. */
  readonly nowMs: number
  readonly signal?: AbortSignal
  /** Per address, for TCP and TLS. Default 5 s. */
  readonly connectTimeoutMs?: number
  /** For the inviter's answer. Default 15 s. */
  readonly answerTimeoutMs?: number
}

export interface Joined {
  readonly identity: Identity
  readonly mesh: string
  /** Multiaddrs of members to dial first: those of the token, then those of the answer. */
  readonly overlay: readonly string[]
}

/**
 * Joins the mesh that `token` is for, and writes this node's identity into `dataDir`.
 *
 * The inviter's addresses are tried in order until one proves that it is of this mesh; that one is asked, once.
 * Errors: MeshError, and nothing new is left in `dataDir`. `usage` (names), `data-dir`, `bad-token`, `token-expired`,
 * `token-used`, `join-refused`, `clock-wrong`, `overloaded`, `daemon-unreachable` (nobody answers: each address and
 * why), `not-a-member` (somebody answers who is not of this mesh; it was told nothing), `cancelled`.
 */
export async function joinMesh(options: JoinOptions): Promise<Joined> {
  const { name, region, dataDir, nowMs, signal } = options
  const wrong = wrongNames({ name, region })
  if (wrong !== undefined) throw new MeshError('usage', wrong)
  const token = decodeJoinToken(options.token, nowMs)
  throwIfCancelled(signal)
  const stage = stageMember(dataDir)
  try {
    const { key, keyPem } = createKey()
    const { socket, rootPem } = await connectToInviter(token, options)
    const answer = await ask(socket, token, key, options)
    const files = { keyPem, certificatePem: answer.certificatePem, rootPem }
    const identity = parseAnswer(answer, files, token, options)
    stage.commit(files)
    return { identity, mesh: identity.mesh, overlay: [...new Set([...token.overlay, ...answer.members])] }
  } finally {
    stage.abandon()
  }
}

interface Failure {
  readonly code: 'daemon-unreachable' | 'not-a-member' | 'clock-wrong'
  readonly reason: string
}

/** A socket whose other end has proven to be a member of the token's mesh. Nothing has been sent on it. */
async function connectToInviter(
  token: JoinToken,
  options: JoinOptions,
): Promise<{ socket: TLSSocket; rootPem: string }> {
  const failures: Failure[] = []
  const lines: string[] = []
  for (const address of token.calls) {
    const outcome = await dial(address, token, options)
    throwIfCancelled(options.signal)
    if (outcome.ok) return outcome
    failures.push(outcome.failure)
    lines.push(`${address} (${outcome.failure.reason})`)
  }
  // An impostor or a clock is worth more attention than an address that does not answer.
  const codes = failures.map(failure => failure.code)
  const tried = `tried ${lines.join(', ')}`
  if (codes.includes('not-a-member')) {
    throw new MeshError(
      'not-a-member',
      `expected a daemon of mesh ${token.mesh} (root ${token.rootFingerprint}), found another: ${tried}. ` +
        "It is another mesh's daemon, or somebody in between; it was told nothing, the token is still good. Check the address",
    )
  }
  if (codes.includes('clock-wrong')) {
    throw new MeshError('clock-wrong', `${tried}. Set this machine's clock, or the inviter's, whichever is wrong`)
  }
  throw new MeshError(
    'daemon-unreachable',
    `no daemon of mesh ${token.mesh} answers: ${tried}. ` +
      'Check that the inviting daemon is up and that its call port can be reached from here',
  )
}

type Dialled = { ok: true; socket: TLSSocket; rootPem: string } | { ok: false; failure: Failure }

function dial(address: string, token: JoinToken, options: JoinOptions): Promise<Dialled> {
  const { signal, nowMs } = options
  const timeoutMs = options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS
  const colon = address.lastIndexOf(':')
  const host = address.slice(0, colon).replace(/^\[(.*)\]$/, '$1')
  return new Promise(resolve => {
    const socket = connect({
      host,
      port: Number(address.slice(colon + 1)),
      ALPNProtocols: [JOIN_ALPN],
      minVersion: 'TLSv1.3',
      // No public authority has a say here: the chain is checked against the token's pin below, before anything is sent.
      rejectUnauthorized: false,
    })
    const finish = (dialled: Dialled) => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
      socket.off('secureConnect', onSecure).off('error', onError).off('close', onClose)
      socket.on('error', ignore)
      if (!dialled.ok) socket.destroy()
      resolve(dialled)
    }
    const fail = (code: Failure['code'], reason: string) => finish({ ok: false, failure: { code, reason } })
    const onSecure = () => {
      const checked = checkInviter(socket, token, nowMs)
      if (checked.ok) finish({ ok: true, socket, rootPem: checked.rootPem })
      else finish({ ok: false, failure: checked.failure })
    }
    const onError = (error: Error) => fail('daemon-unreachable', connectReason(error))
    const onClose = () => fail('daemon-unreachable', 'closed the connection')
    const onAbort = () => fail('daemon-unreachable', 'cancelled')
    const timer = setTimeout(() => fail('daemon-unreachable', `no answer within ${timeoutMs} ms`), timeoutMs)
    socket.on('secureConnect', onSecure).on('error', onError).on('close', onClose)
    signal?.addEventListener('abort', onAbort)
    if (signal?.aborted) onAbort()
  })
}

/** Why a connection failed, in words; OpenSSL's own only where there are none better. */
function connectReason(error: Error): string {
  const code = 'code' in error && typeof error.code === 'string' ? error.code : ''
  if (code === 'ECONNREFUSED') return 'connection refused'
  if (code === 'ECONNRESET') return 'closed the connection'
  if (code === 'ENOTFOUND') return 'no such host name'
  if (code === 'ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL') return 'answers, but admits no joiners'
  if (code === 'ERR_SSL_WRONG_VERSION_NUMBER' || code === 'ERR_SSL_PACKET_LENGTH_TOO_LONG') {
    return 'answers, but not with TLS'
  }
  return code === '' ? error.message : code
}

/**
 * Whether the other end is of the token's mesh. By the time TLS is up it has proven the key of the first certificate of
 * its chain; that one must be issued by the root whose fingerprint the token holds, and the root is found in the chain.
 */
function checkInviter(
  socket: TLSSocket,
  token: JoinToken,
  nowMs: number,
): { ok: true; rootPem: string } | { ok: false; failure: Failure } {
  const no = (code: Failure['code'], reason: string) => ({ ok: false, failure: { code, reason } }) as const
  if (socket.alpnProtocol !== JOIN_ALPN) return no('daemon-unreachable', 'answers with TLS, but admits no joiners')
  const leaf = socket.getPeerX509Certificate()
  if (leaf === undefined) return no('not-a-member', 'shows no certificate')
  const root = chainAbove(leaf).find(certificate => rootFingerprint(certificate.raw) === token.rootFingerprint)
  if (root === undefined) return no('not-a-member', 'its certificate is of another root')
  const rootPem = root.toString()
  const verdict = verifyNodeCertificate(leaf.raw, rootPem, nowMs)
  if (!verdict.ok) return no(verdict.code, verdict.reason)
  if (verdict.mesh !== token.mesh) return no('not-a-member', `it is of mesh ${verdict.mesh}`)
  return { ok: true, rootPem }
}

/** The certificates shown above the first. A chain of ours is leaf and root; two more are for the sake of later versions. */
function chainAbove(leaf: X509Certificate): X509Certificate[] {
  const chain: X509Certificate[] = []
  let next = leaf.issuerCertificate
  while (next !== undefined && chain.length < 3) {
    chain.push(next)
    next = next.issuerCertificate
  }
  return chain
}

/** Sends the question, and waits for a yes. Closes the socket. Errors: MeshError with the inviter's code and reason. */
async function ask(
  socket: TLSSocket,
  token: JoinToken,
  key: KeyObject,
  options: JoinOptions,
): Promise<Extract<Answer, { ok: true }>> {
  const { name, region, nowMs, signal } = options
  const onAbort = () => socket.destroy()
  signal?.addEventListener('abort', onAbort)
  try {
    const publicKey = Buffer.from(createPublicKey(key).export({ format: 'jwk' }).x ?? '', 'base64url')
    const signature = sign(null, signedBytes(socket), key)
    const answered = receiveMessage(socket, options.answerTimeoutMs ?? ANSWER_TIMEOUT_MS)
    const { mesh, secret } = token
    socket.write(frame({ v: JOIN_VERSION, secret, publicKey, signature, mesh, name, region, nowMs }))
    const received = await answered
    throwIfCancelled(signal)
    if (!received.ok) {
      throw new MeshError(
        received.ended ? 'daemon-unreachable' : 'join-refused',
        `the inviter gave no usable answer: ${received.reason}. The token may have been used up; ` +
          'try again, and if it has, ask for a new one (flatmesh invite)',
      )
    }
    const parsed = answerShape.safeParse(received.value)
    if (!parsed.success) {
      throw new MeshError('join-refused', "the inviter's answer is of a version this flatmesh does not read")
    }
    if (parsed.data.ok) return parsed.data
    throw new MeshError(parsed.data.code, `the inviter refused: ${printable(parsed.data.reason)}`)
  } finally {
    signal?.removeEventListener('abort', onAbort)
    socket.destroy()
  }
}

/** The identity in a yes, if it is what was asked for. A member issued it, but a member can be broken too. */
function parseAnswer(
  answer: Extract<Answer, { ok: true }>,
  files: { readonly keyPem: string; readonly certificatePem: string; readonly rootPem: string },
  token: JoinToken,
  options: JoinOptions,
): Identity {
  const refuse = (why: string) =>
    new MeshError('join-refused', `the inviter's answer is unusable: ${why}. The token is used up; nothing was written`)
  const root = readRootCertificate(answer.rootPem)
  if (!root.ok || rootFingerprint(answer.rootPem) !== token.rootFingerprint) throw refuse('its root is another one')
  let identity: Identity
  try {
    identity = parseIdentity(options.dataDir, files, options.nowMs)
  } catch (error) {
    throw refuse(messageOf(error))
  }
  if (identity.name !== options.name || identity.region !== options.region) {
    throw refuse(`a certificate for ${identity.name} in ${identity.region}, asked for ${options.name}`)
  }
  return identity
}

/** A peer's words for a terminal: no control characters, and not endless. */
function printable(text: string): string {
  return text.slice(0, REASON_CHARS_MAX).replace(/\p{C}/gu, ' ')
}

function throwIfCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new MeshError('cancelled', 'joining was cancelled; nothing was written')
}
