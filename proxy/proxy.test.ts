import { once } from 'node:events'
import http from 'node:http'
import net from 'node:net'
import { afterEach, describe, expect, test } from 'vitest'
import { silentLog } from '../router/log.ts'
import type { Candidate } from '../router/model.ts'
import type { Call, CallOpen } from './call.ts'
import { Egress } from './egress.ts'
import { INGRESS_DEFAULTS, Ingress } from './ingress.ts'
import { InstancePool } from './instance-pool.ts'
import { Instances } from './instances.ts'
import { createLocalCall } from './local-call.ts'
import { rethrow } from './rethrow-fixture.ts'

const cleanups: (() => Promise<unknown> | unknown)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})
const nowMs = (): number => performance.now()

async function listen(server: net.Server): Promise<number> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  cleanups.push(() => {
    if (server instanceof http.Server) server.closeAllConnections()
    server.close()
  })
  return (server.address() as net.AddressInfo).port
}

async function serve(handler: http.RequestListener): Promise<string> {
  return `127.0.0.1:${await listen(http.createServer(handler))}`
}

/** Several places, each an egress of its own, behind one ingress: the mesh without a network. */
class Bench {
  readonly places = new Map<string, { egress: Egress; instances: Instances }>()
  readonly opened: string[] = []
  order: string[] = []
  /** On the way to every place. */
  relays: string[] = []
  port = 0
  ingress: Ingress | undefined
  onOpen: ((node: string, call: Call, open: CallOpen) => boolean) | undefined

  place(name: string, services: Record<string, string[]>): this {
    const instances = new Instances({ onChange() {} })
    instances.replace(
      Object.entries(services).map(([service, addresses]) => ({
        name: service,
        protocol: 'http' as const,
        labels: {},
        instances: addresses.map(address => ({ id: address, address, weight: 1 })),
      })),
    )
    const pool = new InstancePool({ nowMs })
    cleanups.push(() => pool.stop())
    this.places.set(name, {
      egress: new Egress({ self: { id: `id-${name}`, name }, log: silentLog, instances, pool }),
      instances,
    })
    this.order.push(name)
    return this
  }

  async start(options: Partial<ConstructorParameters<typeof Ingress>[1]> = {}): Promise<this> {
    this.ingress = new Ingress(
      {
        self: { id: 'id-here', name: 'here' },
        log: silentLog,
        nowMs,
        knows: service => [...this.places.values()].some(place => place.instances.has(service)),
        candidates: service =>
          this.order.filter(n => this.places.get(n)?.instances.has(service)).map(candidate(service, this.relays)),
        open: (target, open) => this.open(target.name, open),
      },
      { host: '127.0.0.1', port: 0, timeoutMs: 10_000, retryBodyBytes: 65_536, ...INGRESS_DEFAULTS, ...options },
    )
    this.port = await this.ingress.start()
    cleanups.push(() => this.ingress?.stop())
    return this
  }

  private open(name: string, open: CallOpen): Call | undefined {
    this.opened.push(name)
    const [mine, theirs] = createLocalCall(rethrow)
    if (this.onOpen?.(name, theirs, open) === true) return mine
    this.places.get(name)?.egress.accept(theirs, open)
    return mine
  }

  async call(path: string, init: http.RequestOptions & { body?: string | Buffer } = {}): Promise<Answer> {
    const { body, ...options } = init
    const request = http.request({ port: this.port, path, headers: { host: 'orders.mesh' }, ...options })
    request.end(body)
    const [response] = (await once(request, 'response')) as [http.IncomingMessage]
    const chunks: Buffer[] = []
    for await (const chunk of response) chunks.push(chunk as Buffer)
    return { status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks).toString() }
  }

  /** Sends raw bytes and answers all that comes until the ingress closes. */
  async raw(text: string): Promise<string> {
    const socket = net.connect(this.port, '127.0.0.1')
    socket.write(text)
    const chunks: Buffer[] = []
    for await (const chunk of socket) chunks.push(chunk as Buffer)
    return Buffer.concat(chunks).toString()
  }
}

interface Answer {
  status: number
  headers: http.IncomingHttpHeaders
  body: string
}

function candidate(service: string, relays: readonly string[]): (name: string) => Candidate {
  return name => ({
    service,
    node: `id-${name}`,
    name,
    region: name,
    protocol: 'http',
    instances: 1,
    healthy: 1,
    weight: 1,
    labels: {},
    path: [...relays, `id-${name}`],
    rttMs: 1,
    costMs: 1,
  })
}

describe('a call through ingress and egress', () => {
  test('brings method, path, fields and body to the instance, and the answer back', async () => {
    const address = await serve(async (request, response) => {
      const chunks: Buffer[] = []
      for await (const chunk of request) chunks.push(chunk as Buffer)
      response.writeHead(201, { 'x-own': 'yes' })
      response.end(`${request.method} ${request.url} ${request.headers.host} ${Buffer.concat(chunks)}`)
    })
    const bench = await new Bench().place('b', { orders: [address] }).start()
    const answer = await bench.call('/42?x=1', { method: 'POST', body: 'hello' })
    expect(answer).toMatchObject({ status: 201, body: 'POST /42?x=1 orders.mesh hello' })
    expect(answer.headers['x-own']).toBe('yes')
    expect(answer.headers.via).toBe('1.1 flatmesh-b, 1.1 flatmesh-here')
  })

  test('tells the instance who asked and through whom, and keeps the mesh’s own fields to itself', async () => {
    const address = await serve((request, response) => response.end(JSON.stringify(request.headers)))
    const bench = await new Bench().place('b', { orders: [address] }).start()
    const headers = { host: 'anything', 'x-flatmesh-service': 'orders', 'x-forwarded-for': '9.9.9.9' }
    const seen: unknown = JSON.parse((await bench.call('/', { headers })).body)
    expect(seen).toMatchObject({
      'x-forwarded-for': '9.9.9.9, 127.0.0.1',
      'x-forwarded-host': 'anything',
      via: '1.1 flatmesh-here (orders)',
    })
    expect(seen).not.toHaveProperty('x-flatmesh-service')
  })

  test('serves many requests on one connection, pipelined ones in their order', async () => {
    const address = await serve((request, response) => response.end(`[${request.url}]`))
    const bench = await new Bench().place('b', { orders: [address] }).start()
    const one = (path: string, more = ''): string => `GET ${path} HTTP/1.1\r\nHost: orders\r\n${more}\r\n`
    const text = await bench.raw(one('/1') + one('/2') + one('/3', 'Connection: close\r\n'))
    expect(text.match(/\[\/\d\]/g)).toEqual(['[/1]', '[/2]', '[/3]'])
  })

  test('keeps what one client has said so far apart from what others say meanwhile', async () => {
    const address = await serve((request, response) => response.end(request.url))
    const bench = await new Bench().place('b', { orders: [address] }).start()
    const slow = net.connect(bench.port, '127.0.0.1')
    const text = 'PUT /slow HTTP/1.1\r\nHost: orders.mesh\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'
    for (const piece of [text.slice(0, 1), text.slice(1, 7), text.slice(7, 30), text.slice(30)]) {
      slow.write(piece)
      expect((await bench.call('/other')).body).toBe('/other')
    }
    const chunks: Buffer[] = []
    for await (const chunk of slow) chunks.push(chunk as Buffer)
    expect(Buffer.concat(chunks).toString()).toContain('/slow')
  })

  test('reads on when part of the next request came before the answer to the last one was known to be over', async () => {
    const address = await serve((request, response) => void request.pipe(response))
    const bench = await new Bench().place('b', { orders: [address] }).start()
    let first: Call | undefined
    bench.onOpen = (_node, call) => {
      if (first !== undefined) return false
      first = call
      call.handler = { onHead() {}, onData() {}, onTrailers() {}, onEnd() {}, onDrain() {}, onReset() {} }
      call.sendHead(Buffer.from('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n'))
      call.write(Buffer.from('whole'))
      return true
    }
    const socket = net.connect(bench.port, '127.0.0.1')
    let text = ''
    socket.on('data', chunk => {
      text += chunk
    })
    socket.write('GET / HTTP/1.1\r\nHost: orders\r\n\r\n')
    while (!text.endsWith('whole')) await once(socket, 'data')
    await new Promise(resolve => {
      socket.write('POST / HTTP/1.1\r\nHost: orders\r\nConnection: close\r\nContent-Length: 6\r\n\r\nabc', resolve)
    })
    // What was written before has been read by now: this is answered on the same event loop.
    await bench.call('/')
    first?.end()
    socket.write('def')
    await once(socket, 'close')
    expect(text.slice(text.indexOf('whole')).replace(/\r\n(\d\r\n)?/g, '')).toMatch(/^wholeHTTP.*abcdef0?$/)
  })

  test('streams a chunked upload and a chunked answer with trailers', async () => {
    const address = await serve((request, response) => {
      response.writeHead(200, { trailer: 'x-sum' })
      let bytes = 0
      request.on('data', (chunk: Buffer) => {
        bytes += chunk.length
        response.write(chunk)
      })
      request.on('end', () => {
        response.addTrailers({ 'x-sum': String(bytes) })
        response.end()
      })
    })
    const bench = await new Bench().place('b', { orders: [address] }).start()
    const request = http.request({ port: bench.port, method: 'POST', headers: { host: 'orders' } })
    for (let i = 0; i < 20; i++) request.write(Buffer.alloc(50_000, i))
    request.end()
    const [response] = (await once(request, 'response')) as [http.IncomingMessage]
    let bytes = 0
    for await (const chunk of response) bytes += (chunk as Buffer).length
    expect(bytes).toBe(1_000_000)
    expect(response.trailers).toEqual({ 'x-sum': '1000000' })
  })

  test('settles 100-continue with the client, so that curl does not wait', async () => {
    const address = await serve((request, response) => request.pipe(response))
    const bench = await new Bench().place('b', { orders: [address] }).start()
    const request = http.request({
      port: bench.port,
      method: 'PUT',
      headers: { host: 'orders', expect: '100-continue', 'content-length': 4 },
    })
    request.flushHeaders()
    await once(request, 'continue')
    request.end('body')
    const [response] = (await once(request, 'response')) as [http.IncomingMessage]
    expect(response.statusCode).toBe(200)
    response.resume()
  })

  test('carries an upgrade both ways until both sides are done', async () => {
    const server = http.createServer()
    server.on('upgrade', (_request, socket: net.Socket, head: Buffer) => {
      socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhi ')
      socket.write(head)
      socket.pipe(socket)
    })
    const address = `127.0.0.1:${await listen(server)}`
    const bench = await new Bench().place('b', { orders: [address] }).start()
    const socket = net.connect({ port: bench.port, host: '127.0.0.1', allowHalfOpen: true })
    socket.write('GET / HTTP/1.1\r\nHost: orders\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nearly ')
    let text = ''
    socket.on('data', chunk => {
      text += chunk
      if (text.includes('early ') && !text.includes('late')) socket.end('late')
    })
    await once(socket, 'close')
    expect(text).toMatch(/^HTTP\/1.1 101 .*hi early late$/s)
  })
})

describe('an error made by the mesh', () => {
  test('for a name nobody knows is 404 at once, and says so in a field and in JSON', async () => {
    const bench = await new Bench().start()
    const answer = await bench.call('/')
    expect(answer.status).toBe(404)
    expect(answer.headers['x-flatmesh-error']).toBe('unknown-service')
    expect(JSON.parse(answer.body)).toMatchObject({
      error: { code: 'unknown-service', node: 'here', service: 'orders' },
    })
  })

  test('for a known service without a healthy place is 503 with Retry-After', async () => {
    const bench = await new Bench().place('b', { orders: [] }).start()
    const answer = await bench.call('/')
    expect(answer.status).toBe(503)
    expect(answer.headers['retry-after']).toBe('3')
    expect(answer.headers['x-flatmesh-error']).toBe('no-healthy-place')
  })

  test('cannot be forged by a service', async () => {
    const address = await serve((_request, response) => {
      response.writeHead(503, { 'x-flatmesh-error': 'no-healthy-place' })
      response.end()
    })
    const bench = await new Bench().place('b', { orders: [address] }).start()
    const answer = await bench.call('/')
    expect(answer.status).toBe(503)
    expect(answer.headers).not.toHaveProperty('x-flatmesh-error')
  })

  test('for what is not HTTP is 400 and the end of the connection', async () => {
    const bench = await new Bench().start()
    expect(await bench.raw('\x16\x03\x01garbage\r\n\r\n')).toMatch(/^HTTP\/1.1 400 .*x-flatmesh-error: bad-request/s)
  })

  test('for a call that comes back to where it was is 508', async () => {
    const bench = new Bench()
    const port = await listen(
      net.createServer(socket => socket.pipe(net.connect(bench.port, '127.0.0.1')).pipe(socket)),
    )
    await bench.place('b', { orders: [`127.0.0.1:${port}`] }).start()
    const answer = await bench.call('/')
    expect(answer.status).toBe(508)
    expect(bench.opened).toEqual(['b'])
  })

  test('for an answer that does not begin in time is 504, and the instance’s request is given up', async () => {
    let closed: (() => void) | undefined
    const gone = new Promise<void>(resolve => {
      closed = resolve
    })
    const address = await serve(request => request.socket.on('close', () => closed?.()))
    const bench = await new Bench().place('b', { orders: [address] }).start()
    const answer = await bench.call('/', { headers: { host: 'orders', 'x-flatmesh-timeout': '150ms' } })
    expect(answer.status).toBe(504)
    expect(answer.headers['x-flatmesh-error']).toBe('deadline')
    await gone
  })
})

describe('another try', () => {
  const refused = '127.0.0.1:1'

  test('goes to the next instance of the same place when the first refuses the connection', async () => {
    const address = await serve((_request, response) => response.end('second'))
    const bench = await new Bench().place('b', { orders: [refused, address] }).start()
    for (let i = 0; i < 4; i++) expect((await bench.call('/', { method: 'POST', body: 'x' })).body).toBe('second')
    expect(new Set(bench.opened)).toEqual(new Set(['b']))
  })

  test('goes to the next place when no instance can have seen the request, also for POST, with its body', async () => {
    const address = await serve(async (request, response) => {
      for await (const chunk of request) response.write(chunk)
      response.end()
    })
    const bench = await new Bench()
      .place('b', { orders: [refused] })
      .place('c', { orders: [address] })
      .start()
    const answer = await bench.call('/', { method: 'POST', body: 'again' })
    expect(answer.body).toBe('again')
    expect(bench.opened).toEqual(['b', 'c'])
  })

  test('is made for GET when the first place dies before it answers, never for POST', async () => {
    const address = await serve((_request, response) => response.end('alive'))
    const dying = await serve(request => request.socket.destroy())
    const bench = await new Bench()
      .place('b', { orders: [dying] })
      .place('c', { orders: [address] })
      .start()
    expect((await bench.call('/')).body).toBe('alive')
    const post = await bench.call('/', { method: 'POST', body: 'once' })
    expect(post.status).toBe(502)
    expect(post.headers['x-flatmesh-error']).toBe('instance-lost')
    expect(JSON.parse(post.body)).toMatchObject({ error: { attempts: [{ node: 'b', code: 'instance-lost' }] } })
  })

  test('goes to the same place once more when a relay on the way to it was lost, and to others first', async () => {
    const address = await serve((_request, response) => response.end('alive'))
    const bench = await new Bench().place('c', { orders: [address] }).start()
    let losses = 1
    bench.onOpen = (_node, call) => {
      if (losses <= 0) return false
      losses -= 1
      call.handler = { onHead() {}, onData() {}, onTrailers() {}, onEnd() {}, onDrain() {}, onReset() {} }
      const reset = { code: 'link-lost' as const, reason: 'gone', node: 'id-relay', unexecuted: false }
      setImmediate(() => call.reset(reset))
      return true
    }
    // Without a relay on the way, it was the place's own link.
    expect((await bench.call('/')).headers['x-flatmesh-error']).toBe('link-lost')
    bench.relays = ['id-relay']
    losses = 1
    expect((await bench.call('/')).body).toBe('alive')
    losses = 1
    expect((await bench.call('/', { method: 'POST', body: 'once' })).headers['x-flatmesh-error']).toBe('link-lost')
    losses = 2
    expect((await bench.call('/')).headers['x-flatmesh-error']).toBe('link-lost')
    expect(bench.opened).toEqual(['c', 'c', 'c', 'c', 'c', 'c'])
    bench.place('d', { orders: [address] })
    bench.opened.length = 0
    losses = 2
    expect((await bench.call('/')).body).toBe('alive')
    expect(bench.opened).toEqual(['c', 'd', 'c'])
  })

  test('is never made once an answer has begun: the connection is cut instead', async () => {
    let served = 0
    const dying = await serve((request, response) => {
      served++
      response.writeHead(200, { 'content-length': 100 })
      response.write('half', () => request.socket.destroy())
    })
    const bench = await new Bench()
      .place('b', { orders: [dying] })
      .place('c', { orders: [dying] })
      .start()
    await expect(bench.call('/')).rejects.toThrow()
    expect(served).toBe(1)
  })

  test('does not happen when the body was too large to keep', async () => {
    const bench = await new Bench()
      .place('b', { orders: [refused] })
      .place('c', { orders: [refused] })
      .start({ retryBodyBytes: 10 })
    const answer = await bench.call('/', { method: 'POST', body: Buffer.alloc(100_000) })
    expect(answer.status).toBe(503)
    expect(bench.opened).toEqual(['b'])
  })
})

describe('a side that goes away or stands still', () => {
  test('a client that vanishes has its request given up at the instance', async () => {
    let arrived: (() => void) | undefined
    let closed: (() => void) | undefined
    const atInstance = new Promise<void>(resolve => {
      arrived = resolve
    })
    const gone = new Promise<void>(resolve => {
      closed = resolve
    })
    const address = await serve(request => {
      arrived?.()
      request.socket.on('close', () => closed?.())
    })
    const bench = await new Bench().place('b', { orders: [address] }).start()
    const socket = net.connect(bench.port, '127.0.0.1')
    socket.write('GET / HTTP/1.1\r\nHost: orders\r\n\r\n')
    await atInstance
    socket.destroy()
    await gone
  })

  test('a client that stops reading stops the instance within the buffers between them', async () => {
    let sent = 0
    const address = await serve((_request, response) => {
      const chunk = Buffer.alloc(65_536)
      const pump = (): void => {
        while (sent < 512 * 1024 * 1024) {
          sent += chunk.length
          if (!response.write(chunk)) {
            response.once('drain', pump)
            return
          }
        }
        response.end()
      }
      pump()
    })
    const bench = await new Bench().place('b', { orders: [address] }).start()
    const socket = net.connect({ port: bench.port, host: '127.0.0.1' })
    socket.write('GET / HTTP/1.1\r\nHost: orders\r\n\r\n')
    await once(socket, 'data')
    socket.pause()
    // It has stopped when nothing moved while two timers in a row ran.
    let before = -1
    while (before !== sent) {
      before = sent
      await new Promise(resolve => setTimeout(resolve, 300))
    }
    expect(sent).toBeLessThan(64 * 1024 * 1024)
    socket.destroy()
  })

  test('draining finishes what has begun, closes idle connections and takes no new ones', async () => {
    let release: (() => void) | undefined
    let arrived: (() => void) | undefined
    const atInstance = new Promise<void>(resolve => {
      arrived = resolve
    })
    const address = await serve((_request, response) => {
      arrived?.()
      release = () => response.end('done')
    })
    const bench = await new Bench().place('b', { orders: [address] }).start()
    const idle = net.connect(bench.port, '127.0.0.1')
    await once(idle, 'connect')
    const answer = bench.call('/')
    await atInstance
    const drained = bench.ingress?.drain()
    idle.resume()
    await once(idle, 'close')
    release?.()
    expect((await answer).body).toBe('done')
    expect((await answer).headers.connection).toBe('close')
    await drained
    await expect(bench.call('/')).rejects.toThrow('ECONNREFUSED')
  })
})
