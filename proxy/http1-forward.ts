import { invariant } from '../router/errors.ts'
import { type FieldLines, isNamed } from './http1-fields.ts'
import type { RequestHead, ResponseHead } from './http1-head.ts'
import { originForm } from './http1-target.ts'

/** What the owner changes in a head it passes on. */
export interface ForwardChanges {
  /** Lower-case names of fields that are not passed on. */
  readonly drop?: readonly string[]
  /** Field lines put after the others, each ended by CR LF; '' for none. Never framing or hop-by-hop fields. */
  readonly add: string
}

/** How the end of an answer's body is told to the one who reads it, and whether the connection goes on after it. */
export interface AnswerFraming {
  readonly body: 'none' | 'length' | 'chunked' | 'close'
  readonly keepAlive: boolean
}

/**
 * Fields for one hop alone, and those this codec writes itself (RFC 9110 section 7.6.1, plus the ones of old and of
 * HTTP/2's abandoned upgrade). Expect too: 100-continue is settled with the client at the ingress.
 */
export function isHopByHop(name: string): boolean {
  // Most fields are let through by their length alone.
  switch (name.length) {
    case 2:
      return name.toLowerCase() === 'te'
    case 6:
      return name.toLowerCase() === 'expect'
    case 7:
      return name.toLowerCase() === 'upgrade'
    case 10: {
      const lower = name.toLowerCase()
      return lower === 'connection' || lower === 'keep-alive'
    }
    case 14: {
      const lower = name.toLowerCase()
      return lower === 'content-length' || lower === 'http2-settings'
    }
    case 16:
      return name.toLowerCase() === 'proxy-connection'
    case 17:
      return name.toLowerCase() === 'transfer-encoding'
    case 18:
      return name.toLowerCase() === 'proxy-authenticate'
    case 19:
      return name.toLowerCase() === 'proxy-authorization'
    case 25:
      return name.toLowerCase() === 'proxy-authentication-info'
    default:
      return false
  }
}

function isAmong(lowerNames: readonly string[], name: string): boolean {
  for (let i = 0; i < lowerNames.length; i++) if (isNamed(name, lowerNames[i] ?? '')) return true
  return false
}

function isAnyOf(lowerNames: readonly string[], lines: FieldLines, line: number): boolean {
  for (let i = 0; i < lowerNames.length; i++) if (lines.is(line, lowerNames[i] ?? '')) return true
  return false
}

/** Of the names that `isHopByHop` knows, by their length; most fields are let through by that and the first letter. */
const HOP_BY_HOP: readonly (readonly string[])[] = Array.from({ length: 26 }, (_, length) =>
  [
    ...['te', 'expect', 'upgrade', 'connection', 'keep-alive', 'content-length', 'http2-settings', 'proxy-connection'],
    ...['transfer-encoding', 'proxy-authenticate', 'proxy-authorization', 'proxy-authentication-info'],
  ].filter(name => name.length === length && isHopByHop(name)),
)

/** Who does not go on to the other end: hop-by-hop fields, those Connection names, and those the owner drops. */
function isDropped(lines: FieldLines, line: number, { connection, drop }: DropRule): boolean {
  const hopByHop = HOP_BY_HOP[lines.nameLength(line)]
  return (
    (hopByHop !== undefined && hopByHop.length > 0 && isAnyOf(hopByHop, lines, line)) ||
    (connection.length > 0 && isAnyOf(connection, lines, line)) ||
    (drop !== undefined && isAnyOf(drop, lines, line))
  )
}

interface DropRule {
  readonly connection: readonly string[]
  readonly drop: readonly string[] | undefined
}

/** The lines of all fields that go on to the other end, verbatim and in order. */
function endToEnd(
  head: Pick<RequestHead, 'fields' | 'lines' | 'connection'>,
  drop: readonly string[] | undefined,
): string {
  const { lines, connection } = head
  if (lines !== undefined) {
    return lines.kept(isDropped, { connection, drop })
  }
  const { fields } = head
  let text = ''
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] ?? ''
    if (isHopByHop(name) || isAmong(connection, name) || (drop !== undefined && isAmong(drop, name))) continue
    text += `${name}: ${fields[i + 1] ?? ''}\r\n`
  }
  return text
}

/**
 * The head an instance or the next node gets for a request: HTTP/1.1, origin-form, framing written anew.
 *
 * Shape: latin1 text up to and including the empty line. The parser accepts it and reads the same message from it.
 * Errors: none for what a peer sent; a malformed `add` is a bug.
 * Source: RFC 9110 section 7.6, RFC 9112 section 3.2.
 */
export function forwardRequestHead(head: RequestHead, changes: ForwardChanges): Buffer {
  const { method } = head
  checkAdd(changes.add)
  let text = `${method} ${originForm(method, head.target)} HTTP/1.1\r\n`
  const lines = endToEnd(head, changes.drop)
  // HTTP/1.0 may come without; HTTP/1.1 must not, and an empty one says that there is none (RFC 9112 section 3.2).
  if (head.version === 10 && !head.fields.some((name, i) => i % 2 === 0 && name.toLowerCase() === 'host')) {
    text += `Host: ${head.host}\r\n`
  }
  text += lines + changes.add
  if (head.chunked) text += 'Transfer-Encoding: chunked\r\n'
  else if (head.contentLength >= 0) text += `Content-Length: ${head.contentLength}\r\n`
  if (head.upgrade !== '') {
    text += head.trailersWanted ? 'Connection: upgrade, TE\r\nTE: trailers\r\n' : 'Connection: upgrade\r\n'
    text += `Upgrade: ${head.upgrade}\r\n`
  } else if (head.trailersWanted) text += 'Connection: TE\r\nTE: trailers\r\n'
  return Buffer.from(`${text}\r\n`, 'latin1')
}

const FRAMINGS = Object.fromEntries(
  (['none', 'length', 'chunked', 'close'] as const).map(body => [
    body,
    { keep: Object.freeze({ body, keepAlive: true }), close: Object.freeze({ body, keepAlive: false }) },
  ]),
) as Record<AnswerFraming['body'], { keep: AnswerFraming; close: AnswerFraming }>

/**
 * Chooses how the body of an answer is framed for its reader.
 *
 * `method` and `version` are the request's; `keepAlive` is whether both the reader and we would keep the connection.
 * Shape: `close` means the body ends with the connection, so `keepAlive` is false then, whatever was asked for.
 * Source: RFC 9112 section 6.3; an HTTP/1.0 reader does not know chunked.
 */
export function chooseAnswerFraming(
  head: ResponseHead,
  method: string,
  version: 10 | 11,
  keepAlive: boolean,
): AnswerFraming {
  const { status } = head
  let body: AnswerFraming['body']
  if (method === 'HEAD' || status < 200 || status === 204 || status === 304) body = 'none'
  else if (method === 'CONNECT' && status < 300) body = 'none'
  else if (head.contentLength >= 0) body = head.contentLength === 0 ? 'none' : 'length'
  else body = version === 11 ? 'chunked' : 'close'
  return keepAlive && body !== 'close' ? FRAMINGS[body].keep : FRAMINGS[body].close
}

/** As `answerHeadText`, as bytes. */
export function forwardResponseHead(
  head: ResponseHead,
  version: 10 | 11,
  framing: AnswerFraming,
  changes: ForwardChanges,
): Buffer {
  return Buffer.from(answerHeadText(head, version, framing, changes), 'latin1')
}

/**
 * The head of an answer as its reader gets it, with `framing` from `chooseAnswerFraming` for the same reader.
 *
 * Shape: text of latin1 characters up to and including the empty line; always HTTP/1.1 (RFC 9110 section 6.2). Interim answers (1xx) must not be
 * sent to an HTTP/1.0 reader at all: that is the owner's to see to.
 * Errors: none for what a peer sent; a malformed `add` is a bug.
 */
export function answerHeadText(
  head: ResponseHead,
  version: 10 | 11,
  framing: AnswerFraming,
  changes: ForwardChanges,
): string {
  const { status } = head
  checkAdd(changes.add)
  let text = `HTTP/1.1 ${status} ${head.reason}\r\n`
  text += endToEnd(head, changes.drop) + changes.add
  const bodiless = status < 200 || status === 204
  if (framing.body === 'chunked') text += 'Transfer-Encoding: chunked\r\n'
  else if (head.contentLength >= 0 && !bodiless) text += `Content-Length: ${head.contentLength}\r\n`
  // To HEAD, or with 304, it describes the answer a GET would have got.
  else if (head.chunked && version === 11 && !bodiless) text += 'Transfer-Encoding: chunked\r\n'
  if (head.upgrade !== '' && (status === 101 || status === 426)) {
    text += framing.keepAlive || status === 101 ? 'Connection: upgrade\r\n' : 'Connection: close, upgrade\r\n'
    text += `Upgrade: ${head.upgrade}\r\n`
  } else if (status >= 200) {
    if (!framing.keepAlive) text += 'Connection: close\r\n'
    else if (version === 10) text += 'Connection: keep-alive\r\n'
  }
  return `${text}\r\n`
}

function checkAdd(add: string): void {
  invariant(
    add === '' || (add.endsWith('\r\n') && !add.endsWith('\r\n\r\n') && add !== '\r\n'),
    'added fields are lines',
  )
}

/** What follows the data of a chunk. */
export const CHUNK_END = Buffer.from('\r\n', 'latin1')

/** What goes before the data of a chunk of `bytes` bytes; 0 would end the body. */
export function chunkStart(bytes: number): Buffer {
  invariant(bytes > 0, 'an empty chunk ends the body')
  return Buffer.from(`${bytes.toString(16)}\r\n`, 'latin1')
}

/** Below this a chunk is copied into one buffer: one small copy costs less than two more entries in a write. Guess. */
const COPIED_CHUNK_BYTES_MAX = 2048

/** One chunk as buffers to be written in order; big data is passed on as it is, not copied. Empty data gives no buffers. */
export function encodeChunk(data: Buffer): Buffer[] {
  if (data.length === 0) return []
  if (data.length > COPIED_CHUNK_BYTES_MAX) return [chunkStart(data.length), data, CHUNK_END]
  const size = data.length.toString(16)
  const chunk = Buffer.allocUnsafe(size.length + 2 + data.length + 2)
  chunk.write(`${size}\r\n`, 'latin1')
  data.copy(chunk, size.length + 2)
  chunk.write('\r\n', size.length + 2 + data.length, 'latin1')
  return [chunk]
}

const LAST_CHUNK = Buffer.from('0\r\n\r\n', 'latin1')

/** The end of a chunked body. `trailers`: lines as `onTrailers` tells them, checked with `decodeTrailers` if another node sent them. */
export function lastChunk(trailers?: Buffer): Buffer {
  if (trailers === undefined || trailers.length === 0) return LAST_CHUNK
  return Buffer.concat([Buffer.from('0\r\n', 'latin1'), trailers, CHUNK_END])
}
