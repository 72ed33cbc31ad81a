import type { Surroundings } from '../../router/link-policy.ts'
import type { LocalService, NodeId, ServiceName } from '../../router/model.ts'
import type { RouterEffect, RouterEvent } from '../../router/router.ts'

/**
 * What one simulated node runs: the router, or the ancestor's gossip to compare with. Both speak the router's words, so
 * that they run on the same network, the same links and the same chance.
 */
export interface SimProtocol {
  /** Counts and health of a route travel, not only that there is one. */
  readonly carriesHealth: boolean
  /** Whether it is about to tell others how it can be reached. */
  readonly hasNews: boolean
  step(event: RouterEvent, nowMs: number): RouterEffect[]
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
  /** As `Surroundings`. */
  near: Surroundings['near']
  /** Routes in the table, this node's own included. */
  routes(): number
  /** Bytes kept of others' records; 0 where there is no such thing. */
  heldBytes(): number
}

/** What a protocol is made from. */
export interface ProtocolSeed {
  readonly self: NodeId
  readonly incarnation: number
  /** Uniform in [0, 1), this node's own stream. */
  random(): number
}
