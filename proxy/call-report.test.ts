import { once } from 'node:events'
import http from 'node:http'
import net from 'node:net'
import grpc from '@grpc/grpc-js'
import { afterEach, describe, expect, test } from 'vitest'
import type { CallReport } from './call-report.ts'
import { decodeEgressNote } from './egress-note.ts'
import { EchoClient, startEcho } from './test-grpc.ts'
import { deadAddress, TestPlaces, waitUntil } from './test-places.ts'

let mesh = new TestPlaces()
afterEach(async () => {
  await mesh.stop()
  mesh = new TestPlaces()
})

async function serve(handler: http.RequestListener): Promise<string> {
  return await mesh.listen(http.createServer(handler))
}

/** One request; answers with the body, or with '' if the answer breaks off. */
async function ask(
  init: http.RequestOptions & { body?: string } = {},
): Promise<{ headers: http.IncomingHttpHeaders; body: string }> {
  const { body, ...options } = init
  const request = http.request({ port: mesh.port, headers: { host: 'orders.mesh' }, agent: false, ...options })
  request.end(body)
  const [response] = (await once(request, 'response')) as [http.IncomingMessage]
  let text = ''
  try {
    for await (const chunk of response) text += chunk
  } catch {
    text = ''
  }
  return { headers: response.headers, body: text }
}

function raw(text: string): net.Socket {
  const socket = net.connect({ port: mesh.port, host: '127.0.0.1', allowHalfOpen: true })
  socket.on('error', () => {})
  socket.write(text)
  mesh.onStop(() => socket.destroy())
  return socket
}

async function oneReport(): Promise<CallReport> {
  await waitUntil('the call is reported', () => mesh.reports.length > 0)
  const [report] = mesh.reports
  if (report === undefined) throw new Error('there is no report')
  return report
}

describe('the report of a call', () => {
  test('says who asked whom for what, where it was answered, and what came of it', async () => {
    const address = await serve((request, response) => {
      request.resume()
      request.on('end', () => response.writeHead(503).end('twelve bytes'))
    })
    await mesh.place('b', { orders: [address] }).start()
    await ask({ method: 'POST', path: '/42?x=1', body: 'seven b' })
    const report = await oneReport()
    expect(report).toMatchObject({
      ...{ kind: 'http', protocol: 'HTTP/1.1', service: 'orders', method: 'POST', target: '/42?x=1' },
      ...{ client: '127.0.0.1', status: 503, outcome: 'ok', reason: '', attempts: [], bytesIn: 7, bytesOut: 12 },
      egress: { name: 'b', node: 'id-b' },
    })
    expect(decodeEgressNote(report.egressNote ?? '')?.address).toBe(address)
    const { beganAtMs, openedAtMs, answeredAtMs, endedAtMs } = report
    expect([beganAtMs, openedAtMs, answeredAtMs, endedAtMs]).toEqual(
      [beganAtMs, openedAtMs, answeredAtMs, endedAtMs].sort((a, b) => a - b),
    )
  })

  test('takes the word of the egress alone: what an instance puts there does not come through, to the report or to the client', async () => {
    const address = await serve((_, response) => {
      response.writeHead(200, { 'x-flatmesh-egress': 'forged:1 1 1' }).end()
    })
    await mesh.place('b', { orders: [address] }).start()
    const travelled: string[] = []
    mesh.onOpen = (_, call) => {
      const send = call.sendHead.bind(call)
      call.sendHead = head => {
        travelled.push(head.toString())
        send(head)
      }
      return false
    }
    const { headers } = await ask()
    expect(headers['x-flatmesh-egress']).toBeUndefined()
    expect(travelled.join().match(/x-flatmesh-egress: .*/gi)).toEqual([
      expect.stringContaining(`X-Flatmesh-Egress: ${address} `),
    ])
    expect(decodeEgressNote((await oneReport()).egressNote ?? '')?.address).toBe(address)
  })

  test('tells each try that came to nothing, and the one that did not', async () => {
    const address = await serve((_, response) => response.end())
    await mesh
      .place('a', { orders: [await deadAddress()] })
      .place('b', { orders: [address] })
      .start()
    await ask()
    const report = await oneReport()
    expect(report).toMatchObject({ status: 200, outcome: 'ok', egress: { name: 'b' } })
    expect(report.attempts.map(({ node, code }) => [node, code])).toEqual([['a', 'instance-refused']])
  })

  test.each([
    ['GET / HTTP/1.1\r\nHost: nobody.mesh\r\n\r\n', { outcome: 'unknown-service', status: 404, service: 'nobody' }],
    ['GET / HTTP/1.1\r\nHost: a b\r\n\r\n', { outcome: 'bad-request', status: 400, service: '', method: '' }],
    [
      'GET /x HTTP/1.1\r\nHost: orders.mesh\r\nX-Flatmesh-Timeout: soon\r\n\r\n',
      { outcome: 'bad-request', status: 400, service: 'orders', target: '/x' },
    ],
  ])('is made of a request that was refused: %j', async (text, expected) => {
    await mesh.start()
    raw(text)
    expect(await oneReport()).toMatchObject({ ...expected, egress: undefined, client: '127.0.0.1' })
    expect((await oneReport()).reason).not.toBe('')
  })

  test('tells a client that left from an answer that broke off', async () => {
    const address = await serve((request, response) => {
      if (request.url === '/cut')
        response.writeHead(200, { 'content-length': 10 }).write('half', () => response.destroy())
    })
    await mesh.place('b', { orders: [address] }).start()
    const socket = raw('GET /silent HTTP/1.1\r\nHost: orders.mesh\r\n\r\n')
    await waitUntil('the call is on its way', () => mesh.opened.length === 1)
    socket.destroy()
    expect(await oneReport()).toMatchObject({ outcome: 'client-gone', status: 0, target: '/silent', reason: '' })
    await ask({ path: '/cut' })
    await waitUntil('the second call is reported', () => mesh.reports.length === 2)
    expect(mesh.reports[1]).toMatchObject({ outcome: 'instance-lost', status: 200, target: '/cut' })
  })

  test('of a tunnel comes when both its ends have ended, with the bytes that went through', async () => {
    const address = await mesh.listen(
      net.createServer({ allowHalfOpen: true }, socket => {
        socket.once('data', () => {
          socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n')
          socket.pipe(socket)
        })
      }),
    )
    await mesh.place('b', { orders: [address] }).start()
    const socket = raw('GET / HTTP/1.1\r\nHost: orders.mesh\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n')
    await once(socket, 'data')
    socket.write('hello')
    await once(socket, 'data')
    expect(mesh.reports).toEqual([])
    socket.end()
    expect(await oneReport()).toMatchObject({ status: 101, outcome: 'ok', bytesIn: 5, bytesOut: 5 })
  })

  test('of a tunnel waits for the client when the instance has ended first', async () => {
    const address = await mesh.listen(
      net.createServer({ allowHalfOpen: true }, socket => {
        socket.once('data', () => {
          socket.end('HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: last\r\n\r\nbye')
        })
      }),
    )
    await mesh.place('b', { orders: [address] }).start()
    const socket = raw('GET / HTTP/1.1\r\nHost: orders.mesh\r\nConnection: upgrade\r\nUpgrade: last\r\n\r\n')
    await once(socket.resume(), 'end')
    expect(mesh.reports).toEqual([])
    socket.end('more')
    expect(await oneReport()).toMatchObject({ status: 101, outcome: 'ok', bytesIn: 4, bytesOut: 3 })
  })

  test('is one, and of a call that went well, when the answer came before the request was whole', async () => {
    const address = await serve((_, response) => response.writeHead(413).end('too much'))
    await mesh.place('b', { orders: [address] }).start()
    const socket = raw('POST / HTTP/1.1\r\nHost: orders.mesh\r\nContent-Length: 100\r\n\r\nten bytes.')
    await once(socket.resume(), 'end')
    socket.destroy()
    await waitUntil('the connection is gone', () => mesh.ingress.inFlight === 0)
    expect(mesh.reports).toMatchObject([{ status: 413, outcome: 'ok', bytesIn: 10, bytesOut: 8 }])
  })

  test('is one for each request on a connection, never two', async () => {
    const address = await serve((_, response) => response.end('x'))
    await mesh.place('b', { orders: [address] }).start()
    const socket = raw('GET /1 HTTP/1.1\r\nHost: orders.mesh\r\n\r\nGET /2 HTTP/1.0\r\nHost: orders.mesh\r\n\r\n')
    await once(socket.resume(), 'end')
    expect(mesh.reports.map(({ target, protocol }) => `${target} ${protocol}`)).toEqual(['/1 HTTP/1.1', '/2 HTTP/1.0'])
  })

  test('of a gRPC call has the status that the service gave, in trailers or with its head', async () => {
    const { server, address } = await startEcho({
      Unary: (call, answer) =>
        call.request.length > 0 ? answer(null, call.request) : answer({ code: grpc.status.NOT_FOUND }),
    })
    mesh.onStop(() => server.forceShutdown())
    await mesh.place('b', { echo: [address] }).start()
    const client = new EchoClient(`127.0.0.1:${mesh.port}`, 'echo.mesh')
    mesh.onStop(() => client.close())
    await client.unary(Buffer.from('hello'))
    await client.unary(Buffer.alloc(0)).catch(() => {})
    await waitUntil('both are reported', () => mesh.reports.length === 2)
    const [good, bad] = mesh.reports
    expect(good).toMatchObject({ protocol: 'gRPC', status: 200, grpcStatus: '0', outcome: 'ok', service: 'echo' })
    expect(bad).toMatchObject({ grpcStatus: String(grpc.status.NOT_FOUND), outcome: 'ok' })
    expect(decodeEgressNote(good?.egressNote ?? '')?.address).toBe(address)
  })
})
