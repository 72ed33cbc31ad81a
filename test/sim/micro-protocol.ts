import type { RoundTrips } from '../../router/link-policy.ts'
import type { LocalService, NodeId, ServiceName } from '../../router/model.ts'
import type { RouterEffect, RouterEvent } from '../../router/router.ts'
import type { Outcome, ProtocolSeed, SimProtocol } from './sim-protocol.ts'
import type { Watches } from './watches.ts'

/** The ancestor's constants, by their names there (go-micro v2.9.1, network/default.go, router/default.go). */
const ADVERTISE_EVENTS_TICK_MS = 10_000
const SYNC_TIME_MS = 60_000
const PRUNE_TIME_MS = 90_000
const KEEP_ALIVE_TIME_MS = 30_000
const ADVERTISE_PEERS = 3
/** One announce tick each second, to at most three peers that are due. */
const ANNOUNCE_TIME_MS = 1000
const ANNOUNCE_PEERS = 3

/** A route as protobuf has it: service, address, gateway, network, router, link, metric. */
interface MicroRoute {
  readonly service: ServiceName
  readonly router: NodeId
  readonly gateway: NodeId
  readonly local: boolean
}

interface MicroEvent {
  readonly isDelete: boolean
  readonly route: MicroRoute
}

type MicroMessage =
  | { type: 'advert'; id: NodeId; events: MicroEvent[] }
  | { type: 'sync'; id: NodeId; routes: MicroRoute[] }
  | { type: 'peer'; id: NodeId }

export interface MicroOptions {
  /**
   * `best`, as the authors' own hosted mesh ran it: routes heard are advertised on. `local`, the default there: a node
   * tells only of its own. `best` spreads far faster, so it is what flatmesh is compared with.
   */
  readonly strategy: 'best' | 'local'
}

/**
 * The gossip of `micro network` v2, as a model to compare with: adverts batched for 10 s to 3 random peers (picked with
 * replacement), a full sync to one random peer each minute that only ever adds, peers and their routes pruned after 90 s
 * of silence, no versions, no tombstones.
 *
 * Kinder than the original: it gets all links at once (the original dials its seeds only), messages are this size at most
 * (the original sends its whole peer tree each time), queues do not overflow, and one of several instances that goes does
 * not delete the service. Metrics are left out: they choose among routes, they do not spread them.
 */
export class MicroProtocol implements SimProtocol {
  readonly carriesHealth = false
  readonly hasNews = false
  private readonly self: NodeId
  private readonly random: () => number
  private readonly strategy: MicroOptions['strategy']
  private readonly watches: Watches
  private readonly table = new Map<string, MicroRoute>()
  private readonly peers = new Map<NodeId, { seenMs: number; saidMs: number }>()
  private readonly batch = new Map<string, MicroEvent>()
  private effects: RouterEffect[] = []
  private advertiseAtMs = Number.POSITIVE_INFINITY
  private announceAtMs = Number.POSITIVE_INFINITY
  private syncAtMs = Number.POSITIVE_INFINITY
  private pruneAtMs = Number.POSITIVE_INFINITY
  private wakeAtMs = Number.POSITIVE_INFINITY

  constructor(deps: ProtocolSeed, options: MicroOptions) {
    this.self = deps.self
    this.random = () => deps.random()
    this.strategy = options.strategy
    this.watches = deps.watches
  }

  begin(event: RouterEvent, nowMs: number): () => Outcome {
    const effects = this.step(event, nowMs)
    const sights = this.watches.look(this, effects)
    return () => ({ effects, sights })
  }

  private step(event: RouterEvent, nowMs: number): RouterEffect[] {
    this.effects = []
    switch (event.type) {
      case 'self':
        this.startTimers(nowMs)
        break
      case 'local':
        this.onLocal(event.service.name, event.service.instances > 0)
        break
      case 'link-up':
        this.peers.set(event.to, { seenMs: nowMs, saidMs: nowMs })
        this.effects.push({ type: 'node-changed', node: event.to, info: PLACEHOLDER })
        this.sendSync(event.to)
        break
      case 'frame':
        this.onMessage(event.from, event.bytes, nowMs)
        break
      case 'link-down':
      case 'rtt':
      case 'wake':
        break
    }
    this.runTimers(nowMs)
    return this.effects
  }

  has(owner: NodeId, service: ServiceName): boolean {
    return this.table.has(keyOf(owner, service))
  }

  /** It knows only that there is a route: counts and health do not travel. */
  shows(owner: NodeId, service: LocalService): boolean {
    return this.has(owner, service.name) === service.instances > 0
  }

  /** A route in its table is a route that calls take. */
  reaches(): boolean {
    return true
  }

  servicesOf(owner: NodeId): Iterable<ServiceName> {
    return [...this.table.values()].filter(route => route.router === owner).map(route => route.service)
  }

  rttMs(): number | undefined {
    return undefined
  }

  path(): readonly NodeId[] | undefined {
    return undefined
  }

  beginNearest(): () => RoundTrips {
    return () => new Map<NodeId, number>()
  }

  versions(): undefined {
    return undefined
  }

  refused(): ReadonlyMap<string, number> {
    return new Map()
  }

  routes(): number {
    return this.table.size
  }

  heldBytes(): number {
    return 0
  }

  private startTimers(nowMs: number): void {
    // Daemons start when they start: their tickers are not in step.
    const phase = (periodMs: number): number => nowMs + this.random() * periodMs
    this.advertiseAtMs = phase(ADVERTISE_EVENTS_TICK_MS)
    this.announceAtMs = phase(ANNOUNCE_TIME_MS)
    this.syncAtMs = phase(SYNC_TIME_MS)
    this.pruneAtMs = phase(PRUNE_TIME_MS)
  }

  private onLocal(service: ServiceName, isServed: boolean): void {
    const route = { service, router: this.self, gateway: '', local: true }
    if (isServed) this.create(route)
    else this.remove(route)
  }

  private create(route: MicroRoute): void {
    const key = keyOf(route.router, route.service)
    if (this.table.has(key)) return
    this.table.set(key, route)
    this.record({ isDelete: false, route })
  }

  private remove(route: MicroRoute): void {
    if (this.table.delete(keyOf(route.router, route.service))) this.record({ isDelete: true, route })
  }

  private record(event: MicroEvent): void {
    this.effects.push({ type: 'routes-changed', service: event.route.service })
    if (this.strategy === 'local' && !event.route.local) return
    const key = keyOf(event.route.router, event.route.service)
    // Of several events of one route inside a batch only the first is advertised: the original never stores the later one.
    if (!this.batch.has(key)) this.batch.set(key, event)
  }

  private onMessage(from: NodeId, bytes: Uint8Array, nowMs: number): void {
    const message = JSON.parse(new TextDecoder().decode(bytes)) as MicroMessage
    const peer = this.peers.get(from)
    if (peer === undefined) this.peers.set(from, { seenMs: nowMs, saidMs: nowMs })
    else peer.seenMs = nowMs
    if (message.type === 'advert') {
      for (const { isDelete, route } of message.events) {
        if (route.router === this.self) continue
        const heard = { ...route, gateway: from, local: false }
        if (isDelete) this.remove(heard)
        else this.create(heard)
      }
    } else if (message.type === 'sync') {
      for (const route of message.routes) {
        if (route.router !== this.self) this.create({ ...route, gateway: from, local: false })
      }
      this.send(from, { type: 'peer', id: this.self })
    }
  }

  private runTimers(nowMs: number): void {
    const ids = [...this.peers.keys()]
    if (nowMs >= this.advertiseAtMs) {
      this.advertiseAtMs += ADVERTISE_EVENTS_TICK_MS
      const events = [...this.batch.values()]
      this.batch.clear()
      if (events.length > 0) {
        const chosen = new Set<NodeId>()
        for (let i = 0; i < ADVERTISE_PEERS && ids.length > 0; i++) chosen.add(this.pick(ids))
        for (const to of chosen) this.send(to, { type: 'advert', id: this.self, events })
      }
    }
    if (nowMs >= this.announceAtMs) {
      this.announceAtMs += ANNOUNCE_TIME_MS
      const due = ids.filter(id => nowMs - (this.peers.get(id)?.saidMs ?? nowMs) > KEEP_ALIVE_TIME_MS)
      for (const id of due.slice(0, ANNOUNCE_PEERS)) {
        this.peers.set(id, { seenMs: this.peers.get(id)?.seenMs ?? nowMs, saidMs: nowMs })
        this.send(id, { type: 'peer', id: this.self })
      }
    }
    if (nowMs >= this.syncAtMs) {
      this.syncAtMs += SYNC_TIME_MS
      if (ids.length > 0) this.sendSync(this.pick(ids))
    }
    if (nowMs >= this.pruneAtMs) {
      this.pruneAtMs += PRUNE_TIME_MS
      this.prune(nowMs)
    }
    const atMs = Math.min(this.advertiseAtMs, this.announceAtMs, this.syncAtMs, this.pruneAtMs)
    if (atMs !== this.wakeAtMs) this.effects.push({ type: 'wake-at', atMs })
    this.wakeAtMs = atMs
  }

  /** A peer that has been mute is dropped, with the routes it owns and those that lead through it. */
  private prune(nowMs: number): void {
    for (const [id, { seenMs }] of this.peers) {
      if (nowMs - seenMs <= PRUNE_TIME_MS) continue
      this.peers.delete(id)
      for (const route of [...this.table.values()]) {
        if (route.router === id || route.gateway === id) this.remove(route)
      }
    }
  }

  private sendSync(to: NodeId): void {
    const routes = [...this.table.values()].filter(route => this.strategy === 'best' || route.local)
    this.send(to, { type: 'sync', id: this.self, routes })
  }

  private send(to: NodeId, message: MicroMessage): void {
    this.effects.push({ type: 'send', to, bytes: new TextEncoder().encode(JSON.stringify(message)) })
  }

  private pick(ids: readonly NodeId[]): NodeId {
    return ids[Math.floor(this.random() * ids.length)] as NodeId
  }
}

const PLACEHOLDER = { name: '', region: '', version: '', overlay: [], calls: [], state: 'up' } as const

function keyOf(router: NodeId, service: ServiceName): string {
  return `${router} ${service}`
}
