import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decodeRoute, encodeRoute, routeFault } from './route.ts'

const [a, b, c, d, e, f] = ['12D3KooWa', '12D3KooWb', '12D3KooWc', '12D3KooWd', '12D3KooWe', '12D3KooWf'] as const

describe('the route of a relayed stream', () => {
  it.each([[[a, b, c]], [[a, b, c, d]], [[a, b, c, d, e]]])('reads what it wrote', nodes => {
    expect(decodeRoute(encodeRoute({ nodes, at: 2 }))).toEqual({ nodes, at: 2 })
  })

  it.each([
    ['no relay at all', encodeRoute({ nodes: [a, b], at: 1 })],
    ['a fourth relay', encodeRoute({ nodes: [a, b, c, d, e, f], at: 1 })],
    ['nothing', Buffer.alloc(0)],
    ['bytes after its end', Buffer.concat([encodeRoute({ nodes: [a, b, c], at: 1 }), Buffer.from([0])])],
    ['an end before its end', encodeRoute({ nodes: [a, b, c], at: 1 }).subarray(0, -1)],
    ['other characters than those of an id', encodeRoute({ nodes: [a, 'b b', c], at: 1 })],
    ['an empty id', encodeRoute({ nodes: [a, '', c], at: 1 })],
  ])('refuses %s', (_what, payload) => {
    expect(decodeRoute(payload)).toBeTypeOf('string')
  })

  it('never throws, whatever the bytes, and what it reads is what would be written', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 700 }), bytes => {
        const payload = Buffer.from(bytes)
        const route = decodeRoute(payload)
        if (typeof route !== 'string') expect(encodeRoute(route)).toEqual(payload)
      }),
      { seed: 1, numRuns: 20_000 },
    )
    const good = encodeRoute({ nodes: [a, b, c, d], at: 1 })
    fc.assert(
      fc.property(fc.nat(good.length - 1), fc.nat(255), (at, byte) => {
        const payload = Buffer.from(good)
        payload[at] = byte
        const route = decodeRoute(payload)
        if (typeof route !== 'string') expect(encodeRoute(route)).toEqual(payload)
      }),
      { seed: 2, numRuns: 20_000 },
    )
  })

  it('is taken only by the node whose turn it is, from the node before it, and passes no node twice', () => {
    expect(routeFault({ nodes: [a, b, c], at: 1 }, b, a)).toBeUndefined()
    expect(routeFault({ nodes: [a, b, c], at: 2 }, c, b)).toBeUndefined()
    expect(routeFault({ nodes: [a, b, c], at: 1 }, c, a)).toContain('this node')
    expect(routeFault({ nodes: [a, b, c], at: 0 }, a, c)).toContain('this node')
    expect(routeFault({ nodes: [a, b, c], at: 3 }, b, a)).toContain('this node')
    expect(routeFault({ nodes: [a, b, c], at: 1 }, b, d)).toContain('sender')
    expect(routeFault({ nodes: [a, b, c, a], at: 1 }, b, a)).toContain('twice')
    expect(routeFault({ nodes: [a, b, c, b], at: 1 }, b, a)).toContain('twice')
  })
})
