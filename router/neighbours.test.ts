import { expect, test } from 'vitest'
import { NEIGHBOUR_RATE, Neighbours } from './neighbours.ts'

test('those who have asked to be handed on are listed as they come, change their minds, and go', () => {
  const neighbours = new Neighbours()
  for (const node of ['a', 'b', 'c']) neighbours.add(node, 0)
  expect([neighbours.nodes(), neighbours.askers()]).toEqual([['a', 'b', 'c'], []])
  expect([neighbours.setHandOn('a', true), neighbours.setHandOn('a', true), neighbours.setHandOn('x', true)]).toEqual([
    true,
    false,
    false,
  ])
  neighbours.setHandOn('c', true)
  expect(neighbours.askers()).toEqual(['a', 'c'])
  neighbours.delete('a', false)
  expect([neighbours.nodes(), neighbours.askers(), neighbours.size]).toEqual([['b', 'c'], ['c'], 2])
  neighbours.setHandOn('c', false)
  expect(neighbours.askers()).toEqual([])
})

test('a link that is given up but still open keeps the rate it had, so that leaving is no way around it', () => {
  const neighbours = new Neighbours()
  neighbours.add('a', 0)
  expect(neighbours.rateOf('a')?.take(NEIGHBOUR_RATE.burst, 0)).toBe(true)
  neighbours.delete('a', true)
  expect([neighbours.get('a'), neighbours.rateOf('a')?.take(1, 0)]).toEqual([undefined, false])
  neighbours.add('a', 0)
  expect(neighbours.rateOf('a')?.take(1, 0)).toBe(true)
  neighbours.delete('a', false)
  expect(neighbours.rateOf('a')).toBe(undefined)
})
