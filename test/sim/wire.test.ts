import { describe, expect, test } from 'vitest'
import { seededRandom } from './rng.ts'
import { WIRE_DEFAULTS, Wire, type WireConditions } from './wire.ts'

function makeWire(conditions: Partial<WireConditions>): Wire {
  return new Wire({ ...WIRE_DEFAULTS, ...conditions })
}

const random = seededRandom(1)
const chance = { loss: random, jitter: random, duplicate: random, reorder: random }

describe('a wire', () => {
  test('delivers after its latency', () => {
    expect(makeWire({ latencyMs: 30 }).arrivals(100, 5, chance, false)).toEqual([35])
  })

  test('keeps the order of messages whatever the jitter', () => {
    const wire = makeWire({ latencyMs: 10, jitterMs: 50 })
    const arrivals = Array.from({ length: 200 }, (_, i) => wire.arrivals(100, i, chance, false)).flat()
    expect(arrivals).toEqual([...arrivals].sort((a, b) => a - b))
    expect(Math.max(...arrivals.map((ms, i) => ms - i))).toBeGreaterThan(40)
  })

  test('lets messages overtake each other where that was asked for', () => {
    const wire = makeWire({ latencyMs: 50, reorder: 0.5 })
    const arrivals = Array.from({ length: 200 }, (_, i) => wire.arrivals(100, i, chance, false)).flat()
    expect(arrivals).not.toEqual([...arrivals].sort((a, b) => a - b))
  })

  test('loses its share of messages for good', () => {
    const wire = makeWire({ loss: 0.25 })
    const arrived = Array.from({ length: 4000 }, (_, i) => wire.arrivals(100, i, chance, false)).flat().length
    expect(arrived / 4000).toBeGreaterThan(0.72)
    expect(arrived / 4000).toBeLessThan(0.78)
  })

  test('that resends is as far behind as its latest message is late, until it starts anew', () => {
    const wire = makeWire({ latencyMs: 10, loss: 0.5 })
    const lostFour = [0, 0, 0, 0, 1]
    const unlucky = { ...chance, loss: () => lostFour.shift() ?? 1 }
    const [lateMs = 0] = wire.arrivals(100, 0, unlucky, true)
    expect(lateMs).toBe(200 + 400 + 800 + 1600 + 10)
    expect([wire.behindMs(0), wire.behindMs(2000), wire.behindMs(5000)]).toEqual([3000, 1000, 0])
    expect(wire.arrivals(100, 100, unlucky, true)).toEqual([lateMs])
    wire.startAnew()
    expect(wire.arrivals(100, 100, unlucky, true)).toEqual([110])
  })

  test('delivers every message late rather than never where it retransmits', () => {
    const wire = makeWire({ loss: 0.25, latencyMs: 10 })
    const arrivals = Array.from({ length: 1000 }, (_, i) => wire.arrivals(100, i * 5000, chance, true)).flat()
    expect(arrivals).toHaveLength(1000)
    expect(arrivals.filter((ms, i) => ms - i * 5000 >= 210).length).toBeGreaterThan(200)
  })

  test('delivers a share of messages twice', () => {
    const wire = makeWire({ duplicate: 0.5 })
    const arrived = Array.from({ length: 1000 }, (_, i) => wire.arrivals(100, i, chance, false)).flat().length
    expect(arrived).toBeGreaterThan(1400)
  })

  test('makes messages queue for its bandwidth, and drops what would queue beyond 4 MiB', () => {
    const wire = makeWire({ latencyMs: 0, bytesPerSecond: 1000 })
    expect(wire.arrivals(500, 0, chance, false)).toEqual([500])
    expect(wire.arrivals(500, 0, chance, false)).toEqual([1000])
    expect(wire.arrivals(5 * 1024 * 1024, 0, chance, false)).toHaveLength(1)
    expect(wire.arrivals(1, 0, chance, false)).toEqual([])
  })

  test('swallows everything while it is blocked', () => {
    const wire = makeWire({ blocked: true })
    expect(wire.arrivals(100, 0, chance, true)).toEqual([])
    wire.conditions.blocked = false
    expect(wire.arrivals(100, 0, chance, true)).toHaveLength(1)
  })
})
