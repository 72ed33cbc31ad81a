import { describe, expect, test } from 'vitest'
import { HEARTBEAT_MS, Heartbeat, SILENCE_MS, TICK_MS } from './heartbeat.ts'

/** Looks at the line every `TICK_MS`; answers when it was found dead, and passes each ping to `onPing`. */
function look(
  heartbeat: Heartbeat,
  fromMs: number,
  forMs: number,
  onPing: (ping: number, nowMs: number) => void = () => {},
): number {
  for (let nowMs = fromMs + TICK_MS; nowMs <= fromMs + forMs; nowMs += TICK_MS) {
    const verdict = heartbeat.tick(nowMs)
    if (verdict === 'dead') return nowMs
    if (verdict !== 'none') onPing(verdict, nowMs)
  }
  return Number.POSITIVE_INFINITY
}

describe('a heartbeat', () => {
  test('a link is dead after the silence that is allowed, not before, and within the bar of 3 s', () => {
    expect(look(new Heartbeat(), 0, 10_000)).toBe(SILENCE_MS)
    const heartbeat = new Heartbeat()
    look(heartbeat, 0, SILENCE_MS - TICK_MS)
    heartbeat.heard = true
    // The look that sees the byte still counts as a sign of life.
    expect(look(heartbeat, SILENCE_MS - TICK_MS, 10_000)).toBe(2 * SILENCE_MS)
    expect(SILENCE_MS + TICK_MS).toBeLessThan(3000)
  })

  test('everything heard is a sign of life, also without a single pong', () => {
    const heartbeat = new Heartbeat()
    expect(look(heartbeat, 0, 60_000, () => (heartbeat.heard = true))).toBe(Number.POSITIVE_INFINITY)
    expect(heartbeat.rttMs).toBeUndefined()
  })

  test('a line with a round trip of two seconds is given more time, one around the earth is not', () => {
    const deadAfterMs = (rttMs: number): number => {
      const heartbeat = new Heartbeat()
      heartbeat.onPong(Number(heartbeat.tick(0)), rttMs)
      return look(heartbeat, 0, 20_000)
    }
    expect([deadAfterMs(10), deadAfterMs(300)]).toEqual([SILENCE_MS - TICK_MS, SILENCE_MS - TICK_MS])
    expect(deadAfterMs(2000)).toBe(SILENCE_MS - TICK_MS + 3500)
  })

  test('a process that stood still does not take its own standstill for the death of the other end', () => {
    const heartbeat = new Heartbeat()
    heartbeat.tick(250)
    expect(heartbeat.tick(60_000)).not.toBe('dead')
    expect(look(heartbeat, 60_000, 10_000)).toBe(60_000 + SILENCE_MS - 2 * TICK_MS)
  })

  test('after a few quick ones there is a heartbeat a second', () => {
    const heartbeat = new Heartbeat()
    const sentAtMs: number[] = []
    look(heartbeat, 0, 10_000, (_, nowMs) => {
      heartbeat.heard = true
      sentAtMs.push(nowMs)
    })
    const gaps = sentAtMs.slice(4).map((ms, i) => ms - (sentAtMs[i + 3] as number))
    expect(new Set(gaps)).toEqual(new Set([HEARTBEAT_MS]))
    expect(sentAtMs.slice(0, 4)).toEqual([1, 2, 3, 4].map(n => n * TICK_MS))
  })

  test('of the first round trips the least counts, later ones move it by an eighth', () => {
    const heartbeat = new Heartbeat()
    const samples = [90, 40, 60, 50, 80]
    const seen: (number | undefined)[] = []
    look(heartbeat, 0, 2000, (ping, nowMs) => {
      heartbeat.onPong(ping, nowMs + (samples.shift() ?? 0))
      seen.push(heartbeat.rttMs)
    })
    expect(seen).toEqual([90, 40, 40, 40, 45])
  })

  test('a pong that nothing asked for, or that comes twice, counts for nothing', () => {
    const heartbeat = new Heartbeat()
    const ping = heartbeat.tick(1000)
    expect(heartbeat.onPong(999, 1001)).toBe(false)
    expect(heartbeat.onPong(Number(ping), 1010)).toBe(true)
    expect(heartbeat.onPong(Number(ping), 9000)).toBe(false)
    expect(heartbeat.rttMs).toBe(10)
  })

  test('a lost heartbeat raises the loss ratio by a thirty-second, good ones lower it again', () => {
    const heartbeat = new Heartbeat()
    let pings = 0
    look(heartbeat, 0, 6000, (ping, nowMs) => {
      heartbeat.heard = true
      if (++pings !== 1) heartbeat.onPong(ping, nowMs + 5)
    })
    expect(heartbeat.lossRatio).toBeGreaterThan(0.02)
    expect(heartbeat.lossRatio).toBeLessThanOrEqual(1 / 32)
    look(heartbeat, 6000, 120_000, (ping, nowMs) => {
      heartbeat.heard = true
      heartbeat.onPong(ping, nowMs + 5)
    })
    expect(heartbeat.lossRatio).toBeLessThan(0.005)
  })
})
