import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { LinkGraph } from './link-graph.ts'
import type { LinkInfo, NodeId } from './model.ts'
import { HOP_COST_MS, HOPS_MAX, linkCostMs, type Path } from './paths.ts'

type Links = Map<NodeId, Map<NodeId, LinkInfo>>

/** `a b 10` states a link of 10 ms at a; both ends are stated by two lines. */
function links(...lines: string[]): Links {
  const states: Links = new Map()
  for (const line of lines) {
    const [from = '', to = '', rtt = '0', loss = '0'] = line.split(' ')
    const own = states.get(from) ?? new Map<NodeId, LinkInfo>()
    states.set(from, own.set(to, { rttMs: Number(rtt), lossRatio: Number(loss) }))
  }
  return states
}
const both = (a: string, b: string, rtt: number): string[] => [`${a} ${b} ${rtt}`, `${b} ${a} ${rtt}`]

function graphOf(states: Links): LinkGraph {
  const graph = new LinkGraph()
  for (const [from, own] of states) for (const [to, link] of own) graph.set(from, to, link)
  return graph
}

function shortestPaths(self: NodeId, states: Links, known = graphOf(states)): Map<NodeId, Path> {
  const paths = known.shortestPaths(self, HOPS_MAX)
  const all = new Map<NodeId, Path>()
  for (const node of paths.nodes()) {
    const path = paths.get(node)
    if (path !== undefined) all.set(node, path)
    expect(paths.costMs(node)).toBe(path?.costMs)
  }
  return all
}

/** Every simple path of at most `HOPS_MAX` links that passes no dead end, tried out; the best by cost, then hops, then ids. */
function oracle(self: NodeId, states: Links, deadEnds: readonly NodeId[] = []): Map<NodeId, Path> {
  const best = new Map<NodeId, Path>()
  const better = (a: Path, b: Path): boolean => {
    if (a.costMs !== b.costMs) return a.costMs < b.costMs
    if (a.path.length !== b.path.length) return a.path.length < b.path.length
    return a.path.join('>') < b.path.join('>')
  }
  const walk = (at: NodeId, path: Path): void => {
    const known = best.get(at)
    if (known === undefined || better(path, known)) best.set(at, path)
    if (path.path.length === HOPS_MAX || (deadEnds.includes(at) && at !== self)) return
    for (const [to, mine] of states.get(at) ?? []) {
      const theirs = states.get(to)?.get(at)
      if (to === self || path.path.includes(to) || (at !== self && theirs === undefined)) continue
      const counted = at !== self && theirs !== undefined && linkCostMs(theirs) > linkCostMs(mine) ? theirs : mine
      const costMs = path.costMs + linkCostMs(counted)
      walk(to, { path: [...path.path, to], rttMs: path.rttMs + counted.rttMs, costMs })
    }
  }
  walk(self, { path: [], rttMs: 0, costMs: 0 })
  return best
}

const NODES = ['a', 'b', 'c', 'd', 'e', 'f', 'g']
const graph = fc
  .array(fc.tuple(fc.constantFrom(...NODES), fc.constantFrom(...NODES), fc.nat(6), fc.constantFrom(0, 0, 0.5, 1)), {
    minLength: 5,
    maxLength: 40,
    size: 'max',
  })
  .map(rows => links(...rows.flatMap(([a, b, rtt, loss]) => [`${a} ${b} ${rtt} ${loss}`, `${b} ${a} ${rtt}`])))
const lopsided = fc
  .array(fc.tuple(fc.constantFrom(...NODES), fc.constantFrom(...NODES), fc.nat(6)), { maxLength: 30, size: 'max' })
  .map(rows => links(...rows.map(row => row.join(' '))))

/** The other ends of links that both ends state. */
function mutual(node: NodeId, states: Links): NodeId[] {
  return [...(states.get(node)?.keys() ?? [])].filter(other => states.get(other)?.has(node))
}

describe('the graph of links', () => {
  test('the cheapest path to every node is found, and no path where none is', () => {
    fc.assert(
      fc.property(fc.oneof(graph, lopsided), states => {
        expect(shortestPaths('a', states)).toEqual(oracle('a', states))
      }),
      { numRuns: 400 },
    )
  })

  test('the order in which links became known makes no difference', () => {
    fc.assert(
      fc.property(graph, states => {
        const turned: Links = new Map([...states].reverse().map(([node, own]) => [node, new Map([...own].reverse())]))
        expect(shortestPaths('a', turned)).toEqual(shortestPaths('a', states))
      }),
      { numRuns: 200 },
    )
  })

  test('links that come, change and go leave the same graph as those that stand were stated at once', () => {
    const change = fc.tuple(
      fc.constantFrom(...NODES),
      fc.constantFrom(...NODES),
      fc.option(fc.nat(6), { nil: undefined }),
    )
    fc.assert(
      fc.property(fc.array(change, { minLength: 10, maxLength: 120, size: 'max' }), fc.nat(6), (changes, forgotten) => {
        const known = new LinkGraph()
        const states: Links = new Map(NODES.map(node => [node, new Map()]))
        for (const [from, to, rttMs] of changes) {
          if (from === to) continue
          const before = states.get(from)?.get(to)
          const link = rttMs === undefined ? undefined : { rttMs, lossRatio: 0 }
          expect(known.set(from, to, link)).toBe(before?.rttMs !== rttMs)
          if (link === undefined) states.get(from)?.delete(to)
          else states.get(from)?.set(to, link)
          expect(known.get(from, to)).toEqual(link)
          expect(known.countOf(from)).toBe(states.get(from)?.size)
          for (const node of [from, to]) expect(known.countedOf(node)).toBe(mutual(node, states).length)
        }
        known.forget(NODES[forgotten] as string)
        states.get(NODES[forgotten] as string)?.clear()
        for (const self of NODES) {
          expect(shortestPaths(self, states, known)).toEqual(oracle(self, states))
          expect(known.countedOf(self)).toBe(mutual(self, states).length)
          expect(known.linkedTo(self).toSorted()).toEqual(mutual(self, states).toSorted())
        }
      }),
      { numRuns: 200 },
    )
  })

  test('the nearest are those that all paths cost least to, at the same round trips', () => {
    const stated = fc.tuple(fc.constantFrom(...NODES), fc.constantFrom(...NODES), fc.nat(50))
    fc.assert(
      fc.property(
        fc.array(stated, { maxLength: 80, size: 'max' }),
        fc.nat(7),
        fc.constantFrom(...NODES),
        (all, count, end) => {
          const known = new LinkGraph()
          for (const [from, to, rttMs] of all) if (from !== to) known.set(from, to, { rttMs, lossRatio: 0 })
          known.setRelays(end, false)
          for (const self of NODES) {
            const paths = known.shortestPaths(self, NODES.length)
            const reached = [...paths.nodes()].filter(node => node !== self)
            const nearest = known.nearest(self, count)
            const costs = [...nearest.keys()].map(node => paths.costMs(node))
            const least = reached.map(node => paths.costMs(node)).sort((a, b) => a - b)
            expect(costs).toEqual(least.slice(0, count))
            // Ways of equal cost may differ in it by the cost of a link.
            for (const [node, rttMs] of nearest) {
              expect(Math.abs(rttMs - (paths.rttMs(node) ?? 0)) % HOP_COST_MS).toBe(0)
              expect(rttMs).toBeLessThanOrEqual(paths.costMs(node))
            }
          }
        },
      ),
      { numRuns: 200 },
    )
  })

  test('whether a path leads to a node is what the search for all paths says, with and without the own link', () => {
    const stated = fc.tuple(fc.constantFrom(...NODES), fc.constantFrom(...NODES), fc.boolean())
    fc.assert(
      fc.property(fc.array(stated, { maxLength: 40, size: 'max' }), fc.constantFrom(...NODES), (all, end) => {
        const [self] = NODES as [string]
        const graph = (without?: NodeId): LinkGraph => {
          const known = new LinkGraph()
          const link = { rttMs: 1, lossRatio: 0 }
          for (const [from, to, isBoth] of all) {
            if (from === to) continue
            if (!(from === self && to === without)) known.set(from, to, link)
            if (isBoth && !(to === self && from === without)) known.set(to, from, link)
          }
          known.setRelays(end, false)
          return known
        }
        const known = graph()
        for (const hopsMax of [1, 2, HOPS_MAX]) {
          const paths = known.shortestPaths(self, hopsMax)
          for (const to of NODES.slice(1)) {
            expect(known.leads(self, to, hopsMax)).toBe(paths.rttMs(to) !== undefined)
            const besides = graph(to).shortestPaths(self, hopsMax).rttMs(to) !== undefined
            expect(known.leads(self, to, hopsMax, true)).toBe(besides)
          }
        }
      }),
      { numRuns: 300 },
    )
  })

  test('a peer that invents nodes and takes them back leaves nothing behind', () => {
    const known = new LinkGraph()
    for (let i = 0; i < 10_000; i++) {
      known.set('a', `made-up-${i}`, { rttMs: 1, lossRatio: 0 })
      known.set('a', `made-up-${i}`, undefined)
    }
    known.set('a', 'b', { rttMs: 1, lossRatio: 0 })
    expect(known.size).toBe(2)
  })

  test('a node is called by its whole id as soon as anyone has given it, whether it was a link or its own word', () => {
    const [me, b, c] = ['me', 'b', 'c'].map(name => name.padStart(52, 'xyz')) as [string, string, string]
    const known = new LinkGraph()
    const link = { rttMs: 1, lossRatio: 0 }
    known.set(b, me.slice(-16), link)
    known.set(b, c.slice(-16), link)
    known.set(me, b, link)
    expect(known.shortestPaths(me, HOPS_MAX).get(b)?.path).toEqual([b])
    known.set(c, b.slice(-16), link)
    expect(known.shortestPaths(me, HOPS_MAX).get(c)?.path).toEqual([b, c])
    expect([...known.shortestPaths(me, HOPS_MAX).nodes()].sort()).toEqual([b, c, me].sort())
    known.set(me, b.slice(-16), { rttMs: 2, lossRatio: 0 })
    expect(known.shortestPaths(me, HOPS_MAX).get(b)).toMatchObject({ path: [b], rttMs: 2 })
    expect([known.get(me, b)?.rttMs, known.countOf(b), known.size]).toEqual([2, 2, 3])
  })

  test('a link that only one end states leads nowhere', () => {
    const states = links(...both('a', 'b', 10), 'b c 10')
    expect([...shortestPaths('a', states).keys()]).toEqual(['a', 'b'])
  })

  test("this node's own link counts on its own word, at its own round trip", () => {
    expect(shortestPaths('a', links('a b 10', 'b a 90')).get('b')?.rttMs).toBe(10)
    expect(shortestPaths('a', links('a b 10')).get('b')?.path).toEqual(['b'])
    expect(shortestPaths('a', links('b a 10')).get('b')).toBeUndefined()
  })

  test('of two statements of one link the dearer counts', () => {
    const states = links(...both('a', 'b', 10), 'b c 10', 'c b 50')
    expect(shortestPaths('a', states).get('c')?.rttMs).toBe(60)
  })

  test('no path leads through a node that passes nothing on; paths begin and end there', () => {
    fc.assert(
      fc.property(graph, fc.subarray(NODES), (states, deadEnds) => {
        const known = graphOf(states)
        for (const node of deadEnds) known.setRelays(node, false)
        for (const self of NODES) expect(shortestPaths(self, states, known)).toEqual(oracle(self, states, deadEnds))
        for (const node of deadEnds) expect(known.setRelays(node, true)).toBe(true)
        expect(shortestPaths('a', states, known)).toEqual(oracle('a', states))
      }),
      { numRuns: 200 },
    )
  })

  test('a node that passes nothing on is known as such whether its links came before its word or after, by tail or whole id', () => {
    const [me, b, c] = ['me', 'b', 'c'].map(name => name.padStart(52, 'xyz')) as [string, string, string]
    const known = new LinkGraph()
    expect([known.setRelays(b, false), known.setRelays(b, false)]).toEqual([true, false])
    const link = { rttMs: 1, lossRatio: 0 }
    known.set(me, b.slice(-16), link)
    known.set(b, c.slice(-16), link)
    known.set(c, b.slice(-16), link)
    expect(known.shortestPaths(me, HOPS_MAX).get(b)?.path).toEqual([b])
    expect(known.shortestPaths(me, HOPS_MAX).get(c)).toBeUndefined()
    known.forget(b)
    known.set(b, c.slice(-16), link)
    expect(known.shortestPaths(me, HOPS_MAX).get(c)?.path).toEqual([b, c])
  })

  test('a path of more than four links is no path', () => {
    const chain = 'abcdef'.split('')
    const lines = chain.slice(1).flatMap((node, i) => both(chain[i] as string, node, 1))
    const paths = shortestPaths('a', links(...lines))
    expect(paths.get('e')?.path).toEqual(['b', 'c', 'd', 'e'])
    expect(paths.has('f')).toBe(false)
  })

  test('a short dear path is kept for what lies beyond the reach of a long cheap one', () => {
    const cheap = [...both('a', 'b', 1), ...both('b', 'c', 1), ...both('c', 'd', 1), ...both('d', 'x', 1)]
    const paths = shortestPaths('a', links(...cheap, ...both('a', 'x', 500), ...both('x', 'y', 1)))
    expect(paths.get('x')?.path).toEqual(['b', 'c', 'd', 'x'])
    expect(paths.get('y')?.path).toEqual(['x', 'y'])
  })

  test('of equal costs fewer hops win, then the smaller ids', () => {
    const tie = links(...both('a', 'b', 1), ...both('b', 'c', 1), ...both('a', 'c', 2 + HOP_COST_MS))
    expect(shortestPaths('a', tie).get('c')?.path).toEqual(['c'])
    const diamond = links(...both('a', 'c', 1), ...both('a', 'b', 1), ...both('c', 'd', 1), ...both('b', 'd', 1))
    expect(shortestPaths('a', diamond).get('d')?.path).toEqual(['b', 'd'])
  })

  test('loss makes a link dearer, and a hop costs something by itself', () => {
    expect(linkCostMs({ rttMs: 10, lossRatio: 0 })).toBe(10 + HOP_COST_MS)
    expect(linkCostMs({ rttMs: 10, lossRatio: 0.5 })).toBe(20 + HOP_COST_MS)
    expect(linkCostMs({ rttMs: 10, lossRatio: 5 })).toBe(30 + HOP_COST_MS)
  })
})
