import { expect, test } from 'vitest'
import { Suspects } from './suspects.ts'

test('a node is due a moment after the last word against it', () => {
  const suspects = new Suspects()
  suspects.add('x', 0)
  suspects.add('x', 150)
  expect([suspects.atMs <= 200, suspects.take(200)]).toEqual([true, []])
  expect([suspects.atMs, suspects.take(350)]).toEqual([350, [{ node: 'x', asked: 0 }]])
  expect([suspects.atMs, suspects.take(1000)]).toEqual([Number.POSITIVE_INFINITY, []])
})

test('it is asked about a few times and then no more', () => {
  const suspects = new Suspects()
  suspects.add('x', 0)
  let asked = 0
  for (let nowMs = 0; nowMs < 10_000; nowMs += 50) {
    for (const suspect of suspects.take(nowMs)) {
      asked++
      suspects.onAsked(suspect, nowMs)
    }
  }
  expect(asked).toBe(4)
})
