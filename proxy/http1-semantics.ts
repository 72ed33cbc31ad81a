import { Http1Fault, type Http1FaultCode, shown } from './http1-fault.ts'
import { type FieldLines, isNamed, isToken, listElements } from './http1-fields.ts'

const NO_NAMES: readonly string[] = Object.freeze([])
/** Connection options of one head: more than a handful is not a client at work. Guess. */
const CONNECTION_OPTIONS_MAX = 32

/**
 * Fields that Connection may not name: a hop would strip them, and the next one would judge the message without them.
 *
 * Source: RFC 9110 section 7.6.1 ("options that are intended for all recipients") and the hop-by-hop abuse known since 2019.
 */
const END_TO_END = new Set(
  (
    'host authorization cookie set-cookie set-cookie2 cache-control date age via forwarded location origin referer range ' +
    'server vary etag expires last-modified accept accept-encoding www-authenticate authentication-info max-forwards ' +
    'x-real-ip x-request-id traceparent tracestate baggage user-agent allow trailer retry-after idempotency-key ' +
    'grpc-timeout grpc-status grpc-encoding x-api-key transfer-encoding expect'
  ).split(' '),
)
const END_TO_END_PREFIXES = ['content-', 'x-forwarded-', 'x-flatmesh-', 'access-control-', 'sec-', 'if-'] as const

/** Fields of a trailer section that would change framing, routing or trust after the fact (RFC 9110 section 6.5.1). */
const NOT_IN_TRAILERS = new Set(
  (
    'host connection keep-alive proxy-connection te trailer upgrade transfer-encoding expect max-forwards cache-control ' +
    'authorization proxy-authenticate proxy-authorization proxy-authentication-info www-authenticate cookie set-cookie ' +
    'range http2-settings forwarded'
  ).split(' '),
)

export function mayTrail(lowerName: string): boolean {
  return !(
    NOT_IN_TRAILERS.has(lowerName) ||
    lowerName.startsWith('content-') ||
    lowerName.startsWith('x-forwarded-') ||
    lowerName.startsWith('x-flatmesh-')
  )
}

/** What the fields of one head say about framing and about this hop. */
export class FieldMeaning {
  /** How many Host fields; `host` is the last. */
  hosts = 0
  host = ''
  /** -1: none. */
  contentLength = -1
  chunked = false
  close = false
  keepAlive = false
  upgradeAsked = false
  /** The Upgrade field, whether Connection names it or not. */
  upgradeOffered = ''
  /** TE names `trailers`. */
  trailersWanted = false
  /** The Expect field as sent, '' for none. */
  expect = ''
  /** Lower-case names of fields that Connection names, beyond those every proxy removes. */
  connection: readonly string[] = NO_NAMES

  clear(): void {
    this.hosts = 0
    this.host = ''
    this.contentLength = -1
    this.chunked = false
    this.close = false
    this.keepAlive = false
    this.upgradeAsked = false
    this.upgradeOffered = ''
    this.trailersWanted = false
    this.expect = ''
    this.connection = NO_NAMES
  }

  /** What the protocol upgrade is to, '' for none. h2c is none: a tunnel of requests nobody would look at again. */
  get upgrade(): string {
    if (!this.upgradeAsked || this.upgradeOffered === '') return ''
    for (const protocol of listElements(this.upgradeOffered)) if (/^h2c?$/i.test(protocol)) return ''
    return this.upgradeOffered
  }
}

/**
 * Reads the few fields that frame a message or concern this hop alone; `meaning` is filled.
 *
 * Shape: a fault, or undefined when all is well. `fields`: name, value, name, value ….
 * Source: RFC 9112 section 6 (one length, said once), RFC 9110 sections 7.6 and 7.8.
 */
export function readMeaning(
  fields: readonly string[],
  meaning: FieldMeaning,
  version: 10 | 11,
  code: Http1FaultCode,
): Http1Fault | undefined {
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] ?? ''
    const lower = meaningful(name.length, name.charCodeAt(0) | 0x20)
    if (lower === '' || !isNamed(name, lower)) continue
    const fault = readField(lower, fields[i + 1] ?? '', meaning, code)
    if (fault !== undefined) return fault
  }
  return judgeFraming(meaning, version, code)
}

/** The same for fields that are not taken apart yet; what `meaning` held is forgotten. */
export function readLineMeaning(
  lines: FieldLines,
  meaning: FieldMeaning,
  version: 10 | 11,
  code: Http1FaultCode,
): Http1Fault | undefined {
  meaning.clear()
  for (let line = 0; line < lines.count; line++) {
    const name = meaningful(lines.nameLength(line), lines.initial(line))
    if (name === '' || !lines.is(line, name)) continue
    const fault = readField(name, lines.value(line), meaning, code)
    if (fault !== undefined) return fault
  }
  return judgeFraming(meaning, version, code)
}

/** Which of the eight fields that `readField` knows has a name of this length and first letter; '' for none. */
function meaningful(length: number, initial: number): string {
  switch (length) {
    case 2:
      return initial === 0x74 ? 'te' : ''
    case 4:
      return initial === 0x68 ? 'host' : ''
    case 6:
      return initial === 0x65 ? 'expect' : ''
    case 7:
      return initial === 0x75 ? 'upgrade' : ''
    case 10:
      return initial === 0x63 ? 'connection' : ''
    case 14:
      return initial === 0x63 ? 'content-length' : ''
    case 16:
      return initial === 0x70 ? 'proxy-connection' : ''
    case 17:
      return initial === 0x74 ? 'transfer-encoding' : ''
    default:
      return ''
  }
}

function judgeFraming(meaning: FieldMeaning, version: 10 | 11, code: Http1FaultCode): Http1Fault | undefined {
  if (meaning.chunked && meaning.contentLength >= 0) {
    return new Http1Fault(code, 'both Content-Length and Transfer-Encoding are given; expected one of them')
  }
  if (meaning.chunked && version === 10) {
    return new Http1Fault(code, 'Transfer-Encoding is given in an HTTP/1.0 message; it exists since HTTP/1.1')
  }
  return undefined
}

function readField(name: string, value: string, meaning: FieldMeaning, code: Http1FaultCode): Http1Fault | undefined {
  switch (name) {
    case 'host':
      meaning.hosts++
      meaning.host = value
      return undefined
    case 'content-length':
      return readContentLength(value, meaning, code)
    case 'transfer-encoding':
      if (meaning.chunked) return new Http1Fault(code, 'Transfer-Encoding is given twice')
      if (value.toLowerCase() !== 'chunked') {
        return new Http1Fault(code, `Transfer-Encoding is ${shown(value)}; only "chunked" is understood`)
      }
      meaning.chunked = true
      return undefined
    case 'connection':
      return readConnection(value, meaning, code)
    case 'upgrade':
      if (meaning.upgradeOffered !== '') return new Http1Fault(code, 'Upgrade is given twice')
      if (!isUpgradeList(value)) return new Http1Fault(code, `Upgrade is ${shown(value)}; expected protocol names`)
      meaning.upgradeOffered = value
      return undefined
    case 'expect':
      if (meaning.expect !== '') return new Http1Fault(code, 'Expect is given twice')
      meaning.expect = value
      return undefined
    case 'proxy-connection':
      // Removed from what is passed on; but some parsers take it for Connection, so it may say only what is harmless there.
      if (/^close$/i.test(value)) meaning.close = true
      else if (!/^keep-alive$/i.test(value)) {
        return new Http1Fault(code, `Proxy-Connection is ${shown(value)}; expected keep-alive or close`)
      }
      return undefined
    case 'te':
      if (/(?:^|,)[ \t]*trailers[ \t]*(?:,|$)/i.test(value)) meaning.trailersWanted = true
  }
  return undefined
}

/** Digits only, no leading zero (some parsers would read it as octal), at most 2^53 - 1. */
function readContentLength(value: string, meaning: FieldMeaning, code: Http1FaultCode): Http1Fault | undefined {
  if (meaning.contentLength >= 0) return new Http1Fault(code, 'Content-Length is given twice; expected one, said once')
  let length = 0
  for (let i = 0; i < value.length; i++) {
    const digit = value.charCodeAt(i) - 0x30
    if (digit < 0 || digit > 9) length = Number.NaN
    length = length * 10 + digit
  }
  const leadingZero = value.length > 1 && value.startsWith('0')
  if (value === '' || value.length > 16 || leadingZero || !(length <= Number.MAX_SAFE_INTEGER)) {
    return new Http1Fault(code, `Content-Length is ${shown(value)}; expected one decimal number below 2^53`)
  }
  meaning.contentLength = length
  return undefined
}

function readConnection(value: string, meaning: FieldMeaning, code: Http1FaultCode): Http1Fault | undefined {
  switch (value) {
    case 'keep-alive':
    case 'Keep-Alive':
      meaning.keepAlive = true
      return undefined
    case 'close':
      meaning.close = true
      return undefined
    case 'upgrade':
    case 'Upgrade':
      meaning.upgradeAsked = true
      return undefined
  }
  const options = listElements(value)
  if (options.length + meaning.connection.length > CONNECTION_OPTIONS_MAX) {
    return new Http1Fault(code, `Connection names more than ${CONNECTION_OPTIONS_MAX} options`)
  }
  const names: string[] = []
  for (const option of options) {
    if (!isToken(option)) return new Http1Fault(code, `Connection holds ${shown(option)}; expected option names`)
    const name = option.toLowerCase()
    if (name === 'close') meaning.close = true
    else if (name === 'keep-alive') meaning.keepAlive = true
    else if (name === 'upgrade') meaning.upgradeAsked = true
    else if (END_TO_END.has(name) || END_TO_END_PREFIXES.some(prefix => name.startsWith(prefix))) {
      return new Http1Fault(code, `Connection names ${shown(option)}, a field that must reach the other end`)
    } else names.push(name)
  }
  if (names.length > 0) meaning.connection = meaning.connection.concat(names)
  return undefined
}

/** protocol-name ["/" protocol-version], comma-separated, at least one. */
function isUpgradeList(value: string): boolean {
  const protocols = listElements(value)
  if (protocols.length === 0) return false
  return protocols.every(protocol => {
    const parts = protocol.split('/')
    return parts.length <= 2 && parts.every(isToken)
  })
}
