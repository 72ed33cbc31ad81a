import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test, vi } from 'vitest'
import { MeshError } from '../router/errors.ts'
import type { Identity } from '../tunnel/identity.ts'
import { createKey } from '../tunnel/identity.ts'
import { decodeJoinToken } from '../tunnel/join-token.ts'
import { fakeRooms, makeFolder, NOW_MS, run, STATUS, stdinOf } from './command-fixture.ts'
import { loadConfig } from './config.ts'
import { writeListenFile } from './listen-file.ts'

const NAMES = ['--node', 'use1-a', '--region', 'aws-us-east-1']
const INIT = ['init', '--mesh', 'acme', ...NAMES]

function fakeIdentity(): Identity {
  return {
    nodeId: '12D3KooWFake',
    mesh: 'acme',
    name: 'use1-a',
    region: 'r',
    ...createKey(),
    certificatePem: '',
    rootPem: '',
    expiresAtMs: NOW_MS,
  }
}

/** Makes the data folder as the real one does, so that what is left of it can be seen. */
function writeData(dataDir: string): Identity {
  mkdirSync(dataDir, { recursive: true })
  writeFileSync(join(dataDir, 'node.key'), 'key')
  return fakeIdentity()
}

test('init makes a config that loads, an empty services file and an identity, and says what to do next', async () => {
  using made = makeFolder()
  const ran = await run(INIT, { cwd: made.folder, nowMs: Date.now })
  expect(ran).toMatchObject({ code: 0, err: '' })
  expect(ran.out).toMatch(/^created mesh acme, as node use1-a in region aws-us-east-1 \(12D3Koo\w+\)\n/)
  expect(ran.out).toContain('wrote flatmesh.yaml, services.yaml\nkeys and state are in data\nnext: flatmesh up\n')
  expect(readdirSync(made.folder).sort()).toEqual(['data', 'flatmesh.yaml', 'services.yaml'])
  const config = loadConfig(join(made.folder, 'flatmesh.yaml'))
  expect(config).toMatchObject({
    mesh: 'acme',
    node: 'use1-a',
    region: 'aws-us-east-1',
    dataDir: join(made.folder, 'data'),
  })
  const listed = await run(['service', 'list'], { cwd: made.folder })
  expect(listed.out).toBe('no services yet: flatmesh service add NAME ADDRESS\n')
})

test('init sets what it was told, and leaves every default to the program', async () => {
  using made = makeFolder()
  const createMesh = vi.fn(async () => fakeIdentity())
  const words = ['--overlay', '127.0.0.1:0', '--calls', '0.0.0.0:4701', '--http', '[::1]:0', '--admin', 'unix:a.sock']
  const given = [...words, '--data', 'state', '--advertise', '203.0.113.7', '--advertise', 'a.example', '--json']
  const ran = await run([...INIT, ...given, '--config', 'sub/f.yaml'], {
    cwd: made.folder,
    rooms: fakeRooms({ createMesh }),
  })
  expect(JSON.parse(ran.out)).toEqual({
    mesh: 'acme',
    node: 'use1-a',
    region: 'aws-us-east-1',
    id: '12D3KooWFake',
    config: join(made.folder, 'sub/f.yaml'),
    dataDir: join(made.folder, 'state'),
    servicesFile: join(made.folder, 'sub/services.yaml'),
  })
  const member = { mesh: 'acme', name: 'use1-a', region: 'aws-us-east-1', nowMs: NOW_MS }
  expect(createMesh).toHaveBeenCalledExactlyOnceWith(join(made.folder, 'state'), member)
  expect(loadConfig(join(made.folder, 'sub/f.yaml'))).toMatchObject({
    listen: {
      overlay: { host: '127.0.0.1', port: 0 },
      http: { host: '::1', port: 0 },
      admin: { socketPath: join(made.folder, 'sub/a.sock') },
    },
    advertise: ['203.0.113.7', 'a.example'],
  })
  const text = readFileSync(join(made.folder, 'sub/f.yaml'), 'utf8')
  expect(text).toContain('  # calls: 0.0.0.0:4701')
  expect(text).toContain(`dataDir: ${join(made.folder, 'state')}\n`)
})

test('a name that YAML would take for a number is still a name in the file', async () => {
  using made = makeFolder()
  const words = ['init', '--mesh', '1e3', '--node', 'null', '--region', 'true']
  await run(words, { cwd: made.folder, rooms: fakeRooms({ createMesh: async () => fakeIdentity() }) })
  expect(loadConfig(join(made.folder, 'flatmesh.yaml'))).toMatchObject({ mesh: '1e3', node: 'null', region: 'true' })
})

test('init overwrites neither a config nor a services file', async () => {
  using made = makeFolder()
  writeFileSync(join(made.folder, 'services.yaml'), 'services: [] # mine\n')
  const rooms = fakeRooms({ createMesh: async () => fakeIdentity() })
  expect((await run(INIT, { cwd: made.folder, rooms })).code).toBe(0)
  const before = readFileSync(join(made.folder, 'flatmesh.yaml'), 'utf8')
  const again = await run(INIT, { cwd: made.folder, rooms: fakeRooms({}) })
  expect(again).toMatchObject({ code: 1, out: '' })
  expect(again.err).toContain('it is not overwritten; move it away, or name another with --config FILE')
  expect(readFileSync(join(made.folder, 'flatmesh.yaml'), 'utf8')).toBe(before)
  expect(readFileSync(join(made.folder, 'services.yaml'), 'utf8')).toBe('services: [] # mine\n')
})

test('an init or join that fails leaves nothing behind', async () => {
  using made = makeFolder()
  const refuse = () => Promise.reject(new MeshError('join-refused', 'the inviter said no'))
  const rooms = fakeRooms({ createMesh: refuse, joinMesh: refuse })
  for (const words of [INIT, ['join', 'TOKEN', ...NAMES]]) {
    for (const config of ['flatmesh.yaml', 'deep/er/flatmesh.yaml']) {
      const ran = await run([...words, '--config', config], { cwd: made.folder, rooms })
      expect(ran).toEqual({ code: 1, out: '', err: 'flatmesh: the inviter said no\n' })
    }
  }
  expect(readdirSync(made.folder)).toEqual([])
})

test('a config that another puts there meanwhile is kept, and the new identity is taken back', async () => {
  using made = makeFolder()
  const file = join(made.folder, 'flatmesh.yaml')
  const createMesh = async (dataDir: string) => {
    writeFileSync(file, 'theirs')
    return writeData(dataDir)
  }
  const ran = await run(INIT, { cwd: made.folder, rooms: fakeRooms({ createMesh }) })
  expect(ran.code).toBe(1)
  expect(readdirSync(made.folder)).toEqual(['flatmesh.yaml'])
  expect(readFileSync(file, 'utf8')).toBe('theirs')
})

test('what is wrong with the names or addresses is told before anything is made', async () => {
  using made = makeFolder()
  const cases: [string[], number, string][] = [
    [['init', '--mesh', 'Acme', ...NAMES], 1, 'mesh: found "Acme"; expected a name'],
    [['init', '--mesh', 'acme', '--node', 'a'], 2, 'init needs --region; see flatmesh init --help'],
    [['init', ...NAMES], 2, 'init needs --mesh'],
    [[...INIT, '--http', '4780'], 2, '--http takes HOST:PORT, found "4780"'],
    [[...INIT, '--admin', '0.0.0.0:1'], 1, 'the admin API has no authentication of its own'],
    [[...INIT, '--advertise', 'a:1'], 2, '--advertise takes a host without port, found "a:1"'],
    [['join', ...NAMES], 2, 'join takes TOKEN, found nothing'],
    [['join', 'T', '--region', 'r'], 2, 'join needs --node'],
  ]
  for (const [words, code, message] of cases) {
    const ran = await run(words, { cwd: made.folder, rooms: fakeRooms({}) })
    expect([words, ran.code, ran.out]).toEqual([words, code, ''])
    expect(ran.err).toContain(message)
  }
  expect(readdirSync(made.folder)).toEqual([])
})

test('join writes the mesh and the members it was told of, and drops what could not be dialled', async () => {
  using made = makeFolder()
  const joinMesh = vi.fn(async () => ({
    identity: fakeIdentity(),
    mesh: 'acme',
    overlay: ['/ip4/198.51.100.4/tcp/4700', '/ip4/1.2.3.4/udp/1', 'x: [', '/dns/b.example/tcp/4700'],
  }))
  const given = { cwd: made.folder, rooms: fakeRooms({ joinMesh }), stdin: stdinOf('  fmj1_TOKEN\n') }
  const ran = await run(['join', '-', ...NAMES], given)
  expect(ran).toMatchObject({ code: 0, err: '' })
  expect(ran.out).toContain('joined mesh acme, as node use1-a')
  expect(joinMesh).toHaveBeenCalledExactlyOnceWith({
    token: 'fmj1_TOKEN',
    dataDir: join(made.folder, 'data'),
    name: 'use1-a',
    region: 'aws-us-east-1',
    nowMs: NOW_MS,
    signal: expect.any(AbortSignal),
  })
  expect(loadConfig(join(made.folder, 'flatmesh.yaml'))).toMatchObject({
    mesh: 'acme',
    join: ['/ip4/198.51.100.4/tcp/4700', '/dns/b.example/tcp/4700'],
  })
})

test('something endless on stdin is not taken for a token', async () => {
  using made = makeFolder()
  const stdin = stdinOf('x'.repeat(100_000))
  const ran = await run(['join', '-', ...NAMES], { cwd: made.folder, rooms: fakeRooms({}), stdin })
  expect([ran.code, ran.err]).toEqual([1, 'flatmesh: expected a join token on stdin, found much more\n'])
  expect(existsSync(join(made.folder, 'flatmesh.yaml'))).toBe(false)
})

/** Runs `invite` with a config of these lines and answers what went to the token. */
async function invite(lines: string, words: readonly string[] = [], listen?: Partial<typeof STATUS.listen>) {
  using made = makeFolder()
  writeFileSync(join(made.folder, 'flatmesh.yaml'), `mesh: acme\nnode: a\nregion: r\n${lines}\n`)
  mkdirSync(join(made.folder, 'data'))
  if (listen !== undefined) writeListenFile(join(made.folder, 'data'), { ...STATUS.listen, ...listen })
  const issueToken = vi.fn(
    async (_dir: string, _token: { ttlMs: number; calls: string[]; overlay: string[] }) => 'fmj1_X',
  )
  const ran = await run(['invite', ...words], { cwd: made.folder, rooms: fakeRooms({ issueToken }) })
  return { ...ran, token: issueToken.mock.calls[0]?.[1] }
}

test('invite prints the token alone on stdout, so that a script can take it', async () => {
  const { code, out, err, token } = await invite('advertise: [203.0.113.7, "2001:db8::1", a.example]')
  expect([code, out]).toEqual([0, 'fmj1_X\n'])
  expect(err).toBe('Good once, for 15m. On the other machine: flatmesh join TOKEN --node NAME --region REGION\n')
  expect(token).toEqual({
    ttlMs: 900_000,
    calls: ['203.0.113.7:4701', '[2001:db8::1]:4701', 'a.example:4701'],
    overlay: ['/ip4/203.0.113.7/tcp/4700', '/ip6/2001:db8::1/tcp/4700', '/dns/a.example/tcp/4700'],
    nowMs: NOW_MS,
  })
})

test('invite names the ports the running daemon really has', async () => {
  const lines = 'advertise: [203.0.113.7]\nlisten: { overlay: 0.0.0.0:0, calls: 0.0.0.0:0 }'
  const { token } = await invite(lines, [], { overlay: '0.0.0.0:50001', calls: '0.0.0.0:50002' })
  expect(token).toMatchObject({ calls: ['203.0.113.7:50002'], overlay: ['/ip4/203.0.113.7/tcp/50001'] })
  const before = await invite(lines)
  expect([before.code, before.token]).toEqual([1, undefined])
  expect(before.err).toContain('listen.calls has port 0')
})

test('without advertise, invite names what it listens on, or the machine’s addresses with a warning', async () => {
  const all = await invite('')
  expect(all.token?.calls).toEqual(['192.0.2.7:4701', '127.0.0.1:4701'])
  expect(all.err).toContain('flatmesh: warning: the token names this machine’s own addresses (192.0.2.7)')
  const both = await invite('listen: { overlay: "[::]:4700", calls: "[::]:4701" }')
  expect(both.token?.calls).toEqual(['192.0.2.7:4701', '[2001:db8::7]:4701', '127.0.0.1:4701'])
  const one = await invite('listen: { overlay: 10.0.0.5:4700, calls: 10.0.0.6:4701 }')
  expect(one.token).toMatchObject({ calls: ['10.0.0.6:4701'], overlay: ['/ip4/10.0.0.5/tcp/4700'] })
  expect(one.err).not.toContain('warning')
  const local = await invite('listen: { overlay: 127.0.0.1:4700, calls: 127.0.0.1:4701 }', ['--json'])
  expect(local.token?.calls).toEqual(['127.0.0.1:4701'])
  expect(JSON.parse(local.out)).toMatchObject({
    token: 'fmj1_X',
    expiresAtMs: NOW_MS + 900_000,
    warnings: ['this node listens on 127.0.0.1 only: the token works on this machine alone'],
  })
})

test.each(['0s', '8d', '15', 'soon', ''])('a token’s life of %j is refused', async ttl => {
  const { code, err, token } = await invite('', ['--ttl', ttl])
  expect([code, token]).toEqual([2, undefined])
  expect(err).toContain(`--ttl takes a time from 1s to 7d, such as 15m, found ${JSON.stringify(ttl)}`)
})

test('a real token of a real mesh carries the addresses and the life it was asked for', async () => {
  using made = makeFolder()
  const nowMs = Date.now()
  await run([...INIT, '--advertise', '203.0.113.7'], { cwd: made.folder, nowMs: () => nowMs })
  const { code, out } = await run(['invite', '--ttl', '7d'], { cwd: made.folder, nowMs: () => nowMs })
  expect(code).toBe(0)
  expect(decodeJoinToken(out, nowMs)).toMatchObject({
    mesh: 'acme',
    expiresAtMs: nowMs + 7 * 86_400_000,
    calls: ['203.0.113.7:4701'],
    overlay: ['/ip4/203.0.113.7/tcp/4700'],
  })
})
