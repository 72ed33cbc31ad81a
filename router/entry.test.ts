import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  decodeLinkInfo,
  decodeNodeInfo,
  decodeServiceInfo,
  encodeLinkInfo,
  encodeNodeInfo,
  encodeServiceInfo,
  entryKind,
  linkKey,
  NODE_KEY,
  saidBy,
  serviceKey,
} from './entry.ts'
import type { NodeInfo, ServiceInfo } from './model.ts'
import { decodeMsgpack, encodeMsgpack } from './msgpack.ts'

const NODE: NodeInfo = {
  ...{ name: 'a', region: 'aws-us-east-1', version: '1.0.0', state: 'up' },
  ...{ overlay: ['/ip4/1.2.3.4/tcp/1'], calls: ['1.2.3.4:2'] },
}
const SERVICE: ServiceInfo = { protocol: 'tcp', instances: 3, healthy: 2, weight: 20, labels: { version: 'v1' } }

/** What arrives at the other end. */
function carried(value: unknown): unknown {
  const decoded = decodeMsgpack(encodeMsgpack(value))
  return decoded.ok ? decoded.value : undefined
}

describe('entries', () => {
  test('values arrive as they were sent', () => {
    expect(decodeNodeInfo(carried(encodeNodeInfo(NODE)))).toEqual(NODE)
    expect(decodeNodeInfo(carried(encodeNodeInfo({ ...NODE, state: 'draining' })))?.state).toBe('draining')
    expect(decodeNodeInfo(carried(encodeNodeInfo({ ...NODE, relays: false })))).toEqual({ ...NODE, relays: false })
    expect(decodeServiceInfo(carried(encodeServiceInfo(SERVICE)))).toEqual(SERVICE)
    const plain: ServiceInfo = { ...SERVICE, protocol: 'http', labels: {} }
    expect(decodeServiceInfo(carried(encodeServiceInfo(plain)))).toEqual(plain)
    expect(decodeLinkInfo(carried(encodeLinkInfo({ rttMs: 12.34, lossRatio: 0.0625 })))).toEqual({
      rttMs: 12.3,
      lossRatio: 0.063,
    })
  })

  test('only a plain yes makes a node one that passes no calls on: whatever else a later version says is ignored', () => {
    const value = encodeNodeInfo(NODE)
    expect(value).not.toHaveProperty('x')
    for (const x of [false, 0, 1, 'true', null, {}]) {
      expect(decodeNodeInfo({ ...(value as object), x })).toEqual(NODE)
    }
  })

  test('keys a later version adds to a value are ignored', () => {
    expect(decodeServiceInfo({ i: 1, h: 1, w: 1, zone: 'x', q: [1] })).toEqual({
      ...{ protocol: 'http', instances: 1, healthy: 1, weight: 1, labels: {} },
    })
    expect(decodeLinkInfo({ r: 10, l: 0, later: true })).toEqual({ rttMs: 1, lossRatio: 0 })
  })

  test.each([
    [NODE_KEY, { kind: 'node' }],
    [serviceKey('orders'), { kind: 'service', name: 'orders' }],
    [linkKey('12D3'), { kind: 'link', toTail: '12D3' }],
    [linkKey('12D3KooWK99VoVxNE7XzyBwXEzW7'), { kind: 'link', toTail: 'VxNE7XzyBwXEzW7'.padStart(16, 'o') }],
    ['service/', undefined],
    ['service/Orders', undefined],
    ['service/-orders', undefined],
    [`service/${'x'.repeat(64)}`, undefined],
    ['link/', undefined],
    ['nodes', undefined],
    ['zone/later', undefined],
    ['__proto__', undefined],
  ])('the kind of key %s is read, or it is of a later version', (key, kind) => {
    expect(entryKind(key)).toEqual(kind)
  })

  test.each([
    ['more healthy than there are', { i: 1, h: 2, w: 1 }],
    ['a negative count', { i: -1, h: 0, w: 0 }],
    ['a fraction', { i: 1.5, h: 1, w: 1 }],
    ['a capacity beyond all sense', { i: 1, h: 1, w: 1e12 }],
    ['not a number', { i: Number.NaN, h: 0, w: 0 }],
    ['a protocol nobody speaks', { i: 1, h: 1, w: 1, p: 'smtp' }],
    ['a label that is a number', { i: 1, h: 1, w: 1, l: { a: 1 } }],
    ['a label too long', { i: 1, h: 1, w: 1, l: { a: 'x'.repeat(257) } }],
    ['too many labels', { i: 1, h: 1, w: 1, l: Object.fromEntries([...Array(33).keys()].map(i => [`l${i}`, ''])) }],
    ['a list', []],
    ['bytes', new Uint8Array(3)],
    ['nothing', undefined],
  ])('a service that makes no sense counts as absent: %s', (_, value) => {
    expect(decodeServiceInfo(value)).toBeUndefined()
  })

  test.each([
    ['no name', { ...(encodeNodeInfo(NODE) as object), n: undefined }],
    ['a name too long', { ...(encodeNodeInfo(NODE) as object), n: 'x'.repeat(257) }],
    ['too many addresses', { ...(encodeNodeInfo(NODE) as object), c: Array(17).fill('h:1') }],
    ['an address that is a number', { ...(encodeNodeInfo(NODE) as object), o: [1] }],
    ['text', 'node'],
  ])('a node that makes no sense counts as absent: %s', (_, value) => {
    expect(decodeNodeInfo(value)).toBeUndefined()
  })

  test.each([
    ['a negative round trip', { r: -1, l: 0 }],
    ['ten hours and more', { r: 36_000_001, l: 0 }],
    ['more than everything lost', { r: 1, l: 1001 }],
    ['NaN', { r: Number.NaN, l: 0 }],
    ['text', { r: '1', l: 0 }],
  ])('a link that makes no sense counts as absent: %s', (_, value) => {
    expect(decodeLinkInfo(value)).toBeUndefined()
  })

  test('no value makes a decoder throw', () => {
    fc.assert(
      fc.property(fc.anything({ withBigInt: true, withTypedArray: true, withNullPrototype: true }), value => {
        for (const decode of [decodeNodeInfo, decodeServiceInfo, decodeLinkInfo]) {
          const info = decode(value)
          if (info !== undefined) expect(typeof info).toBe('object')
        }
      }),
      { numRuns: 1000 },
    )
  })
})

test('an entry is read once, and services that say the same share what they say', () => {
  const [a, b] = ['orders', 'billing'].map(name => ({ key: serviceKey(name), value: encodeServiceInfo(SERVICE) }))
  if (a === undefined || b === undefined) throw new Error('two entries')
  const said = saidBy(a)
  expect(said).toEqual({ kind: 'service', name: 'orders', info: SERVICE })
  expect(saidBy(a)).toBe(said)
  const other = saidBy(b)
  expect(said.kind === 'service' && other.kind === 'service' && said.info === other.info).toBe(true)
})

test.each([
  ['an unknown kind', 'weather/today', 1, { kind: 'unknown' }],
  ['a tombstone', 'service/orders', undefined, { kind: 'service', name: 'orders', info: undefined }],
  ['a value that cannot be read', 'service/orders', 'rubbish', { kind: 'service', name: 'orders', info: undefined }],
  ['a link that is gone', 'link/abc', undefined, { kind: 'link', toTail: 'abc', link: undefined }],
])('%s says as much', (_, key, value, said) => {
  expect(saidBy({ key, value })).toEqual(said)
})
