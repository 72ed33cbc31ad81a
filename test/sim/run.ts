import type { LocalService } from '../../router/model.ts'
import { countErrors, findLack, type Lack } from './check-truth.ts'
import { checkAtRest, type Violation } from './checkers.ts'
import { Convergence } from './convergence.ts'
import { MicroProtocol } from './micro-protocol.ts'
import { pickOne, randomFor, shuffle } from './rng.ts'
import { RouterThreads } from './router-threads.ts'
import { SimMesh } from './sim-mesh.ts'
import type { SimNode } from './sim-node.ts'
import { createTopology, type Topology, type TopologyName } from './topology.ts'
import { ascending, quantile, Traffic, type TrafficSample } from './traffic.ts'
import { Transcript } from './transcript.ts'

export interface RunOptions {
  readonly nodes: number
  /** Services each node offers. */
  readonly services: number
  readonly topology: TopologyName
  /** Share of all services that change each minute: gone, back, or other counts. */
  readonly churnPerMinute: number
  /** Share of all nodes that go away each minute, half without a word, and come back. */
  readonly nodeChurnPerMinute: number
  readonly loss: number
  /** Jitter as a share of each wire's latency. */
  readonly jitterRatio: number
  readonly seed: number
  readonly minutes: number
  readonly protocol: 'flatmesh' | 'micro'
  readonly microStrategy: 'best' | 'local'
  readonly retransmit: boolean
  readonly heartbeats: 'exact' | 'modelled'
  readonly transcript: boolean
  readonly signatures: 'stub' | 'ed25519'
  /** Threads beside the first that routers of a large mesh work in. What comes of it is the same with any number. */
  readonly threads: number
}

export interface RunProgress {
  readonly phase: string
  /** 0..1 */
  readonly share: number
  readonly nowMs: number
}

export interface Quantiles {
  readonly p50: number
  readonly p99: number
  readonly max: number
}

export interface RunResult {
  readonly protocol: 'flatmesh' | 'micro'
  readonly nodes: number
  readonly services: number
  readonly seed: number
  readonly simulatedMs: number
  readonly changes: number
  /** Changes without a figure: overtaken, or their owner went away; and those some node had not seen at the end. */
  readonly abandoned: number
  readonly unfinished: number
  readonly convergenceMs: Quantiles
  readonly bytesPerNodePerSecond: { readonly p50: number; readonly p99: number }
  readonly heartbeatBytesPerNodePerSecond: number
  readonly framesPerNodePerSecond: number
  /** The worst second of a busy node: 99th percentile over the nodes, greatest over the seconds. */
  readonly worstSecondBytes: number
  /** From a silent death until no node has a path there. When another dies meanwhile, from then: it takes its last word on the first with it. */
  readonly deathMs: Quantiles
  /** From the start until every table was whole. */
  readonly joinedMs: number
  readonly nodesLost: number
  /** Routes that calls may take and nobody offers, and offered ones missing: counted over all nodes at the end. */
  readonly ghostRoutes: number
  readonly missingRoutes: number
  readonly signatures: { readonly made: number; readonly checked: number }
  readonly heldBytesMax: number
  readonly violations: readonly Violation[]
  readonly wallMs: number
  readonly rssBytes: number
  /** Hash of everything that happened; equal for equal options. Empty when no transcript was kept. */
  readonly transcript: string
}

/** What the HTML report draws beside the figures. */
export interface RunPictures {
  readonly topology: Topology
  readonly links: readonly { a: number; b: number }[]
  readonly tookMs: readonly number[]
  readonly samples: readonly TrafficSample[]
}

/** Owners of each service name, on average: an instance of everything in eight regions. */
const OWNERS_PER_SERVICE = 8
/** All nodes start within this span: as fast as an operator's tool starts them. */
const START_MS_PER_NODE = 20
const START_MS_MAX = 20_000
const JOIN_MS_MAX = 120_000
/** Quiet at the end of each minute, in which the checkers must find all well. */
const QUIET_MS = 10_000
/** From here on a mesh is a large one: what looks at all of its tables is done seldom, or left out. */
const LARGE_NODES_MIN = 201
/**
 * In a large mesh links are told of up to ten seconds after they came up and chosen anew every ten: it is at rest only after
 * both, and nobody comes back meanwhile.
 */
const LARGE_QUIET_MS = 30_000
/** From an event at a node of a large mesh to what comes of it: a busy daemon's turn, and what threads work ahead of each other. */
const THINK_MS = 1
const SECOND_MS = 1000
const MINUTE_MS = 60_000
/** A node that went away comes back after 3..30 s. */
const AWAY_MS = { min: 3000, span: 27_000 }
/** Deaths are timed by asking every table ten times a second; not in a large mesh. */
const DEATH_POLL_MS = 100
const DEATH_MS_MAX = 10_000

/** One run from a seed: a mesh joins, lives through churn and loss, and is checked at a quiet point each minute. */
export class Run {
  private readonly options: RunOptions
  private readonly onProgress: (progress: RunProgress) => void
  private readonly topology: Topology
  private readonly mesh: SimMesh
  private readonly threads: RouterThreads | undefined
  private readonly convergence: Convergence
  private readonly traffic: Traffic
  private readonly churnRandom: () => number
  private readonly faultRandom: () => number
  private readonly pool: string[]
  private readonly deathsMs: number[] = []
  private readonly violations: Violation[] = []
  private nodesLost = 0
  private lastDeathMs = 0
  private isQuiet = true
  /** Nodes that would have come back while all is quiet. */
  private readonly afterQuiet: (() => void)[] = []

  constructor(deps: { onProgress: (progress: RunProgress) => void }, options: RunOptions) {
    this.options = options
    this.onProgress = deps.onProgress
    this.topology = createTopology(options.topology, options.nodes, options.seed)
    this.churnRandom = randomFor(options.seed, 'churn')
    this.faultRandom = randomFor(options.seed, 'faults')
    const names = Math.max(options.services, Math.ceil((options.nodes * options.services) / OWNERS_PER_SERVICE))
    this.pool = Array.from({ length: names }, (_, i) => `service-${i}`)
    const { seed, signatures } = options
    if (this.isLarge && options.protocol === 'flatmesh' && options.threads > 0) {
      this.threads = new RouterThreads(options.threads, { seed, signatures, router: {} })
    }
    this.mesh = new SimMesh({
      ...(this.isLarge && { thinkMs: THINK_MS }),
      ...(this.threads !== undefined && { threads: this.threads }),
      seed: options.seed,
      conditions: (from, to) => this.conditions(from, to),
      overlay: { retransmit: options.retransmit, heartbeats: options.heartbeats },
      signatures: options.signatures,
      transcript: options.transcript ? new Transcript() : false,
      ...(options.protocol === 'micro' && {
        protocol: deps => new MicroProtocol(deps, { strategy: options.microStrategy }),
      }),
    })
    this.convergence = new Convergence(this.mesh)
    this.mesh.observers.push(this.convergence)
    this.traffic = new Traffic(this.mesh)
  }

  /** Runs it all. */
  execute(): { result: RunResult; pictures: RunPictures } {
    const beganMs = performance.now()
    const joinedMs = this.join()
    this.traffic.begin()
    for (let minute = 0; minute < this.options.minutes; minute++) this.runMinute(minute)
    const links = this.links()
    const executed = { result: this.result(joinedMs, performance.now() - beganMs), pictures: this.pictures(links) }
    // It can be asked nothing more.
    this.threads?.end()
    return executed
  }

  private conditions(from: SimNode, to: SimNode): { latencyMs: number; jitterMs: number; loss: number } | undefined {
    const rttMs = this.topology.rttMs(from.index, to.index)
    if (rttMs === undefined) return undefined
    return { latencyMs: rttMs / 2, jitterMs: (rttMs / 2) * this.options.jitterRatio, loss: this.options.loss }
  }

  // Joining ------------------------------------------------------------------------------------------------------

  private join(): number {
    const { nodes, services, seed } = this.options
    const random = randomFor(seed, 'start')
    const spanMs = Math.min(START_MS_MAX, nodes * START_MS_PER_NODE)
    this.convergence.isMeasuring = false
    const seeds: string[] = []
    for (const [i, { name, region }] of this.topology.nodes.entries()) {
      const offered = shuffle(random, this.pool)
        .slice(0, services)
        .map(service => this.service(service))
      const atMs = i === 0 ? 0 : random() * spanMs
      const begin = (): void => {
        const node = this.mesh.addNode(name, { region, seeds: [...seeds], services: offered })
        this.introduce(node)
      }
      if (i === 0) {
        begin()
        seeds.push(name)
      } else this.mesh.queue.at(atMs, begin)
    }
    const untilMs = JOIN_MS_MAX
    // Second by second so that it is seen to move. Traffic is sampled once all have started.
    while (this.mesh.nowMs < spanMs) {
      this.mesh.run(Math.min(SECOND_MS, spanMs - this.mesh.nowMs))
      this.tell('joining', this.mesh.nowMs / untilMs)
    }
    let lack: Lack | undefined
    while (this.mesh.nowMs < untilMs) {
      this.second('joining', this.mesh.nowMs / untilMs)
      lack = findLack(this.mesh, lack)
      if (lack === undefined) break
    }
    this.convergence.isMeasuring = true
    return this.mesh.nowMs
  }

  /** Wires that a topology leaves out make a seed unreachable for most; neighbours know each other from the start there. */
  private introduce(node: SimNode): void {
    const { topology, protocol } = this.options
    if (protocol === 'flatmesh' && (topology === 'full' || topology === 'clouds' || topology === 'islands')) return
    for (const other of this.mesh.nodes.values()) {
      if (other === node || this.mesh.overlay.wire(node, other) === undefined) continue
      node.known.add(other.id)
      other.known.add(node.id)
      this.mesh.overlay.chooseSoon(other)
    }
    this.mesh.overlay.chooseSoon(node)
  }

  private service(name: string): LocalService {
    const instances = 1 + Math.floor(this.churnRandom() * 4)
    return { name, protocol: 'http', instances, healthy: instances, weight: instances, labels: { version: 'v1' } }
  }

  // Churn --------------------------------------------------------------------------------------------------------

  private runMinute(minute: number): void {
    const { churnPerMinute, nodeChurnPerMinute, nodes, services, protocol } = this.options
    const fromMs = this.mesh.nowMs
    const quietMs = this.isLarge ? LARGE_QUIET_MS : QUIET_MS
    const busyMs = MINUTE_MS - quietMs
    this.isQuiet = false
    // Not all in the same moment.
    for (const comeBack of this.afterQuiet.splice(0)) this.mesh.queue.after(this.faultRandom() * SECOND_MS, comeBack)
    // Times are drawn first: what happens must not depend on how many draws an earlier change took.
    const events = [
      ...this.draw(churnPerMinute * nodes * services).map(share => ({ share, run: () => this.changeService() })),
      ...this.draw(nodeChurnPerMinute * nodes).map(share => ({ share, run: () => this.loseNode() })),
    ]
    for (const { share, run } of events) this.mesh.queue.at(fromMs + share * busyMs, run)
    while (this.mesh.nowMs < fromMs + busyMs) this.second(`minute ${minute + 1}`, this.share(minute, fromMs))
    this.isQuiet = true
    const onStep = (): void => this.tell(`minute ${minute + 1}`, this.share(minute, fromMs))
    if (protocol === 'flatmesh') this.violations.push(...checkAtRest(this.mesh, quietMs, this.convergence, onStep))
    while (this.mesh.nowMs < fromMs + MINUTE_MS) this.second(`minute ${minute + 1}`, this.share(minute, fromMs))
  }

  private share(minute: number, fromMs: number): number {
    return (minute + (this.mesh.nowMs - fromMs) / MINUTE_MS) / this.options.minutes
  }

  /** A Poisson process would bunch; uniform times for the expected number are the same without the noise in the number. */
  private draw(expected: number): number[] {
    const count = Math.floor(expected) + (this.churnRandom() < expected % 1 ? 1 : 0)
    return Array.from({ length: count }, () => this.churnRandom())
  }

  private changeService(): void {
    const owner = pickOne(this.churnRandom, [...this.mesh.nodes.values()])
    const [choice, which, back] = [this.churnRandom(), this.churnRandom(), this.churnRandom()]
    if (!owner.alive) return
    const offered = [...owner.services.values()]
    const chosen = offered[Math.floor(which * offered.length)]
    const isShort = offered.length < this.options.services
    if (chosen !== undefined && (choice < 0.4 || (choice < 0.8 && !isShort))) {
      this.mesh.withdraw(owner.name, chosen.name)
    } else if (chosen === undefined || choice < 0.8) {
      const free = this.pool.filter(name => !owner.services.has(name))
      this.mesh.serve(owner.name, this.service(free[Math.floor(back * free.length)] ?? 'service-0'))
    } else {
      // An instance fails its health check, or all pass it again.
      const healthy = chosen.healthy < chosen.instances ? chosen.instances : chosen.healthy - 1
      this.mesh.serve(owner.name, { ...chosen, healthy, weight: healthy })
    }
  }

  private loseNode(): void {
    const [which, how, state, away] = [this.faultRandom(), this.faultRandom(), this.faultRandom(), this.faultRandom()]
    // Enough must be left to call it one mesh, and the first node is the one all were told to join through.
    const living = this.mesh.living().slice(1)
    const node = living[Math.floor(which * living.length)]
    if (this.isQuiet || node === undefined || living.length < this.options.nodes * 0.8) return
    this.nodesLost++
    const { name, life } = node
    if (how < 0.5) {
      this.mesh.crash(name)
      this.lastDeathMs = this.mesh.nowMs
      this.watchDeath(node)
    } else this.mesh.stop(name)
    const comeBack = (): void => {
      if (!node.alive && node.life === life + 1) this.mesh.restart(name, { state: state < 0.8 })
    }
    this.mesh.queue.after(AWAY_MS.min + away * AWAY_MS.span, () => {
      if (this.isQuiet && this.isLarge) this.afterQuiet.push(comeBack)
      else comeBack()
    })
  }

  private get isLarge(): boolean {
    return this.options.nodes >= LARGE_NODES_MIN
  }

  private watchDeath(dead: SimNode): void {
    if (this.isLarge || this.options.protocol === 'micro') return
    const { life } = dead
    const look = (): void => {
      // It may be back before all have missed it.
      if (dead.alive || dead.life !== life) return
      const isGone = this.mesh.living().every(node => node.protocol.rttMs(dead.id) === undefined)
      const tookMs = this.mesh.nowMs - this.lastDeathMs
      if (isGone || tookMs > DEATH_MS_MAX) this.deathsMs.push(tookMs)
      else this.mesh.queue.after(DEATH_POLL_MS, look)
    }
    this.mesh.queue.after(DEATH_POLL_MS, look)
  }

  // Results ------------------------------------------------------------------------------------------------------

  private second(phase: string, share: number): void {
    this.mesh.run(SECOND_MS)
    this.convergence.sweep()
    this.traffic.sample(!this.isLarge || this.traffic.samples.length % 10 === 0)
    this.tell(phase, share)
  }

  private tell(phase: string, share: number): void {
    this.onProgress({ phase, share, nowMs: this.mesh.nowMs })
  }

  private result(joinedMs: number, wallMs: number): RunResult {
    const { options, mesh, convergence } = this
    const { gossip, heartbeatMean, framesMean } = this.traffic.rates()
    const { ghosts, missing } = countErrors(mesh)
    const measured = this.traffic.samples.filter(({ atMs }) => atMs > joinedMs)
    return {
      ...{ protocol: options.protocol, nodes: options.nodes, services: options.services, seed: options.seed },
      simulatedMs: Math.round(mesh.nowMs),
      changes: convergence.changes,
      abandoned: convergence.abandoned,
      unfinished: convergence.unfinished().length,
      convergenceMs: quantiles(convergence.tookMs),
      bytesPerNodePerSecond: { p50: Math.round(quantile(gossip, 0.5)), p99: Math.round(quantile(gossip, 0.99)) },
      heartbeatBytesPerNodePerSecond: Math.round(heartbeatMean),
      framesPerNodePerSecond: Math.round(framesMean),
      worstSecondBytes: Math.round(Math.max(0, ...measured.map(({ p99 }) => p99))),
      deathMs: quantiles(this.deathsMs),
      joinedMs: Math.round(joinedMs),
      nodesLost: this.nodesLost,
      ghostRoutes: ghosts,
      missingRoutes: missing,
      signatures: this.signatures(),
      heldBytesMax: Math.max(...mesh.living().map(node => node.protocol.heldBytes())),
      violations: this.violations,
      wallMs: Math.round(wallMs),
      rssBytes: process.memoryUsage.rss(),
      transcript: mesh.transcript?.digest() ?? '',
    }
  }

  private signatures(): RunResult['signatures'] {
    const all = [this.mesh.signing, ...(this.threads?.signatures() ?? [])]
    const sum = (of: (one: { signed: number; checked: number }) => number) => all.reduce((so, one) => so + of(one), 0)
    return { made: sum(one => one.signed), checked: sum(one => one.checked) }
  }

  private links(): { a: number; b: number }[] {
    const links: { a: number; b: number }[] = []
    for (const node of this.mesh.nodes.values()) {
      for (const end of node.ends.values()) {
        if (node.index < end.peer.index) links.push({ a: node.index, b: end.peer.index })
      }
    }
    return links
  }

  private pictures(links: { a: number; b: number }[]): RunPictures {
    return { topology: this.topology, links, tookMs: this.convergence.tookMs, samples: this.traffic.samples }
  }
}

function quantiles(values: readonly number[]): Quantiles {
  const sorted = [...values].sort(ascending)
  return {
    p50: Math.round(quantile(sorted, 0.5)),
    p99: Math.round(quantile(sorted, 0.99)),
    max: Math.round(sorted.at(-1) ?? 0),
  }
}
