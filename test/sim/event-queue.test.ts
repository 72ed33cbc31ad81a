import fc from 'fast-check'
import { expect, test } from 'vitest'
import { EventQueue } from './event-queue.ts'

test('things happen in the order of their times, and of their planning where times are equal', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 50 }), { maxLength: 300 }), times => {
      const queue = new EventQueue()
      const done: [number, number][] = []
      for (const [i, atMs] of times.entries()) queue.at(atMs, () => done.push([queue.nowMs, i]))
      queue.runUntil(100)
      const expected = times.map((atMs, i): [number, number] => [atMs, i]).sort((a, b) => a[0] - b[0] || a[1] - b[1])
      expect(done).toEqual(expected)
    }),
    { seed: 1, numRuns: 200 },
  )
})

test('what is planned while others happen takes its place among them, never in the past', () => {
  const queue = new EventQueue()
  const done: string[] = []
  queue.at(10, () => {
    done.push(`first at ${queue.nowMs}`)
    queue.at(5, () => done.push(`late at ${queue.nowMs}`))
    queue.after(10, () => done.push(`between at ${queue.nowMs}`))
  })
  queue.at(30, () => done.push(`last at ${queue.nowMs}`))
  queue.runUntil(100)
  expect(done).toEqual(['first at 10', 'late at 10', 'between at 20', 'last at 30'])
})

test('what is due after the end waits for the next run', () => {
  const queue = new EventQueue()
  let count = 0
  queue.at(20, () => count++)
  queue.runUntil(19)
  expect([count, queue.nowMs, queue.size]).toEqual([0, 19, 1])
  queue.runUntil(20)
  expect([count, queue.size]).toEqual([1, 0])
})
