import type { Labels, LocalService, Protocol, ServiceName } from '../router/model.ts'

/** A service of this node's registries, as the proxy needs it. */
export interface ServiceInstances {
  readonly name: ServiceName
  readonly protocol: Protocol
  readonly labels: Labels
  readonly instances: readonly { readonly id: string; readonly address: string; readonly weight: number }[]
}

/** One process calls can be sent to, and what is known of it here. */
export interface InstanceState {
  readonly service: ServiceName
  readonly address: string
  weight: number
  inFlight: number
  isHealthy: boolean
  /** Why it is not healthy, in words; '' if it is. */
  reason: string
}

interface Service {
  definition: ServiceInstances
  readonly instances: Map<string, InstanceState>
  /** The same, for those who choose. */
  all: readonly InstanceState[]
  told: string
}

const NO_SERVICE: Pick<Service, 'all'> = { all: [] }

/**
 * The instances of this node's services, their health, and which of them takes the next call.
 *
 * An instance counts as healthy from its registration until a connection to it fails; then it is out until a
 * connection succeeds again (health.ts looks). Pure bookkeeping; `onChange` tells the counts that go into the record.
 */
export class Instances {
  private readonly services = new Map<ServiceName, Service>()
  private readonly onChange: (service: LocalService) => void
  private turn = 0

  constructor(deps: { onChange: (service: LocalService) => void }) {
    this.onChange = deps.onChange
  }

  /** The whole content of the registries: what is not in it is gone. Calls under way go on. */
  replace(definitions: readonly ServiceInstances[]): void {
    const names = new Set(definitions.map(definition => definition.name))
    for (const [name, service] of this.services) {
      if (names.has(name)) continue
      service.definition = { ...service.definition, instances: [] }
      service.instances.clear()
      service.all = []
      this.tell(service)
      this.services.delete(name)
    }
    for (const definition of definitions) this.define(definition)
  }

  has(service: ServiceName): boolean {
    return this.services.has(service)
  }

  /** Whether its instances speak HTTP/2: its registry said `protocol: h2`, which is kept as a label. */
  speaksH2(service: ServiceName): boolean {
    return this.services.get(service)?.definition.labels.protocol === 'h2'
  }

  /** Whether its instances speak something that is not HTTP. */
  speaksTcp(service: ServiceName): boolean {
    return this.services.get(service)?.definition.protocol === 'tcp'
  }

  /** The least busy healthy instance for its weight that is not in `tried` and `hasRoom`; equals take turns. */
  choose(
    service: ServiceName,
    tried?: ReadonlySet<InstanceState>,
    hasRoom?: (instance: InstanceState) => boolean,
  ): InstanceState | undefined {
    const { all } = this.services.get(service) ?? NO_SERVICE
    const start = this.turn++ % Math.max(1, all.length)
    let best: InstanceState | undefined
    let bestLoad = Number.POSITIVE_INFINITY
    for (let i = 0; i < all.length; i++) {
      const instance = all[(start + i) % all.length] as InstanceState
      if (!instance.isHealthy || tried?.has(instance) === true) continue
      const load = (instance.inFlight + 1) / instance.weight
      if (load >= bestLoad || hasRoom?.(instance) === false) continue
      best = instance
      bestLoad = load
    }
    return best
  }

  setHealth(instance: InstanceState, isHealthy: boolean, reason: string): void {
    instance.reason = reason
    if (instance.isHealthy === isHealthy) return
    instance.isHealthy = isHealthy
    const service = this.services.get(instance.service)
    if (service !== undefined) this.tell(service)
  }

  *all(): IterableIterator<InstanceState> {
    for (const service of this.services.values()) yield* service.instances.values()
  }

  private define(definition: ServiceInstances): void {
    const service = this.services.get(definition.name) ?? { definition, instances: new Map(), all: [], told: '' }
    this.services.set(definition.name, service)
    service.definition = definition
    const addresses = new Set(definition.instances.map(instance => instance.address))
    for (const address of service.instances.keys()) if (!addresses.has(address)) service.instances.delete(address)
    for (const { address, weight } of definition.instances) {
      const known = service.instances.get(address)
      if (known !== undefined) known.weight = weight
      else {
        const fresh = { service: definition.name, address, weight, inFlight: 0, isHealthy: true, reason: '' }
        service.instances.set(address, fresh)
      }
    }
    service.all = [...service.instances.values()]
    this.tell(service)
  }

  private tell(service: Service): void {
    const { name, protocol, labels } = service.definition
    const healthy = [...service.instances.values()].filter(instance => instance.isHealthy)
    const weight = healthy.reduce((sum, instance) => sum + instance.weight, 0)
    const counts = { name, protocol, labels, instances: service.instances.size, healthy: healthy.length, weight }
    const text = JSON.stringify(counts)
    if (text === service.told) return
    service.told = text
    this.onChange(counts)
  }
}
