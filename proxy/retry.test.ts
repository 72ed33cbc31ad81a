import { expect, test } from 'vitest'
import { isIdempotent, mayRetry } from './retry.ts'

const FRESH = { answered: false, bodyReplayable: true }

test.each([
  ['GET', true],
  ['HEAD', true],
  ['OPTIONS', true],
  ['TRACE', true],
  ['PUT', true],
  ['DELETE', true],
  ['POST', false],
  ['PATCH', false],
  ['CONNECT', false],
  ['get', false],
  ['BREW', false],
])('%s may be done twice without harm: %s', (method, expected) => {
  expect(isIdempotent(method)).toBe(expected)
})

test('a call that cannot have been executed goes elsewhere, whatever its method', () => {
  expect(mayRetry('POST', { code: 'instance-refused', unexecuted: true }, FRESH)).toBe(true)
})

test('a call that may have been executed goes elsewhere only if doing it twice does no harm', () => {
  expect(mayRetry('POST', { code: 'link-lost', unexecuted: false }, FRESH)).toBe(false)
  expect(mayRetry('PUT', { code: 'link-lost', unexecuted: false }, FRESH)).toBe(true)
})

test('nothing is sent twice after an answer began, or when its body is no longer there', () => {
  const reset = { code: 'instance-refused', unexecuted: true } as const
  expect(mayRetry('GET', reset, { answered: true, bodyReplayable: true })).toBe(false)
  expect(mayRetry('GET', reset, { answered: false, bodyReplayable: false })).toBe(false)
})

test.each([
  'bad-request',
  'head-too-large',
  'deadline',
  'cancelled',
  'loop',
  'request-timeout',
] as const)('%s says nothing about another place, so it ends the call', code => {
  expect(mayRetry('GET', { code, unexecuted: true }, FRESH)).toBe(false)
})
