import { once } from 'node:events'
import http from 'node:http'
import http2 from 'node:http2'
import net from 'node:net'
import { afterEach, expect, test } from 'vitest'
import { deadAddress, TestPlaces, waitUntil } from './test-places.ts'

let mesh = new TestPlaces()
afterEach(async () => {
  await mesh.stop()
  mesh = new TestPlaces()
})

/** An instance that answers each line in capitals, and ends when its client does. */
function capitals(): net.Server {
  return net.createServer({ allowHalfOpen: true }, socket => {
    socket.on('error', () => {})
    socket.on('data', chunk => socket.write(chunk.toString().toUpperCase()))
    socket.on('end', () => socket.end('bye'))
  })
}

class Client {
  readonly socket: net.Socket
  text = ''
  ended = false
  error = ''

  constructor(port: number, first: string) {
    this.socket = net.connect({ host: '127.0.0.1', port, allowHalfOpen: true })
    this.socket.on('data', chunk => {
      this.text += chunk
    })
    this.socket.on('end', () => {
      this.ended = true
    })
    this.socket.on('error', (error: NodeJS.ErrnoException) => {
      this.error = error.code ?? ''
    })
    mesh.onStop(() => this.socket.destroy())
    this.socket.write(first)
  }
}

const OK = 'HTTP/1.1 200 Connection Established\r\nVia: 1.1 flatmesh-b\r\nVia: 1.1 flatmesh-here\r\n\r\n'

test.each([
  'db:5432',
  'db.mesh:1',
])('CONNECT %s becomes a tunnel to the service, both ends of it half-close', async target => {
  mesh.place('b', { db: [await mesh.listen(capitals())] })
  await mesh.start()
  const client = new Client(mesh.port, `CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n\r\n`)
  await waitUntil('the tunnel is there', () => client.text === OK)
  client.socket.write('hello')
  await waitUntil('it carries bytes', () => client.text === `${OK}HELLO`)
  expect([mesh.ingress.inFlight, mesh.ingress.counters.total]).toEqual([1, 1])
  client.socket.end()
  await waitUntil('it ends', () => client.ended)
  expect(client.text).toBe(`${OK}HELLObye`)
  await waitUntil('nothing is left', () => mesh.ingress.inFlight === 0)
  expect(mesh.ingress.counters).toEqual({ total: 1, failed: 0, retries: 0 })
})

test('what follows CONNECT at once is not lost, nor is the end', async () => {
  mesh.place('b', { db: [await mesh.listen(capitals())] })
  await mesh.start()
  const client = new Client(mesh.port, 'CONNECT db:1 HTTP/1.1\r\nHost: db:1\r\n\r\nearly')
  client.socket.end(' bird')
  await waitUntil('all is answered', () => client.ended)
  expect(client.text).toBe(`${OK}EARLY BIRDbye`)
})

test('CONNECT may follow other requests on the connection', async () => {
  const web = http.createServer((_request, response) => void response.end('hi'))
  mesh.place('b', { db: [await mesh.listen(capitals())], web: [await mesh.listen(web)] })
  await mesh.start()
  const get = 'GET / HTTP/1.1\r\nHost: web.mesh\r\n\r\n'
  const client = new Client(mesh.port, `${get}CONNECT db:1 HTTP/1.1\r\nHost: db:1\r\n\r\nx`)
  await waitUntil('both are answered', () => client.text.endsWith(`hi${OK}X`))
})

test('a tunnel to a service of HTTP is good for clients that tunnel everything', async () => {
  const web = http.createServer((request, response) => void response.end(`${request.method} ${request.headers.host}`))
  mesh.place('b', { web: [await mesh.listen(web)] })
  await mesh.start()
  const client = new Client(mesh.port, 'CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\n\r\n')
  await waitUntil('the tunnel is there', () => client.text === OK)
  client.socket.write('GET / HTTP/1.1\r\nHost: as-sent.example\r\nConnection: close\r\n\r\n')
  await waitUntil('it is answered', () => client.text.endsWith('GET as-sent.example'))
})

test('a reset on one side of the tunnel is a reset on the other', async () => {
  const sockets: net.Socket[] = []
  const server = net.createServer(socket => void sockets.push(socket))
  mesh.place('b', { db: [await mesh.listen(server)] })
  await mesh.start()
  const client = new Client(mesh.port, 'CONNECT db:1 HTTP/1.1\r\nHost: db:1\r\n\r\n')
  await waitUntil('the tunnel is there', () => client.text === OK)
  sockets[0]?.resetAndDestroy()
  await waitUntil('the client hears of it', () => client.error === 'ECONNRESET')
  const other = new Client(mesh.port, 'CONNECT db:1 HTTP/1.1\r\nHost: db:1\r\n\r\n')
  await waitUntil('another tunnel is there', () => other.text === OK && sockets.length === 2)
  let reset = ''
  sockets[1]?.on('error', (error: NodeJS.ErrnoException) => {
    reset = error.code ?? ''
  })
  other.socket.resetAndDestroy()
  await waitUntil('the instance hears of it', () => reset === 'ECONNRESET')
  await waitUntil('nothing is left', () => mesh.ingress.inFlight === 0)
})

test.each([
  ['nobody:1', 404, 'unknown-service'],
  ['down:1', 503, 'instance-refused'],
  ['No_Service:1', 404, 'unknown-service'],
])('CONNECT %s is answered %i %s, and nothing is a tunnel', async (target, status, code) => {
  mesh.place('b', { down: [await deadAddress()] })
  await mesh.start()
  const client = new Client(mesh.port, `CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n\r\n`)
  await waitUntil('the connection ends', () => client.ended)
  expect(client.text).toContain(`HTTP/1.1 ${status} `)
  expect(client.text).toContain(`x-flatmesh-error: ${code}\r\n`)
  expect(mesh.ingress.counters).toMatchObject({ total: 1, failed: 1 })
  client.socket.destroy()
  await waitUntil('nothing is left', () => mesh.ingress.inFlight === 0)
})

test('a client that keeps a refused tunnel open is cut off', async () => {
  await mesh.start()
  const client = new Client(mesh.port, 'CONNECT nobody:1 HTTP/1.1\r\nHost: nobody:1\r\n\r\n')
  await waitUntil('it is refused', () => client.ended)
  const talk = setInterval(() => client.socket.write('x'), 50)
  await waitUntil('it is cut off', () => client.error !== '')
  clearInterval(talk)
})

test('an answer of another node that is not a head is an error, not a tunnel', async () => {
  mesh.place('b', { db: ['127.0.0.1:1'] })
  await mesh.start()
  mesh.onOpen = (_place, call) => {
    call.handler = { onHead() {}, onData() {}, onTrailers() {}, onEnd() {}, onDrain() {}, onReset() {} }
    call.sendHead(Buffer.from('HTTP/1.1 2OO\r\nx\r\n\r\n'))
    return true
  }
  const client = new Client(mesh.port, 'CONNECT db:1 HTTP/1.1\r\nHost: db:1\r\n\r\n')
  await waitUntil('it is refused', () => client.ended)
  expect(client.text).toContain('HTTP/1.1 502 ')
  expect(client.text).toContain('x-flatmesh-error: bad-answer')
})

test('a silent tunnel is reset after the time given, and drain waits for the others', async () => {
  mesh.place('b', { db: [await mesh.listen(capitals())] })
  await mesh.start({ tcpIdleMs: 300 })
  const client = new Client(mesh.port, 'CONNECT db:1 HTTP/1.1\r\nHost: db:1\r\n\r\n')
  await waitUntil('the tunnel is there', () => client.text === OK)
  await mesh.ingress.drain()
  await waitUntil('it was reset', () => client.error === 'ECONNRESET')
})

test('CONNECT over HTTP/2 is refused with what to do', async () => {
  await mesh.start()
  const session = http2.connect(`http://127.0.0.1:${mesh.port}`)
  mesh.onStop(() => session.destroy())
  const stream = session.request({ ':method': 'CONNECT', ':authority': 'db:1' }, { endStream: false })
  const [headers] = await once(stream, 'response')
  expect([headers[':status'], headers['x-flatmesh-error']]).toEqual([400, 'bad-request'])
  let body = ''
  for await (const chunk of stream) body += chunk
  expect(body).toContain('ask for the tunnel over HTTP/1.1')
})
