import { networkInterfaces } from 'node:os'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { callAddresses, dialableHosts, overlayAddresses } from './addresses.ts'

vi.mock('node:os', async original => ({ ...(await original<typeof import('node:os')>()), networkInterfaces: vi.fn() }))
afterEach(() => vi.mocked(networkInterfaces).mockReset())

const face = (
  address: string,
  internal = false,
): NonNullable<ReturnType<typeof networkInterfaces>[string]>[number] => ({
  ...{ address, internal, netmask: '', mac: '', cidr: null },
  ...(address.includes(':') ? { family: 'IPv6', scopeid: 0 } : { family: 'IPv4' }),
})

describe('addresses others are told', () => {
  test('those the operator gave are stronger than anything found out', () => {
    expect(dialableHosts('0.0.0.0', ['203.0.113.7', 'node.example'])).toEqual(['203.0.113.7', 'node.example'])
    expect(dialableHosts('10.0.0.1', ['203.0.113.7'])).toEqual(['203.0.113.7'])
  })

  test('one address listened on is the one to dial', () => {
    expect(dialableHosts('10.0.0.1', [])).toEqual(['10.0.0.1'])
    expect(dialableHosts('127.0.0.1', [])).toEqual(['127.0.0.1'])
  })

  test('all addresses listened on are those of the machine that others can reach', () => {
    vi.mocked(networkInterfaces).mockReturnValue({
      lo: [face('127.0.0.1', true), face('::1', true)],
      eth0: [face('10.0.0.5'), face('fe80::1'), face('2001:db8::5')],
    })
    expect(dialableHosts('0.0.0.0', [])).toEqual(['10.0.0.5', '2001:db8::5'])
    expect(dialableHosts('::', [])).toEqual(['10.0.0.5', '2001:db8::5'])
  })

  test('a machine with nothing but its loopback can still have a mesh on it', () => {
    vi.mocked(networkInterfaces).mockReturnValue({ lo: [face('127.0.0.1', true)] })
    expect(dialableHosts('0.0.0.0', [])).toEqual(['127.0.0.1'])
  })

  test('each is written as its protocol wants it', () => {
    const given = ['203.0.113.7', '2001:db8::5', 'node.example']
    expect(overlayAddresses({ host: '0.0.0.0', port: 4700 }, given)).toEqual([
      '/ip4/203.0.113.7/tcp/4700',
      '/ip6/2001:db8::5/tcp/4700',
      '/dns/node.example/tcp/4700',
    ])
    expect(callAddresses({ host: '0.0.0.0', port: 4701 }, given)).toEqual([
      '203.0.113.7:4701',
      '[2001:db8::5]:4701',
      'node.example:4701',
    ])
  })
})
