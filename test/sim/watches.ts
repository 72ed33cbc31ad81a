import type { LocalService, NodeId, ServiceName } from '../../router/model.ts'
import type { RouterEffect } from '../../router/router.ts'
import type { SimProtocol } from './sim-protocol.ts'

/** What a node showed of a watched route when it was looked at. */
export interface Sight {
  /** Of which watch: one that has ended since tells nothing of the next. */
  readonly watch: number
  readonly has: boolean
  /** It is what was watched for. */
  readonly shows: boolean
}

/** By the owners of one service. */
export type Sights = ReadonlyMap<NodeId, Sight>

interface Watch {
  readonly watch: number
  readonly service: LocalService
}

const NONE: ReadonlyMap<ServiceName, Sights> = new Map()

/** Routes that somebody wants to be told of as they come and go: looked at where a router works, in the moment in which it changes them. */
export class Watches {
  private readonly services = new Map<ServiceName, Map<NodeId, Watch>>()

  /** In place of any before of this route. */
  add(owner: NodeId, service: LocalService, watch: number): void {
    const owners = this.services.get(service.name)
    if (owners === undefined) this.services.set(service.name, new Map([[owner, { watch, service }]]))
    else owners.set(owner, { watch, service })
  }

  delete(owner: NodeId, service: ServiceName): void {
    const owners = this.services.get(service)
    if (owners?.delete(owner) && owners.size === 0) this.services.delete(service)
  }

  /** What the node shows of those watched services that these effects speak of. */
  look(node: Pick<SimProtocol, 'has' | 'shows'>, effects: readonly RouterEffect[]): ReadonlyMap<ServiceName, Sights> {
    if (this.services.size === 0) return NONE
    let found: Map<ServiceName, Sights> | undefined
    for (const effect of effects) {
      if (effect.type !== 'routes-changed') continue
      const owners = this.services.get(effect.service)
      if (owners === undefined) continue
      const sights = new Map<NodeId, Sight>()
      for (const [owner, { watch, service }] of owners) {
        sights.set(owner, { watch, has: node.has(owner, service.name), shows: node.shows(owner, service) })
      }
      found ??= new Map()
      found.set(effect.service, sights)
    }
    return found ?? NONE
  }
}
