import { expect, test } from 'vitest'
import { createTurnClock } from './turn-clock.ts'

test('is read once a turn of the event loop, and anew in the next one', async () => {
  let readings = 0
  const nowMs = createTurnClock(() => ++readings)
  expect([nowMs(), nowMs()]).toEqual([1, 1])
  await Promise.resolve()
  expect(nowMs()).toBe(1)
  await new Promise(setImmediate)
  expect([nowMs(), nowMs()]).toEqual([2, 2])
})
