import { describe, expect, test } from 'vitest'
import { chooseLinks, LINK_CHOICE_DEFAULTS, type LinkPeer } from './link-choice.ts'

const NONE = new Set<string>()
const peers = (count: number): LinkPeer[] =>
  Array.from({ length: count }, (_, i) => ({ node: `n${String(i).padStart(4, '0')}`, rttMs: i, calls: 0 }))

describe('which links to keep', () => {
  test('a small mesh is a full one', () => {
    expect(chooseLinks('n0000', peers(64), NONE).size).toBe(63)
  })

  test('a large one keeps the nearest and as many others at random, never itself', () => {
    const chosen = chooseLinks('n0500', peers(1000), NONE)
    expect(chosen.size).toBeLessThanOrEqual(LINK_CHOICE_DEFAULTS.nearest + LINK_CHOICE_DEFAULTS.random)
    for (let i = 0; i < LINK_CHOICE_DEFAULTS.nearest; i++) expect(chosen).toContain(`n000${i}`)
    expect(chosen).not.toContain('n0500')
  })

  test('the links of a thousand nodes reach everyone, also when a tenth of the nodes is gone', () => {
    const all = peers(1000)
    const links = new Map(all.map(({ node }) => [node, new Set<string>()]))
    for (const { node } of all) {
      // Everyone sees distances of its own, in clusters of 30 as datacenters are.
      const seen = all.map((peer, i) => ({
        ...peer,
        rttMs: Math.floor(i / 30) === Math.floor(Number(node.slice(1)) / 30) ? 1 : 100,
      }))
      for (const other of chooseLinks(node, seen, NONE)) {
        links.get(node)?.add(other)
        links.get(other)?.add(node)
      }
    }
    for (let i = 0; i < 100; i++) links.delete(`n${String(i * 10).padStart(4, '0')}`)
    const reached = new Set(['n0001'])
    for (const node of reached) for (const other of links.get(node) ?? []) if (links.has(other)) reached.add(other)
    expect(reached.size).toBe(900)
  })

  test('noise does not tear a link down: another must be nearer by a quarter', () => {
    const near = (rttMs: number): LinkPeer[] => [
      ...peers(200).map(p => ({ ...p, rttMs: 50 + (p.rttMs ?? 0) })),
      { node: 'x', rttMs, calls: 0 },
    ]
    const before = chooseLinks('me', near(10), NONE)
    expect(before).toContain('x')
    expect(chooseLinks('me', near(58), before)).toContain('x')
    expect(chooseLinks('me', near(400), before)).not.toContain('x')
  })

  test('a node that is called often gets a link of its own', () => {
    const busy = peers(1000).map(peer => (peer.node === 'n0777' ? { ...peer, calls: 9 } : peer))
    expect(chooseLinks('n0001', busy, NONE)).toContain('n0777')
  })
})
