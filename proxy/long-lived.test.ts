import { once } from 'node:events'
import http from 'node:http'
import net from 'node:net'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { headers, RawClient } from './test-h2.ts'
import { TestPlaces, waitUntil } from './test-places.ts'

const HOUR_MS = 3_600_000
const MINUTE_MS = 60_000

let mesh: TestPlaces
beforeEach(() => {
  mesh = new TestPlaces()
})
afterEach(() => mesh.stop())

/** A client that says what it is told to, and keeps what it hears. */
class Client {
  readonly socket: net.Socket
  heard = ''
  isClosed = false

  constructor(text = '') {
    this.socket = net.connect(mesh.port, '127.0.0.1')
    this.socket.on('error', () => {})
    this.socket.on('close', () => {
      this.isClosed = true
    })
    this.socket.setEncoding('latin1').on('data', chunk => {
      this.heard += chunk
    })
    mesh.onStop(() => this.socket.destroy())
    this.send(text)
  }

  send(text: string): void {
    this.socket.write(text)
  }

  hears(text: string): Promise<void> {
    return waitUntil(`the client hears ${text}`, () => this.heard.includes(text))
  }

  get closed(): Promise<void> {
    return waitUntil('the connection is closed', () => this.isClosed)
  }

  get status(): string {
    return this.heard.slice(9, 12)
  }
}

const GET = (path = '/', more = ''): string => `GET ${path} HTTP/1.1\r\nHost: orders.mesh\r\n${more}\r\n`

/** `/events` streams what the test writes, `/poll` is answered when it says so, an upgrade echoes, all else is answered. */
async function start(options: Parameters<TestPlaces['start']>[0] = {}): Promise<http.ServerResponse[]> {
  const open: http.ServerResponse[] = []
  const server = http.createServer({ keepAliveTimeout: 0 }, (request, response) => {
    if (request.url === '/events') response.write('data: first\n\n')
    if (request.url === '/events' || request.url === '/poll') open.push(response)
    else response.end('hello')
  })
  server.on('upgrade', (_, socket) => {
    socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n')
    socket.pipe(socket)
  })
  await mesh.place('a', { orders: [await mesh.listen(server)] }).start(options)
  return open
}

/** Lets time pass until the time-outs were looked at: a connection that is idle then is closed. */
async function pass(ms: number): Promise<void> {
  const witness = new Client(GET())
  await witness.hears('hello')
  mesh.skippedMs += ms
  await witness.closed
}

describe('a connection on which nothing moves for an hour', () => {
  test('is not ended if it is a WebSocket or an event stream', async () => {
    const events = await start()
    const socket = new Client(GET('/', 'Upgrade: websocket\r\nConnection: upgrade\r\n'))
    const stream = new Client(GET('/events'))
    await Promise.all([socket.hears('101 Switching'), stream.hears('data: first')])
    await pass(HOUR_MS)
    await pass(HOUR_MS)
    expect([socket.isClosed, stream.isClosed]).toEqual([false, false])
    socket.send('still there?')
    events[0]?.write('data: second\n\n')
    await Promise.all([socket.hears('still there?'), stream.hears('data: second')])
  })
})

describe('a long poll', () => {
  test('waits as long as the config says, and then the instance hears that nobody waits any more', async () => {
    const polls = await start({ timeoutMs: 10 * MINUTE_MS })
    const answered = new Client(GET('/poll'))
    await waitUntil('the poll is there', () => polls.length === 1)
    await pass(9 * MINUTE_MS)
    expect(answered.heard).toBe('')
    polls[0]?.end('news')
    await answered.hears('news')
    const late = new Client(GET('/poll'))
    await waitUntil('the second poll is there', () => polls.length === 2)
    const given = once(polls[1] as http.ServerResponse, 'close')
    await pass(10 * MINUTE_MS)
    await late.hears('x-flatmesh-error: deadline')
    await given
  })

  test('may ask for more time than the config gives, by x-flatmesh-timeout', async () => {
    const polls = await start({ timeoutMs: MINUTE_MS })
    const patient = new Client(GET('/poll', 'x-flatmesh-timeout: 30m\r\n'))
    await waitUntil('the poll is there', () => polls.length === 1)
    await pass(29 * MINUTE_MS)
    polls[0]?.end('news')
    await patient.hears('news')
  })
})

test('a WebSocket over HTTP/2 is refused without harm to the connection: clients fall back to HTTP/1.1', async () => {
  await start()
  const client = RawClient.greeted(mesh.port)
  const pseudo = [':method', 'CONNECT', ':protocol', 'websocket', ':scheme', 'http', ':path', '/']
  client.send(headers(1, [...pseudo, ':authority', 'orders.mesh']))
  expect(await client.outcome(1)).toBe('PROTOCOL_ERROR')
  client.send(headers(3, [':method', 'GET', ':scheme', 'http', ':path', '/', ':authority', 'orders.mesh']))
  expect(await client.outcome(3)).toBe('200')
  client.socket.destroy()
})

describe('more client connections than the ingress may have', () => {
  test('close the one that is idle for longest, never one with a request', async () => {
    const polls = await start({ clientConnectionsMax: 3 })
    const busy = new Client(GET('/poll'))
    await waitUntil('the poll is there', () => polls.length === 1)
    const older = new Client(GET())
    await older.hears('hello')
    mesh.skippedMs += 1000
    const newer = new Client(GET())
    await newer.hears('hello')
    const last = new Client(GET())
    await last.hears('hello')
    await older.closed
    expect([busy.isClosed, newer.isClosed, last.isClosed]).toEqual([false, false, false])
    const one = new Client(GET())
    await one.hears('hello')
    await newer.closed
    expect([busy.isClosed, last.isClosed]).toEqual([false, false])
    polls[0]?.end('news')
    await busy.hears('news')
  })

  test('are told so when none is idle, and count as failed; afterwards there is room again', async () => {
    const polls = await start({ clientConnectionsMax: 2 })
    const busy = [new Client(GET('/poll')), new Client(GET('/poll'))]
    await waitUntil('the polls are there', () => polls.length === 2)
    const refused = new Client(GET())
    await refused.hears('all 2 client connections of this node are in use')
    expect(refused.status).toBe('503')
    expect(refused.heard).toMatch(/x-flatmesh-error: overloaded\r\n[\s\S]*Retry-After: 3\r\n[\s\S]*Connection: close/)
    await refused.closed
    expect(mesh.ingress.counters).toMatchObject({ total: 3, failed: 1 })
    for (const poll of polls) poll.end('news')
    for (const client of busy) await client.hears('news')
    const next = new Client(GET())
    await next.hears('hello')
  })

  test('of HTTP/2 are closed when idle like all others', async () => {
    await start({ clientConnectionsMax: 1 })
    const first = RawClient.greeted(mesh.port)
    first.send(headers(1, [':method', 'GET', ':scheme', 'http', ':path', '/', ':authority', 'orders.mesh']))
    expect(await first.outcome(1)).toBe('200')
    const next = new Client(GET())
    await next.hears('hello')
    expect((await first.goaway()).code).toBe('NO_ERROR')
    first.socket.destroy()
  })
})
