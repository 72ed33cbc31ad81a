import type { Batch } from './batch.ts'
import { Damping } from './damping.ts'
import { encodeLinkInfo, encodeNodeInfo, encodeServiceInfo, linkKey, NODE_KEY, serviceKey } from './entry.ts'
import type { LinkInfo, LocalService, NodeId, NodeInfo, ServiceName } from './model.ts'
import type { Changes, OriginLog } from './origin-log.ts'
import { OwnRecord, sameValue } from './own-record.ts'
import { RateLimit } from './rate-limit.ts'

export interface AdvertiserOptions {
  /** Changes that come within this time leave in one batch. 20 ms: a restart of a service is one change, and nobody waits for it. */
  readonly batchMs: number
  /** A link's round trip is told again when it moved by more than this share … */
  readonly rttDeadbandRatio: number
  /** … and by more than this. Together they keep jitter out of everyone's table (Tailscale's "good enough" is 5 ms). */
  readonly rttDeadbandMs: number
  /** Loss is told again when it moved by this much. 0.2: at 5 % loss the smoothed ratio wanders by half of it. */
  readonly lossDeadband: number
  /** A link that was told of is left in peace this long, unless it goes down or its round trip more than halves or doubles. */
  readonly linkHoldMs: number
}

export const ADVERTISER_DEFAULTS: AdvertiserOptions = {
  batchMs: 20,
  rttDeadbandRatio: 0.1,
  rttDeadbandMs: 2,
  lossDeadband: 0.2,
  linkHoldMs: 10_000,
}

/** Batches a second that leave in the long run, and at once: what changes without end must not cost others more than this. */
const PUBLISH_RATE = { perSecond: 10, burst: 20 }
/** Of a burst of links the first few are told at once, so that this node is reachable; the rest is told together. */
const LINK_BURST_MS = 500
/** After a link came up its round trip has settled. */
const SETTLE_MS = 1000
/** What one link measures, or one more way to where there is one, is news for nobody within a second: it leaves with whatever else there is to say. */
const LINK_NEWS_MS = 1000
/** And as much later as the mesh is large: 125 such batches a second in all, whether 125 nodes make them or 1,000. */
const LINK_NEWS_MS_PER_NODE = 8
/** So many times as late while newcomers stream in: each makes two dozen links, and most of what is said of them is soon said anew. */
const GROWING_FACTOR = 4
/** They do if there are more by this ratio, and by this number, than at most so long ago. */
const GROWING = { ratio: 1.1, nodes: 8, withinMs: 5000 }
/** But never as late as the links that it makes superfluous are given up (`LINK_POLICY_DEFAULTS.unwantedMs`). */
export const LINK_NEWS_MS_MAX = 10_000
/** A link that this node gives up is taken back before it is closed (`LINK_POLICY_DEFAULTS.leaveMs`), or the other end would take it for dead and cry out. */
const LEAVE_NEWS_MS = 1000

export interface AdvertiserDeps {
  readonly self: NodeId
  readonly incarnation: number
  sign(bytes: Uint8Array): Uint8Array
}

interface ToldLink extends LinkInfo {
  readonly toldAtMs: number
}

/**
 * What this node says about itself, and when: gathers changes, keeps noise and flaps to itself, and gives signed batches.
 * Bad news (a link down, a service gone) is never held back. Decides, does nothing; times are the router's.
 */
export class Advertiser {
  private readonly options: AdvertiserOptions
  private readonly record: OwnRecord
  private readonly damping = new Damping()
  /** Services whose good news waits for their damping, as they will be told. */
  private readonly held = new Map<ServiceName, unknown>()
  private readonly links = new Map<NodeId, ToldLink>()
  private publishAtMs = Number.POSITIVE_INFINITY
  private readonly nodes = {
    count: 0,
    before: { count: 0, atMs: Number.NEGATIVE_INFINITY },
    grewAtMs: Number.NEGATIVE_INFINITY,
  }
  private readonly pace = new RateLimit(PUBLISH_RATE)

  constructor(deps: AdvertiserDeps, options: AdvertiserOptions) {
    this.record = new OwnRecord(deps.self, deps.incarnation, deps.sign)
    this.options = options
  }

  get log(): OriginLog {
    return this.record.log
  }

  /** Services that are there but are not told of, because they come and go; until when. */
  *heldServices(nowMs: number): IterableIterator<{ service: ServiceName; untilMs: number }> {
    for (const service of this.held.keys()) {
      yield { service, untilMs: this.damping.heldUntilMs(service, nowMs) ?? nowMs }
    }
  }

  onSelf(info: NodeInfo, nowMs: number): void {
    this.change(NODE_KEY, encodeNodeInfo(info), nowMs)
  }

  onLocal({ name, ...info }: LocalService, nowMs: number): void {
    const key = serviceKey(name)
    const isUp = info.instances > 0 && info.healthy > 0
    const value = info.instances > 0 ? encodeServiceInfo(info) : undefined
    const wasUp = this.held.has(name) || hasHealthy(this.record.get(key))
    const wasTold = this.record.wasTold(key) || this.record.get(key) !== undefined
    if (isUp && !wasUp && wasTold) this.damping.onReturn(name, nowMs)
    if (isUp && !hasHealthy(this.record.get(key)) && this.damping.heldUntilMs(name, nowMs) !== undefined) {
      this.held.set(name, value)
      return
    }
    this.held.delete(name)
    this.change(key, value, nowMs)
  }

  /** `isUrgent`: calls get there no other way, so that others wait for the news. */
  onLinkUp(to: NodeId, rttMs: number, isUrgent: boolean, nowMs: number): void {
    // The first measure is taken while both ends are busy with each other: a better one is told soon.
    const withinMs = !isUrgent ? this.linkNewsMs(nowMs) : this.isCalm(nowMs) ? this.options.batchMs : LINK_BURST_MS
    this.tellLink(to, { rttMs, lossRatio: 0 }, nowMs, withinMs, nowMs - this.options.linkHoldMs + SETTLE_MS)
  }

  /** `urgency`: a `dead` link is told at once, one that this node gives up (`left`) before it is closed, and one that the other end has taken back (`over`) some time: that is enough for everyone. */
  onLinkDown(to: NodeId, urgency: 'dead' | 'left' | 'over', nowMs: number): void {
    this.links.delete(to)
    const newsMs = this.linkNewsMs(nowMs)
    const withinMs = { dead: this.options.batchMs, left: Math.min(newsMs, LEAVE_NEWS_MS), over: LINK_NEWS_MS_MAX }[
      urgency
    ]
    this.change(linkKey(to), undefined, nowMs, withinMs)
  }

  onRtt(to: NodeId, sample: LinkInfo, nowMs: number): void {
    const told = this.links.get(to)
    if (told === undefined) return
    const { rttDeadbandMs, rttDeadbandRatio, lossDeadband, linkHoldMs } = this.options
    const movedMs = Math.abs(sample.rttMs - told.rttMs)
    if (movedMs <= rttDeadbandMs && Math.abs(sample.lossRatio - told.lossRatio) < lossDeadband) return
    const isFar = movedMs > rttDeadbandMs && (sample.rttMs > 2 * told.rttMs || 2 * sample.rttMs < told.rttMs)
    if (!isFar && nowMs - told.toldAtMs < linkHoldMs) return
    const rttMoved = movedMs > rttDeadbandMs && movedMs > told.rttMs * rttDeadbandRatio
    const lossMoved = Math.abs(sample.lossRatio - told.lossRatio) >= lossDeadband
    if (rttMoved || lossMoved) this.tellLink(to, sample, nowMs, this.linkNewsMs(nowMs))
  }

  /** A record of this node that it does not know is about: start anew above it. */
  reincarnate(above: number): void {
    this.record.reincarnate(above)
  }

  /** Whether little was told lately, so that one more batch at once is no burden. */
  isCalm(nowMs: number): boolean {
    return this.pace.left(nowMs) > PUBLISH_RATE.burst - 3
  }

  /** How many nodes there are: what is no hurry waits longer where there are many. `areNew`: to this node alone they are not, which has just come itself. */
  onNodes(count: number, areNew: boolean, nowMs: number): void {
    const { nodes } = this
    nodes.count = count
    if (!areNew || nowMs - nodes.before.atMs > GROWING.withinMs) nodes.before = { count, atMs: nowMs }
    if (count > nodes.before.count * GROWING.ratio + GROWING.nodes) nodes.grewAtMs = nowMs
  }

  private linkNewsMs(nowMs: number): number {
    const { count, grewAtMs } = this.nodes
    const factor = nowMs - grewAtMs < GROWING.withinMs ? GROWING_FACTOR : 1
    return Math.min(LINK_NEWS_MS_MAX, Math.max(LINK_NEWS_MS, count * LINK_NEWS_MS_PER_NODE * factor))
  }

  /** What waits to be told cannot wait long. */
  hurry(nowMs: number): void {
    if (this.record.dirty) this.publishAtMs = Math.min(this.publishAtMs, nowMs + LINK_BURST_MS)
  }

  /** When `publish` has something to do. */
  get nextAtMs(): number {
    return this.publishAtMs
  }

  /** When something held back should be looked at again. */
  nextHeldAtMs(nowMs: number): number {
    let atMs = Number.POSITIVE_INFINITY
    if (this.held.size === 0) return atMs
    for (const { untilMs } of this.heldServices(nowMs)) atMs = Math.min(atMs, untilMs)
    return atMs
  }

  /** Tells what has waited long enough. */
  release(nowMs: number): void {
    for (const [service, value] of this.held) {
      if (this.damping.heldUntilMs(service, nowMs) !== undefined) continue
      this.held.delete(service)
      this.change(serviceKey(service), value, nowMs)
    }
  }

  /** Signs and gives all that changed, with the keys whose value is another one now. */
  publish(nowMs: number): { batches: Batch[]; changed: Changes } {
    this.publishAtMs = Number.POSITIVE_INFINITY
    if (!this.record.dirty) return { batches: [], changed: [] }
    this.pace.take(1, nowMs)
    return this.record.publish()
  }

  private tellLink(to: NodeId, link: LinkInfo, nowMs: number, withinMs: number, toldAtMs = nowMs): void {
    this.links.set(to, { ...link, toldAtMs })
    this.change(linkKey(to), encodeLinkInfo(link), nowMs, withinMs)
  }

  private change(key: string, value: unknown, nowMs: number, withinMs = this.options.batchMs): void {
    if (sameValue(this.record.get(key), value)) return
    if (value === undefined) this.record.remove(key)
    else this.record.set(key, value)
    // What is gone is told in its time, however busy this node is.
    const paceMs = value === undefined ? 0 : this.pace.waitMs(nowMs)
    this.publishAtMs = Math.min(this.publishAtMs, nowMs + Math.max(withinMs, paceMs))
  }
}

function hasHealthy(value: unknown): boolean {
  return typeof value === 'object' && value !== null && 'h' in value && typeof value.h === 'number' && value.h > 0
}
