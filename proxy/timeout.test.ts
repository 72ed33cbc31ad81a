import { expect, test } from 'vitest'
import { chooseTimeoutMs } from './timeout.ts'

test.each([
  [undefined, 30_000],
  ['1500ms', 1500],
  ['2s', 2000],
  ['1m', 60_000],
  ['250', 250],
  ['1', 1],
  ['1440m', 86_400_000],
])('%s gives %s ms', (field, ms) => {
  expect(chooseTimeoutMs(field, 30_000)).toBe(ms)
})

test.each([
  '',
  '0',
  '0s',
  '-1',
  '1.5s',
  '1h',
  ' 1s',
  '1s ',
  '1e3',
  '1441m',
  '9999999999',
  'soon',
  '0x10',
  '1S',
])('"%s" is refused instead of guessed at', field => {
  expect(chooseTimeoutMs(field, 30_000)).toBeUndefined()
})
