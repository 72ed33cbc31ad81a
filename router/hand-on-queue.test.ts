import { expect, test } from 'vitest'
import { HandOnQueue } from './hand-on-queue.ts'

const fresh = (byte: number) => {
  const batch = { payload: new Uint8Array([byte]), signature: new Uint8Array() }
  return { from: 'a', origin: 'o', batch, proof: undefined }
}

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

test('when news keep coming they wait for each other longer, until they are fewer again', () => {
  const queue = new HandOnQueue()
  const gaps: number[] = []
  let nowMs = 0
  for (let i = 0; i < 100; i++) {
    queue.add(fresh(i), nowMs + 1)
    gaps.push(queue.atMs - nowMs)
    nowMs = queue.atMs
    queue.take(nowMs)
  }
  expect(gaps.slice(1, 25)).toEqual(Array(24).fill(10))
  expect(gaps.slice(40).filter(gapMs => gapMs === 40).length).toBeGreaterThan(35)
  queue.add(fresh(0), nowMs + 5000)
  queue.take(nowMs + 5000)
  queue.add(fresh(1), nowMs + 5001)
  expect(queue.atMs).toBe(nowMs + 5010)
})

test('what waits has a bound', () => {
  const queue = new HandOnQueue()
  for (let seq = 0; seq < 100_000; seq++) queue.add(fresh(seq), 0)
  expect(queue.take(0)).toHaveLength(4096)
})
