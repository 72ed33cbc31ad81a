import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { LinkPolicyOptions, StandingLink } from '../router/link-policy.ts'
import { LinkChooser } from './link-chooser.ts'

const nodes = (count: number): string[] => Array.from({ length: count }, (_, i) => `n${i}`)
const UP: StandingLink = { node: 'n1', dialled: true, isInUse: false }

function chooser(
  count: number,
  options: Partial<LinkPolicyOptions> = {},
  given: { links?: StandingLink[]; table?: number } = {},
) {
  const world = { known: nodes(count), table: given.table ?? count - 1, links: given.links ?? [UP] }
  const told: (ReadonlySet<string> | undefined)[] = []
  const left: string[] = []
  const made = new LinkChooser(
    {
      self: 'n0',
      known: () => world.known,
      inTable: () => world.table,
      nearest: () => ({ get: node => Number(node.slice(1)) }),
      links: () => world.links,
      choose: wanted => told.push(wanted),
      leave: node => left.push(node),
      nowMs: () => performance.now(),
      random: () => 0.5,
    },
    { fullMeshMax: 4, nearest: 2, random: 2, called: 1, ...options },
  )
  /** As many nodes are known from now on, and the last of them is new. */
  const grow = (known: number): void => {
    made.onNews()
    world.known = nodes(known)
    world.table = known - 1
  }
  return { made, told, left, world, grow }
}

describe('the choice of links', () => {
  it('is everyone in a small mesh, and a few in a large one', () => {
    const small = chooser(4)
    small.made.choose('start')
    expect(small.told).toEqual([undefined])
    const large = chooser(100)
    large.made.choose('start')
    const [wanted] = large.told
    expect(wanted?.size).toBeLessThanOrEqual(4)
    expect([...(wanted ?? [])]).toEqual(expect.arrayContaining(['n1', 'n2']))
    expect(wanted?.has('n0')).toBe(false)
  })

  it('is not made sparse by the dead of earlier lives once the table says who there is', () => {
    const { made, told } = chooser(100, {}, { table: 2 })
    made.choose('start')
    expect(told).toEqual([undefined])
    const fresh = chooser(100, {}, { table: 0 })
    fresh.made.choose('start')
    expect(fresh.told[0]?.size).toBeLessThanOrEqual(4)
  })

  it('follows the calls', () => {
    const { made, told } = chooser(100)
    for (let i = 0; i < 3; i++) made.onCall('n77')
    made.onCall('n78')
    made.choose('start')
    expect(told[0]?.has('n77')).toBe(true)
  })

  it('tries others, at random, while it has no link at all', () => {
    const { made, told } = chooser(100, {}, { links: [] })
    made.choose('start')
    expect(told[0]?.size).toBeGreaterThan(5)
    expect(told[0]?.size).toBeLessThanOrEqual(4 + 8)
    const few = chooser(6, {}, { links: [] })
    few.made.choose('start')
    expect(few.told[0]?.size).toBe(5)
  })
})

describe('over time', () => {
  beforeEach(() => void vi.useFakeTimers())
  afterEach(() => void vi.useRealTimers())

  it('newcomers of a small mesh are dialled as they become known', () => {
    const { made, told, grow } = chooser(3)
    made.start()
    grow(4)
    vi.advanceTimersByTime(1000)
    expect(told).toEqual([undefined, undefined])
    made.stop()
  })

  it('many newcomers are not all dialled before it is clear how many they are', () => {
    const { made, told, grow } = chooser(7, { fullMeshMax: 64 })
    made.start()
    expect(told).toEqual([undefined])
    // Held at once, before the overlay learns of the first of them: no more than were known then.
    grow(8)
    expect(told.at(-1)).toEqual(new Set(nodes(7).slice(1)))
    for (let known = 9; known <= 30; known++) grow(known)
    expect(told).toHaveLength(2)
    vi.advanceTimersByTime(250)
    expect(told).toHaveLength(3)
    // Those that it had are kept meanwhile, and no others made.
    expect(told.at(-1)).toEqual(new Set(nodes(7).slice(1)))
    // They were thirty: no more have come for two seconds.
    vi.advanceTimersByTime(1999)
    expect(told).toHaveLength(3)
    vi.advanceTimersByTime(1)
    expect([told.length, told.at(-1)]).toEqual([4, undefined])
    made.stop()
  })

  it('a thousand newcomers are never all dialled', () => {
    const { made, told, grow } = chooser(7, { fullMeshMax: 64 })
    made.start()
    for (let known = 8; known <= 1000; known++) {
      grow(known)
      if (known % 20 === 0) vi.advanceTimersByTime(10)
    }
    vi.advanceTimersByTime(10_000)
    expect(told.slice(1).every(wanted => (wanted?.size ?? 1000) <= 7)).toBe(true)
    made.stop()
  })

  it('a link that was not wanted for a quarter of a minute is left, unless it is in use or newer than that', () => {
    const links = ['n50', 'n60', 'n70', 'n80'].map(node => ({ ...UP, node, dialled: node !== 'n60' }))
    const { made, left, world } = chooser(100, {}, { links })
    world.links = links.map(link => ({ ...link, isInUse: link.node === 'n70' }))
    made.start()
    vi.advanceTimersByTime(10_000)
    made.onLinkUp('n80')
    vi.advanceTimersByTime(4999)
    expect(left).toEqual([])
    vi.advanceTimersByTime(1)
    expect(left).toEqual(['n50'])
    world.links = links.filter(({ node }) => node !== 'n50')
    vi.advanceTimersByTime(15_000)
    expect(new Set(left)).toEqual(new Set(['n50', 'n70', 'n80']))
    made.stop()
  })

  it('is nothing any more once it is stopped', () => {
    const { made, told, grow } = chooser(3)
    made.start()
    grow(4)
    made.stop()
    grow(5)
    vi.advanceTimersByTime(60_000)
    expect(told).toEqual([undefined])
  })
})
