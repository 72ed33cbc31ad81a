import { expect, test } from 'vitest'
import { decodeSpan, formatBytes, formatMs, formatPercent, formatSpan } from './quantity.ts'

test.each([
  ['500ms', 500],
  ['90s', 90_000],
  ['15m', 900_000],
  ['2h', 7_200_000],
  ['7d', 604_800_000],
])('%s is read as %d ms', (text, ms) => {
  expect(decodeSpan(text)).toBe(ms)
})

test.each(['', '15', 'm', '1.5h', '-5m', '15 m', '15min', '1e3s', '9999999999s'])('%j is no span', text => {
  expect(decodeSpan(text)).toBeUndefined()
})

test.each([
  [-5, '0s'],
  [119_999, '119s'],
  [120_000, '2m'],
  [7_200_000, '2h'],
  [172_800_000, '2d'],
])('%d ms is told as %s', (ms, text) => {
  expect(formatSpan(ms)).toBe(text)
})

test('figures have as many decimals as one can use', () => {
  expect([null, 0.4567, 9.84, 147.3].map(formatMs)).toEqual(['-', '0.46', '9.8', '147'])
  expect([0, 0.004, 0.125].map(formatPercent)).toEqual(['0', '0.4', '13'])
  expect([40_000, 82_400_000].map(formatBytes)).toEqual(['40 kB', '82 MB'])
})
