import { chooseLinks, LINK_CHOICE_DEFAULTS, type LinkChoiceOptions, type LinkPeer } from './link-choice.ts'
import type { NodeId } from './model.ts'
import { pickSome } from './pick.ts'

export interface LinkPolicyOptions extends LinkChoiceOptions {
  /** In a mesh of more nodes than this, … */
  readonly manyNodes: number
  /** … links to so many of the nearest: each link is news to everyone, twice, whenever one of its ends comes or goes. */
  readonly nearestOfMany: number
  /** Between two choices, … */
  readonly periodMs: number
  /** … and as much more as a large mesh is larger: to search all paths for it costs as much more. 10: 5 s up to 500 nodes. */
  readonly periodMsPerNode: number
  /** From news to a choice: many nodes become known at once. In a sparse overlay a choice costs more than it changes. */
  readonly soonMs: number
  readonly soonSparseMs: number
  /** While nodes became known less than this ago there are more to come: a third of the links is enough until all are known, … */
  readonly growingMs: number
  /** … but not for longer than this: a mesh may grow for ever. */
  readonly growingMsMax: number
  /** A link that its dialler has no more use for is given up after this; until then the other end may have come to want it. */
  readonly unwantedMs: number
  /** A link that is given up stays open this long: others have heard of it by then. */
  readonly leaveMs: number
  /** One of the nearest that is gone keeps its place this long: most come back, and a link in its place would be news to all, twice. */
  readonly awayMs: number
}

/** Found with simulated runs of a thousand nodes, by trying (`npm run sim`). */
export const LINK_POLICY_DEFAULTS: LinkPolicyOptions = {
  ...LINK_CHOICE_DEFAULTS,
  manyNodes: 500,
  nearestOfMany: 3,
  periodMs: 5000,
  periodMsPerNode: 10,
  soonMs: 250,
  soonSparseMs: 2000,
  growingMs: 2000,
  growingMsMax: 30_000,
  unwantedMs: 15_000,
  leaveMs: 2000,
  awayMs: 45_000,
}

/** Nodes that are looked at for each of the nearest: the cheapest to reach are not quite the nearest, and those of before are preferred. */
const LOOKED_AT_RATIO = 5
/** Of the links a node wants, those that it makes while it hears of more and more nodes: most of what it chose then would be taken back. */
const GROWING_SHARE = 1 / 3
/** What a call counts for after so long: half of it after half a minute. */
const CALLS_KEPT_SHARE = 0.9
const CALLS_KEPT_MS = 5000
/** Below this a node is no longer one that is called. */
const CALLS_MIN = 0.5
/** Others that a node without any link tries in each period, beside its choice: those it chose may all be gone. */
const LONELY_TRIES = 8

const NOWHERE: RoundTrips = new Map<NodeId, number>()
/** Where everyone links to everyone. */
const NO_DISTANCE: RoundTrips = { get: () => 0 }

export interface LinkPolicyDeps {
  readonly self: NodeId
  /** Uniform in [0, 1). */
  random(): number
}

/** A link that is up. */
export interface StandingLink {
  readonly node: NodeId
  /** This end dialled it, so it is this end that gives it up. */
  readonly dialled: boolean
  /** It carries calls that have no other way. */
  readonly isInUse: boolean
}

/** Milliseconds by node; undefined: it is farther than those that were asked for, or no way leads there. */
export interface RoundTrips {
  get(node: NodeId): number | undefined
}

/** What a node sees when it chooses. */
export interface Surroundings {
  /** Others that can be dialled, dead ones included: whoever was split off for long must be found again. */
  readonly known: readonly NodeId[]
  /** Others that there are: by this it is decided whether everyone links to everyone. */
  readonly count: number
  readonly links: readonly StandingLink[]
  /** Round trips to at least so many of the nearest, measured or along the best path. */
  nearest(count: number): RoundTrips
}

export interface LinkDecision {
  /** Nodes to dial, for ever, unless there is a link. */
  readonly wanted: ReadonlySet<NodeId>
  /** Those are all that are known. Whoever becomes known may be dialled at once, until `hold` says otherwise. */
  readonly isAll: boolean
  /** Links are few: those that are not wanted are of no use. */
  readonly isSparse: boolean
  /** Give these up: tell the router at once, close them `leaveMs` later. */
  readonly leave: readonly NodeId[]
  /** Choose again after this, as `period`. */
  readonly periodMs: number
  /** Choose again then, as `planned`; undefined: no need, or planned already. */
  readonly againAtMs: number | undefined
}

/**
 * To whom a node links, when it thinks again, and what it gives up: to all in a small mesh, to a few in a large one.
 *
 * Pure but for what it remembers: no clock, no timers, no sockets. The daemon and the simulator carry out the same
 * decisions, each in its own time. `nowMs` is monotonic.
 */
export class LinkPolicy {
  readonly options: LinkPolicyOptions
  private readonly deps: LinkPolicyDeps
  private readonly calls = new Map<NodeId, number>()
  /** As last chosen, without tries. */
  private chosen: ReadonlySet<NodeId> = new Set()
  /** How far those were when they could be reached last, and when that was. */
  private readonly lastSeen = new Map<NodeId, { readonly rttMs: number; readonly atMs: number }>()
  /** Links this node dialled and does not want, and since when. */
  private unwantedSinceMs = new Map<NodeId, number>()
  private plannedAtMs: number | undefined
  private grewAtMs = Number.NEGATIVE_INFINITY
  /** When it began to put off a choice among all, because more came to be known; undefined: it does not. */
  private putOffSinceMs: number | undefined
  private fadedAtMs: number | undefined

  constructor(deps: LinkPolicyDeps, options: Partial<LinkPolicyOptions> = {}) {
    this.deps = deps
    this.options = { ...LINK_POLICY_DEFAULTS, ...options }
  }

  /** A choice is to come before its period is over. */
  get isPlanned(): boolean {
    return this.plannedAtMs !== undefined
  }

  /** How many of the nearest it looks at to choose among them, in a sparse overlay. */
  get lookedAt(): number {
    return LOOKED_AT_RATIO * this.options.nearest
  }

  /** There are too many to link to each. */
  isSparse(count: number): boolean {
    return count >= this.options.fullMeshMax
  }

  /** A call went there. */
  onCall(node: NodeId): void {
    this.calls.set(node, (this.calls.get(node) ?? 0) + 1)
  }

  /** A new link: what was not wanted was another one. */
  onLinkUp(node: NodeId): void {
    this.unwantedSinceMs.delete(node)
  }

  /** A node became known, of `count` others now. Answers when to choose, as `planned`; undefined: that is planned already. */
  onNews(count: number, nowMs: number): number | undefined {
    this.grewAtMs = nowMs
    const { soonMs, soonSparseMs } = this.options
    return this.plan(nowMs + (this.isSparse(count) ? soonSparseMs : soonMs))
  }

  /**
   * On news: whom alone to dial until the next choice, because the first of a thousand look like the last of a few.
   * Undefined: so few are known that a sparse choice would have them all; nothing is lost by dialling at once.
   */
  hold(knownCount: number): ReadonlySet<NodeId> | undefined {
    return this.mayGrow(knownCount) ? this.chosen : undefined
  }

  /** `period`: the time for it has come again; `planned`: a choice that was asked for. */
  choose(seen: Surroundings, nowMs: number, occasion: 'start' | 'period' | 'planned'): LinkDecision {
    if (occasion === 'planned') this.plannedAtMs = undefined
    if (occasion === 'period') this.fade(nowMs)
    const isSparse = this.isSparse(seen.count)
    const isGrowing = this.putsOff(seen.known.length, nowMs)
    const rttMs = isSparse ? seen.nearest(this.lookedAt) : NO_DISTANCE
    const nearest = seen.count > this.options.manyNodes ? this.options.nearestOfMany : this.options.nearest
    const kept = isSparse ? this.keptPlaces(seen.known, nearest, rttMs, nowMs) : NOWHERE
    const peers = seen.known.map(
      (node): LinkPeer => ({ node, rttMs: rttMs.get(node) ?? kept.get(node), calls: this.calls.get(node) ?? 0 }),
    )
    const fullMeshMax = isSparse ? this.options.fullMeshMax : Number.POSITIVE_INFINITY
    const choice = isGrowing ? this.fewLinks() : { ...this.options, nearest, fullMeshMax }
    const isEnough = isGrowing && this.chosen.size >= choice.nearest + choice.random
    if (!isEnough) this.chosen = chooseLinks(this.deps.self, peers, this.chosen, choice)
    const isLonely = isSparse && seen.links.length === 0
    const { periodMs, periodMsPerNode } = this.options
    const tries = isLonely ? pickSome(seen.known, LONELY_TRIES, this.deps.random) : []
    return {
      wanted: isLonely ? new Set([...this.chosen, ...tries]) : this.chosen,
      isAll: !isSparse && !isGrowing,
      isSparse,
      leave: isSparse ? this.toLeave(seen.links, nowMs) : this.leaveNone(),
      periodMs: isLonely ? periodMs : Math.max(periodMs, periodMsPerNode * seen.count),
      againAtMs: isGrowing ? this.plan(nowMs + this.options.growingMs) : undefined,
    }
  }

  /** Those that went away just now are as far as they were; but when many of the nearest are gone, others are needed. */
  private keptPlaces(known: readonly NodeId[], nearest: number, rttMs: RoundTrips, nowMs: number): RoundTrips {
    for (const node of this.lastSeen.keys()) if (!this.chosen.has(node)) this.lastSeen.delete(node)
    const away = new Map<NodeId, number>()
    for (const node of known) {
      if (!this.chosen.has(node)) continue
      const foundMs = rttMs.get(node)
      const last = this.lastSeen.get(node)
      if (foundMs !== undefined) this.lastSeen.set(node, { rttMs: foundMs, atMs: nowMs })
      else if (last !== undefined && nowMs - last.atMs < this.options.awayMs) away.set(node, last.rttMs)
    }
    return away.size > nearest / 2 ? NOWHERE : away
  }

  /** Whether a choice among all is put off, once more or from now on. */
  private putsOff(knownCount: number, nowMs: number): boolean {
    const { growingMs, growingMsMax } = this.options
    if (!this.mayGrow(knownCount) || nowMs - this.grewAtMs >= growingMs) this.putOffSinceMs = undefined
    else if (nowMs - (this.putOffSinceMs ?? nowMs) < growingMsMax) {
      this.putOffSinceMs ??= nowMs
      return true
    }
    return false
  }

  private fewLinks(): LinkChoiceOptions {
    const few = (count: number): number => Math.ceil(count * GROWING_SHARE)
    const { nearest, random, called } = this.options
    return { fullMeshMax: 0, nearest: few(nearest), random: few(random), called }
  }

  private mayGrow(knownCount: number): boolean {
    return knownCount > this.options.nearest + this.options.random
  }

  private plan(atMs: number): number | undefined {
    if (this.plannedAtMs !== undefined) return undefined
    this.plannedAtMs = atMs
    return atMs
  }

  private toLeave(links: readonly StandingLink[], nowMs: number): NodeId[] {
    const unwanted = new Map<NodeId, number>()
    const leave: NodeId[] = []
    for (const { node, dialled, isInUse } of links) {
      if (!dialled || this.chosen.has(node)) continue
      const sinceMs = this.unwantedSinceMs.get(node)
      unwanted.set(node, sinceMs ?? nowMs)
      if (sinceMs !== undefined && nowMs - sinceMs >= this.options.unwantedMs && !isInUse) leave.push(node)
    }
    this.unwantedSinceMs = unwanted
    return leave
  }

  private leaveNone(): NodeId[] {
    this.unwantedSinceMs.clear()
    return []
  }

  private fade(nowMs: number): void {
    const sinceMs = nowMs - (this.fadedAtMs ?? nowMs - CALLS_KEPT_MS)
    this.fadedAtMs = nowMs
    const share = CALLS_KEPT_SHARE ** (sinceMs / CALLS_KEPT_MS)
    for (const [node, count] of this.calls) {
      if (count * share < CALLS_MIN) this.calls.delete(node)
      else this.calls.set(node, count * share)
    }
  }
}
