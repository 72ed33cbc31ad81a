import { readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { parseConfig } from '../../daemon/config.ts'
import { decodeServices } from '../../registry/service-schema.ts'
import { MeshError } from '../../router/errors.ts'
import type { Labels, LocalService, Protocol } from '../../router/model.ts'
import { decodeRouteFilter, explainMismatch, matchesFilter } from '../../router/route-filter.ts'
import type { RouteState } from '../../router/table.ts'
import { checkAtRest, type Violation } from './checkers.ts'
import { cloudRttMs } from './cloud-rtts.ts'
import { RouterProtocol } from './router-protocol.ts'
import { SimMesh } from './sim-mesh.ts'
import type { SimNode } from './sim-node.ts'
import type { WireConditions } from './wire.ts'

export interface MeshOptions {
  /** Of all chance in it. Default 1: the same test is the same run, every time. */
  readonly seed?: number
  /** Round trip between regions that neither `link` nor the table of clouds knows, milliseconds. Default 50. */
  readonly rttMs?: number
}

/** What `flatmesh.yaml` says of a node beside its name. */
export interface NodeOptions {
  /** Default: one of its own. */
  readonly region?: string
  /** False: it passes no calls on between others. Default true. */
  readonly relay?: boolean
  /** In a mesh of more nodes than this it keeps links to a few of them. Default 64. */
  readonly fullMeshMax?: number
}

export interface LinkOptions {
  readonly rttMs?: number
  /** Added to each message's way, uniform in 0..this, milliseconds. */
  readonly jitterMs?: number
  /** Share of messages lost, 0..1. */
  readonly loss?: number
}

export interface ServeOptions {
  /** Default 1. */
  readonly instances?: number
  /** Default: all of them. */
  readonly healthy?: number
  readonly protocol?: Protocol
  readonly labels?: Labels
}

/** What a call asks for, as with the fields `x-flatmesh-region` and `x-flatmesh-label`. All that is given must hold. */
export interface Asked {
  /** A region's name, or the beginning of one followed by `*`. */
  readonly region?: string
  readonly labels?: Labels
}

/** One place that can answer calls for a service, or could. */
export interface Place {
  readonly node: string
  readonly region: string
  /** Names of the relays on the way, in order; empty: a direct link, or this node itself. */
  readonly via: readonly string[]
  readonly rttMs: number
  /** What the choice is made by: the round trip and a base cost for each hop, milliseconds. */
  readonly costMs: number
  readonly instances: number
  readonly healthy: number
  /** `ready`, or why it takes no calls now; `not-matching`: it is not one that was asked for. */
  readonly state: RouteState | 'not-matching'
  /** The same in a sentence: why it is first, or why it is not. */
  readonly why: string
}

/** Messages of the overlay, with or without a node's services, are settled within this virtual time, or something is wrong. */
const SETTLE_MS_MAX = 120_000

/** A mesh to be tested, without ports and without waiting: routers as they run in the daemon, in virtual time. */
export function mesh(options: MeshOptions = {}): MeshUnderTest {
  return new MeshUnderTest(options)
}

/**
 * What a test does with a mesh. Every method that changes something returns at once and takes no virtual time; `settle`
 * and `advance` let time pass. Names are those of nodes (`node` in flatmesh.yaml).
 *
 * Errors: an unknown name throws and says which names there are.
 */
export class MeshUnderTest {
  private readonly sim: SimMesh
  private readonly rttMs: number
  private readonly rtts = new Map<string, LinkOptions>()

  constructor(options: MeshOptions) {
    this.rttMs = options.rttMs ?? 50
    this.sim = new SimMesh({
      seed: options.seed ?? 1,
      // Heartbeats by the rule, not one by one: a test of routes wants no noise that it did not ask for.
      overlay: { heartbeats: 'modelled', retransmit: true },
      conditions: (from, to) => this.conditions(from, to),
    })
  }

  /** Names of all nodes, in the order in which they were added. */
  get nodes(): string[] {
    return [...this.sim.nodes.keys()]
  }

  /** Virtual milliseconds since the mesh was made. */
  get nowMs(): number {
    return this.sim.nowMs
  }

  /** Adds a node and starts it. With regions of the table of clouds (`aws-us-east-1`) round trips are the measured ones. */
  node(name: string, { region, relay = true, fullMeshMax }: NodeOptions = {}): this {
    if (this.sim.nodes.has(name)) throw new Error(`mesh: expected a new name, found a second node "${name}"`)
    const links = fullMeshMax === undefined ? {} : { fullMeshMax }
    const node = this.sim.addNode(name, { ...(region !== undefined && { region }), relays: relay, links })
    for (const other of this.sim.nodes.values()) {
      if (other === node) continue
      node.known.add(other.id)
      node.seeds.add(other.id)
      other.known.add(node.id)
      other.seeds.add(node.id)
      this.sim.overlay.chooseSoon(other)
    }
    this.sim.overlay.chooseSoon(node)
    return this
  }

  /**
   * Adds a node for each flatmesh.yaml, with its region, `relay`, `overlay.fullMeshMax` and the services of its file
   * registries: what is simulated is what will be deployed. Services that register over HTTP are not in any file; give them with `serve`.
   *
   * Errors: MeshError `bad-config` or `bad-registry` with every problem, as `flatmesh up` would report it.
   */
  async load(...files: readonly string[]): Promise<this> {
    for (const file of files) {
      const config = parseConfig(readFileSync(file, 'utf8'), file)
      const { region, relay, overlay } = config
      this.node(config.node, { region, relay, fullMeshMax: overlay.fullMeshMax })
      for (const registry of config.registries) {
        if (registry.type !== 'file') continue
        for (const service of await readServices(resolve(dirname(file), registry.path))) {
          this.sim.serve(config.node, service)
        }
      }
    }
    return this
  }

  /** Says how two nodes are joined, before or after they are up. */
  link(a: string, b: string, options: LinkOptions): this {
    this.sim.node(a)
    this.sim.node(b)
    this.rtts.set(pairName(a, b), options)
    this.sim.change(a, b, conditionsOf(options))
    return this
  }

  serve(node: string, service: string, options: ServeOptions = {}): this {
    this.known(node)
    this.sim.serve(node, { ...options, name: service })
    return this
  }

  withdraw(node: string, service: string): this {
    this.known(node)
    this.sim.withdraw(node, service)
    return this
  }

  // Trouble ------------------------------------------------------------------------------------------------------

  /** Nothing passes between the two, and nobody is told. */
  cut(a: string, b: string): this {
    this.known(a, b)
    this.sim.cut(a, b)
    return this
  }

  /** Nothing gets from `a` to `b`; the way back is open. */
  cutOneWay(a: string, b: string): this {
    this.known(a, b)
    this.sim.cut(a, b, true)
    return this
  }

  heal(a: string, b: string): this {
    this.known(a, b)
    this.sim.heal(a, b)
    return this
  }

  /** Cuts everything between the given nodes and all others. */
  isolate(...names: readonly string[]): this {
    this.known(...names)
    this.sim.split([names, this.nodes.filter(name => !names.includes(name))])
    return this
  }

  /** Undoes every cut. */
  healAll(): this {
    for (const [i, a] of this.nodes.entries()) for (const b of this.nodes.slice(i + 1)) this.sim.heal(a, b)
    return this
  }

  /** Changes the way between two nodes. */
  delay(a: string, b: string, options: LinkOptions): this {
    return this.link(a, b, options)
  }

  /** The machine is gone, without a word. */
  crash(...names: readonly string[]): this {
    this.known(...names)
    for (const name of names) this.sim.crash(name)
    return this
  }

  /** Every node of a region is gone, without a word. */
  crashRegion(region: string): this {
    const names = this.sim.living().filter(node => node.region === region)
    if (names.length === 0) throw new Error(`mesh: expected a region with nodes in it, found "${region}"`)
    return this.crash(...names.map(node => node.name))
  }

  /** Starts again with what its registry offered. */
  restart(...names: readonly string[]): this {
    this.known(...names)
    for (const name of names) this.sim.restart(name)
    return this
  }

  freeze(name: string): this {
    this.known(name)
    this.sim.freeze(name)
    return this
  }

  thaw(name: string): this {
    this.known(name)
    this.sim.thaw(name)
    return this
  }

  /** As under `flatmesh up` that was told to stop: it takes no new calls. */
  drain(name: string): this {
    this.known(name)
    this.sim.drain(name)
    return this
  }

  // Time ---------------------------------------------------------------------------------------------------------

  /** Lets virtual time pass: milliseconds, or a text such as `500ms`, `10s`, `5m`, `1h`. */
  advance(time: number | string): this {
    this.sim.run(typeof time === 'number' ? time : parseTime(time))
    return this
  }

  /** Lets time pass until all links are as they should be and all who are connected know the same. Throws if they never are. */
  settle(): this {
    this.sim.settle(SETTLE_MS_MAX)
    return this
  }

  // Questions ----------------------------------------------------------------------------------------------------

  /** Names of the nodes that `name` has a link to, in alphabetical order. */
  neighbours(name: string): string[] {
    this.known(name)
    return [...this.sim.node(name).ends.values()].map(({ peer }) => peer.name).sort()
  }

  /** The place that calls made at `from` go to now; undefined: nobody can answer. `asked`: what the calls ask for. */
  choose(from: string, service: string, asked: Asked = {}): Place | undefined {
    const [first] = this.explain(from, service, asked)
    return first?.state === 'ready' ? first : undefined
  }

  /** Names of the nodes that calls made at `from` would try, in that order. */
  order(from: string, service: string, asked: Asked = {}): string[] {
    return this.explain(from, service, asked)
      .filter(place => place.state === 'ready')
      .map(place => place.node)
  }

  /** Every place of a service as `from` sees it, the chosen one first, those that were not asked for last, each with its reason. */
  explain(from: string, service: string, { region, labels = {} }: Asked = {}): Place[] {
    this.known(from)
    const { protocol, alive } = this.sim.node(from)
    if (!alive || !(protocol instanceof RouterProtocol)) throw new Error(`mesh: ${from} is down, it chooses nothing`)
    const decoded = decodeRouteFilter(
      region,
      Object.entries(labels).map(([key, value]) => `${key}=${value}`),
    )
    if (!decoded.ok) throw new Error(`mesh: ${decoded.problem}`)
    const { filter = {} } = decoded
    const all = protocol.router.table.explain(service)
    const matching = all.filter(route => matchesFilter(filter, route.region, route))
    const best = matching.find(route => route.state === 'ready')
    return [...matching, ...all.filter(route => !matching.includes(route))].map((route, i) => ({
      ...{ node: route.name, region: route.region, instances: route.instances, healthy: route.healthy },
      via: route.path.slice(0, -1).map(id => this.sim.nameOf(id)),
      ...{ rttMs: route.rttMs, costMs: route.costMs },
      state: i < matching.length ? route.state : 'not-matching',
      why: explainMismatch(filter, route.region, route) ?? why(route, best),
    }))
  }

  /** What is wrong with a mesh that has come to rest: tables that differ, routes to what is gone, detours. Empty: nothing. */
  check(): Violation[] {
    return checkAtRest(this.sim, 10_000)
  }

  private known(...names: readonly string[]): void {
    for (const name of names) {
      if (this.sim.nodes.has(name)) continue
      const hint = this.nodes.length === 0 ? 'there are none yet' : `there are ${this.nodes.join(', ')}`
      throw new Error(`mesh: expected the name of a node, found "${name}" (${hint})`)
    }
  }

  private conditions(from: SimNode, to: SimNode): Partial<WireConditions> {
    const given = this.rtts.get(pairName(from.name, to.name))
    const rttMs = given?.rttMs ?? (from.region === to.region ? 1 : cloudRttMs(from.region, to.region)) ?? this.rttMs
    return conditionsOf({ ...given, rttMs })
  }
}

async function readServices(path: string): Promise<LocalService[]> {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (cause) {
    throw new MeshError('bad-registry', `the services file ${path} cannot be read: ${String(cause)}`, { cause })
  }
  const decoded = await decodeServices(text, path)
  if (decoded.services === undefined) throw new MeshError('bad-registry', decoded.problem)
  return decoded.services.map(({ name, protocol, labels, instances }) => ({
    ...{ name, protocol, labels, instances: instances.length, healthy: instances.length },
    weight: instances.reduce((sum, { weight }) => sum + weight, 0),
  }))
}

function why(
  route: { state: RouteState; costMs: number; rttMs: number; path: readonly string[] },
  best?: { costMs: number },
): string {
  switch (route.state) {
    case 'unreachable':
      return 'no way leads there'
    case 'draining':
      return 'it is about to stop and takes no new calls'
    case 'no-healthy-instance':
      return 'none of its instances is healthy'
    case 'ready':
      break
  }
  if (route.path.length === 0) return 'it is here'
  const cost = `${route.costMs.toFixed(1)} ms (round trip ${route.rttMs.toFixed(1)} ms over ${route.path.length} hops)`
  const lead = route.costMs - (best?.costMs ?? route.costMs)
  return lead <= 0 ? `the nearest: ${cost}` : `${lead.toFixed(1)} ms farther than the nearest: ${cost}`
}

function conditionsOf({ rttMs, jitterMs, loss }: LinkOptions): Partial<WireConditions> {
  return {
    ...(rttMs !== undefined && { latencyMs: rttMs / 2 }),
    ...(jitterMs !== undefined && { jitterMs }),
    ...(loss !== undefined && { loss }),
  }
}

function parseTime(text: string): number {
  const [, number = '', unit = ''] = /^([0-9.]+)(ms|s|m|h)$/.exec(text) ?? []
  const factor = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }[unit]
  if (factor === undefined) throw new Error(`mesh: expected a time such as 500ms, 10s, 5m or 1h, found "${text}"`)
  return Number(number) * factor
}

function pairName(a: string, b: string): string {
  return a < b ? `${a} ${b}` : `${b} ${a}`
}
