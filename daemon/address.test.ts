import fc from 'fast-check'
import { expect, test } from 'vitest'
import {
  decodeAdminAddress,
  decodeHostPort,
  formatAdminAddress,
  formatHostPort,
  isHost,
  isLoopback,
  isOverlayMultiaddr,
  isWildcard,
  toMultiaddr,
} from './address.ts'

test.each([
  '127.0.0.1:80',
  '[::1]:0',
  '[2001:db8::1]:65535',
  'db.internal:5432',
  'my_host:1',
  'a.example.com.:1',
])('%s is an address and comes back as it was', text => {
  const address = decodeHostPort(text)
  expect(address && formatHostPort(address)).toBe(text)
})

test.each([
  '',
  '80',
  ':80',
  '::1:80',
  '[::1]',
  '[127.0.0.1]:80',
  'a:65536',
  'a:-1',
  'a b:1',
  '1.2.3.400:80',
  '1.2.3:80',
  'a:1:2',
  '[fe80::1%eth0]:80',
  '-a:1',
  'a:١',
])('%j is no address', text => {
  expect(decodeHostPort(text)).toBeUndefined()
})

test('only addresses that stay on this machine count as loopback', () => {
  for (const host of ['127.0.0.1', '127.9.9.9', '::1', '0:0:0:0:0:0:0:1', 'localhost', 'LOCALHOST']) {
    expect(isLoopback(host), host).toBe(true)
  }
  for (const host of ['0.0.0.0', '::', '128.0.0.1', '10.0.0.1', 'localhost.evil.example', '127.0.0.1.nip.io']) {
    expect(isLoopback(host), host).toBe(false)
  }
})

test('every spelling of "all addresses" is a wildcard, and nothing else', () => {
  expect(['0.0.0.0', '::', '0:0:0:0:0:0:0:0'].map(isWildcard)).toEqual([true, true, true])
  expect(['0.0.0.1', '::1', 'localhost'].map(isWildcard)).toEqual([false, false, false])
})

test.each([
  '/ip4/198.51.100.4/tcp/4700',
  '/ip6/2001:db8::1/tcp/1',
  '/dns4/a.example.com/tcp/65535',
  '/ip4/10.0.0.1/tcp/4700/p2p/12D3KooWAzSrJrsgigeyk85NXMrg2BfczU6SJVi4JWtawmUzCm6w',
])('%s can be dialled by the overlay', text => {
  expect(isOverlayMultiaddr(text)).toBe(true)
})

test.each([
  '',
  '198.51.100.4:4700',
  '/ip4/198.51.100.4/udp/4700',
  '/ip4/198.51.100.4/tcp/0',
  '/ip4/198.51.100.4/tcp/65536',
  '/ip4/::1/tcp/1',
  '/ip6/127.0.0.1/tcp/1',
  '/ip4/1.2.3.4/tcp/1/ws',
  '/ip4/1.2.3.4/tcp/1/p2p/short',
])('%j cannot', text => {
  expect(isOverlayMultiaddr(text)).toBe(false)
})

test('an address becomes the multiaddr of its kind', () => {
  expect(toMultiaddr({ host: '10.0.0.1', port: 1 })).toBe('/ip4/10.0.0.1/tcp/1')
  expect(toMultiaddr({ host: '::1', port: 1 })).toBe('/ip6/::1/tcp/1')
  expect(toMultiaddr({ host: 'a.example', port: 1 })).toBe('/dns/a.example/tcp/1')
})

test('an admin address may be a unix socket', () => {
  const address = decodeAdminAddress('unix:/run/f.sock')
  expect(address).toEqual({ socketPath: '/run/f.sock' })
  expect(address && formatAdminAddress(address)).toBe('unix:/run/f.sock')
  expect(decodeAdminAddress('unix:')).toBeUndefined()
  expect(decodeAdminAddress('unix:a\0b')).toBeUndefined()
})

test('no text makes a decoder throw, and what is accepted comes back as it was', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.ipV4(), fc.ipV6(), fc.domain()), fc.nat(70_000), (host, port) => {
      for (const text of [host, `${host}:${port}`, `[${host}]:${port}`]) {
        const address = decodeHostPort(text)
        if (address !== undefined) {
          expect(decodeHostPort(formatHostPort(address))).toEqual(address)
          expect(isHost(address.host)).toBe(true)
          expect(isOverlayMultiaddr(toMultiaddr({ ...address, port: 1 }))).toBe(true)
        }
        isOverlayMultiaddr(text)
      }
    }),
    { numRuns: 500 },
  )
})
