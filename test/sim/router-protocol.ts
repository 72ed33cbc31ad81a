import type { Version } from '../../router/frame.ts'
import type { RoundTrips } from '../../router/link-policy.ts'
import type { LocalService, NodeId, ServiceName } from '../../router/model.ts'
import type { NodeNumbers } from '../../router/node-numbers.ts'
import { Router, type RouterEvent, type RouterOptions } from '../../router/router.ts'
import type { SimSigning } from './signing.ts'
import type { Outcome, ProtocolSeed, SimProtocol } from './sim-protocol.ts'
import type { Watches } from './watches.ts'

/** The router itself, as a protocol of the simulator. */
export class RouterProtocol implements SimProtocol {
  readonly carriesHealth = true
  readonly router: Router
  private readonly watches: Watches

  constructor(
    deps: ProtocolSeed & { readonly signing: SimSigning; readonly numbers: NodeNumbers },
    options: Partial<RouterOptions>,
  ) {
    const { self, incarnation, random, signing, numbers, watches } = deps
    this.router = new Router({ self, incarnation, random, numbers, ...signing.of(self) }, options)
    this.watches = watches
  }

  get hasNews(): boolean {
    return this.router.hasFirstWays
  }

  begin(event: RouterEvent, nowMs: number): () => Outcome {
    const effects = this.router.step(event, nowMs)
    const sights = this.watches.look(this, effects)
    return () => ({ effects, sights })
  }

  beginNearest(count: number): () => RoundTrips {
    const rttMs = this.router.table.nearest(count)
    return () => rttMs
  }

  has(owner: NodeId, service: ServiceName): boolean {
    return this.router.table.service(owner, service) !== undefined
  }

  shows(owner: NodeId, service: LocalService): boolean {
    const held = this.router.table.service(owner, service.name)
    if (held === undefined || service.instances === 0) return held === undefined && service.instances === 0
    return held.instances === service.instances && held.healthy === service.healthy && held.weight === service.weight
  }

  reaches(owner: NodeId): boolean {
    return this.router.table.rttMs(owner) !== undefined
  }

  servicesOf(owner: NodeId): Iterable<ServiceName> {
    return this.router.table.servicesOf(owner)
  }

  rttMs(node: NodeId): number | undefined {
    return this.router.table.rttMs(node)
  }

  path(node: NodeId): readonly NodeId[] | undefined {
    return this.router.table.path(node)?.path
  }

  routes(): number {
    return this.router.table.routeCount
  }

  versions(): ReadonlyMap<NodeId, Version> {
    return this.router.digest()
  }

  refused(): ReadonlyMap<string, number> {
    return this.router.refused
  }

  heldBytes(): number {
    return this.router.heldBytes()
  }
}
