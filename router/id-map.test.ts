import fc from 'fast-check'
import { expect, test } from 'vitest'
import { IdMap } from './id-map.ts'

test('is the same as a Map, whatever comes and goes', () => {
  const id = fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 2 ** 31 - 1 }))
  const step = fc.record({ id, isAdded: fc.boolean() })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 400 }), steps => {
      const ours = new IdMap<string>()
      const model = new Map<number, string>()
      for (const [i, { id, isAdded }] of steps.entries()) {
        if (isAdded) {
          ours.set(id, `${i}`)
          model.set(id, `${i}`)
        } else expect(ours.delete(id)).toBe(model.delete(id))
        expect([ours.size, ours.get(id), ours.has(id)]).toEqual([model.size, model.get(id), model.has(id)])
      }
      expect(ours.all().sort()).toEqual([...model.values()].sort())
      for (const [id, value] of model) expect(ours.get(id)).toBe(value)
      ours.clear()
      expect([ours.size, ours.all()]).toEqual([0, []])
    }),
  )
})

test('holds tens of thousands that are counted up and leave in any order, and gives their room back to what comes and goes afterwards', () => {
  const ours = new IdMap<number>()
  for (let id = 1; id < 60_000; id += 2) ours.set(id, id)
  expect(ours.size).toBe(30_000)
  for (let id = 59_999; id > 0; id -= 2) if (id % 3 !== 0) expect(ours.delete(id)).toBe(true)
  for (let id = 3; id < 60_000; id += 6) expect(ours.get(id)).toBe(id)
  for (let id = 3; id < 60_000; id += 6) ours.delete(id)
  expect([ours.size, ours.all()]).toEqual([0, []])
  for (let id = 1; id < 100_000; id++) {
    ours.set(id, id)
    ours.delete(id)
  }
  expect(idsOf(ours).length).toBe(16)
})

test('does not grow and shrink with each of the bursts that calls come in', () => {
  const ours = new IdMap<number>()
  const burst = (): void => {
    for (let id = 1; id <= 32; id++) ours.set(id, id)
    for (let id = 1; id <= 32; id++) ours.delete(id)
  }
  burst()
  const ids = idsOf(ours)
  for (let i = 0; i < 1000; i++) burst()
  expect(idsOf(ours)).toBe(ids)
})

/** A new array each time it was made larger or smaller. */
function idsOf(map: IdMap<number>): number[] {
  return (map as unknown as { ids: number[] }).ids
}
