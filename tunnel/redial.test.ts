import { expect, test } from 'vitest'
import { Redial } from './redial.ts'

const delays = (redial: Redial, count: number, random: number): number[] =>
  Array.from({ length: count }, () => redial.onFailure(random))

test('waits grow to a cap and stay there for ever: a node that is gone for a week is still dialled', () => {
  const waits = delays(new Redial(), 1000, 0.999_999)
  expect(waits.slice(0, 3).map(Math.round)).toEqual([250, 425, 722])
  expect(waits).toEqual([...waits].sort((a, b) => a - b))
  expect(Math.round(waits.at(-1) ?? 0)).toBe(5000)
})

test('jitter takes away up to half, so that a mesh does not dial in step', () => {
  const [low, high] = [delays(new Redial(), 20, 0), delays(new Redial(), 20, 0.999_999)]
  for (const [i, wait] of low.entries()) expect(wait / (high[i] ?? 0)).toBeCloseTo(0.5, 3)
})

test('success begins anew', () => {
  const redial = new Redial()
  delays(redial, 10, 0)
  expect(redial.failures).toBe(10)
  redial.onSuccess()
  expect([redial.failures, redial.onFailure(0)]).toEqual([0, 125])
})
