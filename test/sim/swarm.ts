import { checkAtRest, type Violation } from './checkers.ts'
import { Convergence } from './convergence.ts'
import { pickOne, randomFor, shuffle } from './rng.ts'
import { SimMesh } from './sim-mesh.ts'
import type { SimNode } from './sim-node.ts'
import { createTopology, TOPOLOGIES } from './topology.ts'
import type { WireConditions } from './wire.ts'

export interface SwarmResult {
  readonly violations: readonly Violation[]
  /** What the seed made of it, for people. */
  readonly shape: string
  readonly transcript: string
}

export interface SwarmOptions {
  /** Most nodes a seed may ask for. */
  readonly nodesMax: number
  /** Rounds of trouble and peace, at most. */
  readonly roundsMax: number
}

/** A few dozen nodes find what a few hundred find, a hundred times sooner. */
export const SWARM_DEFAULTS: SwarmOptions = { nodesMax: 16, roundsMax: 3 }

const SERVICES = ['alpha', 'beta', 'gamma', 'delta', 'epsilon', 'zeta']
/** In peace, all must be well within so long: a redial (5 s), a death (3 s), digest rounds over lossy wires. */
const REST_MS = 40_000
/** Silence after which a connection is given up, about. */
const BEHIND_MS_MAX = 3000

/**
 * One seed of the swarm: topology, size, rates of loss, jitter and churn, and every fault come from it. Rounds of trouble
 * are followed by peace, in which the checkers must find all well.
 */
export function runSwarmSeed(seed: number, options: SwarmOptions = SWARM_DEFAULTS): SwarmResult {
  return new Swarm(seed, options).execute()
}

class Swarm {
  private readonly random: () => number
  private readonly mesh: SimMesh
  private readonly convergence: Convergence
  private readonly shape: string
  private readonly rounds: number
  private readonly loss: number
  /** Of its own, so that the nodes that pass nothing on change nothing else. */
  private readonly relayRandom: () => number
  /** Share of the nodes that pass nothing on between others. */
  private readonly deadEnds: number
  /** Most troubles at a time. */
  private readonly fury: number
  private isPeace = false

  constructor(seed: number, options: SwarmOptions) {
    this.random = randomFor(seed, 'swarm')
    const { random } = this
    const count = 2 + Math.floor(random() * (options.nodesMax - 1))
    const topologyName = pickOne(random, TOPOLOGIES)
    const topology = createTopology(topologyName, count, seed)
    const base: Partial<WireConditions> = {
      loss: pickOne(random, [0, 0, 0.01, 0.05, 0.15]),
      duplicate: pickOne(random, [0, 0, 0.02, 0.2]),
      reorder: pickOne(random, [0, 0, 0.05, 0.3]),
      bytesPerSecond: pickOne(random, [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY, 200_000, 20_000]),
    }
    this.loss = base.loss ?? 0
    const jitterRatio = pickOne(random, [0, 0.05, 0.5])
    const heartbeats = pickOne(random, ['exact', 'modelled'] as const)
    const retransmit = random() < 0.3
    const fullMeshMax = pickOne(random, [64, 64, 6])
    this.rounds = 1 + Math.floor(random() * options.roundsMax)
    this.fury = 1 + Math.floor(random() * 8)
    this.relayRandom = randomFor(seed, 'swarm relays')
    this.deadEnds = pickOne(this.relayRandom, [0, 0, 0.1, 0.4])
    this.shape = [
      `${count} nodes, ${topologyName}, ${heartbeats} heartbeats, ${retransmit ? 'retransmit' : 'frames vanish'}`,
      `loss ${base.loss}, duplicate ${base.duplicate}, reorder ${base.reorder}, ${base.bytesPerSecond} B/s`,
      `jitter ${jitterRatio}, full mesh up to ${fullMeshMax}, ${this.deadEnds} relay nothing, ${this.rounds} rounds of ${this.fury} troubles`,
    ].join(', ')
    this.mesh = new SimMesh({
      seed,
      overlay: { heartbeats, retransmit, links: { fullMeshMax, nearest: 3, random: 3, called: 2 } },
      conditions: (from, to) => {
        const rttMs = topology.rttMs(from.index, to.index)
        return rttMs === undefined ? undefined : { ...base, latencyMs: rttMs / 2, jitterMs: (rttMs / 2) * jitterRatio }
      },
    })
    this.convergence = new Convergence(this.mesh)
    this.mesh.observers.push(this.convergence)
    for (const { name, region } of topology.nodes) this.addNode(name, region)
  }

  execute(): SwarmResult {
    const { mesh, random } = this
    mesh.run(random() * 20_000)
    const violations: Violation[] = []
    for (let round = 0; round < this.rounds && violations.length === 0; round++) {
      this.isPeace = false
      const untilMs = mesh.nowMs + 2000 + random() * 30_000
      while (mesh.nowMs < untilMs) {
        this.trouble()
        mesh.run((random() * 8000) / this.fury)
        this.convergence.sweep()
      }
      this.makePeace()
      violations.push(...checkAtRest(mesh, REST_MS, this.convergence))
    }
    return { violations, shape: this.shape, transcript: mesh.transcript?.digest() ?? '' }
  }

  private addNode(name: string, region: string): void {
    const { random, mesh } = this
    // Clocks: up to 200 ppm off, calendars up to an hour.
    const clock = {
      rate: 1 + (random() - 0.5) * 4e-4,
      offsetMs: random() * 1e9,
      wallAheadMs: (random() - 0.5) * 7_200_000,
    }
    const node = mesh.addNode(name, { region, clock, relays: this.relayRandom() >= this.deadEnds })
    for (const other of mesh.nodes.values()) {
      if (other === node || mesh.overlay.wire(node, other) === undefined) continue
      node.known.add(other.id)
      node.seeds.add(other.id)
      other.known.add(node.id)
      other.seeds.add(node.id)
      mesh.overlay.chooseSoon(other)
    }
    mesh.overlay.chooseSoon(node)
    for (const service of shuffle(random, SERVICES).slice(0, Math.floor(random() * 4))) this.serve(name, service)
  }

  private serve(node: string, service: string): void {
    const instances = 1 + Math.floor(this.random() * 3)
    this.mesh.serve(node, { name: service, instances, healthy: Math.floor(this.random() * (instances + 1)) })
  }

  /** One fault or one change. All draws happen whether or not they are used. */
  private trouble(): void {
    const { mesh, random } = this
    const node = pickOne(random, [...mesh.nodes.values()])
    const other = pickOne(random, [...mesh.nodes.values()])
    const [kind, share, lastsMs] = [random(), random(), random() * 8000]
    const service = pickOne(random, SERVICES)
    if (kind < 0.3) return this.serve(node.name, service)
    if (kind < 0.45) return mesh.withdraw(node.name, service)
    if (kind < 0.55)
      return this.forAWhile(
        lastsMs,
        () => mesh.cut(node.name, other.name),
        () => mesh.heal(node.name, other.name),
      )
    if (kind < 0.62) {
      return this.forAWhile(
        lastsMs,
        () => mesh.cut(node.name, other.name, true),
        () => mesh.heal(node.name, other.name),
      )
    }
    if (kind < 0.68) return this.flap(node, other, share)
    if (kind < 0.74) return this.splitAtRandom(share, lastsMs)
    if (kind < 0.84) return this.lose(node, share, lastsMs)
    if (kind < 0.9)
      return this.forAWhile(
        lastsMs,
        () => mesh.freeze(node.name),
        () => mesh.thaw(node.name),
      )
    if (kind < 0.94) return mesh.restart(node.name, { state: share < 0.7, clock: share < 0.3 ? 'lost' : 'kept' })
    if (kind < 0.97) return mesh.change(node.name, other.name, { loss: share * 0.5 })
    return mesh.change(node.name, other.name, { latencyMs: 1 + share * 300 })
  }

  private forAWhile(ms: number, begin: () => void, end: () => void): void {
    begin()
    this.mesh.queue.after(ms, () => {
      if (!this.isPeace) end()
    })
  }

  private flap(a: SimNode, b: SimNode, share: number): void {
    for (let i = 0; i < 6; i++) {
      this.mesh.queue.after(i * (500 + share * 4000), () => {
        if (this.isPeace) return
        if (i % 2 === 0) this.mesh.cut(a.name, b.name)
        else this.mesh.heal(a.name, b.name)
      })
    }
  }

  private splitAtRandom(share: number, lastsMs: number): void {
    const names = [...this.mesh.nodes.keys()]
    const cut = Math.floor(share * names.length)
    const groups = [names.slice(0, cut), names.slice(cut)]
    this.forAWhile(
      2 * lastsMs,
      () => this.mesh.split(groups),
      () => this.mesh.healSplit(groups),
    )
  }

  private lose(node: SimNode, share: number, lastsMs: number): void {
    if (!node.alive) return
    this.mesh.crash(node.name, share < 0.5)
    const { life } = node
    this.mesh.queue.after(lastsMs, () => {
      if (node.alive || node.life !== life) return
      this.mesh.restart(node.name, { state: share < 0.8, services: share < 0.9, clock: share < 0.1 ? 'lost' : 'kept' })
    })
  }

  /** Mends all: wires pass, who is down comes back or stays away for good, who is frozen thaws. */
  private makePeace(): void {
    const { mesh, random } = this
    this.isPeace = true
    const nodes = [...mesh.nodes.values()]
    for (const node of nodes) {
      if (node.frozen) mesh.thaw(node.name)
      const comesBack = random() < 0.7
      if (!node.alive && comesBack) mesh.restart(node.name)
      for (const other of nodes) {
        const wire = mesh.overlay.wire(node, other)
        if (wire === undefined) continue
        wire.conditions.blocked = false
        wire.conditions.loss = Math.min(wire.conditions.loss, this.loss)
        // A lossy wire over which TCP sends again and again, ever more seldom, may be minutes behind; no heartbeat lets a
        // connection live so long, but modelled ones do.
        if (wire.behindMs(mesh.nowMs) > BEHIND_MS_MAX) wire.startAnew()
      }
    }
  }
}
