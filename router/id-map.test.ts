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

test('holds tens of thousands that are counted up and leave in any order, and takes no more room afterwards', () => {
  const ours = new IdMap<number>()
  for (let id = 1; id < 60_000; id += 2) ours.set(id, id)
  expect(ours.size).toBe(30_000)
  for (let id = 59_999; id > 0; id -= 2) if (id % 3 !== 0) expect(ours.delete(id)).toBe(true)
  for (let id = 3; id < 60_000; id += 6) expect(ours.get(id)).toBe(id)
  for (let id = 3; id < 60_000; id += 6) ours.delete(id)
  expect([ours.size, ours.all(), (ours as unknown as { ids: number[] }).ids.length]).toEqual([0, [], 16])
})
