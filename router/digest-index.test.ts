import fc from 'fast-check'
import { expect, test } from 'vitest'
import { DigestIndex, isInScope } from './digest-index.ts'

const version = fc.record({ incarnation: fc.nat(5), contiguous: fc.nat(50) })
const history = fc.array(fc.tuple(fc.stringMatching(/^[a-z]{1,3}$/), fc.option(version, { nil: undefined })), {
  maxLength: 60,
})

function build(steps: readonly (readonly [string, { incarnation: number; contiguous: number } | undefined])[]) {
  const index = new DigestIndex()
  for (const [origin, known] of steps) known === undefined ? index.delete(origin) : index.set(origin, known, 0)
  return index
}

test('equal knowledge gives equal summaries, however it came about', () => {
  fc.assert(
    fc.property(history, steps => {
      const final = new Map(steps)
      const straight = build([...final].filter(([, known]) => known !== undefined).reverse())
      expect(build(steps).compare(straight.summary())).toBeUndefined()
    }),
  )
})

test('what differs is in a bucket that is named, whichever side has more', () => {
  fc.assert(
    fc.property(history, fc.stringMatching(/^[a-z]{4}$/), version, (steps, origin, known) => {
      const mine = build(steps)
      const theirs = build([...steps, [origin, known]])
      for (const scope of [mine.compare(theirs.summary()), theirs.compare(mine.summary())]) {
        expect(scope !== undefined && isInScope(origin, scope)).toBe(true)
      }
    }),
  )
})

test('a summary grows with the origins, one hash for about four, and one difference names one bucket', () => {
  const origins = Array.from({ length: 1000 }, (_, i) => [`node-${i}`, { incarnation: 1, contiguous: 1 }] as const)
  const index = build(origins)
  expect(index.summary()).toHaveLength(256 * 4)
  const other = build([...origins, ['node-7', { incarnation: 1, contiguous: 2 }]])
  const scope = index.compare(other.summary())
  expect(scope?.indexes.size).toBe(1)
  expect(origins.filter(([origin]) => scope !== undefined && isInScope(origin, scope)).length).toBeLessThan(20)
})

test('a bucket counts as unchanged when none of its origins has changed since, whatever width is asked in', () => {
  const index = new DigestIndex()
  const origins = Array.from({ length: 200 }, (_, i) => `node-${i}`)
  for (const [i, origin] of origins.entries()) index.set(origin, { incarnation: 1, contiguous: 1 }, i < 150 ? 10 : 20)
  for (const count of [1, 16, 64, 1024]) {
    const all = { count, indexes: new Set(Array.from({ length: count }, (_, i) => i)) }
    const left = index.unchanged(all, 15)
    for (const origin of origins.slice(150)) expect(left !== undefined && isInScope(origin, left)).toBe(false)
    const changed = origins.slice(150).map(origin => index.unchanged({ count, indexes: scopeOf(origin, count) }, 20))
    expect(changed).not.toContain(undefined)
    if (count === 1024) expect(left?.indexes.size).toBeGreaterThan(900)
  }
})

function scopeOf(origin: string, count: number): Set<number> {
  const all = Array.from({ length: count }, (_, i) => i)
  return new Set(all.filter(index => isInScope(origin, { count, indexes: new Set([index]) })))
}
