import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import http from 'node:http'
import http2 from 'node:http2'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'
import grpc from '@grpc/grpc-js'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { EchoClient, startEcho } from '../../proxy/test-grpc.ts'
import { createMesh, type MeshProcesses, waitUntil } from './daemon-process.ts'

describe('gRPC and HTTP/2 between two regions', () => {
  let mesh: MeshProcesses
  let server: grpc.Server
  let web: http2.Http2Server
  let client: EchoClient
  let cancelled = 0

  beforeAll(async () => {
    const echo = await startEcho({
      Unary(call, answer) {
        const trailers = new grpc.Metadata()
        trailers.set('x-trailer', String(call.metadata.get('x-own')[0] ?? ''))
        if (call.request.toString() !== 'wait') answer(null, call.request, trailers)
        else call.on('cancelled', () => cancelled++)
      },
      Upload(call, answer) {
        let bytes = 0
        call.on('data', (message: Buffer) => {
          bytes += message.length
        })
        call.on('end', () => answer(null, Buffer.from(String(bytes))))
      },
      Download(call) {
        for (let i = 0; i < 1000; i++) call.write(Buffer.alloc(1000, i))
        call.end()
      },
      Chat(call) {
        call.on('data', (message: Buffer) => call.write(message))
        call.on('end', () => call.end())
        call.on('cancelled', () => cancelled++)
      },
    })
    server = echo.server
    web = http2.createServer((request, response) => void response.end(`${request.method} ${request.url}`))
    web.listen(0, '127.0.0.1')
    await once(web, 'listening')
    mesh = await createMesh({
      nodes: [
        { name: 'a', region: 'region-a' },
        { name: 'b', region: 'region-b' },
      ],
    })
    mesh.node('b').writeServices([
      { name: 'echo', instances: [{ address: echo.address }] },
      { name: 'web', protocol: 'h2', instances: [{ address: `127.0.0.1:${(web.address() as AddressInfo).port}` }] },
    ])
    await mesh.converged()
    client = new EchoClient(mesh.node('a').listen.http, 'echo.mesh')
    await waitUntil('calls are answered', () =>
      client.unary(Buffer.from('x')).then(
        () => true,
        () => undefined,
      ),
    )
  })

  afterAll(async () => {
    client?.close()
    await mesh?.stop()
    server?.forceShutdown()
    web?.close()
  })

  it('carries unary calls with metadata, and messages of 4 MB', async () => {
    const metadata = new grpc.Metadata()
    metadata.set('x-own', 'mine')
    const { answer, metadata: seen, trailers } = await client.unary(Buffer.from('hello'), {}, metadata)
    expect(answer.toString()).toBe('hello')
    expect(seen.get('via')).toEqual(['1.1 flatmesh-b, 1.1 flatmesh-a'])
    expect(trailers.get('x-trailer')).toEqual(['mine'])
    const large = Buffer.alloc(4 * 1024 * 1024, 'flatmesh')
    expect((await client.unary(large)).answer.equals(large)).toBe(true)
  })

  it('streams up, down and both ways', async () => {
    const uploaded = await new Promise<Buffer | undefined>((resolve, reject) => {
      const call = client.upload((error, answer) => (error === null ? resolve(answer) : reject(error)))
      for (let i = 0; i < 100; i++) call.write(Buffer.alloc(20_000))
      call.end()
    })
    expect(uploaded?.toString()).toBe('2000000')
    let bytes = 0
    const download = client.download(Buffer.alloc(0))
    download.on('data', (message: Buffer) => {
      bytes += message.length
    })
    const [status] = (await once(download, 'status')) as [grpc.StatusObject]
    expect([status.code, bytes]).toEqual([0, 1_000_000])
    const chat = client.chat()
    for (const word of ['a', 'b', 'c']) {
      const heard = once(chat, 'data')
      chat.write(Buffer.from(word))
      expect(String((await heard)[0])).toBe(word)
    }
    const over = once(chat, 'status')
    chat.end()
    expect(((await over)[0] as grpc.StatusObject).code).toBe(0)
  })

  it('ends calls at the instance when the client cancels, and when its deadline is over', async () => {
    const before = cancelled
    const late = await client.unary(Buffer.from('wait'), { deadline: Date.now() + 300 }).catch(error => error)
    expect(late.code).toBe(grpc.status.DEADLINE_EXCEEDED)
    const chat = client.chat()
    chat.on('error', () => {})
    chat.write(Buffer.from('x'))
    await once(chat, 'data')
    chat.cancel()
    await waitUntil('the instance has heard of both', () => (cancelled === before + 2 ? true : undefined))
  })

  it('tells errors of the mesh as gRPC does', async () => {
    const nobody = new EchoClient(mesh.node('a').listen.http, 'nobody.mesh')
    const error = await nobody.unary(Buffer.alloc(0)).catch(error => error)
    nobody.close()
    expect([error.code, ...error.metadata.get('x-flatmesh-error')]).toEqual([
      grpc.status.UNIMPLEMENTED,
      'unknown-service',
    ])
  })

  it('serves clients of HTTP/1.1 from an instance of HTTP/2, and nghttp and h2load where they are installed', async () => {
    const { http: at } = mesh.node('a').listen
    const response = await new Promise<http.IncomingMessage>((resolve, reject) => {
      http.get(`http://${at}/a?b`, { headers: { host: 'web.mesh' } }, resolve).on('error', reject)
    })
    let body = ''
    for await (const chunk of response) body += chunk
    expect([response.statusCode, body]).toEqual([200, 'GET /a?b'])

    const run = promisify(execFile)
    if (!(await run('which', ['nghttp', 'h2load']).catch(() => undefined))) {
      console.log('nghttp and h2load are not installed: left out')
      return
    }
    const nghttp = await run('nghttp', ['-H', ':authority: web.mesh', `http://${at}/from-nghttp`])
    expect(nghttp.stdout).toBe('GET /from-nghttp')
    const file = join(mesh.node('a').folder, 'message')
    await writeFile(file, Buffer.concat([Buffer.from([0, 0, 0, 0, 100]), Buffer.alloc(100, 'x')]))
    const fields = [':authority: echo.mesh', 'content-type: application/grpc', 'te: trailers']
    const load = ['-n', '5000', '-c', '4', '-m', '8', '-d', file, ...fields.flatMap(field => ['-H', field])]
    const { stdout } = await run('h2load', [...load, `http://${at}/test.Echo/Unary`])
    expect(stdout).toContain('5000 succeeded, 0 failed')
    // Errors of gRPC are of status 200 too, but bring no message.
    expect(stdout).toContain(`(${5000 * 105}) data`)
  })

  it('drains without losing a stream: the last message of a chat comes after the daemon was told to stop', async () => {
    const session = http2.connect(`http://${mesh.node('a').listen.http}`)
    session.on('error', () => {})
    const goaway = once(session, 'goaway')
    const chat = session.request({
      ...{ ':method': 'POST', ':path': '/test.Echo/Chat', ':authority': 'echo.mesh' },
      ...{ 'content-type': 'application/grpc', te: 'trailers' },
    })
    const message = Buffer.from([0, 0, 0, 0, 1, 0x78])
    chat.write(message)
    await once(chat, 'data')
    const stopped = mesh.node('a').stop()
    await goaway
    const heard = once(chat, 'data')
    chat.write(message)
    expect((await heard)[0]).toEqual(message)
    const trailers = once(chat, 'trailers')
    chat.end()
    chat.resume()
    expect(((await trailers)[0] as http2.IncomingHttpHeaders)['grpc-status']).toBe('0')
    await stopped
  })
})
