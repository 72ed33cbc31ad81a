import { expect, test } from 'vitest'
import { isServiceName } from './model.ts'

test('what can name a service is told each time anew, whatever was asked before', () => {
  const asked = ['', 'orders', '', 'orders', 'Orders', 'orders', 'a-1', '-a', 'x'.repeat(63), 'x'.repeat(64), 'a-1']
  expect(asked.filter(isServiceName)).toEqual(['orders', 'orders', 'orders', 'a-1', 'x'.repeat(63), 'a-1'])
})
