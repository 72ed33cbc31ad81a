import { expect, test } from 'vitest'
import { HandClock } from './hand-clock-fixture.ts'
import { LinkWaiters } from './link-waiters.ts'

test('all who wait hear of the link, and nobody waits any more', async () => {
  const waiters = new LinkWaiters(new HandClock())
  const late: string[] = []
  const told = Promise.all([waiters.wait(100, () => late.push('a')), waiters.wait(200, () => late.push('b'))])
  expect(waiters.size).toBe(2)
  waiters.tell(true)
  expect([await told, waiters.size, late]).toEqual([[true, true], 0, []])
})

test('who waited in vain is told so when the time is over, or when none will come', async () => {
  const clock = new HandClock()
  const waiters = new LinkWaiters(clock)
  const late: string[] = []
  const first = waiters.wait(100, () => late.push('first'))
  const second = waiters.wait(200, () => late.push('second'))
  clock.advance(100)
  expect([await first, waiters.size, late]).toEqual([false, 1, ['first']])
  waiters.tell(false)
  expect([await second, waiters.size, late]).toEqual([false, 0, ['first']])
})
