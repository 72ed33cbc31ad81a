import type { Catalog } from '../registry/catalog.ts'
import type { HttpRegistry, Registration } from '../registry/http-registry.ts'
import { MeshError } from '../router/errors.ts'
import type { NodeId } from '../router/model.ts'
import { explainMismatch, formatFilter, matchesFilter, type RouteFilter } from '../router/route-filter.ts'
import type { Router } from '../router/router.ts'
import type { RouteView as TableRoute } from '../router/table.ts'
import type { CallPlane } from '../tunnel/call-plane.ts'
import type { Identity } from '../tunnel/identity.ts'
import type { Overlay } from '../tunnel/overlay.ts'
import type {
  AdminBackend,
  ExplainCandidate,
  ExplainView,
  GossipView,
  LinkView,
  ListenView,
  NodeView,
  RegistrationView,
  RouteView,
  ServiceView,
  StatusView,
} from './admin-api.ts'

export interface ViewsDeps {
  readonly identity: Identity
  readonly version: string
  readonly router: Router
  readonly overlay: Overlay
  readonly callPlane: CallPlane
  readonly catalog: Catalog
  readonly http: HttpRegistry | undefined
  /** Monotonic milliseconds, the router's. */
  readonly nowMs: () => number
  readonly state: () => StatusView['state']
  readonly listen: () => ListenView
  readonly advertise: () => readonly string[]
  readonly calls: () => StatusView['calls']
  readonly metrics: () => string
}

/** Answers the admin API from what the parts of the daemon know: snapshots, nothing is kept here. */
export class Views implements AdminBackend {
  private readonly deps: ViewsDeps
  private readonly startedAtMs = Date.now()

  constructor(deps: ViewsDeps) {
    this.deps = deps
  }

  status(): StatusView {
    const { identity, version, router, catalog } = this.deps
    const nodes = this.nodes()
    const { rss, heapUsed } = process.memoryUsage()
    return {
      node: identity.name,
      id: identity.nodeId,
      mesh: identity.mesh,
      region: identity.region,
      version,
      state: this.deps.state(),
      startedAtMs: this.startedAtMs,
      uptimeMs: Date.now() - this.startedAtMs,
      certificateExpiresAtMs: identity.expiresAtMs,
      listen: this.deps.listen(),
      advertise: this.deps.advertise(),
      nodes: { known: nodes.length, reachable: nodes.filter(node => node.state !== 'unreachable').length },
      services: [...router.table.services()].length,
      routes: router.table.routeCount,
      registries: catalog.sources().map(({ name, problem }) => ({ name, problem: problem ?? null })),
      calls: this.deps.calls(),
      memory: { rssBytes: rss, heapBytes: heapUsed },
      gossip: this.gossip(),
    }
  }

  metrics(): string {
    return this.deps.metrics()
  }

  private gossip(): GossipView {
    const { router, nowMs } = this.deps
    const heldBack = router.dampedServices(nowMs()).map(({ service, untilMs }) => ({
      service,
      forMs: Math.max(0, Math.round(untilMs - nowMs())),
    }))
    return { heldBytes: router.heldBytes(), heldBack, refused: Object.fromEntries(router.refused) }
  }

  nodes(): NodeView[] {
    const { table } = this.deps.router
    const views: NodeView[] = []
    for (const id of table.nodeIds()) {
      const info = table.nodeInfo(id)
      if (info === undefined) continue
      const path = table.path(id)
      const isSelf = id === this.deps.identity.nodeId
      const reachable = isSelf ? 'self' : info.state
      views.push({
        node: info.name,
        id,
        region: info.region,
        state: path === undefined ? 'unreachable' : isSelf && info.state === 'draining' ? 'draining' : reachable,
        rttMs: path === undefined ? null : round(path.rttMs),
        via: this.via(path?.path ?? []),
        version: info.version,
      })
    }
    return views.sort((a, b) => (a.rttMs ?? Infinity) - (b.rttMs ?? Infinity) || compare(a.node, b.node))
  }

  links(): LinkView[] {
    const { overlay, callPlane, router } = this.deps
    const overlays = new Map(overlay.links().map(link => [link.node, link]))
    const calls = callPlane.links()
    const ids = new Set<NodeId>([...overlays.keys(), ...calls.map(link => link.peer)])
    for (const id of router.table.nodeIds()) if (id !== this.deps.identity.nodeId) ids.add(id)
    const views: LinkView[] = []
    for (const id of ids) {
      const info = router.table.nodeInfo(id)
      const link = overlays.get(id)
      const callLinks = calls.filter(({ peer }) => peer === id)
      const ups = callLinks.filter(({ state }) => state === 'up')
      const up = ups.at(-1)
      views.push({
        node: info?.name ?? id,
        id,
        region: info?.region ?? '',
        overlay: link === undefined ? 'down' : 'up',
        calls: up === undefined ? 'down' : 'up',
        carrier: this.carrier(id),
        carriers: ups.length,
        rttMs: link === undefined ? null : round(link.rttMs),
        lossRatio: link === undefined ? 0 : Math.round(link.lossRatio * 1000) / 1000,
        address: up?.address ?? link?.address ?? info?.calls[0] ?? '',
        sinceMs: link === undefined ? 0 : Date.now() - link.sinceMs,
        inFlight: callLinks.reduce((sum, { calls: open }) => sum + open, 0),
      })
    }
    return views.sort((a, b) => compare(a.node, b.node))
  }

  services(): ServiceView[] {
    const { table } = this.deps.router
    const views = [...table.services()].map(service => {
      const routes = table.explain(service)
      const usable = routes.filter(route => route.state !== 'unreachable')
      return {
        service,
        protocol: routes[0]?.protocol ?? 'http',
        nodes: usable.length,
        instances: usable.reduce((sum, route) => sum + route.instances, 0),
        healthy: usable.reduce((sum, route) => sum + route.healthy, 0),
        closest: table.candidates(service)[0]?.name ?? null,
      }
    })
    return views.sort((a, b) => compare(a.service, b.service))
  }

  routes(): RouteView[] {
    const { table } = this.deps.router
    const services = [...table.services()].sort(compare)
    return services.flatMap(service => table.explain(service).map(route => this.routeView(route)))
  }

  explain(service: string, filter: RouteFilter = {}): ExplainView {
    const { table } = this.deps.router
    const all = table.explain(service)
    // Those that were not asked for stand last.
    const matching = all.filter(route => matchesFilter(filter, route.region, route))
    const routes = [...matching, ...all.filter(route => !matching.includes(route))]
    const { name: node } = this.deps.identity
    const choice = matching[0]?.state === 'ready' ? matching[0].name : null
    let rank = 0
    const candidates = routes.map((route, i): ExplainCandidate => {
      const isMatching = i < matching.length
      const isIn = isMatching && route.state === 'ready'
      if (isIn) rank++
      return {
        node: route.name,
        region: route.region,
        rank: isIn ? rank : null,
        costMs: finite(route.costMs),
        parts: { rttMs: finite(route.rttMs), hopsMs: finite(route.costMs - route.rttMs) },
        via: this.via(route.path),
        carrier: this.carrier(route.node),
        instances: route.instances,
        healthy: route.healthy,
        state: isMatching ? route.state : 'not-matching',
        why: isMatching ? why(route, rank, matching) : `out: ${explainMismatch(filter, route.region, route)}`,
      }
    })
    const asked = formatFilter(filter)
    const called = asked === '' ? service : `${service} with ${asked}`
    const isKnown = table.knows(service)
    const text =
      isKnown && matching.length === 0
        ? `${service} is offered, but nowhere with ${asked}`
        : summary(called, node, matching)
    return { service, node, known: isKnown, candidates, choice, summary: text }
  }

  register(service: string, id: string | undefined, body: unknown): RegistrationView {
    const input = typeof body === 'object' && body !== null && !Array.isArray(body) ? { ...body, service } : body
    return this.registrationView(this.http().register(id === undefined ? input : withId(input, id)))
  }

  heartbeat(service: string, id: string): RegistrationView {
    return this.registrationView(this.http().heartbeat(service, id))
  }

  deregister(service: string, id: string): boolean {
    return this.http().deregister(service, id)
  }

  registrations(): RegistrationView[] {
    const { http, catalog } = this.deps
    const own = (http?.list() ?? []).map(registration => this.registrationView(registration))
    const byHttp = new Set(own.map(({ service, address }) => `${service} ${address}`))
    const source = catalog.sources().find(({ name }) => name !== 'http')?.name ?? 'file'
    const others = catalog.services().flatMap(({ name, protocol, labels, instances }) =>
      instances
        .filter(({ address }) => !byHttp.has(`${name} ${address}`))
        .map(({ id, address, weight }) => ({
          ...{ service: name, id, address, protocol, labels, weight, source },
          ttlMs: null,
          expiresAtMs: null,
        })),
    )
    return [...own, ...others].sort((a, b) => compare(a.service, b.service) || compare(a.address, b.address))
  }

  private http(): HttpRegistry {
    if (this.deps.http !== undefined) return this.deps.http
    throw new MeshError(
      'bad-registry',
      'this node has no http registry; add { type: http } to registries in flatmesh.yaml',
    )
  }

  private registrationView(registration: Registration): RegistrationView {
    const { service, id, address, protocol, labels, weight, ttlMs, expiresAtMs } = registration
    return { service, id, address, protocol, labels, weight, source: 'http', ttlMs, expiresAtMs }
  }

  private routeView(route: TableRoute): RouteView {
    const { service, name: node, region, protocol, instances, healthy, state } = route
    const [via, carrier] = [this.via(route.path), this.carrier(route.node)]
    const ageMs = Math.max(0, Math.round(this.deps.nowMs() - route.sinceMs))
    const costMs = finite(route.costMs)
    return { service, node, region, protocol, instances, healthy, costMs, via, carrier, state, ageMs }
  }

  /** How calls get to a node now; see `carrier` in admin-api.ts. */
  carrier(node: NodeId): string {
    if (node === this.deps.identity.nodeId) return 'here'
    const link = this.deps.callPlane.linkTo(node)
    if (link === undefined) return ''
    return link.carrier === 'relayed' ? `relayed via ${this.names(link.via)}` : link.carrier
  }

  private via(path: readonly NodeId[]): string {
    return this.names(path.slice(0, -1))
  }

  private names(nodes: readonly NodeId[]): string {
    return nodes.map(id => this.deps.router.table.nodeInfo(id)?.name ?? id).join('>')
  }
}

function withId(input: unknown, id: string): unknown {
  return typeof input === 'object' && input !== null ? { ...input, id } : input
}

function why(route: TableRoute, rank: number, routes: readonly TableRoute[]): string {
  if (route.state === 'unreachable') return 'out: no path of live links leads there'
  if (route.state === 'draining') return 'out: the node is stopping and takes no new calls'
  if (route.state === 'no-healthy-instance') return `out: none of its ${route.instances} instances is healthy`
  if (route.path.length === 0) return 'this node itself: no travel'
  if (rank === 1) return 'nearest of those that can answer'
  const ahead = routes[rank - 2]
  return ahead === undefined ? '' : `${round(route.costMs - ahead.costMs)} ms farther than ${ahead.name}`
}

function summary(service: string, node: string, routes: readonly TableRoute[]): string {
  const [first] = routes
  if (first === undefined) return `no node of the mesh offers ${service}`
  if (first.state !== 'ready') return `${service} is known, but no place can answer it now`
  const count = routes.filter(route => route.state === 'ready').length
  const place = first.path.length === 0 ? 'here' : `at ${first.name}, ${round(first.costMs)} ms away`
  return `a call for ${service} made at ${node} is answered ${place}; ${count} of ${routes.length} places can answer`
}

function finite(ms: number): number | null {
  return Number.isFinite(ms) ? round(ms) : null
}

function round(ms: number): number {
  return Math.round(ms * 10) / 10
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}
