import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { silentLog } from '../router/log.ts'
import { HttpRegistry, REGISTRATIONS_MAX } from './http-registry.ts'
import { INSTANCES_PER_SERVICE_MAX } from './service-schema.ts'
import type { ServiceDefinition } from './source.ts'
import { describeSource, eventually, isSameContent, ListLog, ManualClock, service } from './source-contract.ts'

let folder: string
let path: string
let clock: ManualClock
let log: ListLog
let stops: (() => Promise<void>)[]
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'flatmesh-http-'))
  path = join(folder, 'registrations.json')
  clock = new ManualClock()
  log = new ListLog()
  stops = []
})
afterEach(async () => {
  for (const stop of stops) await stop()
  await rm(folder, { recursive: true })
})

function registerAll(registry: HttpRegistry, services: readonly ServiceDefinition[]): void {
  const wanted = services.flatMap(({ name, protocol, labels, instances }) =>
    instances.map(instance => ({ service: name, protocol, labels, ...instance })),
  )
  for (const one of registry.list()) {
    if (!wanted.some(({ service: name, id }) => name === one.service && id === one.id))
      registry.deregister(one.service, one.id)
  }
  for (const one of wanted) registry.register(one)
}

describeSource('the embedded registry', async content => {
  const file = join(await mkdtemp(join(folder, 'rig-')), 'state', 'registrations.json')
  await mkdir(dirname(file))
  const ticking = new ManualClock()
  const before = new HttpRegistry({ log: silentLog, clock: ticking }, { path: file })
  await before.start(() => undefined)
  registerAll(before, content)
  await before.stop()
  const source = new HttpRegistry({ log: silentLog, clock: ticking }, { path: file })
  // The instances live on: only time for the state file passes.
  const settle = async (done: () => boolean) => {
    await eventually(() => {
      ticking.advance(100)
      for (const { service: name, id } of source.list()) source.heartbeat(name, id)
      return done()
    }, 'the state file tried')
  }
  return {
    source,
    async put(services) {
      registerAll(source, services)
    },
    async spoil() {
      await rename(dirname(file), `${dirname(file)}.away`)
      registerAll(source, content)
      await settle(() => source.problem() !== undefined)
    },
    async mend() {
      await rename(`${dirname(file)}.away`, dirname(file))
      await settle(() => source.problem() === undefined)
    },
    close: () => source.stop(),
  }
})

async function started(options: { ttlMs?: number; path?: string } = {}) {
  const registry = new HttpRegistry({ log, clock }, { path, ...options })
  const told: (readonly ServiceDefinition[])[] = []
  stops.push(() => registry.stop())
  await registry.start(services => told.push(services))
  return { registry, told }
}

async function stored(): Promise<string> {
  return readFile(path, 'utf8').catch(() => '')
}

describe('registering', () => {
  test('tells a registration before register returns, and answers with what it understood', async () => {
    const { registry, told } = await started()
    const answer = registry.register({ service: 'orders', address: 'H:1', labels: { v: '1' } })
    expect(told.at(-1)).toEqual([service('orders', ['h:1'], { labels: { v: '1' } })])
    expect(answer).toEqual({
      service: 'orders',
      id: 'h:1',
      address: 'h:1',
      protocol: 'http',
      labels: { v: '1' },
      weight: 1,
      ttlMs: 30_000,
      expiresAtMs: clock.nowMs() + 30_000,
    })
    expect(registry.list()).toEqual([answer])
  })

  test('replaces and renews a registration with the same id, and is silent when nothing differs', async () => {
    const { registry, told } = await started()
    registry.register({ service: 'orders', id: 'a', address: 'h:1' })
    clock.advance(20_000)
    registry.register({ service: 'orders', id: 'a', address: 'h:1' })
    expect(told).toHaveLength(2)
    clock.advance(20_000)
    expect(registry.list()).toHaveLength(1)
    registry.register({ service: 'orders', id: 'a', address: 'h:2', weight: 7, protocol: 'tcp' })
    expect(told.at(-1)).toEqual([
      { name: 'orders', protocol: 'tcp', labels: {}, instances: [{ id: 'a', address: 'h:2', weight: 7 }] },
    ])
  })

  test('shows the labels that all instances share', async () => {
    const { registry, told } = await started()
    registry.register({ service: 'orders', address: 'h:1', labels: { v: '1', zone: 'a' } })
    registry.register({ service: 'orders', address: 'h:2', labels: { v: '1', zone: 'b' } })
    expect(told.at(-1)?.[0]?.labels).toEqual({ v: '1' })
    registry.deregister('orders', 'h:2')
    expect(told.at(-1)?.[0]?.labels).toEqual({ v: '1', zone: 'a' })
  })

  test('offers an address once when a restarted process registers it under a new id', async () => {
    const { registry, told } = await started()
    registry.register({ service: 'orders', id: 'old', address: 'h:1' })
    registry.register({ service: 'orders', id: 'new', address: 'h:1' })
    expect(told.at(-1)?.[0]?.instances.map(({ id }) => id)).toEqual(['new'])
  })

  test('refuses a second protocol for a service and names the holder', async () => {
    const { registry, told } = await started()
    registry.register({ service: 'orders', id: 'pod-1', address: 'h:1' })
    expect(() => registry.register({ service: 'orders', address: 'h:2', protocol: 'tcp' })).toThrow(
      expect.objectContaining({ code: 'bad-registry', message: expect.stringContaining('as http by pod-1 (h:1)') }),
    )
    expect(told).toHaveLength(2)
    clock.advance(30_000)
    expect(registry.register({ service: 'orders', address: 'h:2', protocol: 'tcp' }).protocol).toBe('tcp')
  })

  test('refuses what it does not understand without a trace', async () => {
    const { registry, told } = await started()
    expect(() => registry.register({ service: 'orders' })).toThrow(expect.objectContaining({ code: 'bad-registry' }))
    expect(registry.list()).toEqual([])
    expect(told).toEqual([[]])
  })

  test('refuses instances past the limits, but renews those it has', async () => {
    const { registry } = await started()
    const fill = (name: string) => {
      for (let i = 1; i <= INSTANCES_PER_SERVICE_MAX; i++)
        registry.register({ service: name, address: `h:${i}`, ttlMs: 60_000 })
    }
    for (let i = 0; i < REGISTRATIONS_MAX / INSTANCES_PER_SERVICE_MAX; i++) fill(`s${i}`)
    expect(() => registry.register({ service: 's0', address: 'h:2000' })).toThrow(
      expect.objectContaining({ code: 'bad-registry' }),
    )
    expect(() => registry.register({ service: 'other', address: 'h:1' })).toThrow(
      expect.objectContaining({ code: 'overloaded' }),
    )
    expect(registry.register({ service: 's0', address: 'h:1' }).id).toBe('h:1')
    registry.deregister('s0', 'h:1')
    expect(registry.register({ service: 'other', address: 'h:1' }).service).toBe('other')
  })

  test('takes nothing after stop and says why', async () => {
    const { registry } = await started()
    await registry.stop()
    expect(() => registry.register({ service: 'orders', address: 'h:1' })).toThrow(
      expect.objectContaining({ code: 'draining' }),
    )
  })

  test.each([999, 86_400_001, Number.NaN])('does not start with a default ttl of %d ms', async ttlMs => {
    const registry = new HttpRegistry({ log, clock }, { path, ttlMs })
    await expect(registry.start(() => undefined)).rejects.toMatchObject({ code: 'bad-config' })
  })
})

describe('expiry', () => {
  test('withdraws an instance at renewed + ttl, not before, and tells it', async () => {
    const { registry, told } = await started()
    registry.register({ service: 'orders', address: 'h:1', ttlMs: 5_000 })
    registry.register({ service: 'orders', address: 'h:2' })
    clock.advance(4_999)
    expect(told.at(-1)?.[0]?.instances).toHaveLength(2)
    clock.advance(1)
    expect(told.at(-1)).toEqual([service('orders', ['h:2'])])
    clock.advance(25_000)
    expect(told.at(-1)).toEqual([])
    expect(log.count('info')).toBe(2)
  })

  test('a heartbeat keeps an instance alive and tells nothing', async () => {
    const { registry, told } = await started()
    registry.register({ service: 'orders', address: 'h:1', ttlMs: 3_000 })
    for (let i = 0; i < 10; i++) {
      clock.advance(2_000)
      expect(registry.heartbeat('orders', 'h:1').expiresAtMs).toBe(clock.nowMs() + 3_000)
    }
    expect(told).toHaveLength(2)
    clock.advance(3_000)
    expect(told.at(-1)).toEqual([])
  })

  test('a heartbeat for an unknown or expired instance is told to register again', async () => {
    const { registry } = await started()
    registry.register({ service: 'orders', address: 'h:1', ttlMs: 3_000 })
    clock.advance(3_000)
    const again = expect.objectContaining({ code: 'not-found', message: expect.stringContaining('register again') })
    expect(() => registry.heartbeat('orders', 'h:1')).toThrow(again)
    expect(() => registry.heartbeat('nobody', 'x'.repeat(100_000))).toThrow(again)
  })

  test('a shorter ttl that comes later expires first', async () => {
    const { registry, told } = await started()
    registry.register({ service: 'slow', address: 'h:1', ttlMs: 60_000 })
    registry.register({ service: 'fast', address: 'h:2', ttlMs: 1_000 })
    clock.advance(1_000)
    expect(told.at(-1)?.map(({ name }) => name)).toEqual(['slow'])
  })

  test('deregistering says whether there was anything, and tells it', async () => {
    const { registry, told } = await started()
    registry.register({ service: 'orders', address: 'h:1' })
    expect(registry.deregister('orders', 'h:1')).toBe(true)
    expect(told.at(-1)).toEqual([])
    expect(registry.deregister('orders', 'h:1')).toBe(false)
    expect(told).toHaveLength(3)
  })

  test('nobody lives longer than another ttl when the clock is set back while it runs', async () => {
    const { registry, told } = await started()
    registry.register({ service: 'orders', address: 'h:1', ttlMs: 10_000 })
    clock.setWall(-3_600_000)
    clock.advance(10_000)
    expect(registry.list()[0]?.expiresAtMs).toBe(clock.nowMs() + 10_000)
    clock.advance(10_000)
    expect(told.at(-1)).toEqual([])
  })

  test('nobody is listed or renewed past their time, even if the timer is late', async () => {
    const { registry, told } = await started()
    registry.register({ service: 'orders', address: 'h:1', ttlMs: 10_000 })
    clock.setWall(10_000)
    expect(() => registry.heartbeat('orders', 'h:1')).toThrow(expect.objectContaining({ code: 'not-found' }))
    expect(told.at(-1)).toEqual([])
    expect(registry.list()).toEqual([])
  })

  test('leaves no timer behind after stop', async () => {
    const { registry } = await started()
    registry.register({ service: 'orders', address: 'h:1' })
    await registry.stop()
    expect(clock.pending()).toEqual([])
  })
})

describe('state file', () => {
  test('survives a restart within the ttl: the living are told at once, the expired are not', async () => {
    const first = await started()
    first.registry.register({ service: 'orders', id: 'a', address: 'h:1', labels: { v: '1' }, weight: 3 })
    first.registry.register({ service: 'mail', address: 'h:2', protocol: 'tcp', ttlMs: 5_000 })
    const [kept] = first.registry.list()
    await first.registry.stop()
    clock.advance(10_000)
    const second = await started()
    expect(second.registry.list()).toEqual([kept])
    expect(second.told).toEqual([
      [{ name: 'orders', protocol: 'http', labels: { v: '1' }, instances: [{ id: 'a', address: 'h:1', weight: 3 }] }],
    ])
    clock.advance(20_000)
    expect(second.told.at(-1)).toEqual([])
  })

  test('survives a crash: a registration is on disk 100 ms later, readable by its owner only', async () => {
    const { registry } = await started()
    registry.register({ service: 'orders', address: 'h:1' })
    expect(await stored()).toBe('')
    clock.advance(100)
    await eventually(async () => (await stored()).includes('orders'), 'the registration written')
    expect((await stat(path)).mode & 0o777).toBe(0o600)
  })

  test('a burst of changes is one write', async () => {
    const { registry } = await started()
    for (let i = 1; i <= 50; i++) registry.register({ service: 'orders', address: `h:${i}` })
    // One timer to save, one to expire.
    expect(clock.pending()).toEqual([100, 30_000])
  })

  test('a heartbeat is written only when the file would be off by much', async () => {
    const { registry } = await started()
    registry.register({ service: 'orders', address: 'h:1', ttlMs: 8_000 })
    clock.advance(100)
    await eventually(async () => (await stored()).includes('orders'), 'the registration written')
    // The write has been noted when a heartbeat within an eighth of the ttl asks for none.
    await eventually(() => {
      registry.heartbeat('orders', 'h:1')
      return clock.pending().length === 1
    }, 'a heartbeat that need not be written')
    clock.advance(900)
    registry.heartbeat('orders', 'h:1')
    expect(clock.pending()).toHaveLength(1)
    clock.advance(200)
    const { expiresAtMs } = registry.heartbeat('orders', 'h:1')
    expect(clock.pending()).toContain(1_000)
    clock.advance(1_000)
    await eventually(async () => (await stored()).includes(String(expiresAtMs)), 'the late heartbeat written')
  })

  test('writes the last heartbeats when it stops', async () => {
    const { registry } = await started()
    registry.register({ service: 'orders', address: 'h:1' })
    clock.advance(100)
    await eventually(async () => (await stored()).includes('orders'), 'the registration written')
    clock.advance(50)
    const { expiresAtMs } = registry.heartbeat('orders', 'h:1')
    await registry.stop()
    expect(await stored()).toContain(String(expiresAtMs))
  })

  test.each([
    ['no JSON', '{"version": 1, "regis'],
    ['another version', '{"version": 2, "registrations": []}'],
    ['no list', '{"version": 1, "registrations": {}}'],
    ['null', 'null'],
    ['a wrong entry', '{"version": 1, "registrations": [{"service": "orders", "expiresAtMs": 9e15}]}'],
    ['an entry without expiry', '{"version": 1, "registrations": [{"service": "orders", "address": "h:1"}]}'],
    [
      'two protocols',
      '{"version": 1, "registrations": [{"service": "a", "address": "h:1", "expiresAtMs": 9e15}, {"service": "a", "address": "h:2", "protocol": "tcp", "expiresAtMs": 9e15}]}',
    ],
  ])('moves a state file aside that holds %s, and works on', async (_, text) => {
    await writeFile(path, text)
    const { registry, told } = await started()
    expect(told).toEqual([[]])
    expect(await readFile(`${path}.corrupt`, 'utf8')).toBe(text)
    expect(log.count('warn')).toBe(1)
    registry.register({ service: 'orders', address: 'h:1' })
    await registry.stop()
    expect(await stored()).toContain('orders')
  })

  test('nobody lives longer than a ttl when the clock was set back', async () => {
    const first = await started()
    first.registry.register({ service: 'orders', address: 'h:1', ttlMs: 10_000 })
    await first.registry.stop()
    clock = new ManualClock(clock.nowMs() - 3_600_000)
    const second = await started()
    expect(second.registry.list()).toHaveLength(1)
    clock.advance(10_000)
    expect(second.told.at(-1)).toEqual([])
  })

  test('says that registrations are not saved, once, and tries again until they are', async () => {
    const { registry, told } = await started({ path: join(folder, 'later', 'registrations.json') })
    registry.register({ service: 'orders', address: 'h:1', ttlMs: 3_600_000 })
    clock.advance(100)
    await eventually(() => registry.problem() !== undefined, 'the problem shown')
    expect(registry.problem()).toContain('cannot be written (ENOENT)')
    clock.advance(5_000)
    await eventually(() => clock.pending().includes(5_000), 'the next try planned')
    expect(log.count('warn')).toBe(1)
    expect(isSameContent(told.at(-1), [service('orders', ['h:1'])])).toBe(true)
    await mkdir(join(folder, 'later'))
    clock.advance(5_000)
    await eventually(() => registry.problem() === undefined, 'the problem gone')
    expect(await readdir(join(folder, 'later'))).toEqual(['registrations.json'])
  })
})
