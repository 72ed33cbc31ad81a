import type { LocalService, NodeId, ServiceName } from '../../router/model.ts'
import type { NodeNumbers } from '../../router/node-numbers.ts'
import { Router, type RouterEffect, type RouterEvent, type RouterOptions } from '../../router/router.ts'
import type { SimSigning } from './signing.ts'
import type { ProtocolSeed, SimProtocol } from './sim-protocol.ts'

/** The router itself, as a protocol of the simulator. */
export class RouterProtocol implements SimProtocol {
  readonly carriesHealth = true
  readonly router: Router

  constructor(
    deps: ProtocolSeed & { readonly signing: SimSigning; readonly numbers: NodeNumbers },
    options: Partial<RouterOptions>,
  ) {
    const { self, incarnation, random, signing, numbers } = deps
    this.router = new Router({ self, incarnation, random, numbers, ...signing.of(self) }, options)
  }

  get hasNews(): boolean {
    return this.router.hasFirstWays
  }

  step(event: RouterEvent, nowMs: number): RouterEffect[] {
    return this.router.step(event, nowMs)
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

  near(count: number): (node: NodeId) => number | undefined {
    return this.router.table.near(count)
  }

  routes(): number {
    return this.router.table.routeCount
  }

  heldBytes(): number {
    return this.router.heldBytes()
  }
}
