import { once } from 'node:events'
import net from 'node:net'
import { type Log, silentLog } from '../router/log.ts'
import type { Candidate, Labels } from '../router/model.ts'
import { matchesFilter, type RouteFilter } from '../router/route-filter.ts'
import type { Call, CallOpen } from './call.ts'
import type { CallReport } from './call-report.ts'
import { DISPATCHER_DEFAULTS, type DispatcherOptions } from './dispatcher.ts'
import { Egress } from './egress.ts'
import { INGRESS_DEFAULTS, Ingress, type IngressCounters, type IngressOptions } from './ingress.ts'
import { INSTANCE_POOL_DEFAULTS, InstancePool, type InstancePoolOptions } from './instance-pool.ts'
import { Instances } from './instances.ts'
import { createLocalCall } from './local-call.ts'
import { rethrow } from './rethrow-fixture.ts'
import { reusingBytes } from './reused-bytes-fixture.ts'
import { TcpEgress } from './tcp-egress.ts'
import { TcpListener, type TcpListenerOptions } from './tcp-listener.ts'
import type { TunnelDeps } from './tcp-tunnel.ts'

/** Several places, each an egress of its own, behind one ingress: the mesh without a network. */
export class TestPlaces {
  readonly places = new Map<string, { egress: Egress; tcp: TcpEgress; instances: Instances; pool: InstancePool }>()
  /** Names of the places calls were opened to, in order. */
  readonly opened: string[] = []
  /** Names of places whose records say that nothing there is healthy. */
  readonly sick = new Set<string>()
  private readonly labels = new Map<string, Labels>()
  /** Of calls that are over, in order. */
  readonly reports: CallReport[] = []
  private readonly opens: CallOpen[] = []
  private readonly nowMs = (): number => performance.now() + this.skippedMs
  private readonly cleanups: (() => unknown)[] = []
  private running: Ingress | undefined
  port = 0
  /** Of TCP calls, for places made after it is set. */
  egressIdleMs = 0
  log: Log = silentLog
  /** What is added to the clock: so much time has passed for everything but the sockets. */
  skippedMs = 0
  /** Answers true to take a call in place of the place's egress. */
  onOpen: ((place: string, call: Call, open: CallOpen) => boolean) | undefined

  /** `services`: addresses by name; `protocol` is what they speak. */
  place(
    name: string,
    services: Record<string, string[]>,
    protocol: 'http' | 'h2' | 'tcp' = 'http',
    options: Partial<InstancePoolOptions & DispatcherOptions> & { labels?: Record<string, string> } = {},
  ): this {
    const instances = new Instances({ onChange() {} })
    const { labels: given = {} } = options
    const labels: Record<string, string> = protocol === 'h2' ? { ...given, protocol } : given
    this.labels.set(name, labels)
    instances.replace(
      Object.entries(services).map(([service, addresses]) => ({
        ...{ name: service, protocol: protocol === 'tcp' ? ('tcp' as const) : ('http' as const), labels },
        instances: addresses.map(address => ({ id: address, address, weight: 1 })),
      })),
    )
    const { connectionsMax = INSTANCE_POOL_DEFAULTS.connectionsMax } = options
    const pool = new InstancePool({ nowMs: this.nowMs, onRoom: () => egress.onRoom() }, { connectionsMax })
    const egress: Egress = new Egress(
      { self: { id: `id-${name}`, name }, log: silentLog, instances, pool },
      { ...DISPATCHER_DEFAULTS, ...options },
    )
    const self = { id: `id-${name}`, name }
    const tcp = new TcpEgress({ self, instances, nowMs: this.nowMs }, { idleMs: this.egressIdleMs })
    tcp.start()
    this.places.set(name, { egress, tcp, instances, pool })
    return this
  }

  async start(options: Partial<IngressOptions> = {}): Promise<this> {
    this.running = new Ingress(this.ways, {
      host: '127.0.0.1',
      port: 0,
      timeoutMs: 10_000,
      retryBodyBytes: 65_536,
      ...INGRESS_DEFAULTS,
      ...options,
    })
    this.port = await this.running.start()
    return this
  }

  /** What an ingress needs of the rest. */
  private get ways(): Omit<TunnelDeps, 'counters'> & { readonly log: Log } {
    return {
      ...{ self: { id: 'id-here', name: 'here' }, log: this.log, nowMs: this.nowMs },
      knows: (service, filter) => this.offering(service, filter).length > 0,
      candidates: (service, filter) => this.offering(service, filter).filter(({ healthy }) => healthy > 0),
      open: (target, open) => this.open(target.name, open),
      onCallOver: report => this.reports.push(report),
    }
  }

  /** A listener of raw TCP in front of the same places; it ends with everything else. */
  async startTcp(
    service: string,
    options: Partial<TcpListenerOptions> = {},
  ): Promise<{ listener: TcpListener; port: number; counters: IngressCounters }> {
    const counters = { total: 0, failed: 0, retries: 0 }
    const listener = new TcpListener(
      { ...this.ways, counters },
      { ...{ host: '127.0.0.1', port: 0, service }, connectionsMax: 100, timeoutMs: 10_000, idleMs: 0, ...options },
    )
    const port = await listener.start()
    this.cleanups.push(() => listener.stop())
    return { listener, port, counters }
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
    for (const { pool, tcp } of this.places.values()) {
      tcp.stop()
      pool.stop()
    }
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
    const [mine, theirs] = createLocalCall(rethrow).map(reusingBytes) as [Call, Call]
    if (this.onOpen?.(name, theirs, open) === true) return mine
    const place = this.places.get(name)
    if (open.kind === 'tcp') place?.tcp.accept(theirs, open)
    else place?.egress.accept(theirs, open)
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
