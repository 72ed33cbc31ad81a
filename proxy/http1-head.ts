import { Http1Fault, type Http1FaultCode, shown } from './http1-fault.ts'
import {
  byteTable,
  CR,
  type FieldLines,
  FieldSpans,
  INCOMPLETE,
  LF,
  SP,
  scanFields,
  TOKEN,
  tooLarge,
  VALUE,
} from './http1-fields.ts'
import { FORWARDED_HTTP1_LIMITS, HTTP1_LIMITS, type Http1Limits } from './http1-limits.ts'
import { FieldMeaning, mayTrail, readLineMeaning } from './http1-semantics.ts'
import { decodeAuthority, isHost, isSameAuthority, splitAbsolute } from './http1-target.ts'

interface MessageHead {
  /** 10 for HTTP/1.0, 11 for HTTP/1.1. */
  readonly version: 10 | 11
  /** name, value, name, value …: original case and order, whitespace around values removed, latin1. */
  readonly fields: readonly string[]
  /** The same, not taken apart yet; undefined for a head that did not come as lines. */
  readonly lines?: FieldLines
  /** -1: not given. */
  readonly contentLength: number
  readonly chunked: boolean
  /** Whether the sender wants the connection kept after this message. */
  readonly keepAlive: boolean
  /** The protocols of an upgrade, as sent; '' for none. Only HTTP/1.1, only when Connection says so, never h2c. */
  readonly upgrade: string
  /** Lower-case names of the fields Connection names, beyond those every proxy removes anyway. */
  readonly connection: readonly string[]
  /** Bytes the head took, its empty line included. */
  readonly headBytes: number
}

export interface RequestHead extends MessageHead {
  readonly method: string
  /** As sent: origin-form, absolute-form, authority-form (CONNECT) or `*` (OPTIONS). */
  readonly target: string
  /** The Host field as sent, else the authority of the target, else ''. */
  readonly host: string
  /** The client waits for `100 Continue` before it sends the body. */
  readonly expectContinue: boolean
  /** The client takes trailers (`TE: trailers`). */
  readonly trailersWanted: boolean
}

export interface ResponseHead extends MessageHead {
  /** 100..599. */
  readonly status: number
  readonly reason: string
}

/** What both kinds of heads have in common when they were read from lines. */
abstract class ReadHead implements MessageHead {
  readonly version: 10 | 11
  readonly contentLength: number
  readonly chunked: boolean
  readonly keepAlive: boolean
  readonly upgrade: string
  readonly connection: readonly string[]
  readonly headBytes: number
  readonly lines: FieldLines

  constructor(lines: FieldLines, meaning: FieldMeaning, version: 10 | 11, upgrade: string, headBytes: number) {
    this.version = version
    this.contentLength = meaning.contentLength
    this.chunked = meaning.chunked
    this.keepAlive = !meaning.close && (version === 11 || meaning.keepAlive)
    this.upgrade = upgrade
    this.connection = meaning.connection
    this.headBytes = headBytes
    this.lines = lines
  }

  get fields(): readonly string[] {
    return this.lines.strings
  }
}

class ReadRequest extends ReadHead implements RequestHead {
  readonly method: string
  readonly target: string
  readonly host: string
  readonly expectContinue: boolean
  readonly trailersWanted: boolean

  constructor(
    lines: FieldLines,
    meaning: FieldMeaning,
    version: 10 | 11,
    upgrade: string,
    headBytes: number,
    method: string,
    target: string,
    host: string,
    expectContinue: boolean,
  ) {
    super(lines, meaning, version, upgrade, headBytes)
    this.method = method
    this.target = target
    this.host = host
    this.expectContinue = expectContinue
    this.trailersWanted = meaning.trailersWanted
  }
}

class ReadResponse extends ReadHead implements ResponseHead {
  readonly status: number
  readonly reason: string

  constructor(
    lines: FieldLines,
    meaning: FieldMeaning,
    version: 10 | 11,
    upgrade: string,
    headBytes: number,
    status: number,
    reason: string,
  ) {
    super(lines, meaning, version, upgrade, headBytes)
    this.status = status
    this.reason = reason
  }
}

/** SP to `~` without SP and `#`: what a target may hold. A fragment is never sent; anything else must be escaped. */
const TARGET = byteTable(byte => byte > SP && byte < 0x7f && byte !== 0x23)
/** tchar without lower-case letters: `get` is not GET, and whoever folds the case reads another request than the rest. */
const METHOD = byteTable(byte => TOKEN[byte] === 1 && !(byte >= 0x61 && byte <= 0x7a))
/** Longest registered method: UPDATEREDIRECTREF, 17. */
const METHOD_BYTES_MAX = 32
const VERSION_PREFIX = Buffer.from('HTTP/1.', 'latin1')

/** Work areas for the process: each is filled and emptied within one synchronous read. */
const spans = new FieldSpans()
const meaning = new FieldMeaning()

export function isMethod(text: string): boolean {
  return text.length <= METHOD_BYTES_MAX && isOf(METHOD, text)
}

export function isTarget(text: string): boolean {
  return isOf(TARGET, text)
}

function isOf(bytes: Uint8Array, text: string): boolean {
  for (let i = 0; i < text.length; i++) if (bytes[text.charCodeAt(i)] !== 1) return false
  return text.length > 0
}

/** Decodes a request head that is there as a whole: `bytes` ends with its empty line. */
export function decodeRequestHead(bytes: Buffer, limits: Http1Limits = HTTP1_LIMITS): RequestHead | Http1Fault {
  return whole(bytes, readRequestHead(bytes, 0, bytes.length, limits), 'bad-request')
}

/** Decodes a response head that is there as a whole: `bytes` ends with its empty line. */
export function decodeResponseHead(bytes: Buffer, limits: Http1Limits = HTTP1_LIMITS): ResponseHead | Http1Fault {
  return whole(bytes, readResponseHead(bytes, 0, bytes.length, limits), 'bad-answer')
}

function whole<H extends MessageHead>(bytes: Buffer, head: H | Http1Fault | undefined, code: Http1FaultCode) {
  if (head === undefined) return new Http1Fault(code, 'the head breaks off before its empty line')
  if (!(head instanceof Http1Fault) && head.headBytes !== bytes.length) {
    return new Http1Fault(code, 'bytes follow the empty line of the head')
  }
  return head
}

/**
 * Decodes the trailer section of a chunked message: field lines and their empty line.
 *
 * Shape: name, value, name, value …, or a fault with `code`.
 * Source: RFC 9110 section 6.5.1; fields that would change framing, routing or trust are refused.
 */
export function decodeTrailers(
  bytes: Buffer,
  code: Http1FaultCode,
  limits: Http1Limits = HTTP1_LIMITS,
): readonly string[] | Http1Fault {
  if (bytes.length > limits.trailerBytesMax) {
    return new Http1Fault(code, `the trailers are longer than ${limits.trailerBytesMax} bytes`)
  }
  const end = scanFields(bytes, 0, bytes.length, limits, spans, code)
  if (typeof end !== 'number') return new Http1Fault(code, `in the trailers: ${end.reason}`)
  if (end !== bytes.length) return new Http1Fault(code, 'the trailers do not end with their empty line')
  const fields = spans.lines(bytes.toString('latin1'), 0).strings
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] ?? ''
    if (!mayTrail(name.toLowerCase())) return new Http1Fault(code, `${shown(name)} is not allowed in trailers`)
  }
  return fields
}

const CRLF = Buffer.from('\r\n')

/** What is wrong with trailer lines that came from another node; undefined: nothing. */
export function forwardedTrailersFault(lines: Buffer, code: Http1FaultCode): string | undefined {
  const decoded = decodeTrailers(Buffer.concat([lines, CRLF]), code, FORWARDED_HTTP1_LIMITS)
  return 'reason' in decoded ? `the trailers from the mesh cannot be read: ${decoded.reason}` : undefined
}

/**
 * Reads one request head from `bytes[from, to)`.
 *
 * Shape: the head, a fault, or undefined when the head is not complete yet. One empty line before it is skipped.
 * Source: RFC 9112 sections 2, 3 and 6; what two parsers could read differently is refused.
 */
export function readRequestHead(
  bytes: Buffer,
  from: number,
  to: number,
  limits: Http1Limits,
): RequestHead | Http1Fault | undefined {
  const code = 'bad-request'
  let at = from
  if (at < to && bytes[at] === CR) {
    if (at + 1 === to) return undefined
    if (bytes[at + 1] !== LF) return new Http1Fault(code, 'a carriage return stands alone before the request line')
    at += 2
  }
  const methodFrom = at
  while (at < to && METHOD[bytes[at] ?? 0] === 1) at++
  if (at === to) return undefined
  const methodTo = at
  if (bytes[at] !== SP || methodTo === methodFrom || methodTo - methodFrom > METHOD_BYTES_MAX) {
    return new Http1Fault(code, methodReason(bytes, methodFrom, methodTo))
  }
  const targetFrom = ++at
  while (at < to && TARGET[bytes[at] ?? 0] === 1) at++
  if (at === to) return undefined
  const targetTo = at
  if (bytes[at] !== SP || targetTo === targetFrom) return new Http1Fault(code, targetReason(bytes, targetFrom, at))
  if (to - at < 11) return undefined
  const version = versionAt(bytes, at + 1)
  if (version === 0 || bytes[at + 9] !== CR || bytes[at + 10] !== LF) {
    const found = shown(bytes.toString('latin1', at + 1, at + 11))
    return new Http1Fault(code, `the request line ends in ${found}; expected HTTP/1.1 or HTTP/1.0 and the line's end`)
  }
  at += 11
  if (at - methodFrom > limits.startLineBytesMax) {
    return tooLarge(code, `the request line is longer than ${limits.startLineBytesMax} bytes`)
  }
  const end = scanFields(bytes, at, to, limits, spans, code)
  if (typeof end !== 'number') return end
  if (end === INCOMPLETE) return undefined
  if (end - from > limits.headBytesMax) return tooLarge(code, `the head is longer than ${limits.headBytesMax} bytes`)
  const text = bytes.toString('latin1', methodFrom, end)
  const method = text.substring(0, methodTo - methodFrom)
  const target = text.substring(targetFrom - methodFrom, targetTo - methodFrom)
  return requestOf(method, target, version, spans.lines(text, methodFrom), end - from)
}

function requestOf(
  method: string,
  target: string,
  version: 10 | 11,
  lines: FieldLines,
  headBytes: number,
): RequestHead | Http1Fault {
  const code = 'bad-request'
  const fault = readLineMeaning(lines, meaning, version, code)
  if (fault !== undefined) return fault
  const host = hostOf(method, target, version, meaning)
  if (typeof host !== 'string') return host
  const hasBody = meaning.chunked || meaning.contentLength > 0
  if (method === 'CONNECT' && hasBody) return new Http1Fault(code, 'CONNECT is given a body; it has none')
  const upgrade = version === 11 && method !== 'CONNECT' ? meaning.upgrade : ''
  if (upgrade !== '' && hasBody) {
    return new Http1Fault(code, `an upgrade to ${shown(upgrade)} comes with a body; send the upgrade without one`)
  }
  let expectContinue = false
  if (meaning.expect !== '' && version === 11) {
    if (meaning.expect.toLowerCase() !== '100-continue') {
      return new Http1Fault(code, `Expect is ${shown(meaning.expect)}; only 100-continue is understood`)
    }
    expectContinue = hasBody
  }
  return new ReadRequest(lines, meaning, version, upgrade, headBytes, method, target, host, expectContinue)
}

/** Judges target and Host together: whoever reads one must come to the same place as whoever reads the other. */
function hostOf(method: string, target: string, version: 10 | 11, meaning: FieldMeaning): string | Http1Fault {
  const code = 'bad-request'
  if (meaning.hosts > 1) return new Http1Fault(code, 'Host is given twice')
  if (meaning.hosts === 0 && version === 11) return new Http1Fault(code, 'Host is missing; HTTP/1.1 requires it')
  const host = meaning.host
  if (host !== '' && !isHost(host)) return new Http1Fault(code, `Host is ${shown(host)}; expected name or name:port`)
  if (method === 'CONNECT') {
    const wanted = decodeAuthority(target)
    if (wanted === undefined || wanted.port < 1) {
      return new Http1Fault(code, `the target of CONNECT is ${shown(target)}; expected host:port`)
    }
    const given = decodeAuthority(host)
    // Clients may leave the port out of Host; whoever gives one must mean the same.
    if (given !== undefined && !isSameAuthority(wanted, given, wanted.port)) return disagreement(target, host)
    return given === undefined && meaning.hosts > 0 ? disagreement(target, host) : target
  }
  if (target.charCodeAt(0) === 0x2f) return host
  if (target === '*') {
    return method === 'OPTIONS' ? host : new Http1Fault(code, 'the target is *, which only OPTIONS may ask for')
  }
  const absolute = splitAbsolute(target)
  if (absolute === undefined) {
    return new Http1Fault(
      code,
      `the target is ${shown(target)}; expected a path, http://host/path or https://host/path`,
    )
  }
  const wanted = decodeAuthority(absolute.authority)
  if (wanted === undefined) {
    return new Http1Fault(code, `the target names the host ${shown(absolute.authority)}; expected name or name:port`)
  }
  if (meaning.hosts === 0) return absolute.authority
  const given = decodeAuthority(host)
  if (given === undefined || !isSameAuthority(wanted, given, absolute.scheme === 'https' ? 443 : 80)) {
    return disagreement(absolute.authority, host)
  }
  return host
}

function disagreement(target: string, host: string): Http1Fault {
  return new Http1Fault(
    'bad-request',
    `the target names ${shown(target)} but Host is ${shown(host)}; expected the same`,
  )
}

/**
 * Reads one response head from `bytes[from, to)`.
 *
 * Shape: the head, a fault (always `bad-answer`), or undefined when the head is not complete yet.
 * Source: RFC 9112 sections 4 and 6. A status line without reason may also lack the space before it: many servers do,
 * and there is only one way to read it.
 */
export function readResponseHead(
  bytes: Buffer,
  from: number,
  to: number,
  limits: Http1Limits,
): ResponseHead | Http1Fault | undefined {
  const code = 'bad-answer'
  // The shortest status line is "HTTP/1.1 200" and its end.
  if (to - from < 14) return undefined
  const version = versionAt(bytes, from)
  const status = statusAt(bytes, from + 9)
  let at = from + 12
  if (version === 0 || bytes[from + 8] !== SP || status === 0 || (bytes[at] !== SP && bytes[at] !== CR)) {
    const found = shown(bytes.toString('latin1', from, from + 14))
    return new Http1Fault(
      code,
      `the answer begins with ${found}; expected HTTP/1.1 or HTTP/1.0 and a status of 100..599`,
    )
  }
  if (bytes[at] === SP) at++
  const reasonFrom = at
  while (at < to && VALUE[bytes[at] ?? 0] === 1) at++
  if (at >= to - 1) return undefined
  if (bytes[at] !== CR || bytes[at + 1] !== LF) {
    return new Http1Fault(code, 'the status line holds a control character or a bare line end')
  }
  const reasonTo = at
  at += 2
  if (at - from > limits.startLineBytesMax) {
    return new Http1Fault(code, `the status line is longer than ${limits.startLineBytesMax} bytes`)
  }
  const end = scanFields(bytes, at, to, limits, spans, code)
  if (typeof end !== 'number') return end
  if (end === INCOMPLETE) return undefined
  if (end - from > limits.headBytesMax) {
    return new Http1Fault(code, `the head is longer than ${limits.headBytesMax} bytes`)
  }
  const text = bytes.toString('latin1', from, end)
  const reason = text.substring(reasonFrom - from, reasonTo - from)
  return responseOf(status, reason, version, spans.lines(text, from), end - from)
}

function responseOf(
  status: number,
  reason: string,
  version: 10 | 11,
  lines: FieldLines,
  headBytes: number,
): ResponseHead | Http1Fault {
  const code = 'bad-answer'
  const fault = readLineMeaning(lines, meaning, version, code)
  if (fault !== undefined) return fault
  // These never have a body; a length that says otherwise is read by some and ignored by others. Zero harms nobody.
  if ((status < 200 || status === 204) && (meaning.chunked || meaning.contentLength > 0)) {
    return new Http1Fault(code, `an answer of status ${status} announces a body; it has none`)
  }
  // The answer that follows would be taken by some for bytes after the end.
  if (status < 200 && status !== 101 && (version === 10 || meaning.close)) {
    return new Http1Fault(code, `an interim answer (${status}) closes the connection, or is of HTTP/1.0`)
  }
  const upgrade = version === 11 ? meaning.upgrade : ''
  if (status === 101 && upgrade === '') {
    return new Http1Fault(code, 'the answer 101 does not say in Connection and Upgrade what it switches to')
  }
  return new ReadResponse(lines, meaning, version, upgrade, headBytes, status, reason)
}

/** Shape: 10, 11, or 0 when `HTTP/1.0` or `HTTP/1.1` is not what stands there. */
function versionAt(bytes: Buffer, at: number): 0 | 10 | 11 {
  for (let i = 0; i < 7; i++) if (bytes[at + i] !== VERSION_PREFIX[i]) return 0
  const minor = bytes[at + 7]
  return minor === 0x31 ? 11 : minor === 0x30 ? 10 : 0
}

/** Shape: 100..599, or 0 when three such digits are not what stands there. */
function statusAt(bytes: Buffer, at: number): number {
  let status = 0
  for (let i = 0; i < 3; i++) {
    const digit = (bytes[at + i] ?? 0) - 0x30
    if (digit < 0 || digit > 9) return 0
    status = status * 10 + digit
  }
  return status >= 100 && status <= 599 ? status : 0
}

function methodReason(bytes: Buffer, from: number, to: number): string {
  const byte = bytes[to] ?? 0
  if (to === from && byte === 0x16) return 'this looks like TLS, but the port speaks plain HTTP; use http:// here'
  if (to - from > METHOD_BYTES_MAX) return `the method is longer than ${METHOD_BYTES_MAX} bytes`
  const found = shown(bytes.toString('latin1', from, to + 1))
  return `the request begins with ${found}; expected a method in capital letters and one space`
}

function targetReason(bytes: Buffer, from: number, at: number): string {
  const byte = bytes[at] ?? 0
  if (at === from) return 'the request line has no target, or more than one space before it'
  if (byte === CR || byte === LF) return 'the request line has no version; expected "METHOD target HTTP/1.1"'
  const target = shown(bytes.toString('latin1', from, Math.min(at, from + 64)))
  return `the target ${target} is followed by ${shown(String.fromCharCode(byte))}; such characters must be escaped`
}
