import { writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { expect, test } from 'vitest'
import { readPlaceFilter } from '../proxy/place-filter.ts'
import { fakeBackend, makeFolder, type Ran, run, STATUS, startAdmin, stdinOf } from './command-fixture.ts'

interface Heard {
  readonly method: string | undefined
  readonly url: string | undefined
  readonly headers: IncomingMessage['headers']
  readonly body: string
}

/** Runs `call` against an ingress that answers so, and tells what the ingress heard. */
async function call(
  words: readonly string[],
  answer: RequestListener = (_, response) => response.end('hello'),
  given: { stdin?: Readable; files?: Record<string, string>; answersAtOnce?: boolean } = {},
): Promise<Ran & { heard: Heard[] }> {
  using made = makeFolder()
  for (const [name, text] of Object.entries(given.files ?? {})) writeFileSync(join(made.folder, name), text)
  const heard: Heard[] = []
  const ingress = createServer(async (request, response) => {
    if (given.answersAtOnce === true) {
      response.writeHead(413).end('too much')
      return
    }
    let body = ''
    for await (const chunk of request) body += chunk
    heard.push({ method: request.method, url: request.url, headers: request.headers, body })
    answer(request, response)
  })
  await new Promise<void>(resolve => ingress.listen(0, '127.0.0.1', resolve))
  const { port } = ingress.address() as AddressInfo
  const listen = { ...STATUS.listen, http: `0.0.0.0:${port}` }
  await using admin = await startAdmin(fakeBackend({ status: () => ({ ...STATUS, listen }) }))
  writeFileSync(join(made.folder, 'flatmesh.yaml'), `mesh: a\nnode: b\nregion: c\nlisten: { admin: '${admin.text}' }\n`)
  const ran = await run(['call', ...words], { cwd: made.folder, stdin: given.stdin ?? stdinOf('') })
  ingress.closeAllConnections()
  await new Promise(resolve => ingress.close(resolve))
  return { ...ran, heard }
}

test('call asks the local daemon for the service by its name and prints the body alone', async () => {
  const { code, out, err, heard } = await call(['orders'])
  expect([code, out, err]).toEqual([0, 'hello', ''])
  expect(heard).toMatchObject([{ method: 'GET', url: '/', headers: { host: 'orders.mesh' }, body: '' }])
})

test('method, path, fields and body go out as they were given', async () => {
  const words = ['orders', 'a/b?c=1', '-X', 'put', '-H', 'A: one', '-H', 'a: two', '-H', 'X-Empty:', '-d', 'text']
  const { heard } = await call(words)
  expect(heard).toMatchObject([
    {
      method: 'PUT',
      url: '/a/b?c=1',
      headers: { host: 'orders.mesh', a: 'one, two', 'x-empty': '', 'content-length': '4' },
      body: 'text',
    },
  ])
})

test('a place is asked for with fields that an ingress reads as they were meant', async () => {
  const words = ['orders', '--region', 'aws-*', '--label', 'version=v2', '--label', 'n=Mü, x']
  const { heard } = await call(words)
  expect(heard[0]?.headers['x-flatmesh-region']).toBe('aws-*')
  expect(readPlaceFilter({ fields: ['x-flatmesh-label', String(heard[0]?.headers['x-flatmesh-label'])] })).toEqual({
    ok: true,
    filter: { region: undefined, labels: { version: 'v2', n: 'Mü, x' } },
  })
  expect((await call(['orders', '--region', 'a*b'])).code).toBe(2)
})

test('a body comes from a file or from stdin, and makes it a POST', async () => {
  const file = await call(['orders', '-d', '@b.json'], undefined, { files: { 'b.json': '{"a":1}' } })
  expect(file.heard).toMatchObject([{ method: 'POST', headers: { 'content-length': '7' }, body: '{"a":1}' }])
  const stdin = await call(['orders', '/', '-d', '-'], undefined, { stdin: stdinOf('from a pipe') })
  expect(stdin.heard).toMatchObject([
    { method: 'POST', headers: { 'transfer-encoding': 'chunked' }, body: 'from a pipe' },
  ])
})

test('a POST of nothing says so, and a field that was given wins over our own', async () => {
  const { heard } = await call(['orders', '/', '-X', 'POST', '-H', 'Host: other.mesh', '-H', 'User-Agent: me'])
  expect(heard).toMatchObject([{ headers: { 'content-length': '0', host: 'other.mesh', 'user-agent': 'me' } }])
})

test('an answer that comes before all of stdin was sent ends the call', async () => {
  const endless = new Readable({ read() {} })
  endless.push('first')
  const ran = await call(['orders', '/', '-d', '-'], undefined, { stdin: endless, answersAtOnce: true })
  expect(ran).toMatchObject({ code: 22, out: 'too much' })
  expect(endless.destroyed).toBe(true)
})

test('an error of the service is exit code 22, with its body on stdout', async () => {
  const ran = await call(['orders'], (_, response) => response.writeHead(404).end('no such order'))
  expect(ran).toMatchObject({ code: 22, out: 'no such order', err: '' })
  const redirected = await call(['orders'], (_, response) => response.writeHead(302).end())
  expect(redirected.code).toBe(0)
})

test('an error of the mesh is exit code 69 on stderr, never taken for the service’s', async () => {
  const body = { error: { code: 'no-healthy-place', message: 'orders has no healthy instance', node: 'use1-a' } }
  const answer: RequestListener = (_, response) =>
    response.writeHead(503, { 'x-flatmesh-error': 'no-healthy-place' }).end(JSON.stringify(body))
  expect(await call(['orders'], answer)).toMatchObject({
    code: 69,
    out: '',
    err: 'flatmesh: no-healthy-place: orders has no healthy instance\n',
  })
  const json = await call(['orders', '--json'], answer)
  expect([json.code, json.out, JSON.parse(json.err)]).toEqual([
    69,
    '',
    { error: { code: 'no-healthy-place', message: 'orders has no healthy instance' } },
  ])
})

test('a mesh error with a body that says nothing is still told', async () => {
  const answer: RequestListener = (_, response) =>
    response.writeHead(504, { 'x-flatmesh-error': 'deadline' }).end('<html>')
  expect(await call(['orders'], answer)).toMatchObject({ code: 69, err: 'flatmesh: deadline: HTTP 504\n' })
})

test('-i prints status and fields before the body', async () => {
  const { out } = await call(['orders', '-i'], (_, response) => {
    response.sendDate = false
    response.writeHead(200, { 'X-A': 'b', 'content-length': 2 }).end('ok')
  })
  expect(out).toBe('HTTP/1.1 200 OK\r\nX-A: b\r\ncontent-length: 2\r\nConnection: close\r\n\r\nok')
})

test('--json tells status, fields and body, text as text and the rest as base64', async () => {
  const text = await call(['orders', '--json'], (_, response) => response.writeHead(201, { a: 'b' }).end('é'))
  expect(JSON.parse(text.out)).toMatchObject({ status: 201, headers: { a: 'b' }, body: 'é', encoding: 'utf8' })
  const bytes = await call(['orders', '--json'], (_, response) => response.end(Buffer.from([0xff, 0])))
  expect(JSON.parse(bytes.out)).toMatchObject({ body: '/wA=', encoding: 'base64' })
})

test('an answer that breaks off is exit code 69, not a short success', async () => {
  const ran = await call(['orders'], (_, response) => {
    response.writeHead(200, { 'content-length': 100 })
    response.write('half', () => response.destroy())
  })
  expect(ran).toMatchObject({
    code: 69,
    out: 'half',
    err: 'flatmesh: the answer broke off before its end: what was printed is not all\n',
  })
})

test('a connection closed before an answer is exit code 69', async () => {
  const ran = await call(['orders'], request => request.socket.destroy())
  expect([ran.code, ran.out]).toEqual([69, ''])
  expect(ran.err).toContain('flatmesh: the daemon closed the connection before an answer')
})

test.each([
  [['Orders'], '"Orders" cannot be the name of a service'],
  [['orders', '/a b'], 'PATH takes visible ASCII only'],
  [['orders', '-X', 'G T'], '"G T" cannot be a method'],
  [['orders', '-H', 'nocolon'], '-H takes \'Name: value\', found "nocolon"'],
  [['orders', '-H', 'a: b\r\nc: d'], "-H takes 'Name: value'"],
  [['orders', '-d', '@missing'], '-d @missing: cannot be read: ENOENT'],
  [['orders', '-d', '@.'], '-d @.: cannot be read: it is a folder'],
  [[], 'call takes SERVICE [PATH], found nothing'],
])('call %j is refused before anything is sent', async (words, message) => {
  const { code, err, heard } = await call(words)
  expect([code, heard]).toEqual([2, []])
  expect(err).toContain(message)
})
