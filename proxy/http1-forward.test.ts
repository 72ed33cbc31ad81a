import { describe, expect, it } from 'vitest'
import { Http1Fault } from './http1-fault.ts'
import {
  CHUNK_END,
  chooseAnswerFraming,
  chunkStart,
  encodeChunk,
  forwardRequestHead,
  forwardResponseHead,
  lastChunk,
} from './http1-forward.ts'
import { seededBelow } from './http1-generate.ts'
import { decodeRequestHead, decodeResponseHead, type RequestHead, type ResponseHead } from './http1-head.ts'
import { RequestReader, ResponseReader } from './http1-reader.ts'
import { REQUEST_VECTORS, RESPONSE_VECTORS } from './http1-vectors.ts'

function forwarded(text: string, changes: { drop?: readonly string[]; add?: string } = {}): string {
  const head = decodeRequestHead(Buffer.from(text, 'latin1'))
  if (head instanceof Http1Fault) throw new Error(head.reason)
  return forwardRequestHead(head, { add: '', ...changes }).toString('latin1')
}

function answered(
  text: string,
  reader: { method?: string; version?: 10 | 11; keepAlive?: boolean; drop?: string[]; add?: string } = {},
) {
  const { method = 'GET', version = 11, keepAlive = true, drop = [], add = '' } = reader
  const head = decodeResponseHead(Buffer.from(text, 'latin1'))
  if (head instanceof Http1Fault) throw new Error(head.reason)
  const framing = chooseAnswerFraming(head, method, version, keepAlive)
  return { framing, text: forwardResponseHead(head, version, framing, { drop, add }).toString('latin1') }
}

describe('a forwarded request head', () => {
  it('keeps end-to-end fields as they are and in order, and loses those of the hop', () => {
    expect(
      forwarded(
        'GET /a HTTP/1.1\r\nX-One:1\r\nHOST: orders.mesh\r\nConnection: keep-alive, X-Hop\r\nX-Hop: gone\r\nKeep-Alive: timeout=5\r\n' +
          'Proxy-Connection: keep-alive\r\nproxy-authorization: Basic x\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\n' +
          'HTTP2-Settings: AA\r\nTE: gzip\r\nAuthorization: Bearer t\r\nX-One: 2\r\nTrailer: X\r\n\r\n',
      ),
    ).toBe(
      'GET /a HTTP/1.1\r\nX-One: 1\r\nHOST: orders.mesh\r\nAuthorization: Bearer t\r\nX-One: 2\r\nTrailer: X\r\n\r\n',
    )
  })

  it('writes the framing itself', () => {
    const start = 'POST / HTTP/1.1\r\nHost: a\r\n'
    expect(forwarded(`${start}Content-Length: 3\r\nX: y\r\n\r\n`)).toBe(`${start}X: y\r\nContent-Length: 3\r\n\r\n`)
    expect(forwarded(`${start}Content-Length: 0\r\n\r\n`)).toBe(`${start}Content-Length: 0\r\n\r\n`)
    expect(forwarded(`${start}transfer-encoding: Chunked\r\n\r\n`)).toBe(`${start}Transfer-Encoding: chunked\r\n\r\n`)
    expect(forwarded(`${start}\r\n`)).toBe(`${start}\r\n`)
  })

  it('drops what the owner drops, whatever its case, and adds what it adds', () => {
    const text =
      'GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: liar\r\nx-forwarded-for: liar\r\nX-Forwarded-Fox: y\r\n\r\n'
    expect(forwarded(text, { drop: ['x-forwarded-for'], add: 'x-forwarded-for: 127.0.0.1\r\n' })).toBe(
      'GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Fox: y\r\nx-forwarded-for: 127.0.0.1\r\n\r\n',
    )
  })

  it('asks for an upgrade and for trailers again', () => {
    const start = 'GET / HTTP/1.1\r\nHost: a\r\n'
    expect(forwarded(`${start}Connection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n`)).toBe(
      `${start}Connection: upgrade\r\nUpgrade: websocket\r\n\r\n`,
    )
    expect(forwarded(`${start}te: gzip, Trailers\r\n\r\n`)).toBe(`${start}Connection: TE\r\nTE: trailers\r\n\r\n`)
    expect(forwarded(`${start}TE: trailers\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n`)).toBe(
      `${start}Connection: upgrade, TE\r\nTE: trailers\r\nUpgrade: x\r\n\r\n`,
    )
  })

  it('drops Expect, which is settled with the client', () => {
    expect(forwarded('POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n')).not.toContain(
      'xpect',
    )
  })

  it('makes HTTP/1.0 and absolute targets into what HTTP/1.1 origins take', () => {
    expect(forwarded('GET / HTTP/1.0\r\nX: y\r\n\r\n')).toBe('GET / HTTP/1.1\r\nHost: \r\nX: y\r\n\r\n')
    expect(forwarded('GET http://a:81/b HTTP/1.0\r\n\r\n')).toBe('GET /b HTTP/1.1\r\nHost: a:81\r\n\r\n')
    expect(forwarded('GET http://A/b HTTP/1.1\r\nHost: a\r\n\r\n')).toBe('GET /b HTTP/1.1\r\nHost: a\r\n\r\n')
    expect(forwarded('OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n')).toBe('OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n')
  })

  it('crashes on added fields that would end the head early', () => {
    for (const add of ['x: y', 'x: y\r\n\r\n', '\r\n']) {
      expect(() => forwarded('GET / HTTP/1.1\r\nHost: a\r\n\r\n', { add }), add).toThrow('bug')
    }
  })

  const ACCEPTED = REQUEST_VECTORS.filter(({ verdict }) => verdict === 'accepted')
  it.each(ACCEPTED)('is read as the same request again: $why', ({ raw }) => {
    let heads = 0
    const reader = new RequestReader({
      onHead(head) {
        const text = forwardRequestHead(head, { add: '' })
        const again = decodeRequestHead(text)
        expect(again).toMatchObject({
          method: head.method,
          contentLength: head.contentLength,
          chunked: head.chunked,
          host: head.host,
          upgrade: head.upgrade,
          keepAlive: true,
        })
        if (!(again instanceof Http1Fault)) expect(forwardRequestHead(again, { add: '' })).toEqual(text)
        heads++
      },
      onData() {},
      onTrailers() {},
      onEnd() {
        reader.next()
      },
      onError() {},
    })
    reader.push(Buffer.from(raw, 'latin1'))
    expect(heads).toBeGreaterThan(0)
  })
})

describe('a forwarded answer head', () => {
  const FIXED = 'HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n'
  const CHUNKED = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'
  const OPEN = 'HTTP/1.0 200 OK\r\n\r\n'

  it.each([
    [FIXED, 11, true, 'length', true, 'Content-Length: 3\r\n'],
    [FIXED, 11, false, 'length', false, 'Content-Length: 3\r\nConnection: close\r\n'],
    [FIXED, 10, true, 'length', true, 'Content-Length: 3\r\nConnection: keep-alive\r\n'],
    [FIXED, 10, false, 'length', false, 'Content-Length: 3\r\nConnection: close\r\n'],
    [CHUNKED, 11, true, 'chunked', true, 'Transfer-Encoding: chunked\r\n'],
    [CHUNKED, 11, false, 'chunked', false, 'Transfer-Encoding: chunked\r\nConnection: close\r\n'],
    [CHUNKED, 10, true, 'close', false, 'Connection: close\r\n'],
    [OPEN, 11, true, 'chunked', true, 'Transfer-Encoding: chunked\r\n'],
    [OPEN, 10, true, 'close', false, 'Connection: close\r\n'],
  ] as const)('of %j to an HTTP/%d reader (keep-alive %s) ends by %s', (text, version, wanted, body, keepAlive, lines) => {
    const answer = answered(text, { version, keepAlive: wanted })
    expect(answer.framing).toEqual({ body, keepAlive })
    expect(answer.text).toBe(`HTTP/1.1 200 OK\r\n${lines}\r\n`)
  })

  it.each([
    ['HEAD', FIXED, 'HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n'],
    ['HEAD', CHUNKED, 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'],
    ['HEAD', OPEN, 'HTTP/1.1 200 OK\r\n\r\n'],
    ['GET', 'HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n', 'HTTP/1.1 204 No\r\n\r\n'],
    ['GET', 'HTTP/1.1 304 Not\r\nContent-Length: 3\r\n\r\n', 'HTTP/1.1 304 Not\r\nContent-Length: 3\r\n\r\n'],
    ['GET', 'HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n', 'HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n'],
    ['GET', 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n', 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'],
  ])('has no body for %s %j', (method, text, expected) => {
    const answer = answered(text, { method })
    expect(answer.framing.body).toBe('none')
    expect(answer.text).toBe(expected)
  })

  it('loses the fields of the hop, keeps the others, drops and adds', () => {
    expect(
      answered(
        'HTTP/1.1 200 Fine\r\nServer: x\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: a\r\nUpgrade: h2c\r\nSet-Cookie: a\r\n' +
          'Set-Cookie: b\r\nX-Flatmesh-Error: liar\r\nContent-Length: 0\r\n\r\n',
        { drop: ['x-flatmesh-error'], add: 'via: 1.1 mesh\r\n' },
      ).text,
    ).toBe(
      'HTTP/1.1 200 Fine\r\nServer: x\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nvia: 1.1 mesh\r\nContent-Length: 0\r\n\r\n',
    )
  })

  it('says what is switched to in 101 and asked for in 426, and nowhere else', () => {
    const lines = 'Connection: upgrade\r\nUpgrade: websocket\r\n'
    expect(answered(`HTTP/1.1 101 S\r\n${lines}\r\n`).text).toBe(`HTTP/1.1 101 S\r\n${lines}\r\n`)
    expect(answered(`HTTP/1.1 101 S\r\n${lines}\r\n`, { keepAlive: false }).text).toContain('Connection: upgrade\r\n')
    expect(answered(`HTTP/1.1 426 U\r\n${lines}Content-Length: 0\r\n\r\n`, { keepAlive: false }).text).toContain(
      'Connection: close, upgrade\r\nUpgrade: websocket\r\n',
    )
    expect(answered(`HTTP/1.1 200 OK\r\n${lines}Content-Length: 0\r\n\r\n`).text).not.toContain('pgrade')
  })

  const ACCEPTED = RESPONSE_VECTORS.filter(({ verdict }) => verdict === 'accepted')
  it.each(ACCEPTED)('is read as the same answer again by every kind of reader: $why', ({ raw, method }) => {
    let heads = 0
    const reader = new ResponseReader({
      onHead(head) {
        for (const version of [10, 11] as const) {
          for (const keepAlive of [true, false]) {
            const framing = chooseAnswerFraming(head, method, version, keepAlive)
            const again = decodeResponseHead(forwardResponseHead(head, version, framing, { add: '' }))
            expect(again).toMatchObject({ status: head.status, reason: head.reason })
            if (head.status >= 200) expect(again).toMatchObject({ keepAlive: framing.keepAlive })
            if (framing.body === 'length') expect(again).toMatchObject({ contentLength: head.contentLength })
            if (framing.body === 'chunked') expect(again).toMatchObject({ chunked: true })
            if (framing.body === 'close') expect(again).toMatchObject({ contentLength: -1, chunked: false })
          }
        }
        heads++
      },
      onData() {},
      onTrailers() {},
      onEnd() {},
      onError() {},
    })
    reader.expect(method)
    reader.push(Buffer.from(raw, 'latin1'))
    expect(heads).toBeGreaterThan(0)
  })
})

describe('chunks', () => {
  it('are read back as what was written, with trailers', () => {
    const body = [
      Buffer.from('a'),
      Buffer.alloc(0),
      Buffer.alloc(2048, 1),
      Buffer.alloc(2049, 2),
      Buffer.alloc(70_000, 3),
    ]
    const parts = body.flatMap(encodeChunk)
    const data: Buffer[] = []
    let trailers = ''
    let ends = 0
    const reader = new RequestReader({
      onHead() {},
      onData: chunk => data.push(chunk),
      onTrailers: text => {
        trailers += text.toString()
      },
      onEnd() {
        ends++
      },
      onError: fault => expect.fail(fault.reason),
    })
    reader.push(Buffer.from('POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n'))
    reader.push(Buffer.concat([...parts, lastChunk(Buffer.from('X: y\r\n'))]))
    expect(Buffer.concat(data)).toEqual(Buffer.concat(body))
    expect(trailers).toBe('X: y\r\n')
    expect(ends).toBe(1)
  })

  it('do not copy big data', () => {
    const data = Buffer.alloc(10_000)
    expect(encodeChunk(data)).toEqual([chunkStart(10_000), data, CHUNK_END])
    expect(encodeChunk(data)[1]).toBe(data)
  })

  it('end in the shortest way without trailers', () => {
    expect(lastChunk().toString()).toBe('0\r\n\r\n')
    expect(lastChunk(Buffer.alloc(0)).toString()).toBe('0\r\n\r\n')
  })

  it('of no bytes crash, because they would end the body', () => {
    expect(() => chunkStart(0)).toThrow('bug')
  })
})

describe('heads that are passed on without taking all their fields apart', () => {
  const LINES = [
    ...['X-One: 1', 'X-Two:2', 'x-three:  3  ', 'X-Four: \t4', 'X-Empty:', 'X-Empty: ', 'Accept: */*', 'via: 1.1 a'],
    ...[
      'Connection: keep-alive',
      'Connection: x-one',
      'Keep-Alive: 5',
      'TE: trailers',
      'te: gzip',
      'To: y',
      'Upgrade: a',
    ],
    ...['Proxy-Connection: close', 'proxy-authorization: x', 'Proxy-Authenticate: y', 'Proxy-Authentication-Info: z'],
    ...['X-Forwarded-For: liar', 'content-type: a/b', 'http2-settings: AA', 'Expect: 100-continue', 'Trailer: X'],
  ]

  it('come out as if all had been taken apart', () => {
    for (let seed = 0; seed < 3000; seed++) {
      const below = seededBelow(seed)
      const lines = Array.from({ length: below(8) }, () => LINES[below(LINES.length)])
      const rest = `${['Host: a', ...lines].join('\r\n')}\r\n\r\n`
      const changes = { drop: ['x-forwarded-for', 'via'], add: 'Via: 1.1 b\r\n' }
      const head = decodeRequestHead(Buffer.from(`GET /a HTTP/1.1\r\n${rest}`))
      if (!(head instanceof Http1Fault)) {
        const apart = { ...head, fields: head.fields, lines: undefined }
        expect(forwardRequestHead(head, changes).toString(), `seed ${seed}`).toBe(
          forwardRequestHead(apart as unknown as RequestHead, changes).toString(),
        )
      }
      const answer = decodeResponseHead(Buffer.from(`HTTP/1.1 200 OK\r\n${rest}`))
      if (answer instanceof Http1Fault) continue
      const framing = chooseAnswerFraming(answer, 'GET', 11, true)
      const apart = { ...answer, fields: answer.fields, lines: undefined }
      expect(forwardResponseHead(answer, 11, framing, changes).toString(), `seed ${seed}`).toBe(
        forwardResponseHead(apart as unknown as ResponseHead, 11, framing, changes).toString(),
      )
    }
  })
})
