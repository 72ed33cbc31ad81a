import { once } from 'node:events'
import http from 'node:http'
import http2 from 'node:http2'
import net from 'node:net'
import grpc from '@grpc/grpc-js'
import { afterEach, describe, expect, test } from 'vitest'
import { parseAddress } from './address.ts'
import { parseGrpcTimeoutMs } from './grpc.ts'
import { EchoClient, type EchoHandlers, startEcho } from './test-grpc.ts'
import { deadAddress, TestPlaces, waitUntil } from './test-places.ts'

let mesh = new TestPlaces()
afterEach(async () => {
  await mesh.stop()
  mesh = new TestPlaces()
})

async function echo(handlers: EchoHandlers): Promise<string> {
  const { server, address } = await startEcho(handlers)
  mesh.onStop(() => server.forceShutdown())
  return address
}

function clientOf(authority = 'echo.mesh'): EchoClient {
  const client = new EchoClient(`127.0.0.1:${mesh.port}`, authority)
  mesh.onStop(() => client.close())
  return client
}

async function withEcho(handlers: EchoHandlers): Promise<EchoClient> {
  await mesh.place('b', { echo: [await echo(handlers)] }).start()
  return clientOf()
}

async function statusOf(call: Promise<unknown>): Promise<grpc.ServiceError> {
  return await call.then(
    () => {
      throw new Error('the call went well')
    },
    (error: grpc.ServiceError) => error,
  )
}

function endOf(call: grpc.ClientReadableStream<Buffer>): Promise<grpc.StatusObject> {
  call.on('error', () => {})
  call.on('data', () => {})
  return new Promise(resolve => call.on('status', resolve))
}

describe('gRPC through the mesh', () => {
  test('carries a unary call with metadata both ways, in heads and in trailers', async () => {
    const client = await withEcho({
      Unary(call, answer) {
        const metadata = new grpc.Metadata()
        metadata.set('x-head', 'one')
        call.sendMetadata(metadata)
        const trailers = new grpc.Metadata()
        trailers.set('x-trailer-bin', Buffer.from([0, 255, 13, 10]))
        trailers.set('x-seen', String(call.metadata.get('x-own')[0]))
        answer(null, Buffer.concat([call.request, Buffer.from('!')]), trailers)
      },
    })
    const metadata = new grpc.Metadata()
    metadata.set('x-own', 'mine')
    const seen = await client.unary(Buffer.from('hello'), {}, metadata)
    expect(seen.answer.toString()).toBe('hello!')
    expect(seen.metadata.get('x-head')).toEqual(['one'])
    expect(seen.metadata.get('via')).toEqual(['1.1 flatmesh-b, 1.1 flatmesh-here'])
    expect(seen.trailers.get('x-trailer-bin')).toEqual([Buffer.from([0, 255, 13, 10])])
    expect(seen.trailers.get('x-seen')).toEqual(['mine'])
  })

  test('gives back all metadata of the call in trailers, but for fields that have no place there', async () => {
    const client = await withEcho({ Unary: (call, answer) => answer(null, call.request, call.metadata) })
    const metadata = new grpc.Metadata()
    for (const name of ['x-own', 'cookie', 'forwarded', 'x-flatmesh-error']) metadata.set(name, 'mine')
    const { answer, trailers } = await client.unary(Buffer.from('hello'), {}, metadata)
    expect(answer.toString()).toBe('hello')
    expect(trailers.getMap()).toMatchObject({ 'x-own': 'mine' })
    const found = Object.keys(trailers.getMap()).filter(name =>
      /^(?:x-forwarded-.*|x-flatmesh-.*|cookie|forwarded)$/.test(name),
    )
    expect(found).toEqual([])
  })

  test('goes where its metadata asks for, which the instance does not see, or says that this is nowhere', async () => {
    const seen: string[] = []
    const handlers: EchoHandlers = {
      Unary(call, answer) {
        seen.push(...Object.keys(call.metadata.getMap()).filter(name => name.startsWith('x-')))
        answer(null, call.request)
      },
    }
    const address = await echo(handlers)
    mesh.place('near', { echo: [address] }, 'h2', { labels: { version: 'v1' } })
    await mesh.place('far', { echo: [address] }, 'h2', { labels: { version: 'v2' } }).start()
    const client = clientOf()
    const asking = (label: string): grpc.Metadata => {
      const metadata = new grpc.Metadata()
      metadata.set('x-flatmesh-label', label)
      return metadata
    }
    await client.unary(Buffer.from('hello'), {}, asking('version=v2'))
    expect(mesh.opened).toEqual(['far'])
    expect(seen.filter(name => name.startsWith('x-flatmesh'))).toEqual([])
    const nowhere = await statusOf(client.unary(Buffer.from('hello'), {}, asking('version=v3')))
    expect([nowhere.code, nowhere.metadata.get('x-flatmesh-error')]).toEqual([
      grpc.status.UNAVAILABLE,
      ['no-matching-place'],
    ])
    const unreadable = await statusOf(client.unary(Buffer.from('hello'), {}, asking('v2')))
    expect(unreadable.metadata.get('x-flatmesh-error')).toEqual(['bad-request'])
  })

  test('carries messages of 4 MB up and down, whole', async () => {
    const client = await withEcho({ Unary: (call, answer) => answer(null, call.request) })
    const message = Buffer.alloc(4 * 1024 * 1024)
    for (let i = 0; i < message.length; i += 4) message.writeUInt32LE((i * 2654435761) >>> 0, i)
    const { answer } = await client.unary(message)
    expect(answer.equals(message)).toBe(true)
  })

  test('brings the service’s own error to the client as it is, before and after messages', async () => {
    const client = await withEcho({
      Unary: (_call, answer) => answer({ code: grpc.status.NOT_FOUND, details: 'no “such” thing' }),
      Download(call) {
        call.write(Buffer.from('one'))
        call.emit('error', { code: grpc.status.DATA_LOSS, details: 'gone' })
      },
    })
    expect(await statusOf(client.unary(Buffer.alloc(0)))).toMatchObject({ code: 5, details: 'no “such” thing' })
    expect(await endOf(client.download(Buffer.alloc(0)))).toMatchObject({ code: 15, details: 'gone' })
  })

  test('streams an upload, whose answer comes when it is over', async () => {
    const client = await withEcho({
      Upload(call, answer) {
        let bytes = 0
        call.on('data', (message: Buffer) => {
          bytes += message.length
        })
        call.on('end', () => answer(null, Buffer.from(String(bytes))))
      },
    })
    const answer = await new Promise<Buffer | undefined>((resolve, reject) => {
      const call = client.upload((error, answer) => (error === null ? resolve(answer) : reject(error)))
      for (let i = 0; i < 100; i++) call.write(Buffer.alloc(20_000, i))
      call.end()
    })
    expect(answer?.toString()).toBe('2000000')
  })

  test('streams a download in order', async () => {
    const client = await withEcho({
      Download(call) {
        for (let i = 0; i < 500; i++) call.write(Buffer.from(String(i)))
        call.end()
      },
    })
    const seen: string[] = []
    const call = client.download(Buffer.alloc(0))
    call.on('data', (message: Buffer) => seen.push(message.toString()))
    expect((await new Promise<grpc.StatusObject>(resolve => call.on('status', resolve))).code).toBe(0)
    expect(seen).toEqual(Array.from({ length: 500 }, (_, i) => String(i)))
  })

  test('lets both sides of a chat speak in turn: neither half waits for the end of the other', async () => {
    const client = await withEcho({
      Chat(call) {
        call.write(Buffer.from('welcome'))
        call.on('data', (message: Buffer) => call.write(Buffer.from(`you said ${message}`)))
        call.on('end', () => call.end())
      },
    })
    const call = client.chat()
    const next = async (): Promise<string> => String((await once(call, 'data'))[0])
    expect(await next()).toBe('welcome')
    for (const word of ['a', 'b', 'c']) {
      const answer = next()
      call.write(Buffer.from(word))
      expect(await answer).toBe(`you said ${word}`)
    }
    const over = endOf(call)
    call.end()
    expect((await over).code).toBe(0)
  })

  test('balances each call by itself: two on one connection reach two instances', async () => {
    const addresses = [
      await echo({ Unary: (_call, answer) => answer(null, Buffer.from('1')) }),
      await echo({ Unary: (_call, answer) => answer(null, Buffer.from('2')) }),
    ]
    await mesh.place('b', { echo: addresses }).start()
    const client = clientOf()
    const answers = [await client.unary(Buffer.alloc(0)), await client.unary(Buffer.alloc(0))]
    expect(answers.map(({ answer }) => answer.toString()).sort()).toEqual(['1', '2'])
  })
})

describe('deadlines and cancellation', () => {
  test('a deadline ends the call at the client and at the instance', async () => {
    let cancelled = 0
    const client = await withEcho({
      Unary(call) {
        call.on('cancelled', () => cancelled++)
      },
    })
    const error = await statusOf(client.unary(Buffer.alloc(0), { deadline: Date.now() + 300 }))
    expect(error.code).toBe(grpc.status.DEADLINE_EXCEEDED)
    await waitUntil('the instance is told', () => cancelled === 1)
  })

  test('the instance is told how much of the time is left, which is less than was given', async () => {
    const server = http2.createServer((request, response) => {
      response.stream.respond(
        {
          ':status': 200,
          'content-type': 'application/grpc',
          'grpc-status': '0',
          'x-left': String(request.headers['grpc-timeout']),
        },
        { endStream: true },
      )
    })
    await mesh.place('b', { echo: [await mesh.listen(server)] }).start()
    const session = http2.connect(`http://127.0.0.1:${mesh.port}`)
    mesh.onStop(() => session.destroy())
    const fields = {
      ':method': 'POST',
      ':path': '/a/b',
      ':authority': 'echo.mesh',
      'content-type': 'application/grpc',
      te: 'trailers',
    }
    const ask = async (timeout: string): Promise<http2.IncomingHttpHeaders> => {
      const stream = session.request({ ...fields, 'grpc-timeout': timeout })
      stream.end()
      const [headers] = await once(stream, 'response')
      stream.resume()
      return headers as http2.IncomingHttpHeaders
    }
    const left = /^(\d+)([mun])$/.exec(String((await ask('2S'))['x-left']))
    const leftMs = Number(left?.[1]) * { m: 1, u: 1e-3, n: 1e-6 }[left?.[2] as 'm' | 'u' | 'n']
    expect(leftMs).toBeGreaterThan(0)
    expect(leftMs).toBeLessThan(2000)
    expect(mesh.lastTimeoutMs).toBeLessThanOrEqual(2000)
    expect((await ask('2'))['grpc-status']).toBe('13')
    expect((await ask('2'))['x-flatmesh-error']).toBe('bad-request')
  })

  test('what was spent on another place, and on reaching the instance, is taken off', async () => {
    const server = http2.createServer((request, response) => {
      response.stream.respond(
        { ':status': 200, 'x-left': String(request.headers['grpc-timeout']) },
        { endStream: true },
      )
    })
    const instance = await mesh.listen(server)
    // An instance that takes its time before it says that it is there.
    const door = net.createServer(socket => {
      setTimeout(() => {
        const through = net.connect(parseAddress(instance))
        socket.pipe(through).pipe(socket)
        through.on('error', () => {})
      }, 20)
    })
    const heads: string[] = []
    await mesh
      .place('a', { echo: [] })
      .place('b', { echo: [await mesh.listen(door)] })
      .start()
    mesh.onOpen = (place, call, open) => {
      heads.push(open.head.toString())
      if (place !== 'a') return false
      call.handler = { onHead() {}, onData() {}, onTrailers() {}, onEnd() {}, onDrain() {}, onReset() {} }
      const reset = { code: 'instance-refused', reason: 'busy', node: 'a', unexecuted: true } as const
      setTimeout(() => call.reset(reset), 20)
      return true
    }
    const session = http2.connect(`http://127.0.0.1:${mesh.port}`)
    mesh.onStop(() => session.destroy())
    const fields = { ':method': 'POST', ':path': '/a/b', ':authority': 'echo', 'content-type': 'application/grpc' }
    const stream = session.request({ ...fields, 'grpc-timeout': '2S' })
    stream.end()
    const [headers] = (await once(stream, 'response')) as [http2.IncomingHttpHeaders]
    stream.resume()
    const spans = [...heads.map(head => /grpc-timeout: (\w+)/.exec(head)?.[1] ?? ''), String(headers['x-left'])]
    const [first = 0, second = 0, third = 0] = spans.map(span => parseGrpcTimeoutMs(span))
    expect(first).toBeLessThanOrEqual(2000)
    // Timers may fire a millisecond early.
    expect(second).toBeLessThan(first - 15)
    expect(third).toBeLessThan(second - 15)
    expect(third).toBeGreaterThan(0)
  })

  test('the mesh ends a call past its deadline by itself, as DEADLINE_EXCEEDED', async () => {
    await mesh.place('b', { echo: ['127.0.0.1:1'] }).start()
    mesh.onOpen = () => true
    const session = http2.connect(`http://127.0.0.1:${mesh.port}`)
    mesh.onStop(() => session.destroy())
    const fields = { ':method': 'POST', ':path': '/a/b', ':authority': 'echo', 'content-type': 'application/grpc' }
    const stream = session.request({ ...fields, 'grpc-timeout': '100m' })
    const [headers] = (await once(stream, 'response')) as [http2.IncomingHttpHeaders]
    expect(headers).toMatchObject({ ':status': 200, 'grpc-status': '4', 'x-flatmesh-error': 'deadline' })
  })

  test('a client that cancels cancels at the instance, in a call and in a chat', async () => {
    const seen: string[] = []
    const client = await withEcho({
      Download(call) {
        call.write(Buffer.from('begun'))
        call.on('cancelled', () => seen.push('download'))
      },
      Chat(call) {
        call.write(Buffer.from('begun'))
        call.on('cancelled', () => seen.push('chat'))
      },
    })
    for (const call of [client.download(Buffer.alloc(0)), client.chat()]) {
      const over = endOf(call)
      await once(call, 'data')
      call.cancel()
      expect((await over).code).toBe(grpc.status.CANCELLED)
    }
    await waitUntil('both are told', () => seen.length === 2)
    await waitUntil('nothing is left', () => mesh.ingress.inFlight === 0 && mesh.places.get('b')?.egress.inFlight === 0)
  })

  test('a client that vanishes cancels at the instance', async () => {
    let cancelled = 0
    const client = await withEcho({
      Chat(call) {
        call.write(Buffer.from('begun'))
        call.on('cancelled', () => cancelled++)
      },
    })
    const call = client.chat()
    call.on('error', () => {})
    await once(call, 'data')
    for (const socket of [mesh.ingress]) await socket.stop()
    await waitUntil('the instance is told', () => cancelled === 1)
  })

  test('an instance that cancels is heard by the client as CANCELLED', async () => {
    const server = http2.createServer()
    server.on('stream', stream => {
      stream.on('error', () => {})
      stream.close(http2.constants.NGHTTP2_CANCEL)
    })
    await mesh.place('b', { echo: [await mesh.listen(server)] }).start()
    const error = await statusOf(clientOf().unary(Buffer.alloc(0)))
    expect(error.code).toBe(grpc.status.CANCELLED)
  })
})

describe('errors of the mesh, to a client of gRPC', () => {
  const flatmesh = (error: grpc.ServiceError): unknown[] => [
    error.code,
    ...error.metadata.get('x-flatmesh-error'),
    ...error.metadata.get('x-flatmesh-node'),
  ]

  test('an unknown service is UNIMPLEMENTED, and says that the mesh says so', async () => {
    await mesh.start()
    const error = await statusOf(clientOf('nobody.mesh').unary(Buffer.alloc(0)))
    expect(flatmesh(error)).toEqual([grpc.status.UNIMPLEMENTED, 'unknown-service', 'here'])
    expect(error.details).toBe('flatmesh: no node of the mesh offers a service named nobody')
  })

  test('a service without a healthy place is UNAVAILABLE', async () => {
    await mesh
      .place('b', { echo: [] })
      .place('c', { echo: [await deadAddress()] })
      .start()
    const error = await statusOf(clientOf().unary(Buffer.alloc(0)))
    expect(flatmesh(error)).toEqual([grpc.status.UNAVAILABLE, 'instance-refused', 'here'])
    expect(mesh.opened).toEqual(['b', 'c'])
  })

  test('an instance that speaks only HTTP/1 is INTERNAL, and the message says what to do', async () => {
    const server = http.createServer((_request, response) => response.end('hello'))
    await mesh.place('b', { echo: [await mesh.listen(server)] }).start()
    const error = await statusOf(clientOf().unary(Buffer.alloc(0)))
    expect(flatmesh(error)).toEqual([grpc.status.INTERNAL, 'bad-answer', 'here'])
    expect(error.details).toContain('need HTTP/2 without TLS')
  })

  test('an instance that dies in the middle of a stream is UNAVAILABLE, with the mesh’s reason in the trailers', async () => {
    const { server, address } = await startEcho({ Download: call => void call.write(Buffer.from('begun')) })
    mesh.onStop(() => server.forceShutdown())
    await mesh.place('b', { echo: [address] }).start()
    const call = clientOf().download(Buffer.alloc(0))
    const over = endOf(call)
    await once(call, 'data')
    for (const { pool } of mesh.places.values()) pool.stop()
    const status = await over
    expect(status.code).toBe(grpc.status.UNAVAILABLE)
    expect(status.metadata.get('x-flatmesh-error')).toEqual(['instance-lost'])
  })

  test('a call that no instance has seen goes to the next place, its message with it', async () => {
    const answers = await echo({ Unary: (call, answer) => answer(null, call.request) })
    await mesh
      .place('a', { echo: [await deadAddress()] })
      .place('b', { echo: [answers] })
      .start()
    const { answer } = await clientOf().unary(Buffer.alloc(30_000, 7))
    expect(answer.equals(Buffer.alloc(30_000, 7))).toBe(true)
    expect(mesh.opened).toEqual(['a', 'b'])
  })

  test('a call of gRPC is not tried twice once an instance may have acted on it', async () => {
    let calls = 0
    const server = http2.createServer()
    server.on('stream', stream => {
      calls++
      stream.session?.destroy()
    })
    const address = await mesh.listen(server)
    await mesh
      .place('a', { echo: [address] })
      .place('b', { echo: [address] })
      .start()
    const error = await statusOf(clientOf().unary(Buffer.alloc(0)))
    expect(flatmesh(error)).toEqual([grpc.status.UNAVAILABLE, 'instance-lost', 'here'])
    expect(calls).toBe(1)
  })
})
