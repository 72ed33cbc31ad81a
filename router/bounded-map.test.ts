import { expect, test } from 'vitest'
import { BoundedMap } from './bounded-map.ts'

test('it holds what it is given up to its bound, is emptied by one more, and goes on', () => {
  const map = new BoundedMap<string, number>(3)
  for (const [i, key] of ['a', 'b', 'c'].entries()) map.set(key, i)
  expect([...map]).toEqual([
    ['a', 0],
    ['b', 1],
    ['c', 2],
  ])
  // A key that is there takes no more room.
  map.set('b', 5)
  expect([map.size, map.get('b')]).toEqual([3, 5])
  map.set('d', 6)
  expect([...map]).toEqual([['d', 6]])
})
