import { afterEach, describe, expect, it } from 'vitest'
import type { AcceptCall, Call } from '../proxy/call.ts'
import { openOf, until, Witness } from './call-contract.ts'
import { CALL_LINK_DEFAULTS } from './call-link-options.ts'
import type { LinkStatus } from './call-plane.ts'
import { HandClock } from './hand-clock-fixture.ts'
import { TICK_MS } from './heartbeat.ts'
import { echo, startPlane, type TestPlane } from './plane-fixture.ts'
import { createTestMesh } from './test-identities.ts'

const MIB = 1024 * 1024
const CHUNK = Buffer.alloc(64 * 1024, 'x')

/** Writes as long as it is taken, until it is told to stop. */
class Flood extends Witness {
  #isOn = true
  go(): void {
    while (this.#isOn && this.call.write(CHUNK));
  }
  override onDrain(): void {
    this.go()
  }
  stop(): void {
    this.#isOn = false
    this.call.end()
  }
}

describe('parallel links', () => {
  const mesh = createTestMesh()
  const planes: TestPlane[] = []
  /** Of services `flood`: at the end that accepted them. */
  const arrived: Flood[] = []
  afterEach(async () => {
    arrived.length = 0
    await Promise.all(planes.splice(0).map(({ plane }) => plane.stop()))
  })

  /** Two planes of one clock; the first has dialled the second. */
  async function pair(carriersMax = 4) {
    const clock = new HandClock()
    const accept: AcceptCall = (call, open, caller) => {
      if (open.service !== 'flood') return echo(call, open, caller)
      const flood = new Flood(call)
      flood.keep = undefined
      arrived.push(flood)
    }
    const options = { carriersMax, link: { ...CALL_LINK_DEFAULTS, silenceMs: 86_400_000 } }
    const one = await startPlane(mesh.identity('one'), { clock, accept }, options)
    const two = await startPlane(mesh.identity('two'), { clock, accept }, options)
    planes.push(one, two)
    one.plane.want(two.peer, [two.address])
    // The dial is a task of the clock's, due at once.
    clock.advance(0)
    await until(() => ups(one).length === 1 && ups(two).length === 1, 'the link is up')
    return { clock, one, two }
  }

  const ups = ({ plane }: TestPlane): LinkStatus[] => plane.links().filter(({ state }) => state === 'up')
  const parallel = (at: TestPlane): LinkStatus[] => ups(at).filter(link => link.parallel)

  /** A call on which bulk goes up or down; `bytes` says how much has arrived. */
  async function flood(from: TestPlane, to: TestPlane, direction: 'up' | 'down') {
    const call: Call | undefined = from.plane.open(to.peer, { ...openOf('flood'), timeoutMs: 0 })
    if (call === undefined) throw new Error('expected a link')
    const opener = new Flood(call)
    opener.keep = undefined
    const before = arrived.length
    await until(() => arrived.length > before, 'the call has arrived')
    const acceptor = arrived[before] as Flood
    const [sender, reader] = direction === 'up' ? [opener, acceptor] : [acceptor, opener]
    sender.go()
    return {
      resets: () => [...opener.resets, ...acceptor.resets],
      bytes: () => reader.bytes,
      stop: () => {
        sender.stop()
        reader.call.end()
      },
    }
  }

  /** Lets so much pass that links are busy at each look, and looks until it is so. */
  async function lookUntil(clock: HandClock, bytes: () => number, condition: () => boolean, what: string) {
    for (let looks = 0; looks < 100; looks++) {
      const fromBytes = bytes()
      await until(() => condition() || bytes() >= fromBytes + 2 * MIB, 'bulk has passed')
      if (condition()) return
      clock.advance(TICK_MS)
    }
    throw new Error(`looked in vain until ${what}`)
  }

  function ask(from: TestPlane, to: TestPlane): Witness {
    const call = from.plane.open(to.peer, { ...openOf('orders'), timeoutMs: 0 })
    if (call === undefined) throw new Error('expected a link')
    return new Witness(call)
  }

  for (const direction of ['up', 'down'] as const) {
    it(`takes small calls of both ends while bulk goes ${direction}, and is gone when it is over`, async () => {
      const { clock, one, two } = await pair()
      const bulk = await flood(one, two, direction)
      const isThere = (): boolean => parallel(one).length === 1 && parallel(two).length === 1
      await lookUntil(clock, bulk.bytes, isThere, 'there is a parallel link at both ends')
      expect(parallel(one)).toMatchObject([{ dialled: true, carrier: 'direct', calls: 0 }])
      expect(parallel(two)).toMatchObject([{ dialled: false, carrier: 'direct', calls: 0 }])
      const asked = [ask(one, two), ask(two, one)]
      expect([parallel(one)[0]?.calls, parallel(two)[0]?.calls]).toEqual([1, 1])
      for (const { call } of asked) {
        call.write(Buffer.from('hello'))
        call.end()
      }
      await until(() => asked.every(({ ended }) => ended), 'both are answered')
      expect(asked.map(({ text }) => text)).toEqual(['hello', 'hello'])

      const late = ask(one, two)
      bulk.stop()
      await until(() => ups(one).reduce((sum, { calls }) => sum + calls, 0) === 1, 'the bulk is over')
      for (let i = 0; i < 100; i++) clock.advance(TICK_MS)
      // The call that is on it stays where it is.
      expect(parallel(one)).toMatchObject([{ calls: 1 }])
      late.call.write(Buffer.from('late'))
      late.call.end()
      await until(() => late.ended, 'it is answered')
      expect(late.text).toBe('late')
      const isGone = (): boolean => {
        clock.advance(TICK_MS)
        return [one, two].every(at => at.plane.links().length === 1 && ups(at).length === 1)
      }
      await until(isGone, 'the parallel link is gone')
      expect([bulk.resets(), ...asked.map(({ resets }) => resets), late.resets].flat()).toEqual([])
      expect([one.changes, two.changes]).toEqual([[`up ${two.peer}`], [`up ${one.peer}`]])
    })
  }

  it('is dialled for a second one when bulk is on that too, and no more than are allowed', async () => {
    const { clock, one, two } = await pair(3)
    const first = await flood(one, two, 'up')
    await lookUntil(clock, first.bytes, () => parallel(one).length === 1, 'there is a second link')
    const second = await flood(one, two, 'down')
    await lookUntil(clock, second.bytes, () => parallel(one).length === 2, 'there is a third link')
    const third = await flood(one, two, 'up')
    expect(ups(one).map(({ calls }) => calls)).toEqual([1, 1, 1])
    for (let looks = 0; looks < 20; looks++) {
      const fromBytes = [first, second, third].map(({ bytes }) => bytes())
      const hasPassed = (): boolean =>
        [first, second, third].every(({ bytes }, i) => bytes() >= (fromBytes[i] ?? 0) + 2 * MIB)
      await until(hasPassed, 'bulk has passed on all')
      clock.advance(TICK_MS)
    }
    expect(one.plane.links()).toHaveLength(3)
  })

  it('is not dialled where one link is all that is allowed', async () => {
    const { clock, one, two } = await pair(1)
    const bulk = await flood(one, two, 'up')
    let looks = 0
    await lookUntil(clock, bulk.bytes, () => looks++ > 40, 'it was looked at often')
    expect(one.plane.links()).toHaveLength(1)
  })
})
