import fc from 'fast-check'
import { expect, test } from 'vitest'
import { SmallMap } from './small-map.ts'

test('it keeps what a Map keeps, few entries or many, in the same order', () => {
  const change = fc.record({ key: fc.nat({ max: 60 }), value: fc.option(fc.nat(), { nil: undefined }) })
  fc.assert(
    fc.property(fc.array(change, { maxLength: 200, size: 'max' }), changes => {
      const [small, plain] = [new SmallMap<number>(), new Map<string, number>()]
      for (const { key, value } of changes) {
        for (const map of [small, plain]) {
          if (value === undefined) map.delete(`service ${key}`)
          else map.set(`service ${key}`, value)
        }
        expect(small.keys()).toEqual([...plain.keys()])
        for (let i = 0; i <= 60; i++) expect(small.get(`service ${i}`)).toBe(plain.get(`service ${i}`))
      }
    }),
    { numRuns: 30 },
  )
})
