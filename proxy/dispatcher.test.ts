import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { MeshError } from '../router/errors.ts'
import { type Connections, Dispatcher, type DispatcherOptions, NoRoom, type Seeker, type Ticket } from './dispatcher.ts'
import { Instances, type ServiceInstances } from './instances.ts'

interface Wire {
  readonly address: string
  readonly number: number
}

/** Connections without sockets: `max` at a time to each address, made when the test says so. */
class TestConnections implements Connections<Wire> {
  max = 1
  isManual = false
  readonly busy = new Map<string, number>()
  readonly warm: Wire[] = []
  readonly putBacks: Wire[] = []
  /** What `connect` does at an address instead of connecting. */
  readonly failures = new Map<string, Error>()
  readonly pending: (() => void)[] = []
  made = 0

  hasRoom(address: string): boolean {
    return (this.busy.get(address) ?? 0) < this.max
  }

  take(address: string): Wire | undefined {
    const at = this.warm.findIndex(wire => wire.address === address)
    const [wire] = at < 0 ? [] : this.warm.splice(at, 1)
    if (wire !== undefined) this.count(address, 1)
    return wire
  }

  async connect(address: string): Promise<Wire> {
    this.count(address, 1)
    if (this.isManual) await new Promise<void>(resolve => this.pending.push(resolve))
    const failure = this.failures.get(address)
    if (failure === undefined) return { address, number: ++this.made }
    this.count(address, -1)
    throw failure
  }

  putBack(wire: Wire): void {
    this.putBacks.push(wire)
    this.free(wire)
  }

  /** A call is over. */
  free(wire: Wire): void {
    this.count(wire.address, -1)
    this.warm.push(wire)
  }

  private count(address: string, change: number): void {
    this.busy.set(address, (this.busy.get(address) ?? 0) + change)
  }
}

class Caller implements Seeker<Wire> {
  readonly isIdempotent = true
  readonly service: string
  readonly timeoutMs: number
  wire: Wire | undefined
  outcome = ''
  ticket: Ticket<Wire> | undefined
  private readonly order: Caller[]

  constructor(order: Caller[], service = 'orders', timeoutMs = 0) {
    this.order = order
    this.service = service
    this.timeoutMs = timeoutMs
  }

  onConnection(_instance: unknown, wire: Wire, isWarm: boolean): void {
    this.wire = wire
    this.outcome = `${isWarm ? 'warm' : 'new'} ${wire.address}`
    this.order.push(this)
  }

  onNone(code: string, reason: string): void {
    this.outcome = code
    this.reason = reason
    this.order.push(this)
  }

  reason = ''
}

let nowMs: number
let connections: TestConnections
let instances: Instances
let dispatcher: Dispatcher<Wire>
/** Those that were told something, in order. */
let told: Caller[]

function service(name: string, ...addresses: string[]): ServiceInstances {
  const list = addresses.map(address => ({ id: address, address, weight: 1 }))
  return { name, protocol: 'http', labels: {}, instances: list }
}

function create(options: Partial<DispatcherOptions> = {}): void {
  dispatcher = new Dispatcher(
    { self: { name: 'here' }, instances, connections, nowMs: () => nowMs },
    { queueMax: 100, queueTimeoutMs: 5000, ...options },
  )
}

function call(name = 'orders', timeoutMs = 0): Caller {
  const caller = new Caller(told, name, timeoutMs)
  caller.ticket = dispatcher.seek(caller)
  return caller
}

function end({ wire }: Caller): void {
  if (wire === undefined) throw new Error('this call has no connection')
  connections.free(wire)
  dispatcher.onRoom()
}

/** Until all that is planned for now has happened. */
const settled = (): Promise<unknown> => vi.advanceTimersByTimeAsync(0)
const pass = (ms: number): Promise<unknown> => {
  nowMs += ms
  return vi.advanceTimersByTimeAsync(ms)
}

beforeEach(() => {
  vi.useFakeTimers()
  nowMs = 1000
  told = []
  connections = new TestConnections()
  instances = new Instances({ onChange() {} })
  instances.replace([service('orders', 'a:1')])
  create()
})
afterEach(() => {
  vi.useRealTimers()
})

describe('a call finds an instance', () => {
  test('over a warm connection at once, else over a new one', async () => {
    const first = call()
    expect(first.outcome).toBe('')
    await settled()
    expect(first.outcome).toBe('new a:1')
    end(first)
    const second = call()
    expect([second.outcome, second.ticket]).toEqual(['warm a:1', undefined])
  })

  test('the one with the fewest calls, a full one never', async () => {
    connections.max = 2
    instances.replace([service('orders', 'a:1', 'b:1')])
    const calls = [call(), call(), call(), call()]
    await settled()
    expect(calls.map(({ outcome }) => outcome).sort()).toEqual(['new a:1', 'new a:1', 'new b:1', 'new b:1'])
    const late = call()
    await settled()
    expect([late.outcome, dispatcher.queued('orders')]).toEqual(['', 1])
  })

  test('a full instance is passed over even if it looks the least busy for its weight', async () => {
    const heavy = { id: 'a:1', address: 'a:1', weight: 50 }
    instances.replace([{ ...service('orders'), instances: [heavy, { id: 'b:1', address: 'b:1', weight: 1 }] }])
    const calls = [call(), call()]
    await settled()
    expect(calls.map(({ outcome }) => outcome)).toEqual(['new a:1', 'new b:1'])
  })

  test('one that refuses is out, and the next one gets the call', async () => {
    instances.replace([service('orders', 'a:1', 'b:1')])
    connections.failures.set('a:1', new Error('ECONNREFUSED'))
    const caller = call()
    await settled()
    expect(caller.outcome).toBe('new b:1')
    expect([...instances.all()].map(({ isHealthy }) => isHealthy)).toEqual([false, true])
    expect([...instances.all()].map(({ inFlight }) => inFlight)).toEqual([0, 0])
  })

  test('when all refuse, the call is told so with the reason of the last', async () => {
    connections.failures.set('a:1', new Error('ECONNREFUSED'))
    connections.isManual = true
    const [first, second] = [call(), call()]
    for (const connect of connections.pending) connect()
    await settled()
    expect([first.outcome, first.reason]).toEqual(['instance-refused', 'instance a:1 of orders at here: ECONNREFUSED'])
    // It waited for room at an instance that is out now: there is nothing left to wait for.
    await pass(100)
    expect(second.outcome).toBe('no-healthy-place')
    expect(call().outcome).toBe('no-healthy-place')
  })

  test('one that listens but cannot take calls of this kind is not taken for down', async () => {
    connections.failures.set('a:1', new MeshError('bad-answer', 'it answers in HTTP/1.1'))
    const caller = call()
    await settled()
    expect(caller.outcome).toBe('bad-answer')
    expect([...instances.all()][0]?.isHealthy).toBe(true)
  })
})

describe('the line', () => {
  test('is first come, first served, also for who comes in the moment room is made', async () => {
    const first = call()
    await settled()
    const waiting = [call(), call(), call()]
    end(first)
    const late = call()
    const calls = [...waiting, late]
    for (const next of calls) {
      await settled()
      expect(told.at(-1)).toBe(next)
      end(next)
    }
    expect(dispatcher.queued('orders')).toBe(0)
    expect(dispatcher.counters).toEqual({ queued: 4, refused: 0, expired: 0 })
  })

  test('takes no more than it may: the next call is refused at once and counted', async () => {
    create({ queueMax: 2 })
    call()
    await settled()
    const waiting = [call(), call()]
    const refused = call()
    expect(refused.outcome).toBe('instance-busy')
    expect(refused.reason).toBe('every instance of orders at here has as many calls as it may, and 2 wait already')
    expect([waiting[0]?.outcome, dispatcher.counters.refused]).toEqual(['', 1])
  })

  test('with no places in line a call without room is refused at once', async () => {
    create({ queueMax: 0 })
    call()
    await settled()
    expect(call().outcome).toBe('instance-busy')
  })

  test('is left after its time, and never later than the call has time for', async () => {
    call()
    await settled()
    const [patient, hurried] = [call(), call('orders', 300)]
    await pass(200)
    expect([patient.outcome, hurried.outcome]).toEqual(['', ''])
    await pass(100)
    expect([patient.outcome, hurried.outcome]).toEqual(['', 'deadline'])
    await pass(4600)
    expect(patient.outcome).toBe('')
    await pass(100)
    expect(patient.outcome).toBe('instance-busy')
    expect(patient.reason).toBe('no instance of orders at here had room for the call within 5000 ms')
    expect(dispatcher.counters).toEqual({ queued: 2, refused: 0, expired: 2 })
    expect(vi.getTimerCount()).toBe(0)
  })

  test('a caller that is gone leaves it at once and gets no connection', async () => {
    const first = call()
    await settled()
    const [gone, next] = [call(), call()]
    if (gone.ticket !== undefined) dispatcher.leave(gone.ticket)
    expect(dispatcher.queued('orders')).toBe(1)
    end(first)
    await settled()
    expect([gone.outcome, next.outcome]).toEqual(['', 'warm a:1'])
  })

  test('a connection that was made for a caller that is gone goes to the next', async () => {
    connections.isManual = true
    const [gone, next] = [call(), call()]
    if (gone.ticket !== undefined) dispatcher.leave(gone.ticket)
    for (const connect of connections.pending) connect()
    await settled()
    expect(connections.putBacks).toHaveLength(1)
    dispatcher.onRoom()
    await settled()
    expect([gone.outcome, next.outcome]).toEqual(['', 'warm a:1'])
  })

  test('moves when an instance comes back, or a new one is registered, without a call ending', async () => {
    call()
    await settled()
    const [first, second] = [call(), call()]
    instances.replace([service('orders', 'a:1', 'b:1')])
    await pass(100)
    expect([first.outcome, second.outcome]).toEqual(['new b:1', ''])
    instances.replace([service('orders', 'a:1', 'b:1', 'c:1')])
    await pass(100)
    expect(second.outcome).toBe('new c:1')
  })

  test('gives a call to an instance that had refused it, once it is back', async () => {
    instances.replace([service('orders', 'a:1', 'b:1')])
    connections.failures.set('b:1', new Error('ECONNREFUSED'))
    call()
    const second = call()
    await settled()
    expect([second.outcome, dispatcher.queued('orders')]).toEqual(['', 1])
    connections.failures.clear()
    for (const instance of instances.all()) instances.setHealth(instance, true, '')
    await pass(100)
    expect(second.outcome).toBe('new b:1')
  })

  test('an instance that comes and goes does not keep a call for ever', async () => {
    connections.failures.set('a:1', new Error('ECONNREFUSED'))
    connections.isManual = true
    const caller = call()
    // Its health check finds it healthy each time.
    instances.setHealth = () => {}
    for (let i = 0; i < 5 && caller.outcome === ''; i++) {
      nowMs += 1001
      connections.pending.shift()?.()
      await settled()
    }
    expect(caller.outcome).toBe('instance-refused')
  })

  test('ends when the service does: nobody waits for instances that are gone', async () => {
    call()
    await settled()
    const waiting = [call(), call()]
    instances.replace([])
    await pass(100)
    expect(waiting.map(({ outcome }) => outcome)).toEqual(['no-healthy-place', 'no-healthy-place'])
  })

  test('services that share an instance share its room in turn', async () => {
    instances.replace([service('orders', 'a:1'), service('billing', 'a:1')])
    const first = call()
    await settled()
    const [o1, o2, b1, b2] = [call(), call(), call('billing'), call('billing')]
    connections.max = 3
    end(first)
    await settled()
    expect([o1, o2, b1, b2].map(({ outcome }) => outcome !== '')).toEqual([true, true, true, false])
    expect(told.slice(1, 3)).toEqual([o1, b1])
  })

  test('who asks again after a bad connection goes before all who wait, and gets a new one', async () => {
    const first = call()
    await settled()
    const waiting = call()
    end(first)
    const again = new Caller(told)
    dispatcher.seek(again, new Set())
    await settled()
    expect([again.outcome, waiting.outcome]).toEqual(['new a:1', ''])
    const failed = [...instances.all()]
    const hopeless = new Caller(told)
    dispatcher.seek(hopeless, new Set(failed))
    expect(hopeless.outcome).toBe('no-healthy-place')
  })

  test('who must not go to the free instance does not hold up those who may', async () => {
    instances.replace([service('orders', 'a:1', 'b:1')])
    const [atA, atB] = [call(), call()]
    await settled()
    const [a] = [...instances.all()]
    if (a === undefined) throw new Error('there is no instance')
    const again = new Caller(told)
    dispatcher.seek(again, new Set([a]))
    const other = call()
    end(atA)
    await settled()
    expect([again.outcome, other.outcome]).toEqual(['', 'warm a:1'])
    end(atB)
    await settled()
    expect(again.outcome).toBe('new b:1')
  })

  test('who loses its room to others keeps its turn', async () => {
    connections.isManual = true
    const first = call()
    connections.failures.set('a:1', new NoRoom())
    const second = call()
    connections.pending.splice(0)[0]?.()
    connections.busy.set('a:1', 1)
    await settled()
    expect([first.outcome, dispatcher.queued('orders')]).toEqual(['', 2])
    connections.failures.clear()
    connections.isManual = false
    connections.busy.set('a:1', 0)
    dispatcher.onRoom()
    await settled()
    expect([first.outcome, second.outcome]).toEqual(['new a:1', ''])
  })
})

describe('whatever happens, in whatever order', () => {
  type Step =
    | { do: 'call'; service: string; timeoutMs: number }
    | { do: 'end' | 'leave' | 'again'; which: number }
    | { do: 'fail' | 'heal'; address: string }
    | { do: 'pass'; ms: number }
  const address = fc.constantFrom('a:1', 'b:1', 'c:1')
  const which = fc.nat(20)
  const anyStep: fc.Arbitrary<Step> = fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({
        do: fc.constant('call' as const),
        service: fc.constantFrom('orders', 'billing'),
        timeoutMs: fc.constantFrom(0, 0, 400),
      }),
    },
    {
      weight: 3,
      arbitrary: fc.record({
        do: fc.constantFrom('end' as const, 'end' as const, 'leave' as const, 'again' as const),
        which,
      }),
    },
    { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('fail' as const, 'heal' as const), address }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('pass' as const), ms: fc.constantFrom(100, 1000) }) },
  )

  /** Callers of one run, and what it may never come to. */
  class Run {
    readonly waiting: Caller[] = []
    readonly live: Caller[] = []

    async step(step: Step): Promise<void> {
      if (step.do === 'call') this.waiting.push(call(step.service, step.timeoutMs))
      else if (step.do === 'pass') await pass(step.ms)
      else if (step.do === 'fail') connections.failures.set(step.address, new Error('ECONNREFUSED'))
      else if (step.do === 'heal') this.heal(step.address)
      else if (step.do === 'leave') {
        const [gone] = this.waiting.splice(step.which % Math.max(1, this.waiting.length), 1)
        if (gone?.ticket !== undefined) dispatcher.leave(gone.ticket)
      } else if ('which' in step) this.endOrAskAgain(step.which, step.do === 'again')
      await settled()
      this.sort()
    }

    private heal(at: string): void {
      connections.failures.delete(at)
      for (const instance of instances.all()) if (instance.address === at) instances.setHealth(instance, true, '')
    }

    private endOrAskAgain(which: number, isAgain: boolean): void {
      const [caller] = this.live.splice(which % Math.max(1, this.live.length), 1)
      if (caller === undefined) return
      end(caller)
      if (!isAgain) return
      caller.outcome = ''
      told.splice(told.indexOf(caller), 1)
      caller.ticket = dispatcher.seek(caller, new Set())
      this.waiting.push(caller)
    }

    /** Those that were told something wait no more; nobody is told twice. */
    private sort(): void {
      expect(new Set(told).size).toBe(told.length)
      for (const caller of this.waiting.splice(0)) {
        if (caller.outcome === '') this.waiting.push(caller)
        else if (caller.outcome.includes(' ')) this.live.push(caller)
      }
      for (const at of ['a:1', 'b:1', 'c:1']) {
        const used = this.live.filter(({ wire }) => wire?.address === at).length
        expect([at, connections.busy.get(at) ?? 0]).toEqual([at, used])
        expect(used).toBeLessThanOrEqual(connections.max)
      }
      const queued = dispatcher.queued('orders') + dispatcher.queued('billing')
      expect(queued).toBe(this.waiting.length)
    }

    /** Nobody waits while an instance could take it, and nobody waits for nothing. */
    async checkQuiet(): Promise<void> {
      await pass(100)
      this.sort()
      for (const { service: name } of this.waiting) {
        const healthy = [...instances.all()].filter(one => one.service === name && one.isHealthy)
        expect(healthy.map(one => connections.hasRoom(one.address))).not.toContain(true)
        expect(healthy.length).toBeGreaterThan(0)
      }
    }
  }

  test('no instance gets more than it may, nobody is told twice, and nobody waits who could be served', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(anyStep, { maxLength: 60 }), fc.integer({ min: 1, max: 3 }), async (steps, max) => {
        connections = new TestConnections()
        connections.max = max
        instances = new Instances({ onChange() {} })
        instances.replace([service('orders', 'a:1', 'b:1'), service('billing', 'b:1', 'c:1')])
        told = []
        create({ queueMax: 5 })
        const run = new Run()
        for (const step of steps) {
          await run.step(step)
          if (step.do === 'pass') await run.checkQuiet()
        }
        await run.checkQuiet()
        await pass(10_000)
        expect(dispatcher.queued('orders') + dispatcher.queued('billing')).toBe(0)
        expect([...instances.all()].every(({ inFlight }) => inFlight === 0)).toBe(true)
        expect(vi.getTimerCount()).toBe(0)
      }),
      { numRuns: 2000 },
    )
  })
})
