import { once } from 'node:events'
import http from 'node:http'
import http2 from 'node:http2'
import net from 'node:net'
import { afterEach, describe, expect, test } from 'vitest'
import { createLocalCall } from './local-call.ts'
import { rethrow } from './rethrow-fixture.ts'
import { deadAddress, TestPlaces, waitUntil } from './test-places.ts'

let mesh = new TestPlaces()
afterEach(async () => {
  await mesh.stop()
  mesh = new TestPlaces()
})

interface Answer {
  readonly status: number
  readonly headers: http2.IncomingHttpHeaders
  readonly body: string
  readonly trailers: http2.IncomingHttpHeaders | undefined
}

function session(): http2.ClientHttp2Session {
  const one = http2.connect(`http://127.0.0.1:${mesh.port}`)
  one.on('error', () => {})
  mesh.onStop(() => one.destroy())
  return one
}

async function answerOf(stream: http2.ClientHttp2Stream): Promise<Answer> {
  let trailers: http2.IncomingHttpHeaders | undefined
  stream.on('trailers', found => {
    trailers = found
  })
  const [headers] = (await once(stream, 'response')) as [http2.IncomingHttpHeaders]
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(chunk as Buffer)
  return { status: Number(headers[':status']), headers, body: Buffer.concat(chunks).toString(), trailers }
}

async function call(
  on: http2.ClientHttp2Session,
  headers: http2.OutgoingHttpHeaders,
  body?: Buffer | string,
): Promise<Answer> {
  const stream = on.request(
    { ':path': '/', ':authority': 'orders.mesh', ...headers },
    { endStream: body === undefined },
  )
  if (body !== undefined) stream.end(body)
  return await answerOf(stream)
}

/** Answers what was asked, as JSON, with the body at the end of it. */
async function report(request: http.IncomingMessage | http2.Http2ServerRequest): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  const { method, url, headers, trailers } = request
  return JSON.stringify({ method, url, headers, trailers, body: Buffer.concat(chunks).toString() })
}

function h1(): http.Server {
  return http.createServer(async (request, response) => {
    response.setHeader('x-answer', 'h1')
    response.end(await report(request))
  })
}

function h2(): http2.Http2Server {
  return http2.createServer(async (request, response) => {
    response.setHeader('x-answer', 'h2')
    response.end(await report(request))
  })
}

describe('HTTP/2 and HTTP/1.1 on one port, to instances of either', () => {
  test('a client of HTTP/2 calls an instance of HTTP/2', async () => {
    await mesh.place('b', { orders: [await mesh.listen(h2())] }, 'h2').start()
    const answer = await call(session(), { ':method': 'POST', ':path': '/42?x=1', 'x-own': 'yes' }, 'hello')
    expect(answer).toMatchObject({
      status: 200,
      headers: { 'x-answer': 'h2', via: '1.1 flatmesh-b, 1.1 flatmesh-here' },
    })
    expect(JSON.parse(answer.body)).toMatchObject({
      ...{ method: 'POST', url: '/42?x=1', body: 'hello' },
      headers: {
        ...{ ':authority': 'orders.mesh', 'x-own': 'yes', via: '1.1 flatmesh-here (orders)' },
        ...{ 'x-forwarded-for': '127.0.0.1', 'x-forwarded-host': 'orders.mesh', 'x-forwarded-proto': 'http' },
      },
    })
    expect(JSON.parse(answer.body).headers).not.toHaveProperty('transfer-encoding')
  })

  test('a client of HTTP/2 calls an instance of HTTP/1.1, cookies joined', async () => {
    await mesh.place('b', { orders: [await mesh.listen(h1())] }).start()
    const answer = await call(session(), { ':method': 'PUT', cookie: ['a=1', 'b=2'], te: 'trailers' }, 'hello')
    expect(answer.headers).toMatchObject({ ':status': 200, 'x-answer': 'h1' })
    expect(answer.headers).not.toHaveProperty('connection')
    expect(JSON.parse(answer.body)).toMatchObject({
      ...{ method: 'PUT', url: '/', body: 'hello' },
      headers: { host: 'orders.mesh', 'transfer-encoding': 'chunked', cookie: 'a=1; b=2', te: 'trailers' },
    })
  })

  test('a client of HTTP/1.1 calls an instance of HTTP/2', async () => {
    await mesh.place('b', { orders: [await mesh.listen(h2())] }, 'h2').start()
    const headers = { host: 'orders.mesh', connection: 'keep-alive, x-hop', 'x-hop': '1', Upgrade: 'websocket' }
    const request = http.request({ port: mesh.port, path: '/a', method: 'POST', headers })
    request.end('hello')
    const [response] = (await once(request, 'response')) as [http.IncomingMessage]
    const seen = JSON.parse(await text(response))
    expect(response.statusCode).toBe(200)
    expect(response.statusMessage).toBe('OK')
    expect(seen).toMatchObject({ method: 'POST', url: '/a', body: 'hello', headers: { ':authority': 'orders.mesh' } })
    for (const hop of ['x-hop', 'connection', 'upgrade', 'host']) expect(seen.headers).not.toHaveProperty(hop)
  })

  test('an upgrade that an instance of HTTP/2 cannot make is answered like any request', async () => {
    await mesh.place('b', { orders: [await mesh.listen(h2())] }, 'h2').start()
    const headers = { host: 'orders.mesh', connection: 'Upgrade', upgrade: 'websocket' }
    const request = http.request({ port: mesh.port, headers })
    request.end()
    const [response] = (await once(request, 'response')) as [http.IncomingMessage]
    expect(JSON.parse(await text(response))).toMatchObject({ method: 'GET' })
  })

  test('trailers go both ways, from either protocol to either', async () => {
    const ends = { 'x-sum': '3' }
    const one = http.createServer(async (request, response) => {
      const body = await report(request)
      response.writeHead(200, { trailer: 'x-sum' })
      response.write(body)
      response.addTrailers(ends)
      response.end()
    })
    const two = http2.createServer()
    two.on('stream', (stream, headers) => {
      let trailers: http2.IncomingHttpHeaders = {}
      let body = ''
      stream.on('trailers', found => {
        trailers = found
      })
      stream.on('data', chunk => {
        body += chunk
      })
      stream.on('end', () => {
        stream.respond({ ':status': 200 }, { waitForTrailers: true })
        stream.on('wantTrailers', () => stream.sendTrailers(ends))
        stream.end(JSON.stringify({ headers, trailers, body }))
      })
    })
    await mesh
      .place('b', { one: [await mesh.listen(one)] })
      .place('c', { two: [await mesh.listen(two)] }, 'h2')
      .start()
    const client = session()
    for (const service of ['one', 'two']) {
      const options = { waitForTrailers: true }
      const stream = client.request({ ':method': 'POST', ':authority': service, te: 'trailers' }, options)
      stream.on('wantTrailers', () => stream.sendTrailers({ 'x-mine': 'yes' }))
      stream.end('abc')
      const answer = await answerOf(stream)
      expect(answer.trailers).toMatchObject(ends)
      expect(JSON.parse(answer.body)).toMatchObject({ body: 'abc', trailers: { 'x-mine': 'yes' } })

      const request = http.request({ port: mesh.port, method: 'POST', headers: { host: service, trailer: 'x-mine' } })
      request.write('abc')
      request.addTrailers({ 'x-mine': 'yes' })
      request.end()
      const [response] = (await once(request, 'response')) as [http.IncomingMessage]
      expect(JSON.parse(await text(response))).toMatchObject({ body: 'abc', trailers: { 'x-mine': 'yes' } })
      expect(response.trailers).toEqual(ends)
    }
  })

  test('answers without a body end with their head, and keep what they say of it', async () => {
    const server = http2.createServer((request, response) => {
      const status = Number(request.url?.slice(1))
      const headers: http2.OutgoingHttpHeaders = status === 200 ? { 'content-length': 5 } : {}
      response.stream.respond({ ':status': status, ...headers }, { endStream: true })
    })
    await mesh.place('b', { orders: [await mesh.listen(server)] }, 'h2').start()
    const client = session()
    expect(await call(client, { ':method': 'HEAD', ':path': '/200' })).toMatchObject({
      ...{ status: 200, body: '' },
      headers: { 'content-length': '5' },
    })
    for (const status of [204, 304, 404]) {
      expect(await call(client, { ':path': `/${status}` })).toMatchObject({ status, body: '' })
    }
    expect(mesh.ingress.counters.failed).toBe(0)
  })

  test('interim answers come before the final one, and 100-continue is settled by the mesh', async () => {
    const server = http2.createServer()
    server.on('stream', stream => {
      stream.additionalHeaders({ ':status': 103, link: '</a.css>' })
      stream.respond({ ':status': 200 })
      stream.pipe(stream)
    })
    await mesh.place('b', { orders: [await mesh.listen(server)] }, 'h2').start()
    const stream = session().request({ ':method': 'POST', ':authority': 'orders', expect: '100-continue' })
    const interim: unknown[] = []
    stream.on('headers', headers => interim.push(headers[':status']))
    await once(stream, 'continue')
    stream.end('hello')
    expect(await answerOf(stream)).toMatchObject({ status: 200, body: 'hello' })
    expect(interim).toContain(103)
  })
})

describe('many calls on one connection', () => {
  test('each is routed by its own authority', async () => {
    await mesh
      .place('b', { one: [await mesh.listen(h1())] })
      .place('c', { two: [await mesh.listen(h2())] }, 'h2')
      .start()
    const client = session()
    const asked = ['one', 'two', 'nobody', 'two.mesh:80', 'one']
    const answers = await Promise.all(asked.map(authority => call(client, { ':authority': authority })))
    expect(answers.map(({ status, headers }) => headers['x-answer'] ?? status)).toEqual(['h1', 'h2', 404, 'h2', 'h1'])
    expect(answers[2]?.headers['x-flatmesh-error']).toBe('unknown-service')
    expect(JSON.parse(answers[2]?.body ?? '')).toMatchObject({ error: { code: 'unknown-service', service: 'nobody' } })
  })

  test('a reader that stops holds up its own stream and no other, and memory stays within the windows', async () => {
    let written = 0
    const server = http2.createServer((request, response) => {
      if (request.url !== '/endless') return void response.end('small')
      const fill = (): void => {
        do written += 16_000
        while (response.write(Buffer.alloc(16_000)))
      }
      response.on('drain', fill)
      fill()
    })
    await mesh.place('b', { orders: [await mesh.listen(server)] }, 'h2').start()
    const client = session()
    const stopped = client.request({ ':path': '/endless', ':authority': 'orders' })
    stopped.on('error', () => {})
    stopped.pause()
    let last = -1
    while (written !== last) {
      last = written
      for (let i = 0; i < 50; i++) expect((await call(client, { ':path': '/small' })).body).toBe('small')
    }
    // A window of each of the three hops, what each end queues beside it, and the sockets' own buffers.
    expect(written).toBeLessThan(2 * 1024 * 1024)
    stopped.resume()
    await waitUntil('it goes on', () => written > last + 1024 * 1024)
    stopped.close()
  })

  test('one connection carries more than its window, up and down, since credit comes back', async () => {
    const server = http2.createServer()
    server.on('stream', stream => {
      stream.respond({ ':status': 200 })
      stream.pipe(stream)
    })
    await mesh.place('b', { orders: [await mesh.listen(server)] }, 'h2').start()
    const client = session()
    const body = Buffer.alloc(5 * 1024 * 1024, 'flatmesh ')
    for (let i = 0; i < 8; i++) {
      const stream = client.request({ ':method': 'POST', ':authority': 'orders' })
      stream.end(body)
      let bytes = 0
      stream.on('data', (chunk: Buffer) => {
        bytes += chunk.length
      })
      await once(stream, 'close')
      expect(bytes).toBe(body.length)
    }
  })

  test('a stopped reader of tiny messages gets all of them in the end, in order', async () => {
    const server = http2.createServer()
    server.on('stream', stream => {
      stream.respond({ ':status': 200 })
      let next = 0
      const fill = (): void => {
        while (next < 30_000 && stream.write(String(next++ % 10))) {}
        if (next < 30_000) stream.once('drain', fill)
        else stream.end()
      }
      fill()
    })
    await mesh.place('b', { orders: [await mesh.listen(server)] }, 'h2').start()
    const options = { settings: { initialWindowSize: 100 } }
    const client = http2.connect(`http://127.0.0.1:${mesh.port}`, options)
    mesh.onStop(() => client.destroy())
    const answer = await call(client, {})
    expect(answer.body).toBe('0123456789'.repeat(3000))
  })

  test('an instance that stops reading holds up its own upload and no other', async () => {
    const server = http2.createServer()
    server.on('stream', (stream, headers) => {
      if (headers[':path'] === '/stopped') stream.pause()
      else {
        stream.respond({ ':status': 200 })
        stream.pipe(stream)
      }
      stream.on('error', () => {})
    })
    await mesh.place('b', { orders: [await mesh.listen(server)] }, 'h2').start()
    const client = session()
    const stopped = client.request({ ':method': 'POST', ':path': '/stopped', ':authority': 'orders' })
    stopped.on('error', () => {})
    let accepted = 0
    const fill = (): void => {
      const room = stopped.write(Buffer.alloc(16_000), error => {
        if (error != null) return
        accepted += 16_000
        if (!room) fill()
      })
      if (room) fill()
    }
    fill()
    let last = -1
    while (accepted !== last) {
      last = accepted
      for (let i = 0; i < 50; i++) {
        expect((await call(client, { ':method': 'POST', ':path': '/echo' }, 'small')).body).toBe('small')
      }
    }
    expect(accepted).toBeLessThan(2 * 1024 * 1024)
    stopped.close()
  })

  test('more calls than an instance takes at once share further connections', async () => {
    let streams = 0
    let most = 0
    let connections = 0
    const server = http2.createServer({ settings: { maxConcurrentStreams: 10 } }, async (_request, response) => {
      most = Math.max(most, ++streams)
      await new Promise(resolve => setImmediate(resolve))
      streams--
      response.end('done')
    })
    server.on('session', () => connections++)
    await mesh.place('b', { orders: [await mesh.listen(server)] }, 'h2').start()
    const client = session()
    await call(client, {})
    const answers = await Promise.all(Array.from({ length: 100 }, () => call(client, {})))
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(100)
    expect(connections).toBeGreaterThan(1)
    expect(most).toBeGreaterThan(0)
  })

  test('calls one after the other share one connection for ever, and leave nothing behind', async () => {
    await mesh.place('b', { orders: [await mesh.listen(h2())] }, 'h2').start()
    const client = session()
    // More than one connection has streams for: what a call forgets to give back is missed.
    for (let i = 0; i < 300; i++) expect((await call(client, {})).status).toBe(200)
    expect(mesh.places.get('b')?.pool.size).toBe(1)
    expect(mesh.places.get('b')?.egress.inFlight).toBe(0)
    expect(mesh.ingress.inFlight).toBe(0)
  })
})

describe('what ends early', () => {
  test('a call that an instance refused unseen is sent again, to the same one if need be', async () => {
    let refused = 0
    const server = http2.createServer()
    server.on('stream', stream => {
      stream.on('error', () => {})
      if (refused++ === 0) return void stream.close(http2.constants.NGHTTP2_REFUSED_STREAM)
      stream.respond({ ':status': 200 })
      stream.pipe(stream)
    })
    await mesh.place('b', { orders: [await mesh.listen(server)] }, 'h2').start()
    expect(await call(session(), { ':method': 'POST' }, 'once more')).toMatchObject({ status: 200, body: 'once more' })
  })

  test('an answer before the whole request stops the client without an error', async () => {
    const server = http2.createServer()
    server.on('stream', stream => {
      stream.on('error', () => {})
      stream.respond({ ':status': 413 })
      stream.end('too much')
    })
    await mesh.place('b', { orders: [await mesh.listen(server)] }, 'h2').start()
    const stream = session().request({ ':method': 'POST', ':authority': 'orders' })
    stream.write('some')
    const answer = await answerOf(stream)
    expect(answer).toMatchObject({ status: 413, body: 'too much' })
    expect(stream.rstCode).toBe(http2.constants.NGHTTP2_NO_ERROR)
    await waitUntil('nothing is left', () => mesh.ingress.inFlight === 0 && mesh.places.get('b')?.egress.inFlight === 0)
  })

  test('an instance that dies in the middle of an answer cuts that stream and no other', async () => {
    const dying = http2.createServer((request, response) => {
      response.write('begun')
      if (request.url === '/die') setImmediate(() => request.stream.session?.destroy())
    })
    await mesh
      .place('b', { one: [await mesh.listen(dying)] }, 'h2')
      .place('c', { two: [await mesh.listen(h1())] })
      .start()
    const client = session()
    const stream = client.request({ ':path': '/die', ':authority': 'one' })
    stream.on('data', () => {})
    const [error] = (await once(stream, 'error')) as [Error]
    expect(error.message).toContain('NGHTTP2_INTERNAL_ERROR')
    expect((await call(client, { ':authority': 'two' })).status).toBe(200)
  })

  test('a client of HTTP/1.1 is cut off then, and cannot take a piece for the whole', async () => {
    const dying = http2.createServer((request, response) => {
      response.write('begun')
      setImmediate(() => request.stream.session?.destroy())
    })
    await mesh.place('b', { orders: [await mesh.listen(dying)] }, 'h2').start()
    const request = http.request({ port: mesh.port, headers: { host: 'orders' } })
    request.end()
    const [response] = (await once(request, 'response')) as [http.IncomingMessage]
    await expect(text(response)).rejects.toThrow('aborted')
  })

  test('a read that comes to nothing is done at another place, another kind of call is not', async () => {
    const dying = http2.createServer(request => request.stream.session?.destroy())
    await mesh
      .place('a', { orders: [await mesh.listen(dying)] }, 'h2')
      .place('b', { orders: [await mesh.listen(h1())] })
      .start()
    const client = session()
    expect((await call(client, { ':method': 'GET' })).headers['x-answer']).toBe('h1')
    const answer = await call(client, { ':method': 'POST' }, 'x')
    expect(answer.headers).toMatchObject({ ':status': 502, 'x-flatmesh-error': 'instance-lost' })
    expect(mesh.opened).toEqual(['a', 'b', 'a'])
  })

  test('an instance nobody listens at is 503, and the attempts are told', async () => {
    await mesh.place('a', { orders: [await deadAddress()] }, 'h2').start()
    const answer = await call(session(), {})
    expect(answer.headers).toMatchObject({ ':status': 503, 'retry-after': '3', 'x-flatmesh-error': 'instance-refused' })
    expect(JSON.parse(answer.body).error.attempts).toHaveLength(1)
  })

  test('an answer that does not begin in time is 504', async () => {
    const silent = http2.createServer(() => {})
    await mesh.place('a', { orders: [await mesh.listen(silent)] }, 'h2').start()
    const answer = await call(session(), { 'x-flatmesh-timeout': '50ms' })
    expect(answer.headers).toMatchObject({ ':status': 504, 'x-flatmesh-error': 'deadline' })
  })

  test('a call whose answer was over first is over at the egress when its request is', async () => {
    const server = http2.createServer()
    server.on('stream', stream => {
      stream.on('error', () => {})
      stream.respond({ ':status': 200 }, { endStream: true })
    })
    mesh.place('b', { orders: [await mesh.listen(server)] }, 'h2')
    const place = mesh.places.get('b')
    const [mine, theirs] = createLocalCall(rethrow)
    let hasEnded = false
    const onEnd = (): void => {
      hasEnded = true
    }
    mine.handler = { onHead() {}, onData() {}, onTrailers() {}, onDrain() {}, onReset() {}, onEnd }
    const head = Buffer.from('POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\n')
    place?.egress.accept(theirs, { service: 'orders', kind: 'http', timeoutMs: 0, head })
    await waitUntil('the answer is over', () => hasEnded)
    expect(place?.egress.inFlight).toBe(1)
    mine.write(Buffer.from('late'))
    mine.end()
    await waitUntil('nothing is under way any more', () => place?.egress.inFlight === 0)
    expect(place?.instances.choose('orders')?.inFlight).toBe(0)
  })

  test('a client that resets a stream resets it at the instance', async () => {
    const codes: number[] = []
    const server = http2.createServer()
    server.on('stream', stream => {
      stream.on('error', () => {})
      stream.on('close', () => codes.push(stream.rstCode ?? -1))
      stream.respond({ ':status': 200 })
      stream.write('begun')
    })
    await mesh.place('b', { orders: [await mesh.listen(server)] }, 'h2').start()
    const stream = session().request({ ':authority': 'orders' })
    stream.on('error', () => {})
    await once(stream, 'data')
    stream.close(http2.constants.NGHTTP2_CANCEL)
    await waitUntil('the instance is told', () => codes.length === 1)
    expect(codes).toEqual([http2.constants.NGHTTP2_CANCEL])
  })

  test('a call that comes back to the ingress it came from is 508', async () => {
    await mesh.start()
    mesh.place('b', { orders: [`127.0.0.1:${mesh.port}`] }, 'h2')
    expect((await call(session(), {})).headers[':status']).toBe(508)
  })
})

describe('draining', () => {
  test('finishes every stream that has begun, takes no new one, and closes', async () => {
    let finish = (): void => {}
    const server = http2.createServer((_request, response) => {
      response.write('begun ')
      finish = () => void response.end('and done')
    })
    await mesh.place('b', { orders: [await mesh.listen(server)] }, 'h2').start()
    const client = session()
    const idle = session()
    await once(idle, 'remoteSettings')
    const stream = client.request({ ':authority': 'orders' })
    const answer = answerOf(stream)
    await once(stream, 'response')
    const closed = [once(client, 'close'), once(idle, 'close')]
    const [goaway, drained] = [once(client, 'goaway'), mesh.ingress.drain()]
    expect((await goaway)[0]).toBe(http2.constants.NGHTTP2_NO_ERROR)
    finish()
    expect((await answer).body).toBe('begun and done')
    await drained
    await Promise.all(closed)
  })

  test('a request that was on its way when it began is still answered', async () => {
    await mesh.place('b', { orders: [await mesh.listen(h2())] }, 'h2').start()
    const client = session()
    await call(client, {})
    const drained = mesh.ingress.drain()
    expect((await call(client, {})).status).toBe(200)
    await drained
  })
})

describe('telling the protocols apart', () => {
  test('takes a preface that comes byte by byte', async () => {
    await mesh.start()
    const socket = net.connect(mesh.port, '127.0.0.1')
    socket.setNoDelay(true)
    for (const byte of Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')) {
      await new Promise(resolve => socket.write(Buffer.from([byte]), resolve))
    }
    const [first] = (await once(socket, 'data')) as [Buffer]
    // SETTINGS is what a server says first.
    expect(first[3]).toBe(4)
    socket.destroy()
  })

  test('takes methods that begin like it for what they are, and a piece of it for nothing', async () => {
    await mesh.place('b', { orders: [await mesh.listen(h1())] }).start()
    for (const method of ['POST', 'PUT', 'PATCH', 'PROPFIND']) {
      const request = http.request({ port: mesh.port, method, headers: { host: 'orders' } })
      request.end()
      const [response] = (await once(request, 'response')) as [http.IncomingMessage]
      expect(JSON.parse(await text(response))).toMatchObject({ method })
    }
    const socket = net.connect(mesh.port, '127.0.0.1')
    socket.end('PR')
    expect(await text(socket)).toMatch(/^HTTP\/1.1 400 /)
  })
})

async function text(stream: AsyncIterable<unknown>): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString()
}
