import { createPublicKey, type KeyObject, verify } from 'node:crypto'
import type { TLSSocket } from 'node:tls'
import { MeshError, messageOf } from '../router/errors.ts'
import type { Log } from '../router/log.ts'
import type { NodeId } from '../router/model.ts'
import { instant, issueNodeCertificate } from './certificate.ts'
import { type Identity, wrongNames } from './identity.ts'
import {
  type Answer,
  frame,
  ignore,
  LINGER_MS,
  MEMBERS_MAX,
  QUESTION_TIMEOUT_MS,
  type Question,
  questionShape,
  REASON_CHARS_MAX,
  type Refusal,
  receiveMessage,
  SKEW_MS_MAX,
  signedBytes,
} from './join-message.ts'
import { consumeToken, isOverlayAddress } from './join-token.ts'
import {
  appendIssued,
  type RootAuthority,
  readRootAuthority,
  type TokenState,
  tokenName,
  tokenState,
} from './membership-store.ts'
import { nodeIdOfPublicKey } from './peer-identity.ts'

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
    const reason = messageOf(error)
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
