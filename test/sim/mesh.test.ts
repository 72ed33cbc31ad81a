import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { mesh } from './mesh.ts'

/** Three regions that all serve `orders`, as the examples of docs/simulate.md have them. */
function threeRegions() {
  return mesh()
    .node('virginia', { region: 'aws-us-east-1' })
    .node('dublin', { region: 'aws-eu-west-1' })
    .node('frankfurt', { region: 'gcp-europe-west3' })
    .serve('virginia', 'orders')
    .serve('frankfurt', 'orders', { instances: 3 })
    .settle()
}

describe('the worked examples of docs/simulate.md', () => {
  test('what if a region goes away: calls move to the next, and nobody is left without', () => {
    const sim = threeRegions()
    expect(sim.choose('dublin', 'orders')?.node).toBe('frankfurt')

    sim.crashRegion('gcp-europe-west3').advance('4s')

    expect(sim.choose('dublin', 'orders')).toMatchObject({ node: 'virginia', rttMs: 74 })
    sim.restart('frankfurt').settle()
    expect(sim.choose('dublin', 'orders')?.node).toBe('frankfurt')
  })

  test('the order of failover is the one meant, and each place says why it stands there', () => {
    const sim = mesh()
      .node('virginia', { region: 'aws-us-east-1' })
      .node('dublin', { region: 'aws-eu-west-1' })
      .node('frankfurt', { region: 'gcp-europe-west3' })
      .node('singapore', { region: 'azure-southeastasia' })
      .serve('virginia', 'orders')
      .serve('frankfurt', 'orders')
      .serve('singapore', 'orders', { instances: 2, healthy: 0 })
      .settle()

    expect(sim.order('dublin', 'orders')).toEqual(['frankfurt', 'virginia'])
    expect(sim.explain('dublin', 'orders').map(place => place.why)).toEqual([
      'the nearest: 30.0 ms (round trip 28.0 ms over 1 hops)',
      '46.0 ms farther than the nearest: 76.0 ms (round trip 74.0 ms over 1 hops)',
      'none of its instances is healthy',
    ])
  })

  test('a new region takes over only the calls that it is nearer to', () => {
    const sim = threeRegions()
    const callers = ['virginia', 'dublin', 'frankfurt']
    const before = callers.map(from => sim.choose(from, 'orders')?.node)

    sim.node('london', { region: 'azure-uksouth' }).serve('london', 'orders').settle()

    const after = callers.map(from => sim.choose(from, 'orders')?.node)
    expect(before).toEqual(['virginia', 'frankfurt', 'frankfurt'])
    expect(after).toEqual(['virginia', 'london', 'frankfurt'])
    expect(sim.check()).toEqual([])
  })
})

test('a cut between two nodes sends calls round it, and they come back when it heals', () => {
  const sim = mesh().node('a').node('b').node('c').serve('b', 'orders')
  sim.link('a', 'b', { rttMs: 10 }).link('a', 'c', { rttMs: 30 }).link('b', 'c', { rttMs: 30 }).settle()
  sim.cut('a', 'b').advance('4s')
  expect(sim.choose('a', 'orders')).toMatchObject({ node: 'b', via: ['c'], rttMs: 60 })
  sim.heal('a', 'b').settle()
  expect(sim.choose('a', 'orders')).toMatchObject({ node: 'b', via: [], rttMs: 10 })
})

test('an isolated node knows what it had but calls nobody, and is part of the mesh again after the heal', () => {
  const sim = mesh().node('a').node('b').node('c').serve('b', 'orders').settle()
  sim.isolate('a').advance('4s')
  expect(sim.choose('a', 'orders')).toBeUndefined()
  expect(sim.explain('a', 'orders')[0]?.why).toBe('no way leads there')
  sim.healAll().settle()
  expect(sim.choose('a', 'orders')?.node).toBe('b')
})

test('a link that becomes slow loses its calls to a nearer place', () => {
  const sim = mesh().node('a').node('b').node('c').serve('b', 'orders').serve('c', 'orders')
  sim.link('a', 'b', { rttMs: 20 }).link('a', 'c', { rttMs: 40 }).link('b', 'c', { rttMs: 300 }).settle()
  expect(sim.order('a', 'orders')).toEqual(['b', 'c'])
  sim.delay('a', 'b', { rttMs: 200 }).advance('2m').settle()
  expect(sim.order('a', 'orders')).toEqual(['c', 'b'])
})

test('a call that asks for a region or a label is answered there, by the rules of a real call', () => {
  const sim = mesh()
    .node('virginia', { region: 'aws-us-east-1' })
    .node('dublin', { region: 'aws-eu-west-1' })
    .node('frankfurt', { region: 'gcp-europe-west3' })
    .serve('dublin', 'orders', { labels: { version: 'v1' } })
    .serve('frankfurt', 'orders', { labels: { version: 'v2' } })
    .serve('virginia', 'orders', { labels: { version: 'v2' } })
    .settle()
  expect(sim.choose('dublin', 'orders')?.node).toBe('dublin')
  expect(sim.order('dublin', 'orders', { labels: { version: 'v2' } })).toEqual(['frankfurt', 'virginia'])
  expect(sim.choose('dublin', 'orders', { region: 'aws-us-*', labels: { version: 'v2' } })?.node).toBe('virginia')
  expect(sim.choose('dublin', 'orders', { region: 'aws-*', labels: { version: 'v3' } })).toBeUndefined()
  const explained = sim.explain('dublin', 'orders', { region: 'aws-*', labels: { version: 'v2' } })
  expect(explained.map(({ node, state, why }) => [node, state, why])).toEqual([
    ['virginia', 'ready', expect.stringContaining('the nearest')],
    ['dublin', 'not-matching', 'its label version is v1, not v2'],
    ['frankfurt', 'not-matching', 'its region is gcp-europe-west3, not aws-*'],
  ])
  expect(() => sim.choose('dublin', 'orders', { region: 'a*b' })).toThrow('expected a region such as')
})

test('a draining node takes no new calls and says so', () => {
  const sim = mesh().node('a').node('b').serve('b', 'orders').settle().drain('b').settle()
  expect(sim.choose('a', 'orders')).toBeUndefined()
  expect(sim.explain('a', 'orders')[0]?.why).toBe('it is about to stop and takes no new calls')
})

describe('the configuration that will be deployed', () => {
  function folder(name: string, config: string, services: string): string {
    const root = mkdtempSync(join(tmpdir(), 'flatmesh-sim-'))
    onTestFinished(() => rmSync(root, { recursive: true }))
    mkdirSync(join(root, name))
    writeFileSync(join(root, name, 'flatmesh.yaml'), config)
    writeFileSync(join(root, name, 'services.yaml'), services)
    return join(root, name, 'flatmesh.yaml')
  }
  const services = 'services: [{ name: orders, protocol: http, instances: [{ address: "127.0.0.1:9000" }] }]\n'

  test('nodes, regions and services come from flatmesh.yaml and its services file', async () => {
    const east = folder('east', 'mesh: acme\nnode: use1-a\nregion: aws-us-east-1\n', services)
    const west = folder('west', 'mesh: acme\nnode: usw1-a\nregion: aws-us-west-1\n', 'services: []\n')
    const sim = (await mesh().load(east, west)).settle()
    expect(sim.nodes).toEqual(['use1-a', 'usw1-a'])
    expect(sim.choose('usw1-a', 'orders')).toMatchObject({ node: 'use1-a', region: 'aws-us-east-1', rttMs: 72 })
  })

  test('a node that does not relay in its file does not in the simulation: calls go round it, or nowhere', async () => {
    const yaml = (node: string, more = ''): string => `mesh: acme\nnode: ${node}\nregion: ${node}\n${more}`
    const ends = [folder('a', yaml('a'), 'services: []\n'), folder('b', yaml('b'), services)]
    const hubs = [folder('near', yaml('near', 'relay: false\n'), 'services: []\n')]
    const sim = (await mesh().load(...ends, ...hubs)).cut('a', 'b')
    sim.link('a', 'near', { rttMs: 2 }).link('near', 'b', { rttMs: 2 }).settle()
    expect(sim.choose('a', 'orders')).toBeUndefined()
    await sim.load(folder('far', yaml('far'), 'services: []\n'))
    sim.settle()
    expect(sim.choose('a', 'orders')).toMatchObject({ node: 'b', via: ['far'] })
    expect(sim.check()).toEqual([])
  })

  test('nodes whose files say so keep links to a few in a mesh of more than that', async () => {
    const files = Array.from({ length: 30 }, (_, i) => {
      const more = i < 29 ? 'overlay: { fullMeshMax: 8 }\n' : ''
      return folder(`n${i}`, `mesh: acme\nnode: n${i}\nregion: r${i}\n${more}`, 'services: []\n')
    })
    const sim = (await mesh().load(...files)).settle().advance('2m')
    const counts = sim.nodes.map(name => sim.neighbours(name).length)
    // Each chooses twelve, and most are chosen by others.
    expect(Math.min(...counts.slice(0, -1))).toBeLessThan(25)
    expect(counts.at(-1)).toBe(29)
    expect(sim.neighbours('n29')).toEqual(sim.nodes.filter(name => name !== 'n29').sort())
    expect(sim.check()).toEqual([])
  })

  test('a config that the daemon would refuse is refused here, with the same words', async () => {
    const file = folder('east', 'mesh: acme\nnode: use1-a\nregoin: aws-us-east-1\n', services)
    await expect(mesh().load(file)).rejects.toMatchObject({ code: 'bad-config' })
  })

  test('a services file that the daemon would refuse is refused here', async () => {
    const file = folder('east', 'mesh: acme\nnode: use1-a\nregion: r\n', 'services: [{ name: "NO" }]\n')
    await expect(mesh().load(file)).rejects.toMatchObject({ code: 'bad-registry' })
  })
})

test('a name that is not in the mesh is answered with those that are', () => {
  expect(() => mesh().node('a').node('b').cut('a', 'x')).toThrow('found "x" (there are a, b)')
})

test('a time in words that nobody understands is refused', () => {
  expect(() => mesh().advance('soon')).toThrow('expected a time such as 500ms, 10s, 5m or 1h, found "soon"')
})

test('the package exports it as flatmesh/sim', async () => {
  // By a variable: the compiler would ask for declarations that only the published package has.
  const name = 'flatmesh/sim'
  const found: unknown = await import(name)
  expect(found).toMatchObject({ mesh: expect.any(Function) })
})
