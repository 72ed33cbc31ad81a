import type { Call } from '../proxy/call.ts'
import type { NodeId } from '../router/model.ts'
import type { CallLink } from './call-link.ts'
import type { CarrierKind } from './carrier.ts'
import type { LinkOpen } from './link-call.ts'
import { CARRIER_RANK, carrierRank } from './link-dialler.ts'
import type { LinkLoad } from './link-load.ts'

/** Links one peer may hold: those in use, a successor, and a few that finish long calls. */
const LINKS_PER_PEER_MAX = 8

/** A parallel link that no call has taken for so long is given up, if others do: between two downloads of one caller. Guess. */
const PARALLEL_IDLE_MS = 5_000

/** One link to a peer, and what the call plane remembers of it. */
export interface PeerLink {
  readonly link: CallLink
  readonly kind: CarrierKind
  readonly via: readonly NodeId[]
  readonly address: string
  /** Of a relayed one: the link that its nearest piece runs on. */
  readonly over: PeerLink | undefined
  /** Its way is no longer the one that would be taken, at the last look and at the one before. */
  staleness: 0 | 1 | 2
  /** When it was made, in order. */
  readonly order: number
  upAtMs: number | undefined
  /** It ended, or is ending, in order: one of the ends has another use for its calls. */
  isRetired: boolean
  /** What `link.callsSeen` was at the last look, and since when it is so. */
  callsSeen: number
  idleSinceMs: number
}

/** The links there are to one peer: which one a call takes, and which one is too many. */
export class PeerLinks {
  /** The best last: by carrier, then by age. */
  #links: readonly PeerLink[] = []

  /** A copy: links may come and go while it is walked through. */
  get all(): readonly PeerLink[] {
    return this.#links
  }

  get size(): number {
    return this.#links.length
  }

  get isFull(): boolean {
    return this.#links.length >= LINKS_PER_PEER_MAX
  }

  get isUp(): boolean {
    return this.#links.some(({ link }) => link.state === 'up')
  }

  /** The one that a call would take now. */
  get best(): PeerLink | undefined {
    return this.#links.findLast(({ link }) => link.state === 'up')
  }

  /** The rank of the best carrier that is of use for a while; -1: none. A parallel link is only a help for another. */
  get rank(): number {
    const usable = this.#links.filter(
      ({ link }) => (link.state === 'up' || link.state === 'hello') && !link.wornOut && !link.isParallel,
    )
    return Math.max(-1, ...usable.map(rankOf))
  }

  add(entry: PeerLink): void {
    const after = this.#links.findLastIndex(other => rankOf(other) <= rankOf(entry))
    this.#links = this.#links.toSpliced(after + 1, 0, entry)
  }

  /** It has turned out to be a parallel one. */
  sort(entry: PeerLink): void {
    this.remove(entry)
    this.add(entry)
  }

  remove(entry: PeerLink): void {
    this.#links = this.#links.filter(other => other !== entry)
  }

  /**
   * The best carrier first; of equals the newest: while two are up, the older may turn out to be dead. If small calls wait
   * behind others there, the least busy one that is as good.
   */
  open(open: LinkOpen): Call | undefined {
    const links = this.#links
    const relieved = this.#lessBusy()?.link.open(open)
    if (relieved !== undefined) return relieved
    for (let i = links.length - 1; i >= 0; i--) {
      const link = links[i]?.link
      const call = link?.state === 'up' ? link.open(open) : undefined
      if (call !== undefined) return call
    }
    // Just connected: the peer has proven itself and its HELLO is on the way.
    for (let i = links.length - 1; i >= 0; i--) {
      const link = links[i]?.link
      const call = link?.state === 'hello' ? link.open(open) : undefined
      if (call !== undefined) return call
    }
    return undefined
  }

  /** A piece of a relayed way, on a link that is not itself relayed: its bytes would pass a node twice. */
  openPiece(payload: Buffer): { readonly call: Call; readonly entry: PeerLink } | undefined {
    const open: LinkOpen = { kind: 'relay', service: '', timeoutMs: 0, head: payload }
    const lessBusy = this.#lessBusy()
    for (const entry of [...(lessBusy === undefined ? [] : [lessBusy]), ...this.#links.toReversed()]) {
      const { link, kind } = entry
      const isFit = kind !== 'relayed' && (link.state === 'up' || link.state === 'hello')
      const call = isFit ? link.open(open) : undefined
      if (call !== undefined) return { call, entry }
    }
    return undefined
  }

  get hasDuplicates(): boolean {
    return this.#links.filter(({ link }) => link.state === 'up' && !link.isParallel).length > 1
  }

  /**
   * Those to retire, by a rule that gives the same at both ends: a fresh link stays before one that runs out of ids, then
   * the better carrier, then the one that the smaller node id dialled, then the newer. `isSmaller`: this node's id is.
   */
  duplicates(isSmaller: boolean): PeerLink[] {
    const keepRank = ({ link, kind, via }: PeerLink): number =>
      (link.wornOut ? 0 : 1000) + 100 * carrierRank(kind, via.length) + (link.dialled === isSmaller ? 1 : 0)
    const ups = this.#links.filter(({ link }) => link.state === 'up' && !link.isParallel)
    return ups.sort((a, b) => keepRank(b) - keepRank(a) || b.order - a.order).slice(1)
  }

  // ---- parallel links ----

  /** The link that another one is to be dialled beside, to the same address: small calls wait on all there are, and this end decides. */
  needsAnother(carriersMax: number): PeerLink | undefined {
    const directs = this.#links.filter(isDirectUp)
    if (this.isFull || directs.length >= carriersMax || !directs.every(({ link }) => link.load.isCrowded))
      return undefined
    // Of both ends the one that has dialled the first: it can.
    return directs.find(({ link }) => !link.isParallel && link.dialled && link.takesParallel)
  }

  /** Parallel links dialled by this end that are not needed any more. No call is on them. */
  spare(nowMs: number): PeerLink[] {
    const spare: PeerLink[] = []
    for (const entry of this.#links) {
      const { link } = entry
      if (!link.isParallel || !link.dialled || link.state !== 'up') continue
      const isIdle = idleForMs(entry, nowMs) >= PARALLEL_IDLE_MS
      const suffices = (other: PeerLink): boolean =>
        other !== entry && isDirectUp(other) && !other.link.load.isCrowded && !spare.includes(other)
      if (link.wornOut || (isIdle && this.#links.some(suffices))) spare.push(entry)
    }
    return spare
  }

  /** Undefined: the best one is not crowded. */
  #lessBusy(): PeerLink | undefined {
    const { best } = this
    if (best?.link.load.isCrowded !== true || best.kind !== 'direct') return undefined
    let least = best
    for (const entry of this.#links) {
      if (isDirectUp(entry) && isLessBusy(entry.link.load, least.link.load)) least = entry
    }
    return least
  }
}

/** How long a link has had no call, as far as it was looked at; to be called now and then. */
export function idleForMs(entry: PeerLink, nowMs: number): number {
  const { link } = entry
  if (link.inFlight > 0 || link.callsSeen !== entry.callsSeen) entry.idleSinceMs = nowMs
  entry.callsSeen = link.callsSeen
  return nowMs - entry.idleSinceMs
}

/** Below every other direct one, above all that are not. */
const PARALLEL_RANK = CARRIER_RANK.direct - 0.5

function rankOf({ link, kind, via, staleness }: PeerLink): number {
  return link.isParallel ? PARALLEL_RANK : carrierRank(kind, via.length, staleness === 2)
}

function isDirectUp({ link, kind }: PeerLink): boolean {
  return kind === 'direct' && link.state === 'up' && !link.wornOut
}

function isLessBusy(a: LinkLoad, b: LinkLoad): boolean {
  return a.isCrowded === b.isCrowded ? a.recentBytes < b.recentBytes : b.isCrowded
}
