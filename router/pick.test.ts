import { expect, test } from 'vitest'
import { pickOne, pickSome } from './pick.ts'

test('some are picked by chance, none twice, and all of them when there are no more', () => {
  const draws = [0.99, 0, 0.5]
  const random = (): number => draws.shift() ?? 0
  expect(pickSome(['a', 'b', 'c', 'd'], 2, random)).toEqual(['d', 'a'])
  expect(pickSome(['a', 'b'], 5, random).sort()).toEqual(['a', 'b'])
  expect([pickSome([], 2, random), pickOne([], random)]).toEqual([[], undefined])
})
