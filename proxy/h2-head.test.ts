import { expect, test } from 'vitest'
import { readH2Trailers } from './h2-head.ts'
import { HpackField } from './hpack-table.ts'
import { Http1Fault } from './http1-fault.ts'

const own = new HpackField('x-own', 'mine')

test.each([
  'host',
  'cookie',
  'te',
  'content-length',
  'x-forwarded-for',
  'x-flatmesh-error',
  'authorization',
])('%s in trailers is left out of an answer, and a fault in a request', name => {
  const fields = [new HpackField(name, 'trailers'), own]
  expect(readH2Trailers(fields, 'bad-answer').toString()).toBe('x-own: mine\r\n')
  expect(readH2Trailers(fields, 'bad-request')).toMatchObject({ code: 'bad-request' })
})

test.each([':status', ':path', 'connection', 'X-Upper', 'a b'])('%j in trailers is a fault in either', name => {
  for (const code of ['bad-answer', 'bad-request'] as const) {
    expect(readH2Trailers([own, new HpackField(name, '200')], code)).toBeInstanceOf(Http1Fault)
  }
})
