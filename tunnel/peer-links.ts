import type { Call } from '../proxy/call.ts'
import type { NodeId } from '../router/model.ts'
import type { CallLink } from './call-link.ts'
import type { CarrierKind } from './carrier.ts'
import type { LinkOpen } from './link-call.ts'
import { carrierRank } from './link-dialler.ts'

/** Links one peer may hold: those in use, a successor, and a few that finish long calls. */
const LINKS_PER_PEER_MAX = 8

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

  /** The rank of the best carrier that is of use for a while; -1: none. */
  get rank(): number {
    const usable = this.#links.filter(({ link }) => (link.state === 'up' || link.state === 'hello') && !link.wornOut)
    return Math.max(-1, ...usable.map(rankOf))
  }

  add(entry: PeerLink): void {
    const after = this.#links.findLastIndex(other => rankOf(other) <= rankOf(entry))
    this.#links = this.#links.toSpliced(after + 1, 0, entry)
  }

  remove(entry: PeerLink): void {
    this.#links = this.#links.filter(other => other !== entry)
  }

  /** The best carrier first; of equals the newest: while two are up, the older may turn out to be dead. */
  open(open: LinkOpen): Call | undefined {
    const links = this.#links
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
    for (const entry of this.#links.toReversed()) {
      const { link, kind } = entry
      const isFit = kind !== 'relayed' && (link.state === 'up' || link.state === 'hello')
      const call = isFit ? link.open(open) : undefined
      if (call !== undefined) return { call, entry }
    }
    return undefined
  }

  get hasDuplicates(): boolean {
    return this.#links.filter(({ link }) => link.state === 'up').length > 1
  }

  /**
   * Those to retire, by a rule that gives the same at both ends: a fresh link stays before one that runs out of ids, then
   * the better carrier, then the one that the smaller node id dialled, then the newer. `isSmaller`: this node's id is.
   */
  duplicates(isSmaller: boolean): PeerLink[] {
    const keepRank = ({ link, kind, via }: PeerLink): number =>
      (link.wornOut ? 0 : 1000) + 100 * carrierRank(kind, via.length) + (link.dialled === isSmaller ? 1 : 0)
    const ups = this.#links.filter(({ link }) => link.state === 'up')
    return ups.sort((a, b) => keepRank(b) - keepRank(a) || b.order - a.order).slice(1)
  }
}

function rankOf({ kind, via, staleness }: PeerLink): number {
  return carrierRank(kind, via.length, staleness === 2)
}
