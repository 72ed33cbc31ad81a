import type { Http1FaultCode } from './http1-fault.ts'

/** One raw message, or several in a row, and what must come of it. */
export interface Http1Vector {
  /** The rule it is about, as the end of the sentence "refuses/accepts …". */
  readonly why: string
  /** latin1. */
  readonly raw: string
  readonly verdict: 'accepted' | Http1FaultCode
}

const HOST = 'Host: orders.mesh\r\n'
const GET = `GET / HTTP/1.1\r\n${HOST}`
const POST = `POST / HTTP/1.1\r\n${HOST}`
const CHUNKED = `${POST}Transfer-Encoding: chunked\r\n\r\n`

function refused(why: string, raw: string): Http1Vector {
  return { why, raw, verdict: 'bad-request' }
}

function accepted(why: string, raw: string): Http1Vector {
  return { why, raw, verdict: 'accepted' }
}

/** Requests as an attacker, a broken client and a good one send them. Source: RFC 9112, RFC 9110 and the known ways of smuggling. */
export const REQUEST_VECTORS: readonly Http1Vector[] = [
  // Lines
  refused('a request line that ends in a bare line feed', `GET / HTTP/1.1\n${HOST}\r\n`),
  refused('a field line that ends in a bare line feed', 'GET / HTTP/1.1\r\nHost: orders.mesh\nX: y\r\n\r\n'),
  refused('an empty line that is a bare line feed', `${GET}\n`),
  refused('a head in which all lines end in bare line feeds', 'GET / HTTP/1.1\nHost: orders.mesh\n\n'),
  refused('a bare carriage return in the request line', `GET /\r HTTP/1.1\r\n${HOST}\r\n`),
  refused('a bare carriage return in a value', `${GET}X: a\rb\r\n\r\n`),
  refused('a bare carriage return that hides a field', `${GET}X: a\rContent-Length: 5\r\n\r\n`),
  refused('a carriage return before the line end', `${GET}X: a\r\r\n\r\n`),
  refused('a carriage return in place of the empty line', `${GET}\rX`),
  refused('two empty lines before the request line', `\r\n\r\n${GET}\r\n`),
  refused('a bare line feed before the request line', `\n${GET}\r\n`),
  refused('a space before the request line', ` ${GET}\r\n`),
  refused('what looks like TLS', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03'),
  refused('the preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
  // Request line
  refused('two spaces before the target', `GET  / HTTP/1.1\r\n${HOST}\r\n`),
  refused('two spaces before the version', `GET /  HTTP/1.1\r\n${HOST}\r\n`),
  refused('a space after the version', `GET / HTTP/1.1 \r\n${HOST}\r\n`),
  refused('a tab between method and target', `GET\t/ HTTP/1.1\r\n${HOST}\r\n`),
  refused('a request line without a version', `GET /\r\n${HOST}\r\n`),
  refused('a request line without a target', `GET HTTP/1.1\r\n${HOST}\r\n`),
  refused('a version of one digit', `GET / HTTP/1\r\n${HOST}\r\n`),
  refused('HTTP/1.2', `GET / HTTP/1.2\r\n${HOST}\r\n`),
  refused('HTTP/2.0', `GET / HTTP/2.0\r\n${HOST}\r\n`),
  refused('HTTP/1.10', `GET / HTTP/1.10\r\n${HOST}\r\n`),
  refused('HTTP/01.1', `GET / HTTP/01.1\r\n${HOST}\r\n`),
  refused('a version in small letters', `GET / http/1.1\r\n${HOST}\r\n`),
  refused('a method in small letters', `get / HTTP/1.1\r\n${HOST}\r\n`),
  refused('a method with a colon', `GE:T / HTTP/1.1\r\n${HOST}\r\n`),
  refused('an empty method', ` / HTTP/1.1\r\n${HOST}\r\n`),
  refused('a method without end', `${'A'.repeat(33)} / HTTP/1.1\r\n${HOST}\r\n`),
  // Target
  refused('a fragment in the target', `GET /a#b HTTP/1.1\r\n${HOST}\r\n`),
  refused('a NUL in the target', `GET /a\0b HTTP/1.1\r\n${HOST}\r\n`),
  refused('a letter beyond ASCII in the target', `GET /caf\xe9 HTTP/1.1\r\n${HOST}\r\n`),
  refused('a DEL in the target', `GET /a\x7f HTTP/1.1\r\n${HOST}\r\n`),
  refused('a target that is no path', `GET orders HTTP/1.1\r\n${HOST}\r\n`),
  refused('a target in authority-form for GET', `GET orders.mesh:80 HTTP/1.1\r\n${HOST}\r\n`),
  refused('the target * for GET', `GET * HTTP/1.1\r\n${HOST}\r\n`),
  refused('a path as the target of CONNECT', `CONNECT / HTTP/1.1\r\n${HOST}\r\n`),
  refused('CONNECT without a port', `CONNECT orders.mesh HTTP/1.1\r\n${HOST}\r\n`),
  refused('CONNECT with port 0', 'CONNECT orders.mesh:0 HTTP/1.1\r\nHost: orders.mesh:0\r\n\r\n'),
  refused('CONNECT to one place with Host for another', 'CONNECT a.mesh:443 HTTP/1.1\r\nHost: b.mesh:443\r\n\r\n'),
  refused('CONNECT with a body', 'CONNECT a.mesh:443 HTTP/1.1\r\nHost: a.mesh:443\r\nContent-Length: 3\r\n\r\nabc'),
  refused('a scheme other than http and https', `GET ftp://orders.mesh/ HTTP/1.1\r\n${HOST}\r\n`),
  refused('an absolute target that disagrees with Host', `GET http://billing.mesh/ HTTP/1.1\r\n${HOST}\r\n`),
  refused('an absolute target with another port than Host', `GET http://orders.mesh:81/ HTTP/1.1\r\n${HOST}\r\n`),
  refused('userinfo in the target', `GET http://me@orders.mesh/ HTTP/1.1\r\n${HOST}\r\n`),
  refused('an absolute target without a host', `GET http:///x HTTP/1.1\r\n${HOST}\r\n`),
  // Host
  refused('HTTP/1.1 without Host', 'GET / HTTP/1.1\r\nX: y\r\n\r\n'),
  refused('two Host fields', `${GET}Host: billing.mesh\r\n\r\n`),
  refused('two Host fields that agree', `${GET}${HOST}\r\n`),
  refused('a list of hosts', 'GET / HTTP/1.1\r\nHost: a.mesh, b.mesh\r\n\r\n'),
  refused('userinfo in Host', 'GET / HTTP/1.1\r\nHost: a@b.mesh\r\n\r\n'),
  refused('a path in Host', 'GET / HTTP/1.1\r\nHost: a.mesh/x\r\n\r\n'),
  refused('a space in Host', 'GET / HTTP/1.1\r\nHost: a b\r\n\r\n'),
  refused('an escape in Host', 'GET / HTTP/1.1\r\nHost: a%2emesh\r\n\r\n'),
  refused('an empty port in Host', 'GET / HTTP/1.1\r\nHost: a.mesh:\r\n\r\n'),
  refused('a port in Host that is no number', 'GET / HTTP/1.1\r\nHost: a.mesh:80x\r\n\r\n'),
  refused('a port in Host beyond 65535', 'GET / HTTP/1.1\r\nHost: a.mesh:65536\r\n\r\n'),
  refused('two ports in Host', 'GET / HTTP/1.1\r\nHost: a.mesh:80:81\r\n\r\n'),
  refused('a broken IPv6 address in Host', 'GET / HTTP/1.1\r\nHost: [::1::]\r\n\r\n'),
  refused('a letter beyond ASCII in Host', 'GET / HTTP/1.1\r\nHost: caf\xe9.mesh\r\n\r\n'),
  // Fields
  refused('a space before the colon', `${GET}X : y\r\n\r\n`),
  refused('a tab before the colon of Content-Length', `${POST}Content-Length\t: 3\r\n\r\nabc`),
  refused('an empty field name', `${GET}: y\r\n\r\n`),
  refused('a field line without a colon', `${GET}X\r\n\r\n`),
  refused('a folded field', `${GET}X: a\r\n b\r\n\r\n`),
  refused('a folded field that hides a length', `${POST}X: a\r\n\tContent-Length: 3\r\n\r\nabc`),
  refused('whitespace before the first field', `GET / HTTP/1.1\r\n ${HOST}\r\n`),
  refused('a NUL in a value', `${GET}X: a\0b\r\n\r\n`),
  refused('a NUL in a name', `${GET}X\0Y: b\r\n\r\n`),
  refused('an escape character in a value', `${GET}X: a\x1bb\r\n\r\n`),
  refused('a vertical tab as whitespace', `${POST}Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n`),
  refused('a name with a parenthesis', `${GET}X(1): a\r\n\r\n`),
  refused('a name with a letter beyond ASCII', `${GET}X\xe9: a\r\n\r\n`),
  refused('a quoted name', `${POST}"Content-Length": 3\r\n\r\nabc`),
  // Lengths
  refused('both lengths', `${POST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`),
  refused(
    'both lengths, the other way round',
    `${POST}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n`,
  ),
  refused('two different lengths', `${POST}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd`),
  refused('two equal lengths', `${POST}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc`),
  refused('a list of lengths', `${POST}Content-Length: 3, 3\r\n\r\nabc`),
  refused('a length with a plus', `${POST}Content-Length: +3\r\n\r\nabc`),
  refused('a length with a minus', `${POST}Content-Length: -3\r\n\r\nabc`),
  refused('a length with a space inside', `${POST}Content-Length: 1 2\r\n\r\nabcabcabcabc`),
  refused('a hexadecimal length', `${POST}Content-Length: 0x3\r\n\r\nabc`),
  refused('a length with a fraction', `${POST}Content-Length: 3.0\r\n\r\nabc`),
  refused('a length with an exponent', `${POST}Content-Length: 3e0\r\n\r\nabc`),
  refused('a length with a leading zero', `${POST}Content-Length: 03\r\n\r\nabc`),
  refused('an empty length', `${POST}Content-Length:\r\n\r\n`),
  refused('a length beyond 2^53', `${POST}Content-Length: 9007199254740992\r\n\r\n`),
  refused('a length beyond 2^64', `${POST}Content-Length: 18446744073709551619\r\n\r\nabc`),
  refused('a length of other digits', `${POST}Content-Length: \xb3\r\n\r\nabc`),
  // Transfer-Encoding
  refused(
    'Transfer-Encoding twice',
    `${POST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
  ),
  refused('Transfer-Encoding: chunked, chunked', `${POST}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n`),
  refused('Transfer-Encoding: identity', `${POST}Transfer-Encoding: identity\r\n\r\n`),
  refused('Transfer-Encoding: gzip, chunked', `${POST}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`),
  refused('Transfer-Encoding: chunked, identity', `${POST}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n`),
  refused('Transfer-Encoding: xchunked', `${POST}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n`),
  refused('Transfer-Encoding in quotes', `${POST}Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n`),
  refused('Transfer-Encoding with a parameter', `${POST}Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n`),
  refused('an empty Transfer-Encoding', `${POST}Transfer-Encoding:\r\n\r\n0\r\n\r\n`),
  refused('a tab after chunked', `${POST}Transfer-Encoding: chunked\t\r\n\r\n0\r\n\r\n`),
  refused('a tab before chunked', `${POST}Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n`),
  refused('a tab between spaces before a length', `${POST}Content-Length: \t 3\r\n\r\nabc`),
  refused('a tab after the host', 'GET / HTTP/1.1\r\nHost: orders.mesh \t\r\n\r\n'),
  refused('Transfer-Encoding in HTTP/1.0', `POST / HTTP/1.0\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`),
  // Chunks
  refused('a chunk size with 0x', `${CHUNKED}0x3\r\nabc\r\n0\r\n\r\n`),
  refused('a chunk size with a sign', `${CHUNKED}+3\r\nabc\r\n0\r\n\r\n`),
  refused('a chunk size with a space before it', `${CHUNKED} 3\r\nabc\r\n0\r\n\r\n`),
  refused('a chunk size with a space after it', `${CHUNKED}3 \r\nabc\r\n0\r\n\r\n`),
  refused('an empty chunk size', `${CHUNKED}\r\nabc\r\n0\r\n\r\n`),
  refused('a chunk size of 14 digits', `${CHUNKED}00000000000003\r\nabc\r\n0\r\n\r\n`),
  refused('a chunk size that wraps at 2^64', `${CHUNKED}10000000000000003\r\nabc\r\n0\r\n\r\n`),
  refused('a chunk size that ends in a bare line feed', `${CHUNKED}3\nabc\r\n0\r\n\r\n`),
  refused('a chunk size that ends in a bare carriage return', `${CHUNKED}3\rXabc\r\n0\r\n\r\n`),
  refused('a chunk longer than its size', `${CHUNKED}3\r\nabcd\r\n0\r\n\r\n`),
  refused('a chunk that ends in a bare line feed', `${CHUNKED}3\r\nabc\n0\r\n\r\n`),
  refused('a chunk that ends in two other bytes', `${CHUNKED}3\r\nabcXX0\r\n\r\n`),
  refused('a chunk that ends in another byte and a line feed', `${CHUNKED}3\r\nabcX\n0\r\n\r\n`),
  refused('a chunk that ends in a bare carriage return', `${CHUNKED}3\r\nabc\r0\r\n\r\n`),
  refused('an extension that ends in a bare line feed', `${CHUNKED}3;a\nabc\r\n0\r\n\r\n`),
  refused('an empty extension', `${CHUNKED}3;\r\nabc\r\n0\r\n\r\n`),
  refused('an extension with a bare carriage return', `${CHUNKED}3;a\rb\r\nabc\r\n0\r\n\r\n`),
  refused('an extension with an unclosed quote', `${CHUNKED}3;a="b\r\nabc\r\n0\r\n\r\n`),
  refused('an extension after bad whitespace', `${CHUNKED}3 ;a=b\r\nabc\r\n0\r\n\r\n`),
  refused('an extension beyond its limit', `${CHUNKED}3;a=${'b'.repeat(5000)}\r\nabc\r\n0\r\n\r\n`),
  refused(
    'many small chunks with long extensions',
    `${CHUNKED}${`1;a=${'b'.repeat(1000)}\r\nx\r\n`.repeat(20)}0\r\n\r\n`,
  ),
  refused('a last chunk that ends in a bare line feed', `${CHUNKED}0\n\n`),
  // Trailers
  refused('Content-Length in trailers', `${CHUNKED}0\r\nContent-Length: 5\r\n\r\n`),
  refused('Transfer-Encoding in trailers', `${CHUNKED}0\r\nTransfer-Encoding: chunked\r\n\r\n`),
  refused('Host in trailers', `${CHUNKED}0\r\nHost: billing.mesh\r\n\r\n`),
  refused('Authorization in trailers', `${CHUNKED}0\r\nAuthorization: Basic x\r\n\r\n`),
  refused('X-Forwarded-For in trailers', `${CHUNKED}0\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n`),
  refused('a space before a colon in trailers', `${CHUNKED}0\r\nX : y\r\n\r\n`),
  refused('a folded line in trailers', `${CHUNKED}0\r\nX: y\r\n z\r\n\r\n`),
  refused('a bare line feed in trailers', `${CHUNKED}0\r\nX: y\n\r\n`),
  refused('trailers beyond their limit', `${CHUNKED}0\r\n${`X: ${'y'.repeat(1000)}\r\n`.repeat(17)}\r\n`),
  // Connection, Upgrade, Expect
  refused('Connection that names Host', `${GET}Connection: close, Host\r\n\r\n`),
  refused('Connection that names Content-Length', `${POST}Content-Length: 3\r\nConnection: Content-Length\r\n\r\nabc`),
  refused(
    'Connection that names Transfer-Encoding',
    `${POST}Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
  ),
  refused('Connection that names Authorization', `${GET}Connection: authorization\r\n\r\n`),
  refused('Connection that names Cookie', `${GET}Connection: keep-alive, cookie\r\n\r\n`),
  refused('Connection that names X-Forwarded-For', `${GET}Connection: close, X-Forwarded-For\r\n\r\n`),
  refused('Connection that names a field of the mesh', `${GET}Connection: x-flatmesh-hops\r\n\r\n`),
  refused('Connection that holds no option name', `${GET}Connection: "close"\r\n\r\n`),
  refused('Connection with options without end', `${GET}Connection: ${'a,'.repeat(40)}\r\n\r\n`),
  refused('Proxy-Connection that asks for an upgrade', `${GET}Proxy-Connection: upgrade\r\nUpgrade: x\r\n\r\n`),
  refused('an upgrade with a body', `${POST}Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc`),
  refused('two Upgrade fields', `${GET}Connection: upgrade\r\nUpgrade: a\r\nUpgrade: b\r\n\r\n`),
  refused('an Upgrade that is no protocol name', `${GET}Connection: upgrade\r\nUpgrade: a b\r\n\r\n`),
  refused('an expectation it does not know', `${POST}Expect: 200-ok\r\nContent-Length: 3\r\n\r\nabc`),
  // What follows a message is the next one
  refused('bytes after a body of known length', `${POST}Content-Length: 3\r\n\r\nabcd\r\n\r\n`),
  refused('a second request that is bad', `${GET}\r\n${GET}X : y\r\n\r\n`),
  // Sizes
  {
    why: 'a request line beyond its limit',
    raw: `GET /${'a'.repeat(16_400)} HTTP/1.1\r\n${HOST}\r\n`,
    verdict: 'head-too-large',
  },
  {
    why: 'a head beyond its limit',
    raw: `${GET}${`X: ${'y'.repeat(1000)}\r\n`.repeat(66)}\r\n`,
    verdict: 'head-too-large',
  },
  { why: 'too many fields', raw: `${GET}${'X: y\r\n'.repeat(128)}\r\n`, verdict: 'head-too-large' },
  { why: 'a field name beyond its limit', raw: `${GET}${'x'.repeat(257)}: y\r\n\r\n`, verdict: 'head-too-large' },
  // What must go through
  accepted('the plainest request', `${GET}\r\n`),
  accepted('one empty line before the request line', `\r\n${GET}\r\n`),
  accepted('HTTP/1.0 without Host', 'GET / HTTP/1.0\r\n\r\n'),
  accepted('an empty Host', 'GET / HTTP/1.1\r\nHost:\r\n\r\n'),
  accepted('Host with a port', 'GET / HTTP/1.1\r\nHost: 127.0.0.1:4780\r\n\r\n'),
  accepted('Host with an IPv6 address', 'GET / HTTP/1.1\r\nHost: [::1]:4780\r\n\r\n'),
  accepted('a value without whitespace before it', 'GET / HTTP/1.1\r\nHost:orders.mesh\r\n\r\n'),
  accepted('whitespace around a value', `${GET}X: \t a b \t\r\n\r\n`),
  accepted('spaces around a length', `${POST}Content-Length:  3 \r\n\r\nabc`),
  accepted('an empty value', `${GET}X:\r\n\r\n`),
  accepted('letters beyond ASCII in a value', `${GET}X: caf\xc3\xa9\r\n\r\n`),
  accepted('128 fields', `${GET}${'X: y\r\n'.repeat(127)}\r\n`),
  accepted('an absolute target that agrees with Host', `GET http://orders.mesh/a?b HTTP/1.1\r\n${HOST}\r\n`),
  accepted('an absolute target with the default port', `GET HTTP://Orders.Mesh:80 HTTP/1.1\r\n${HOST}\r\n`),
  accepted('OPTIONS of the whole server', `OPTIONS * HTTP/1.1\r\n${HOST}\r\n`),
  accepted('CONNECT', 'CONNECT orders.mesh:5432 HTTP/1.1\r\nHost: orders.mesh:5432\r\n\r\n'),
  accepted('CONNECT with a Host without port', 'CONNECT orders.mesh:5432 HTTP/1.1\r\nHost: orders.mesh\r\n\r\n'),
  accepted('a body of known length', `${POST}Content-Length: 3\r\n\r\nabc`),
  accepted('a body of length 0', `${POST}Content-Length: 0\r\n\r\n`),
  accepted('two requests in a row', `${POST}Content-Length: 3\r\n\r\nabc${GET}\r\n`),
  accepted('a chunked body', `${CHUNKED}3\r\nabc\r\n0A\r\n0123456789\r\n0\r\n\r\n`),
  accepted('chunk extensions', `${CHUNKED}3;a;b=c;d="e;\\"\t f"\r\nabc\r\n0;last\r\n\r\n`),
  accepted('trailers', `${CHUNKED}3\r\nabc\r\n0\r\nX-Checksum: 1\r\nY:\r\n\r\n`),
  accepted('Chunked in any case', `${POST}transfer-encoding: CHUNKED\r\n\r\n0\r\n\r\n`),
  accepted('Connection that names an unknown field', `${GET}Connection: X-Hop, close\r\nX-Hop: 1\r\n\r\n`),
  accepted('a WebSocket upgrade', `${GET}Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n`),
  accepted(
    'an offer of h2c with a body',
    `${POST}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\nContent-Length: 3\r\n\r\nabc`,
  ),
  accepted('Expect: 100-continue', `${POST}Expect: 100-Continue\r\nContent-Length: 3\r\n\r\nabc`),
  accepted('a method of its own', `PURGE-ALL /x HTTP/1.1\r\n${HOST}\r\n`),
]

const OK = 'HTTP/1.1 200 OK\r\n'
const OK_CHUNKED = `${OK}Transfer-Encoding: chunked\r\n\r\n`

/** An answer, what was asked, and what must come of it when the connection ends after it. */
export interface ResponseVector extends Http1Vector {
  readonly method: string
}

function badAnswer(why: string, raw: string, method = 'GET'): ResponseVector {
  return { why, raw, method, verdict: 'bad-answer' }
}

function goodAnswer(why: string, raw: string, method = 'GET'): ResponseVector {
  return { why, raw, method, verdict: 'accepted' }
}

export const RESPONSE_VECTORS: readonly ResponseVector[] = [
  // Status line
  badAnswer('HTTP/0.9', '<html></html>\r\n\r\n'),
  badAnswer('HTTP/2.0', 'HTTP/2.0 200 OK\r\n\r\n'),
  badAnswer('HTTP/1.2', 'HTTP/1.2 200 OK\r\n\r\n'),
  badAnswer('a version in small letters', 'http/1.1 200 OK\r\n\r\n'),
  badAnswer('an empty line before the status line', `\r\n${OK}Content-Length: 0\r\n\r\n`),
  badAnswer('a status of two digits', 'HTTP/1.1 20 OK\r\n\r\n'),
  badAnswer('a status of four digits', 'HTTP/1.1 2000 OK\r\n\r\n'),
  badAnswer('status 099', 'HTTP/1.1 099 OK\r\n\r\n'),
  badAnswer('status 600', 'HTTP/1.1 600 OK\r\n\r\n'),
  badAnswer('a status with a sign', 'HTTP/1.1 +20 OK\r\n\r\n'),
  badAnswer('two spaces before the status', 'HTTP/1.1  200 OK\r\n\r\n'),
  badAnswer('a bare line feed after the status line', 'HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n'),
  badAnswer('a bare carriage return in the reason', 'HTTP/1.1 200 O\rK\r\n\r\n'),
  badAnswer('a NUL in the reason', 'HTTP/1.1 200 O\0K\r\n\r\n'),
  badAnswer('a status line beyond its limit', `HTTP/1.1 200 ${'a'.repeat(16_400)}\r\n\r\n`),
  // Fields
  badAnswer('a folded field', `${OK}X: a\r\n b\r\n\r\n`),
  badAnswer('a space before the colon', `${OK}Content-Length : 0\r\n\r\n`),
  badAnswer('a bare line feed after a field', `${OK}Content-Length: 0\n\r\n`),
  badAnswer('a NUL in a value', `${OK}X: a\0\r\n\r\n`),
  badAnswer('a field without a colon', `${OK}X\r\n\r\n`),
  badAnswer('too many fields', `${OK}${'X: y\r\n'.repeat(129)}\r\n`),
  badAnswer('a head beyond its limit', `${OK}${`X: ${'y'.repeat(1000)}\r\n`.repeat(66)}\r\n`),
  badAnswer('Connection that names Set-Cookie', `${OK}Connection: set-cookie\r\nContent-Length: 0\r\n\r\n`),
  // Lengths
  badAnswer('both lengths', `${OK}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`),
  badAnswer('two different lengths', `${OK}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd`),
  badAnswer('two equal lengths', `${OK}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc`),
  badAnswer('a list of lengths', `${OK}Content-Length: 3, 3\r\n\r\nabc`),
  badAnswer('a negative length', `${OK}Content-Length: -1\r\n\r\n`),
  badAnswer('a length beyond 2^53', `${OK}Content-Length: 99999999999999999999\r\n\r\n`),
  badAnswer('a coding besides chunked', `${OK}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`),
  badAnswer('chunked twice', `${OK}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`),
  badAnswer('chunked in HTTP/1.0', 'HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'),
  badAnswer('204 with a length', 'HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc'),
  badAnswer('204 with chunked', 'HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'),
  badAnswer('an interim answer with a length', `HTTP/1.1 103 Early Hints\r\nContent-Length: 3\r\n\r\nabc${OK}\r\n`),
  // Bodies
  badAnswer('a body cut short', `${OK}Content-Length: 5\r\n\r\nabc`),
  badAnswer('a head cut short', `${OK}Content-Length: 5\r\n`),
  badAnswer('a connection that ends at once', ''),
  badAnswer('chunks cut short', `${OK_CHUNKED}3\r\nabc\r\n`),
  badAnswer('a last chunk without its empty line', `${OK_CHUNKED}3\r\nabc\r\n0\r\n`),
  badAnswer('a chunk size with a space', `${OK_CHUNKED}3 \r\nabc\r\n0\r\n\r\n`),
  badAnswer('a chunk size with 0x', `${OK_CHUNKED}0x3\r\nabc\r\n0\r\n\r\n`),
  badAnswer('a chunk longer than its size', `${OK_CHUNKED}3\r\nabcd\r\n0\r\n\r\n`),
  badAnswer('Set-Cookie in trailers', `${OK_CHUNKED}0\r\nSet-Cookie: a=b\r\n\r\n`),
  // One answer for one request
  badAnswer('bytes after a body of known length', `${OK}Content-Length: 3\r\n\r\nabcd`),
  badAnswer('bytes after the last chunk', `${OK_CHUNKED}0\r\n\r\nX`),
  badAnswer('a second answer', `${OK}Content-Length: 0\r\n\r\n${OK}Content-Length: 0\r\n\r\n`),
  badAnswer('a body in the answer to HEAD', `${OK}Content-Length: 3\r\n\r\nabc`, 'HEAD'),
  badAnswer('a body after 304', 'HTTP/1.1 304 Not Modified\r\n\r\nabc'),
  badAnswer(
    '101 that nobody asked for',
    'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n',
  ),
  badAnswer('an answer to CONNECT that announces a body', `${OK}Content-Length: 3\r\n\r\nabc`, 'CONNECT'),
  badAnswer('a tab after chunked', `${OK}Transfer-Encoding: chunked\t\r\n\r\n0\r\n\r\n`),
  badAnswer('an interim answer of HTTP/1.0', `HTTP/1.0 100 Continue\r\n\r\n${OK}Content-Length: 0\r\n\r\n`),
  badAnswer(
    'an interim answer that closes',
    `HTTP/1.1 100 C\r\nConnection: close\r\n\r\n${OK}Content-Length: 0\r\n\r\n`,
  ),
  badAnswer('an interim answer alone', 'HTTP/1.1 100 Continue\r\n\r\n'),
  badAnswer('interim answers without end', 'HTTP/1.1 102 Processing\r\n\r\n'.repeat(1001)),
  // What must go through
  goodAnswer('a body of known length', `${OK}Content-Length: 3\r\n\r\nabc`),
  goodAnswer('a body that ends with the connection', `${OK}\r\nabc`),
  goodAnswer('HTTP/1.0', 'HTTP/1.0 200 OK\r\n\r\nabc'),
  goodAnswer('a chunked body with trailers', `${OK_CHUNKED}3;x=y\r\nabc\r\n0\r\nX: y\r\n\r\n`),
  goodAnswer('no reason', 'HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n'),
  goodAnswer('no reason and no space', 'HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n'),
  goodAnswer('letters beyond ASCII in the reason', 'HTTP/1.1 200 D\xe9j\xe0\r\nContent-Length: 0\r\n\r\n'),
  goodAnswer('an unknown status', 'HTTP/1.1 599 Odd\r\nContent-Length: 0\r\n\r\n'),
  goodAnswer(
    'interim answers before the final one',
    `HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: a\r\n\r\n${OK}Content-Length: 0\r\n\r\n`,
  ),
  goodAnswer('204 with length 0', 'HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n'),
  goodAnswer('304 with the length of what it stands for', 'HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n'),
  goodAnswer('a length in the answer to HEAD', `${OK}Content-Length: 3\r\n\r\n`, 'HEAD'),
  goodAnswer('chunked in the answer to HEAD', OK_CHUNKED, 'HEAD'),
]
