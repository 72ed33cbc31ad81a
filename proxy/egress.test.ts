import { once } from 'node:events'
import http from 'node:http'
import http2 from 'node:http2'
import net from 'node:net'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { NoRoom } from './dispatcher.ts'
import { InstancePool } from './instance-pool.ts'
import { deadAddress, TestPlaces, waitUntil } from './test-places.ts'

let mesh: TestPlaces
beforeEach(() => {
  mesh = new TestPlaces()
})
afterEach(() => mesh.stop())

interface Answer {
  readonly status: number
  readonly code: string | undefined
  readonly retryAfter: string | undefined
  readonly body: string
}

function ask(options: http.RequestOptions = {}, body = ''): http.ClientRequest {
  const request = http.request({
    ...{ port: mesh.port, headers: { host: 'orders.mesh' }, agent: false },
    ...options,
  })
  request.on('error', () => {})
  request.end(body)
  return request
}

async function call(options: http.RequestOptions = {}, body = ''): Promise<Answer> {
  const [response] = (await once(ask(options, body), 'response')) as [http.IncomingMessage]
  let text = ''
  for await (const chunk of response) text += chunk
  const { statusCode: status = 0, headers } = response
  return { status, code: headers['x-flatmesh-error']?.toString(), retryAfter: headers['retry-after'], body: text }
}

/** An instance that answers when the test says so. */
class SlowInstance {
  readonly waiting: http.ServerResponse[] = []
  asked = 0
  gone = 0

  readonly server = http.createServer((request, response) => {
    this.asked++
    this.waiting.push(response)
    request.resume()
    response.on('close', () => {
      if (!response.writableFinished) this.gone++
    })
  })

  async answerNext(text: string): Promise<void> {
    await waitUntil('the instance has a call', () => this.waiting.length > 0)
    this.waiting.shift()?.end(text)
  }
}

/** An instance that takes a connection, reads the first bytes of a request, and closes. Counts requests. */
function rude(how: 'end' | 'reset'): { server: net.Server; asked: () => number } {
  let asked = 0
  const server = net.createServer(socket => {
    socket.on('error', () => {})
    socket.once('data', () => {
      asked++
      if (how === 'end') socket.end()
      else socket.resetAndDestroy()
    })
  })
  return { server, asked: () => asked }
}

describe('an instance that is lost before it answers', () => {
  test.each(['end', 'reset'] as const)('by %s: a GET goes to another one of the same place', async how => {
    const bad = rude(how)
    const good = await mesh.listen(http.createServer((_, response) => response.end('good')))
    await mesh.place('a', { orders: [await mesh.listen(bad.server), good] }).start()
    for (let i = 0; i < 4; i++) expect(await call()).toMatchObject({ status: 200, body: 'good' })
    expect(bad.asked()).toBeGreaterThan(0)
    expect(mesh.opened).toHaveLength(4)
  })

  test('a PUT goes there with its body, one with a body too large to keep and a POST do not', async () => {
    const bad = rude('end')
    const good = await mesh.listen(
      http.createServer(async (request, response) => {
        let bytes = 0
        for await (const chunk of request) bytes += (chunk as Buffer).length
        response.end(String(bytes))
      }),
    )
    const put = { method: 'PUT' }
    await mesh.place('a', { orders: [await mesh.listen(bad.server), good] }).start()
    // Equals take turns, so one of each two goes to the bad one first.
    const small = [await call(put, 'x'.repeat(50_000)), await call(put, 'x'.repeat(50_000))]
    expect(small.map(({ body }) => body)).toEqual(['50000', '50000'])
    const seen = bad.asked()
    const posts = [await call({ method: 'POST' }, 'x'), await call({ method: 'POST' }, 'x')]
    expect(posts.map(({ status, code }) => code ?? status).sort()).toEqual([200, 'instance-lost'])
    expect(bad.asked() - seen).toBe(1)
    const large = [await call(put, 'x'.repeat(200_000)), await call(put, 'x'.repeat(200_000))]
    expect(large.map(({ status, code }) => code ?? status).sort()).toEqual([200, 'instance-lost'])
  })

  test('when all are lost the caller is told so, never that nothing was sent', async () => {
    const [one, two] = [rude('end'), rude('end')]
    await mesh.place('a', { orders: [await mesh.listen(one.server), await mesh.listen(two.server)] }).start()
    expect(await call()).toMatchObject({ status: 502, code: 'instance-lost' })
    expect([one.asked(), two.asked()]).toEqual([1, 1])
    const third = rude('end')
    mesh.place('a', { orders: [await mesh.listen(third.server), await deadAddress()] })
    const told = [await call(), await call()]
    expect(told.map(({ code }) => code)).toContain('instance-lost')
  })

  test('a warm connection that is closed as it is used costs a GET nothing, and a POST is not sent twice', async () => {
    let requests = 0
    const sockets: net.Socket[] = []
    const address = await mesh.listen(
      net.createServer(socket => {
        sockets.push(socket)
        socket.on('error', () => {})
        let answered = 0
        socket.on('data', () => {
          requests++
          // The first request of a connection is answered, the second is met by a close.
          if (answered++ === 0) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
          else socket.resetAndDestroy()
        })
      }),
    )
    await mesh.place('a', { orders: [address] }).start()
    expect(await call()).toMatchObject({ status: 200 })
    expect(await call()).toMatchObject({ status: 200, body: 'ok' })
    expect([requests, sockets.length]).toEqual([3, 2])
    expect(await call({ method: 'POST' }, 'x')).toMatchObject({ status: 502, code: 'instance-lost' })
    expect(requests).toBe(4)
  })
})

describe('an instance with as many calls as it may have', () => {
  let slow: SlowInstance
  beforeEach(() => {
    slow = new SlowInstance()
  })

  async function start(options: { queueMax?: number; queueTimeoutMs?: number } = {}): Promise<void> {
    const address = await mesh.listen(slow.server)
    await mesh.place('a', { orders: [address] }, 'http', { connectionsMax: 1, ...options }).start()
  }
  const queued = (): number | undefined => mesh.places.get('a')?.egress.poolCounts()[0]?.queued

  test('gets the next one when it has answered, in the order they came, with their bodies', async () => {
    await start()
    const answers: string[] = []
    const calls = ['1', '2', '3'].map(async name => {
      answers.push((await call({ method: 'POST', path: `/${name}` }, name.repeat(1000))).body)
    })
    for (const name of ['1', '2', '3']) {
      await waitUntil('one call is there, the others wait', () => slow.waiting.length === 1)
      expect(slow.asked).toBe(Number(name))
      await slow.answerNext(name)
    }
    await Promise.all(calls)
    expect(answers).toEqual(['1', '2', '3'])
    expect(mesh.places.get('a')?.egress.poolCounts()).toEqual([{ service: 'orders', idle: 1, busy: 0, queued: 0 }])
  })

  test('never sees a call whose client gave up waiting', async () => {
    await start()
    const first = call()
    await waitUntil('the instance has the first', () => slow.asked === 1)
    const gone = ask()
    const last = call()
    await waitUntil('both wait', () => queued() === 2)
    gone.destroy()
    await waitUntil('one is gone', () => queued() === 1)
    await slow.answerNext('first')
    await slow.answerNext('last')
    expect([(await first).body, (await last).body, slow.asked]).toEqual(['first', 'last', 2])
  })

  test('is 503 with Retry-After for who waited in vain, or came when too many waited', async () => {
    await start({ queueMax: 1, queueTimeoutMs: 200 })
    const first = call()
    await waitUntil('the instance has the first', () => slow.asked === 1)
    const [second, third] = await Promise.all([call(), call()])
    expect([second, third]).toMatchObject(
      Array.from({ length: 2 }, () => ({ status: 503, code: 'instance-busy', retryAfter: '3' })),
    )
    expect([second?.body, third?.body].join()).toMatch(
      /1 wait already[\s\S]*within 200 ms|within 200 ms[\s\S]*1 wait already/,
    )
    expect(mesh.places.get('a')?.egress.queueCounters).toEqual({ queued: 1, refused: 1, expired: 1 })
    await slow.answerNext('first')
    expect(await first).toMatchObject({ status: 200 })
  })

  test('is no reason to fail while another place has room: even a POST goes there', async () => {
    await start({ queueMax: 0 })
    const other = await mesh.listen(http.createServer((_, response) => response.end('other')))
    mesh.place('b', { orders: [other] })
    const first = call()
    await waitUntil('the instance has the first', () => slow.asked === 1)
    expect(await call({ method: 'POST' }, 'x')).toMatchObject({ status: 200, body: 'other' })
    await slow.answerNext('first')
    await first
  })

  test('is not kept busy by WebSockets and the like', async () => {
    await start()
    slow.server.on('upgrade', (_, socket) => {
      socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n')
      socket.pipe(socket)
    })
    const upgrade = { host: 'orders.mesh', upgrade: 'echo', connection: 'upgrade' }
    const tunnels: net.Socket[] = []
    for (let i = 0; i < 3; i++) {
      const [, socket] = (await once(ask({ headers: upgrade }), 'upgrade')) as [unknown, net.Socket]
      tunnels.push(socket)
    }
    const answered = call()
    await slow.answerNext('still here')
    expect((await answered).body).toBe('still here')
    for (const socket of tunnels) socket.destroy()
  })
})

describe('an instance of HTTP/2', () => {
  let streams: http2.ServerHttp2Stream[]
  let sessions: http2.ServerHttp2Session[]
  beforeEach(() => {
    streams = []
    sessions = []
  })

  function server(streamsMax: number): http2.Http2Server {
    const one = http2.createServer({ settings: { maxConcurrentStreams: streamsMax } })
    one.on('session', session => sessions.push(session))
    one.on('stream', stream => {
      stream.on('error', () => {})
      streams.push(stream)
    })
    return one
  }

  test('gets as many streams as its SETTINGS say, the rest wait in order', async () => {
    const address = await mesh.listen(server(2))
    await mesh.place('a', { orders: [address] }, 'h2', { connectionsMax: 1 }).start()
    const answers: string[] = []
    const calls = ['1', '2', '3', '4'].map(async name => {
      answers.push((await call({ path: `/${name}` })).body)
    })
    await waitUntil('two are there', () => streams.length === 2)
    await waitUntil('two wait', () => mesh.places.get('a')?.egress.poolCounts()[0]?.queued === 2)
    expect(mesh.places.get('a')?.egress.poolCounts()).toEqual([{ service: 'orders', idle: 0, busy: 1, queued: 2 }])
    for (let i = 0; i < 4; i++) {
      await waitUntil('there is another', () => streams.length > i)
      streams[i]?.respond()
      streams[i]?.end(String(i + 1))
      await waitUntil('it is answered', () => answers.length === i + 1)
    }
    await Promise.all(calls)
    expect([answers, sessions.length]).toEqual([['1', '2', '3', '4'], 1])
  })

  test('is asked for one connection by many calls at once; those it has no room for are told so', async () => {
    const address = await mesh.listen(server(2))
    const pool = new InstancePool({ nowMs: () => performance.now() }, { connectionsMax: 1 })
    mesh.onStop(() => pool.stop())
    const asked = await Promise.allSettled(Array.from({ length: 3 }, () => pool.h2.connect(address)))
    expect(asked.map(one => (one.status === 'rejected' ? one.reason : one.status))).toEqual([
      'fulfilled',
      'fulfilled',
      expect.any(NoRoom),
    ])
    expect([pool.h2.hasRoom(address), pool.size]).toEqual([false, 1])
  })

  test('whose connection is lost before the answer: a GET goes to another one, a POST does not', async () => {
    const dying = server(100)
    dying.on('stream', ({ session }) => session?.destroy())
    const good = http2.createServer((_, response) => response.end('good'))
    await mesh.place('a', { orders: [await mesh.listen(dying), await mesh.listen(good)] }, 'h2').start()
    for (let i = 0; i < 4; i++) expect(await call()).toMatchObject({ status: 200, body: 'good' })
    expect(sessions.length).toBeGreaterThan(0)
    const posts = [await call({ method: 'POST' }, 'x'), await call({ method: 'POST' }, 'x')]
    expect(posts.map(({ status, code }) => code ?? status).sort()).toEqual([200, 'instance-lost'])
  })

  test('that refuses a stream unseen: any call goes to another one', async () => {
    const refusing = server(100)
    refusing.on('stream', stream => stream.close(http2.constants.NGHTTP2_REFUSED_STREAM))
    const good = http2.createServer((_, response) => response.end('good'))
    await mesh.place('a', { orders: [await mesh.listen(refusing), await mesh.listen(good)] }, 'h2').start()
    for (let i = 0; i < 4; i++) {
      expect(await call({ method: 'POST' }, 'x')).toMatchObject({ status: 200, body: 'good' })
    }
    expect(streams.length).toBeGreaterThan(0)
  })
})
