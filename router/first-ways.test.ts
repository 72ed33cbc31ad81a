import { expect, test } from 'vitest'
import { FirstWays } from './first-ways.ts'

test('a first way is looked at soon, once more when nobody else was heard of for long, and then no more', () => {
  const ways = new FirstWays()
  ways.add('x', 0)
  expect([ways.atMs, ways.take(249)]).toEqual([250, []])
  expect([ways.take(250), ways.atMs]).toEqual([[{ to: 'x', isOver: false }], 2000])
  expect([ways.take(1999), ways.atMs]).toEqual([[], 2000])
  expect([ways.take(2000), ways.atMs]).toEqual([[{ to: 'x', isOver: true }], Number.POSITIVE_INFINITY])
})

test('a link that is gone or was told of is not looked at again', () => {
  const ways = new FirstWays()
  ways.add('x', 0)
  ways.add('y', 100)
  ways.delete('x')
  expect(ways.take(5000)).toEqual([{ to: 'y', isOver: true }])
})

test('when all is known that can be, nothing is waited for', () => {
  const ways = new FirstWays()
  ways.hasten(0)
  expect(ways.atMs).toBe(Number.POSITIVE_INFINITY)
  ways.add('x', 0)
  ways.hasten(10)
  expect([ways.atMs, ways.take(10)]).toEqual([10, [{ to: 'x', isOver: true }]])
})

test('nobody waits in a small mesh, nor with the only link there is; a newcomer waits with its second', () => {
  expect([FirstWays.isUrgent(50, 9), FirstWays.isUrgent(500, 9), FirstWays.isUrgent(500, 1)]).toEqual([
    true,
    false,
    true,
  ])
  expect([FirstWays.isUrgent(undefined, 1), FirstWays.isUrgent(undefined, 2)]).toEqual([true, false])
})
