import type { LinkPolicyOptions } from '../../router/link-policy.ts'
import type { LocalService, NodeId, NodeInfo, ServiceName } from '../../router/model.ts'
import { NodeNumbers } from '../../router/node-numbers.ts'
import type { RouterEffect, RouterEvent, RouterOptions } from '../../router/router.ts'
import { findDisagreement } from './check-agreement.ts'
import { EventQueue } from './event-queue.ts'
import { randomFor } from './rng.ts'
import { RouterProtocol } from './router-protocol.ts'
import type { RouterThreads } from './router-threads.ts'
import { nodeIdOf, SimSigning } from './signing.ts'
import { type LinkEnd, type SimClock, SimNode } from './sim-node.ts'
import { OVERLAY_DEFAULTS, type OverlayOptions, SimOverlay } from './sim-overlay.ts'
import type { Outcome, ProtocolSeed, SimProtocol } from './sim-protocol.ts'
import { Transcript } from './transcript.ts'
import { type Sights, Watches } from './watches.ts'
import { WIRE_DEFAULTS, type WireConditions } from './wire.ts'

/** Unix milliseconds at which every simulation begins: a round number that looks like a date. */
const EPOCH_MS = 1_800_000_000_000

const NO_SIGHTS: Sights = new Map()

/** What others may want to know as it happens. */
export interface MeshObserver {
  /** A registry changed, at the owner. `service.instances` 0: withdrawn; `before` undefined: it was not offered. */
  onLocal?(owner: SimNode, service: LocalService, before: LocalService | undefined): void
  /** A node's routes of a service may have changed: what of those that are watched it showed just then. */
  onRoutes?(node: SimNode, service: ServiceName, sights: Sights): void
  onUp?(node: SimNode): void
  onDown?(node: SimNode): void
}

export interface SimMeshOptions {
  readonly seed: number
  /** How the wire from one node to another begins; undefined: they have none. Default: as `link` says. */
  readonly conditions?: (from: SimNode, to: SimNode) => Partial<WireConditions> | undefined
  readonly overlay?: Partial<OverlayOptions>
  readonly router?: Partial<RouterOptions>
  readonly signatures?: 'stub' | 'ed25519'
  /** What the nodes run. Default: the router. */
  readonly protocol?: (deps: ProtocolSeed) => SimProtocol
  /** Default: one of its own. False: none, which is a little faster. */
  readonly transcript?: Transcript | false
  /** From an event at a node to what comes of it, milliseconds. Default 0. */
  readonly thinkMs?: number
  /** Where some of the routers work. They have all of `thinkMs` for it, and what comes of it is the same. Default: none, all work here. */
  readonly threads?: RouterThreads
}

export interface NodeOptions {
  readonly region?: string
  /** Nodes it is configured to join through. */
  readonly seeds?: readonly string[]
  readonly clock?: Partial<SimClock>
  readonly services?: readonly LocalService[]
  /** Default: it passes calls on between others. */
  readonly relays?: boolean
  /** How it chooses its links, where that is not as all others do. */
  readonly links?: Partial<LinkPolicyOptions>
}

/** A `step` that threw: always a bug of the router. */
export interface Crash {
  readonly node: string
  readonly atMs: number
  readonly error: unknown
}

/** A mesh that exists in memory and in virtual time only: routers, an overlay, and everything that can happen to them. */
export class SimMesh {
  readonly queue = new EventQueue()
  readonly nodes = new Map<string, SimNode>()
  readonly overlay: SimOverlay
  readonly signing: SimSigning
  readonly transcript: Transcript | undefined
  readonly observers: MeshObserver[] = []
  readonly notes: { node: string; event: string; reason: string }[] = []
  readonly crashes: Crash[] = []
  private readonly byId = new Map<NodeId, SimNode>()
  private readonly links = new Map<string, Partial<WireConditions>>()
  private readonly options: SimMeshOptions
  private readonly incarnationRandom: () => number
  private readonly numbers = new NodeNumbers()
  private readonly watches = new Watches()
  private watched = 0
  /** From an event at a node to what comes of it, milliseconds. */
  readonly thinkMs: number

  constructor(options: SimMeshOptions) {
    this.options = options
    this.thinkMs = options.thinkMs ?? 0
    this.signing = new SimSigning(options.signatures ?? 'stub')
    this.transcript = options.transcript === false ? undefined : (options.transcript ?? new Transcript())
    this.incarnationRandom = randomFor(options.seed, 'incarnation')
    const conditions = options.conditions ?? ((from: SimNode, to: SimNode) => this.links.get(`${from.name} ${to.name}`))
    this.overlay = new SimOverlay(
      {
        queue: this.queue,
        seed: options.seed,
        transcript: this.transcript,
        node: id => this.byId.get(id),
        conditions: (from, to) => {
          const given = conditions(from, to)
          return given === undefined ? undefined : { ...WIRE_DEFAULTS, ...given }
        },
        step: (node, event) => this.step(node, event),
        think: then => this.think(then),
      },
      { ...OVERLAY_DEFAULTS, ...options.overlay },
    )
  }

  get nowMs(): number {
    return this.queue.nowMs
  }

  node(name: string): SimNode {
    const node = this.nodes.get(name)
    if (node === undefined) throw new Error(`simulation: expected the name of a node, found "${name}"; add it first`)
    return node
  }

  /** Names in place of ids, for people. */
  nameOf(id: NodeId): string {
    return this.byId.get(id)?.name ?? id
  }

  living(): SimNode[] {
    return [...this.nodes.values()].filter(node => node.alive)
  }

  // Nodes --------------------------------------------------------------------------------------------------------

  /** A new node that starts now. */
  addNode(name: string, options: NodeOptions = {}): SimNode {
    const id = nodeIdOf(name)
    const identity = { name, id, region: options.region ?? `region-${name}`, index: this.nodes.size }
    const incarnation = this.freshIncarnation(options.clock?.wallAheadMs ?? 0)
    // Nodes are gone through in the order of these numbers: they must not depend on who hears of whom first in which thread.
    this.numbers.take(id)
    this.options.threads?.name(identity.index, id)
    const node = new SimNode(identity, this.makeProtocol(identity, incarnation, 0), incarnation)
    Object.assign(node.clock, options.clock)
    node.relays = options.relays ?? true
    node.links = options.links ?? {}
    for (const seed of options.seeds ?? []) {
      node.seeds.add(this.node(seed).id)
      node.known.add(this.node(seed).id)
    }
    for (const service of options.services ?? []) node.services.set(service.name, service)
    this.nodes.set(name, node)
    this.byId.set(id, node)
    this.start(node)
    return node
  }

  /** Gone without a word. `host`: its machine too, so that not even dials are refused. */
  crash(name: string, host = true): void {
    const node = this.node(name)
    if (!node.alive) return
    this.transcript?.add(this.nowMs, 'crash', name, '')
    this.end(node, !host)
    node.hostUp = !host
  }

  /** The process ends: its connections are closed, and dials are refused. */
  stop(name: string): void {
    this.crash(name, false)
  }

  /**
   * Starts again. It keeps its identity and its registry's services unless `services` is false; the addresses it knew
   * unless `state` is false; and with `clock` lost it takes an incarnation below those it has used.
   */
  restart(name: string, options: { state?: boolean; services?: boolean; clock?: 'kept' | 'lost' } = {}): void {
    const node = this.node(name)
    if (node.alive) this.end(node, true)
    node.incarnation =
      options.clock === 'lost' ? node.incarnation - 10 * 1024 : this.freshIncarnation(node.clock.wallAheadMs)
    if (options.services === false) node.services.clear()
    if (options.state === false) {
      node.known.clear()
      for (const seed of node.seeds) node.known.add(seed)
    }
    node.protocol = this.makeProtocol(node, node.incarnation, node.life)
    node.alive = true
    node.hostUp = true
    node.state = 'up'
    this.start(node)
  }

  freeze(name: string): void {
    this.node(name).frozen = true
  }

  thaw(name: string): void {
    const node = this.node(name)
    node.frozen = false
    for (const run of node.stalled.splice(0)) run()
  }

  /** Says of itself that it takes no new calls. */
  drain(name: string): void {
    const node = this.node(name)
    node.state = 'draining'
    this.step(node, { type: 'self', info: infoOf(node) })
  }

  /** Says of itself whether it passes calls on between others. */
  setRelays(name: string, relays: boolean): void {
    const node = this.node(name)
    node.relays = relays
    this.step(node, { type: 'self', info: infoOf(node) })
  }

  private start(node: SimNode): void {
    node.wakeAtMs = Number.POSITIVE_INFINITY
    node.wakeQueuedAtMs = Number.POSITIVE_INFINITY
    node.aliveSinceMs = this.nowMs
    this.transcript?.add(this.nowMs, 'start', node.name, String(node.incarnation))
    this.step(node, { type: 'self', info: infoOf(node) })
    for (const service of node.services.values()) this.step(node, { type: 'local', service })
    for (const observer of this.observers) observer.onUp?.(node)
    this.overlay.start(node)
  }

  private end(node: SimNode, isTold: boolean): void {
    node.alive = false
    node.frozen = false
    node.life++
    this.overlay.stop(node, isTold)
    for (const observer of this.observers) observer.onDown?.(node)
  }

  private freshIncarnation(wallAheadMs: number): number {
    // As the daemon does: the calendar's milliseconds and ten random bits.
    return Math.floor(EPOCH_MS + this.nowMs + wallAheadMs) * 1024 + Math.floor(this.incarnationRandom() * 1024)
  }

  private makeProtocol(
    { id: self, index }: Pick<SimNode, 'id' | 'index'>,
    incarnation: number,
    life: number,
  ): SimProtocol {
    const { watches } = this
    const elsewhere = this.options.threads?.host(index, incarnation, life)
    if (elsewhere !== undefined) return elsewhere
    const seed = { self, incarnation, random: randomFor(this.options.seed, `protocol ${self} ${life}`), watches }
    if (this.options.protocol !== undefined) return this.options.protocol(seed)
    return new RouterProtocol({ ...seed, signing: this.signing, numbers: this.numbers }, this.options.router ?? {})
  }

  // Services -----------------------------------------------------------------------------------------------------

  /** The node's registry now offers this; 0 instances: no longer. */
  serve(name: string, service: Partial<LocalService> & { name: ServiceName }): void {
    const node = this.node(name)
    const instances = service.instances ?? 1
    const healthy = service.healthy ?? instances
    const local: LocalService = {
      ...{ protocol: 'http', labels: {}, weight: healthy },
      ...service,
      instances,
      healthy,
    }
    const before = node.services.get(local.name)
    if (instances > 0) node.services.set(local.name, local)
    else node.services.delete(local.name)
    const isSame = before === undefined ? instances === 0 : JSON.stringify(before) === JSON.stringify(local)
    if (!node.alive || isSame) return
    this.transcript?.add(this.nowMs, `local-${instances}-${healthy}`, name, local.name)
    for (const observer of this.observers) observer.onLocal?.(node, local, before)
    this.step(node, { type: 'local', service: local })
  }

  withdraw(name: string, service: ServiceName): void {
    this.serve(name, { name: service, instances: 0 })
  }

  /** From now on observers are told whether nodes hold this route and show it like this. Answers the number of the watch. */
  watch(owner: SimNode, service: LocalService): number {
    this.watched++
    this.watches.add(owner.id, service, this.watched)
    this.options.threads?.watch(owner.index, service, this.watched)
    return this.watched
  }

  unwatch(owner: SimNode, service: ServiceName): void {
    this.watches.delete(owner.id, service)
    this.options.threads?.unwatch(owner.index, service)
  }

  /** Living nodes that hold the route. */
  holders(owner: SimNode, service: ServiceName): SimNode[] {
    const elsewhere = new Set(this.options.threads?.holders(owner.index, service))
    return this.living().filter(node =>
      node.protocol.isElsewhere === true ? elsewhere.has(node.index) : node.protocol.has(owner.id, service),
    )
  }

  // Network ------------------------------------------------------------------------------------------------------

  /** Lays a wire between two nodes and gives each the other's address. */
  link(a: string, b: string, conditions: Partial<WireConditions>): void {
    this.links.set(`${a} ${b}`, conditions)
    this.links.set(`${b} ${a}`, conditions)
    const [from, to] = [this.node(a), this.node(b)]
    this.overlay.rewire(from, to)
    from.known.add(to.id)
    to.known.add(from.id)
    this.overlay.chooseSoon(from)
    this.overlay.chooseSoon(to)
  }

  /** Changes how the wire from `a` to `b` behaves, and the way back too unless `oneWay`. Nodes without a wire are left alone. */
  change(a: string, b: string, conditions: Partial<WireConditions>, oneWay = false): void {
    const [from, to] = [this.node(a), this.node(b)]
    this.transcript?.add(this.nowMs, JSON.stringify(conditions), a, b)
    Object.assign(this.overlay.wire(from, to)?.conditions ?? {}, conditions)
    if (!oneWay) Object.assign(this.overlay.wire(to, from)?.conditions ?? {}, conditions)
  }

  /** Every packet between the two is lost from now on; nobody is told. */
  cut(a: string, b: string, oneWay = false): void {
    this.change(a, b, { blocked: true }, oneWay)
  }

  heal(a: string, b: string): void {
    this.change(a, b, { blocked: false })
  }

  /** Cuts every wire between nodes of different groups. Nodes in no group keep theirs. */
  split(groups: readonly (readonly string[])[]): void {
    this.acrossGroups(groups, (a, b) => this.cut(a, b))
  }

  healSplit(groups: readonly (readonly string[])[]): void {
    this.acrossGroups(groups, (a, b) => this.heal(a, b))
  }

  private acrossGroups(groups: readonly (readonly string[])[], apply: (a: string, b: string) => void): void {
    for (const [i, group] of groups.entries()) {
      for (const other of groups.slice(i + 1)) for (const a of group) for (const b of other) apply(a, b)
    }
  }

  // Time ---------------------------------------------------------------------------------------------------------

  run(ms: number): void {
    this.queue.runUntil(this.queue.nowMs + ms)
  }

  /** Runs until links are as they should be and all who are connected know the same; answers how long that took, milliseconds. */
  settle(withinMs = 60_000, stepMs = 10): number {
    const fromMs = this.nowMs
    // Longer than the routers gather changes: what was just said must have been published.
    this.run(100)
    while (this.nowMs - fromMs < withinMs) {
      this.run(stepMs)
      if (this.unsettled() === undefined) return this.nowMs - fromMs
    }
    throw new Error(`not settled after ${withinMs} ms: ${this.unsettled()}`)
  }

  /** Why the mesh is not at rest, in words; undefined if it is. */
  unsettled(): string | undefined {
    return this.unsettledLink() ?? findDisagreement(this)
  }

  private unsettledLink(): string | undefined {
    for (const node of this.nodes.values()) {
      if (!node.alive || node.frozen) continue
      if (this.overlay.isChoosePlanned(node)) return `${node.name} is about to choose its links`
      if (node.protocol.hasNews) return `${node.name} is about to tell of a link`
      for (const end of node.ends.values()) {
        if (!this.isWorking(end)) return `${node.name} still believes in its link to ${end.peer.name}`
      }
      for (const id of node.wanted) {
        const peer = this.byId.get(id)
        if (peer === undefined || !peer.alive || peer.frozen || node.ends.has(id)) continue
        if (this.overlay.isOpen(node, peer)) return `${node.name} has no link to ${peer.name} yet`
      }
    }
    return undefined
  }

  /** Both ends hold the link and something passes both ways. */
  isWorking(end: LinkEnd): boolean {
    return (
      end.isUp &&
      end.other?.isUp === true &&
      end.peer.alive &&
      !end.peer.frozen &&
      this.overlay.isOpen(end.node, end.peer)
    )
  }

  /** Groups of living nodes that working links connect, largest first. */
  components(): SimNode[][] {
    const groups: SimNode[][] = []
    const seen = new Set<SimNode>()
    for (const start of this.nodes.values()) {
      if (!start.alive || start.frozen || seen.has(start)) continue
      const group = [start]
      seen.add(start)
      for (const node of group) {
        for (const end of node.ends.values()) {
          if (seen.has(end.peer) || !this.isWorking(end)) continue
          seen.add(end.peer)
          group.push(end.peer)
        }
      }
      groups.push(group)
    }
    return groups.sort((a, b) => b.length - a.length)
  }

  // Steps --------------------------------------------------------------------------------------------------------

  private step(node: SimNode, event: RouterEvent): void {
    if (!node.alive) return
    const { life } = node
    const finish = this.careful(node, () => node.protocol.begin(event, node.localMs(this.nowMs)))
    if (finish === undefined) return
    this.think(() => {
      const outcome = this.careful(node, finish)
      if (outcome === undefined || node.life !== life || !node.alive) return
      for (const effect of outcome.effects) this.perform(node, effect, outcome.sights)
    })
  }

  /** What a node does after it has thought: at once, where that takes no time. */
  private think(then: () => void): void {
    if (this.thinkMs === 0) then()
    else this.queue.after(this.thinkMs, then)
  }

  private careful<T>(node: SimNode, run: () => T): T | undefined {
    try {
      return run()
    } catch (error) {
      this.crashes.push({ node: node.name, atMs: this.nowMs, error })
      return undefined
    }
  }

  private perform(node: SimNode, effect: RouterEffect, sights: Outcome['sights']): void {
    switch (effect.type) {
      case 'send':
        return this.overlay.send(node, effect.to, effect.bytes)
      case 'wake-at':
        return this.planWake(node, effect.atMs)
      case 'routes-changed':
        for (const observer of this.observers) {
          observer.onRoutes?.(node, effect.service, sights.get(effect.service) ?? NO_SIGHTS)
        }
        return
      case 'node-changed':
        if (effect.node === node.id) return
        if (effect.info === undefined) node.known.delete(effect.node)
        else if (!node.known.has(effect.node)) {
          node.known.add(effect.node)
          this.overlay.chooseSoon(node)
        }
        return
      case 'note':
        this.notes.push({ node: node.name, event: effect.event, reason: effect.fields.reason ?? '' })
    }
  }

  private planWake(node: SimNode, localMs: number): void {
    node.wakeAtMs = localMs
    this.queueWake(node)
  }

  /** A node puts its wake off with every frame: what is queued already looks again when its time comes, instead of being joined by another. */
  private queueWake(node: SimNode): void {
    const atMs = node.trueMs(node.wakeAtMs)
    if (atMs >= node.wakeQueuedAtMs) return
    node.wakeQueuedAtMs = atMs
    const { life } = node
    const look = (): void => this.lookToWake(node)
    this.queue.at(atMs, () => this.overlay.whenAwake(node, life, look))
  }

  private lookToWake(node: SimNode): void {
    // It was queued anew meanwhile, for an earlier time.
    if (node.wakeQueuedAtMs > this.nowMs) return
    node.wakeQueuedAtMs = Number.POSITIVE_INFINITY
    if (node.trueMs(node.wakeAtMs) > this.nowMs) this.queueWake(node)
    else this.step(node, { type: 'wake' })
  }
}

export function infoOf(node: SimNode): NodeInfo {
  // Addresses of real length: they are part of what gossip costs.
  const octets = `10.${node.index >> 8}.${node.index & 255}.7`
  return {
    name: node.name,
    region: node.region,
    version: '0.1.0',
    overlay: [`/ip4/${octets}/tcp/4700`],
    calls: [`${octets}:4701`],
    state: node.state,
    ...(node.relays ? {} : { relays: false }),
  }
}
