import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import http2 from 'node:http2'
import https from 'node:https'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import tls from 'node:tls'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { TestPlaces, waitUntil } from './test-places.ts'

/** For orders.mesh, until the year 2126; of this test alone. */
const CERT = `-----BEGIN CERTIFICATE-----
MIIBnDCCAUGgAwIBAgIUei52U4unB7iZxZeTyHmUVGRW234wCgYIKoZIzj0EAwIw
FjEUMBIGA1UEAwwLb3JkZXJzLm1lc2gwIBcNMjYxMTIyMTczMzA2WhgPMjEyNjEw
MjkxNzMzMDZaMBYxFDASBgNVBAMMC29yZGVycy5tZXNoMFkwEwYHKoZIzj0CAQYI
KoZIzj0DAQcDQgAENFDDBa71WD7pki1x+VwUyKmZ94DHiEUVMjW8iBgiiuWskZrL
CrWlK0m/U9RMGfCdPqkLpF74LpkyvAu3UyYrFqNrMGkwHQYDVR0OBBYEFJX78uff
QaNpb7xjRWNa4Cb0ulNKMB8GA1UdIwQYMBaAFJX78uffQaNpb7xjRWNa4Cb0ulNK
MA8GA1UdEwEB/wQFMAMBAf8wFgYDVR0RBA8wDYILb3JkZXJzLm1lc2gwCgYIKoZI
zj0EAwIDSQAwRgIhALQ47L68vYULBri29DDLTA3vze9X4v2Kjgy4j9JRSIK+AiEA
jyRHopRv8WyALDEbDthKFSJG18z8275y8D2kVu7K0AE=
-----END CERTIFICATE-----`
const KEY = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgkgUP340BkRvuVc7n
Xpkil7GayQiBo6ZaOVYFXfPEaiyhRANCAAQ0UMMFrvVYPumSLXH5XBTIqZn3gMeI
RRUyNbyIGCKK5ayRmssKtaUrSb9T1EwZ8J0+qQukXvgumTK8C7dTJisW
-----END PRIVATE KEY-----`

let folder = ''
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'flatmesh-tls-'))
  writeFileSync(join(folder, 'cert.pem'), CERT)
  writeFileSync(join(folder, 'key.pem'), KEY)
})
afterAll(() => rmSync(folder, { recursive: true }))

let mesh = new TestPlaces()
afterEach(async () => {
  await mesh.stop()
  mesh = new TestPlaces()
})

const files = () => ({ cert: join(folder, 'cert.pem'), key: join(folder, 'key.pem') })

async function start(clientTimeoutMs = 5000): Promise<void> {
  const server = http.createServer((request, response) => response.end(JSON.stringify(request.headers)))
  await mesh.place('b', { orders: [await mesh.listen(server)] }).start({ tls: files(), clientTimeoutMs })
}

async function text(stream: AsyncIterable<unknown>): Promise<string> {
  let all = ''
  for await (const chunk of stream) all += chunk
  return all
}

test('takes HTTP/2 over TLS on the port of all others, chosen by ALPN', async () => {
  await start()
  const session = http2.connect(`https://127.0.0.1:${mesh.port}`, { ca: CERT, servername: 'orders.mesh' })
  mesh.onStop(() => session.destroy())
  const stream = session.request({ ':authority': 'orders.mesh' })
  stream.end()
  expect(JSON.parse(await text(stream))).toMatchObject({ host: 'orders.mesh', 'x-forwarded-proto': 'https' })
  expect(session.alpnProtocol).toBe('h2')
})

test('takes HTTP/1.1 over TLS, and without TLS as before', async () => {
  await start()
  const secure = { ca: CERT, servername: 'orders.mesh', ALPNProtocols: ['http/1.1'] }
  const options = { port: mesh.port, headers: { host: 'orders.mesh' } }
  for (const request of [https.request({ ...options, ...secure }), http.request(options)]) {
    request.end()
    const [response] = (await once(request, 'response')) as [http.IncomingMessage]
    const proto = request.protocol === 'https:' ? 'https' : 'http'
    expect(JSON.parse(await text(response))).toMatchObject({ 'x-forwarded-proto': proto })
  }
})

test('without a certificate TLS is told what is wrong, as before', async () => {
  await mesh.start()
  const socket = net.connect(mesh.port, '127.0.0.1')
  socket.end(Buffer.from([0x16, 3, 1, 0, 5]))
  expect(await text(socket)).toContain('this looks like TLS, but the port speaks plain HTTP')
})

test('a handshake that never ends is cut off like any slow client, and one that is none at once', async () => {
  await start(150)
  const slow = net.connect(mesh.port, '127.0.0.1')
  slow.on('error', () => {})
  slow.write(Buffer.from([0x16, 3, 1, 2, 0]))
  await once(slow, 'close')
  const torn = net.connect(mesh.port, '127.0.0.1')
  torn.on('error', () => {})
  torn.resume()
  torn.write(Buffer.from([0x16, 3, 1, 0, 5, 9, 9, 9, 9, 9]))
  await once(torn, 'close')
  await waitUntil('nothing is left', () => mesh.ingress.inFlight === 0)
})

test('TLS inside TLS is not looked for', async () => {
  await start()
  const socket = tls.connect({ port: mesh.port, ca: CERT, servername: 'orders.mesh' })
  await once(socket, 'secureConnect')
  socket.write(Buffer.from([0x16, 3, 1, 0, 5]))
  expect(await text(socket)).toMatch(/^HTTP\/1.1 400 /)
})

test('files that are missing, or no certificate, are told by name before the port opens', async () => {
  await expect(mesh.start({ tls: { ...files(), key: '/none.pem' } })).rejects.toThrow(
    'proxy.tls.key: expected a PEM file',
  )
  await expect(mesh.start({ tls: { ...files(), cert: join(folder, 'key.pem') } })).rejects.toThrow(
    'do not make a server',
  )
})

test('CONNECT over TLS is a tunnel inside it, which ends and breaks at the other side as it does here', async () => {
  const ends: string[] = []
  const server = net.createServer({ allowHalfOpen: true }, socket => {
    socket.on('error', (error: NodeJS.ErrnoException) => ends.push(error.code ?? ''))
    socket.on('data', chunk => socket.write(String(chunk).toUpperCase()))
    socket.on('end', () => socket.end('bye'))
  })
  await mesh.place('b', { db: [await mesh.listen(server)] }).start({ tls: files() })
  const dial = async (): Promise<{ client: tls.TLSSocket; heard: () => string }> => {
    const client = tls.connect({
      port: mesh.port,
      ca: CERT,
      servername: 'orders.mesh',
      allowHalfOpen: true,
    } as tls.ConnectionOptions)
    mesh.onStop(() => client.destroy())
    client.on('error', () => {})
    let heard = ''
    client.on('data', chunk => {
      heard += chunk
    })
    client.write('CONNECT db:1 HTTP/1.1\r\nHost: db:1\r\n\r\nhello')
    await waitUntil('the tunnel carries bytes', () => heard.endsWith('\r\n\r\nHELLO'))
    return { client, heard: () => heard }
  }
  const whole = await dial()
  whole.client.end()
  await waitUntil('it ends', () => whole.heard().endsWith('HELLObye'))
  const broken = await dial()
  broken.client.destroy()
  await waitUntil('nothing is left', () => mesh.ingress.inFlight === 0)
  expect(ends).toEqual([])
})
