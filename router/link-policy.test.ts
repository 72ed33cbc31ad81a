import { describe, expect, test } from 'vitest'
import { LINK_NEWS_MS_MAX } from './advertiser.ts'
import { LINK_POLICY_DEFAULTS, LinkPolicy, type LinkPolicyOptions, type Surroundings } from './link-policy.ts'
import type { NodeId } from './model.ts'

const nodes = (count: number): NodeId[] => Array.from({ length: count }, (_, i) => `n${i + 1}`)
const link = (node: NodeId, over: { dialled?: boolean; isInUse?: boolean } = {}) => {
  return { node, dialled: true, isInUse: false, ...over }
}

/** A node `n0` among `n1`, `n2` … whose distance is their number; it has a link to `n1`. */
function seen(count: number, over: Partial<Surroundings> = {}): Surroundings {
  return {
    known: nodes(count),
    count,
    links: [link('n1')],
    nearest: () => ({ get: node => Number(node.slice(1)) }),
    ...over,
  }
}

function policyOf(options: Partial<LinkPolicyOptions> = {}): LinkPolicy {
  const few = { fullMeshMax: 20, nearest: 2, random: 2, called: 1, ...options }
  return new LinkPolicy({ self: 'n0', random: () => 0.5 }, few)
}

describe('to whom a node links', () => {
  test('is everyone in a small mesh, and a few in a large one', () => {
    const small = policyOf().choose(seen(19), 0, 'start')
    expect([small.wanted.size, small.isAll, small.isSparse, small.leave, small.againAtMs]).toEqual([
      ...[19, true, false, [], undefined],
    ])
    const large = policyOf().choose(seen(20), 0, 'start')
    expect([large.isAll, large.isSparse]).toEqual([false, true])
    expect(large.wanted.size).toBeLessThanOrEqual(4)
    expect([...large.wanted]).toEqual(expect.arrayContaining(['n1', 'n2']))
  })

  test('is fewer of the nearest among very many, and as many others: paths must reach everyone', () => {
    const options = { nearest: 4, nearestOfMany: 2, random: 3, called: 0, manyNodes: 50 }
    const wanted = (count: number) => policyOf(options).choose(seen(count), 0, 'start').wanted
    expect([...wanted(50)]).toEqual(expect.arrayContaining(['n1', 'n2', 'n3', 'n4']))
    const ofMany = [...wanted(51)]
    expect(ofMany.slice(0, 2).sort()).toEqual(['n1', 'n2'])
    expect(ofMany.length).toBeGreaterThanOrEqual(3)
    expect(ofMany.length).toBeLessThanOrEqual(5)
  })

  test('is decided by how many there are, not by how many addresses are kept of earlier lives', () => {
    const { wanted, isAll } = policyOf().choose(seen(100, { count: 3 }), 0, 'start')
    expect([wanted.size, isAll]).toEqual([100, true])
  })

  test('follows the calls, and forgets them when they stop', () => {
    const policy = policyOf()
    for (let i = 0; i < 3; i++) policy.onCall('n77')
    policy.onCall('n78')
    expect(policy.choose(seen(100), 0, 'start').wanted).toContain('n77')
    for (let i = 0; i < 17; i++) policy.choose(seen(100), 5000 * i, 'period')
    expect(policy.choose(seen(100), 90_000, 'planned').wanted).toContain('n77')
    expect(policy.choose(seen(100), 95_000, 'period').wanted).not.toContain('n77')
  })

  test('is no other for three quarters of a minute when one of the nearest goes away, unless most of them do', () => {
    const { awayMs } = LINK_POLICY_DEFAULTS
    const without = (...gone: NodeId[]): Surroundings =>
      seen(100, { nearest: () => ({ get: node => (gone.includes(node) ? undefined : Number(node.slice(1))) }) })
    const policy = policyOf()
    const before = policy.choose(seen(100), 0, 'start').wanted
    policy.choose(seen(100), 10_000, 'period')
    expect(policy.choose(without('n1'), 20_000, 'period').wanted).toEqual(before)
    expect(policy.choose(without('n1'), 10_000 + awayMs - 1, 'period').wanted).toEqual(before)
    const later = policy.choose(without('n1'), 10_000 + awayMs, 'period').wanted
    expect([later.has('n1'), later.has('n2'), later.has('n3')]).toEqual([false, true, true])
    const most = policyOf()
    most.choose(seen(100), 0, 'start')
    most.choose(seen(100), 10_000, 'period')
    expect([...most.choose(without('n1', 'n2'), 20_000, 'period').wanted]).toEqual(expect.arrayContaining(['n3', 'n4']))
  })

  test('is also some others, by chance and as long as there is no link at all', () => {
    const policy = policyOf()
    const lonely = policy.choose(seen(100, { links: [] }), 0, 'start')
    expect(lonely.wanted.size).toBeGreaterThan(8)
    expect(lonely.wanted.size).toBeLessThanOrEqual(4 + 8)
    expect(policy.choose(seen(100), 1, 'period').wanted.size).toBeLessThanOrEqual(4)
    expect(policyOf({ fullMeshMax: 4 }).choose(seen(6, { links: [] }), 0, 'start').wanted.size).toBe(6)
  })
})

describe('when a node chooses again', () => {
  test('is soon after news, later where links are few, and once for many news', () => {
    const policy = policyOf()
    expect([policy.onNews(3, 1000), policy.onNews(4, 1001), policy.isPlanned]).toEqual([1250, undefined, true])
    policy.choose(seen(4), 1100, 'period')
    expect(policy.onNews(4, 1200)).toBeUndefined()
    policy.choose(seen(4), 1250, 'planned')
    expect([policy.isPlanned, policy.onNews(20, 1300)]).toEqual([false, 3300])
  })

  test('is after five seconds, later where a mesh is so large that paths are dear, but not for a node without a link', () => {
    const period = (count: number, over: Partial<Surroundings> = {}): number =>
      policyOf().choose(seen(count, { links: [link('n1')], ...over }), 0, 'period').periodMs
    expect([period(10), period(500), period(1000), period(1000, { links: [] })]).toEqual([5000, 5000, 10_000, 5000])
  })

  test('is when no more have become known for two seconds: until then a few of many are enough', () => {
    const policy = policyOf()
    expect(policy.onNews(15, 0)).toBe(250)
    const growing = policy.choose(seen(15), 250, 'planned')
    expect(growing.wanted.size).toBeLessThanOrEqual(4)
    expect([growing.isAll, growing.isSparse, growing.againAtMs]).toEqual([false, false, 2250])
    expect(policy.choose(seen(15), 1999, 'period').againAtMs).toBeUndefined()
    expect(policy.choose(seen(15), 2250, 'planned')).toMatchObject({ isAll: true, againAtMs: undefined })
  })

  test('is put off for half a minute at most, or who joins a mesh that grows for ever would keep the few links it began with', () => {
    const policy = policyOf({ nearest: 6, random: 6 })
    const sizes = [0, 5000, 20_000, 29_999, 30_000].map(atMs => {
      policy.onNews(200, atMs)
      return policy.choose(seen(200, { links: [link('n1')] }), atMs, 'period').wanted.size
    })
    expect(sizes.slice(0, 4)).toEqual([sizes[0], sizes[0], sizes[0], sizes[0]])
    expect([sizes[0], sizes[4]]).toEqual([4, 12])
  })

  test('takes nothing from those who had chosen among all before others came', () => {
    const policy = policyOf({ nearest: 6, random: 6 })
    const before = policy.choose(seen(100, { links: [link('n1')] }), 0, 'start').wanted
    policy.onNews(150, 10_000)
    expect(policy.choose(seen(150, { links: [link('n1')] }), 10_250, 'planned').wanted).toEqual(before)
    expect(policy.choose(seen(150, { links: [link('n1')] }), 12_250, 'planned').wanted).not.toEqual(before)
  })

  test('is not put off where no more are known than a few: they are linked to at once', () => {
    const policy = policyOf()
    policy.onNews(4, 0)
    expect(policy.hold(4)).toBeUndefined()
    expect(policy.choose(seen(4), 250, 'planned')).toMatchObject({ isAll: true, againAtMs: undefined })
  })

  test('and until then only those are dialled that were chosen before, once there are more than a few', () => {
    const policy = policyOf()
    const { wanted } = policy.choose(seen(7), 0, 'start')
    expect([wanted.size, policy.hold(7)]).toEqual([7, wanted])
  })
})

describe('what a node gives up', () => {
  const { unwantedMs } = LINK_POLICY_DEFAULTS
  /** Links that stand while it chooses at 0 and at `atMs`. */
  const leaves = (links: Surroundings['links'], atMs: number, policy = policyOf()): readonly NodeId[] => {
    policy.choose(seen(50, { links }), 0, 'period')
    return policy.choose(seen(50, { links }), atMs, 'period').leave
  }
  const unwanted = nodes(50).find(node => !policyOf().choose(seen(50), 0, 'start').wanted.has(node)) ?? ''

  test('is a link it dialled and has not wanted for a quarter of a minute', () => {
    expect(leaves([link(unwanted), link('n1')], unwantedMs - 1)).toEqual([])
    expect(leaves([link(unwanted), link('n1')], unwantedMs)).toEqual([unwanted])
  })

  test('is no link that the other end dialled, or that carries calls which have no other way', () => {
    expect(leaves([link(unwanted, { dialled: false })], unwantedMs)).toEqual([])
    expect(leaves([link(unwanted, { isInUse: true })], unwantedMs)).toEqual([])
    const policy = policyOf()
    leaves([link(unwanted, { isInUse: true })], unwantedMs, policy)
    expect(policy.choose(seen(50, { links: [link(unwanted)] }), unwantedMs + 1, 'period').leave).toEqual([unwanted])
  })

  test('is nothing before its time has run anew: after a new link, after it was wanted, after it was gone', () => {
    const links = [link(unwanted)]
    const again = policyOf()
    again.choose(seen(50, { links }), 0, 'period')
    again.onLinkUp(unwanted)
    expect(again.choose(seen(50, { links }), unwantedMs, 'period').leave).toEqual([])
    const wanted = policyOf()
    wanted.choose(seen(50, { links }), 0, 'period')
    wanted.choose(seen(50, { links, nearest: () => ({ get: node => (node === unwanted ? 0 : 1) }) }), 1000, 'period')
    wanted.choose(seen(50, { links, nearest: () => ({ get: node => (node === unwanted ? 900 : 1) }) }), 2000, 'period')
    expect(wanted.choose(seen(50, { links }), unwantedMs, 'period').leave).toEqual([])
    const gone = policyOf()
    gone.choose(seen(50, { links }), 0, 'period')
    gone.choose(seen(50), 5000, 'period')
    expect(gone.choose(seen(50, { links }), unwantedMs, 'period').leave).toEqual([])
  })

  test('is nothing in a small mesh, also when a few were chosen while it grew', () => {
    const policy = policyOf()
    const links = nodes(15).map(node => link(node))
    for (const atMs of [0, unwantedMs, 2 * unwantedMs]) {
      policy.onNews(15, atMs)
      expect(policy.choose(seen(15, { links }), atMs, 'period').leave).toEqual([])
    }
  })
})

test('a link is given up later than what took its place is told of, or there would seem to be no way for a moment', () => {
  expect(LINK_POLICY_DEFAULTS.unwantedMs).toBeGreaterThan(LINK_NEWS_MS_MAX)
})
