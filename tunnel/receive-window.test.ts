import { describe, expect, it } from 'vitest'
import { ReceiveWindow } from './receive-window.ts'

/** A reader that takes half a window each `everyMs` on a line of 90 ms; answers the window after so many times. */
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
  it('doubles while half of it is used up within two round trips, up to its limit', () => {
    expect(sizeAfter(1, 100, 90)).toBe(1000)
    expect(sizeAfter(2, 100, 90)).toBe(2000)
    expect(sizeAfter(4, 100, 90)).toBe(8000)
    expect(sizeAfter(20, 100, 90)).toBe(16_000)
  })

  it('stays as it is for a slow reader, and while the round trip is not known', () => {
    expect(sizeAfter(20, 181, 90)).toBe(1000)
    expect(sizeAfter(20, 1, undefined)).toBe(1000)
  })

  it('never shrinks when there is no room to grow', () => {
    expect(sizeAfter(20, 1, 90, 0)).toBe(1000)
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
