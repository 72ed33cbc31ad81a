import type { Version } from '../../router/frame.ts'
import type { RoundTrips } from '../../router/link-policy.ts'
import type { LocalService, NodeId, ServiceName } from '../../router/model.ts'
import type { RouterEffect, RouterEvent } from '../../router/router.ts'
import type { Sights, Watches } from './watches.ts'

/** What came of one event. */
export interface Outcome {
  readonly effects: readonly RouterEffect[]
  /** What the node showed of the watched ones among the services that have changed. */
  readonly sights: ReadonlyMap<ServiceName, Sights>
}

/**
 * What one simulated node runs: the router, or the ancestor's gossip to compare with. Both speak the router's words, so
 * that they run on the same network, the same links and the same chance. It may work in another thread: what begins
 * here goes on there, and questions are answered when all that was begun before them is done.
 */
export interface SimProtocol {
  /** Counts and health of a route travel, not only that there is one. */
  readonly carriesHealth: boolean
  /** It works in another thread. */
  readonly isElsewhere?: true
  /** Whether it is about to tell others how it can be reached. */
  readonly hasNews: boolean
  /** Takes an event. What came of it is to be asked for once, in the order of the events; then it throws what the step threw. */
  begin(event: RouterEvent, nowMs: number): () => Outcome
  /** Round trips to the `count` nearest, as they are now; to be asked for like an outcome. */
  beginNearest(count: number): () => RoundTrips
  /** Whether this node holds a route of `owner` for the service, whether or not the owner can be reached. */
  has(owner: NodeId, service: ServiceName): boolean
  /** Whether what it holds is what `owner`'s registry says: counts and health too, where they travel. */
  shows(owner: NodeId, service: LocalService): boolean
  /** Whether calls may be sent to `owner` now, as far as this node knows. */
  reaches(owner: NodeId): boolean
  /** Names of all services this node believes `owner` to have. */
  servicesOf(owner: NodeId): Iterable<ServiceName>
  /** Round trip along the way this node knows; undefined: none. */
  rttMs(node: NodeId): number | undefined
  /** The nodes that calls pass on their way there, the last included; undefined: no way. */
  path(node: NodeId): readonly NodeId[] | undefined
  /** Routes in the table, this node's own included. */
  routes(): number
  /** How far it knows each origin; undefined: it keeps no records. */
  versions(): ReadonlyMap<NodeId, Version> | undefined
  /** What it has refused, by reason. */
  refused(): ReadonlyMap<string, number>
  /** Bytes kept of others' records; 0 where there is no such thing. */
  heldBytes(): number
}

/** What a protocol is made from. */
export interface ProtocolSeed {
  readonly self: NodeId
  readonly incarnation: number
  /** Uniform in [0, 1), this node's own stream. */
  random(): number
  readonly watches: Watches
}
