import { afterEach, describe, expect, test } from 'vitest'
import { checkAtRest } from './checkers.ts'
import { Convergence } from './convergence.ts'
import { randomFor } from './rng.ts'
import { RouterThreads } from './router-threads.ts'
import { SimMesh } from './sim-mesh.ts'

const SEED = 11
const NODES = 12

let ended: RouterThreads[] = []

afterEach(() => {
  for (const threads of ended.splice(0)) threads.end()
  ended = []
})

/** A mesh that lives through services and nodes that come and go, with routers in so many other threads. */
function lively(count: number) {
  const threads = count === 0 ? undefined : new RouterThreads(count, { seed: SEED, signatures: 'stub', router: {} })
  if (threads !== undefined) ended.push(threads)
  const mesh = new SimMesh({
    ...{ seed: SEED, thinkMs: 1, conditions: () => ({ latencyMs: 15, jitterMs: 3, loss: 0.05 }) },
    // Small enough that links are chosen by distance, which is asked for in the other thread.
    overlay: { links: { fullMeshMax: 6, nearest: 3, random: 2 } },
    ...(threads !== undefined && { threads }),
  })
  const convergence = new Convergence(mesh)
  mesh.observers.push(convergence)
  const random = randomFor(SEED, 'test')
  for (let i = 0; i < NODES; i++) {
    mesh.addNode(`n${i}`, { seeds: i === 0 ? [] : ['n0'] })
    mesh.serve(`n${i}`, { name: `s${i % 5}`, instances: 2 })
    mesh.run(100)
  }
  mesh.run(20_000)
  for (let i = 0; i < 30; i++) {
    const name = `n${1 + Math.floor(random() * (NODES - 1))}`
    if (random() < 0.2) mesh.crash(name)
    else if (!mesh.node(name).alive) mesh.restart(name)
    else mesh.serve(name, { name: `s${i % 5}`, instances: Math.floor(random() * 3) })
    mesh.run(500)
    convergence.sweep()
  }
  for (const node of mesh.nodes.values()) if (!node.alive) mesh.restart(node.name)
  const violations = checkAtRest(mesh, 30_000, convergence)
  return { mesh, threads, convergence, violations }
}

describe('routers in other threads', () => {
  test('do what they do in one thread, to the last byte and figure, however many threads there are', () => {
    const [alone, one, two] = [0, 1, 2].map(count => {
      const { mesh, threads, convergence, violations } = lively(count)
      const all = [mesh.signing, ...(threads?.signatures() ?? [])]
      const checked = all.reduce((sum, signing) => sum + signing.checked, 0)
      const { tookMs, changes, abandoned } = convergence
      return { transcript: mesh.transcript?.digest(), tookMs, changes, abandoned, checked, violations }
    })
    expect(alone?.violations).toEqual([])
    expect(alone?.tookMs.length).toBeGreaterThan(5)
    expect(one).toEqual(alone)
    expect(two).toEqual(alone)
  })

  test('are asked as those in this thread are', () => {
    const { mesh } = lively(1)
    const nodes = mesh.living()
    const elsewhere = nodes.filter(({ protocol }) => protocol.isElsewhere)
    expect(elsewhere.length).toBeGreaterThan(0)
    expect(elsewhere.length).toBeLessThan(nodes.length)
    const owner = mesh.node('n1')
    for (const { protocol } of nodes) {
      expect([...protocol.servicesOf(owner.id)].sort()).toEqual([...owner.services.keys()].sort())
      for (const service of owner.services.values()) expect(protocol.shows(owner.id, service)).toBe(true)
      expect(protocol.has(owner.id, 'nobody-has-it')).toBe(false)
      expect(protocol.versions()?.size).toBe(NODES)
      expect(protocol.routes()).toBe(nodes.reduce((sum, { services }) => sum + services.size, 0))
      expect([protocol.reaches(owner.id), protocol.hasNews, protocol.refused().size]).toEqual([true, false, 0])
      expect(protocol.heldBytes()).toBeGreaterThan(0)
      if (protocol !== owner.protocol) expect(protocol.path(owner.id)?.at(-1)).toBe(owner.id)
    }
  })

  test('that throw are crashes of their nodes, as in this thread', () => {
    const { mesh } = lively(1)
    for (const { protocol } of mesh.living()) {
      const finish = protocol.isElsewhere && protocol.begin({ type: 'local', service: null as never }, mesh.nowMs)
      if (finish) expect(finish).toThrow('in another thread')
    }
  })
})
