/**
 * Whole numbers below `n`, the same ones for the same seed.
 *
 * Source: xorshift with 32 bits of state (Marsaglia 2003). Neighbouring seeds are spread first, and the first numbers
 * thrown away, because cases are numbered in sequence.
 */
export function seededBelow(seed: number): (n: number) => number {
  let state = Math.imul(seed + 1, 0x9e3779b1) | 0 || 1
  const below = (n: number): number => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return Math.floor(((state >>> 0) / 4_294_967_296) * n)
  }
  for (let i = 0; i < 8; i++) below(1)
  return below
}

/** `evil`: the case may hold what must be refused; half of the cases are good, so that both get far. */
export interface Chance {
  readonly below: (n: number) => number
  readonly evil: boolean
}

const METHODS = [
  'GET',
  'GET',
  'POST',
  'POST',
  'PUT',
  'DELETE',
  'HEAD',
  'OPTIONS',
  'PATCH',
  'CONNECT',
  'PROPFIND',
  'get',
  'G T',
  '',
] as const
const TARGETS = [
  '/',
  '/a/b?c=d&e=%20',
  '//x',
  '/?',
  '/a|b"{}\\^`',
  'http://a.mesh/x',
  'http://a.mesh',
  'HTTPS://A.mesh:443?q',
  '*',
  'a.mesh:80',
  '/a#b',
  'a',
  'http://u@a.mesh/',
  '/\xe9',
] as const
const HOSTS = ['a.mesh', 'a.mesh', 'a.mesh', 'A.mesh:80', 'a.mesh:443', '[::1]:80', '', 'b c', 'a,b'] as const
const FIELDS = [
  'X: y',
  'Accept: */*',
  'X-Empty:',
  'X-Wide: \t a  b \t ',
  'Cookie: a=b; c=d',
  'X-Obs: caf\xe9\xff',
  'User-Agent: fuzz/1.0 (x; y)',
  'Connection: keep-alive',
  'Connection: close',
  'Connection: X, keep-alive',
  'Connection: close, host',
  'Keep-Alive: timeout=5',
  'TE: trailers',
  'TE: gzip, trailers;q=1',
  'Expect: 100-continue',
  'Upgrade: websocket',
  'Connection: Upgrade',
  'Upgrade: h2c',
  'Proxy-Connection: close',
  'Transfer-Encoding : chunked',
  'X : y',
  ' folded',
  'NoColon',
  ': none',
  'X: a\0b',
  'X: a\rb',
  'X\xe9: y',
  'Content-Length: 3',
  'Transfer-Encoding: chunked',
  'Trailer: X',
  'Set-Cookie: a=b',
  'Content-Type: text/plain',
  'Date: x',
  "!#$%&'*+-.^_`|~9: z",
] as const
const LENGTHS = ['3', '3', '3', '0', '03', '+3', '3,3', '3 ', '0x3', '', '9999999999999999'] as const
const CODINGS = [
  'chunked',
  'chunked',
  'chunked',
  'Chunked',
  'chunked ',
  'chunked\t',
  '\tchunked',
  'gzip, chunked',
  'identity',
  'chunked, chunked',
  'xchunked',
  '',
] as const
const CHUNK_LINES = [
  '3',
  '3',
  '3',
  '03',
  '3;a=b',
  '3;a="b;\\"c"',
  '3;a',
  '3 ',
  ' 3',
  '0x3',
  '3;',
  '3;=',
  '3;a=',
  '-3',
  '4',
  '3;a="b',
] as const
const TRAILERS = ['', '', '', 'X: y\r\n', 'X: y\r\nZ:\r\n', 'Content-Length: 3\r\n', 'X : y\r\n'] as const
const LINE_ENDS = ['\n', '\r', '\r\r\n', '\n\r', ''] as const
const INTERIM = [
  'HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n',
  'HTTP/1.0 100 Continue\r\n\r\n',
  'HTTP/1.1 100 C\r\nConnection: close\r\n\r\n',
  'HTTP/1.1 102 P\r\nContent-Length: 0\r\n\r\n',
] as const
const STATUSES = [
  '200 OK',
  '200 OK',
  '200',
  '204 No Content',
  '304 Not Modified',
  '404 Not Found',
  '100 Continue',
  '103 Hints',
  '101 Switch',
  '500 \xe9',
  '600 X',
  '20 X',
  '200OK',
] as const
const NASTY = Buffer.from('\r\n\0 \t:,;=-+0123456789abcdefxX"\\/#\x0b\x0c\x7f\x80\xa0\xff', 'latin1')

function pick<T>(below: (n: number) => number, from: readonly [T, ...T[]]): T {
  return from[below(from.length)] ?? from[0]
}

function lineEnd(chance: Chance): string {
  return chance.evil && chance.below(80) === 0 ? pick(chance.below, LINE_ENDS) : '\r\n'
}

function generateFields(chance: Chance, startOfLine: string): string {
  let text = startOfLine
  for (let i = chance.below(5); i > 0; i--) {
    // The first seven are harmless: most messages should get far.
    const field = !chance.evil || chance.below(3) > 0 ? FIELDS[chance.below(7)] : pick(chance.below, FIELDS)
    text += `${field}${lineEnd(chance)}`
  }
  return text
}

function generateBody(chance: Chance): { fields: string; body: string } {
  switch (chance.below(5)) {
    case 0:
      return {
        fields: `Content-Length: ${chance.evil ? pick(chance.below, LENGTHS) : '3'}${lineEnd(chance)}`,
        body: 'abc',
      }
    case 1:
    case 2: {
      let body = ''
      for (let i = chance.below(4); i > 0; i--) {
        const line = !chance.evil || chance.below(3) > 0 ? '3' : pick(chance.below, CHUNK_LINES)
        body += `${line}${lineEnd(chance)}a\nc${lineEnd(chance)}`
      }
      const coding = !chance.evil || chance.below(3) > 0 ? 'chunked' : pick(chance.below, CODINGS)
      body += `0${lineEnd(chance)}${chance.evil ? pick(chance.below, TRAILERS) : TRAILERS[chance.below(5)]}${lineEnd(chance)}`
      return { fields: `Transfer-Encoding: ${coding}${lineEnd(chance)}`, body }
    }
    default:
      return { fields: '', body: '' }
  }
}

export function generateRequest(chance: Chance): string {
  const plain = !chance.evil || chance.below(2) === 0
  const method = plain ? METHODS[chance.below(7)] : pick(chance.below, METHODS)
  const target = plain ? TARGETS[chance.below(5)] : pick(chance.below, TARGETS)
  const version =
    !chance.evil || chance.below(8) > 0
      ? 'HTTP/1.1'
      : pick(chance.below, ['HTTP/1.0', 'HTTP/1.0', 'HTTP/1.2', 'HTTP/1', 'http/1.1'])
  const host =
    chance.evil && chance.below(12) === 0
      ? ''
      : `Host: ${chance.evil ? pick(chance.below, HOSTS) : 'a.mesh'}${lineEnd(chance)}`
  const { fields, body } = generateBody(chance)
  const start = chance.below(30) === 0 ? '\r\n' : ''
  return `${start}${generateFields(chance, `${method} ${target} ${version}${lineEnd(chance)}${host}`)}${fields}${lineEnd(chance)}${body}`
}

export function generateResponse(chance: Chance): string {
  let text = ''
  if (chance.below(8) === 0) text += chance.evil ? pick(chance.below, INTERIM) : 'HTTP/1.1 100 Continue\r\n\r\n'
  const version =
    !chance.evil || chance.below(8) > 0
      ? 'HTTP/1.1'
      : pick(chance.below, ['HTTP/1.0', 'HTTP/1.0', 'HTTP/1.2', 'HTTP/2.0'])
  const { fields, body } = generateBody(chance)
  const status = !chance.evil || chance.below(2) === 0 ? '200 OK' : pick(chance.below, STATUSES)
  text += generateFields(chance, `${version} ${status}${lineEnd(chance)}`)
  return `${text}${fields}${lineEnd(chance)}${body}${chance.evil && chance.below(6) === 0 ? 'rest' : ''}`
}

/** Most cases are left as they are; the others get one to three bytes changed, put in, taken out or doubled. */
export function mutate(bytes: Buffer, { below, evil }: Chance): Buffer {
  if (!evil || below(3) > 0 || bytes.length === 0) return bytes
  let text = bytes.toString('latin1')
  for (let i = below(3); i >= 0; i--) {
    const at = below(text.length)
    const byte = String.fromCharCode(below(2) === 0 ? (NASTY[below(NASTY.length)] ?? 0) : below(256))
    const style = below(4)
    if (style === 0) text = `${text.slice(0, at)}${byte}${text.slice(at + 1)}`
    else if (style === 1) text = `${text.slice(0, at)}${byte}${text.slice(at)}`
    else if (style === 2) text = text.slice(0, at) + text.slice(at + 1)
    else text = text.slice(0, at) + text.slice(at, at + 20) + text.slice(at)
  }
  return Buffer.from(text, 'latin1')
}
