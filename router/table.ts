import type { Entry } from './batch.ts'
import { BoundedMap } from './bounded-map.ts'
import { decodeLinkInfo, encodeLinkInfo, isSameInfo, saidBy } from './entry.ts'
import { invariant } from './errors.ts'
import { LinkGraph, type ShortestPaths } from './link-graph.ts'
import type { Candidate, LinkInfo, NodeId, NodeInfo, ServiceInfo, ServiceName } from './model.ts'
import { NodeMap, NodeNumbers } from './node-numbers.ts'
import { HOPS_MAX, type Path } from './paths.ts'
import { filterKey, matchesFilter, type RouteFilter } from './route-filter.ts'
import { SmallMap } from './small-map.ts'

/** Why a node does not take calls for a service now; `ready` if it does. */
export type RouteState = 'ready' | 'no-healthy-instance' | 'draining' | 'unreachable'

/** A route as explained to people: also the ones that take no calls now. */
export interface RouteView extends Candidate {
  readonly state: RouteState
  readonly sinceMs: number
}

/** Candidates of one question, at most: a call that 64 places could not answer has other troubles than the choice of the 65th. */
export const CANDIDATES_MAX = 64
/** Filters remembered with their answers for one service. Callers ask for a version or a region: a handful. */
const FILTERS_MAX = 32

interface Route {
  readonly member: Member
  info: ServiceInfo
  /** Whole milliseconds: they take no room of their own. */
  sinceMs: number
}

interface Member {
  readonly node: NodeId
  info: NodeInfo | undefined
  readonly services: SmallMap<Route>
  /** As of the paths of `pathsVersion`. */
  costMs: number
  pathsVersion: number
}

/** Who offers one service. `routes` stands in the order in which it was last wanted. */
interface Offer {
  readonly name: ServiceName
  routes: Route[]
  /** What `routes` was put in order by; older than the table's: not in order. */
  version: number
  ready: readonly Candidate[] | undefined
  filtered: Map<string, readonly Candidate[]> | undefined
}

const NO_CANDIDATES: readonly Candidate[] = []

/**
 * The flat table of the whole mesh, derived from everyone's entries: who serves what, and how far away.
 * Pure bookkeeping: the same entries give the same answers, on every node that is asked for the same `self`.
 */
export class Table {
  readonly self: NodeId
  private readonly hopsMax: number
  private readonly members: NodeMap<Member>
  private readonly links: LinkGraph
  private readonly offers = new Map<ServiceName, Offer>()
  /** As last searched. */
  private paths: ShortestPaths | undefined
  /** A link has changed since. */
  private arePathsOld = true
  private pathsVersion = 0
  /** Routes in the table, whether they take calls or not. */
  routeCount = 0
  /** Counts whatever may change the order of candidates: paths, and what nodes say of themselves. */
  private version = 0

  constructor(self: NodeId, hopsMax: number = HOPS_MAX, numbers = new NodeNumbers()) {
    this.self = self
    this.hopsMax = hopsMax
    this.members = new NodeMap(numbers)
    this.links = new LinkGraph(numbers)
  }

  /** Takes one entry of an origin's record. Values that cannot be read count as absent. Answers the service whose routes changed. */
  update(origin: NodeId, entry: Entry, nowMs: number): ServiceName | undefined {
    const said = saidBy(entry)
    if (said.kind === 'link') {
      if (this.links.set(origin, said.toTail, said.link)) this.onLinksChanged()
      return undefined
    }
    if (said.kind === 'unknown') return undefined
    const member = this.member(origin)
    if (said.kind === 'node') {
      member.info = said.info
      if (this.links.setRelays(origin, said.info?.relays !== false)) this.onLinksChanged()
      this.version++
      return undefined
    }
    const { name, info } = said
    const isChanged = info === undefined ? this.withdraw(member, name) : this.offer(member, name, info, nowMs)
    return isChanged ? name : undefined
  }

  /** What this node knows of a link of its own, before it is told to anyone. */
  setOwnLink(to: NodeId, link: LinkInfo | undefined): void {
    if (this.links.set(this.self, to, link && decodeLinkInfo(encodeLinkInfo(link)))) this.onLinksChanged()
  }

  forget(origin: NodeId): void {
    const member = this.members.get(origin)
    if (member !== undefined) for (const name of member.services.keys()) this.withdraw(member, name)
    this.members.delete(origin)
    this.links.forget(origin)
    this.onLinksChanged()
  }

  nodeIds(): IterableIterator<NodeId> {
    return this.members.keys()
  }

  nodeInfo(node: NodeId): NodeInfo | undefined {
    return this.members.get(node)?.info
  }

  services(): IterableIterator<ServiceName> {
    return this.offers.keys()
  }

  knows(service: ServiceName): boolean {
    return this.offers.has(service)
  }

  servicesOf(node: NodeId): readonly ServiceName[] {
    return this.members.get(node)?.services.keys() ?? []
  }

  /** What `node` says of `service`, whether a path leads there or not. */
  service(node: NodeId, service: ServiceName): ServiceInfo | undefined {
    return this.members.get(node)?.services.get(service)?.info
  }

  /** What `node` says of its link to `to`. */
  link(node: NodeId, to: NodeId): LinkInfo | undefined {
    return this.links.get(node, to)
  }

  /** The node that a link's entry leads to, as far as it is known; undefined: of another kind, or to nobody. */
  linkEnd(entry: Entry): NodeId | undefined {
    const said = saidBy(entry)
    return said.kind === 'link' ? this.links.idOf(said.toTail) : undefined
  }

  /** How many links `node` states. */
  statedLinks(node: NodeId): number {
    return this.links.countOf(node)
  }

  /** How many of them their other ends state as well. */
  countedLinks(node: NodeId): number {
    return this.links.countedOf(node)
  }

  /** The nodes that state a link to `node` as it states one to them. */
  linkedTo(node: NodeId): readonly NodeId[] {
    return this.links.linkedTo(node)
  }

  /** Whether a path leads to `node`; `isBesides`: beside the own link to it. Without a search of all paths. */
  isReached(node: NodeId, isBesides: boolean): boolean {
    return this.links.leads(this.self, node, this.hopsMax, isBesides)
  }

  /** Round trips to the nodes that are cheapest to reach, and to all that there is a link to. Others are farther, or no way leads there. */
  nearest(count: number): ReadonlyMap<NodeId, number> {
    const rttMs = this.links.nearest(this.self, count)
    for (const [node, link] of this.links.statedBy(this.self)) rttMs.set(node, link.rttMs)
    return rttMs
  }

  /** Round trip to `node` along its path, milliseconds; undefined: no way. */
  rttMs(node: NodeId): number | undefined {
    return this.knownPaths().rttMs(node)
  }

  /** How calls get to `node` now; undefined: no way. */
  path(node: NodeId): Path | undefined {
    return this.knownPaths().get(node)
  }

  /**
   * Routes a call to `service` may take now, best first.
   *
   * Shape: at most one per node, `CANDIDATES_MAX` in all; only nodes that are reachable, not draining, and have a
   * healthy instance; with a `filter`, only those that it lets through. Empty with `knows(service)` true means that
   * nobody can answer just now. The array is shared: do not change it.
   * Units: `costMs` is expected milliseconds of travel: the path's round trip and a base cost for each hop.
   * Errors: none. A path through this node itself is a bug and fails an assertion.
   * Order: cost, then node id, so that nodes with equal records choose equally (R3). It is kept: a question that was
   * asked before is answered from what stands, and a change puts in order anew what was nearly so.
   */
  candidates(service: ServiceName, filter?: RouteFilter): readonly Candidate[] {
    const offer = this.offers.get(service)
    if (offer === undefined) return NO_CANDIDATES
    this.order(offer)
    if (filter === undefined) {
      offer.ready ??= this.collect(offer, undefined)
      return offer.ready
    }
    const key = filterKey(filter)
    offer.filtered ??= new BoundedMap(FILTERS_MAX)
    const known = offer.filtered.get(key)
    if (known !== undefined) return known
    const found = this.collect(offer, filter)
    offer.filtered.set(key, found)
    return found
  }

  /** Every route of `service`, also those that take no calls now: ready ones first, each group nearest first. */
  explain(service: ServiceName): RouteView[] {
    const offer = this.offers.get(service)
    if (offer === undefined) return []
    this.order(offer)
    return offer.routes.flatMap(route => this.view(offer.name, route) ?? [])
  }

  // Services -----------------------------------------------------------------------------------------------------

  private offer(member: Member, name: ServiceName, info: ServiceInfo, nowMs: number): boolean {
    const known = member.services.get(name)
    // An origin repeats what still holds when it tidies up its record: that is no change.
    if (known !== undefined && isSameInfo(known.info, info)) return false
    const offer = this.offers.get(name) ?? this.open(name)
    if (known !== undefined) {
      known.info = info
      known.sinceMs = Math.floor(nowMs)
    } else {
      const route = { member, info, sinceMs: Math.floor(nowMs) }
      // The name as all others have it: one string, not one for each route.
      member.services.set(offer.name, route)
      offer.routes.push(route)
      this.routeCount++
    }
    offer.version = -1
    return true
  }

  private open(name: ServiceName): Offer {
    const offer = { name, routes: [], version: -1, ready: undefined, filtered: undefined }
    this.offers.set(name, offer)
    return offer
  }

  private withdraw(member: Member, name: ServiceName): boolean {
    const route = member.services.get(name)
    const offer = this.offers.get(name)
    if (route === undefined || offer === undefined) return false
    member.services.delete(name)
    this.routeCount--
    offer.routes.splice(offer.routes.indexOf(route), 1)
    if (offer.routes.length === 0) this.offers.delete(name)
    offer.version = -1
    return true
  }

  // Order --------------------------------------------------------------------------------------------------------

  private order(offer: Offer): void {
    if (offer.version === this.version) return
    const paths = this.knownPaths()
    for (const { member } of offer.routes) {
      if (member.pathsVersion === this.pathsVersion) continue
      member.costMs = paths.costMs(member.node)
      member.pathsVersion = this.pathsVersion
    }
    // Nearly in order already, most of the time: merge sort by runs takes one pass then.
    offer.routes.sort(byPreference)
    offer.version = this.version
    offer.ready = undefined
    offer.filtered = undefined
  }

  private collect(offer: Offer, filter: RouteFilter | undefined): readonly Candidate[] {
    const found: Candidate[] = []
    for (const route of offer.routes) {
      const { info } = route.member
      // Those that take no calls stand last.
      if (found.length >= CANDIDATES_MAX || info === undefined || !isReady(route)) break
      if (filter !== undefined && !matchesFilter(filter, info.region, route.info)) continue
      const view = this.view(offer.name, route)
      if (view !== undefined) found.push(view)
    }
    return found
  }

  private view(service: ServiceName, route: Route): RouteView | undefined {
    const { member, info, sinceMs } = route
    if (member.info === undefined) return undefined
    const path = this.path(member.node)
    invariant(path === undefined || !path.path.includes(this.self), 'a path leads through the node it starts at')
    return {
      ...info,
      service,
      node: member.node,
      name: member.info.name,
      region: member.info.region,
      path: path?.path ?? [],
      rttMs: path?.rttMs ?? Number.POSITIVE_INFINITY,
      costMs: path?.costMs ?? Number.POSITIVE_INFINITY,
      state: stateOf(route),
      sinceMs,
    }
  }

  // Paths --------------------------------------------------------------------------------------------------------

  private member(node: NodeId): Member {
    const known = this.members.get(node)
    if (known !== undefined) return known
    const costMs = Number.POSITIVE_INFINITY
    const created = { node, info: undefined, services: new SmallMap<Route>(), costMs, pathsVersion: -1 }
    this.members.set(node, created)
    return created
  }

  private onLinksChanged(): void {
    this.arePathsOld = true
    this.version++
  }

  private knownPaths(): ShortestPaths {
    if (this.paths === undefined || this.arePathsOld) {
      this.paths = this.links.shortestPaths(this.self, this.hopsMax)
      this.arePathsOld = false
      this.pathsVersion++
    }
    return this.paths
  }
}

function isReady({ member, info }: Route): boolean {
  return member.info?.state === 'up' && info.healthy > 0 && member.costMs !== Number.POSITIVE_INFINITY
}

function stateOf({ member, info }: Route): RouteState {
  if (member.costMs === Number.POSITIVE_INFINITY) return 'unreachable'
  if (member.info?.state === 'draining') return 'draining'
  return info.healthy > 0 ? 'ready' : 'no-healthy-instance'
}

function byPreference(a: Route, b: Route): number {
  const isFirst = isReady(a)
  if (isFirst !== isReady(b)) return isFirst ? -1 : 1
  if (a.member.costMs !== b.member.costMs) return a.member.costMs < b.member.costMs ? -1 : 1
  return a.member.node < b.member.node ? -1 : a.member.node > b.member.node ? 1 : 0
}
