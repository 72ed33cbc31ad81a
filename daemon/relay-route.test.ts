import { describe, expect, it } from 'vitest'
import { encodeLinkInfo, encodeNodeInfo, linkKey, NODE_KEY } from '../router/entry.ts'
import type { NodeId, NodeInfo } from '../router/model.ts'
import { Table } from '../router/table.ts'
import { chooseRoute } from './relay-route.ts'

const NONE: ReadonlySet<NodeId> = new Set()

/** A table as node `a` has it; `links` are pairs and their round trips. */
function tableOf(
  links: readonly [NodeId, NodeId, number][],
  draining: readonly NodeId[] = [],
  deadEnds: readonly NodeId[] = [],
): Table {
  const table = new Table('a')
  const nodes = new Set<NodeId>()
  for (const [from, to] of links) nodes.add(from).add(to)
  for (const name of nodes) {
    const state = draining.includes(name) ? 'draining' : 'up'
    const info: NodeInfo = { name, region: 'r', version: '1', overlay: [], calls: [], state }
    const said: NodeInfo = deadEnds.includes(name) ? { ...info, relays: false } : info
    table.update(name, { key: NODE_KEY, value: encodeNodeInfo(said) }, 0)
  }
  for (const [from, to, rttMs] of links) {
    table.update(from, { key: linkKey(to), value: encodeLinkInfo({ rttMs, lossRatio: 0 }) }, 0)
    table.update(to, { key: linkKey(from), value: encodeLinkInfo({ rttMs, lossRatio: 0 }) }, 0)
  }
  return table
}

const SQUARE: [NodeId, NodeId, number][] = [
  ['a', 'b', 5],
  ['b', 'c', 5],
  ['a', 'd', 20],
  ['d', 'c', 20],
]

describe('the route of a relayed link', () => {
  it('is the path of the table while no relay on it is to be avoided', () => {
    expect(chooseRoute(tableOf(SQUARE), 'c', NONE)).toEqual(['b', 'c'])
    expect(chooseRoute(tableOf(SQUARE), 'b', new Set(['b']))).toEqual(['b'])
    expect(chooseRoute(tableOf(SQUARE), 'x', NONE)).toBeUndefined()
  })

  it('leads round a relay that refused, and is none when there is no way round', () => {
    expect(chooseRoute(tableOf(SQUARE), 'c', new Set(['b']))).toEqual(['d', 'c'])
    expect(chooseRoute(tableOf(SQUARE), 'c', new Set(['b', 'd']))).toBeUndefined()
  })

  it('leads round over two relays where one is not enough, by the cheapest of several', () => {
    const links: [NodeId, NodeId, number][] = [
      ['a', 'b', 1],
      ['b', 'c', 1],
      ['a', 'd', 5],
      ['d', 'e', 5],
      ['e', 'c', 5],
      ['d', 'f', 4],
      ['f', 'c', 5],
    ]
    expect(chooseRoute(tableOf(links), 'c', new Set(['b']))).toEqual(['d', 'f', 'c'])
    expect(chooseRoute(tableOf([...links, ['d', 'c', 8]]), 'c', new Set(['b']))).toEqual(['d', 'c'])
  })

  it('leads round a relay that is stopping if it can, and through it if it must', () => {
    expect(chooseRoute(tableOf(SQUARE, ['b']), 'c', NONE)).toEqual(['d', 'c'])
    expect(chooseRoute(tableOf(SQUARE.slice(0, 2), ['b']), 'c', NONE)).toEqual(['b', 'c'])
    expect(chooseRoute(tableOf(SQUARE.slice(0, 2), ['b']), 'c', new Set(['b']))).toBeUndefined()
  })

  it('never leads through a node that says that it passes nothing on, neither at first nor round another', () => {
    expect(chooseRoute(tableOf(SQUARE, [], ['b']), 'c', NONE)).toEqual(['d', 'c'])
    expect(chooseRoute(tableOf(SQUARE, [], ['d']), 'c', new Set(['b']))).toBeUndefined()
    expect(chooseRoute(tableOf(SQUARE, ['b'], ['d']), 'c', NONE)).toEqual(['b', 'c'])
    expect(chooseRoute(tableOf(SQUARE, [], ['a', 'c']), 'c', NONE)).toEqual(['b', 'c'])
  })

  it('takes no link that only one end states', () => {
    const table = tableOf(SQUARE)
    table.update('c', { key: linkKey('d'), value: undefined }, 1)
    expect(chooseRoute(table, 'c', new Set(['b']))).toBeUndefined()
  })
})
