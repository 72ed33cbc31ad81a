import { afterEach, describe, expect, test } from 'vitest'
import type { Log, LogFields } from '../router/log.ts'
import type { RegistryClock } from './http-registry.ts'
import { isSameService } from './service-schema.ts'
import type { RegistrySource, ServiceDefinition } from './source.ts'

/** A source under test and what the world around it can do. */
export interface SourceRig {
  readonly source: RegistrySource
  /** Makes the source's content exactly this, the way its users would. */
  put(services: readonly ServiceDefinition[]): Promise<void>
  /** Brings trouble of a kind the source outlives; `problem()` must say so soon after. */
  spoil(): Promise<void>
  /** Ends that trouble, leaving the content of the last `put`. */
  mend(): Promise<void>
  /** Stops what the test started and removes its files. */
  close(): Promise<void>
}

/** Waits until `condition` answers true. Not a measure of time: the deadline only ends a test that would hang. */
export async function eventually(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  const deadlineMs = performance.now() + 10_000
  while (!(await condition())) {
    if (performance.now() > deadlineMs) throw new Error(`never happened: ${what}`)
    await new Promise(resolve => setTimeout(resolve, 5))
  }
}

/** Time that moves only when told to. Timers due run in order of their instants; `setWall` does not move them. */
export class ManualClock implements RegistryClock {
  #nowMs: number
  #wallAheadMs = 0
  readonly #timers = new Set<{ readonly atMs: number; readonly run: () => void }>()

  constructor(nowMs = 1_800_000_000_000) {
    this.#nowMs = nowMs
  }

  nowMs(): number {
    return this.#nowMs + this.#wallAheadMs
  }

  /** Sets the wall clock forward or, below zero, back, as an operator or a time server does. */
  setWall(byMs: number): void {
    this.#wallAheadMs += byMs
  }

  setTimer(ms: number, run: () => void): () => void {
    const timer = { atMs: this.#nowMs + ms, run }
    this.#timers.add(timer)
    return () => this.#timers.delete(timer)
  }

  /** Waits of the timers now set, shortest first. */
  pending(): readonly number[] {
    return [...this.#timers].map(timer => timer.atMs - this.#nowMs).sort((a, b) => a - b)
  }

  advance(ms: number): void {
    const endMs = this.#nowMs + ms
    for (;;) {
      const [next] = [...this.#timers].filter(timer => timer.atMs <= endMs).sort((a, b) => a.atMs - b.atMs)
      if (next === undefined) break
      this.#timers.delete(next)
      this.#nowMs = Math.max(this.#nowMs, next.atMs)
      next.run()
    }
    this.#nowMs = endMs
  }
}

/** Keeps the lines, so that a test can count them. */
export class ListLog implements Log {
  readonly lines: { readonly level: string; readonly message: string; readonly fields: LogFields }[] = []
  error(fields: LogFields, message: string): void {
    this.lines.push({ level: 'error', message, fields })
  }
  warn(fields: LogFields, message: string): void {
    this.lines.push({ level: 'warn', message, fields })
  }
  info(fields: LogFields, message: string): void {
    this.lines.push({ level: 'info', message, fields })
  }
  debug(fields: LogFields, message: string): void {
    this.lines.push({ level: 'debug', message, fields })
  }
  count(level: string): number {
    return this.lines.filter(line => line.level === level).length
  }
}

/** A definition with instances whose ids are their addresses. */
export function service(
  name: string,
  addresses: readonly string[],
  more: Partial<ServiceDefinition> = {},
): ServiceDefinition {
  const instances = addresses.map(address => ({ id: address, address, weight: 1 }))
  return { name, protocol: 'http', labels: {}, instances, ...more }
}

/** Same services, whatever their order and that of their instances. */
export function isSameContent(a: readonly ServiceDefinition[] | undefined, b: readonly ServiceDefinition[]): boolean {
  if (a === undefined || a.length !== b.length) return false
  const sorted = (one: ServiceDefinition) => ({
    ...one,
    instances: one.instances.toSorted((x, y) => (x.id < y.id ? -1 : 1)),
  })
  return a.every(one => {
    const other = b.find(({ name }) => name === one.name)
    return other !== undefined && isSameService(sorted(one), sorted(other))
  })
}

/** What every registry owes the daemon. `open` makes a source, not started, whose registry holds `content` already. */
export function describeSource(
  title: string,
  open: (content: readonly ServiceDefinition[]) => Promise<SourceRig>,
): void {
  describe(`${title} as a registry source`, () => {
    const rigs: SourceRig[] = []
    afterEach(async () => {
      for (const rig of rigs.splice(0)) await rig.close()
    })

    async function started(content: readonly ServiceDefinition[]) {
      const rig = await open(content)
      rigs.push(rig)
      const told: (readonly ServiceDefinition[])[] = []
      await rig.source.start(services => told.push(services))
      return { ...rig, told }
    }

    const orders = service('orders', ['127.0.0.1:9000', '127.0.0.1:9001'], { labels: { version: 'v1' } })
    const mail = service('mail', ['mail.internal:25'], { protocol: 'tcp' })

    test('has told its content when start resolves', async () => {
      const { told } = await started([orders, mail])
      expect(isSameContent(told.at(-1), [orders, mail])).toBe(true)
    })

    test('starts with nothing in it, and says so', async () => {
      const { told } = await started([])
      expect(told.at(-1)).toEqual([])
    })

    test('tells its whole content on each change, not only what changed', async () => {
      const { told, put } = await started([orders])
      await put([orders, mail])
      await eventually(() => isSameContent(told.at(-1), [orders, mail]), 'both services told')
      const fewer = service('orders', ['127.0.0.1:9001'], { labels: { version: 'v1' } })
      await put([fewer, mail])
      await eventually(() => isSameContent(told.at(-1), [fewer, mail]), 'the instance gone')
      await put([mail])
      await eventually(() => isSameContent(told.at(-1), [mail]), 'the service gone')
    })

    test('has no problem while all is well', async () => {
      const { source, told, put } = await started([orders])
      await put([mail])
      await eventually(() => isSameContent(told.at(-1), [mail]), 'the change told')
      expect(source.problem()).toBeUndefined()
    })

    test('keeps the last good content through trouble, says what is wrong, and goes on when it is over', async () => {
      const { source, told, spoil, mend, put } = await started([orders])
      await spoil()
      await eventually(() => source.problem() !== undefined, 'the problem shown')
      expect(isSameContent(told.at(-1), [orders])).toBe(true)
      await mend()
      await eventually(() => source.problem() === undefined, 'the problem gone')
      expect(isSameContent(told.at(-1), [orders])).toBe(true)
      await put([orders, mail])
      await eventually(() => isSameContent(told.at(-1), [orders, mail]), 'a change after the trouble')
    })

    test('tells nothing after stop, whatever changes', async () => {
      const first = await started([orders])
      await first.source.stop()
      const count = first.told.length
      // Whatever the stopped one could still notice, one that runs has noticed too.
      await first.put([mail]).catch(() => undefined)
      const second = await started([orders])
      await second.put([mail])
      await eventually(() => isSameContent(second.told.at(-1), [mail]), 'a running source told')
      expect(first.told).toHaveLength(count)
    })

    test('may be stopped while it starts, and stops then', async () => {
      const rig = await open([orders])
      const told: (readonly ServiceDefinition[])[] = []
      const starting = rig.source.start(services => told.push(services))
      await rig.source.stop()
      await starting
      const count = told.length
      await rig.put([mail]).catch(() => undefined)
      expect(told).toHaveLength(count)
      await rig.close()
    })
  })
}
