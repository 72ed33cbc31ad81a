import { expect, test } from 'vitest'
import { Timetable } from './timetable.ts'

const NEVER = Number.POSITIVE_INFINITY

test('what is planned is taken once, at its time and not before, and the next time is known', () => {
  const table = new Timetable<string, number>()
  expect([table.atMs, table.take(1000)]).toEqual([NEVER, []])
  table.plan('late', 300, 1)
  table.plan('soon', 100, 2)
  table.plan('next', 200, 3)
  expect([table.atMs, table.take(99), table.atMs]).toEqual([100, [], 100])
  expect([table.take(100), table.atMs]).toEqual([[['soon', 2]], 200])
  expect([table.take(1000), table.atMs, table.take(1000)]).toEqual([
    [
      ['late', 1],
      ['next', 3],
    ],
    NEVER,
    [],
  ])
})

test('a second plan for a key takes the place of the first', () => {
  const table = new Timetable<string, number>()
  table.plan('x', 100, 1)
  table.plan('x', 250, 2)
  expect([table.get('x'), table.take(100), table.atMs]).toEqual([2, [], 250])
  expect([table.take(250), table.get('x')]).toEqual([[['x', 2]], undefined])
})

test('what was deleted is not due any more, and without anything no time is', () => {
  const table = new Timetable<string, number>()
  table.plan('x', 100, 1)
  table.plan('y', 200, 2)
  table.delete('x')
  expect([table.get('x'), table.take(150), table.atMs]).toEqual([undefined, [], 200])
  table.delete('y')
  expect(table.atMs).toBe(NEVER)
})
