import { describe, expect, test } from 'vitest'
import { checkAtRest } from './checkers.ts'
import { Convergence } from './convergence.ts'
import { SimMesh } from './sim-mesh.ts'
import type { LinkEnd } from './sim-node.ts'

function settledMesh(): { mesh: SimMesh; convergence: Convergence } {
  const mesh = new SimMesh({ seed: 3, conditions: () => ({ latencyMs: 10 }) })
  const convergence = new Convergence(mesh)
  mesh.observers.push(convergence)
  mesh.addNode('a')
  for (const name of ['b', 'c']) mesh.addNode(name, { seeds: ['a'] })
  mesh.serve('b', { name: 'orders' })
  mesh.settle()
  return { mesh, convergence }
}

function checksThatFail(mesh: SimMesh, convergence?: Convergence): string[] {
  return [...new Set(checkAtRest(mesh, 500, convergence).map(violation => violation.check))]
}

describe('the checkers notice', () => {
  test('nothing where nothing is wrong', () => {
    const { mesh, convergence } = settledMesh()
    expect(checkAtRest(mesh, 500, convergence)).toEqual([])
  })

  test('a route in tables that its registry no longer offers', () => {
    const { mesh } = settledMesh()
    mesh.node('b').services.delete('orders')
    expect(checksThatFail(mesh)).toEqual(['truth'])
  })

  test('a route that its registry offers and no table has', () => {
    const { mesh } = settledMesh()
    mesh
      .node('c')
      .services.set('ghost', { name: 'ghost', protocol: 'http', instances: 1, healthy: 1, weight: 1, labels: {} })
    expect(checksThatFail(mesh)).toEqual(['truth'])
  })

  test('a path over a link that is no longer there', () => {
    const { mesh } = settledMesh()
    const end = mesh.node('a').ends.get(mesh.node('b').id)
    if (end?.other !== undefined) end.other.isUp = false
    expect(checkAtRest(mesh, 0).map(violation => violation.check)).toContain('paths')
  })

  test('a path that costs more than the cheapest', () => {
    const { mesh } = settledMesh()
    const [ab, ba] = bothEnds(mesh, 'a', 'b')
    for (const end of [ab, ba]) end.toldRttMs = 900
    // Reported to nobody: the router goes on by what it was told before.
    expect(checkAtRest(mesh, 0).map(violation => violation.check)).toContain('paths')
  })

  test('a node that does not know what another has told', () => {
    const { mesh } = settledMesh()
    // Every frame to c is lost, but its links stand.
    for (const name of ['a', 'b']) mesh.change(name, 'c', { loss: 1 }, true)
    mesh.serve('b', { name: 'late' })
    mesh.run(100)
    expect(checksThatFail(mesh)).toEqual(['agreement', 'truth'])
  })

  test('a path through a node that passes nothing on, and none where there is another way', () => {
    const mesh = new SimMesh({ seed: 3 })
    for (const name of ['a', 'b', 'c', 'd']) mesh.addNode(name)
    for (const [a, b, latencyMs] of [
      ['a', 'b', 5],
      ['b', 'c', 5],
      ['a', 'd', 50],
      ['d', 'c', 50],
    ] as const) {
      mesh.link(a, b, { latencyMs })
    }
    mesh.settle()
    expect(checkAtRest(mesh, 500)).toEqual([])
    // Said to nobody: paths still lead through it.
    mesh.node('b').relays = false
    const found = checkAtRest(mesh, 0).map(({ check, what }) => `${check}: ${what}`)
    expect(found).toContain('paths: path to c via b>c leads through b, which passes nothing on')
    mesh.setRelays('b', false)
    mesh.run(1000)
    expect(checkAtRest(mesh, 500)).toEqual([])
    mesh.setRelays('d', false)
    mesh.run(1000)
    expect(checkAtRest(mesh, 500)).toEqual([])
  })

  test('a router that throws', () => {
    const { mesh } = settledMesh()
    const node = mesh.node('a')
    const { protocol } = node
    node.protocol = new Proxy(protocol, {
      get: (target, key) =>
        key === 'begin'
          ? () => {
              throw new Error('broken')
            }
          : Reflect.get(target, key),
    })
    mesh.serve('a', { name: 'x' })
    node.protocol = protocol
    node.services.delete('x')
    expect(checkAtRest(mesh, 500)).toMatchObject([{ check: 'crash', node: 'a' }])
  })
})

function bothEnds(mesh: SimMesh, a: string, b: string): [LinkEnd, LinkEnd] {
  const [there, back] = [mesh.node(a).ends.get(mesh.node(b).id), mesh.node(b).ends.get(mesh.node(a).id)]
  if (there === undefined || back === undefined) throw new Error(`${a} and ${b} have no link`)
  return [there, back]
}

describe('convergence', () => {
  test('is the time until the last connected node shows a change', () => {
    const { mesh, convergence } = settledMesh()
    convergence.tookMs.length = 0
    mesh.serve('b', { name: 'billing' })
    mesh.run(1000)
    // 20 ms of batching and 10 ms of way.
    expect(convergence.tookMs).toHaveLength(1)
    expect(convergence.tookMs[0]).toBeGreaterThanOrEqual(10)
    expect(convergence.tookMs[0]).toBeLessThan(100)
  })

  test('leaves out nodes that are cut off, and does not wait for them', () => {
    const { mesh, convergence } = settledMesh()
    mesh.split([['c'], ['a', 'b']])
    mesh.run(5000)
    convergence.tookMs.length = 0
    mesh.serve('b', { name: 'billing' })
    mesh.run(2000)
    convergence.sweep()
    expect([convergence.tookMs.length, convergence.excluded]).toEqual([1, 1])
  })
})
