import { expect, test } from 'vitest'
import { type RequestHead, readRequestHead } from './http1-head.ts'
import { HTTP1_LIMITS } from './http1-limits.ts'
import { serviceOf } from './service-name.ts'

function head(host: string, more = ''): RequestHead {
  const bytes = Buffer.from(`GET / HTTP/1.1\r\nHost: ${host}\r\n${more}\r\n`)
  const read = readRequestHead(bytes, 0, bytes.length, HTTP1_LIMITS)
  if (read === undefined || 'reason' in read) throw new Error(`not a request: ${read?.reason}`)
  return read
}

test.each([
  ['orders.mesh', 'orders'],
  ['orders', 'orders'],
  ['orders.mesh:4780', 'orders'],
  ['ORDERS.Mesh', 'orders'],
  ['a-1.mesh', 'a-1'],
  [`${'x'.repeat(63)}.mesh`, 'x'.repeat(63)],
  ['orders.mesh.mesh', undefined],
  ['orders.example.com', undefined],
  ['.mesh', undefined],
  ['-orders.mesh', undefined],
  [`${'x'.repeat(64)}.mesh`, undefined],
  ['127.0.0.1:4780', undefined],
  ['[::1]:4780', undefined],
])('the host %s names the service %s', (host, service) => {
  expect(serviceOf(head(host))).toBe(service)
})

test('the field x-flatmesh-service is stronger than the host', () => {
  expect(serviceOf(head('127.0.0.1', 'X-Flatmesh-Service: billing\r\n'))).toBe('billing')
  expect(serviceOf(head('orders.mesh', 'x-flatmesh-service: billing\r\n'))).toBe('billing')
})

test('a field that names nothing does not fall back to the host: it was meant', () => {
  expect(serviceOf(head('orders.mesh', 'x-flatmesh-service: Not A Name\r\n'))).toBeUndefined()
})
