import { describe, expect, it } from 'vitest'
import { LinkChooser, type LinkChooserOptions } from './link-chooser.ts'

const nodes = (count: number): string[] => Array.from({ length: count }, (_, i) => `n${i}`)

function chooser(
  count: number,
  options: Partial<LinkChooserOptions> = {},
  given: { links?: number; table?: number } = {},
) {
  const told: (ReadonlySet<string> | undefined)[] = []
  const made = new LinkChooser(
    {
      self: 'n0',
      known: () => nodes(count),
      inTable: () => given.table ?? count - 1,
      rttMs: node => Number(node.slice(1)),
      linkCount: () => given.links ?? 1,
      choose: wanted => told.push(wanted),
      random: () => 0.5,
    },
    { fullMeshMax: 4, nearest: 2, random: 2, called: 1, ...options },
  )
  return { made, told }
}

describe('the choice of links', () => {
  it('is everyone in a small mesh, and a few in a large one', () => {
    const small = chooser(4)
    small.made.choose()
    expect(small.told).toEqual([undefined])
    const large = chooser(100)
    large.made.choose()
    const [wanted] = large.told
    expect(wanted?.size).toBeLessThanOrEqual(4)
    expect([...(wanted ?? [])]).toEqual(expect.arrayContaining(['n1', 'n2']))
    expect(wanted?.has('n0')).toBe(false)
  })

  it('is not made sparse by the dead of earlier lives once the table says who there is', () => {
    const { made, told } = chooser(100, {}, { table: 2 })
    made.choose()
    expect(told).toEqual([undefined])
    const fresh = chooser(100, {}, { table: 0 })
    fresh.made.choose()
    expect(fresh.told[0]?.size).toBeLessThanOrEqual(4)
  })

  it('follows the calls', () => {
    const { made, told } = chooser(100)
    for (let i = 0; i < 3; i++) made.onCall('n77')
    made.onCall('n78')
    made.choose()
    expect(told[0]?.has('n77')).toBe(true)
  })

  it('tries others, at random, while it has no link at all', () => {
    const { made, told } = chooser(100, {}, { links: 0 })
    made.choose()
    expect(told[0]?.size).toBeGreaterThan(5)
    expect(told[0]?.size).toBeLessThanOrEqual(4 + 8)
    const few = chooser(6, {}, { links: 0 })
    few.made.choose()
    expect(few.told[0]?.size).toBe(5)
  })
})
