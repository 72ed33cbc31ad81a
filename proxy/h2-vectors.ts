import { encodeFrame, encodeNumbersFrame, encodeSettings, FLAG, FRAME, H2_ERROR } from './h2-frame.ts'
import { GET, headers, POST, rawBlock } from './test-h2.ts'

const { END_HEADERS, END_STREAM, PADDED, PRIORITY, ACK } = FLAG

/** What a client sends after its greeting, and what must come of it: see `RawClient.outcome`. */
export interface H2Vector {
  readonly title: string
  readonly send: readonly Buffer[]
  readonly outcome: string
}

/** A request head by its fields. */
function head(title: string, fields: readonly string[], outcome = 'PROTOCOL_ERROR'): H2Vector {
  return { title, send: [headers(1, fields)], outcome }
}

function frames(title: string, outcome: string, ...send: readonly Buffer[]): H2Vector {
  return { title, send, outcome }
}

const withField = (name: string, value: string): string[] => [...GET, name, value]
const without = (name: string): string[] => GET.filter((_, i) => GET[i - (i % 2)] !== name)
const replaced = (name: string, value: string): string[] =>
  GET.map((text, i) => (i % 2 === 1 && GET[i - 1] === name ? value : text))
const data = (stream: number, text: string, flags = 0): Buffer =>
  encodeFrame(FRAME.DATA, flags, stream, Buffer.from(text))
const raw = (type: number, flags: number, stream: number, bytes: readonly number[] = []): Buffer =>
  encodeFrame(type, flags, stream, Buffer.from(bytes))
const OPEN = END_HEADERS
const PE = 'GOAWAY PROTOCOL_ERROR'

/**
 * Requests that must not be forwarded. Written from RFC 9113 sections 4 to 8 and from what is known of attacks by
 * translating HTTP/2 into HTTP/1.1 (request smuggling by CR, LF, lengths and pseudo-fields).
 */
export const H2_VECTORS: readonly H2Vector[] = [
  // Names and values.
  head('a name in capital letters', withField('X-Own', '1')),
  head('an empty name', withField('', '1')),
  head('a name with a space', withField('x own', '1')),
  head('a name with a colon', withField('x:own', '1')),
  head(
    'a name with a line end, which would be two fields in HTTP/1',
    withField('x-a: 1\r\ntransfer-encoding', 'chunked'),
  ),
  head('a name with a zero byte', withField('x\0y', '1')),
  head('a name beyond ASCII', withField('x-\xe9', '1')),
  head('a name longer than 256 bytes', withField('x'.repeat(257), '1')),
  head('a value with CR LF, which would be another field in HTTP/1', withField('x-a', '1\r\nx-b: 2')),
  head(
    'a value with CR LF CR LF, which would be another request in HTTP/1',
    withField('x-a', '1\r\n\r\nGET /admin HTTP/1.1\r\nHost: x'),
  ),
  head('a value with a bare LF', withField('x-a', '1\nx-b: 2')),
  head('a value with a bare CR', withField('x-a', '1\rx-b: 2')),
  head('a value with a zero byte', withField('x-a', '1\x002')),
  head('a value with DEL', withField('x-a', '\x7f')),
  head('a value that begins with a space', withField('x-a', ' 1')),
  head('a value that ends with a tab', withField('x-a', '1\t')),
  // Fields of HTTP/1 connections.
  head('connection', withField('connection', 'close')),
  head('keep-alive', withField('keep-alive', 'timeout=5')),
  head('proxy-connection', withField('proxy-connection', 'keep-alive')),
  head('transfer-encoding, the classic of smuggling from HTTP/2 to HTTP/1', withField('transfer-encoding', 'chunked')),
  head('upgrade', withField('upgrade', 'websocket')),
  head('te of anything but trailers', withField('te', 'gzip')),
  head('te of trailers and more', withField('te', 'trailers, gzip')),
  // Pseudo-fields.
  head('no :method', without(':method')),
  head('no :scheme', without(':scheme')),
  head('no :path', without(':path')),
  head('an empty :path', replaced(':path', '')),
  head('two :method', [':method', 'GET', ...GET]),
  head('two :path', [...GET, ':path', '/admin']),
  head('two :authority', [...GET, ':authority', 'other']),
  head('a pseudo-field after a field', ['x-a', '1', ...GET]),
  head('a pseudo-field of answers', [':status', '200', ...GET]),
  head('a pseudo-field nobody knows', [':protocol', 'websocket', ...GET]),
  head('a method in small letters', replaced(':method', 'get')),
  head('a method with a space, which would be a target in HTTP/1', replaced(':method', 'GET /admin HTTP/1.1\r\nX:')),
  head(
    'a path with a space, which would be a version in HTTP/1',
    replaced(':path', '/ HTTP/1.1\r\nHost: x\r\n\r\nGET /'),
  ),
  head('a path with a space alone', replaced(':path', '/a b')),
  head('a path with a tab', replaced(':path', '/a\tb')),
  head('a path with a fragment', replaced(':path', '/a#b')),
  head('a path that is none', replaced(':path', 'admin')),
  head('a path that is a URL', replaced(':path', 'http://other/')),
  head('a path beyond ASCII', replaced(':path', '/\xe9')),
  head('* to another method than OPTIONS', replaced(':path', '*')),
  head('a scheme that is no web', replaced(':scheme', 'ftp')),
  head('a scheme with more in it', replaced(':scheme', 'http://other/')),
  head('an authority with user and password', replaced(':authority', 'me:secret@orders')),
  head('an authority with a path', replaced(':authority', 'orders/admin')),
  head('an authority with CR LF', replaced(':authority', 'orders\r\nx-a: 1')),
  head('an authority with a space', replaced(':authority', 'orders other')),
  head('an authority with a port that is none', replaced(':authority', 'orders:http')),
  head('host and :authority that disagree', withField('host', 'other')),
  head('two host fields', [...without(':authority'), 'host', 'orders', 'host', 'orders']),
  head('CONNECT with a path', replaced(':method', 'CONNECT')),
  head('CONNECT without an authority', [':method', 'CONNECT']),
  head('CONNECT, which is not offered', [':method', 'CONNECT', ':authority', 'orders:80'], '400'),
  // Lengths.
  head('content-length and no body', [...POST, 'content-length', '5']),
  head('content-length that is no number', withField('content-length', '0x5')),
  head('content-length with a sign', withField('content-length', '+5')),
  head('content-length with a leading zero', withField('content-length', '05')),
  head('content-length said twice', [...POST, 'content-length', '0', 'content-length', '0']),
  head('content-length as a list', [...POST, 'content-length', '0, 0']),
  frames(
    'more body than content-length says',
    'PROTOCOL_ERROR',
    headers(1, [...POST, 'content-length', '3'], OPEN),
    data(1, 'four', END_STREAM),
  ),
  frames(
    'less body than content-length says',
    'PROTOCOL_ERROR',
    headers(1, [...POST, 'content-length', '3'], OPEN),
    data(1, 'ab', END_STREAM),
  ),
  frames(
    'a body after content-length: 0',
    'PROTOCOL_ERROR',
    headers(1, [...POST, 'content-length', '0'], OPEN),
    data(1, 'x', END_STREAM),
  ),
  // Limits.
  head('more than 128 fields', [...GET, ...Array.from({ length: 130 }, (_, i) => [`x-${i}`, '1']).flat()], '431'),
  frames(
    'a path longer than a line may be',
    '431',
    headers(1, GET.slice(0, 4), END_STREAM),
    encodeFrame(FRAME.CONTINUATION, 0, 1, rawBlock([':authority', 'orders'])),
    encodeFrame(FRAME.CONTINUATION, END_HEADERS, 1, rawBlock([':path', `/${'a'.repeat(16_325)}`])),
  ),
  head('Expect of anything but 100-continue', withField('expect', 'miracles')),
  // Trailers.
  frames('trailers with a pseudo-field', 'PROTOCOL_ERROR', headers(1, POST, OPEN), headers(1, [':path', '/admin'])),
  frames(
    'trailers that would change the length',
    'PROTOCOL_ERROR',
    headers(1, POST, OPEN),
    headers(1, ['content-length', '5']),
  ),
  frames(
    'trailers that would change the host',
    'PROTOCOL_ERROR',
    headers(1, POST, OPEN),
    headers(1, ['host', 'other']),
  ),
  frames('trailers with CR LF', 'PROTOCOL_ERROR', headers(1, POST, OPEN), headers(1, ['x-a', '1\r\nx-b: 2'])),
  frames('trailers that are not the end', 'PROTOCOL_ERROR', headers(1, POST, OPEN), headers(1, ['x-a', '1'], OPEN)),
  // Frames and streams.
  frames('a stream of id 0', PE, headers(0, GET)),
  frames('a stream with the id of a server', PE, headers(2, GET)),
  frames(
    'a stream id that goes back',
    'GOAWAY STREAM_CLOSED',
    headers(5, replaced(':authority', 'nobody')),
    headers(3, GET),
  ),
  frames('DATA without a stream', PE, data(0, 'x')),
  frames('DATA on a stream that was never opened', PE, data(1, 'x')),
  frames('DATA after the end of its stream', 'STREAM_CLOSED', headers(1, replaced(':path', '/held')), data(1, 'x')),
  frames(
    'HEADERS after the end of its stream',
    'STREAM_CLOSED',
    headers(1, replaced(':path', '/held')),
    headers(1, ['x-a', '1']),
  ),
  frames(
    'DATA with more padding than there is room for',
    PE,
    headers(1, POST, OPEN),
    raw(FRAME.DATA, PADDED, 1, [3, 0, 0]),
  ),
  frames('DATA padded and empty', PE, headers(1, POST, OPEN), raw(FRAME.DATA, PADDED, 1)),
  frames(
    'HEADERS with more padding than there is room for',
    PE,
    raw(FRAME.HEADERS, PADDED | END_HEADERS, 1, [9, 0x82]),
  ),
  frames('HEADERS that break off in their priority', PE, raw(FRAME.HEADERS, PRIORITY | END_HEADERS, 1, [0, 0])),
  frames('a stream that depends on itself', PE, raw(FRAME.HEADERS, PRIORITY | END_HEADERS, 1, [0, 0, 0, 1, 16, 0x82])),
  frames('CONTINUATION of nothing', PE, encodeFrame(FRAME.CONTINUATION, END_HEADERS, 1, rawBlock(GET))),
  frames(
    'a head that another frame interrupts',
    PE,
    headers(1, GET, END_STREAM),
    raw(FRAME.PING, 0, 0, [0, 0, 0, 0, 0, 0, 0, 0]),
  ),
  frames(
    'a head that goes on in another stream',
    PE,
    headers(1, GET, END_STREAM),
    encodeFrame(FRAME.CONTINUATION, END_HEADERS, 3, rawBlock(['x', 'y'])),
  ),
  frames(
    'a block that is not HPACK',
    'GOAWAY COMPRESSION_ERROR',
    raw(FRAME.HEADERS, END_HEADERS, 1, [0xff, 0xff, 0xff]),
  ),
  frames('PUSH_PROMISE from a client', PE, raw(FRAME.PUSH_PROMISE, END_HEADERS, 1, [0, 0, 0, 2])),
  frames('PRIORITY without a stream', PE, raw(FRAME.PRIORITY, 0, 0, [0, 0, 0, 3, 1])),
  frames('PRIORITY of a wrong length', 'GOAWAY FRAME_SIZE_ERROR', raw(FRAME.PRIORITY, 0, 1, [0])),
  frames(
    'RST_STREAM of a wrong length',
    'GOAWAY FRAME_SIZE_ERROR',
    headers(1, POST, OPEN),
    raw(FRAME.RST_STREAM, 0, 1, [0]),
  ),
  frames('RST_STREAM of a stream that was never opened', PE, encodeNumbersFrame(FRAME.RST_STREAM, 1, H2_ERROR.CANCEL)),
  frames('SETTINGS of a wrong length', 'GOAWAY FRAME_SIZE_ERROR', raw(FRAME.SETTINGS, 0, 0, [0])),
  frames('SETTINGS on a stream', PE, raw(FRAME.SETTINGS, 0, 1)),
  frames(
    'an answer to SETTINGS that says something',
    'GOAWAY FRAME_SIZE_ERROR',
    raw(FRAME.SETTINGS, ACK, 0, [0, 0, 0, 0, 0, 0]),
  ),
  frames('a window of 2^31', 'GOAWAY FLOW_CONTROL_ERROR', encodeSettings([[4, 0x8000_0000]])),
  frames('frames smaller than must be allowed', PE, encodeSettings([[5, 16_383]])),
  frames('a push that is neither on nor off', PE, encodeSettings([[2, 2]])),
  frames('PING of a wrong length', 'GOAWAY FRAME_SIZE_ERROR', raw(FRAME.PING, 0, 0, [0])),
  frames('PING on a stream', PE, raw(FRAME.PING, 0, 1, [0, 0, 0, 0, 0, 0, 0, 0])),
  frames('GOAWAY that breaks off', 'GOAWAY FRAME_SIZE_ERROR', raw(FRAME.GOAWAY, 0, 0, [0])),
  frames('GOAWAY on a stream', PE, raw(FRAME.GOAWAY, 0, 1, [0, 0, 0, 0, 0, 0, 0, 0])),
  frames('WINDOW_UPDATE of 0 for the connection', PE, encodeNumbersFrame(FRAME.WINDOW_UPDATE, 0, 0)),
  frames(
    'WINDOW_UPDATE of 0 for a stream',
    'PROTOCOL_ERROR',
    headers(1, POST, OPEN),
    encodeNumbersFrame(FRAME.WINDOW_UPDATE, 1, 0),
  ),
  frames('WINDOW_UPDATE of a stream that was never opened', PE, encodeNumbersFrame(FRAME.WINDOW_UPDATE, 1, 1)),
  frames('WINDOW_UPDATE of a wrong length', 'GOAWAY FRAME_SIZE_ERROR', raw(FRAME.WINDOW_UPDATE, 0, 0, [0])),
  frames(
    'a window of the connection beyond 2^31 - 1',
    'GOAWAY FLOW_CONTROL_ERROR',
    encodeNumbersFrame(FRAME.WINDOW_UPDATE, 0, 0x7fff_ffff),
  ),
  frames(
    'a window of a stream beyond 2^31 - 1',
    'FLOW_CONTROL_ERROR',
    headers(1, POST, OPEN),
    encodeNumbersFrame(FRAME.WINDOW_UPDATE, 1, 0x7fff_ffff),
  ),
  frames(
    'a frame larger than is taken',
    'GOAWAY FRAME_SIZE_ERROR',
    headers(1, POST, OPEN),
    data(1, 'x'.repeat(16_385)),
  ),
]
