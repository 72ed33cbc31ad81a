import {
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  stat,
  symlink,
  unlink,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { stringify } from 'yaml'
import { silentLog } from '../router/log.ts'
import { FileRegistry } from './file-registry.ts'
import { SERVICES_FILE_BYTES_MAX } from './service-schema.ts'
import { addInstance, removeInstance } from './services-edit.ts'
import type { ServiceDefinition } from './source.ts'
import { describeSource, eventually, isSameContent, ListLog, ManualClock, service } from './source-contract.ts'

let folder: string
let path: string
let stops: (() => Promise<void>)[]
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'flatmesh-file-'))
  path = join(folder, 'services.yaml')
  stops = []
})
afterEach(async () => {
  for (const stop of stops) await stop()
  await rm(folder, { recursive: true })
})

function yamlOf(services: readonly ServiceDefinition[]): string {
  const short = services.map(one => ({
    ...one,
    instances: one.instances.map(({ address, weight }) => ({ address, weight })),
  }))
  return stringify({ services: short })
}

async function replaceWith(text: string): Promise<void> {
  const temporary = join(folder, 'edited')
  await writeFile(temporary, text)
  await rename(temporary, path)
}

describeSource('a watched services file', async content => {
  const own = await mkdtemp(join(folder, 'rig-'))
  const file = join(own, 'services.yaml')
  let good = yamlOf(content)
  await writeFile(file, good)
  const source = new FileRegistry({ log: silentLog }, { path: file })
  return {
    source,
    async put(services) {
      good = yamlOf(services)
      await writeFile(file, good)
    },
    spoil: () => writeFile(file, 'services: [{ name: orders'),
    mend: () => writeFile(file, good),
    close: () => source.stop(),
  }
})

async function started(options: { clock?: ManualClock; path?: string; pollMs?: number } = {}) {
  const log = new ListLog()
  const deps = options.clock === undefined ? { log } : { log, clock: options.clock }
  // Only the tests that ask for the poll get it: the others wait for what the watch sees.
  const source = new FileRegistry(deps, { path: options.path ?? path, pollMs: options.pollMs ?? 3_600_000 })
  const told: (readonly ServiceDefinition[])[] = []
  stops.push(() => source.stop())
  await source.start(services => told.push(services))
  return { source, told, log, last: () => told.at(-1)?.map(({ name }) => name) }
}

/** Lets the registry's timers run on until the file system's answers are in and `condition` holds. */
async function ticking(clock: ManualClock, ms: number, condition: () => boolean, what: string): Promise<void> {
  await eventually(() => {
    clock.advance(ms)
    return condition()
  }, what)
}

describe('watching', () => {
  const orders = service('orders', ['127.0.0.1:9000'])
  const mail = service('mail', ['127.0.0.1:25'])

  test('starts empty without a file, says what to do, and takes the file up when it appears', async () => {
    const { source, told, last } = await started()
    expect(told).toEqual([[]])
    expect(source.problem()).toBe(`${path}: no such file; create it, or run flatmesh service add`)
    await writeFile(path, yamlOf([orders]))
    await eventually(() => last()?.[0] === 'orders', 'the new file told')
    await eventually(() => source.problem() === undefined, 'the problem gone')
  })

  test('sees a file that an editor replaces by renaming another over it', async () => {
    await writeFile(path, yamlOf([orders]))
    const { last } = await started()
    await replaceWith(yamlOf([mail]))
    await eventually(() => last()?.[0] === 'mail', 'the replaced file told')
    await replaceWith(yamlOf([orders]))
    await eventually(() => last()?.[0] === 'orders', 'the file replaced again told')
  })

  test('sees a Kubernetes config map, whose folder is swapped by a link', async () => {
    const versions = ['..v1', '..v2'].map(name => join(folder, name))
    for (const [i, one] of versions.entries()) {
      await mkdir(one)
      await writeFile(join(one, 'services.yaml'), yamlOf([i === 0 ? orders : mail]))
    }
    await symlink('..v1', join(folder, '..data'))
    await symlink('..data/services.yaml', path)
    const { last } = await started()
    expect(last()).toEqual(['orders'])
    await symlink('..v2', join(folder, '..data_tmp'))
    await rename(join(folder, '..data_tmp'), join(folder, '..data'))
    await eventually(() => last()?.[0] === 'mail', 'the swapped config map told')
  })

  test('finds an edit that no event told of by looking now and then', async () => {
    const elsewhere = join(folder, 'elsewhere')
    await mkdir(elsewhere)
    await writeFile(join(elsewhere, 'real.yaml'), yamlOf([orders]))
    await symlink('elsewhere/real.yaml', path)
    const clock = new ManualClock()
    const { last } = await started({ pollMs: 2_000, clock })
    await writeFile(join(elsewhere, 'real.yaml'), yamlOf([mail, orders]))
    await ticking(clock, 2_000, () => last()?.length === 2, 'the poll sees the edit')
  })

  test('begins to watch when the folder itself appears', async () => {
    const late = join(folder, 'late', 'services.yaml')
    const clock = new ManualClock()
    const { last, told } = await started({ pollMs: 2_000, clock, path: late })
    expect(told).toEqual([[]])
    await mkdir(join(folder, 'late'))
    await writeFile(late, yamlOf([orders]))
    await ticking(clock, 2_000, () => last()?.[0] === 'orders', 'the late file told')
  })

  test('keeps the services while a file is replaced by delete and write, and takes them away when it stays away', async () => {
    await writeFile(path, yamlOf([orders]))
    const clock = new ManualClock()
    const { source, told, last } = await started({ clock })
    await unlink(path)
    // The settle time passes, the absence timer (1,000 ms) is set: no other timer is between 100 and 1,000 ms.
    await ticking(clock, 25, () => clock.pending().some(ms => ms > 100 && ms <= 1_000), 'the absence noticed')
    expect(source.problem()).toBeUndefined()
    await writeFile(path, yamlOf([orders]))
    await ticking(clock, 25, () => !clock.pending().some(ms => ms > 100 && ms <= 1_000), 'the return noticed')
    expect(told).toHaveLength(1)
    await unlink(path)
    // The time of the first absence is not held against the second one.
    await ticking(clock, 25, () => clock.pending().some(ms => ms > 100 && ms <= 1_000), 'the second absence noticed')
    expect(told).toHaveLength(1)
    await ticking(clock, 100, () => last()?.length === 0, 'the services withdrawn')
    expect(source.problem()).toContain('no such file')
    await writeFile(path, yamlOf([orders]))
    await ticking(clock, 100, () => last()?.[0] === 'orders', 'the same file told anew')
    expect(source.problem()).toBeUndefined()
  })

  test('keeps the last good services when the file is cut short or emptied in the middle of a write', async () => {
    const text = yamlOf([orders, mail])
    await writeFile(path, text)
    const { source, told } = await started()
    await writeFile(path, '')
    await eventually(() => source.problem()?.includes('is empty') === true, 'the empty file noticed')
    await writeFile(path, `${text}  - name: bil`)
    await eventually(() => source.problem()?.includes('instances') === true, 'the cut file noticed')
    await writeFile(path, text)
    await eventually(() => source.problem() === undefined, 'the whole file noticed')
    expect(told.every(services => services.length === 2)).toBe(true)
  })

  test('logs a problem once however often the file is read, and a different one again', async () => {
    await writeFile(path, yamlOf([orders]))
    const clock = new ManualClock()
    const { source, log } = await started({ pollMs: 2_000, clock })
    // The poll's timer is set again when its look is over.
    const looked = async () => {
      clock.advance(2_000)
      await eventually(() => clock.pending().includes(2_000), 'the file looked at')
    }
    await writeFile(path, 'services: 1\n')
    await looked()
    expect(source.problem()).toContain(':1 services: expected')
    await writeFile(path, '# other text\nservices: [1]\n')
    await looked()
    expect(source.problem()).toContain(':2 services[0]: expected')
    await writeFile(path, '# other text with the same problem\nservices: [1]\n# end\n')
    await looked()
    expect(log.count('warn')).toBe(2)
    await writeFile(path, yamlOf([mail]))
    await looked()
    expect(source.problem()).toBeUndefined()
    expect(log.count('warn')).toBe(2)
    expect(log.count('info')).toBe(1)
  })

  test('says what is there instead of a file', async () => {
    await mkdir(path)
    const { source, told } = await started()
    expect(source.problem()).toBe(`${path}: expected a file, found a folder`)
    expect(told).toEqual([[]])
  })

  test('does not read a file beyond the limit', async () => {
    await writeFile(path, Buffer.alloc(SERVICES_FILE_BYTES_MAX + 1, '#'))
    const { source } = await started()
    expect(source.problem()).toContain(`expected at most ${SERVICES_FILE_BYTES_MAX} bytes`)
  })

  test('says that a file is not UTF-8 instead of guessing letters', async () => {
    await writeFile(path, Buffer.from([0x73, 0xff, 0xfe]))
    const { source } = await started()
    expect(source.problem()).toContain('expected UTF-8')
  })

  test('reads a file in which nothing but the content changed', async () => {
    // Same size, and the times may well be equal too on a file system with coarse ones.
    await writeFile(path, yamlOf([service('aaaa', ['h:1'])]))
    const { last } = await started()
    for (const name of ['bbbb', 'cccc', 'dddd']) {
      await writeFile(path, yamlOf([service(name, ['h:1'])]))
      await eventually(() => last()?.[0] === name, `${name} told`)
    }
  })

  test('leaves no timer and no watch behind after stop', async () => {
    const clock = new ManualClock()
    await writeFile(path, yamlOf([orders]))
    const { source } = await started({ clock })
    await source.stop()
    expect(clock.pending()).toEqual([])
  })
})

describe('editing', () => {
  const text = () => readFile(path, 'utf8')

  async function content(): Promise<readonly ServiceDefinition[] | undefined> {
    const { source, told } = await started()
    await source.stop()
    expect(source.problem()).toBeUndefined()
    return told.at(-1)
  }

  test('an instance of HTTP/2 is written as one, and further ones must agree', async () => {
    const grpc = { service: 'grpc', protocol: 'h2', labels: { v: '1' } } as const
    expect(await addInstance(path, { ...grpc, address: '127.0.0.1:9000' })).toBe(true)
    expect(await text()).toContain('protocol: h2')
    expect(await addInstance(path, { ...grpc, address: '127.0.0.1:9001' })).toBe(true)
    const other = addInstance(path, { service: 'grpc', protocol: 'http', address: '127.0.0.1:9002' })
    await expect(other).rejects.toThrow('expected h2, found http')
  })

  test('creates the file with the first instance', async () => {
    expect(await addInstance(path, { service: 'orders', address: '127.0.0.1:9000' })).toBe(true)
    expect(await text()).toBe('services:\n  - name: orders\n    instances:\n      - address: 127.0.0.1:9000\n')
    expect(isSameContent(await content(), [service('orders', ['127.0.0.1:9000'])])).toBe(true)
  })

  test('writes down protocol, labels and weight when they are given', async () => {
    const add = { service: 'mail', address: '[::1]:25', protocol: 'tcp', labels: { tier: 'gold' }, weight: 5 } as const
    expect(await addInstance(path, add)).toBe(true)
    expect(await content()).toEqual([
      {
        name: 'mail',
        protocol: 'tcp',
        labels: { tier: 'gold' },
        instances: [{ id: '[::1]:25', address: '[::1]:25', weight: 5 }],
      },
    ])
  })

  const written = [
    '# our services',
    'services:',
    '- name: orders # the shop',
    '  labels: {version: v1}',
    '',
    '  instances:',
    '  # the old machine',
    '  - 127.0.0.1:9000',
    '  - "127.0.0.1:9001" # new',
    '- name: mail',
    '  instances: [{address: "h:25", weight: 2}]',
    '',
  ].join('\n')

  test('changes one line and keeps comments, order, quotes and indentation', async () => {
    await writeFile(path, written)
    expect(await addInstance(path, { service: 'orders', address: '127.0.0.1:9002' })).toBe(true)
    expect(await text()).toBe(written.replace('# new\n', '# new\n  - 127.0.0.1:9002\n'))
    expect(await removeInstance(path, { service: 'orders', address: '127.0.0.1:9002' })).toBe(true)
    expect(await text()).toBe(written)
  })

  test('keeps Windows line ends', async () => {
    await writeFile(path, written.replaceAll('\n', '\r\n'))
    expect(await addInstance(path, { service: 'orders', address: '127.0.0.1:9002' })).toBe(true)
    expect(await text()).toBe(written.replace('# new\n', '# new\n  - 127.0.0.1:9002\n').replaceAll('\n', '\r\n'))
  })

  test('changes the weight of an instance that is there, and nothing when it has it', async () => {
    await writeFile(path, written)
    expect(await addInstance(path, { service: 'mail', address: 'H:25', weight: 2 })).toBe(false)
    expect(await addInstance(path, { service: 'mail', address: 'h:25' })).toBe(false)
    expect(await text()).toBe(written)
    expect(await addInstance(path, { service: 'mail', address: 'h:25', weight: 3 })).toBe(true)
    expect(await text()).toBe(written.replace('weight: 2', 'weight: 3'))
    expect(await addInstance(path, { service: 'orders', address: '127.0.0.1:9000', weight: 4 })).toBe(true)
    expect((await content())?.[0]?.instances[0]?.weight).toBe(4)
  })

  test('takes a service away with its last instance, or at once without an address', async () => {
    await writeFile(path, written)
    expect(await removeInstance(path, { service: 'mail', address: 'h:25' })).toBe(true)
    expect((await content())?.map(({ name }) => name)).toEqual(['orders'])
    expect(await removeInstance(path, { service: 'orders' })).toBe(true)
    expect(await content()).toEqual([])
    expect(await text()).toContain('services: []')
    expect(await addInstance(path, { service: 'orders', address: 'h:1' })).toBe(true)
    expect(await text()).toContain('\n  - name: orders\n')
  })

  test('says that nothing changed when there is nothing to remove, and makes no file for it', async () => {
    expect(await removeInstance(path, { service: 'orders' })).toBe(false)
    expect(await readdir(folder)).toEqual([])
    await writeFile(path, written)
    expect(await removeInstance(path, { service: 'billing' })).toBe(false)
    expect(await removeInstance(path, { service: 'orders', address: 'h:1' })).toBe(false)
    expect(await text()).toBe(written)
  })

  test('fills a file that holds only comments', async () => {
    await writeFile(path, '# services of this region\n\n# ask the platform team\n')
    expect(await addInstance(path, { service: 'orders', address: 'h:1' })).toBe(true)
    expect(await text()).toMatch(/^# services of this region\n\n# ask the platform team\n/)
    expect(isSameContent(await content(), [service('orders', ['h:1'])])).toBe(true)
  })

  test.each([
    ['text that is not YAML', 'services: [{', 'not YAML'],
    ['a file it does not understand', 'servces: []\n', 'did you mean "services"?'],
  ])('refuses to edit %s and leaves it as it is', async (_, broken, problem) => {
    await writeFile(path, broken)
    await expect(addInstance(path, { service: 'orders', address: 'h:1' })).rejects.toMatchObject({
      code: 'bad-registry',
      message: expect.stringContaining(problem),
    })
    await expect(removeInstance(path, { service: 'orders' })).rejects.toMatchObject({ code: 'bad-registry' })
    expect(await text()).toBe(broken)
  })

  test.each([
    ['an address without a port', { service: 'orders', address: 'localhost' }, 'expected host:port'],
    ['a name that is none', { service: 'Orders', address: 'h:1' }, 'a service name'],
    ['a weight out of range', { service: 'orders', address: 'h:1', weight: 0 }, 'from 1 to 1000'],
    ['another protocol', { service: 'mail', address: 'h:1', protocol: 'tcp' as const }, 'expected http, found tcp'],
    ['other labels', { service: 'orders', address: 'h:1', labels: { version: 'v2' } }, 'expected the labels'],
  ])('refuses to add %s', async (_, add, problem) => {
    await writeFile(path, written)
    await expect(addInstance(path, add)).rejects.toMatchObject({
      code: 'bad-registry',
      message: expect.stringContaining(problem),
    })
    expect(await text()).toBe(written)
    expect(await readdir(folder)).toEqual(['services.yaml'])
  })

  test('refuses an edit that would change another service through an alias', async () => {
    const shared = 'services:\n  - name: a\n    instances: &all [h:1]\n  - name: b\n    instances: *all\n'
    await writeFile(path, shared)
    for (const name of ['a', 'b']) {
      await expect(addInstance(path, { service: name, address: 'h:2' })).rejects.toMatchObject({ code: 'bad-registry' })
    }
    await expect(removeInstance(path, { service: 'a' })).rejects.toMatchObject({ code: 'bad-registry' })
    expect(await text()).toBe(shared)
  })

  test('loses none of many edits made at the same time', async () => {
    await writeFile(path, written)
    const ports = [1, 2, 3, 4, 5]
    await Promise.all(ports.map(port => addInstance(path, { service: 'orders', address: `h:${port}` })))
    expect((await content())?.[0]?.instances).toHaveLength(2 + ports.length)
    expect(await readdir(folder)).toEqual(['services.yaml'])
  })

  test('keeps the permissions of the file, and a link a link', async () => {
    const real = join(folder, 'real.yaml')
    await writeFile(real, written, { mode: 0o640 })
    await symlink('real.yaml', path)
    expect(await addInstance(path, { service: 'orders', address: 'h:1' })).toBe(true)
    expect((await stat(real)).mode & 0o777).toBe(0o640)
    expect(await readlink(path)).toBe('real.yaml')
    expect(await readFile(real, 'utf8')).toContain('h:1')
  })

  test('says so when the folder is not there', async () => {
    const nowhere = join(folder, 'nowhere', 'services.yaml')
    await expect(addInstance(nowhere, { service: 'orders', address: 'h:1' })).rejects.toMatchObject({
      code: 'bad-registry',
      message: expect.stringContaining('its folder must exist'),
    })
  })

  test('is seen by a registry that watches the file', async () => {
    const { last } = await started()
    await addInstance(path, { service: 'orders', address: 'h:1' })
    await eventually(() => last()?.[0] === 'orders', 'the added service told')
    await removeInstance(path, { service: 'orders' })
    await eventually(() => last()?.length === 0, 'the removed service gone')
  })
})
