import { writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { fakeBackend, makeFolder, NOW_MS, type Ran, run, STATUS, startAdmin } from './command-fixture.ts'
import { writeListenFile } from './listen-file.ts'
import { displayWidth } from './table.ts'

/** Runs a command in a folder whose config names a daemon with this backend. */
async function ask(words: readonly string[], backend = fakeBackend(), columns?: number): Promise<Ran> {
  using made = makeFolder()
  await using admin = await startAdmin(backend)
  writeConfig(made.folder, admin.text)
  return await run(words, { cwd: made.folder, columns })
}

function writeConfig(folder: string, admin: string): void {
  const text = `mesh: acme\nnode: use1-a\nregion: aws-us-east-1\nlisten: { admin: '${admin}' }\n`
  writeFileSync(join(folder, 'flatmesh.yaml'), text)
}

test('nodes is a table for people', async () => {
  expect(await ask(['nodes'])).toEqual({
    code: 0,
    out: [
      'NODE    REGION            STATE        RTT MS  VIA  VERSION',
      'use1-a  aws-us-east-1     self           0.00  -    0.1.0',
      'euw3-a  gcp-europe-west3  up             88.3  -    0.1.0',
      'apse-1  sg                unreachable       -  -    0.1.0',
      '',
    ].join('\n'),
    err: '',
  })
})

test('links is a table for people', async () => {
  expect((await ask(['links'])).out).toBe(
    [
      'NODE    REGION            OVERLAY  CALLS  OVER  RTT MS  LOSS %  OPEN  FOR  ADDRESS',
      'euw3-a  gcp-europe-west3  up       down   -       88.3     0.4    12   3m  198.51.100.4:4701',
      '',
    ].join('\n'),
  )
})

test('services is a table for people', async () => {
  expect((await ask(['services'])).out).toBe(
    [
      'SERVICE  PROTOCOL  NODES  HEALTHY  CLOSEST',
      'orders   http          2      2/3  euw3-a',
      'stock    tcp           1      0/1  none can take a call',
      '',
    ].join('\n'),
  )
})

test('routes is a table for people, of one service when it is named', async () => {
  const table = [
    'SERVICE  NODE    REGION            PROTOCOL  HEALTHY  COST MS  VIA  OVER    STATE        AGE',
    'orders   euw3-a  gcp-europe-west3  http          2/3     89.3  -    direct  ready         4s',
    'orders   apse-1  sg                http          1/1        -  -    -       unreachable  10m',
    '',
  ].join('\n')
  expect((await ask(['routes'])).out).toBe(table)
  expect((await ask(['routes', 'orders'])).out).toBe(table)
})

test('explain says who is chosen, and why the others are not', async () => {
  expect(await ask(['explain', 'orders'])).toEqual({
    code: 0,
    out: [
      'a call for orders from use1-a goes to euw3-a',
      '',
      'RANK  NODE    REGION            COST MS   RTT  HOPS  VIA  OVER    HEALTHY  WHY',
      '   1  euw3-a  gcp-europe-west3     89.3  88.3   1.0  -    direct      2/3  least cost',
      ' out  apse-1  sg                      -     -     -  -    -           1/1  no path of live links leads there',
      '',
    ].join('\n'),
    err: '',
  })
})

test('explain asks for the place that a call would ask for', async () => {
  const asked: unknown[] = []
  const backend = fakeBackend()
  const noting = fakeBackend({
    explain: (service, filter) => {
      asked.push([service, filter])
      return backend.explain(service)
    },
  })
  const words = ['explain', 'orders', '--region', 'aws-*', '--label', 'version=v2', '--label', 'n=Mü, x&y=z']
  expect((await ask(words, noting)).code).toBe(0)
  expect(asked).toEqual([['orders', { region: 'aws-*', labels: { version: 'v2', n: 'Mü, x&y=z' } }]])
  const wrong = await ask(['explain', 'orders', '--label', 'v2'], noting)
  expect(wrong.code).toBe(2)
  expect(wrong.err).toContain('explain: expected a label such as version=v2, found "v2"')
})

test('status tells all, and which registry has a problem', async () => {
  expect((await ask(['status'])).out).toBe(
    [
      'node         use1-a',
      'id           12D3KooWAzSrJrsgigeyk85NXMrg2BfczU6SJVi4JWtawmUzCm6w',
      'mesh         acme',
      'region       aws-us-east-1',
      'state        up for 2h',
      'version      0.1.0',
      'overlay      0.0.0.0:4700',
      'calls        0.0.0.0:4701',
      'http         127.0.0.1:4780',
      'admin        127.0.0.1:4790',
      'advertises   203.0.113.7',
      'certificate  expires in 29d',
      'nodes        2 of 3 reachable',
      'services     1, by 2 routes',
      'calls made   1024, 2 failed, 3 in flight',
      'memory       82 MB, heap 40 MB',
      'held back    flaky comes and goes: told of again in 12s',
      'refused      3 from the mesh: bad-signature',
      'registry     file services.yaml: ok',
      'registry     http: the state file cannot be written',
      '',
    ].join('\n'),
  )
  const expired = fakeBackend({ status: () => ({ ...STATUS, certificateExpiresAtMs: NOW_MS }) })
  expect((await ask(['status'], expired)).out).toContain('certificate  EXPIRED\n')
})

test.each([
  ['status', 'status'],
  ['nodes', 'nodes'],
  ['links', 'links'],
  ['services', 'services'],
  ['routes', 'routes'],
] as const)('%s --json prints what the daemon says and nothing else', async (command, method) => {
  const ran = await ask([command, '--json'])
  expect({ ...ran, out: JSON.parse(ran.out) }).toEqual({ code: 0, out: fakeBackend()[method](), err: '' })
})

test('an unknown service is exit code 4, with the JSON of nothing for scripts', async () => {
  for (const command of ['routes', 'explain']) {
    const ran = await ask([command, 'nix'])
    expect(ran).toMatchObject({ code: 4, out: '' })
    expect(ran.err).toBe('flatmesh: no node of the mesh offers "nix": flatmesh services lists those that are known\n')
  }
  const routes = await ask(['routes', 'nix', '--json'])
  expect([routes.code, JSON.parse(routes.out), JSON.parse(routes.err).error.code]).toEqual([4, [], 'not-found'])
  const explain = await ask(['explain', 'nix', '--json'])
  expect([explain.code, JSON.parse(explain.out).known]).toEqual([4, false])
})

test('an empty mesh says so in words, not with a bare header', async () => {
  const empty = fakeBackend({ links: () => [], services: () => [], routes: () => [], nodes: () => [] })
  expect((await ask(['services'], empty)).out).toBe('no services yet: flatmesh service add NAME ADDRESS\n')
  expect((await ask(['routes'], empty)).out).toBe('no services yet: flatmesh service add NAME ADDRESS\n')
  expect((await ask(['links'], empty)).out).toBe('no links yet: flatmesh invite lets another node join\n')
  expect((await ask(['nodes'], empty)).out).toBe('no nodes yet\n')
})

test('every table fits a terminal of 80 columns, however long the names are', async () => {
  const long = 'n'.repeat(63)
  const backend = fakeBackend()
  const wide = fakeBackend({
    nodes: () => backend.nodes().map(node => ({ ...node, node: long, region: long, via: `${long}>${long}` })),
    links: () => backend.links().map(link => ({ ...link, node: long, region: long, address: long })),
    services: () => backend.services().map(service => ({ ...service, service: long, closest: long })),
    routes: () => backend.routes().map(route => ({ ...route, service: long, node: long, region: long, via: long })),
    explain: service => {
      const view = backend.explain(service)
      const candidates = view.candidates.map(each => ({ ...each, node: long, region: long, via: long, why: long }))
      return { ...view, candidates, summary: '' }
    },
  })
  for (const words of [['nodes'], ['links'], ['services'], ['routes'], ['explain', 'orders']]) {
    const { out, code } = await ask(words, wide, 80)
    expect(code).toBe(0)
    for (const line of out.split('\n')) expect(displayWidth(line), words.join(' ')).toBeLessThanOrEqual(80)
  }
})

test('without a daemon, commands exit 3 and say which address was tried and what to do', async () => {
  using made = makeFolder()
  const admin = await startAdmin()
  writeConfig(made.folder, admin.text)
  await admin[Symbol.asyncDispose]()
  for (const words of [['status'], ['nodes'], ['links'], ['services'], ['routes'], ['explain', 'x'], ['call', 'x']]) {
    expect(await run(words, { cwd: made.folder })).toEqual({
      code: 3,
      out: '',
      err: `flatmesh: no daemon answers at ${admin.text} (ECONNREFUSED): is flatmesh up running with this config?\n`,
    })
  }
  const { err } = await run(['status', '--json'], { cwd: made.folder })
  expect(JSON.parse(err).error).toMatchObject({ code: 'daemon-unreachable' })
})

test('a config that leaves the admin port open is followed to the real one by listen.json', async () => {
  using made = makeFolder()
  await using admin = await startAdmin()
  writeFileSync(
    join(made.folder, 'flatmesh.yaml'),
    'mesh: a\nnode: b\nregion: c\ndataDir: .\nlisten: { admin: 127.0.0.1:0 }\n',
  )
  const before = await run(['nodes'], { cwd: made.folder })
  expect(before.code).toBe(3)
  expect(before.err).toContain(`listen.admin has port 0 and there is no ${join(made.folder, 'listen.json')}`)
  writeListenFile(made.folder, { ...STATUS.listen, admin: admin.text })
  expect((await run(['nodes'], { cwd: made.folder })).code).toBe(0)
})

test('commands reach a daemon on a unix socket', async () => {
  using made = makeFolder()
  await using admin = await startAdmin(fakeBackend(), { socketPath: join(made.folder, 'admin.sock') })
  writeConfig(made.folder, admin.text)
  expect((await run(['nodes'], { cwd: made.folder })).code).toBe(0)
})

test.each([
  ['<html>', 200, 'found HTTP 200 without JSON'],
  ['{}', 200, 'found an answer of another shape'],
  ['[{"node":"a"}]', 200, 'found an answer of another shape'],
  ['{"error":{"message":"no such thing"}}', 404, 'found HTTP 404: no such thing'],
  ['null', 500, 'found HTTP 500: no reason given'],
])('something else on the admin port, answering %s, is told apart from a daemon', async (body, status, found) => {
  using made = makeFolder()
  const server = createServer((_, response) => response.writeHead(status).end(body))
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const bound = server.address()
  writeConfig(made.folder, `127.0.0.1:${typeof bound === 'object' ? bound?.port : 0}`)
  const ran = await run(['nodes'], { cwd: made.folder })
  expect([ran.code, ran.out]).toEqual([1, ''])
  expect(ran.err).toContain(found)
  server.closeAllConnections()
  await new Promise(resolve => server.close(resolve))
})
