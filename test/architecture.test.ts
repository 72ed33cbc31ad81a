import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { GRPC_STATUS, grpcStatus } from '../proxy/grpc.ts'
import { meshStatus } from '../proxy/mesh-answer.ts'
import { mayRetry } from '../proxy/retry.ts'
import type { MeshErrorCode } from '../router/errors.ts'

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..')
const FOLDERS = ['router', 'proxy', 'registry', 'tunnel', 'daemon', 'test', 'bench', 'examples'] as const
/** A file past 400 lines is a question (STYLE); past this it is two files. */
const LINES_MAX = 700

interface Import {
  /** The path from the root for files of ours, else the package or `node:` name. */
  readonly target: string
  readonly isTypeOnly: boolean
  readonly names: string
}
interface Source {
  readonly path: string
  readonly text: string
  readonly imports: readonly Import[]
}

function read(path: string): string {
  return readFileSync(join(ROOT, path), 'utf8')
}

function sources(): Source[] {
  const paths: string[] = []
  for (const folder of FOLDERS) {
    if (!existsSync(join(ROOT, folder))) continue
    for (const entry of readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })) {
      const path = join(entry.parentPath, entry.name).slice(ROOT.length + 1)
      if (entry.isFile() && path.endsWith('.ts') && !path.includes('node_modules')) paths.push(path)
    }
  }
  return paths.sort().map(path => ({ path, text: read(path), imports: importsOf(path, read(path)) }))
}

const IMPORT =
  /^\s*(?:import|export)\s+(type\s+)?([^'"`;]*?)\s*\bfrom\s+['"]([^'"]+)['"]|^\s*import\s+['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]\s*\)/gm

function importsOf(path: string, text: string): Import[] {
  return [...text.matchAll(IMPORT)].map(([, type, names = '', from, bare, dynamic]) => {
    const target = from ?? bare ?? dynamic ?? ''
    const isOurs = target.startsWith('.')
    const named = /^\{([\s\S]*)\}$/.exec(names)?.[1]?.split(',') ?? []
    const isTypeOnly = type !== undefined || (named.length > 0 && named.every(name => /^\s*(type\s|$)/.test(name)))
    return { target: isOurs ? normalize(join(dirname(path), target)) : target, isTypeOnly, names }
  })
}

const room = (path: string): string => /^(\w+)\//.exec(path)?.[1] ?? ''
/** Tests, and what only tests and benches use. */
const isTest = (path: string): boolean =>
  /\.test\.ts$|-(contract|fixture|fuzz|vectors|generate)\.ts$|\/test-[^/]*\.ts$/.test(path) ||
  ['test', 'bench', 'examples'].includes(room(path))
const isTestPackage = (target: string): boolean => /^(vitest|fast-check)(\/|$)/.test(target)
const isLibp2p = (target: string): boolean =>
  /^(libp2p$|libp2p\/|@libp2p\/|@chainsafe\/|@multiformats\/|multiformats)/.test(target)
const isPackage = (target: string): boolean =>
  !FOLDERS.some(folder => target.startsWith(`${folder}/`)) && !target.startsWith('node:')

const ALL = sources()
const production = ALL.filter(({ path }) => !isTest(path))

/** Imports that break a rule, as `file: what it imports`. */
function breaches(files: readonly Source[], isBad: (one: Import, path: string) => boolean): string[] {
  return files.flatMap(({ path, imports }) =>
    imports.filter(one => isBad(one, path)).map(({ target, names }) => `${path}: ${names} from ${target}`),
  )
}
const inRoom = (name: string, files = ALL): Source[] => files.filter(({ path }) => room(path) === name)
const toRooms = (target: string, ...rooms: string[]): boolean => rooms.includes(room(target))

describe('the rooms', () => {
  test('the scan sees the imports it is to judge', () => {
    expect(ALL.length).toBeGreaterThan(100)
    const { imports } = ALL.find(({ path }) => path === 'daemon/daemon.ts') ?? { imports: [] }
    expect(imports.map(({ target }) => target)).toEqual(expect.arrayContaining(['node:path', 'tunnel/call-plane.ts']))
    expect(
      importsOf('a/b.ts', "import { type A, type B } from '../c/d.ts'\nimport {\n  type A,\n  b,\n} from 'e'\n"),
    ).toEqual([
      { target: 'c/d.ts', isTypeOnly: true, names: '{ type A, type B }' },
      { target: 'e', isTypeOnly: false, names: '{\n  type A,\n  b,\n}' },
    ])
    expect(importsOf('a/b.ts', "const x = await import('yaml')\nexport { y } from './y.ts'")).toHaveLength(2)
  })

  test('router/ imports nothing but itself: it runs in the daemon and in the simulator alike', () => {
    const files = inRoom('router', production)
    const found = breaches(files, ({ target }, path) => {
      return room(target) !== 'router' && !(target === 'msgpackr' && path === 'router/msgpack.ts')
    })
    expect(found).toEqual([])
    expect(
      inRoom('router').flatMap(({ imports }) =>
        imports.filter(({ target }) => toRooms(target, 'tunnel', 'proxy', 'registry', 'daemon')),
      ),
    ).toEqual([])
  })

  test('msgpackr is used behind the check of lengths in router/msgpack.ts and nowhere else', () => {
    expect(breaches(ALL, ({ target }, path) => target === 'msgpackr' && path !== 'router/msgpack.ts')).toEqual([])
  })

  test('router/ reads no clock, draws no random number and sets no timer (R1): they are arguments, or runs would differ', () => {
    const forbidden =
      /\b(Date\b|performance\b|Math\.random|setTimeout|setInterval|setImmediate|queueMicrotask|process\.|crypto\b|fetch\(|async\b|await\b|Promise\b)/
    const found = inRoom('router', production).flatMap(({ path, text }) =>
      withoutComments(text)
        .split('\n')
        .filter(line => forbidden.test(line))
        .map(line => `${path}: ${line.trim()}`),
    )
    expect(found).toEqual([])
  })

  test('proxy/ knows neither links nor registries: what it needs of them it declares itself', () => {
    expect(breaches(inRoom('proxy'), ({ target }) => toRooms(target, 'tunnel', 'registry', 'daemon', 'test'))).toEqual(
      [],
    )
    const packages = breaches(inRoom('proxy', production), ({ target }) => isPackage(target))
    expect(packages, 'the call path has no dependencies').toEqual([])
  })

  test('registry/ imports router/, YAML and zod: a source of services needs to know nothing of calls or links', () => {
    expect(breaches(inRoom('registry'), ({ target }) => toRooms(target, 'tunnel', 'proxy', 'daemon', 'test'))).toEqual(
      [],
    )
    const found = breaches(
      inRoom('registry', production),
      ({ target }) => isPackage(target) && !/^(yaml|zod)$/.test(target),
    )
    expect(found).toEqual([])
  })

  test('tunnel/ imports router/, the seam proxy/call.ts, and how sockets are read: links carry calls without knowing what calls are for', () => {
    const found = breaches(inRoom('tunnel', production), ({ target, isTypeOnly, names }) => {
      if (toRooms(target, 'registry', 'daemon', 'test')) return true
      if (room(target) !== 'proxy') return false
      if (target === 'proxy/shared-read.ts') return false
      if (target !== 'proxy/call.ts') return true
      const values = names
        .replace(/[{}]/g, '')
        .split(',')
        .map(name => name.trim())
      return (
        !isTypeOnly &&
        values.some(name => name !== '' && !name.startsWith('type ') && !/^[A-Z_]+_BYTES(_MAX)?$/.test(name))
      )
    })
    expect(found).toEqual([])
  })

  test('only tunnel/ names libp2p (T1), so that it can be replaced, and the simulator runs without it', () => {
    expect(breaches(ALL, ({ target }, path) => isLibp2p(target) && room(path) !== 'tunnel')).toEqual([])
  })

  test('test/sim imports no tunnel that is not pure of libp2p: a thousand nodes run in one process in virtual time', () => {
    const byPath = new Map(ALL.map(source => [source.path, source]))
    const seen = new Map<string, string>()
    const queue = ALL.filter(({ path }) => path.startsWith('test/sim/')).map(({ path }) => path)
    for (const path of queue) seen.set(path, path)
    for (let path = queue.shift(); path !== undefined; path = queue.shift()) {
      for (const { target, isTypeOnly } of byPath.get(path)?.imports ?? []) {
        if (isTypeOnly || seen.has(target)) continue
        seen.set(target, `${seen.get(path)} > ${target}`)
        queue.push(target)
      }
    }
    expect([...seen].filter(([target]) => isLibp2p(target)).map(([, trail]) => trail)).toEqual([])
  })

  test('daemon/ is the composition root: nobody imports it but whole-system tests, benches, examples and the simulator, for its config', () => {
    const found = breaches(ALL, ({ target }, path) => {
      // The simulator reads users' own flatmesh.yaml: what is simulated is what will be deployed.
      if (path.startsWith('test/sim/') && target === 'daemon/config.ts') return false
      return (
        room(target) === 'daemon' && room(path) !== 'daemon' && !/^(test\/e2e|test\/soak|bench|examples)\//.test(path)
      )
    })
    expect(found).toEqual([])
  })

  test('no file that runs in production imports a test, or what only tests use', () => {
    const found = breaches(production, ({ target }) => isTestPackage(target) || (!isPackage(target) && isTest(target)))
    expect(found).toEqual([])
  })

  test('every import of a file of ours names a file that is there, with its ending', () => {
    const found = breaches(
      ALL,
      ({ target }) => !isPackage(target) && !target.startsWith('node:') && !existsSync(join(ROOT, target)),
    )
    expect(found).toEqual([])
  })
})

describe('the house', () => {
  test(`no file is longer than ${LINES_MAX} lines: it would do two things`, () => {
    const long = ALL.map(({ path, text }) => [path, text.split('\n').length - 1] as const).filter(
      ([, lines]) => lines > LINES_MAX,
    )
    expect(long).toEqual([])
  })

  test('no test is skipped or run alone: what is not run is not kept', () => {
    const marks = ['skip', 'only', 'todo', 'fails'].map(word => `.${word}(`)
    const found = ALL.filter(({ path }) => path.endsWith('.test.ts')).flatMap(({ path, text }) =>
      marks.filter(mark => text.includes(mark)).map(mark => `${path}: ${mark}`),
    )
    expect(found).toEqual([])
  })

  test('every dependency says in docs/dependencies.md what it is for, at the major that is used', () => {
    const manifest: unknown = JSON.parse(read('package.json'))
    const { dependencies, devDependencies } = manifest as Record<string, Record<string, string>>
    const major = (version: string): string => version.split('.', 1)[0] ?? ''
    const rows = [...read('docs/dependencies.md').matchAll(/^\| `([^`]+)` \| ([^ ]+) \|/gm)]
    const used = Object.entries({ ...dependencies, ...devDependencies })
    expect(Object.fromEntries(rows.map(([, name = '', version = '']) => [name, major(version)]))).toEqual(
      Object.fromEntries(used.map(([name, version]) => [name, major(version)])),
    )
  })

  test('every error code has its row in docs/errors.md, with the status it is answered with', () => {
    const union = /export type MeshErrorCode =([\s\S]*?)\n\n/.exec(read('router/errors.ts'))?.[1] ?? ''
    const codes = [...union.matchAll(/\| '([a-z-]+)'/g)].map(([, code = '']) => code as MeshErrorCode)
    expect(codes.length).toBeGreaterThan(25)
    const table = /## Codes\n([\s\S]*?)\n## /.exec(read('docs/errors.md'))?.[1] ?? ''
    const rows = [
      ...table.matchAll(
        /^\| `([a-z-]+)` \| (\d{3}|–) \| (`[A-Z_]+`|–) \| (yes|idempotent|no|–) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$/gm,
      ),
    ]
    expect(rows.map(([, code]) => code)).toEqual(codes)
    const isCall = codes.indexOf('bad-request')
    // Codes before the first of calls never answer one: the proxy has no status for them but that of a bug.
    const expected = codes.map((code, i) =>
      i < isCall && meshStatus(code)[0] === 500 ? '–' : String(meshStatus(code)[0]),
    )
    expect(rows.map(([, , status]) => status)).toEqual(expected)

    const calls = rows.filter(([, , status]) => status !== '–')
    const grpcName = (code: string): string | undefined =>
      Object.entries(GRPC_STATUS).find(([, number]) => number === grpcStatus(code as MeshErrorCode))?.[0]
    expect(calls.map(([, code, , grpc]) => [code, grpc])).toEqual(
      calls.map(([, code = '']) => [code, `\`${grpcName(code)}\``]),
    )
    // No place has ever answered that nobody offers the service: the ingress says so before any is asked.
    const isTriedElsewhere = (code: string): boolean =>
      code !== 'unknown-service' &&
      mayRetry('GET', { code: code as MeshErrorCode, unexecuted: false }, { answered: false, bodyReplayable: true })
    expect(calls.map(([, code, , , again]) => [code, again !== 'no'])).toEqual(
      calls.map(([, code = '']) => [code, isTriedElsewhere(code)]),
    )
    const others = rows.filter(([, , status]) => status === '–')
    expect(others.map(([, , , grpc, again]) => `${grpc} ${again}`)).toEqual(others.map(() => '– –'))
  })

  test('every code the admin API makes itself has its row in docs/errors.md', () => {
    const table = /## The admin API\n([\s\S]*?)\n## /.exec(read('docs/errors.md'))?.[1] ?? ''
    const rows = new Set(
      [...table.matchAll(/^\| `([a-z-]+)` \| (\d{3}) \|/gm)].map(([, code, status]) => `${status} ${code}`),
    )
    const source = read('daemon/admin.ts')
    const refusals = [...source.matchAll(/new Refusal\(\s*(\d{3}),\s*'([a-z-]+)'/g)].map(
      ([, status, code]) => `${status} ${code}`,
    )
    const raw = [...source.matchAll(/\['(\d{3}) [^']*', '([a-z-]+)'\]/g)].map(([, status, code]) => `${status} ${code}`)
    expect(refusals.length + raw.length).toBeGreaterThan(5)
    expect(rows).toEqual(new Set([...refusals, ...raw]))
  })
})

function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/\/\/.*$/gm, '')
}
