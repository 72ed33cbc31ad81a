import { describe, expect, test } from 'vitest'
import { SimMesh, type SimMeshOptions } from './sim-mesh.ts'
import type { SimNode } from './sim-node.ts'
import type { OverlayOptions } from './sim-overlay.ts'

function pair(overlay: Partial<OverlayOptions> = {}, options: Partial<SimMeshOptions> = {}): SimMesh {
  const mesh = new SimMesh({ seed: 1, conditions: () => ({ latencyMs: 10 }), overlay, ...options })
  mesh.addNode('a')
  mesh.addNode('b', { seeds: ['a'] })
  return mesh
}

function isLinked(mesh: SimMesh, from: string, to: string): boolean {
  return mesh.node(from).ends.has(mesh.node(to).id)
}

/** When, from now, `from` gives up its link, in steps of 10 ms. */
function downAfterMs(mesh: SimMesh, from: string, to: string): number {
  const fromMs = mesh.nowMs
  while (isLinked(mesh, from, to) && mesh.nowMs - fromMs < 10_000) mesh.run(10)
  return mesh.nowMs - fromMs
}

describe.each(['exact', 'modelled'] as const)('a link with %s heartbeats', heartbeats => {
  test('comes up after three round trips', () => {
    const mesh = pair({ heartbeats })
    mesh.run(55)
    expect(isLinked(mesh, 'a', 'b')).toBe(false)
    mesh.run(10)
    expect([isLinked(mesh, 'a', 'b'), isLinked(mesh, 'b', 'a')]).toEqual([true, true])
  })

  test('falls 2.5 to 2.75 s after the last byte when the other end dies, and is back soon after its restart', () => {
    const mesh = pair({ heartbeats })
    mesh.run(5000)
    mesh.crash('b')
    const tookMs = downAfterMs(mesh, 'a', 'b')
    // The last byte may be as old as a heartbeat's period.
    expect(tookMs).toBeGreaterThan(1500)
    expect(tookMs).toBeLessThanOrEqual(2770)
    mesh.restart('b')
    mesh.run(6000)
    expect(isLinked(mesh, 'a', 'b')).toBe(true)
  })

  test('falls at both ends of a one-way cut: one hears nothing, the other is told', () => {
    const mesh = pair({ heartbeats })
    mesh.run(5000)
    mesh.cut('a', 'b', true)
    mesh.run(2800)
    expect([isLinked(mesh, 'a', 'b'), isLinked(mesh, 'b', 'a')]).toEqual([false, false])
  })

  test('outlives a cut that is shorter than the detection', () => {
    const mesh = pair({ heartbeats })
    mesh.run(5000)
    const before = mesh.node('a').ends.get(mesh.node('b').id)
    mesh.cut('a', 'b')
    mesh.run(1000)
    mesh.heal('a', 'b')
    mesh.run(5000)
    expect(mesh.node('a').ends.get(mesh.node('b').id)).toBe(before)
  })
})

test('a process that ends is noticed at once, because its system closes the connections', () => {
  const mesh = pair()
  mesh.run(5000)
  mesh.stop('b')
  expect(downAfterMs(mesh, 'a', 'b')).toBeLessThanOrEqual(20)
})

test('a frozen node takes up what came meanwhile when it thaws', () => {
  const mesh = pair()
  mesh.run(5000)
  mesh.freeze('b')
  mesh.serve('a', { name: 'orders' })
  mesh.run(1000)
  expect(mesh.node('b').protocol.has(mesh.node('a').id, 'orders')).toBe(false)
  mesh.thaw('b')
  expect(mesh.node('b').protocol.has(mesh.node('a').id, 'orders')).toBe(true)
})

test('two that dial each other at once end with one link', () => {
  const mesh = new SimMesh({ seed: 1, conditions: () => ({ latencyMs: 10 }) })
  mesh.addNode('a')
  mesh.addNode('b')
  for (const [from, to] of [['a', 'b'] as const, ['b', 'a'] as const]) {
    mesh.node(from).known.add(mesh.node(to).id)
    mesh.overlay.chooseSoon(mesh.node(from))
  }
  mesh.run(2000)
  const [mine, theirs] = [mesh.node('a').ends.get(mesh.node('b').id), mesh.node('b').ends.get(mesh.node('a').id)]
  expect(mine?.other).toBe(theirs)
  expect(theirs?.other).toBe(mine)
})

test('a clock that is wrong in rate and offset changes no outcome', () => {
  const mesh = new SimMesh({ seed: 1, conditions: () => ({ latencyMs: 10 }) })
  mesh.addNode('a', { clock: { rate: 1.001, offsetMs: 1e9, wallAheadMs: -3_600_000 } })
  mesh.addNode('b', { seeds: ['a'], clock: { rate: 0.999, offsetMs: -5e8 } })
  mesh.serve('a', { name: 'orders' })
  mesh.settle()
  mesh.run(60_000)
  expect(isLinked(mesh, 'b', 'a')).toBe(true)
  expect(mesh.node('b').protocol.has(mesh.node('a').id, 'orders')).toBe(true)
})

test('past the size of a full mesh a node keeps its share of links, not all', () => {
  const links = { fullMeshMax: 8, nearest: 3, random: 3, called: 0 }
  const conditions = (a: SimNode, b: SimNode) => ({ latencyMs: 1 + ((a.index * 7 + b.index * 7) % 30) })
  const mesh = new SimMesh({ seed: 1, conditions, overlay: { links } })
  mesh.addNode('n0')
  for (let i = 1; i < 30; i++) mesh.addNode(`n${i}`, { seeds: ['n0'] })
  mesh.run(90_000)
  const counts = [...mesh.nodes.values()].map(node => node.ends.size)
  expect(mesh.components()).toHaveLength(1)
  expect(Math.max(...counts)).toBeLessThan(29)
  expect(counts.reduce((sum, count) => sum + count, 0) / 30).toBeLessThanOrEqual(2 * 6)
})
