import { createPublicKey, type KeyObject, sign, verify, type X509Certificate } from 'node:crypto'
import { connect, type TLSSocket } from 'node:tls'
import { z } from 'zod'
import { MeshError, type MeshErrorCode } from '../router/errors.ts'
import type { Log } from '../router/log.ts'
import type { NodeId } from '../router/model.ts'
import { decodeMsgpack, encodeMsgpack } from '../router/msgpack.ts'
import {
  CLOCK_SKEW_MS,
  instant,
  issueNodeCertificate,
  readRootCertificate,
  rootFingerprint,
  verifyNodeCertificate,
} from './certificate.ts'
import { createKey, type Identity, parseIdentity, wrongNames } from './identity.ts'
import {
  bytesOf,
  consumeToken,
  decodeJoinToken,
  isOverlayAddress,
  type JoinToken,
  TOKEN_SECRET_BYTES,
} from './join-token.ts'
import {
  appendIssued,
  type RootAuthority,
  readRootAuthority,
  stageMember,
  type TokenState,
  tokenName,
  tokenState,
} from './membership-store.ts'
import { nodeIdOfPublicKey } from './peer-identity.ts'

/**
 * How a node becomes a member: one question and one answer over TLS 1.3, on the call port of the node that invited it.
 *
 * The joiner (`joinMesh`) has a token; the token pins the mesh's root. It connects without a certificate, and says
 * nothing before the other end has proven, in the TLS handshake, a node certificate that this very root issued. So an
 * impostor never learns the secret. Then it sends secret, names and public key, signed by that key over a value that
 * only the two ends of this TLS session share, so that the question cannot be replayed in another.
 * The inviter (`serveJoin`) checks all of it, uses the token up, issues the certificate, and answers.
 *
 * A message is a length (4 bytes, big-endian) and a msgpack map. Each side sends one and closes.
 *
 * What the call port must do: offer `JOIN_ALPN` beside its own protocol; present the root in its chain (`cert` is
 * `certificateChainPem(identity)`; with `ca` set to the root OpenSSL adds it by itself); TLS 1.3 only; and `requestCert` without `rejectUnauthorized`, since a joiner has no certificate
 * yet. It must therefore check certificates itself, and hand sockets whose `alpnProtocol` is `JOIN_ALPN` to `serveJoin`
 * before that check, in the very turn in which `secureConnection` is told.
 */
export const JOIN_ALPN = 'flatmesh-join/1'

const JOIN_VERSION = 1
/** Either message. A question is about 250 bytes and an answer below 12 KiB with every member address at its longest. */
const MESSAGE_BYTES_MAX = 16 * 1024
const MEMBERS_MAX = 32
/** From accepting a joiner until its question is whole: a slow satellite link needs 2 s. A guess on the long side. */
const QUESTION_TIMEOUT_MS = 10_000
/** How long an answered joiner may take to read the answer and close. */
const LINGER_MS = 2_000
/** Per address, for TCP and TLS: a lost first packet costs 1 s, a second one 3 s (RFC 6298). */
const CONNECT_TIMEOUT_MS = 5_000
/** Longer than the inviter waits for us, so that its reason arrives rather than our impatience. */
const ANSWER_TIMEOUT_MS = 15_000
/** How far the joiner's clock may be off: a minute less than certificates are back-dated, for the time it all takes. */
const SKEW_MS_MAX = CLOCK_SKEW_MS - 60_000
const REASON_CHARS_MAX = 500

/** RFC 5705, section 4: labels for private use begin with EXPERIMENTAL. */
const EXPORTER_LABEL = 'EXPERIMENTAL flatmesh join 1'
const EXPORTER_BYTES = 32
/** Mixed into what the joiner's key signs, so that the signature can never be taken for one of anything else. */
const SIGNING_CONTEXT = 'flatmesh join 1\n'

const questionShape = z.object({
  v: z.literal(JOIN_VERSION),
  secret: bytesOf(TOKEN_SECRET_BYTES),
  publicKey: bytesOf(32),
  signature: bytesOf(64),
  mesh: z.string().max(63),
  name: z.string().max(63),
  region: z.string().max(63),
  nowMs: z.number(),
})
type Question = z.infer<typeof questionShape>

/** The ways an inviter says no. */
const REFUSALS = [
  'bad-frame',
  'bad-token',
  'token-used',
  'token-expired',
  'join-refused',
  'clock-wrong',
  'overloaded',
  'data-dir',
  'internal',
] as const satisfies readonly MeshErrorCode[]

const answerShape = z.discriminatedUnion('ok', [
  z.object({
    ok: z.literal(true),
    certificatePem: z.string(),
    rootPem: z.string(),
    members: z.array(z.string().refine(isOverlayAddress)).max(MEMBERS_MAX),
  }),
  z.object({ ok: z.literal(false), code: z.enum(REFUSALS).catch('join-refused'), reason: z.string() }),
])
type Answer = z.infer<typeof answerShape>
type Refusal = Extract<Answer, { ok: false }>

/** What is signed. The exporter value belongs to this TLS session alone, and both ends have it. */
function signedBytes(socket: TLSSocket): Buffer {
  const session = socket.exportKeyingMaterial(EXPORTER_BYTES, EXPORTER_LABEL, Buffer.alloc(0))
  return Buffer.concat([Buffer.from(SIGNING_CONTEXT), session])
}

function frame(message: Answer | Question): Buffer {
  const body = encodeMsgpack(message)
  const head = Buffer.alloc(4)
  head.writeUInt32BE(body.length)
  return Buffer.concat([head, body])
}

type Received = { ok: true; value: unknown } | { ok: false; ended: boolean; reason: string }

/**
 * The one message of the other end. Holds at most `MESSAGE_BYTES_MAX`, for at most `timeoutMs`; never rejects.
 * What follows the message is read and dropped, so that a close is noticed.
 */
function receiveMessage(socket: TLSSocket, timeoutMs: number): Promise<Received> {
  return new Promise(resolve => {
    let held: Buffer = Buffer.alloc(0)
    const finish = (received: Received) => {
      clearTimeout(timer)
      socket.off('data', onData).off('end', onEnd).off('close', onEnd).off('error', onError)
      socket.on('error', ignore)
      socket.resume()
      resolve(received)
    }
    const onData = (chunk: Buffer) => {
      held = held.length === 0 ? chunk : Buffer.concat([held, chunk])
      if (held.length < 4) return
      const length = held.readUInt32BE(0)
      if (length > MESSAGE_BYTES_MAX) {
        finish({ ok: false, ended: false, reason: `a message of ${length} bytes, at most ${MESSAGE_BYTES_MAX}` })
      } else if (held.length >= 4 + length) {
        const decoded = decodeMsgpack(held.subarray(4, 4 + length))
        finish(decoded.ok ? decoded : { ok: false, ended: false, reason: decoded.reason })
      }
    }
    const onEnd = () => finish({ ok: false, ended: true, reason: 'the connection was closed before a whole message' })
    const onError = (error: Error) => finish({ ok: false, ended: true, reason: error.message })
    const timer = setTimeout(
      () => finish({ ok: false, ended: false, reason: `no whole message within ${timeoutMs} ms` }),
      timeoutMs,
    )
    socket.on('data', onData).on('end', onEnd).on('close', onEnd).on('error', onError)
    if (socket.destroyed) onEnd()
  })
}

function ignore(): void {}

// ---------------------------------------------------------------------------------------------- the inviter

/**
 * What joining may cost a daemon, shared by all its sockets. Each attempt that fails counts.
 *
 * Guessing a secret is hopeless in any case; what is limited is the work and the log lines that strangers can cause.
 * Whoever uses the limit up keeps others from joining for that minute: joining only, the mesh itself goes on.
 */
export class JoinLimit {
  readonly #failuresPerMinuteMax: number
  readonly #openMax: number
  #open = 0
  #failures = 0
  #minuteBeganAtMs = Number.NEGATIVE_INFINITY

  /**
   * `failuresPerMinuteMax` (30): a dozen people mistyping at once stay below it. A guess.
   * `openMax` (32): attempts at the same time, so at most 512 KiB held for strangers; a fleet of 32 may join at once.
   */
  constructor(options: { readonly failuresPerMinuteMax?: number; readonly openMax?: number } = {}) {
    this.#failuresPerMinuteMax = options.failuresPerMinuteMax ?? 30
    this.#openMax = options.openMax ?? 32
  }

  /** A reason to turn an attempt away, or undefined: then it counts as open until `leave`. */
  enter(nowMs: number): string | undefined {
    this.#turn(nowMs)
    if (this.#failures >= this.#failuresPerMinuteMax) {
      return `${this.#failures} attempts to join failed within a minute; try again in a minute`
    }
    if (this.#open >= this.#openMax) return `${this.#open} nodes are joining at this moment; try again`
    this.#open++
    return undefined
  }

  leave(failed: boolean, nowMs: number): void {
    this.#open--
    this.#turn(nowMs)
    if (failed) this.#failures++
  }

  #turn(nowMs: number): void {
    const passedMs = nowMs - this.#minuteBeganAtMs
    if (passedMs >= 0 && passedMs < 60_000) return
    this.#minuteBeganAtMs = nowMs
    this.#failures = 0
  }
}

export interface JoinDeps {
  readonly dataDir: string
  readonly identity: Identity
  readonly log: Log
  /** One per daemon. */
  readonly limit: JoinLimit
  /** Who has this name already, in words for the joiner's screen (such as `node 12D3… in gcp-europe-west3`), or undefined. */
  readonly nameTaken: (name: string, nodeId: NodeId) => string | undefined
  /** Multiaddrs of members that a new node can dial, best first, with their `/p2p/` part where it is known. */
  readonly members: () => readonly string[]
  /** Unix milliseconds. */
  readonly clock: () => number
}

/**
 * Answers one joiner on a TLS socket that negotiated `JOIN_ALPN`, and closes it.
 *
 * Units: `questionTimeoutMs` is how long the joiner may take to ask.
 * Errors: none; never rejects. What is wrong goes to the joiner and, as `join refused`, to the log.
 */
export async function serveJoin(
  deps: JoinDeps,
  socket: TLSSocket,
  options: { readonly questionTimeoutMs?: number } = {},
): Promise<void> {
  const { log, limit, clock } = deps
  const remote = socket.remoteAddress ?? 'unknown'
  socket.on('error', ignore)
  if (socket.destroyed) return
  const full = limit.enter(clock())
  if (full !== undefined) {
    // Not worth a line each: whoever caused it already has `failuresPerMinuteMax` of them.
    log.debug({ code: 'overloaded', reason: full, remote }, 'join refused')
    answerAndClose(socket, no('overloaded', full))
    return
  }
  let failed = true
  try {
    const signed = signedBytes(socket) // now: a joiner that leaves early takes the session with it
    const received = await receiveMessage(socket, options.questionTimeoutMs ?? QUESTION_TIMEOUT_MS)
    const answer = received.ok
      ? admit(deps, { value: received.value, signed, remote })
      : no('bad-frame', received.reason)
    failed = !answer.ok
    if (!answer.ok) log.warn({ code: answer.code, reason: answer.reason, remote }, 'join refused')
    answerAndClose(socket, answer)
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    const code = error instanceof MeshError && error.code === 'data-dir' ? 'data-dir' : 'internal'
    log.error({ code, reason, remote }, 'join failed here')
    answerAndClose(socket, no(code, 'the inviting node could not do its part; its log says why'))
  } finally {
    limit.leave(failed, clock())
  }
}

function answerAndClose(socket: TLSSocket, answer: Answer): void {
  if (socket.destroyed) return
  const timer = setTimeout(() => socket.destroy(), LINGER_MS)
  socket.once('close', () => clearTimeout(timer))
  socket.resume()
  socket.end(frame(answer))
}

function no(code: Refusal['code'], reason: string): Refusal {
  return { ok: false, code, reason: reason.slice(0, REASON_CHARS_MAX) }
}

/**
 * The answer to a question; where it is yes, the token is used up and the certificate is on record.
 * The token is looked at first, so that who has none learns nothing else, and used up last, so that a joiner with a
 * wrong name or clock can mend it and come again with the same one.
 * Errors: MeshError `data-dir` if this node's own files fail.
 */
function admit(deps: JoinDeps, asked: { value: unknown; signed: Buffer; remote: string }): Answer {
  const { dataDir, identity } = deps
  const nowMs = deps.clock()
  const parsed = questionShape.safeParse(asked.value)
  if (!parsed.success) {
    return no(
      'bad-frame',
      `the question to join is malformed at ${parsed.error.issues[0]?.path.join('.') || 'its top'}`,
    )
  }
  const question = parsed.data
  const state = tokenState(dataDir, question.secret, nowMs)
  if (state !== 'ok') return noToken(state)
  const publicKey = publicKeyOfRaw(question.publicKey)
  if (publicKey === undefined || !verify(null, asked.signed, publicKey, question.signature)) {
    return no('join-refused', 'the joiner did not prove that it holds the key it wants a certificate for')
  }
  const refusal = judge(deps, question, nodeIdOfPublicKey(publicKey), nowMs)
  if (refusal !== undefined) return refusal

  const root = readRootAuthority(dataDir)
  if (root.mesh !== identity.mesh)
    return no('data-dir', `the root in the inviter's data folder is of mesh ${root.mesh}`)
  const taken = consumeToken(dataDir, question.secret, nowMs)
  if (taken !== 'ok') return noToken(taken)
  return issue(deps, root, question, publicKey, nowMs, asked.remote)
}

/** Whether the question, coming from who it says, may be granted; undefined if so. */
function judge(deps: JoinDeps, question: Question, nodeId: NodeId, nowMs: number): Refusal | undefined {
  const { identity } = deps
  if (question.mesh !== identity.mesh) return no('join-refused', `this node is of mesh ${identity.mesh}`)
  const wrong = wrongNames(question)
  if (wrong !== undefined) return no('join-refused', wrong)
  if (!(Math.abs(nowMs - question.nowMs) <= SKEW_MS_MAX)) {
    const clocks = `${instant(nowMs)} at the inviter ${identity.name}, ${instant(question.nowMs)} at the joiner`
    return no(
      'clock-wrong',
      `the clocks differ by more than ${SKEW_MS_MAX / 60_000} minutes: ${clocks}; set the wrong one`,
    )
  }
  if (nodeId === identity.nodeId) return no('join-refused', "this is the inviter's own key")
  const holder =
    question.name === identity.name
      ? `the inviter itself, node ${identity.nodeId} in ${identity.region}`
      : deps.nameTaken(question.name, nodeId)
  if (holder === undefined) return undefined
  return no('join-refused', `the name ${question.name} is taken by ${holder}; choose another (--node)`)
}

function noToken(state: Exclude<TokenState, 'ok'>): Refusal {
  switch (state) {
    case 'token-used':
      return no(state, 'the token has been used: it admits one node; ask for a new one (flatmesh invite)')
    case 'token-expired':
      return no(state, 'the token has expired; ask for a new one (flatmesh invite)')
    case 'bad-token':
      return no(state, 'the inviter does not know this token: it issued none such, or it expired some time ago')
  }
}

/** The certificate goes on record before it leaves. */
function issue(
  deps: JoinDeps,
  root: RootAuthority,
  question: Question,
  publicKey: KeyObject,
  nowMs: number,
  remote: string,
): Answer {
  const { name, region } = question
  const { certificatePem, serial, expiresAtMs } = issueNodeCertificate(root, { name, region, publicKey }, nowMs)
  const node = nodeIdOfPublicKey(publicKey)
  const token = tokenName(question.secret)
  appendIssued(deps.dataDir, { atMs: nowMs, serial, node, name, region, expiresAtMs, token, remote })
  deps.log.info({ joined: node, name, joinedRegion: region, serial, remote }, 'node joined')
  const members = deps.members().filter(isOverlayAddress).slice(0, MEMBERS_MAX)
  return { ok: true, certificatePem, rootPem: root.certificatePem, members }
}

/** An Ed25519 public key from its 32 bytes (RFC 8032), or undefined. */
function publicKeyOfRaw(raw: Uint8Array): KeyObject | undefined {
  try {
    const x = Buffer.from(raw).toString('base64url')
    return createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' })
  } catch {
    return undefined
  }
}

// ---------------------------------------------------------------------------------------------- the joiner

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
    throw refuse(error instanceof Error ? error.message : String(error))
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
