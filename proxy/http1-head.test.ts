import { describe, expect, it } from 'vitest'
import { Http1Fault, shown } from './http1-fault.ts'
import { fieldValue } from './http1-fields.ts'
import {
  decodeRequestHead,
  decodeResponseHead,
  decodeTrailers,
  type RequestHead,
  type ResponseHead,
} from './http1-head.ts'
import { FORWARDED_HTTP1_LIMITS, HTTP1_LIMITS } from './http1-limits.ts'
import { originForm } from './http1-target.ts'

function request(text: string): RequestHead {
  const head = decodeRequestHead(Buffer.from(text, 'latin1'))
  if (head instanceof Http1Fault) throw new Error(head.reason)
  return head
}

function response(text: string): ResponseHead {
  const head = decodeResponseHead(Buffer.from(text, 'latin1'))
  if (head instanceof Http1Fault) throw new Error(head.reason)
  return head
}

function faultOf(text: string): Http1Fault {
  const head = decodeRequestHead(Buffer.from(text, 'latin1'))
  if (head instanceof Http1Fault) return head
  throw new Error('the head was accepted')
}

describe('a request head', () => {
  it('is read whole: fields keep case and order, whitespace around values goes', () => {
    const text =
      'POST /a?b HTTP/1.1\r\nhOsT: orders.mesh\r\nX-Two: \t a  b \t\r\nx-two:c\r\nX-Empty:\r\nContent-Length: 12\r\n\r\n'
    expect(request(text)).toMatchObject({
      method: 'POST',
      target: '/a?b',
      version: 11,
      fields: ['hOsT', 'orders.mesh', 'X-Two', 'a  b', 'x-two', 'c', 'X-Empty', '', 'Content-Length', '12'],
      host: 'orders.mesh',
      contentLength: 12,
      chunked: false,
      keepAlive: true,
      upgrade: '',
      expectContinue: false,
      trailersWanted: false,
      connection: [],
      headBytes: text.length,
    })
  })

  it('gives the first of several values of a field, whatever the case of its name', () => {
    const { fields } = request('GET / HTTP/1.1\r\nHost: a\r\nX-A: one\r\nx-a: two\r\n\r\n')
    expect(fieldValue(fields, 'x-a')).toBe('one')
    expect(fieldValue(fields, 'x-b')).toBeUndefined()
    // A value that looks like the name must not be taken for it.
    expect(fieldValue(['a', 'x-b', 'c', 'd'], 'x-b')).toBeUndefined()
  })

  it.each([
    ['HTTP/1.1', '', true],
    ['HTTP/1.1', 'Connection: close\r\n', false],
    ['HTTP/1.1', 'Connection: keep-alive, CLOSE\r\n', false],
    ['HTTP/1.1', 'Connection: keep-alive\r\nConnection: close\r\n', false],
    ['HTTP/1.1', 'Connection: x-close\r\n', true],
    ['HTTP/1.1', 'Proxy-Connection: close\r\n', false],
    ['HTTP/1.0', '', false],
    ['HTTP/1.0', 'Connection: Keep-Alive\r\n', true],
    ['HTTP/1.0', 'Connection: , keep-ALIVE ,\r\n', true],
    ['HTTP/1.0', 'Connection: keep-alive, close\r\n', false],
  ])('keeps or closes the connection as %s %j asks', (version, lines, keepAlive) => {
    expect(request(`GET / ${version}\r\nHost: a\r\n${lines}\r\n`).keepAlive).toBe(keepAlive)
  })

  it.each([
    ['Connection: upgrade\r\nUpgrade: websocket\r\n', 'websocket'],
    ['Upgrade: foo/2, bar\r\nConnection: keep-alive, Upgrade\r\n', 'foo/2, bar'],
    ['Upgrade: websocket\r\n', ''],
    ['Connection: upgrade\r\n', ''],
    ['Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\n', ''],
    ['Connection: upgrade\r\nUpgrade: websocket, H2C\r\n', ''],
  ])('sees an upgrade only where %j means one', (lines, upgrade) => {
    expect(request(`GET / HTTP/1.1\r\nHost: a\r\n${lines}\r\n`).upgrade).toBe(upgrade)
  })

  it('has no upgrade in HTTP/1.0', () => {
    expect(request('GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n').upgrade).toBe('')
  })

  it.each([
    ['HTTP/1.1', 'Content-Length: 3\r\n', true],
    ['HTTP/1.1', 'Transfer-Encoding: chunked\r\n', true],
    ['HTTP/1.1', 'Content-Length: 0\r\n', false],
    ['HTTP/1.1', '', false],
    ['HTTP/1.0', 'Content-Length: 3\r\n', false],
  ])('waits for 100 Continue only if a body follows: %s %j', (version, lines, expectContinue) => {
    const head = request(`POST / ${version}\r\nHost: a\r\nExpect: 100-continue\r\n${lines}\r\n`)
    expect(head.expectContinue).toBe(expectContinue)
  })

  it('names the fields of this hop, and those alone', () => {
    expect(
      request('GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Hop,TE\r\nconnection: y\r\n\r\n').connection,
    ).toEqual(['x-hop', 'te', 'y'])
  })

  it('takes the host from the target when HTTP/1.0 gives no Host', () => {
    expect(request('GET http://orders.mesh:81/x HTTP/1.0\r\n\r\n').host).toBe('orders.mesh:81')
    expect(request('GET / HTTP/1.0\r\n\r\n').host).toBe('')
    expect(request('CONNECT orders:1 HTTP/1.1\r\nHost: orders\r\n\r\n').host).toBe('orders:1')
  })

  it('accepts each limit exactly and refuses one more', () => {
    const line = (bytes: number) => `GET /${'a'.repeat(bytes - 16)} HTTP/1.1\r\n`
    const { startLineBytesMax, headBytesMax, nameBytesMax } = HTTP1_LIMITS
    expect(request(`${line(startLineBytesMax)}Host: a\r\n\r\n`).headBytes).toBe(startLineBytesMax + 11)
    expect(faultOf(`${line(startLineBytesMax + 1)}Host: a\r\n\r\n`).code).toBe('head-too-large')
    const start = 'GET / HTTP/1.1\r\nHost: a\r\n'
    const filled = (bytes: number) => `${start}X: ${'y'.repeat(bytes - start.length - 7)}\r\n\r\n`
    expect(request(filled(headBytesMax)).headBytes).toBe(headBytesMax)
    expect(faultOf(filled(headBytesMax + 1)).code).toBe('head-too-large')
    expect(request(`${start}${'x'.repeat(nameBytesMax)}: y\r\n\r\n`).fields.length).toBe(4)
    expect(faultOf(`${start}${'x'.repeat(nameBytesMax + 1)}: y\r\n\r\n`).code).toBe('head-too-large')
  })

  it('takes more fields from another node than from an application', () => {
    const bytes = Buffer.from(`GET / HTTP/1.1\r\nHost: a\r\n${'X: y\r\n'.repeat(150)}\r\n`)
    expect(decodeRequestHead(bytes)).toBeInstanceOf(Http1Fault)
    const head = decodeRequestHead(bytes, FORWARDED_HTTP1_LIMITS)
    expect(head instanceof Http1Fault ? head.reason : head.fields.length).toBe(302)
  })

  it('is refused when it breaks off or when bytes follow it', () => {
    const text = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'
    for (let cut = 0; cut < text.length; cut++) expect(faultOf(text.slice(0, cut)).reason).toContain('breaks off')
    expect(faultOf(`${text}x`).reason).toContain('follow')
  })

  it('says in the reason what is wrong and never repeats raw bytes', () => {
    expect(faultOf('GET / HTTP/1.1\r\nHost : a\r\n\r\n').reason).toBe(
      'whitespace stands between field name "Host" and its colon',
    )
    expect(faultOf('\x16\x03\x01\x02').reason).toContain('TLS')
    expect(shown('a"b\r\n\xe9')).toBe('"a\\x22b\\x0d\\x0a\\xe9"')
    expect(shown('x'.repeat(1000)).length).toBeLessThan(50)
  })
})

describe('a response head', () => {
  it('is read whole', () => {
    expect(response('HTTP/1.1 404 Not  Found\r\nContent-Length: 3\r\nX: y\r\n\r\n')).toMatchObject({
      status: 404,
      reason: 'Not  Found',
      version: 11,
      fields: ['Content-Length', '3', 'X', 'y'],
      contentLength: 3,
      chunked: false,
      keepAlive: true,
      upgrade: '',
      connection: [],
      headBytes: 52,
    })
  })

  it('breaks off as bad-answer at every byte', () => {
    const text = 'HTTP/1.1 200 OK\r\nX: y\r\n\r\n'
    for (let cut = 0; cut < text.length; cut++) {
      expect(decodeResponseHead(Buffer.from(text.slice(0, cut)))).toMatchObject({ code: 'bad-answer' })
    }
  })

  it('must say what 101 switches to', () => {
    expect(response('HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n').upgrade).toBe('x')
    expect(decodeResponseHead(Buffer.from('HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\n'))).toBeInstanceOf(Http1Fault)
  })
})

describe('trailers', () => {
  it('are decoded as fields', () => {
    expect(decodeTrailers(Buffer.from('X: y\r\nZ:\r\n\r\n'), 'bad-answer')).toEqual(['X', 'y', 'Z', ''])
    expect(decodeTrailers(Buffer.from('\r\n'), 'bad-answer')).toEqual([])
  })

  it.each([
    'X: y\r\n',
    'X: y\r\n\r\nZ',
    'Content-Length: 3\r\n\r\n',
    'proxy-authorization: x\r\n\r\n',
  ])('refuses %j', text => {
    expect(decodeTrailers(Buffer.from(text), 'bad-answer')).toMatchObject({ code: 'bad-answer' })
  })
})

describe('the target as the origin gets it', () => {
  it.each([
    ['GET', '/a?b', '/a?b'],
    ['GET', '//a', '//a'],
    ['GET', 'http://orders.mesh/a?b', '/a?b'],
    ['GET', 'https://orders.mesh', '/'],
    ['GET', 'http://orders.mesh?b', '/?b'],
    ['GET', 'HTTP://orders.mesh//a', '//a'],
    ['OPTIONS', '*', '*'],
    ['OPTIONS', 'http://orders.mesh', '*'],
    ['OPTIONS', 'http://orders.mesh/', '/'],
    ['OPTIONS', 'http://orders.mesh?b', '/?b'],
    ['CONNECT', 'orders.mesh:1', 'orders.mesh:1'],
  ])('%s %s is %s', (method, target, origin) => {
    expect(originForm(method, target)).toBe(origin)
  })
})
