import net from 'node:net'
import { afterEach, expect, test } from 'vitest'
import type { Call } from './call.ts'
import { TestPlaces, waitUntil } from './test-places.ts'

let mesh = new TestPlaces()
afterEach(async () => {
  await mesh.stop()
  mesh = new TestPlaces()
})

const CHUNKED = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'
const EMPTY = 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'
const SECOND = 'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged'

interface Lie {
  readonly head: string
  readonly again?: string
  readonly data?: string
  readonly trailers?: string
}

/** What a client hears that asks `method` on a connection that is kept, until it is cut off. */
async function hear(method: string, { head, again, data, trailers }: Lie): Promise<string> {
  mesh.place('b', { orders: ['127.0.0.1:1'] })
  mesh.onOpen = (_place, call) => {
    call.handler = { onHead() {}, onData() {}, onTrailers() {}, onEnd() {}, onDrain() {}, onReset() {} }
    call.sendHead(Buffer.from(head))
    if (again !== undefined) call.sendHead(Buffer.from(again))
    if (data !== undefined) call.write(Buffer.from(data))
    if (trailers !== undefined) call.sendTrailers(Buffer.from(trailers))
    call.end()
    return true
  }
  await mesh.start()
  let heard = ''
  let isClosed = false
  const client = net.connect(mesh.port, '127.0.0.1')
  mesh.onStop(() => client.destroy())
  client.on('error', () => {})
  client.on('close', () => {
    isClosed = true
  })
  client.setEncoding('latin1').on('data', text => {
    heard += text
  })
  client.write(`${method} / HTTP/1.1\r\nHost: orders\r\n\r\n`)
  await waitUntil('the client is cut off', () => isClosed)
  return heard
}

test.each<[what: string, method: string, lie: Lie]>([
  ['trailers that go on with another answer', 'GET', { head: CHUNKED, trailers: `x: y\r\n\r\n${SECOND}` }],
  ['trailers that end at once', 'GET', { head: CHUNKED, trailers: `\r\n${SECOND}` }],
  ['more body than announced', 'GET', { head: 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n', data: `ok${SECOND}` }],
  ['less body than announced', 'GET', { head: 'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n', data: 'ok' }],
  ['a second head', 'GET', { head: EMPTY, again: 'HTTP/1.1 200 OK\r\nX: forged\r\n\r\n' }],
  ['a body after 304', 'GET', { head: 'HTTP/1.1 304 Not Modified\r\n\r\n', data: SECOND }],
  ['a body after HEAD', 'HEAD', { head: 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n', data: SECOND }],
])('%s cuts the client off: another node cannot answer its next request too', async (_what, method, lie) => {
  expect(await hear(method, lie)).not.toContain('forged')
  expect(mesh.reports).toMatchObject([{ outcome: 'bad-answer' }])
})

test.each<[what: string, send: (call: Call) => void]>([
  ['a body', call => call.write(Buffer.from(SECOND))],
  ['trailers', call => call.sendTrailers(Buffer.from('x: y\r\n'))],
  ['nothing', () => {}],
  ['an interim answer', call => call.sendHead(Buffer.from('HTTP/1.1 103 Early Hints\r\n\r\n'))],
])('%s without a head is no answer: the mesh answers 502', async (_what, send) => {
  mesh.place('b', { orders: ['127.0.0.1:1'] })
  mesh.onOpen = (_place, call) => {
    call.handler = { onHead() {}, onData() {}, onTrailers() {}, onEnd() {}, onDrain() {}, onReset() {} }
    send(call)
    call.end()
    return true
  }
  await mesh.start()
  const answer = await fetch(`http://127.0.0.1:${mesh.port}/`, { headers: { 'x-flatmesh-service': 'orders' } })
  expect([answer.status, answer.headers.get('x-flatmesh-error')]).toEqual([502, 'bad-answer'])
})
