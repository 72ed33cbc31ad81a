import fc from 'fast-check'
import { expect, test } from 'vitest'
import { NodeMap, NodeNumbers } from './node-numbers.ts'

const TAIL = 'abcdefghijklmnop'
const ID = `12D3KooW-the-rest-of-an-id-${TAIL}`
const TWIN = `12D3KooW-of-another-key-----${TAIL}`

test('a node is found by its id and by the tail of it, whichever was told first', () => {
  for (const names of [
    [ID, TAIL],
    [TAIL, ID],
  ]) {
    const numbers = new NodeNumbers()
    const [first, second] = names.map(name => numbers.take(name))
    expect(second).toBe(first)
    expect([numbers.find(ID), numbers.find(TAIL), numbers.nameOf(first as number)]).toEqual([first, first, ID])
  }
})

test('the whole id is asked for: a tail, or an id that was never told, is not enough', () => {
  const numbers = new NodeNumbers()
  const number = numbers.take(TAIL)
  expect(numbers.findWhole(ID)).toBeUndefined()
  numbers.take(ID)
  expect([numbers.findWhole(ID), numbers.findWhole(TAIL), numbers.findWhole(TWIN)]).toEqual([
    number,
    undefined,
    undefined,
  ])
})

test('two ids of one tail are two nodes', () => {
  const numbers = new NodeNumbers()
  const [one, two] = [numbers.take(ID), numbers.take(TWIN)]
  expect(one).not.toBe(two)
  expect([numbers.findWhole(ID), numbers.findWhole(TWIN), numbers.take(TWIN)]).toEqual([one, two, two])
  numbers.release(two)
  numbers.release(two)
  expect([numbers.findWhole(TWIN), numbers.find(TAIL)]).toEqual([undefined, one])
})

test('a number goes to another node after its last user has released it', () => {
  const numbers = new NodeNumbers()
  const number = numbers.take(ID)
  numbers.take(TAIL)
  numbers.release(number)
  expect(numbers.find(TAIL)).toBe(number)
  const { hash } = numbers.hashesOf(number)
  numbers.release(number)
  expect([numbers.find(TAIL), numbers.find(ID)]).toEqual([undefined, undefined])
  expect(numbers.take('another')).toBe(number)
  expect(numbers.hashesOf(number).hash).not.toBe(hash)
})

test('maps that share numbers keep what they would keep alone', () => {
  const change = fc.record({
    map: fc.nat({ max: 2 }),
    node: fc.nat({ max: 9 }),
    value: fc.option(fc.nat(), { nil: undefined }),
  })
  fc.assert(
    fc.property(fc.array(change), changes => {
      const numbers = new NodeNumbers()
      const maps = [0, 1, 2].map(() => ({ ours: new NodeMap<number>(numbers), plain: new Map<string, number>() }))
      for (const { map, node, value } of changes) {
        const id = `node ${node}`
        for (const kept of Object.values(maps[map] ?? {})) {
          if (value === undefined) kept.delete(id)
          else kept.set(id, value)
        }
      }
      for (const { ours, plain } of maps) {
        expect(new Map(ours.entries())).toEqual(plain)
        expect([ours.size, new Set(ours.keys())]).toEqual([plain.size, new Set(plain.keys())])
        for (const [id, value] of plain) expect(ours.get(id)).toBe(value)
      }
    }),
  )
})
