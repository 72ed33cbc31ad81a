import { decodeLinkInfo, decodeNodeInfo, decodeServiceInfo, entryKind } from './entry.ts'
import { invariant } from './errors.ts'
import type { Candidate, LinkInfo, NodeId, NodeInfo, ServiceInfo, ServiceName } from './model.ts'
import { HOPS_MAX, type Path, shortestPaths } from './paths.ts'

/** Why a node does not take calls for a service now; `ready` if it does. */
export type RouteState = 'ready' | 'no-healthy-instance' | 'draining' | 'unreachable'

/** A route as explained to people: also the ones that take no calls now. */
export interface RouteView extends Candidate {
  readonly state: RouteState
  readonly sinceMs: number
}

interface Route {
  readonly info: ServiceInfo
  readonly sinceMs: number
}

interface Member {
  info: NodeInfo | undefined
  readonly services: Map<ServiceName, Route>
}

const NO_CANDIDATES: readonly Candidate[] = []

/**
 * The flat table of the whole mesh, derived from everyone's entries: who serves what, and how far away.
 * Pure bookkeeping: the same entries give the same answers, on every node that is asked for the same `self`.
 */
export class Table {
  readonly self: NodeId
  private readonly hopsMax: number
  private readonly members = new Map<NodeId, Member>()
  private readonly links = new Map<NodeId, Map<NodeId, LinkInfo>>()
  private readonly owners = new Map<ServiceName, Set<NodeId>>()
  private knownPaths: Map<NodeId, Path> | undefined
  private readonly cache = new Map<ServiceName, readonly Candidate[]>()

  constructor(self: NodeId, hopsMax: number = HOPS_MAX) {
    this.self = self
    this.hopsMax = hopsMax
  }

  /** Takes one entry of an origin's record. Values that cannot be read count as absent. Answers the service whose routes changed. */
  update(origin: NodeId, key: string, value: unknown, nowMs: number): ServiceName | undefined {
    const kind = entryKind(key)
    if (kind === undefined) return undefined
    const member = this.member(origin)
    if (kind.kind === 'node') {
      member.info = decodeNodeInfo(value)
      this.cache.clear()
      return undefined
    }
    if (kind.kind === 'link') {
      this.updateLink(origin, kind.to, decodeLinkInfo(value))
      return undefined
    }
    const info = decodeServiceInfo(value)
    if (info === undefined) {
      if (!member.services.delete(kind.name)) return undefined
      const owners = this.owners.get(kind.name)
      owners?.delete(origin)
      if (owners?.size === 0) this.owners.delete(kind.name)
    } else {
      // An origin repeats what still holds when it tidies up its record: that is no change.
      if (isSame(member.services.get(kind.name)?.info, info)) return undefined
      member.services.set(kind.name, { info, sinceMs: nowMs })
      getOrCreate(this.owners, kind.name, () => new Set<NodeId>()).add(origin)
    }
    this.cache.delete(kind.name)
    return kind.name
  }

  forget(origin: NodeId): void {
    for (const name of this.members.get(origin)?.services.keys() ?? []) {
      const owners = this.owners.get(name)
      owners?.delete(origin)
      if (owners?.size === 0) this.owners.delete(name)
    }
    this.members.delete(origin)
    this.links.delete(origin)
    this.pathsChanged()
  }

  nodeIds(): IterableIterator<NodeId> {
    return this.members.keys()
  }

  nodeInfo(node: NodeId): NodeInfo | undefined {
    return this.members.get(node)?.info
  }

  services(): IterableIterator<ServiceName> {
    return this.owners.keys()
  }

  knows(service: ServiceName): boolean {
    return this.owners.has(service)
  }

  servicesOf(node: NodeId): IterableIterator<ServiceName> {
    return (this.members.get(node)?.services ?? new Map<ServiceName, Route>()).keys()
  }

  /** What `node` says of `service`, whether a path leads there or not. */
  service(node: NodeId, service: ServiceName): ServiceInfo | undefined {
    return this.members.get(node)?.services.get(service)?.info
  }

  /** What `node` says of its link to `to`. */
  link(node: NodeId, to: NodeId): LinkInfo | undefined {
    return this.links.get(node)?.get(to)
  }

  /** How many links `node` states. */
  linkCount(node: NodeId): number {
    return this.links.get(node)?.size ?? 0
  }

  /** How calls get to `node` now; undefined: no way. */
  path(node: NodeId): Path | undefined {
    this.knownPaths ??= shortestPaths(this.self, this.links, this.hopsMax)
    return this.knownPaths.get(node)
  }

  /**
   * Routes a call to `service` may take now, best first.
   *
   * Shape: at most one per node; only nodes that are reachable, not draining, and have a healthy instance. Empty with
   * `knows(service)` true means that nobody can answer just now. The array is shared: do not change it.
   * Units: `costMs` is expected milliseconds of travel: the path's round trip and a base cost for each hop.
   * Errors: none. A path through this node itself is a bug and fails an assertion.
   * Order: cost, then node id, so that nodes with equal records choose equally (R3).
   */
  candidates(service: ServiceName): readonly Candidate[] {
    const cached = this.cache.get(service)
    if (cached !== undefined) return cached
    if (!this.owners.has(service)) return NO_CANDIDATES
    const ready = this.explain(service).filter(route => route.state === 'ready')
    this.cache.set(service, ready)
    return ready
  }

  /** Every route of `service`, also those that take no calls now: ready ones first, each group nearest first. */
  explain(service: ServiceName): RouteView[] {
    const views: RouteView[] = []
    for (const node of this.owners.get(service) ?? []) {
      const view = this.routeView(service, node)
      if (view !== undefined) views.push(view)
    }
    return views.sort(byPreference)
  }

  private routeView(service: ServiceName, node: NodeId): RouteView | undefined {
    const member = this.members.get(node)
    const route = member?.services.get(service)
    if (member?.info === undefined || route === undefined) return undefined
    const path = this.path(node)
    invariant(path === undefined || !path.path.includes(this.self), 'a path leads through the node it starts at')
    return {
      ...route.info,
      service,
      node,
      name: member.info.name,
      region: member.info.region,
      path: path?.path ?? [],
      rttMs: path?.rttMs ?? Number.POSITIVE_INFINITY,
      costMs: path?.costMs ?? Number.POSITIVE_INFINITY,
      state: routeState(route.info, member.info, path),
      sinceMs: route.sinceMs,
    }
  }

  private member(node: NodeId): Member {
    return getOrCreate(this.members, node, () => ({ info: undefined, services: new Map() }))
  }

  private updateLink(origin: NodeId, to: NodeId, info: LinkInfo | undefined): void {
    const links = getOrCreate(this.links, origin, () => new Map<NodeId, LinkInfo>())
    if (isSame(links.get(to), info)) return
    if (info === undefined) links.delete(to)
    else links.set(to, info)
    this.pathsChanged()
  }

  private pathsChanged(): void {
    this.knownPaths = undefined
    this.cache.clear()
  }
}

function routeState(info: ServiceInfo, node: NodeInfo, path: Path | undefined): RouteState {
  if (path === undefined) return 'unreachable'
  if (node.state === 'draining') return 'draining'
  return info.healthy > 0 ? 'ready' : 'no-healthy-instance'
}

function byPreference(a: RouteView, b: RouteView): number {
  if (a.state !== b.state && (a.state === 'ready' || b.state === 'ready')) return a.state === 'ready' ? -1 : 1
  if (a.costMs !== b.costMs) return a.costMs < b.costMs ? -1 : 1
  return a.node < b.node ? -1 : a.node > b.node ? 1 : 0
}

/** Both were made by the decoders of entry.ts: plain data with their keys in one order. */
function isSame(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b)
}

function getOrCreate<K, V>(map: Map<K, V>, key: K, create: () => V): V {
  const known = map.get(key)
  if (known !== undefined) return known
  const created = create()
  map.set(key, created)
  return created
}
