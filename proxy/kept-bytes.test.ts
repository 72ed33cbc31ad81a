import { once } from 'node:events'
import http from 'node:http'
import http2 from 'node:http2'
import net from 'node:net'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { CALL_WINDOW_BYTES, type Call, type CallHandler } from './call.ts'
import { H2Outbox } from './h2-outbox.ts'
import { H2Stream } from './h2-stream.ts'
import { lend } from './reused-bytes-fixture.ts'
import { Splice } from './splice.ts'
import { TestPlaces, waitUntil } from './test-places.ts'

/** Bytes that a call brings are the egress's only while it is told of them (`REUSED_BYTES_MAX`), whatever it waits for. */

let mesh: TestPlaces
beforeEach(() => {
  mesh = new TestPlaces()
})
afterEach(() => mesh.stop())

/** A call as a link has it: what is on its way comes in spite of `pause`. */
class FakeCall implements Call {
  handler: CallHandler = { onHead() {}, onData() {}, onTrailers() {}, onEnd() {}, onDrain() {}, onReset() {} }
  resets: string[] = []
  written = ''
  hasEnded = false
  sendHead(): void {}
  write(chunk: Buffer): boolean {
    this.written += chunk
    return true
  }
  sendTrailers(): void {}
  end(): void {
    this.hasEnded = true
  }
  reset(reset: { readonly code: string }): void {
    this.resets.push(reset.code)
  }
  pause(): void {}
  resume(): void {}

  say(text: string): void {
    lend(Buffer.from(text), bytes => this.handler.onData(bytes))
  }
}

const BODY = ['first ', 'second ', 'third']
const WHOLE = BODY.join('')

function accept(kind: 'http' | 'tcp', method = 'PUT'): FakeCall {
  const call = new FakeCall()
  const place = mesh.places.get('a')
  const head = `${method} / HTTP/1.1\r\nHost: orders.mesh\r\nContent-Length: ${WHOLE.length}\r\n\r\n`
  const open = { service: 'orders', kind, timeoutMs: 0, head: Buffer.from(kind === 'http' ? head : '') }
  if (kind === 'tcp') place?.tcp.accept(call, open)
  else place?.egress.accept(call, open)
  return call
}

/** An instance that notes the bodies it is sent. */
function noting(bodies: string[]): (request: AsyncIterable<Buffer>, response: { end(): void }) => Promise<void> {
  return async (request, response) => {
    let body = ''
    for await (const chunk of request) body += chunk
    bodies.push(body)
    response.end()
  }
}

test.each([
  'http',
  'h2',
  'tcp',
] as const)('what comes before a connection to an instance of %s is there', async protocol => {
  const bodies: string[] = []
  const servers = {
    http: () => http.createServer(noting(bodies)),
    h2: () => http2.createServer(noting(bodies)),
    tcp: () => net.createServer({ allowHalfOpen: true }, socket => void noting(bodies)(socket, socket)),
  }
  mesh.place('a', { orders: [await mesh.listen(servers[protocol]())] }, protocol)
  const call = accept(protocol === 'tcp' ? 'tcp' : 'http')
  for (const text of BODY) call.say(text)
  call.handler.onEnd()
  await waitUntil('the instance has the body', () => bodies.length > 0)
  expect(bodies).toEqual([WHOLE])
  expect(call.resets).toEqual([])
})

test('what an instance that was lost has had is there for the next one', async () => {
  const bodies: string[] = []
  const lost = net.createServer(socket => {
    // It has the head and a part of the body: the connection is there, and what comes now goes to it at once.
    socket.once('data', () => {
      for (const text of BODY.slice(1)) call.say(text)
      call.handler.onEnd()
      socket.on('data', () => socket.destroy())
    })
  })
  mesh.place('a', { orders: [await mesh.listen(lost), await mesh.listen(http.createServer(noting(bodies)))] })
  const call = accept('http')
  call.say(BODY[0] ?? '')
  await waitUntil('the second instance has the body', () => bodies.length > 0)
  expect(bodies).toEqual([WHOLE])
})

test('what a client of TCP says is there for the next place', async () => {
  const server = net.createServer()
  const port = Number((await mesh.listen(server)).split(':')[1])
  const client = net.connect(port, '127.0.0.1')
  mesh.onStop(() => client.destroy())
  const [socket] = (await once(server, 'connection')) as [net.Socket]
  const owner = { onHead() {}, onReset: () => true, onGone() {} }
  const splice = new Splice(socket, owner, { code: 'cancelled', node: 'here', who: 'the client' }, true)
  const [one, other] = [new FakeCall(), new FakeCall()]
  splice.start()
  splice.attach(one)
  let said = ''
  for (const text of BODY) {
    client.write(text)
    said += text
    await waitUntil('it was read', () => one.written === said)
  }
  splice.attach(other)
  expect(other.written).toBe(WHOLE)
})

test('what a stream of HTTP/2 has no window for is there when it has', async () => {
  const server = net.createServer()
  const port = Number((await mesh.listen(server)).split(':')[1])
  const socket = net.connect(port, '127.0.0.1')
  mesh.onStop(() => socket.destroy())
  const [peer] = (await once(server, 'connection')) as [net.Socket]
  const heard: Buffer[] = []
  peer.on('data', (chunk: Buffer) => heard.push(chunk))
  const outbox = new H2Outbox(socket, { onSentEnd() {}, onDribble() {} })
  const stream = new H2Stream(1, { onFields() {}, onData() {}, onEnd() {}, onDrain() {}, onReset() {} }, 0, 0)
  lend(Buffer.alloc(5000, 'x'), bytes => outbox.write(stream, bytes))
  outbox.enlarge(stream, CALL_WINDOW_BYTES)
  const bytes = (): Buffer => Buffer.concat(heard)
  await waitUntil('the frame has come', () => bytes().length >= 9 + 5000)
  expect(bytes().subarray(9).equals(Buffer.alloc(5000, 'x'))).toBe(true)
})
