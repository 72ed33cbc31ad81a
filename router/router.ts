import { ADVERTISER_DEFAULTS, Advertiser, type AdvertiserOptions } from './advertiser.ts'
import { type Batch, decodeBatch, type Entry, peekBatch, SigningBuffer } from './batch.ts'
import type { Scope } from './digest-index.ts'
import { Doubts } from './doubts.ts'
import { NODE_KEY } from './entry.ts'
import { FirstWays } from './first-ways.ts'
import { decodeGossipFrame, encodeGossipFrame, type GossipFrame, type Version } from './frame.ts'
import { type Fresh, HandOnQueue } from './hand-on-queue.ts'
import { type KeptBatch, keepCopy } from './kept-batch.ts'
import { KeyPool } from './key-pool.ts'
import type { LogFields } from './log.ts'
import type { Candidate, LocalService, NodeId, NodeInfo, ServiceName } from './model.ts'
import { NEIGHBOUR_RATE, Neighbours } from './neighbours.ts'
import { NodeNumbers } from './node-numbers.ts'
import { type Changes, OriginLog } from './origin-log.ts'
import { packBatches } from './pack.ts'
import { HOPS_MAX } from './paths.ts'
import { pickOne, pickSome } from './pick.ts'
import { Providers } from './providers.ts'
import { RateLimit } from './rate-limit.ts'
import { isKnown, isNewer, type Peer, Records } from './records.ts'
import type { RouteFilter } from './route-filter.ts'
import { Suspects } from './suspects.ts'
import { Table } from './table.ts'

export type RouterEvent =
  /** What this node says about itself; the first event, and again whenever it changes. */
  | { type: 'self'; info: NodeInfo }
  | { type: 'local'; service: LocalService }
  | { type: 'link-up'; to: NodeId; rttMs: number }
  /** `isPlanned`: this node gives the link up and keeps it open until others have heard. */
  | { type: 'link-down'; to: NodeId; isPlanned?: boolean }
  | { type: 'rtt'; to: NodeId; rttMs: number; lossRatio: number }
  | { type: 'frame'; from: NodeId; bytes: Uint8Array }
  | { type: 'wake' }

export type RouterEffect =
  /** Best effort: may be lost, must not be altered. */
  | { type: 'send'; to: NodeId; bytes: Uint8Array }
  /** Give a `wake` event at this instant, in place of any asked for earlier. */
  | { type: 'wake-at'; atMs: number }
  | { type: 'routes-changed'; service: ServiceName }
  /** A node became known, changed what it says of itself, or was forgotten (`info` undefined). */
  | { type: 'node-changed'; node: NodeId; info: NodeInfo | undefined }
  | { type: 'note'; event: string; fields: LogFields }

export interface RouterDeps {
  readonly self: NodeId
  /** Higher than any this node has used before; wall-clock milliseconds at start do. */
  readonly incarnation: number
  /** This node's membership proof, and the check of anyone's: the proven node's id, or undefined. */
  readonly proof: Uint8Array
  verifyProof(proof: Uint8Array): NodeId | undefined
  sign(bytes: Uint8Array): Uint8Array
  verify(signer: NodeId, bytes: Uint8Array, signature: Uint8Array): boolean
  /** Default: `decodeBatch`. A simulator, in which a thousand nodes read the same batch, may remember what it says. */
  decode?(payload: Uint8Array, signature: Uint8Array): ReturnType<typeof decodeBatch>
  /** Default: a copy. A simulator may keep one for all. */
  keep?(batch: Batch): KeptBatch
  keepProof?(proof: Uint8Array): Uint8Array
  /** Default: its own. A simulator has one for all. */
  readonly numbers?: NodeNumbers
  /** Uniform in [0, 1). */
  random(): number
}

export interface RouterOptions extends AdvertiserOptions {
  /** Mean time between digest exchanges with one random neighbour while nothing happens: a few bytes each. */
  readonly digestMs: number
  /** The same after something new was heard or said: a push that was lost is found out this soon. */
  readonly quickDigestMs: number
  /** Neighbours that each node has fresh batches handed on by. 3: at 5 % loss one batch in 8,000 comes from none of them and waits for a digest. */
  readonly providers: number
  /** Links a call may pass; 1: calls go to neighbours only. */
  readonly hopsMax: number
  /** A node that nobody could reach for so long is dropped from the table. 72 h: longer than a weekend. */
  readonly forgetMs: number
}

export const ROUTER_DEFAULTS: RouterOptions = {
  ...ADVERTISER_DEFAULTS,
  digestMs: 2000,
  quickDigestMs: 300,
  providers: 3,
  hopsMax: HOPS_MAX,
  forgetMs: 72 * 3_600_000,
}

/** Others that are known at a time: with this node and some that were forgotten, their digest fits in one frame. */
export const NODES_MAX = 3_000
/** Answer to one digest: a neighbour that knows nothing gets the rest with its next digest, not all at once. 256 KiB: what a link of 10 Mbit/s carries in a fifth of a second. */
const ANSWER_BYTES_MAX = 256 * 1024
/** An answer that does not begin within one and a half round trips and this is asked for elsewhere. */
const ANSWER_WAIT_MS = 200
/** Batches held for all others together. 512 MiB: a million routes are about 80. */
const HELD_BYTES_MAX = 512 * 1024 * 1024
/** New batches of one origin: twice what an origin of this version ever makes, and a whole window at once. */
const ORIGIN_RATE = { perSecond: 20, burst: 8192 }
/** Digest exchanges at the quick pace after anything new: one may be lost, or meet somebody who lacks the same. */
const QUICK_EXCHANGES = 5
/** Neighbours above the usual that may be handed on to before they are told that it is many. */
const LOAD_SPARE = 1
/** With more nodes than this there is always news under way: less haste to find what was lost, and none where it may yet come. */
const MANY_NODES = 500
/** New batches in an answer from which on there is more to be had at once: not what just happens to be under way, but what was missed. */
const LONG_ANSWER = 50
/** Neighbours that are asked about one suspect at a time: a question or its answer may be lost. */
const SUSPECT_QUESTIONS = 2
/** Neighbours that still stand by a suspect: more than this are not all silent because their words were lost. */
const SUSPECT_LINKS_MAX = 12
const SWEEP_MS = 60_000
/** Least time between two digests asked of one neighbour because it sent something of a stranger. */
const STRANGER_DIGEST_MS = 1000

type Batches = Extract<GossipFrame, { type: 'batches' }>
type Digest = Extract<GossipFrame, { type: 'digest' }>
type Summary = Extract<GossipFrame, { type: 'summary' }>

/**
 * What the mesh believes, and what to tell whom about it: the kernel.
 *
 * Events in, effects out. No clock, no randomness of its own, no I/O: the same code runs in the daemon and, a thousand
 * at a time, in the simulator. `step` never throws for anything a peer sent: it drops, counts, and says why in a `note`.
 */
export class Router {
  readonly table: Table
  private readonly deps: RouterDeps
  private readonly options: RouterOptions
  private readonly own: Advertiser
  private readonly records: Records
  private readonly keys = new KeyPool()
  private readonly fresh = new HandOnQueue()
  private readonly signing = new SigningBuffer()
  private readonly neighbours = new Neighbours()
  private readonly firstWays = new FirstWays()
  private readonly suspects = new Suspects()
  private readonly doubts = new Doubts()
  private readonly providers: Providers
  private effects: RouterEffect[] = []
  private quickLeft = 0
  private digestAtMs = Number.POSITIVE_INFINITY
  private sweepAtMs = Number.POSITIVE_INFINITY
  private wakeAtMs = Number.POSITIVE_INFINITY
  /** Some neighbour has shown to know nothing that this node does not. */
  private isSettled = false
  /** The digest under way: who learns much learns it from one neighbour, not the same from each. */
  private asked: { node: NodeId; untilMs: number; found: number } | undefined
  /** Frames and batches that were refused, by reason. */
  readonly refused = new Map<string, number>()

  constructor(deps: RouterDeps, options: Partial<RouterOptions> = {}) {
    this.deps = deps
    this.options = { ...ROUTER_DEFAULTS, ...options }
    this.own = new Advertiser(deps, this.options)
    const numbers = deps.numbers ?? new NodeNumbers()
    this.records = new Records(deps.self, deps.proof, this.own.log, numbers)
    this.table = new Table(deps.self, this.options.hopsMax, numbers)
    this.providers = new Providers(deps.random)
  }

  step(event: RouterEvent, nowMs: number): RouterEffect[] {
    this.effects = []
    switch (event.type) {
      case 'self':
        this.own.onSelf(event.info, nowMs)
        break
      case 'local':
        this.own.onLocal(event.service, nowMs)
        break
      case 'link-up':
        this.onLinkUp(event.to, event.rttMs, nowMs)
        break
      case 'link-down':
        this.onLinkDown(event.to, event.isPlanned === true, nowMs)
        break
      case 'rtt':
        this.own.onRtt(event.to, event, nowMs)
        break
      case 'frame':
        this.onFrame(event.from, event.bytes, nowMs)
        break
      case 'wake':
        // A timer may be a little early: what was asked for is asked for again, or it would never come.
        this.wakeAtMs = Number.POSITIVE_INFINITY
        break
    }
    this.runTimers(nowMs)
    this.askForWake(nowMs)
    return this.effects
  }

  /** See Table.candidates. */
  candidates(service: ServiceName, filter?: RouteFilter): readonly Candidate[] {
    return this.table.candidates(service, filter)
  }

  /** How far this node knows each origin, itself included. Equal digests mean equal tables. */
  digest(): Map<NodeId, Version> {
    return this.records.versions()
  }

  /** Bytes of batches held for others, for metrics and bounds. */
  heldBytes(): number {
    return this.own.log.bytes + this.records.bytesHeld
  }

  /** Whether links that may be the only way to a node wait to be told of: for two seconds at most. */
  get hasFirstWays(): boolean {
    return this.firstWays.atMs < Number.POSITIVE_INFINITY
  }

  /** Own services that are held back because they come and go. */
  dampedServices(nowMs: number): { service: ServiceName; untilMs: number }[] {
    return [...this.own.heldServices(nowMs)]
  }

  // Own record and links -----------------------------------------------------------------------------------------

  private publish(nowMs: number): void {
    const { batches, changed } = this.own.publish(nowMs)
    if (batches.length === 0) return
    this.records.onGrown(this.deps.self, this.own.log, nowMs)
    this.apply(this.deps.self, changed, nowMs)
    const frames = packBatches(batches[0]?.seq === 1 ? [this.deps.proof] : [], batches)
    for (const to of this.neighbours.nodes()) for (const bytes of frames) this.effects.push({ type: 'send', to, bytes })
    this.expectNews(nowMs)
  }

  private onLinkUp(to: NodeId, rttMs: number, nowMs: number): void {
    this.neighbours.add(to, nowMs)
    const given = this.providers.onLinkUp(to, this.neighbours.size, this.providersWanted())
    if (given !== undefined) this.sendSummary(given)
    // The first way to a node is news that others wait for, if it is the only one.
    const isFirst = !this.table.isReached(to, true)
    const isUrgent = isFirst && FirstWays.isUrgent(this.isSettled ? this.records.size : undefined, this.neighbours.size)
    this.own.onLinkUp(to, rttMs, isUrgent, nowMs)
    this.table.setOwnLink(to, { rttMs, lossRatio: 0 })
    // The fourth of a burst leaves with those that follow it.
    if (isUrgent && this.own.isCalm(nowMs)) this.publish(nowMs)
    else if (isFirst && !isUrgent) this.firstWays.add(to, nowMs)
    this.sendSummary(to)
    this.expectNews(nowMs)
  }

  /** Tells of those first ways that are the only ones. */
  private tellFirstWays(nowMs: number): void {
    const only = this.firstWays.take(nowMs).filter(({ to, isOver }) => {
      if (!isOver) return this.table.statedLinks(to) === 1 && this.table.link(to, this.deps.self) !== undefined
      return FirstWays.isSmall(this.records.size) || !this.table.isReached(to, true)
    })
    for (const { to } of only) this.firstWays.delete(to)
    if (only.length === 0) return
    if (this.own.isCalm(nowMs)) this.publish(nowMs)
    else this.own.hurry(nowMs)
  }

  private onLinkDown(to: NodeId, isPlanned: boolean, nowMs: number): void {
    this.neighbours.delete(to, isPlanned)
    this.firstWays.delete(to)
    if (this.asked?.node === to) this.asked = undefined
    const next = this.providers.onLinkDown(to)
    if (next !== undefined) this.sendSummary(next)
    // A dead link is told at once: every millisecond of it is a call sent the wrong way. One that still works for a
    // while, and one that the other end has taken back, which is enough, can wait for company.
    const isDead = !isPlanned && this.table.link(to, this.deps.self) !== undefined
    this.own.onLinkDown(to, isPlanned ? 'left' : isDead ? 'dead' : 'over', nowMs)
    this.table.setOwnLink(to, undefined)
    if (isDead && this.own.isCalm(nowMs)) this.publish(nowMs)
    if (this.neighbours.size === 0) this.digestAtMs = Number.POSITIVE_INFINITY
  }

  // Frames -------------------------------------------------------------------------------------------------------

  private onFrame(from: NodeId, bytes: Uint8Array, nowMs: number): void {
    if (this.neighbours.rateOf(from)?.take(bytes.length, nowMs) === false) {
      this.refuse('over-rate', from, `more than ${NEIGHBOUR_RATE.perSecond} bytes a second`)
      return
    }
    const decoded = decodeGossipFrame(bytes)
    if (!decoded.ok) {
      this.refuse('bad-frame', from, decoded.reason)
      return
    }
    const frame = decoded.frame
    if (frame === undefined) return
    if (frame.type === 'batches') this.onBatches(from, frame, nowMs)
    else if (frame.type === 'summary') this.onSummary(from, frame, nowMs)
    else this.onDigest(from, frame, nowMs)
  }

  private onBatches(from: NodeId, { proofs, batches, isAnswer }: Batches, nowMs: number): void {
    for (const proof of proofs) this.onProof(from, proof, nowMs)
    // What a newcomer is told is news to nobody else: those who are handed on to are told that it is there, and ask if they lack it.
    const isHandedOn = (!isAnswer || this.isSettled) && this.neighbours.askers().length > 0
    let found = 0
    for (const { payload, signature } of batches) {
      const batch = this.onBatch(from, payload, signature, nowMs)
      if (batch === undefined) continue
      found++
      if (isHandedOn) this.handOnSoon(from, batch, nowMs)
    }
    if (found === 0) return
    if (isAnswer && this.asked?.node === from) {
      this.asked.found += found
      this.asked.untilMs = this.answerByMs(from, nowMs)
    }
    this.expectNews(nowMs)
  }

  private handOnSoon(from: NodeId, { origin, seq }: Batch, nowMs: number): void {
    const peer = this.records.peer(origin)
    const batch = peer?.log.batch(seq)
    if (peer === undefined || batch === undefined) return
    this.fresh.add({ from, origin, batch, proof: seq === 1 ? peer.proof : undefined }, nowMs)
  }

  private onProof(from: NodeId, proof: Uint8Array, nowMs: number): void {
    const node = this.deps.verifyProof(proof)
    if (node === undefined) this.refuse('bad-proof', from, 'a membership proof that the mesh root did not issue')
    else if (this.records.logOf(node) === undefined) {
      const kept = this.deps.keepProof?.(proof) ?? new Uint8Array(proof)
      // Being a member is nothing new: a node that was dropped for its absence comes back with something new to say.
      if (!this.records.renew(node, kept)) this.admit(from, node, kept, nowMs)
    }
  }

  /** The batch if it was new and true; undefined otherwise. */
  private onBatch(from: NodeId, payload: Uint8Array, signature: Uint8Array, nowMs: number): Batch | undefined {
    const head = peekBatch(payload)
    const log = head === undefined ? undefined : this.records.peer(head.origin)?.log
    if (head !== undefined && log !== undefined && isKnown(log, head)) return undefined
    const decoded = (this.deps.decode ?? decodeBatch)(payload, signature)
    if (!decoded.ok) {
      this.refuse('bad-batch', from, decoded.reason)
      return undefined
    }
    const batch = decoded.batch
    if (batch.origin === this.deps.self) {
      this.onOwnBatch(batch, nowMs)
      return undefined
    }
    const known = this.records.peer(batch.origin)
    if (known === undefined && !this.records.isBack(batch)) {
      this.askStranger(from, nowMs)
      return undefined
    }
    if (known !== undefined && isKnown(known.log, batch)) return undefined
    if (!this.deps.verify(batch.origin, this.signing.signedBytes(payload), signature)) {
      this.refuse('bad-signature', from, `a batch in the name of ${batch.origin} that it did not sign`)
      return undefined
    }
    const peer = known ?? this.remember(from, batch.origin, nowMs)
    return peer !== undefined && this.accept(from, peer, batch, nowMs) ? batch : undefined
  }

  /** Takes a true batch into what is known of its origin, within the limits on what one origin may cost. */
  private accept(from: NodeId, peer: Peer, batch: Batch, nowMs: number): boolean {
    const { log } = peer
    if (!peer.rate.take(1, nowMs)) {
      this.refuse('over-rate', from, `${batch.origin} makes more than ${ORIGIN_RATE.perSecond} batches a second`)
      return false
    }
    if (this.records.bytesHeld + batch.payload.length > HELD_BYTES_MAX) {
      this.refuse('over-limit', from, `more than ${HELD_BYTES_MAX} bytes of records`)
      return false
    }
    const bytesBefore = log.bytes
    const applied = log.apply(batch)
    this.records.bytesHeld += log.bytes - bytesBefore
    if (applied.outcome === 'over-limit') this.refuse('over-limit', from, `the record of ${batch.origin} is too large`)
    if (applied.outcome !== 'new') return false
    this.records.onGrown(batch.origin, log, nowMs)
    this.apply(batch.origin, applied.changed, nowMs)
    return true
  }

  private remember(from: NodeId, node: NodeId, nowMs: number): Peer | undefined {
    const proof = this.records.forgottenProof(node)
    return proof && this.admit(from, node, proof, nowMs)
  }

  private admit(from: NodeId, node: NodeId, proof: Uint8Array, nowMs: number): Peer | undefined {
    if (this.records.size >= NODES_MAX) {
      this.refuse('too-many-nodes', from, `more than ${NODES_MAX} nodes`)
      return undefined
    }
    const rate = new RateLimit(ORIGIN_RATE, nowMs)
    const log = new OriginLog(node, this.deps.keep ?? (batch => keepCopy(batch, key => this.keys.share(key))))
    const peer = { log, proof, rate, unreachableSinceMs: undefined }
    this.records.add(node, peer)
    this.own.onNodes(this.records.size + 1, this.isSettled, nowMs)
    return peer
  }

  /** Somebody holds a record of this node that this node does not know: from before a restart that lost its clock. Outbid it. */
  private onOwnBatch(batch: Batch, nowMs: number): void {
    const { incarnation, contiguous } = this.own.log
    const known = batch.incarnation < incarnation || (batch.incarnation === incarnation && batch.seq <= contiguous)
    if (known || !this.deps.verify(batch.origin, this.signing.signedBytes(batch.payload), batch.signature)) return
    this.note('outbid', { reason: `a record of this node at incarnation ${batch.incarnation} is known to others` })
    this.own.reincarnate(batch.incarnation)
    this.publish(nowMs)
  }

  private askStranger(from: NodeId, nowMs: number): void {
    const neighbour = this.neighbours.get(from)
    if (neighbour === undefined || nowMs - neighbour.askedAtMs < STRANGER_DIGEST_MS) return
    neighbour.askedAtMs = nowMs
    if (!this.ask(from, false, undefined, nowMs)) this.expectNews(nowMs)
  }

  private onSummary(from: NodeId, { hashes, handOn, load }: Summary, nowMs: number): void {
    this.providers.onLoad(from, load)
    const hasCome = this.neighbours.setHandOn(from, handOn) && handOn
    // Who came where many are learns it at once, and may think better of it.
    if (hasCome && this.neighbours.askers().length > this.options.providers + LOAD_SPARE) this.sendSummary(from)
    const scope = this.records.index.compare(hashes)
    // A summary ends an answer. One that brought nothing new is not asked for again at once: it would bring nothing for ever.
    const answer = this.asked?.node === from && nowMs < this.asked.untilMs ? this.asked : undefined
    if (this.asked?.node === from) this.asked = undefined
    // What was found since it is no newcomer was handed on.
    if (answer?.found && !this.isSettled) {
      for (const to of this.neighbours.askers()) if (to !== from) this.sendSummary(to)
    }
    const isLong = answer !== undefined && answer.found >= LONG_ANSWER
    if (!isLong && this.isSettled && this.records.size > MANY_NODES) {
      const lasting = this.doubts.onSummary(from, scope, hashes.length / 4, nowMs)
      if (lasting === undefined || !this.ask(from, true, lasting, nowMs)) this.expectNews(nowMs)
      return
    }
    if (scope === undefined) {
      this.onSettled(nowMs)
      return
    }
    // The rest of a long answer comes from others, or one neighbour would bear it all.
    const next = (answer?.found ? this.anyNeighbour() : undefined) ?? from
    const isVain = answer?.found === 0
    if (isVain || !this.ask(next, true, scope, nowMs)) this.expectNews(nowMs)
  }

  /** Asks for what has stayed different from a neighbour's though nothing came meanwhile. */
  private askAboutDoubts(nowMs: number): void {
    const doubt = this.doubts.take()
    if (doubt === undefined) return
    const scope = this.records.index.unchanged(doubt.scope, doubt.sinceMs)
    if (scope !== undefined && this.neighbours.get(doubt.from) !== undefined) this.ask(doubt.from, true, scope, nowMs)
  }

  private onSettled(nowMs: number): void {
    if (this.isSettled) return
    this.isSettled = true
    this.firstWays.hasten(nowMs)
  }

  /** Tells `from` how far this node knows everyone, for an answer with what it lacks; unless one is under way. */
  private ask(from: NodeId, reply: boolean, scope: Scope | undefined, nowMs: number): boolean {
    if (this.asked !== undefined && nowMs < this.asked.untilMs) return false
    this.asked = { node: from, untilMs: this.answerByMs(from, nowMs), found: 0 }
    this.sendDigest(from, reply, scope)
    return true
  }

  private answerByMs(from: NodeId, nowMs: number): number {
    return nowMs + ANSWER_WAIT_MS + 1.5 * (this.table.link(this.deps.self, from)?.rttMs ?? 0)
  }

  private onDigest(from: NodeId, digest: Digest, nowMs: number): void {
    const { versions: theirs, scope, reply } = digest
    const answers = this.neighbours.get(from)?.answers
    const bytesMax = Math.min(ANSWER_BYTES_MAX, answers?.left(nowMs) ?? ANSWER_BYTES_MAX)
    const { proofs, batches, bytes } = this.records.missingOf(theirs, scope, bytesMax, this.deps.random())
    answers?.take(Math.min(bytes, bytesMax), nowMs)
    for (const bytes of packBatches(proofs, batches, true)) this.effects.push({ type: 'send', to: from, bytes })
    const mine = theirs.get(this.deps.self)
    // Signed proof of it is on its way only if this node asks: to be outbid, it must be seen first.
    const isOutdated = mine !== undefined && isNewer(mine, this.own.log)
    // Also when there is nothing to tell: who has asked waits for the end of the answer before it asks elsewhere.
    this.sendSummary(from)
    const isBehind = this.records.isBehind(theirs)
    if (!isBehind) this.onSettled(nowMs)
    if (isOutdated) this.sendDigest(from, false, scope)
    else if (isBehind && !(reply && this.ask(from, false, scope, nowMs))) this.expectNews(nowMs)
  }

  // Table --------------------------------------------------------------------------------------------------------

  private apply(origin: NodeId, changed: Changes, nowMs: number): void {
    const services = new Set<ServiceName>()
    for (const entry of changed) {
      if (entry.value === undefined) this.onWithdrawn(origin, entry, nowMs)
      const service = this.table.update(origin, entry, nowMs)
      if (service !== undefined) services.add(service)
      if (entry.key === NODE_KEY) {
        this.effects.push({ type: 'node-changed', node: origin, info: this.table.nodeInfo(origin) })
      }
    }
    for (const service of services) this.effects.push({ type: 'routes-changed', service })
  }

  private onWithdrawn(origin: NodeId, entry: Entry, nowMs: number): void {
    const to = this.table.linkEnd(entry)
    if (to === undefined || to === this.deps.self) return
    // This one is among them still. Who has taken the link back as well is alive.
    const left = this.table.countedLinks(to) - 1
    if (left > 0 && left <= this.suspectLinksMax(to) && this.table.link(to, origin) !== undefined) {
      this.suspects.add(to, nowMs)
    }
  }

  /** With more links left than this, a node is none that most of its neighbours have given up. */
  private suspectLinksMax(node: NodeId): number {
    return Math.min(this.table.statedLinks(node) / 2, SUSPECT_LINKS_MAX)
  }

  /** Asks what became of nodes that most of their neighbours have given up and that a path still leads to. */
  private askAboutSuspects(nowMs: number): void {
    for (const suspect of this.suspects.take(nowMs)) {
      const counted = this.table.linkedTo(suspect.node)
      if (counted.length === 0 || counted.length > this.suspectLinksMax(suspect.node)) continue
      if (!this.table.isReached(suspect.node, false)) continue
      const scope = this.records.index.scopeOf([suspect.node, ...counted])
      const others = this.neighbours.nodes().filter(node => node !== suspect.node)
      for (const to of pickSome(others, SUSPECT_QUESTIONS, this.deps.random)) this.sendDigest(to, false, scope)
      this.suspects.onAsked(suspect, nowMs)
    }
  }

  // Timers -------------------------------------------------------------------------------------------------------

  private runTimers(nowMs: number): void {
    if (nowMs >= this.own.nextHeldAtMs(nowMs)) this.own.release(nowMs)
    if (nowMs >= this.own.nextAtMs) this.publish(nowMs)
    if (nowMs >= this.fresh.atMs) this.handOn(nowMs)
    if (nowMs >= this.firstWays.atMs) this.tellFirstWays(nowMs)
    if (nowMs >= this.suspects.atMs) this.askAboutSuspects(nowMs)
    if (nowMs >= this.doubts.atMs) this.askAboutDoubts(nowMs)
    if (nowMs >= this.digestAtMs) {
      const isQuick = --this.quickLeft > 0
      const meanMs = isQuick ? this.quickDigestMs : this.options.digestMs
      this.digestAtMs = nowMs + meanMs * (0.5 + this.deps.random())
      const balanced = this.providers.balance(this.options.providers)
      const random = this.anyNeighbour()
      for (const to of balanced ?? [random]) if (to !== undefined) this.sendSummary(to)
    }
    if (this.sweepAtMs === Number.POSITIVE_INFINITY) this.sweepAtMs = nowMs + SWEEP_MS
    if (nowMs >= this.sweepAtMs) this.sweep(nowMs)
  }

  /** Something is under way: what of it was lost here or at a neighbour is found out soon, not at the usual pace. */
  private expectNews(nowMs: number): void {
    if (this.neighbours.size === 0) return
    this.quickLeft = QUICK_EXCHANGES
    const soonMs = nowMs + this.quickDigestMs * (0.5 + this.deps.random())
    this.digestAtMs = Math.min(this.digestAtMs, soonMs)
  }

  /** Drops nodes that nobody could reach for long. What was dropped is remembered as long again, or a neighbour would give it back. */
  private sweep(nowMs: number): void {
    this.sweepAtMs = nowMs + SWEEP_MS
    // A node without any link is itself the one that is away.
    if (this.neighbours.size === 0) return
    this.records.sweep(nowMs)
    for (const [node, peer] of this.records.all()) {
      if (this.table.path(node) !== undefined) {
        peer.unreachableSinceMs = undefined
        continue
      }
      peer.unreachableSinceMs ??= nowMs
      if (nowMs - peer.unreachableSinceMs < this.options.forgetMs) continue
      const services = this.table.servicesOf(node)
      this.records.drop(node, nowMs + this.options.forgetMs)
      this.table.forget(node)
      this.effects.push({ type: 'node-changed', node, info: undefined })
      for (const service of services) this.effects.push({ type: 'routes-changed', service })
    }
  }

  private askForWake(nowMs: number): void {
    const heldAtMs = this.own.nextHeldAtMs(nowMs)
    const askMs = Math.min(this.suspects.atMs, this.doubts.atMs, this.digestAtMs)
    const aheadMs = Math.min(this.fresh.atMs, this.firstWays.atMs, this.sweepAtMs)
    const atMs = Math.min(this.own.nextAtMs, heldAtMs, askMs, aheadMs)
    if (atMs === this.wakeAtMs) return
    this.wakeAtMs = atMs
    this.effects.push({ type: 'wake-at', atMs })
  }

  // Sending ------------------------------------------------------------------------------------------------------

  /** Passes on what was fresh, to the neighbours that have asked for it: never back, nor to its origin. */
  private handOn(nowMs: number): void {
    const all = this.fresh.take(nowMs)
    let whole: Uint8Array[] | undefined
    for (const to of this.neighbours.askers()) {
      const its = all.filter(({ from, origin }) => from !== to && origin !== to)
      // Most get the same.
      if (its.length === all.length) whole ??= this.packFresh(all)
      const frames = its.length === all.length ? whole : this.packFresh(its)
      for (const bytes of frames ?? []) this.effects.push({ type: 'send', to, bytes })
    }
  }

  private packFresh(fresh: readonly Fresh[]): Uint8Array[] {
    const proofs = fresh.flatMap(({ proof }) => proof ?? [])
    const batches = fresh.map(({ batch }) => batch)
    return packBatches(proofs, batches)
  }

  /** In a full mesh everyone has each batch from its origin besides. */
  private providersWanted(): number {
    return this.neighbours.size < this.records.size ? this.options.providers : this.options.providers - 1
  }

  /** The more nodes, the more of their news is under way at any time, which a digest finds missing though nothing was lost. */
  private get quickDigestMs(): number {
    return this.options.quickDigestMs * Math.max(1, this.records.size / MANY_NODES)
  }

  private sendSummary(to: NodeId): void {
    this.send(to, {
      type: 'summary',
      hashes: this.records.index.summary(),
      handOn: this.providers.has(to),
      load: this.neighbours.askers().length,
    })
  }

  private sendDigest(to: NodeId, reply: boolean, scope: Scope | undefined): void {
    this.send(to, { type: 'digest', versions: this.records.digest(scope), reply, scope })
  }

  private send(to: NodeId, frame: GossipFrame): void {
    this.effects.push({ type: 'send', to, bytes: encodeGossipFrame(frame) })
  }

  private anyNeighbour(): NodeId | undefined {
    return pickOne(this.neighbours.nodes(), this.deps.random)
  }

  private refuse(code: string, from: NodeId, reason: string): void {
    const count = (this.refused.get(code) ?? 0) + 1
    this.refused.set(code, count)
    // 1, 2, 4, 8 …: a peer that sends rubbish must not fill the log with it.
    if ((count & (count - 1)) === 0) this.note('refused', { code, link: from, reason, count })
  }

  private note(event: string, fields: LogFields): void {
    this.effects.push({ type: 'note', event, fields })
  }
}
