import { expect, test } from 'vitest'
import { HandOnQueue } from './hand-on-queue.ts'

const fresh = (seq: number) => ({ from: 'a', origin: 'o', incarnation: 1, seq })

test('the first is due at once, what follows on its heels ten milliseconds after it, together', () => {
  const queue = new HandOnQueue()
  expect(queue.atMs).toBe(Number.POSITIVE_INFINITY)
  queue.add(fresh(1), 1000)
  expect(queue.atMs).toBe(1000)
  expect(queue.take(1000)).toEqual([fresh(1)])
  queue.add(fresh(2), 1003)
  queue.add(fresh(3), 1009)
  expect(queue.atMs).toBe(1010)
  expect(queue.take(1010)).toEqual([fresh(2), fresh(3)])
  expect([queue.atMs, queue.take(1011)]).toEqual([Number.POSITIVE_INFINITY, []])
  queue.add(fresh(4), 5000)
  expect(queue.atMs).toBe(5000)
})

test('what waits has a bound', () => {
  const queue = new HandOnQueue()
  for (let seq = 0; seq < 100_000; seq++) queue.add(fresh(seq), 0)
  expect(queue.take(0)).toHaveLength(4096)
})
