import { describe, expect, test } from 'vitest'
import { encodeLinkInfo, encodeNodeInfo, encodeServiceInfo, linkKey, NODE_KEY, serviceKey } from './entry.ts'
import type { NodeInfo, ServiceInfo } from './model.ts'
import type { RouteFilter } from './route-filter.ts'
import { CANDIDATES_MAX, Table } from './table.ts'

const info = (name: string, state: NodeInfo['state'] = 'up'): unknown =>
  encodeNodeInfo({ name, region: `region-${name}`, version: '1', overlay: [], calls: [], state })
const service = (healthy = 1, over: Partial<ServiceInfo> = {}): unknown =>
  encodeServiceInfo({
    protocol: 'http',
    instances: Math.max(healthy, 1),
    healthy,
    weight: healthy,
    labels: {},
    ...over,
  })

function link(table: Table, a: string, b: string, rttMs: number): void {
  table.update(a, { key: linkKey(b), value: encodeLinkInfo({ rttMs, lossRatio: 0 }) }, 0)
  table.update(b, { key: linkKey(a), value: encodeLinkInfo({ rttMs, lossRatio: 0 }) }, 0)
}

/** `me` with links of 10, 20 and 20 ms to b, c and d; all three and `me` serve orders. */
function mesh(self = 'me'): Table {
  const table = new Table(self)
  for (const [i, name] of ['me', 'b', 'c', 'd'].entries()) {
    table.update(name, { key: NODE_KEY, value: info(name) }, 0)
    table.update(name, { key: serviceKey('orders'), value: service() }, 1000 + i)
  }
  link(table, 'me', 'b', 10)
  link(table, 'me', 'd', 20)
  link(table, 'me', 'c', 20)
  return table
}
const order = (table: Table): string[] => table.candidates('orders').map(({ node }) => node)

describe('the table', () => {
  test('candidates come nearest first, this node itself before all, and equal costs by node id', () => {
    expect(order(mesh())).toEqual(['me', 'b', 'c', 'd'])
    expect(mesh().candidates('orders')[1]).toMatchObject({ name: 'b', region: 'region-b', path: ['b'], rttMs: 10 })
    expect(mesh().candidates('orders')[0]).toMatchObject({ path: [], rttMs: 0, costMs: 0 })
  })

  test('what a node says of relaying moves the paths through it at once, and its own routes stay', () => {
    const table = mesh()
    link(table, 'b', 'c', 1)
    const said: NodeInfo = { name: 'b', region: 'r', version: '1', overlay: [], calls: [], state: 'up' }
    expect(table.path('c')?.path).toEqual(['b', 'c'])
    table.update('b', { key: NODE_KEY, value: encodeNodeInfo({ ...said, relays: false }) }, 0)
    expect(table.path('c')?.path).toEqual(['c'])
    expect(table.candidates('orders').map(({ path }) => path)).toEqual([[], ['b'], ['c'], ['d']])
    table.update('b', { key: NODE_KEY, value: encodeNodeInfo(said) }, 0)
    expect(table.path('c')?.path).toEqual(['b', 'c'])
    table.update('me', { key: NODE_KEY, value: encodeNodeInfo({ ...said, name: 'me', relays: false }) }, 0)
    expect(table.path('c')?.path).toEqual(['b', 'c'])
  })

  test('a service nobody offers has no candidates and is not known; one without a place is known', () => {
    const table = mesh()
    expect([table.candidates('nothing'), table.knows('nothing')]).toEqual([[], false])
    for (const node of ['me', 'b', 'c', 'd']) table.update(node, { key: serviceKey('orders'), value: service(0) }, 0)
    expect([order(table), table.knows('orders')]).toEqual([[], true])
  })

  test('each reason not to take calls is told, after those that do', () => {
    const table = mesh()
    table.update('b', { key: NODE_KEY, value: info('b', 'draining') }, 0)
    table.update('c', { key: serviceKey('orders'), value: service(0) }, 0)
    table.update('e', { key: NODE_KEY, value: info('e') }, 0)
    table.update('e', { key: serviceKey('orders'), value: service() }, 0)
    expect(table.explain('orders').map(({ node, state }) => `${node} ${state}`)).toEqual([
      'me ready',
      'd ready',
      'b draining',
      'c no-healthy-instance',
      'e unreachable',
    ])
    expect(order(table)).toEqual(['me', 'd'])
    expect(table.explain('orders').at(-1)?.costMs).toBe(Number.POSITIVE_INFINITY)
  })

  test('a route is usable only while a path leads to its owner', () => {
    const table = mesh()
    expect(order(table)).toContain('b')
    table.update('b', { key: linkKey('me'), value: undefined }, 0)
    // This node's own word is enough for its own link; when it goes, the route goes.
    expect(order(table)).toContain('b')
    table.update('me', { key: linkKey('b'), value: undefined }, 0)
    expect(order(table)).toEqual(['me', 'c', 'd'])
    link(table, 'c', 'b', 5)
    expect(table.candidates('orders').find(({ node }) => node === 'b')?.path).toEqual(['c', 'b'])
  })

  test('a cached answer does not outlive a change of links, nodes or services', () => {
    const table = mesh()
    order(table)
    link(table, 'me', 'd', 1)
    expect(order(table)).toEqual(['me', 'd', 'b', 'c'])
    table.update('d', { key: NODE_KEY, value: info('d', 'draining') }, 0)
    expect(order(table)).toEqual(['me', 'b', 'c'])
    table.update('b', { key: serviceKey('orders'), value: undefined }, 0)
    expect(order(table)).toEqual(['me', 'c'])
  })

  test('a filter lets through what it asks for, nearest first, and its answer does not outlive a change', () => {
    const table = mesh()
    table.update('b', { key: serviceKey('orders'), value: service(1, { labels: { version: 'v2' } }) }, 0)
    table.update('c', { key: serviceKey('orders'), value: service(1, { labels: { version: 'v2' } }) }, 0)
    const nodes = (filter: RouteFilter): string[] => table.candidates('orders', filter).map(({ node }) => node)
    expect(nodes({ labels: { version: 'v2' } })).toEqual(['b', 'c'])
    expect(nodes({ region: 'region-d' })).toEqual(['d'])
    expect(nodes({ region: 'region-*' })).toEqual(['me', 'b', 'c', 'd'])
    expect(nodes({ protocol: 'tcp' })).toEqual([])
    link(table, 'me', 'c', 1)
    expect(nodes({ labels: { version: 'v2' } })).toEqual(['c', 'b'])
    table.update('b', { key: serviceKey('orders'), value: service() }, 0)
    expect(nodes({ labels: { version: 'v2' } })).toEqual(['c'])
    expect(table.candidates('nothing', { region: 'x' })).toEqual([])
  })

  test('callers that ask for ever new filters are answered rightly and leave nothing behind', () => {
    const table = mesh()
    for (let i = 0; i < 1000; i++) expect(table.candidates('orders', { region: `made-up-${i}` })).toEqual([])
    const asked = table.candidates('orders', { region: 'region-b' })
    expect(asked.map(({ node }) => node)).toEqual(['b'])
    expect(table.candidates('orders', { region: 'region-b' })).toBe(asked)
  })

  test('of very many places the nearest are given, wherever they stand among those that take no calls', () => {
    const table = new Table('me')
    for (let i = 0; i < 200; i++) {
      table.update(`n${i}`, { key: NODE_KEY, value: info(`n${i}`) }, 0)
      table.update(`n${i}`, { key: serviceKey('orders'), value: service(i % 3 === 0 ? 0 : 1) }, 0)
      link(table, 'me', `n${i}`, 500 - i)
    }
    const found = table.candidates('orders')
    expect(found).toHaveLength(CANDIDATES_MAX)
    expect(found.slice(0, 3).map(({ node }) => node)).toEqual(['n199', 'n197', 'n196'])
    expect(table.explain('orders')).toHaveLength(200)
  })

  test('a service of a node that never said who it is takes no calls', () => {
    const table = new Table('me')
    table.update('b', { key: serviceKey('orders'), value: service() }, 0)
    link(table, 'me', 'b', 1)
    expect(order(table)).toEqual([])
    table.update('b', { key: NODE_KEY, value: info('b') }, 0)
    expect(order(table)).toEqual(['b'])
  })

  test('values that cannot be read count as absent, entries of later versions as nothing', () => {
    const table = mesh()
    expect(table.update('b', { key: serviceKey('orders'), value: { i: 'many' } }, 0)).toBe('orders')
    expect(order(table)).toEqual(['me', 'c', 'd'])
    expect(table.update('b', { key: 'zone/later', value: { x: 1 } }, 0)).toBeUndefined()
    table.update('me', { key: linkKey('c'), value: 'near' }, 0)
    expect(order(table)).toEqual(['me', 'd'])
  })

  test('forgetting a node takes its routes, its links and its name, and nothing else', () => {
    const table = mesh()
    table.update('b', { key: serviceKey('only-b'), value: service() }, 0)
    link(table, 'b', 'e', 1)
    table.update('e', { key: NODE_KEY, value: info('e') }, 0)
    table.update('e', { key: serviceKey('orders'), value: service() }, 0)
    expect(order(table)).toContain('e')
    table.forget('b')
    expect(order(table)).toEqual(['me', 'c', 'd'])
    expect([table.knows('only-b'), table.nodeInfo('b'), table.link('b', 'e')]).toEqual([false, undefined, undefined])
    expect([...table.nodeIds()]).not.toContain('b')
    expect([...table.services()]).toEqual(['orders'])
    table.forget('nobody')
  })

  test('an entry that is said again unchanged keeps its age and is no change', () => {
    const table = mesh()
    expect(table.update('b', { key: serviceKey('orders'), value: service() }, 9000)).toBeUndefined()
    expect(table.explain('orders').find(({ node }) => node === 'b')?.sinceMs).toBe(1001)
    expect(table.update('b', { key: serviceKey('orders'), value: service(2) }, 9000)).toBe('orders')
    expect(table.explain('orders').find(({ node }) => node === 'b')?.sinceMs).toBe(9000)
  })

  test('services and nodes are listed as they stand', () => {
    const table = mesh()
    table.update('c', { key: serviceKey('billing'), value: service() }, 0)
    expect([...table.services()].sort()).toEqual(['billing', 'orders'])
    expect([...table.servicesOf('c')].sort()).toEqual(['billing', 'orders'])
    expect([...table.servicesOf('nobody')]).toEqual([])
    table.update('c', { key: serviceKey('billing'), value: undefined }, 0)
    expect(table.knows('billing')).toBe(false)
  })

  test('two nodes with equal records choose the same way for the same starting point', () => {
    const [one, other] = [mesh('b'), new Table('b')]
    for (const name of ['d', 'c', 'b', 'me']) {
      other.update(name, { key: serviceKey('orders'), value: service() }, 0)
      other.update(name, { key: NODE_KEY, value: info(name) }, 0)
    }
    link(other, 'c', 'me', 20)
    link(other, 'd', 'me', 20)
    link(other, 'b', 'me', 10)
    expect(order(other)).toEqual(order(one))
    expect(order(one)).toEqual(['b', 'me', 'c', 'd'])
  })
})

test('near are the cheapest to reach, and whoever there is a link to, at what the link itself measures', () => {
  const table = new Table('me')
  const link = (from: string, to: string, rttMs: number): void => {
    for (const [a, b] of [
      [from, to],
      [to, from],
    ] as const) {
      if (a === 'me') table.setOwnLink(b, { rttMs, lossRatio: 0 })
      else table.update(a, { key: `link/${b}`, value: { r: rttMs * 10, l: 0 } }, 0)
    }
  }
  link('me', 'a', 5)
  link('a', 'b', 5)
  link('me', 'far', 100)
  link('a', 'far', 20)
  link('b', 'c', 5)
  const near = table.nearest(3)
  expect(['a', 'b', 'c', 'far', 'nobody'].map(node => near.get(node))).toEqual([5, 10, 15, 100, undefined])
  expect(table.nearest(2).get('c')).toBeUndefined()
})
