import { execFileSync, spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test, vi } from 'vitest'
import { MeshError } from '../router/errors.ts'
import { fakeBackend, fakeRooms, makeFolder, run, startAdmin } from './command-fixture.ts'
import { COMMANDS } from './main.ts'

const BIN = fileURLToPath(new URL('./flatmesh.js', import.meta.url))

interface Spawned {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

/** Runs the program as a process. `readOut: false` closes its stdout at once, as `| head -0` does. */
function spawnBin(
  words: readonly string[],
  { cwd = '/', node = process.execPath, nodeOptions = [] as string[], readOut = true } = {},
): Promise<Spawned> {
  return new Promise((resolve, reject) => {
    const child = spawn(node, [...nodeOptions, BIN, ...words], { cwd, timeout: 15_000 })
    let out = ''
    let err = ''
    if (readOut) child.stdout.on('data', chunk => (out += chunk))
    else child.stdout.destroy()
    child.stderr.on('data', chunk => (err += chunk))
    child.on('error', reject)
    child.on('close', code => resolve({ code, out, err }))
  })
}

test('the program runs as a process, and its exit codes are what scripts were promised', async () => {
  using made = makeFolder()
  const cwd = made.folder
  const version = await spawnBin(['version', '--json'], { cwd })
  expect([version.code, JSON.parse(version.out).version, version.err]).toEqual([0, '0.1.0', ''])
  expect(await spawnBin(['statsu'], { cwd })).toEqual({
    code: 2,
    out: '',
    err: 'flatmesh: there is no command statsu (did you mean status?); flatmesh --help lists them\n',
  })
  const noConfig = await spawnBin(['status'], { cwd })
  expect([noConfig.code, noConfig.err]).toEqual([
    1,
    'flatmesh: there is no config file flatmesh.yaml: make one with flatmesh init or flatmesh join, or name yours with --config FILE\n',
  ])
  const gone = await startAdmin()
  await gone[Symbol.asyncDispose]()
  const config = `mesh: a\nnode: b\nregion: c\nlisten: { admin: '${gone.text}' }\n`
  writeFileSync(join(cwd, 'flatmesh.yaml'), config)
  expect((await spawnBin(['status'], { cwd })).code).toBe(3)
})

test('a bad config stops up with every problem, before anything opens', async () => {
  using made = makeFolder()
  writeFileSync(join(made.folder, 'flatmesh.yaml'), 'mesh: a\nnode: b\nregion: c\nlog: { level: loud }\nx: 1\n')
  expect(await spawnBin(['up'], { cwd: made.folder })).toEqual({
    code: 1,
    out: '',
    err: [
      'flatmesh: flatmesh.yaml has 2 problems:',
      '  flatmesh.yaml:5: x: found "x" as a key; expected one of mesh, node, region, dataDir, listen, advertise, join, dial, registries, listeners, proxy, overlay, relay, log',
      '  flatmesh.yaml:4: log.level: found "loud"; expected error, warn, info or debug',
      '',
    ].join('\n'),
  })
})

test('a reader that has seen enough is no error', async () => {
  using made = makeFolder()
  const few = fakeBackend().nodes()
  const many = Array.from({ length: 10_000 }, () => few).flat()
  await using admin = await startAdmin(fakeBackend({ nodes: () => many }))
  writeFileSync(join(made.folder, 'flatmesh.yaml'), `mesh: a\nnode: b\nregion: c\nlisten: { admin: '${admin.text}' }\n`)
  expect(await spawnBin(['nodes'], { cwd: made.folder, readOut: false })).toEqual({ code: 0, out: '', err: '' })
})

test('an old Node gets one line that says what to do, not a stack trace', async () => {
  const fake = `Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '22.11.0' } })`
  const nodeOptions = ['--import', `data:text/javascript,${encodeURIComponent(fake)}`]
  expect(await spawnBin(['version'], { nodeOptions })).toEqual({
    code: 1,
    out: '',
    err: `flatmesh needs Node 24 or newer, this is Node 22.11.0 (${process.execPath}). Install it, or run through npx in a checkout, which brings its own.\n`,
  })
})

/** The machine's own Node, where it has one that is too old. */
function findOldNode(): string | undefined {
  for (const path of ['/usr/bin/node', '/usr/local/bin/node']) {
    try {
      if (parseInt(execFileSync(path, ['--version'], { encoding: 'utf8' }).slice(1), 10) < 24) return path
    } catch {
      // None here.
    }
  }
  return undefined
}

const oldNode = findOldNode()
if (oldNode !== undefined) {
  test('the old Node of this machine gets that line too', async () => {
    const ran = await spawnBin(['version'], { node: oldNode })
    expect([ran.code, ran.out]).toEqual([1, ''])
    expect(ran.err).toMatch(/^flatmesh needs Node 24 or newer, this is Node \d+\.\d+\.\d+ \([^\n]+\n$/)
  })
}

test('up hands the checked config to the daemon, and ends with the daemon’s exit code', async () => {
  using made = makeFolder()
  writeFileSync(join(made.folder, 'f.yaml'), 'mesh: a\nnode: b\nregion: c\nlog: { level: error }\n')
  const runDaemon = vi.fn(async () => 7)
  const stop = new AbortController().signal
  const given = { cwd: made.folder, rooms: fakeRooms({ runDaemon }), stopSignal: () => stop }
  expect(await run(['up', '--config', 'f.yaml'], given)).toEqual({ code: 7, out: '', err: '' })
  expect(runDaemon).toHaveBeenCalledExactlyOnceWith(
    expect.objectContaining({ mesh: 'a', file: join(made.folder, 'f.yaml') }),
    expect.objectContaining({ stop, log: expect.objectContaining({ level: 'error' }) }),
  )
})

test('what the daemon cannot start with is one line, and JSON for scripts', async () => {
  using made = makeFolder()
  writeFileSync(join(made.folder, 'flatmesh.yaml'), 'mesh: a\nnode: b\nregion: c\n')
  const runDaemon = () => Promise.reject(new MeshError('port-in-use', 'port 4700 is taken'))
  const given = { cwd: made.folder, rooms: fakeRooms({ runDaemon }) }
  expect(await run(['up'], given)).toEqual({ code: 1, out: '', err: 'flatmesh: port 4700 is taken\n' })
  const json = await run(['up', '--json'], given)
  expect(JSON.parse(json.err)).toEqual({ error: { code: 'port-in-use', message: 'port 4700 is taken' } })
})

test('a bug is called one, with its stack, and exits 1', async () => {
  using made = makeFolder()
  writeFileSync(join(made.folder, 'flatmesh.yaml'), 'mesh: a\nnode: b\nregion: c\n')
  const ran = await run(['up'], { cwd: made.folder, rooms: fakeRooms({}) })
  expect(ran.code).toBe(1)
  expect(ran.err).toMatch(/^flatmesh: this is a bug in flatmesh, please report it: Error: .*\n +at /)
})

test('a message that repeats what another node said cannot steer the terminal', async () => {
  using made = makeFolder()
  writeFileSync(join(made.folder, 'flatmesh.yaml'), 'mesh: a\nnode: b\nregion: c\n')
  const runDaemon = () => Promise.reject(new MeshError('join-refused', 'no: \u001b[2J'))
  const { err } = await run(['up'], { cwd: made.folder, rooms: fakeRooms({ runDaemon }) })
  expect(err).toBe('flatmesh: no: \ufffd[2J\n')
})

test('every command has help with its usage, its options and an example, 120 columns wide at most', async () => {
  for (const command of COMMANDS) {
    const words = command.name.split(' ')
    const { code, out, err } = await run([...words, '--help'])
    expect([command.name, code, err]).toEqual([command.name, 0, ''])
    expect(out).toContain(`usage: flatmesh ${command.name}`)
    for (const option of ['config', 'json', 'help', ...Object.keys(command.options ?? {})]) {
      expect(out).toContain(`--${option}`)
    }
    expect(out).toMatch(/\nexample:\n {2}flatmesh /)
    for (const line of out.split('\n')) expect(line.length, line).toBeLessThanOrEqual(120)
    expect((await run(['help', ...words])).out).toBe(out)
  }
})

test('the overview lists every command and fits 80 columns', async () => {
  const { code, out } = await run(['--help'])
  expect(code).toBe(0)
  for (const { name } of COMMANDS) expect(out).toContain(`\n  ${name}`)
  for (const line of out.split('\n').filter(line => line.startsWith('  ')))
    expect(line.length, line).toBeLessThanOrEqual(80)
  expect((await run([])).err).toBe(out)
  expect((await run([])).code).toBe(2)
  expect((await run(['--version'])).out).toMatch(/^flatmesh \d/)
})

test.each([
  [['service'], 'service takes one of add, remove, list, found nothing'],
  [['service', 'delete'], 'service takes one of add, remove, list, found delete'],
  [['service', 'ad'], 'found ad (did you mean add?)'],
  [['node'], 'there is no command node (did you mean nodes?)'],
  [['help', 'rotues'], 'there is no command rotues (did you mean routes?)'],
  [['status', '--jsn'], 'status has no option --jsn (did you mean --json?); see flatmesh status --help'],
  [['status', '-z'], 'status has no option -z'],
  [['status', '--config'], 'status: Option'],
  [['status', 'x'], 'status takes nothing behind its name, found x'],
  [['explain'], 'explain takes SERVICE, found nothing'],
])('%j is wrong usage, and is told so', async (words, message) => {
  const ran = await run(words)
  expect([ran.code, ran.out]).toEqual([2, ''])
  expect(ran.err).toContain(message)
})
