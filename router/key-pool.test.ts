import { expect, test } from 'vitest'
import { KeyPool } from './key-pool.ts'

test('equal keys become one, and a peer that invents keys for ever does not fill the memory', () => {
  const pool = new KeyPool()
  expect(pool.share('service/orders')).toBe('service/orders')
  for (let i = 0; i < 250_000; i++) pool.share(`service/made-up-${i}`)
  expect(pool.size).toBeLessThanOrEqual(100_000)
  expect(pool.share('service/made-up-1')).toBe('service/made-up-1')
})
