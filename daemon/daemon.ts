import { X509Certificate } from 'node:crypto'
import { join } from 'node:path'
import type { Call, CallOpen } from '../proxy/call.ts'
import type { CallReport } from '../proxy/call-report.ts'
import { Egress } from '../proxy/egress.ts'
import { HealthChecks } from '../proxy/health.ts'
import { INGRESS_DEFAULTS, Ingress } from '../proxy/ingress.ts'
import { InstancePool } from '../proxy/instance-pool.ts'
import { Instances } from '../proxy/instances.ts'
import { createLocalCall } from '../proxy/local-call.ts'
import { TcpEgress } from '../proxy/tcp-egress.ts'
import { TcpListener } from '../proxy/tcp-listener.ts'
import { Catalog } from '../registry/catalog.ts'
import { FileRegistry } from '../registry/file-registry.ts'
import { HttpRegistry } from '../registry/http-registry.ts'
import { messageOf } from '../router/errors.ts'
import type { LinkPolicyOptions } from '../router/link-policy.ts'
import type { Log } from '../router/log.ts'
import type { Candidate, NodeId, NodeInfo, ServiceName } from '../router/model.ts'
import { matchesFilter, type RouteFilter } from '../router/route-filter.ts'
import type { RouterEvent } from '../router/router.ts'
import type { Table } from '../router/table.ts'
import { CallPlane } from '../tunnel/call-plane.ts'
import { verifyNodeCertificate } from '../tunnel/certificate.ts'
import type { Identity } from '../tunnel/identity.ts'
import { JOIN_ALPN } from '../tunnel/join-message.ts'
import { JoinLimit, serveJoin } from '../tunnel/join-server.ts'
import { Libp2pOverlay } from '../tunnel/libp2p-overlay.ts'
import { RELAY_DEFAULTS } from '../tunnel/relay.ts'
import { signAs, verifySignature } from '../tunnel/signature.ts'
import { AccessLog } from './access-log.ts'
import { decodeHostPort, formatAdminAddress, formatHostPort, type HostPort } from './address.ts'
import { callAddresses, dialableHosts, overlayAddresses } from './addresses.ts'
import { AdminServer } from './admin.ts'
import type { ListenView, StatusView } from './admin-api.ts'
import { CallMeter } from './call-meter.ts'
import type { Config } from './config.ts'
import { KnownNodes } from './known-nodes.ts'
import { LineFile } from './line-file.ts'
import { LinkChooser } from './link-chooser.ts'
import { Metrics } from './metrics.ts'
import { ProcessMeter } from './process-meter.ts'
import { chooseRoute } from './relay-route.ts'
import { RouterHost } from './router-host.ts'
import { createTurnClock } from './turn-clock.ts'
import { flatmeshVersion } from './version.ts'
import { Views } from './views.ts'

/** How long a stopping node still takes calls after it has said so: the time for word to reach everyone, p99 1 s at 50 nodes. */
const LAME_MS = 1000
/** How long a call waits for a link to the only place that can answer it: nobody else waits for its turn. A dial's own limit. */
const ONLY_PLACE_WAIT_MS = 5000

/** For tests of many daemons in one process: other numbers than the usual ones. */
export interface DaemonOptions {
  readonly links?: Partial<LinkPolicyOptions>
}

/**
 * One daemon: who is built from whom, and in what order they start and stop.
 *
 * registries → catalog → instances → router → overlay: what this region offers, told to the mesh.
 * application → ingress → router (where) → call plane or egress (how) → instance: one call.
 */
export class Daemon {
  private readonly config: Config
  private readonly identity: Identity
  private readonly log: Log
  private readonly nowMs = (): number => performance.now()
  private state: StatusView['state'] = 'starting'
  private listen: ListenView = { overlay: '', calls: '', http: '', admin: '', tcp: [] }
  private self: NodeInfo
  /** Names as the certificates say them: what a node says of itself must agree before it can claim somebody's addresses. */
  private readonly provenNames = new Map<NodeId, string>()

  private readonly knownNodes: KnownNodes
  private readonly httpRegistry: HttpRegistry | undefined
  private readonly catalog: Catalog
  private readonly instances: Instances
  private readonly health: HealthChecks
  private readonly pool: InstancePool
  private readonly egress: Egress
  private readonly tcpEgress: TcpEgress
  private readonly host: RouterHost
  private readonly overlay: Libp2pOverlay
  private readonly linkChooser: LinkChooser
  private readonly callPlane: CallPlane
  private readonly accessFile: LineFile | undefined
  private readonly ingress: Ingress
  private readonly listeners: readonly TcpListener[]
  private readonly processMeter: ProcessMeter
  private readonly admin: AdminServer

  constructor(config: Config, identity: Identity, log: Log, options: DaemonOptions = {}) {
    const { nowMs } = this
    const callsNowMs = createTurnClock()
    const me = { id: identity.nodeId, name: identity.name }
    this.config = config
    this.identity = identity
    this.log = log
    this.self = {
      ...{ name: identity.name, region: identity.region, version: flatmeshVersion() },
      ...{ overlay: [], calls: [], state: 'up' },
      ...(config.relay ? {} : { relays: false }),
    }

    this.knownNodes = new KnownNodes({ log }, { path: join(config.dataDir, 'known-nodes.json') })
    const sources = config.registries.map(registry =>
      registry.type === 'file'
        ? new FileRegistry({ log }, { path: registry.path })
        : new HttpRegistry(
            { log, clock: wallClock },
            { path: this.dataFile('registrations.json'), ttlMs: registry.ttlMs },
          ),
    )
    this.httpRegistry = sources.find(source => source instanceof HttpRegistry)
    this.catalog = new Catalog({ sources, log })

    this.instances = new Instances({ onChange: service => this.host.step({ type: 'local', service }) })
    this.health = new HealthChecks({ instances: this.instances, log, nowMs })
    const { instanceConnectionsMax, tcpIdleMs, timeoutMs } = config.proxy
    this.pool = new InstancePool(
      { nowMs: callsNowMs, onRoom: () => this.egress.onRoom() },
      { connectionsMax: instanceConnectionsMax },
    )
    this.egress = new Egress({ self: me, log, instances: this.instances, pool: this.pool }, config.proxy)
    this.tcpEgress = new TcpEgress({ self: me, instances: this.instances, nowMs }, { idleMs: tcpIdleMs })

    const router = {
      self: identity.nodeId,
      // Wall-clock milliseconds grow over restarts; ten random bits keep two lives in one millisecond apart.
      incarnation: Date.now() * 1024 + Math.floor(Math.random() * 1024),
      proof: new X509Certificate(identity.certificatePem).raw,
      verifyProof: (proof: Uint8Array) => this.verifyProof(proof),
      sign: signAs(identity.key),
      verify: verifySignature,
      random: Math.random,
    }
    this.host = new RouterHost({
      ...{ log, nowMs, router },
      send: (to, bytes) => this.overlay.send(to, bytes),
      onNode: (node, info) => this.onNode(node, info),
    })
    const step = (event: RouterEvent): void => this.host.step(event)
    this.overlay = new Libp2pOverlay(
      {
        identity,
        log,
        random: Math.random,
        handler: {
          onLinkUp: (to, rttMs) => this.onLinkUp(to, rttMs),
          onLinkDown: (to, reason, isPlanned) => this.onLinkDown(to, reason, isPlanned),
          onRtt: (to, rttMs, lossRatio) => step({ type: 'rtt', to, rttMs, lossRatio }),
          onFrame: (from, bytes) => step({ type: 'frame', from, bytes }),
          onCallStream: (from, stream) => this.callPlane.takeOverlay(from, stream),
        },
      },
      {
        ...{ ...config.listen.overlay, join: config.join, advertise: config.advertise },
        ...(options.links?.leaveMs !== undefined && { leaveMs: options.links.leaveMs }),
      },
    )
    this.linkChooser = new LinkChooser(
      {
        self: identity.nodeId,
        ...{ random: Math.random, nowMs },
        known: () => this.knownNodes.nodes.keys(),
        inTable: () => [...this.host.router.table.nodeIds()].length - 1,
        nearest: count => this.host.router.table.nearest(count),
        links: () => this.overlay.links(),
        choose: (wanted, isSparse) => this.choose(wanted, isSparse),
        leave: node => this.overlay.leave(node),
      },
      { fullMeshMax: config.overlay.fullMeshMax, ...options.links },
    )
    const joinDeps = {
      ...{ dataDir: config.dataDir, identity, log, limit: new JoinLimit(), clock: Date.now },
      nameTaken: (name: string, node: NodeId) => this.nameTaken(name, node),
      members: () => this.members(),
    }
    this.callPlane = new CallPlane(
      {
        ...{ identity, log },
        accept: (call, open) => this.accept(call, open),
        isMember: () => true,
        onExtraProtocol: socket => void serveJoin(joinDeps, socket),
        rttMs: peer => this.rttMs(peer),
        route: (peer, avoided) => chooseRoute(this.host.router.table, peer, avoided),
        overlay: {
          isLinked: peer => this.overlay.isLinked(peer),
          open: (peer, timeoutMs) => this.overlay.openCalls(peer, timeoutMs),
        },
      },
      {
        ...{ listen: config.listen.calls, extraAlpn: [JOIN_ALPN] },
        relay: { ...RELAY_DEFAULTS, isOn: config.relay },
      },
    )

    const { table } = this.host.router
    const { access, accessRatio, accessFile } = config.log
    this.accessFile = access === 'off' ? undefined : new LineFile({ log, nowMs }, { path: accessFile })
    const accessLog = new AccessLog(
      {
        ...{ node: identity.name, clock: Date.now, random: Math.random },
        write: line => this.accessFile?.write(line),
        carrier: node => views.carrier(node),
      },
      { calls: access, ratio: accessRatio },
    )
    const callMeter = new CallMeter()
    const ways = {
      ...{ self: me, log, nowMs: callsNowMs },
      candidates: (service: ServiceName, filter?: RouteFilter) => table.candidates(service, filter),
      knows: (service: ServiceName, filter?: RouteFilter) =>
        filter === undefined ? table.knows(service) : isOffered(table, service, filter),
      open: (target: Candidate, open: CallOpen) => this.open(target, open),
      onCallOver: (report: CallReport) => {
        callMeter.onCallOver(report)
        accessLog.onCallOver(report)
      },
    }
    this.ingress = new Ingress(ways, { ...config.listen.http, ...INGRESS_DEFAULTS, ...config.proxy })
    const { counters } = this.ingress
    this.listeners = config.listeners.map(
      ({ tcp, service, connectionsMax }) =>
        new TcpListener({ ...ways, counters }, { ...tcp, service, connectionsMax, timeoutMs, idleMs: tcpIdleMs }),
    )
    this.processMeter = new ProcessMeter({ nowMs })
    const metrics = new Metrics({
      ...{ identity, nowMs, version: this.self.version, router: this.host.router, catalog: this.catalog },
      ...{ ingress: this.ingress, egress: this.egress, instances: this.instances, calls: callMeter },
      ...{ overlay: this.overlay, callPlane: this.callPlane, process: this.processMeter, accessFile: this.accessFile },
      state: () => this.state,
    })
    const views = new Views({
      metrics: () => metrics.text(),
      ...{ identity, nowMs, version: this.self.version, router: this.host.router },
      ...{ overlay: this.overlay, callPlane: this.callPlane, catalog: this.catalog, http: this.httpRegistry },
      state: () => this.state,
      listen: () => this.listen,
      advertise: () => this.advertise(),
      calls: () => ({ ...counters, inFlight: this.inFlight }),
    })
    this.admin = new AdminServer({ backend: views, log }, { address: config.listen.admin })
  }

  /** Opens the ports, begins to look for the mesh, and then takes calls. Resolves with the real addresses. */
  async start(): Promise<ListenView> {
    const { listen, advertise } = this.config
    await this.accessFile?.start()
    this.knownNodes.load()
    // What is offered is known before anyone is told: the first words of a restarted node are not that it has nothing.
    await this.catalog.start(services => this.instances.replace(services))
    const calls = { host: listen.calls.host, port: (await this.callPlane.start()).port }
    for (const [node, known] of this.knownNodes.nodes) this.reach(node, known)
    const [overlayAt = ''] = await this.overlay.start()
    this.linkChooser.start()
    const overlay = { host: listen.overlay.host, port: Number(/\/tcp\/(\d+)/.exec(overlayAt)?.[1]) }
    this.self = {
      ...this.self,
      overlay: overlayAddresses(overlay, advertise),
      calls: callAddresses(calls, advertise),
    }
    this.host.step({ type: 'self', info: this.self })
    this.processMeter.start()
    this.pool.start()
    this.health.start()
    this.tcpEgress.start()
    const http = { host: listen.http.host, port: await this.ingress.start() }
    const tcp: ListenView['tcp'][number][] = []
    for (const [i, { tcp: at, service }] of this.config.listeners.entries()) {
      const port = await this.listeners[i]?.start()
      tcp.push({ service, address: formatHostPort({ host: at.host, port: port ?? at.port }) })
    }
    const admin = await this.admin.start()
    this.listen = {
      overlay: formatHostPort(overlay),
      calls: formatHostPort(calls),
      http: formatHostPort(http),
      admin: formatAdminAddress(admin),
      tcp,
    }
    this.state = 'up'
    return this.listen
  }

  /** Takes no new work, finishes what is in flight, at most for `proxy.drainMs`, and closes everything. */
  async drain(): Promise<void> {
    this.state = 'draining'
    this.self = { ...this.self, state: 'draining' }
    this.host.step({ type: 'self', info: this.self })
    // Calls that were on their way before the word arrived are still answered.
    if (this.overlay.links().length > 0) await wait(LAME_MS)
    const ways = [this.ingress, ...this.listeners, this.callPlane]
    const drained = Promise.all(ways.map(way => way.drain()))
    const inTime = await Promise.race([drained.then(() => true), wait(this.config.proxy.drainMs).then(() => false)])
    if (!inTime) this.log.warn({ calls: this.inFlight }, 'calls were cut off at the drain limit')
    await this.stop()
  }

  /** Closes everything at once; safe at any stage of starting. */
  async stop(): Promise<void> {
    this.health.stop()
    this.processMeter.stop()
    this.linkChooser.stop()
    this.tcpEgress.stop()
    const listeners = this.listeners.map(listener => listener.stop())
    await Promise.allSettled([this.ingress.stop(), ...listeners, this.admin.stop(), this.catalog.stop()])
    await Promise.allSettled([this.callPlane.stop(), this.overlay.stop()])
    await this.accessFile?.stop()
    this.pool.stop()
    this.host.stop()
    this.knownNodes.stop()
  }

  // Between the parts ------------------------------------------------------------------------------------------------

  private open(target: Candidate, open: CallOpen): Call | undefined {
    if (target.node !== this.identity.nodeId) {
      this.linkChooser.onCall(target.node)
      const isOnly = this.host.router.table.candidates(target.service).length === 1
      return this.callPlane.open(target.node, open, isOnly ? ONLY_PLACE_WAIT_MS : undefined)
    }
    const [mine, theirs] = createLocalCall(error => this.onCallThrown(error))
    this.accept(theirs, open)
    return mine
  }

  private accept(call: Call, open: CallOpen): void {
    if (open.kind === 'tcp') this.tcpEgress.accept(call, open)
    else this.egress.accept(call, open)
  }

  private onCallThrown(error: unknown): void {
    const reason = messageOf(error)
    this.log.error({ code: 'internal', reason, err: error }, 'the handler of a call failed')
  }

  /** Calls that enter here and calls that leave here; one that does both counts twice. */
  private get inFlight(): number {
    const entered = this.listeners.reduce((sum, listener) => sum + listener.inFlight, this.ingress.inFlight)
    return entered + this.egress.inFlight + this.tcpEgress.inFlight
  }

  private onLinkUp(to: NodeId, rttMs: number): void {
    this.log.info({ link: this.nameOf(to), rttMs: Math.round(rttMs * 10) / 10 }, 'an overlay link is up')
    this.host.step({ type: 'link-up', to, rttMs })
    this.linkChooser.onLinkUp(to)
    this.callPlane.want(to)
    this.callPlane.nudge(to)
  }

  private onLinkDown(to: NodeId, reason: string, isPlanned: boolean): void {
    this.log.info({ link: this.nameOf(to), reason }, 'an overlay link is down')
    this.host.step({ type: 'link-down', to, isPlanned })
    // Calls in flight go on, and a call that comes still asks for a link; but nobody dials for its own sake any more.
    this.callPlane.unwant(to)
  }

  /** A link for calls is kept beside each link of the overlay that this node wants; what the other end wants, it keeps. */
  private choose(wanted: ReadonlySet<NodeId> | undefined, isSparse: boolean): void {
    this.overlay.choose(wanted)
    for (const { node } of this.overlay.links()) {
      if (!isSparse || wanted === undefined || wanted.has(node)) this.callPlane.want(node)
      else this.callPlane.unwant(node)
    }
  }

  private onNode(node: NodeId, info: NodeInfo | undefined): void {
    if (node === this.identity.nodeId) return
    if (info === undefined) {
      // Its addresses stay, and the overlay goes on dialling: what was split for long must find together by itself.
      this.callPlane.forget(node)
      return
    }
    const proven = this.provenNames.get(node)
    if (proven !== undefined && proven !== info.name) {
      this.log.warn({ link: node, reason: `it is ${proven}, says its certificate` }, `a node calls itself ${info.name}`)
      return
    }
    const known = { name: info.name, overlay: info.overlay, calls: info.calls }
    if (!this.knownNodes.nodes.has(node)) this.linkChooser.onNews()
    this.knownNodes.set(node, known)
    this.reach(node, known)
    // Whatever it said, it is there: what failed before is tried again.
    if (info.state === 'draining') this.callPlane.leaveRelay(node)
    else this.callPlane.nudge(node)
  }

  /** Says where a node is, to those that dial it: at the addresses it advertises or at those the operator gave for it. */
  private reach(node: NodeId, known: { name: string; overlay: readonly string[]; calls: readonly string[] }): void {
    const given = this.config.dial.get(known.name)
    this.overlay.learn(node, given?.overlay ?? known.overlay, given?.overlay !== undefined)
    this.callPlane.learn(node, given?.calls ?? known.calls)
  }

  private verifyProof(proof: Uint8Array): NodeId | undefined {
    const verdict = verifyNodeCertificate(proof, this.identity.rootPem, Date.now())
    if (!verdict.ok) return undefined
    this.provenNames.set(verdict.nodeId, verdict.name)
    return verdict.nodeId
  }

  private nameTaken(name: string, node: NodeId): string | undefined {
    const { table } = this.host.router
    for (const id of table.nodeIds()) {
      const info = table.nodeInfo(id)
      if (id !== node && info?.name === name && table.path(id) !== undefined) return `node ${id} in ${info.region}`
    }
    return undefined
  }

  /** Where a new node can find the mesh: this node, and a few others in case it goes away. */
  private members(): string[] {
    const { table } = this.host.router
    const others = [...table.nodeIds()].filter(id => id !== this.identity.nodeId && table.path(id) !== undefined)
    const reachable = [this.identity.nodeId, ...others].slice(0, 8)
    return reachable.flatMap(id =>
      (table.nodeInfo(id)?.overlay ?? []).slice(0, 2).map(address => `${address}/p2p/${id}`),
    )
  }

  private advertise(): string[] {
    const at: HostPort | undefined = decodeHostPort(this.listen.overlay)
    return at === undefined ? [] : dialableHosts(at.host, this.config.advertise)
  }

  private rttMs(node: NodeId): number | undefined {
    return this.host.router.table.path(node)?.rttMs
  }

  private nameOf(node: NodeId): string {
    return this.host.router.table.nodeInfo(node)?.name ?? node
  }

  private dataFile(name: string): string {
    return join(this.config.dataDir, name)
  }
}

/** Whether any place that the filter lets through offers it, in good health or not. */
function isOffered(table: Table, service: ServiceName, filter: RouteFilter): boolean {
  for (const node of table.nodeIds()) {
    const [info, offered] = [table.nodeInfo(node), table.service(node, service)]
    if (info !== undefined && offered !== undefined && matchesFilter(filter, info.region, offered)) return true
  }
  return false
}

const wallClock = {
  nowMs: (): number => Date.now(),
  setTimer(ms: number, run: () => void): () => void {
    const timer = setTimeout(run, ms)
    return () => clearTimeout(timer)
  },
}

function wait(ms: number): Promise<void> {
  return new Promise(resolve => {
    setTimeout(resolve, ms).unref()
  })
}
