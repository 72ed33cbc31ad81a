import { type Batch, decodeBatch, signedBytes } from './batch.ts'
import { encodeLinkInfo, encodeNodeInfo, encodeServiceInfo, linkKey, NODE_KEY, serviceKey } from './entry.ts'
import {
  decodeGossipFrame,
  encodeGossipFrame,
  FRAME_BYTES_TARGET,
  type GossipFrame,
  type SignedBatch,
  type Version,
} from './frame.ts'
import type { LogFields } from './log.ts'
import type { Candidate, LinkInfo, LocalService, NodeId, NodeInfo, ServiceName } from './model.ts'
import { OriginLog } from './origin-log.ts'
import { OwnRecord } from './own-record.ts'
import { Table } from './table.ts'

export type RouterEvent =
  /** What this node says about itself; the first event, and again whenever it changes. */
  | { type: 'self'; info: NodeInfo }
  | { type: 'local'; service: LocalService }
  | { type: 'link-up'; to: NodeId; rttMs: number }
  | { type: 'link-down'; to: NodeId }
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
  /** Uniform in [0, 1). */
  random(): number
}

export interface RouterOptions {
  /** Changes that come within this time leave in one batch. 20 ms: a restart of a service is one change, and nobody waits for it. */
  readonly batchMs: number
  /** Mean time between digest exchanges with one random neighbour. 2 s: what a lost push costs at worst, a few bytes when nothing was lost. */
  readonly digestMs: number
  /** Random neighbours that a fresh batch is handed on to beside those who cannot have it from its origin. */
  readonly fanout: number
  /** A link's round trip is published again when it moved by more than this share … */
  readonly rttDeadbandRatio: number
  /** … and by more than this. Together they keep jitter out of everyone's table (Tailscale's "good enough" is 5 ms). */
  readonly rttDeadbandMs: number
  /** A node that nobody could reach for so long is dropped from the table. 72 h: longer than a weekend. */
  readonly forgetMs: number
}

export const ROUTER_DEFAULTS: RouterOptions = {
  batchMs: 20,
  digestMs: 2000,
  fanout: 2,
  rttDeadbandRatio: 0.1,
  rttDeadbandMs: 2,
  forgetMs: 72 * 3_600_000,
}

const NODES_MAX = 10_000
const SWEEP_MS = 60_000
/** Least time between two digests asked of one neighbour because it sent something of a stranger. */
const STRANGER_DIGEST_MS = 1000

interface Peer {
  readonly log: OriginLog
  readonly proof: Uint8Array
  /** Since when no path leads there; undefined while one does. */
  unreachableSinceMs: number | undefined
}

interface Neighbour {
  askedAtMs: number
}

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
  private readonly own: OwnRecord
  private readonly peers = new Map<NodeId, Peer>()
  private readonly forgotten = new Map<NodeId, Version & { untilMs: number; proof: Uint8Array }>()
  private readonly neighbours = new Map<NodeId, Neighbour>()
  private effects: RouterEffect[] = []
  private publishAtMs = Number.POSITIVE_INFINITY
  private digestAtMs = Number.POSITIVE_INFINITY
  private sweepAtMs = Number.POSITIVE_INFINITY
  private wakeAtMs = Number.POSITIVE_INFINITY
  /** Frames and batches that were refused, by reason. */
  readonly refused = new Map<string, number>()

  constructor(deps: RouterDeps, options: Partial<RouterOptions> = {}) {
    this.deps = deps
    this.options = { ...ROUTER_DEFAULTS, ...options }
    this.own = new OwnRecord(deps.self, deps.incarnation, deps.sign)
    this.table = new Table(deps.self)
  }

  step(event: RouterEvent, nowMs: number): RouterEffect[] {
    this.effects = []
    switch (event.type) {
      case 'self':
        this.change(NODE_KEY, encodeNodeInfo(event.info), nowMs)
        break
      case 'local':
        this.onLocal(event.service, nowMs)
        break
      case 'link-up':
        this.onLinkUp(event.to, event.rttMs, nowMs)
        break
      case 'link-down':
        this.onLinkDown(event.to, nowMs)
        break
      case 'rtt':
        this.onRtt(event.to, event, nowMs)
        break
      case 'frame':
        this.onFrame(event.from, event.bytes, nowMs)
        break
      case 'wake':
        break
    }
    this.runTimers(nowMs)
    this.askForWake()
    return this.effects
  }

  /** See Table.candidates. */
  candidates(service: ServiceName): readonly Candidate[] {
    return this.table.candidates(service)
  }

  /** How far this node knows each origin, itself included. Equal digests mean equal tables. */
  digest(): Map<NodeId, Version> {
    const versions = new Map<NodeId, Version>()
    versions.set(this.deps.self, versionOf(this.own.log))
    for (const [id, peer] of this.peers) versions.set(id, versionOf(peer.log))
    return versions
  }

  /** Bytes of batches held for others, for metrics and bounds. */
  heldBytes(): number {
    let bytes = this.own.log.bytes
    for (const peer of this.peers.values()) bytes += peer.log.bytes
    return bytes
  }

  // Own record ---------------------------------------------------------------------------------------------------

  private onLocal(service: LocalService, nowMs: number): void {
    const { name, ...info } = service
    this.change(serviceKey(name), service.instances > 0 ? encodeServiceInfo(info) : undefined, nowMs)
  }

  private change(key: string, value: unknown, nowMs: number): void {
    if (sameValue(this.own.get(key), value)) return
    if (value === undefined) this.own.remove(key)
    else this.own.set(key, value)
    this.publishAtMs = Math.min(this.publishAtMs, nowMs + this.options.batchMs)
  }

  private publish(nowMs: number): void {
    this.publishAtMs = Number.POSITIVE_INFINITY
    if (!this.own.dirty) return
    const { batches, changed } = this.own.publish()
    this.apply(this.deps.self, this.own.log, changed, nowMs)
    this.sendBatches([...this.neighbours.keys()], batches)
  }

  // Links --------------------------------------------------------------------------------------------------------

  private onLinkUp(to: NodeId, rttMs: number, nowMs: number): void {
    this.neighbours.set(to, { askedAtMs: Number.NEGATIVE_INFINITY })
    this.change(linkKey(to), encodeLinkInfo({ rttMs, lossRatio: 0 }), nowMs)
    this.publish(nowMs)
    this.sendDigest(to, false)
    if (this.digestAtMs === Number.POSITIVE_INFINITY) this.planDigest(nowMs)
  }

  private onLinkDown(to: NodeId, nowMs: number): void {
    this.neighbours.delete(to)
    this.change(linkKey(to), undefined, nowMs)
    // A dead link is told at once: every millisecond of it is a call sent the wrong way.
    this.publish(nowMs)
    if (this.neighbours.size === 0) this.digestAtMs = Number.POSITIVE_INFINITY
  }

  private onRtt(to: NodeId, sample: LinkInfo, nowMs: number): void {
    if (!this.neighbours.has(to)) return
    const known = this.table.link(this.deps.self, to)
    if (known === undefined) return
    const movedMs = Math.abs(sample.rttMs - known.rttMs)
    const rttMoved = movedMs > this.options.rttDeadbandMs && movedMs > known.rttMs * this.options.rttDeadbandRatio
    const lossMoved = Math.abs(sample.lossRatio - known.lossRatio) >= 0.1
    if (rttMoved || lossMoved) this.change(linkKey(to), encodeLinkInfo(sample), nowMs)
  }

  // Frames -------------------------------------------------------------------------------------------------------

  private onFrame(from: NodeId, bytes: Uint8Array, nowMs: number): void {
    const decoded = decodeGossipFrame(bytes)
    if (!decoded.ok) {
      this.refuse('bad-frame', from, decoded.reason)
      return
    }
    const frame = decoded.frame
    if (frame === undefined) return
    if (frame.type === 'batches') this.onBatches(from, frame.proofs, frame.batches, nowMs)
    else if (frame.type === 'summary') this.onSummary(from, frame.hash)
    else this.onDigest(from, frame.versions, frame.reply)
  }

  private onBatches(from: NodeId, proofs: readonly Uint8Array[], signed: readonly SignedBatch[], nowMs: number): void {
    for (const proof of proofs) this.onProof(from, proof)
    const fresh: Batch[] = []
    for (const { payload, signature } of signed) {
      const batch = this.onBatch(from, payload, signature, nowMs)
      if (batch !== undefined) fresh.push(batch)
    }
    if (fresh.length > 0) this.handOn(from, fresh)
  }

  private onProof(from: NodeId, proof: Uint8Array): void {
    const node = this.deps.verifyProof(proof)
    if (node === undefined) this.refuse('bad-proof', from, 'a membership proof that the mesh root did not issue')
    else if (node === this.deps.self || this.peers.has(node)) return
    else if (this.peers.size >= NODES_MAX) this.refuse('too-many-nodes', from, `more than ${NODES_MAX} nodes`)
    else this.admit(node, proof.slice())
  }

  /** The batch if it was new and true; undefined otherwise. */
  private onBatch(from: NodeId, payload: Uint8Array, signature: Uint8Array, nowMs: number): Batch | undefined {
    const decoded = decodeBatch(payload, signature)
    if (!decoded.ok) {
      this.refuse('bad-batch', from, decoded.reason)
      return undefined
    }
    const batch = decoded.batch
    if (batch.origin === this.deps.self) {
      this.onOwnBatch(batch, nowMs)
      return undefined
    }
    const peer = this.peers.get(batch.origin) ?? this.remember(batch)
    if (peer === undefined) {
      this.askStranger(from, nowMs)
      return undefined
    }
    const { log } = peer
    if (batch.incarnation < log.incarnation || (batch.incarnation === log.incarnation && log.holds(batch.seq))) {
      return undefined
    }
    if (!this.deps.verify(batch.origin, signedBytes(payload), signature)) {
      this.refuse('bad-signature', from, `a batch in the name of ${batch.origin} that it did not sign`)
      return undefined
    }
    // What is kept must not hold on to the frame it came in.
    const applied = log.apply({ ...batch, payload: payload.slice(), signature: signature.slice() })
    if (applied.outcome === 'over-limit') this.refuse('over-limit', from, `the record of ${batch.origin} is too large`)
    if (applied.outcome !== 'new') return undefined
    this.apply(batch.origin, log, applied.changed, nowMs)
    return batch
  }

  /** A node that was dropped for its absence and has something new to say is a peer again. */
  private remember(batch: Batch): Peer | undefined {
    const forgotten = this.forgotten.get(batch.origin)
    const version = { incarnation: batch.incarnation, contiguous: batch.seq }
    if (forgotten === undefined || !isNewer(version, forgotten)) return undefined
    return this.admit(batch.origin, forgotten.proof)
  }

  private admit(node: NodeId, proof: Uint8Array): Peer {
    const peer = { log: new OriginLog(node), proof, unreachableSinceMs: undefined }
    this.peers.set(node, peer)
    this.forgotten.delete(node)
    return peer
  }

  /** Somebody holds a record of this node that this node does not know: from before a restart that lost its clock. Outbid it. */
  private onOwnBatch(batch: Batch, nowMs: number): void {
    const { incarnation, contiguous } = this.own.log
    const known = batch.incarnation < incarnation || (batch.incarnation === incarnation && batch.seq <= contiguous)
    if (known || !this.deps.verify(batch.origin, signedBytes(batch.payload), batch.signature)) return
    this.note('outbid', { reason: `a record of this node at incarnation ${batch.incarnation} is known to others` })
    this.own.reincarnate(batch.incarnation + 1)
    this.publish(nowMs)
  }

  private askStranger(from: NodeId, nowMs: number): void {
    const neighbour = this.neighbours.get(from)
    if (neighbour === undefined || nowMs - neighbour.askedAtMs < STRANGER_DIGEST_MS) return
    neighbour.askedAtMs = nowMs
    this.sendDigest(from, false)
  }

  private onSummary(from: NodeId, hash: string): void {
    if (hash !== this.digestHash()) this.sendDigest(from, true)
  }

  private onDigest(from: NodeId, theirs: ReadonlyMap<NodeId, Version>, reply: boolean): void {
    const proofs: Uint8Array[] = []
    const missing: SignedBatch[] = []
    const offer = (origin: NodeId, log: OriginLog, proof: Uint8Array): void => {
      const their = theirs.get(origin)
      if (their === undefined) proofs.push(proof)
      if (their !== undefined && their.incarnation > log.incarnation) return
      const after = their?.incarnation === log.incarnation ? their.contiguous : 0
      missing.push(...log.batchesAfter(after))
    }
    const mine = theirs.get(this.deps.self)
    // Signed proof of it is on its way only if this node asks: to be outbid, it must be seen first.
    const isOutdated = mine !== undefined && isNewer(mine, this.own.log)
    offer(this.deps.self, this.own.log, this.deps.proof)
    for (const [origin, peer] of this.peers) offer(origin, peer.log, peer.proof)
    if (missing.length > 0 || proofs.length > 0) this.sendPacked(from, proofs, missing)
    if (isOutdated || (reply && this.isBehind(theirs))) this.sendDigest(from, false)
  }

  private isBehind(theirs: ReadonlyMap<NodeId, Version>): boolean {
    for (const [origin, their] of theirs) {
      const log = origin === this.deps.self ? this.own.log : this.peers.get(origin)?.log
      if (log === undefined) {
        if (!this.wasForgotten(origin, their)) return true
      } else if (isNewer(their, log)) return true
    }
    return false
  }

  private wasForgotten(origin: NodeId, version: Version): boolean {
    const forgotten = this.forgotten.get(origin)
    return forgotten !== undefined && !isNewer(version, forgotten)
  }

  // Table --------------------------------------------------------------------------------------------------------

  private apply(origin: NodeId, log: OriginLog, changed: readonly string[], nowMs: number): void {
    const services = new Set<ServiceName>()
    for (const key of changed) {
      const service = this.table.update(origin, key, log.get(key), nowMs)
      if (service !== undefined) services.add(service)
      if (key === NODE_KEY) {
        this.effects.push({ type: 'node-changed', node: origin, info: this.table.nodeInfo(origin) })
      }
    }
    for (const service of services) this.effects.push({ type: 'routes-changed', service })
  }

  // Timers -------------------------------------------------------------------------------------------------------

  private runTimers(nowMs: number): void {
    if (nowMs >= this.publishAtMs) this.publish(nowMs)
    if (nowMs >= this.digestAtMs) {
      this.planDigest(nowMs)
      const to = this.pick([...this.neighbours.keys()], 1)[0]
      if (to !== undefined) this.send(to, { type: 'summary', hash: this.digestHash() })
    }
    if (this.sweepAtMs === Number.POSITIVE_INFINITY) this.sweepAtMs = nowMs + SWEEP_MS
    if (nowMs >= this.sweepAtMs) this.sweep(nowMs)
  }

  private planDigest(nowMs: number): void {
    this.digestAtMs = nowMs + this.options.digestMs * (0.5 + this.deps.random())
  }

  /** Drops nodes that nobody could reach for long. What was dropped is remembered as long again, or a neighbour would give it back. */
  private sweep(nowMs: number): void {
    this.sweepAtMs = nowMs + SWEEP_MS
    for (const [node, { untilMs }] of this.forgotten) if (nowMs >= untilMs) this.forgotten.delete(node)
    for (const [node, peer] of this.peers) {
      if (this.table.path(node) !== undefined) {
        peer.unreachableSinceMs = undefined
        continue
      }
      peer.unreachableSinceMs ??= nowMs
      if (nowMs - peer.unreachableSinceMs < this.options.forgetMs) continue
      this.forgotten.set(node, { ...versionOf(peer.log), proof: peer.proof, untilMs: nowMs + this.options.forgetMs })
      const services = [...this.table.servicesOf(node)]
      this.peers.delete(node)
      this.table.forget(node)
      this.effects.push({ type: 'node-changed', node, info: undefined })
      for (const service of services) this.effects.push({ type: 'routes-changed', service })
    }
  }

  private askForWake(): void {
    const atMs = Math.min(this.publishAtMs, this.digestAtMs, this.sweepAtMs)
    if (atMs === this.wakeAtMs) return
    this.wakeAtMs = atMs
    this.effects.push({ type: 'wake-at', atMs })
  }

  // Sending ------------------------------------------------------------------------------------------------------

  /**
   * Passes fresh batches on: to every neighbour that has no link with their origin (as far as is known here), because
   * it cannot have them from there, and to a few random others, because the origin's own push may have been lost.
   */
  private handOn(from: NodeId, batches: readonly Batch[]): void {
    const others = [...this.neighbours.keys()].filter(node => node !== from)
    const lucky = new Set(this.pick(others, this.options.fanout))
    for (const to of others) {
      const wanted = batches.filter(
        ({ origin }) => origin !== to && (lucky.has(to) || this.table.link(origin, to) === undefined),
      )
      if (wanted.length > 0) this.sendBatches([to], wanted)
    }
  }

  private sendBatches(to: readonly NodeId[], batches: readonly Batch[]): void {
    if (to.length === 0 || batches.length === 0) return
    // The first batch of an incarnation may be the first that anyone hears of its origin.
    const origins = new Set(batches.filter(batch => batch.seq === 1).map(batch => batch.origin))
    const proofs: Uint8Array[] = []
    for (const origin of origins) {
      const proof = origin === this.deps.self ? this.deps.proof : this.peers.get(origin)?.proof
      if (proof !== undefined) proofs.push(proof)
    }
    for (const node of to) this.sendPacked(node, proofs, batches)
  }

  private sendPacked(to: NodeId, proofs: readonly Uint8Array[], batches: readonly SignedBatch[]): void {
    let frame: { type: 'batches'; proofs: Uint8Array[]; batches: SignedBatch[] } = emptyFrame()
    let bytes = 0
    const flush = (): void => {
      if (bytes > 0) this.send(to, frame)
      frame = emptyFrame()
      bytes = 0
    }
    for (const proof of proofs) {
      if (bytes + proof.length > FRAME_BYTES_TARGET) flush()
      frame.proofs.push(proof)
      bytes += proof.length + 8
    }
    for (const { payload, signature } of batches) {
      if (bytes + payload.length > FRAME_BYTES_TARGET) flush()
      frame.batches.push({ payload, signature })
      bytes += payload.length + signature.length + 8
    }
    flush()
  }

  private sendDigest(to: NodeId, reply: boolean): void {
    const versions = this.digest()
    for (const [node, forgotten] of this.forgotten) if (!versions.has(node)) versions.set(node, forgotten)
    this.send(to, { type: 'digest', versions, reply })
  }

  private send(to: NodeId, frame: GossipFrame): void {
    this.effects.push({ type: 'send', to, bytes: encodeGossipFrame(frame) })
  }

  private pick(from: NodeId[], count: number): NodeId[] {
    const picked: NodeId[] = []
    while (picked.length < count && from.length > 0) {
      picked.push(...from.splice(Math.floor(this.deps.random() * from.length), 1))
    }
    return picked
  }

  /** A short hash of the digest that does not depend on the order in which origins became known. */
  private digestHash(): string {
    let high = 0
    let low = 0
    for (const [origin, { incarnation, contiguous }] of this.digest()) {
      const text = `${origin} ${incarnation} ${contiguous}`
      high ^= fnv1a(text, 0x811c9dc5)
      low ^= fnv1a(text, 0x01000193)
    }
    return `${(high >>> 0).toString(16)}-${(low >>> 0).toString(16)}`
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

function emptyFrame(): { type: 'batches'; proofs: Uint8Array[]; batches: SignedBatch[] } {
  return { type: 'batches', proofs: [], batches: [] }
}

function versionOf(log: OriginLog): Version {
  return { incarnation: log.incarnation, contiguous: log.contiguous }
}

function isNewer(a: Version, b: Version): boolean {
  return a.incarnation > b.incarnation || (a.incarnation === b.incarnation && a.contiguous > b.contiguous)
}

/** FNV-1a with a final mix; 32 bits. */
function fnv1a(text: string, seed: number): number {
  let hash = seed
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  hash ^= hash >>> 15
  return Math.imul(hash, 0x2c1b3c6d)
}

/** Entry values are plain data; key order is fixed by the encoders, so their JSON is a fair comparison. */
function sameValue(a: unknown, b: unknown): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b)
}
