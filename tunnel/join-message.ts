import type { TLSSocket } from 'node:tls'
import { z } from 'zod'
import type { MeshErrorCode } from '../router/errors.ts'
import { decodeMsgpack, encodeMsgpack } from '../router/msgpack.ts'
import { CLOCK_SKEW_MS } from './certificate.ts'
import { bytesOf, isOverlayAddress, TOKEN_SECRET_BYTES } from './join-token.ts'

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

export const JOIN_VERSION = 1
/** Either message. A question is about 250 bytes and an answer below 12 KiB with every member address at its longest. */
const MESSAGE_BYTES_MAX = 16 * 1024
export const MEMBERS_MAX = 32
/** From accepting a joiner until its question is whole: a slow satellite link needs 2 s. A guess on the long side. */
export const QUESTION_TIMEOUT_MS = 10_000
/** How long an answered joiner may take to read the answer and close. */
export const LINGER_MS = 2_000
/** Per address, for TCP and TLS: a lost first packet costs 1 s, a second one 3 s (RFC 6298). */
export const CONNECT_TIMEOUT_MS = 5_000
/** Longer than the inviter waits for us, so that its reason arrives rather than our impatience. */
export const ANSWER_TIMEOUT_MS = 15_000
/** How far the joiner's clock may be off: a minute less than certificates are back-dated, for the time it all takes. */
export const SKEW_MS_MAX = CLOCK_SKEW_MS - 60_000
export const REASON_CHARS_MAX = 500

/** RFC 5705, section 4: labels for private use begin with EXPERIMENTAL. */
const EXPORTER_LABEL = 'EXPERIMENTAL flatmesh join 1'
const EXPORTER_BYTES = 32
/** Mixed into what the joiner's key signs, so that the signature can never be taken for one of anything else. */
const SIGNING_CONTEXT = 'flatmesh join 1\n'

export const questionShape = z.object({
  v: z.literal(JOIN_VERSION),
  secret: bytesOf(TOKEN_SECRET_BYTES),
  publicKey: bytesOf(32),
  signature: bytesOf(64),
  mesh: z.string().max(63),
  name: z.string().max(63),
  region: z.string().max(63),
  nowMs: z.number(),
})
export type Question = z.infer<typeof questionShape>

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

export const answerShape = z.discriminatedUnion('ok', [
  z.object({
    ok: z.literal(true),
    certificatePem: z.string(),
    rootPem: z.string(),
    members: z.array(z.string().refine(isOverlayAddress)).max(MEMBERS_MAX),
  }),
  z.object({ ok: z.literal(false), code: z.enum(REFUSALS).catch('join-refused'), reason: z.string() }),
])
export type Answer = z.infer<typeof answerShape>
export type Refusal = Extract<Answer, { ok: false }>

/** What is signed. The exporter value belongs to this TLS session alone, and both ends have it. */
export function signedBytes(socket: TLSSocket): Buffer {
  const session = socket.exportKeyingMaterial(EXPORTER_BYTES, EXPORTER_LABEL, Buffer.alloc(0))
  return Buffer.concat([Buffer.from(SIGNING_CONTEXT), session])
}

export function frame(message: Answer | Question): Buffer {
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
export function receiveMessage(socket: TLSSocket, timeoutMs: number): Promise<Received> {
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

export function ignore(): void {}
