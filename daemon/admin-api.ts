import type { RouteFilter } from '../router/route-filter.ts'

/**
 * What the admin API answers, as JSON. `null` stands where nothing is known (JSON has no infinity): the round trip of a
 * node that cannot be reached, the cost of a route that cannot be used.
 *
 * Everywhere: `node` is a node's name, `id` its peer id; `via` names the relays of a path joined by `>`, and is empty
 * for this node itself and for a direct link; `carrier` is what a call to that node takes now: `here` (this node itself),
 * `direct`, `relayed via A>B`, `overlay` (a stream of the overlay's connection), and empty while there is no link for
 * calls, which the next call then asks for; `…Ms` are milliseconds, `…AtMs` Unix milliseconds.
 */

export type RouteState = 'ready' | 'no-healthy-instance' | 'unreachable' | 'draining'
/** Beside its own state, a place may not be one that was asked for. */
export type PlaceState = RouteState | 'not-matching'

/** One node that offers one service, as this node sees it now. */
export interface RouteView {
  readonly service: string
  readonly node: string
  readonly region: string
  readonly protocol: string
  readonly instances: number
  readonly healthy: number
  readonly costMs: number | null
  readonly via: string
  readonly carrier: string
  readonly state: RouteState
  /** Time since the owner's statement about this service was last new here. */
  readonly ageMs: number
}

export interface NodeView {
  readonly node: string
  readonly id: string
  readonly region: string
  readonly state: 'self' | 'up' | 'draining' | 'unreachable'
  readonly rttMs: number | null
  readonly via: string
  readonly version: string
}

/** One link of this node: the overlay carries gossip, `calls` carries calls. */
export interface LinkView {
  readonly node: string
  readonly id: string
  readonly region: string
  readonly overlay: 'up' | 'down'
  readonly calls: 'up' | 'down'
  readonly carrier: string
  /** Links that calls can be opened on: more than one while bulk goes to the node. */
  readonly carriers: number
  readonly rttMs: number | null
  /** Share of heartbeats lost lately, 0..1. */
  readonly lossRatio: number
  /** The address in use, or last tried; empty when none is known. */
  readonly address: string
  /** Time in the present state. */
  readonly sinceMs: number
  readonly inFlight: number
}

export interface ServiceView {
  readonly service: string
  readonly protocol: string
  readonly nodes: number
  readonly instances: number
  readonly healthy: number
  /** The node that would get a call made here now; null when none can take it. */
  readonly closest: string | null
}

export interface ExplainCandidate {
  readonly node: string
  readonly region: string
  /** 1 is chosen first; null is out, and `why` says why. */
  readonly rank: number | null
  readonly costMs: number | null
  /** What `costMs` is the sum of. */
  readonly parts: { readonly rttMs: number | null; readonly hopsMs: number | null }
  readonly via: string
  readonly carrier: string
  readonly instances: number
  readonly healthy: number
  readonly state: PlaceState
  readonly why: string
}

/** Who would answer a call for `service` made at `node` now, and why. */
export interface ExplainView {
  readonly service: string
  readonly node: string
  /** False: no node of the mesh offers it, as far as this node has heard. */
  readonly known: boolean
  readonly candidates: readonly ExplainCandidate[]
  readonly choice: string | null
  readonly summary: string
}

/** `host:port` each, the real port where the config says 0; `admin` may be `unix:PATH`. */
export interface ListenView {
  readonly overlay: string
  readonly calls: string
  readonly http: string
  readonly admin: string
  /** The config's `listeners`, in its order. */
  readonly tcp: readonly { readonly service: string; readonly address: string }[]
}

export interface StatusView {
  readonly node: string
  readonly id: string
  readonly mesh: string
  readonly region: string
  readonly version: string
  readonly state: 'starting' | 'up' | 'draining'
  readonly startedAtMs: number
  readonly uptimeMs: number
  readonly certificateExpiresAtMs: number
  readonly listen: ListenView
  readonly advertise: readonly string[]
  readonly nodes: { readonly known: number; readonly reachable: number }
  readonly services: number
  readonly routes: number
  /** `problem` is null while the registry is well. */
  readonly registries: readonly { readonly name: string; readonly problem: string | null }[]
  readonly calls: { readonly inFlight: number; readonly total: number; readonly failed: number }
  readonly memory: { readonly rssBytes: number; readonly heapBytes: number }
  readonly gossip: GossipView
}

/** What this node holds of everyone's records, and what it keeps back or turned away. */
export interface GossipView {
  readonly heldBytes: number
  /** Own services that come and go, and are not told of until they have stood so long. */
  readonly heldBack: readonly { readonly service: string; readonly forMs: number }[]
  /** Frames, batches and proofs that were refused since the start, by reason. */
  readonly refused: Readonly<Record<string, number>>
}

/** One instance this node offers. */
export interface RegistrationView {
  readonly service: string
  readonly id: string
  readonly address: string
  readonly protocol: string
  readonly labels: Readonly<Record<string, string>>
  readonly weight: number
  /** The registry it comes from, such as `http` or `file services.yaml`. */
  readonly source: string
  /** Null: stays until it is taken out (a file's instances). */
  readonly ttlMs: number | null
  readonly expiresAtMs: number | null
}

export interface ErrorView {
  readonly error: { readonly code: string; readonly message: string }
}

/**
 * What the admin API asks of the daemon. Every answer is a snapshot, made without waiting.
 * Errors: MeshError `bad-registry` for a registration that cannot be, `not-found` for a heartbeat of nobody.
 */
export interface AdminBackend {
  status(): StatusView
  /** For Prometheus: text format 0.0.4. */
  metrics(): string
  nodes(): NodeView[]
  links(): LinkView[]
  services(): ServiceView[]
  routes(): RouteView[]
  /** `service` may be any text; an unknown one is an answer (`known: false`), not an error. `filter`: as a call may ask. */
  explain(service: string, filter?: RouteFilter): ExplainView
  /** `id` undefined: the body's address. `body` is JSON from outside, still to be checked. */
  register(service: string, id: string | undefined, body: unknown): RegistrationView
  heartbeat(service: string, id: string): RegistrationView
  /** False: there was none. */
  deregister(service: string, id: string): boolean
  /** All instances this node offers, of every registry. */
  registrations(): RegistrationView[]
}
