import http from 'node:http'
import http2 from 'node:http2'
import net from 'node:net'
import { afterEach, expect, test } from 'vitest'
import { seededBelow } from './http1-generate.ts'
import { resetSocket } from './splice.ts'
import { TestPlaces, waitUntil } from './test-places.ts'

let mesh = new TestPlaces()
afterEach(async () => {
  await mesh.stop()
  mesh = new TestPlaces()
})

type Below = (n: number) => number
const CALLS = 150
const AT_ONCE = 12
const PIECE = Buffer.alloc(40_000)

/** Does one of `ways`, now or in one of the next turns. */
function soon(below: Below, ways: readonly (() => void)[]): void {
  const way = ways[below(ways.length)]
  let turns = below(6)
  const step = (): void => void (turns-- > 0 ? setImmediate(step) : way?.())
  step()
}

/** Echoes, or reads at once or later; ends or resets when it likes, or when its client has ended. */
function rawInstance(below: Below): net.Server {
  return net.createServer({ allowHalfOpen: true }, socket => {
    const reads = below(3)
    if (reads === 0) socket.pipe(socket)
    else if (reads === 1) socket.resume()
    else setTimeout(() => socket.resume(), 20)
    socket.on('end', () => socket.end())
    if (below(3) === 0) return
    soon(below, [
      () => socket.end(PIECE),
      () => resetSocket(socket),
      () => {
        socket.end('bye')
        setImmediate(() => resetSocket(socket))
      },
    ])
  })
}

function answer(below: Below, asked: http2.Http2ServerRequest | http.IncomingMessage, to: http.ServerResponse): void {
  to.on('error', () => {})
  asked.on('error', () => {})
  if (below(3) > 0) asked.resume()
  if (below(2) === 0) to.write(PIECE)
  soon(below, [() => to.end('ok'), () => to.end(PIECE), () => to.end(), () => to.destroy()])
}

/** One call of HTTP/2: more or less of a body, and given up or not. Resolves when the client is done with it. */
function callH2(below: Below, session: http2.ClientHttp2Session, service: string): Promise<void> {
  const stream = session.request({ ':method': 'POST', ':authority': service })
  stream.on('error', () => {})
  if (below(5) > 0) stream.resume()
  for (let pieces = below(12); pieces > 0; pieces--) stream.write(PIECE)
  if (below(4) > 0) stream.end()
  // One that reads nothing, or never ends, must give up.
  const isSure = stream.writableEnded && stream.readableFlowing === true
  return new Promise(resolve => {
    // Node may keep a stream that was reset with something unread or unsent, and say 'close' never.
    for (const event of ['end', 'aborted', 'close']) stream.on(event, () => resolve())
    if (isSure && below(3) > 0) return
    soon(below, [
      () => resolve(stream.close(http2.constants.NGHTTP2_CANCEL)),
      () => {
        stream.destroy()
        resolve()
      },
    ])
  })
}

/** One connection of HTTP/1.1, of an upgrade's or of plain TCP, that says `first` and then whatever it likes. */
function callRaw(below: Below, port: number, first: string): Promise<void> {
  const socket = net.connect({ port, host: '127.0.0.1', allowHalfOpen: below(2) === 0 })
  socket.on('error', () => {})
  if (below(5) > 0) socket.resume()
  socket.write(first)
  for (let pieces = below(12); pieces > 0; pieces--) socket.write(PIECE)
  if (below(2) === 0) socket.end()
  soon(below, [() => resetSocket(socket), () => socket.destroy(), () => setTimeout(() => resetSocket(socket), 20)])
  return new Promise(resolve => socket.on('close', () => resolve()))
}

/** Whatever counts a call still, in words. */
function countedIn(tcp: { readonly inFlight: number }): string {
  const left: string[] = []
  const tell = (name: string, count: number): void => void (count !== 0 && left.push(`${name}: ${count}`))
  tell('ingress', mesh.ingress.inFlight)
  tell('listener', tcp.inFlight)
  for (const { egress, tcp: tcpEgress, instances } of mesh.places.values()) {
    tell('egress', egress.inFlight)
    tell('egress of TCP', tcpEgress.inFlight)
    for (const { service, inFlight } of instances.all()) tell(`instance of ${service}`, inFlight)
    for (const { service, busy, queued } of egress.poolCounts()) tell(`pool of ${service}`, busy + queued)
  }
  return left.join(', ')
}

test.each([
  1, 2, 3, 4,
])('after calls of every kind, ended in every way at once, nothing is counted any more (seed %i)', async seed => {
  const below = seededBelow(seed)
  const h1 = http.createServer((asked, to) => answer(below, asked, to))
  h1.on('upgrade', (_asked, socket) => {
    socket.on('error', () => {})
    socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: own\r\nConnection: upgrade\r\n\r\n')
    if (below(2) === 0) socket.pipe(socket)
    soon(below, [() => socket.end(PIECE), () => socket.destroy(), () => socket.end()])
  })
  const h2 = http2.createServer((asked, to) => answer(below, asked, to as unknown as http.ServerResponse))
  mesh.place('a', { web: [await mesh.listen(h1)] })
  mesh.place('b', { web2: [await mesh.listen(h2)] }, 'h2')
  mesh.place('c', { raw: [await mesh.listen(rawInstance(below))] }, 'tcp')
  await mesh.start()
  const { listener, port, counters: tcp } = await mesh.startTcp('raw')
  const session = http2.connect(`http://127.0.0.1:${mesh.port}`)
  session.on('error', () => {})
  mesh.onStop(() => session.destroy())
  const head = 'Host: web\r\nTransfer-Encoding: chunked\r\n\r\n9c40\r\n'
  const kinds: (() => Promise<void>)[] = [
    () => callH2(below, session, 'web'),
    () => callH2(below, session, 'web2'),
    () => callRaw(below, mesh.port, `POST / HTTP/1.1\r\n${head}`),
    () => callRaw(below, mesh.port, 'GET / HTTP/1.1\r\nHost: web\r\nUpgrade: own\r\nConnection: upgrade\r\n\r\n'),
    () => callRaw(below, mesh.port, 'CONNECT raw:1 HTTP/1.1\r\nHost: raw:1\r\n\r\n'),
    () => callRaw(below, port, ''),
  ]
  const callOne = async (): Promise<void> => {
    for (let i = 0; i < CALLS / AT_ONCE; i++) await kinds[below(kinds.length)]?.()
  }
  await Promise.all(Array.from({ length: AT_ONCE }, callOne))
  let left = ''
  await waitUntil('nothing is counted any more', () => {
    left = countedIn(listener)
    return left === ''
  }).catch(() => {})
  expect(left).toBe('')
  // Each was told its end once.
  expect(mesh.reports).toHaveLength(mesh.ingress.counters.total + tcp.total)
})
