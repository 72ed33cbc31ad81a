import { expect, test } from 'vitest'
import { Doubts, LASTING_SUMMARIES, UNDER_WAY_MS } from './doubts.ts'

const scope = { count: 4, indexes: new Set([1, 3]) }

test('a difference is looked at again when what is under way has come, and asks what changed since before it was seen', () => {
  const doubts = new Doubts()
  expect(doubts.onSummary('a', scope, 4, 1000)).toBeUndefined()
  expect(doubts.atMs).toBe(1000 + UNDER_WAY_MS)
  expect(doubts.take()).toEqual({ from: 'a', scope, sinceMs: 1000 - UNDER_WAY_MS })
  expect(doubts.atMs).toBe(Number.POSITIVE_INFINITY)
  expect(doubts.take()).toBeUndefined()
})

test('another that is seen meanwhile does not put it off', () => {
  const doubts = new Doubts()
  doubts.onSummary('a', scope, 4, 1000)
  doubts.onSummary('b', scope, 4, 1200)
  expect(doubts.atMs).toBe(1000 + UNDER_WAY_MS)
  expect(doubts.take()?.from).toBe('a')
})

test('what differs in one summary after the other is asked for, and not again at once; what was equal once begins anew', () => {
  const doubts = new Doubts()
  const seen = (...indexes: number[]) => {
    const differing = indexes.length === 0 ? undefined : { count: 4, indexes: new Set(indexes) }
    return [...(doubts.onSummary('a', differing, 4, 1000)?.indexes ?? [])]
  }
  for (let i = 1; i < LASTING_SUMMARIES; i++) expect(seen(1, 2)).toEqual([])
  expect(seen(1)).toEqual([1])
  for (let i = 1; i < LASTING_SUMMARIES; i++) expect(seen(1, 2)).toEqual([])
  expect(seen(1, 2)).toEqual([1, 2])
  for (let i = 1; i < LASTING_SUMMARIES; i++) expect(seen(0)).toEqual([])
  expect(seen()).toEqual([])
  expect(seen(0)).toEqual([])
})
