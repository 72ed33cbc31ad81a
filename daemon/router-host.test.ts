import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { silentLog } from '../router/log.ts'
import type { LocalService, NodeInfo } from '../router/model.ts'
import { RouterHost } from './router-host.ts'

beforeEach(() => {
  vi.useFakeTimers()
})
afterEach(() => {
  vi.useRealTimers()
})

const INFO: NodeInfo = { name: 'me', region: 'r', version: '1', overlay: [], calls: [], state: 'up' }
const ORDERS: LocalService = { name: 'orders', protocol: 'http', instances: 1, healthy: 1, weight: 1, labels: {} }

/** A host with a clock of its own, so that timers and clock can disagree as they do in a real process. */
function create(): { host: RouterHost; sent: string[]; nodes: string[]; clock: { nowMs: number } } {
  const sent: string[] = []
  const nodes: string[] = []
  const clock = { nowMs: 0 }
  const host = new RouterHost({
    log: silentLog,
    nowMs: () => clock.nowMs,
    send: to => void sent.push(to),
    onNode: (node, info) => void nodes.push(`${node} ${info?.state ?? 'gone'}`),
    router: {
      ...{ self: 'me', incarnation: 1, proof: new Uint8Array(3), random: () => 0.5 },
      ...{ sign: () => new Uint8Array(64), verify: () => true, verifyProof: () => undefined },
    },
  })
  return { host, sent, nodes, clock }
}

/** Timers and clock go on together. */
function pass(clock: { nowMs: number }, ms: number): void {
  clock.nowMs += ms
  vi.advanceTimersByTime(ms)
}

test('the router gets the time it asked for: what changed is told although nothing else happens', () => {
  const { host, nodes, clock } = create()
  host.step({ type: 'self', info: INFO })
  host.step({ type: 'local', service: ORDERS })
  expect(host.router.candidates('orders')).toEqual([])
  pass(clock, 20)
  expect(host.router.candidates('orders')).toHaveLength(1)
  expect(nodes).toEqual(['me up'])
  host.stop()
})

test('a timer that comes early by a fraction is set again, or nothing would ever be told', () => {
  const { host, nodes, clock } = create()
  host.step({ type: 'self', info: INFO })
  clock.nowMs = 18.5
  vi.advanceTimersByTime(20)
  expect(nodes).toEqual([])
  clock.nowMs = 20.5
  vi.advanceTimersByTime(2)
  expect(nodes).toEqual(['me up'])
  host.stop()
})

test('an instant with a fraction is waited for to its end: a timer cuts the fraction off', () => {
  const { host, nodes, clock } = create()
  const timers = vi.spyOn(globalThis, 'setTimeout')
  let nowMs = 0
  Object.defineProperty(clock, 'nowMs', { get: () => (nowMs += 0.3) })
  host.step({ type: 'self', info: INFO })
  host.step({ type: 'link-up', to: 'b', rttMs: 1 })
  for (const [, delayMs = 0] of timers.mock.calls) expect(delayMs).toBe(Math.ceil(delayMs))
  expect(timers).toHaveBeenCalled()
  expect(nodes).toEqual(['me up'])
  host.stop()
})

test('frames go out and a link that comes up is greeted', () => {
  const { host, sent } = create()
  host.step({ type: 'link-up', to: 'b', rttMs: 10 })
  expect(sent).toEqual(['b', 'b'])
  host.stop()
})

test('after the stop no timer keeps the process alive, whatever still comes', () => {
  const { host } = create()
  host.step({ type: 'self', info: INFO })
  expect(vi.getTimerCount()).toBe(1)
  host.stop()
  host.step({ type: 'link-down', to: 'b' })
  host.step({ type: 'local', service: ORDERS })
  expect(vi.getTimerCount()).toBe(0)
})
