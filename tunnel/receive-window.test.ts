import { describe, expect, it } from 'vitest'
import { ReceiveWindow } from './receive-window.ts'

/** A reader that takes half of a window of 1,000 bytes each `everyMs`, so many times; answers the window then. */
function sizeAfter(times: number, everyMs: number, rttMs: number | undefined, sizeMaxBytes = 16_000): number {
  const window = new ReceiveWindow(1000)
  for (let i = 1; i <= times; i++) {
    window.take(window.sizeBytes / 2)
    expect(window.isDue).toBe(true)
    window.credit(i * everyMs, rttMs, sizeMaxBytes - window.sizeBytes)
    expect(window.leftBytes).toBe(window.sizeBytes)
  }
  return window.sizeBytes
}

describe('the window of a receiver', () => {
  it('grows while more than a quarter of it is read in a round trip, up to its limit', () => {
    expect(sizeAfter(1, 90, 90)).toBe(1000)
    expect(sizeAfter(2, 90, 90)).toBe(2000)
    expect(sizeAfter(4, 90, 90)).toBe(8000)
    expect(sizeAfter(20, 90, 90)).toBe(16_000)
  })

  it('stays as it is for a slow reader, and while the round trip is not known', () => {
    expect(sizeAfter(20, 181, 90)).toBe(1000)
    expect(sizeAfter(20, 1, undefined)).toBe(1000)
  })

  it('is four round trips of what is read, however short they are and in whatever bursts it is read', () => {
    // 1,000,000 bytes a second, 2,000 in a round trip: 40,000 each 40 ms, as fast as they can be read.
    const window = new ReceiveWindow(4000)
    for (let nowMs = 0; nowMs < 10_000; nowMs += 40) {
      let leftBytes = 40_000
      for (let i = 0; leftBytes > 0; i++) {
        const bytes = Math.min(leftBytes, window.sizeBytes / 2)
        window.take(bytes)
        leftBytes -= bytes
        if (window.isDue) window.credit(nowMs + i / 100, 2, 1_000_000)
      }
    }
    expect(window.sizeBytes).toBeGreaterThanOrEqual(7_900)
    expect(window.sizeBytes).toBeLessThan(16_000)
  })

  it('never shrinks when there is no room to grow', () => {
    expect(sizeAfter(20, 90, 90, 0)).toBe(1000)
  })

  it('gives back what was read and no more', () => {
    const window = new ReceiveWindow(1000)
    window.take(499)
    expect(window.isDue).toBe(false)
    window.take(1)
    expect(window.credit(0, 90, 1000)).toBe(500)
    window.take(1000)
    expect(window.leftBytes).toBe(0)
    window.take(1)
    expect(window.leftBytes).toBe(-1)
  })
})
