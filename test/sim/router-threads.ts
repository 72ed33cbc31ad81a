import { Worker } from 'node:worker_threads'
import { invariant } from '../../router/errors.ts'
import type { Version } from '../../router/frame.ts'
import type { RoundTrips } from '../../router/link-policy.ts'
import type { LocalService, NodeId, ServiceName } from '../../router/model.ts'
import type { RouterEvent } from '../../router/router.ts'
import { ByteRing } from './byte-ring.ts'
import { type HostData, NumberedNodes } from './router-host.ts'
import type { Outcome, SimProtocol } from './sim-protocol.ts'
import { type Aspect, type Command, type Question, StepReader, StepWriter } from './step-codec.ts'

/** Steps and answers under way, each way: far more than one look ahead holds, and the largest answer. */
const RING_BYTES = 64 * 1024 * 1024
/** No step takes so long: a thread that has not answered since has failed. */
const GONE_MS = 120_000
/** With one other thread, of ten routers those that work there: the first thread has the network and the checks besides. */
const HOSTED_OF_TEN = 7

/** Of those that have been answered, so many stay in the list before it is moved up. */
const AWAITED_KEPT = 1000

type Reply = ReturnType<StepReader['reply']>

/** Something that a thread was asked, whose reply comes in its turn. */
interface Awaited {
  reply: Reply | undefined
}

/** Threads in which routers of one mesh work. */
export class RouterThreads {
  private readonly threads: RouterThread[]
  private readonly hosts: (RouterThread | undefined)[]

  constructor(count: number, options: Omit<HostData, 'orders' | 'replies'>) {
    this.threads = Array.from({ length: count }, () => new RouterThread(options))
    // One for each of ten nodes in turn.
    this.hosts = Array.from({ length: 10 }, (_, i) =>
      count === 1 && i >= HOSTED_OF_TEN ? undefined : this.threads[i % count],
    )
  }

  /** Makes a node known to all threads. */
  name(node: number, id: NodeId): void {
    for (const thread of this.threads) thread.name(node, id)
  }

  /** The router of a node, if it is one that works in another thread. */
  host(node: number, incarnation: number, life: number): SimProtocol | undefined {
    return this.hosts[node % this.hosts.length]?.host(node, incarnation, life)
  }

  watch(owner: number, service: LocalService, watch: number): void {
    for (const thread of this.threads) thread.tell({ type: 'watch', owner, service, watch })
  }

  unwatch(owner: number, service: ServiceName): void {
    for (const thread of this.threads) thread.tell({ type: 'unwatch', owner, service })
  }

  /** Numbers of the nodes there that hold a route. Those that are down count as well. */
  holders(owner: number, service: ServiceName): number[] {
    return this.threads.flatMap(thread => thread.ask({ about: 'holders', owner, service }) as number[])
  }

  signatures(): { signed: number; checked: number }[] {
    return this.threads.map(thread => thread.ask({ about: 'signatures' }) as { signed: number; checked: number })
  }

  end(): void {
    for (const thread of this.threads) thread.tell({ type: 'end' })
  }
}

/** One thread, and what it has been asked and has not answered. */
class RouterThread {
  readonly names = new NumberedNodes()
  private readonly writer: StepWriter
  private readonly reader: StepReader
  private readonly awaited: Awaited[] = []
  private first = 0
  private lastAsked: RemoteProtocol | undefined

  constructor(options: Omit<HostData, 'orders' | 'replies'>) {
    const [orders, replies] = [new ByteRing(RING_BYTES, GONE_MS), new ByteRing(RING_BYTES, GONE_MS)]
    const workerData: HostData = { ...options, orders: orders.memory, replies: replies.memory }
    // This file is compiled or not, and the other with it.
    const suffix = import.meta.url.endsWith('.ts') ? '.ts' : '.js'
    // It ends with this one at the latest.
    new Worker(new URL(`router-host${suffix}`, import.meta.url), { workerData }).unref()
    // While there is no room for more orders, replies are what holds it up.
    this.writer = new StepWriter(orders, this.names, () => this.keepNext())
    this.reader = new StepReader(replies, this.names)
  }

  name(node: number, id: NodeId): void {
    this.names.add(node, id)
    this.tell({ type: 'name', node, id })
  }

  host(node: number, incarnation: number, life: number): RemoteProtocol {
    this.tell({ type: 'host', node, incarnation, life })
    return new RemoteProtocol(this, node)
  }

  tell(command: Command): void {
    this.writer.command(command)
  }

  begin(node: number, nowMs: number, event: RouterEvent): () => Outcome {
    this.writer.event(node, nowMs, event)
    const awaited = this.await()
    return () => {
      const reply = this.take(awaited)
      invariant('outcome' in reply, 'a step is replied to with what came of it')
      return reply.outcome
    }
  }

  beginAsking(question: Question): () => unknown {
    this.tell({ type: 'ask', question })
    const awaited = this.await()
    return () => {
      const reply = this.take(awaited)
      invariant('answer' in reply, 'a question is replied to with an answer')
      return reply.answer
    }
  }

  ask(question: Question): unknown {
    return this.beginAsking(question)()
  }

  /** Checkers ask one node after the other: what the last one answered is not asked for again. */
  onAsked(node: RemoteProtocol): void {
    if (this.lastAsked !== node) this.lastAsked?.forget()
    this.lastAsked = node
  }

  private await(): Awaited {
    const awaited: Awaited = { reply: undefined }
    this.awaited.push(awaited)
    return awaited
  }

  /** What was asked for: the next reply, as long as all is asked for in its order. */
  private take(wanted: Awaited): Exclude<Reply, { threw: string }> {
    while (wanted.reply === undefined && this.awaited[this.first] !== wanted) this.keepNext()
    if (wanted.reply === undefined) {
      this.shift()
      wanted.reply = this.reader.reply()
    }
    if ('threw' in wanted.reply) throw new Error(`in another thread: ${wanted.reply.threw}`)
    return wanted.reply
  }

  /** Takes the next reply out of the ring, for whoever will ask for it. Answers whether there was one to come. */
  private keepNext(): boolean {
    const next = this.awaited[this.first]
    if (next === undefined) return false
    this.shift()
    next.reply = copyOf(this.reader.reply())
    return true
  }

  private shift(): void {
    this.first++
    if (this.first < AWAITED_KEPT && this.first < this.awaited.length) return
    this.awaited.splice(0, this.first)
    this.first = 0
  }
}

function copyOf(reply: Reply): Reply {
  if (!('outcome' in reply)) return reply
  const { effects, sights } = reply.outcome
  const own = effects.map(effect =>
    effect.type === 'send' ? { ...effect, bytes: new Uint8Array(effect.bytes) } : effect,
  )
  return { outcome: { effects: own, sights } }
}

/** A router that works in another thread. What checkers ask of it is fetched whole, and kept until its next step or until another is asked. */
class RemoteProtocol implements SimProtocol {
  readonly carriesHealth = true
  readonly isElsewhere = true
  private readonly thread: RouterThread
  private readonly number: number
  private readonly kept = new Map<string, unknown>()

  constructor(thread: RouterThread, number: number) {
    this.thread = thread
    this.number = number
  }

  get hasNews(): boolean {
    return this.fetch('hasNews') as boolean
  }

  begin(event: RouterEvent, nowMs: number): () => Outcome {
    this.forget()
    return this.thread.begin(this.number, nowMs, event)
  }

  beginNearest(count: number): () => RoundTrips {
    const answer = this.thread.beginAsking({ about: 'nearest', node: this.number, count })
    return () => new Map(answer() as [NodeId, number][])
  }

  has(owner: NodeId, service: ServiceName): boolean {
    return this.services().get(owner)?.includes(service) ?? false
  }

  shows(owner: NodeId, service: LocalService): boolean {
    const number = this.thread.names.numberOf(owner)
    return this.thread.ask({ about: 'shows', node: this.number, owner: number, service }) as boolean
  }

  reaches(owner: NodeId): boolean {
    return this.rttMs(owner) !== undefined
  }

  servicesOf(owner: NodeId): Iterable<ServiceName> {
    return this.services().get(owner) ?? []
  }

  rttMs(node: NodeId): number | undefined {
    return this.paths().get(node)?.rttMs
  }

  path(node: NodeId): readonly NodeId[] | undefined {
    return this.paths().get(node)?.path
  }

  routes(): number {
    return this.fetch('routes') as number
  }

  versions(): ReadonlyMap<NodeId, Version> {
    return this.made('versions map', () => new Map(this.fetch('versions') as [NodeId, Version][]))
  }

  refused(): ReadonlyMap<string, number> {
    return new Map(this.fetch('refused') as [string, number][])
  }

  heldBytes(): number {
    return this.fetch('heldBytes') as number
  }

  private services(): ReadonlyMap<NodeId, readonly ServiceName[]> {
    return this.made('services map', () => new Map(this.fetch('services') as [NodeId, ServiceName[]][]))
  }

  private paths(): ReadonlyMap<NodeId, { path: readonly NodeId[]; rttMs: number }> {
    return this.made('paths map', () => {
      const paths = this.fetch('paths') as [NodeId, NodeId[], number][]
      return new Map(paths.map(([node, path, rttMs]) => [node, { path, rttMs }]))
    })
  }

  private fetch(about: Aspect): unknown {
    return this.made(about, () => this.thread.ask({ about, node: this.number }))
  }

  forget(): void {
    if (this.kept.size > 0) this.kept.clear()
  }

  private made<T>(name: string, make: () => T): T {
    this.thread.onAsked(this)
    if (!this.kept.has(name)) this.kept.set(name, make())
    return this.kept.get(name) as T
  }
}
