import { STATUS_CODES } from 'node:http'
import { TOO_LARGE } from './h2-connection.ts'
import type { HpackField } from './hpack-table.ts'
import { Http1Fault, type Http1FaultCode, shown } from './http1-fault.ts'
import { HTAB, isToken, SP, VALUE } from './http1-fields.ts'
import { isMethod, isTarget, type RequestHead, type ResponseHead } from './http1-head.ts'
import { HTTP1_LIMITS } from './http1-limits.ts'
import { FieldMeaning, mayTrail, readMeaning } from './http1-semantics.ts'
import { isHost } from './http1-target.ts'

/** What a field is; 0 stands for not looked at. Kept with the field, so that one of a table is judged once. */
const PLAIN = 1
const METHOD = 2
const SCHEME = 3
const PATH = 4
const AUTHORITY = 5
const STATUS = 6
const HOST = 7
const COOKIE = 8
/** Not acceptable in any head. */
const BAD = 9

const PSEUDO: Readonly<Record<string, number>> = {
  ':method': METHOD,
  ':scheme': SCHEME,
  ':path': PATH,
  ':authority': AUTHORITY,
  ':status': STATUS,
}
/** Fields of one HTTP/1 connection; HTTP/2 has its own means (RFC 9113 section 8.2.2). */
const CONNECTION_SPECIFIC = new Set(['connection', 'keep-alive', 'proxy-connection', 'transfer-encoding', 'upgrade'])
const NO_NAMES: readonly string[] = Object.freeze([])

/**
 * A request as the HTTP/1 codec knows it, from the fields of an HTTP/2 head; then everything after is the same for both.
 *
 * Shape: HTTP/1.1, `Host` first, cookies joined (RFC 9113 section 8.2.3); `chunked` when a body of unknown length
 * follows. Or a fault: `head-too-large`, or `bad-request` for what RFC 9113 section 8.1.1 calls malformed.
 * Strict: what an HTTP/1 parser would not take, or could take for something else, is refused here.
 */
export function readH2Request(fields: readonly HpackField[], ended: boolean): RequestHead | Http1Fault {
  if (fields === TOO_LARGE) return tooLarge(`the head is larger than ${HTTP1_LIMITS.headBytesMax} bytes`)
  const pseudo: (string | undefined)[] = []
  const lines: string[] = ['Host', '']
  let host: string | undefined
  let cookieAt = -1
  let isRegular = false
  for (const field of fields) {
    const { name, value } = field
    const kind = field.kind === 0 ? judge(field) : field.kind
    switch (kind) {
      case PLAIN:
        lines.push(name, value)
        break
      case COOKIE:
        if (cookieAt === -1) cookieAt = lines.push(name, value) - 1
        else lines[cookieAt] += `; ${value}`
        break
      case HOST:
        if (host !== undefined) return malformed('host is given twice')
        host = value
        break
      case BAD:
        return malformed(badReason(field))
      case STATUS:
        return malformed(':status is given in a request')
      default:
        if (isRegular) return malformed(`${name} stands after other fields`)
        if (pseudo[kind] !== undefined) return malformed(`${name} is given twice`)
        pseudo[kind] = value
        continue
    }
    isRegular = true
  }
  if (lines.length / 2 > HTTP1_LIMITS.fieldsMax) return tooLarge(`there are more than ${HTTP1_LIMITS.fieldsMax} fields`)
  const { [METHOD]: method = '', [SCHEME]: scheme, [PATH]: path = '', [AUTHORITY]: authority } = pseudo
  if (!isMethod(method)) return malformed(`:method is ${shown(method)}; expected a method in capital letters`)
  if (host !== undefined && authority !== undefined && host.toLowerCase() !== authority.toLowerCase()) {
    return malformed(`:authority is ${shown(authority)} but host is ${shown(host)}; expected the same`)
  }
  const place = authority ?? host ?? ''
  if (place !== '' && !isHost(place)) return malformed(`:authority is ${shown(place)}; expected name or name:port`)
  const target = targetOf(method, scheme, path, place)
  if (typeof target !== 'string') return target
  lines[1] = place
  return requestOf(method, target, place, lines, ended)
}

function targetOf(method: string, scheme: string | undefined, path: string, place: string): string | Http1Fault {
  if (method === 'CONNECT') {
    if (scheme !== undefined || path !== '') return malformed('CONNECT with :scheme or :path')
    return place === '' ? malformed('CONNECT without :authority') : place
  }
  if (scheme !== 'http' && scheme !== 'https') {
    return malformed(`:scheme is ${shown(scheme ?? '')}; expected http or https`)
  }
  if (path === '*' && method === 'OPTIONS') return path
  if (!path.startsWith('/') || !isTarget(path)) {
    return malformed(`:path is ${shown(path)}; expected a path, everything unusual in it escaped`)
  }
  if (path.length > HTTP1_LIMITS.startLineBytesMax - 64) return tooLarge(`:path is ${path.length} bytes long`)
  return path
}

function requestOf(
  method: string,
  target: string,
  host: string,
  fields: string[],
  ended: boolean,
): RequestHead | Http1Fault {
  const meaning = new FieldMeaning()
  const fault = readMeaning(fields, meaning, 11, 'bad-request')
  if (fault !== undefined) return fault
  const { contentLength, expect } = meaning
  if (ended && contentLength > 0) return malformed(`content-length is ${contentLength}, but no body follows`)
  if (expect !== '' && expect.toLowerCase() !== '100-continue') {
    return malformed(`expect is ${shown(expect)}; only 100-continue is understood`)
  }
  const chunked = !ended && contentLength < 0
  if (method === 'CONNECT' && contentLength > 0) return malformed('CONNECT is given a body; it has none')
  return {
    method,
    target,
    version: 11,
    fields,
    host,
    contentLength,
    chunked,
    keepAlive: true,
    upgrade: '',
    expectContinue: expect !== '' && !ended,
    trailersWanted: meaning.trailersWanted,
    connection: NO_NAMES,
    headBytes: 0,
  }
}

/**
 * An answer as the HTTP/1 codec knows it, from the fields of an HTTP/2 head.
 *
 * Shape: as `readH2Request`. `method` is the request's. An answer without a body has length 0, so that its reader can
 * be told the end together with the head: gRPC tells errors like that.
 * Errors: a fault, always `bad-answer`.
 */
export function readH2Response(
  fields: readonly HpackField[],
  method: string,
  ended: boolean,
): ResponseHead | Http1Fault {
  const code = 'bad-answer'
  if (fields === TOO_LARGE) return new Http1Fault(code, `the head is larger than ${HTTP1_LIMITS.headBytesMax} bytes`)
  const lines: string[] = []
  let status = 0
  for (const field of fields) {
    const kind = field.kind === 0 ? judge(field) : field.kind
    if (kind === STATUS) {
      if (status !== 0) return new Http1Fault(code, ':status is given twice')
      if (lines.length > 0) return new Http1Fault(code, ':status stands after other fields')
      if (!/^[1-5]\d\d$/.test(field.value)) return new Http1Fault(code, `:status is ${shown(field.value)}`)
      status = Number(field.value)
    } else if (kind === PLAIN || kind === COOKIE) lines.push(field.name, field.value)
    else if (kind === BAD) return new Http1Fault(code, badReason(field))
    else return new Http1Fault(code, `${field.name} is given in an answer`)
  }
  if (status === 0) return new Http1Fault(code, 'there is no :status')
  if (status === 101) return new Http1Fault(code, ':status is 101, which HTTP/2 has not')
  if (status < 200 && ended) return new Http1Fault(code, `the interim answer ${status} ends the stream`)
  if (lines.length / 2 > HTTP1_LIMITS.fieldsMax) {
    return new Http1Fault(code, `there are more than ${HTTP1_LIMITS.fieldsMax} fields`)
  }
  const meaning = new FieldMeaning()
  const fault = readMeaning(lines, meaning, 11, code)
  if (fault !== undefined) return fault
  const isBodiless = status < 200 || status === 204 || status === 304 || method === 'HEAD'
  let { contentLength } = meaning
  if (contentLength > 0 && (status < 200 || status === 204)) {
    return new Http1Fault(code, `an answer of status ${status} announces a body; it has none`)
  }
  if (ended && !isBodiless) {
    if (contentLength > 0) return new Http1Fault(code, `content-length is ${contentLength}, but no body follows`)
    contentLength = 0
  }
  return {
    status,
    reason: STATUS_CODES[status] ?? '',
    version: 11,
    fields: lines,
    contentLength,
    chunked: contentLength < 0 && !isBodiless,
    keepAlive: true,
    upgrade: '',
    connection: NO_NAMES,
    headBytes: 0,
  }
}

/**
 * Trailers as HTTP/1 lines, each with its line end; or a fault with `code`.
 *
 * Fields that have no place in trailers are a fault in those of a request. Those of an answer are passed on without them,
 * as RFC 9110 section 6.5.1 allows: a service of gRPC that gives its caller's metadata back does no harm.
 */
export function readH2Trailers(fields: readonly HpackField[], code: Http1FaultCode): Buffer | Http1Fault {
  if (fields === TOO_LARGE || fields.length > HTTP1_LIMITS.fieldsMax) {
    return new Http1Fault(code, 'the trailers are too many')
  }
  let text = ''
  for (const field of fields) {
    const kind = field.kind === 0 ? judge(field) : field.kind
    if (kind === BAD) return new Http1Fault(code, `in the trailers: ${badReason(field)}`)
    if (kind === PLAIN && mayTrail(field.name)) text += `${field.name}: ${field.value}\r\n`
    else if (code !== 'bad-answer' || field.name.startsWith(':')) {
      return new Http1Fault(code, `${shown(field.name)} is not allowed in trailers`)
    }
  }
  if (text.length + 2 > HTTP1_LIMITS.trailerBytesMax) {
    return new Http1Fault(code, `the trailers are longer than ${HTTP1_LIMITS.trailerBytesMax} bytes`)
  }
  return Buffer.from(text, 'latin1')
}

function judge(field: HpackField): number {
  const { name } = field
  let kind = BAD
  if (name.startsWith(':')) kind = Object.hasOwn(PSEUDO, name) ? (PSEUDO[name] ?? BAD) : BAD
  else if (isLowerToken(name) && name.length <= HTTP1_LIMITS.nameBytesMax && !CONNECTION_SPECIFIC.has(name)) {
    if (name === 'host') kind = HOST
    else if (name === 'cookie') kind = COOKIE
    else if (name !== 'te' || field.value === 'trailers') kind = PLAIN
  }
  if (!isValue(field.value)) kind = BAD
  field.kind = kind
  return kind
}

function badReason({ name, value }: HpackField): string {
  if (name.startsWith(':') && !Object.hasOwn(PSEUDO, name)) return `there is no ${shown(name)} in HTTP/2`
  if (CONNECTION_SPECIFIC.has(name)) return `${name} belongs to HTTP/1; HTTP/2 must not have it`
  if (name === 'te') return `te is ${shown(value)}; only "trailers" is allowed`
  if (!isValue(value)) return `the value of ${shown(name)} holds a control character, or whitespace at its ends`
  return `the field name ${shown(name)} is not a name in lower case`
}

function isLowerToken(name: string): boolean {
  for (let i = 0; i < name.length; i++) {
    const code = name.charCodeAt(i)
    if (code >= 0x41 && code <= 0x5a) return false
  }
  return isToken(name)
}

function isValue(value: string): boolean {
  for (let i = 0; i < value.length; i++) if (VALUE[value.charCodeAt(i)] !== 1) return false
  const first = value.charCodeAt(0)
  const last = value.charCodeAt(value.length - 1)
  return first !== SP && first !== HTAB && last !== SP && last !== HTAB
}

function malformed(reason: string): Http1Fault {
  return new Http1Fault('bad-request', reason)
}

function tooLarge(reason: string): Http1Fault {
  return new Http1Fault('head-too-large', reason)
}
