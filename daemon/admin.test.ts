import { readFileSync, renameSync, statSync, writeFileSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { type IncomingHttpHeaders, request } from 'node:http'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, test, vi } from 'vitest'
import { MeshError } from '../router/errors.ts'
import { silentLog } from '../router/log.ts'
import type { AdminAddress } from './address.ts'
import { AdminServer } from './admin.ts'
import type { RegistrationView } from './admin-api.ts'
import { fakeBackend, makeFolder, STATUS, startAdmin } from './command-fixture.ts'

interface Asked {
  readonly method?: string
  readonly headers?: Record<string, string>
  readonly body?: string
}
interface Answered {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly text: string
}

function ask(
  address: AdminAddress,
  path: string,
  { method = 'GET', headers = {}, body }: Asked = {},
): Promise<Answered> {
  const where =
    'socketPath' in address ? { socketPath: address.socketPath } : { host: address.host, port: address.port }
  return new Promise((resolve, reject) => {
    const asked = request({ ...where, path, method, headers, agent: false }, answer => {
      let text = ''
      answer.setEncoding('utf8')
      answer.on('data', chunk => {
        text += chunk
      })
      answer.on('end', () => resolve({ status: answer.statusCode ?? 0, headers: answer.headers, text }))
    })
    asked.on('error', reject)
    asked.end(body)
  })
}

/** Sends bytes as they are, and resolves with all that comes back until the server closes. */
function askRaw(address: AdminAddress, bytes: string): Promise<string> {
  return new Promise((resolve, reject) => {
    if ('socketPath' in address) return reject(new Error('TCP only'))
    const socket = connect(address.port, address.host)
    let text = ''
    socket.on('data', chunk => {
      text += chunk.toString('latin1')
    })
    socket.on('close', () => resolve(text))
    socket.on('error', () => resolve(text))
    socket.end(Buffer.from(bytes, 'latin1'))
  })
}

function codeOf({ text }: Answered): unknown {
  return JSON.parse(text).error.code
}

const REGISTERED: RegistrationView = {
  service: 'orders',
  id: 'one',
  address: '127.0.0.1:9000',
  protocol: 'http',
  labels: {},
  weight: 1,
  source: 'http',
  ttlMs: 30_000,
  expiresAtMs: 1,
}

test.each([
  ['/v1/status', 'status'],
  ['/v1/nodes', 'nodes'],
  ['/v1/links', 'links'],
  ['/v1/services', 'services'],
  ['/v1/routes', 'routes'],
  ['/v1/registry', 'registrations'],
] as const)('GET %s answers what the backend says, as JSON', async (path, method) => {
  const backend = fakeBackend()
  await using admin = await startAdmin(backend)
  const answer = await ask(admin.address, path)
  expect(answer.status).toBe(200)
  expect(answer.headers['content-type']).toBe('application/json')
  expect(JSON.parse(answer.text)).toEqual(backend[method]())
})

test('explain gets what a call would ask for, and refuses what cannot be asked', async () => {
  const explain = vi.fn(fakeBackend().explain)
  await using admin = await startAdmin(fakeBackend({ explain }))
  const path = '/v1/explain/orders'
  expect((await ask(admin.address, `${path}?region=aws-*&label=version%3Dv2&label=n%3DM%C3%BC+x`)).status).toBe(200)
  expect(explain).toHaveBeenCalledWith('orders', { region: 'aws-*', labels: { version: 'v2', n: 'Mü x' } })
  for (const query of ['region=a*b', 'region=', 'region=a&region=b', 'label=v2', 'label=a%3D1&label=a%3D2']) {
    const answer = await ask(admin.address, `${path}?${query}`)
    expect([answer.status, JSON.parse(answer.text).error.code]).toEqual([400, 'bad-request'])
    expect(JSON.parse(answer.text).error.message).toContain('expected')
  }
  expect(explain).toHaveBeenCalledTimes(1)
})

test('GET /metrics answers Prometheus in its own format, and only whoever may ask', async () => {
  const backend = fakeBackend()
  await using admin = await startAdmin(backend)
  const answer = await ask(admin.address, '/metrics')
  expect(answer).toMatchObject({ status: 200, text: backend.metrics() })
  expect(answer.headers['content-type']).toBe('text/plain; version=0.0.4; charset=utf-8')
  expect((await ask(admin.address, '/metrics', { headers: { origin: 'http://evil.example' } })).status).toBe(403)
})

test('explain gets the name as it was meant, whatever characters are in it', async () => {
  const explain = vi.fn(fakeBackend().explain)
  await using admin = await startAdmin(fakeBackend({ explain }))
  expect((await ask(admin.address, '/v1/explain/a%2Fb%20%C3%A9?x=1')).status).toBe(200)
  expect(explain).toHaveBeenCalledWith('a/b é', undefined)
  expect((await ask(admin.address, '/v1/explain/%ff')).status).toBe(404)
})

test('a health check passes only while calls should come here', async () => {
  let state: 'starting' | 'up' | 'draining' = 'starting'
  await using admin = await startAdmin(fakeBackend({ status: () => ({ ...STATUS, state }) }))
  expect((await ask(admin.address, '/healthz')).status).toBe(503)
  state = 'up'
  expect(await ask(admin.address, '/healthz')).toMatchObject({ status: 200, text: '{"status":"up"}\n' })
  state = 'draining'
  expect((await ask(admin.address, '/healthz')).status).toBe(503)
})

test('a service registers, says it is alive, and goes again', async () => {
  const register = vi.fn(() => REGISTERED)
  const heartbeat = vi.fn(() => REGISTERED)
  const deregister = vi.fn(() => true)
  await using admin = await startAdmin(fakeBackend({ register, heartbeat, deregister }))
  const body = JSON.stringify({ address: '127.0.0.1:9000', labels: { a: 'b' } })
  const put = await ask(admin.address, '/v1/registry/orders/127.0.0.1%3A9000', { method: 'PUT', body })
  expect([put.status, JSON.parse(put.text)]).toEqual([200, REGISTERED])
  expect(register).toHaveBeenLastCalledWith('orders', '127.0.0.1:9000', {
    address: '127.0.0.1:9000',
    labels: { a: 'b' },
  })
  expect((await ask(admin.address, '/v1/registry/orders/one/heartbeat', { method: 'PUT' })).status).toBe(200)
  expect(heartbeat).toHaveBeenLastCalledWith('orders', 'one')
  expect(await ask(admin.address, '/v1/registry/orders/one', { method: 'DELETE' })).toMatchObject({
    status: 204,
    text: '',
  })
  expect(deregister).toHaveBeenLastCalledWith('orders', 'one')
})

test('POST takes service and id out of the body, and the id may be left out', async () => {
  const register = vi.fn(() => REGISTERED)
  await using admin = await startAdmin(fakeBackend({ register }))
  const post = (body: unknown) => ask(admin.address, '/v1/registry', { method: 'POST', body: JSON.stringify(body) })
  expect((await post({ service: 'orders', address: 'a:1' })).status).toBe(201)
  expect(register).toHaveBeenLastCalledWith('orders', undefined, { address: 'a:1' })
  expect((await post({ service: 'orders', id: 'one', address: 'a:1' })).status).toBe(201)
  expect(register).toHaveBeenLastCalledWith('orders', 'one', { address: 'a:1' })
  for (const body of [{}, { service: 5 }, { service: 'a', id: 5 }, [], null, 'x']) {
    const answer = await post(body)
    expect([answer.status, codeOf(answer)]).toEqual([400, 'bad-request'])
  }
  expect(register).toHaveBeenCalledTimes(2)
})

test('what the registry refuses is the client’s error, what nobody knows is a 404, and a bug is a 500 without details', async () => {
  const error = vi.fn()
  const backend = fakeBackend({
    register: () => {
      throw new MeshError('bad-registry', 'weight: expected 1..1000, found 0')
    },
    heartbeat: () => {
      throw new MeshError('not-found', 'nobody of that name')
    },
    nodes: () => {
      throw new Error('secret detail')
    },
  })
  const server = new AdminServer({ backend, log: { ...silentLog, error } }, { address: { host: '127.0.0.1', port: 0 } })
  const address = await server.start()
  const refused = await ask(address, '/v1/registry/a/b', { method: 'PUT', body: '{}' })
  expect([refused.status, JSON.parse(refused.text)]).toEqual([
    400,
    { error: { code: 'bad-registry', message: 'weight: expected 1..1000, found 0' } },
  ])
  expect((await ask(address, '/v1/registry/a/b/heartbeat', { method: 'PUT' })).status).toBe(404)
  expect((await ask(address, '/v1/registry/a/b', { method: 'DELETE' })).status).toBe(404)
  const bug = await ask(address, '/v1/nodes')
  expect([bug.status, codeOf(bug)]).toEqual([500, 'internal'])
  expect(bug.text).not.toContain('secret')
  expect(error).toHaveBeenCalledTimes(1)
  await server.stop()
})

test('an unknown path is a 404 and a wrong method a 405 that names the right ones, in JSON', async () => {
  await using admin = await startAdmin()
  for (const path of ['/', '/v1', '/v1/status/', '/v1/explain/', '/v2/status', '//v1/status', '/v1/registry/a']) {
    const answer = await ask(admin.address, path)
    expect([path, answer.status, codeOf(answer)]).toEqual([path, 404, 'not-found'])
  }
  const wrong = await ask(admin.address, '/v1/registry/a/b', { method: 'PATCH' })
  expect([wrong.status, wrong.headers.allow, codeOf(wrong)]).toEqual([405, 'PUT, DELETE', 'bad-method'])
})

test('HEAD answers as GET does, without a body', async () => {
  await using admin = await startAdmin()
  const head = await ask(admin.address, '/v1/status', { method: 'HEAD' })
  expect([head.status, head.text]).toEqual([200, ''])
  expect(Number(head.headers['content-length'])).toBeGreaterThan(100)
})

test.each([
  ['evil.example', 403],
  ['evil.example:4790', 403],
  ['127.0.0.1.evil.example', 403],
  ['localhost.evil.example', 403],
  ['localhost@evil.example', 403],
  ['localhost', 200],
  ['LOCALHOST:99', 200],
  ['127.0.0.1:1', 200],
  ['[::1]:1', 200],
])('a request for the host %s gets %d: a name that a page’s owner points here is not answered', async (host, status) => {
  await using admin = await startAdmin()
  expect((await ask(admin.address, '/v1/status', { headers: { host } })).status).toBe(status)
})

test('a request without Host, or with two, is not answered', async () => {
  await using admin = await startAdmin()
  expect(await askRaw(admin.address, 'GET /v1/status HTTP/1.0\r\n\r\n')).toMatch(/^HTTP\/1\.1 403 /)
  const two = 'GET /v1/status HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n'
  expect(await askRaw(admin.address, two)).toMatch(/^HTTP\/1\.1 40[03] /)
  const absolute = 'GET http://localhost/v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'
  expect(await askRaw(admin.address, absolute)).toMatch(/^HTTP\/1\.1 404 /)
})

test.each([
  'http://evil.example',
  'http://localhost:4790',
  'null',
  '',
])('a web page of origin %j can neither read nor register', async origin => {
  const register = vi.fn(() => REGISTERED)
  await using admin = await startAdmin(fakeBackend({ register }))
  const body = '{"service":"orders","address":"a:1"}'
  const answer = await ask(admin.address, '/v1/registry', { method: 'POST', headers: { origin }, body })
  expect([answer.status, codeOf(answer)]).toEqual([403, 'forbidden'])
  expect((await ask(admin.address, '/v1/status', { headers: { origin } })).status).toBe(403)
  expect(register).not.toHaveBeenCalled()
})

test('a body past 64 KiB is refused, with and without a length that says so', async () => {
  const register = vi.fn(() => REGISTERED)
  await using admin = await startAdmin(fakeBackend({ register }))
  const body = JSON.stringify({ service: 'orders', address: 'a'.repeat(65 * 1024) })
  const told = await ask(admin.address, '/v1/registry', { method: 'POST', body })
  expect([told.status, codeOf(told), told.headers.connection]).toEqual([413, 'too-large', 'close'])
  const chunked = { 'transfer-encoding': 'chunked' }
  const untold = await ask(admin.address, '/v1/registry', { method: 'POST', headers: chunked, body })
  expect([untold.status, codeOf(untold)]).toEqual([413, 'too-large'])
  expect(register).not.toHaveBeenCalled()
  const most = JSON.stringify({ service: 'orders', address: 'a'.repeat(64 * 1024 - 50) })
  expect((await ask(admin.address, '/v1/registry', { method: 'POST', body: most })).status).toBe(201)
})

test('a body that is not JSON is refused, and none at all is an empty one', async () => {
  const register = vi.fn(() => REGISTERED)
  await using admin = await startAdmin(fakeBackend({ register }))
  const put = (body: string) => ask(admin.address, '/v1/registry/a/b', { method: 'PUT', body })
  expect(codeOf(await put('address=a:1'))).toBe('bad-request')
  expect(register).not.toHaveBeenCalled()
  expect((await put('')).status).toBe(200)
  expect(register).toHaveBeenCalledWith('a', 'b', {})
})

test('what is not HTTP is answered in words and closed', async () => {
  await using admin = await startAdmin()
  expect(await askRaw(admin.address, 'hello\r\n\r\n')).toMatch(/^HTTP\/1\.1 400 [\s\S]*"code":"bad-request"/)
  const fields = `X: ${'x'.repeat(20_000)}\r\n`
  expect(await askRaw(admin.address, `GET / HTTP/1.1\r\nHost: localhost\r\n${fields}\r\n`)).toMatch(/^HTTP\/1\.1 431 /)
})

test('no bytes on the port disturb the next request', async () => {
  await using admin = await startAdmin()
  const line = fc.constantFrom(
    'GET ',
    'PUT ',
    '/v1/registry/a/b',
    ' HTTP/1.1',
    '\r\n',
    'Host: localhost',
    'Content-Length: 5',
    ': ',
    '%',
    '{}',
  )
  const bytes = fc.array(fc.oneof(line, fc.string({ unit: 'binary', maxLength: 8 })), { maxLength: 20 })
  await fc.assert(
    fc.asyncProperty(bytes, async pieces => {
      await askRaw(admin.address, pieces.join(''))
    }),
    { numRuns: 60 },
  )
  expect((await ask(admin.address, '/healthz')).status).toBe(200)
})

test('a port that is taken is one clear error', async () => {
  await using admin = await startAdmin()
  await expect(startAdmin(fakeBackend(), admin.address)).rejects.toMatchObject({
    code: 'port-in-use',
    message: expect.stringContaining(`listen.admin: ${admin.text} is taken by another program`),
  })
})

test('a unix socket is for its owner alone, takes any Host, and leaves nothing behind', async () => {
  using made = makeFolder()
  const address = { socketPath: join(made.folder, 'admin.sock') }
  {
    await using admin = await startAdmin(fakeBackend(), address)
    expect(admin.text).toBe(`unix:${address.socketPath}`)
    expect(statSync(address.socketPath).mode & 0o777).toBe(0o600)
    expect((await ask(address, '/v1/status', { headers: { host: 'whatever' } })).status).toBe(200)
    expect((await ask(address, '/v1/status', { headers: { origin: 'http://localhost' } })).status).toBe(403)
    await expect(startAdmin(fakeBackend(), address)).rejects.toMatchObject({ code: 'port-in-use' })
    expect(await readdir(made.folder)).toEqual(['admin.sock'])
  }
  expect(await readdir(made.folder)).toEqual([])
})

test('a socket left behind by a crash is replaced', async () => {
  using made = makeFolder()
  const socketPath = join(made.folder, 'admin.sock')
  const crashed = createServer()
  await new Promise<void>(resolve => crashed.listen(join(made.folder, 'old'), resolve))
  renameSync(join(made.folder, 'old'), socketPath)
  await new Promise(resolve => crashed.close(resolve))
  expect(statSync(socketPath).isSocket()).toBe(true)
  await using admin = await startAdmin(fakeBackend(), { socketPath })
  expect((await ask(admin.address, '/healthz')).status).toBe(200)
})

test('a file that is no socket is never replaced by one', async () => {
  using made = makeFolder()
  const socketPath = join(made.folder, 'precious')
  writeFileSync(socketPath, 'data')
  await expect(startAdmin(fakeBackend(), { socketPath })).rejects.toMatchObject({
    code: 'bad-config',
    message: expect.stringContaining('there is something else at that path'),
  })
  expect(readFileSync(socketPath, 'utf8')).toBe('data')
})

test('a folder that cannot hold the socket is one clear error', async () => {
  const socketPath = '/nowhere/admin.sock'
  await expect(startAdmin(fakeBackend(), { socketPath })).rejects.toMatchObject({
    code: 'bad-config',
    message: expect.stringContaining('listen.admin: cannot listen on unix:/nowhere/admin.sock: ENOENT'),
  })
})

test('a stopped server answers nobody, and stopping twice or before the start does no harm', async () => {
  const server = new AdminServer(
    { backend: fakeBackend(), log: silentLog },
    { address: { host: '127.0.0.1', port: 0 } },
  )
  await server.stop()
  const address = await server.start()
  await server.stop()
  await server.stop()
  await expect(ask(address, '/healthz')).rejects.toMatchObject({ code: 'ECONNREFUSED' })
})
