import { once } from 'node:events'
import net from 'node:net'
import { silentLog } from '../router/log.ts'
import type { Candidate, Labels } from '../router/model.ts'
import { matchesFilter, type RouteFilter } from '../router/route-filter.ts'
import type { Call, CallOpen } from './call.ts'
import { Egress } from './egress.ts'
import { INGRESS_DEFAULTS, Ingress, type IngressOptions } from './ingress.ts'
import { InstancePool } from './instance-pool.ts'
import { Instances } from './instances.ts'
import { createLocalCall } from './local-call.ts'

const nowMs = (): number => performance.now()

/** Several places, each an egress of its own, behind one ingress: the mesh without a network. */
export class TestPlaces {
  readonly places = new Map<string, { egress: Egress; instances: Instances; pool: InstancePool }>()
  /** Names of the places calls were opened to, in order. */
  readonly opened: string[] = []
  /** Names of places whose records say that nothing there is healthy. */
  readonly sick = new Set<string>()
  private readonly labels = new Map<string, Labels>()
  private readonly opens: CallOpen[] = []
  private readonly cleanups: (() => unknown)[] = []
  private running: Ingress | undefined
  port = 0
  /** Answers true to take a call in place of the place's egress. */
  onOpen: ((place: string, call: Call, open: CallOpen) => boolean) | undefined

  /** `services`: addresses by name; `protocol` is what they speak. */
  place(
    name: string,
    services: Record<string, string[]>,
    protocol: 'http' | 'h2' = 'http',
    given: Record<string, string> = {},
  ): this {
    const instances = new Instances({ onChange() {} })
    const labels: Record<string, string> = protocol === 'h2' ? { ...given, protocol } : given
    this.labels.set(name, labels)
    instances.replace(
      Object.entries(services).map(([service, addresses]) => ({
        ...{ name: service, protocol: 'http' as const, labels },
        instances: addresses.map(address => ({ id: address, address, weight: 1 })),
      })),
    )
    const pool = new InstancePool({ nowMs })
    const egress = new Egress({ self: { id: `id-${name}`, name }, log: silentLog, instances, pool })
    this.places.set(name, { egress, instances, pool })
    return this
  }

  async start(options: Partial<IngressOptions> = {}): Promise<this> {
    this.running = new Ingress(
      {
        ...{ self: { id: 'id-here', name: 'here' }, log: silentLog, nowMs },
        knows: (service, filter) => this.offering(service, filter).length > 0,
        candidates: (service, filter) => this.offering(service, filter).filter(({ healthy }) => healthy > 0),
        open: (target, open) => this.open(target.name, open),
      },
      { host: '127.0.0.1', port: 0, timeoutMs: 10_000, retryBodyBytes: 65_536, ...INGRESS_DEFAULTS, ...options },
    )
    this.port = await this.running.start()
    return this
  }

  get ingress(): Ingress {
    if (this.running === undefined) throw new Error('start() comes first')
    return this.running
  }

  /** The head of the last call that was opened, as it travelled. */
  get lastHead(): string {
    return this.opens.at(-1)?.head.toString('latin1') ?? ''
  }

  get lastTimeoutMs(): number {
    return this.opens.at(-1)?.timeoutMs ?? Number.NaN
  }

  /** Listens, and closes with everything else. Answers the address. */
  async listen(server: net.Server): Promise<string> {
    const sockets = new Set<net.Socket>()
    server.on('connection', (socket: net.Socket) => {
      sockets.add(socket)
      socket.on('error', () => {})
      socket.once('close', () => sockets.delete(socket))
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    this.cleanups.push(() => {
      for (const socket of sockets) socket.destroy()
      server.close()
    })
    return `127.0.0.1:${(server.address() as net.AddressInfo).port}`
  }

  onStop(cleanup: () => unknown): void {
    this.cleanups.push(cleanup)
  }

  async stop(): Promise<void> {
    for (const cleanup of this.cleanups.splice(0).reverse()) await cleanup()
    await this.running?.stop()
    for (const { pool } of this.places.values()) pool.stop()
  }

  /** A place's region is its name. */
  private offering(service: string, filter: RouteFilter | undefined): Candidate[] {
    return [...this.places].flatMap(([name, { instances }]) => {
      if (!instances.has(service)) return []
      const found = candidate(service, name, this.labels.get(name) ?? {}, this.sick.has(name) ? 0 : 1)
      return filter === undefined || matchesFilter(filter, name, found) ? [found] : []
    })
  }

  private open(name: string, open: CallOpen): Call | undefined {
    this.opened.push(name)
    this.opens.push(open)
    const [mine, theirs] = createLocalCall()
    if (this.onOpen?.(name, theirs, open) === true) return mine
    this.places.get(name)?.egress.accept(theirs, open)
    return mine
  }
}

function candidate(service: string, name: string, labels: Labels, healthy: number): Candidate {
  return {
    ...{ service, name, node: `id-${name}`, region: name, protocol: 'http', labels },
    ...{ instances: 1, healthy, weight: healthy, path: [`id-${name}`], rttMs: 1, costMs: 1 },
  }
}

/** Looks until `look` answers true; with a deadline of 10 s. */
export async function waitUntil(what: string, look: () => boolean): Promise<void> {
  const endAtMs = performance.now() + 10_000
  while (!look()) {
    if (performance.now() > endAtMs) throw new Error(`waited 10 s in vain until: ${what}`)
    await new Promise(resolve => setTimeout(resolve, 5))
  }
}

/** An address nobody listens on. */
export async function deadAddress(): Promise<string> {
  const server = net.createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as net.AddressInfo
  server.close()
  await once(server, 'close')
  return `127.0.0.1:${port}`
}
