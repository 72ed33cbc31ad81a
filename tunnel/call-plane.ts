import type { SecureContext, TLSSocket } from 'node:tls'
import type { AcceptCall, Call, CallOpen } from '../proxy/call.ts'
import { MeshError } from '../router/errors.ts'
import type { Log } from '../router/log.ts'
import type { NodeId } from '../router/model.ts'
import { CALL_LINK_DEFAULTS, CallLink, type CallLinkOptions, type CallLinkState } from './call-link.ts'
import { CallListener } from './call-listener.ts'
import { type Clock, systemClock } from './carrier.ts'
import type { Identity } from './identity.ts'
import { TlsCarrier } from './tls-carrier.ts'
import { type Dial, dialPeer, meshSecureContext } from './tls-peer.ts'

/** Links one peer may hold: the one in use, its successor, and a few that finish long calls. */
const LINKS_PER_PEER_MAX = 8
/** One line per peer or address in this time, however often it misbehaves. */
const LOG_PERIOD_MS = 60_000
/** Peers and addresses remembered for that; beyond, logging pauses rather than memory growing. */
const LOG_KEYS_MAX = 1_024

export interface CallPlaneDeps {
  readonly identity: Identity
  readonly log: Log
  readonly accept: AcceptCall
  readonly isMember: (node: NodeId) => boolean
  /** `up`: calls can be opened to `peer` now. Told on changes only. */
  readonly onLinkChange?: (peer: NodeId, up: boolean) => void
  /** A connection that asked for one of `extraAlpn`; it may hold no certificate. The taker bounds and closes it. */
  readonly onExtraProtocol?: (socket: TLSSocket, alpn: string) => void
  readonly clock?: Clock
  /** 0 ≤ x < 1. */
  readonly random?: () => number
}

export interface CallPlaneOptions {
  readonly listen: { readonly host: string; readonly port: number }
  readonly extraAlpn: readonly string[]
  /** To connect and shake hands with one address. */
  readonly dialTimeoutMs: number
  readonly handshakeTimeoutMs: number
  readonly handshakesMax: number
  readonly handshakesPerIpMax: number
  readonly connectionsPerIpPerSecondMax: number
  /** First wait after a failed round of dialling; doubles to the longest. */
  readonly backoffMinMs: number
  readonly backoffMaxMs: number
  /** Two links to one peer are both kept this long: long enough for a dead one to be found out. */
  readonly duplicateGraceMs: number
  readonly link: CallLinkOptions
}

export const CALL_PLANE_DEFAULTS: Omit<CallPlaneOptions, 'listen'> = {
  extraAlpn: [],
  // A handshake is three round trips; 5 s allows a lost packet or two on the longest lines.
  dialTimeoutMs: 5_000,
  handshakeTimeoutMs: 5_000,
  // One costs about 0.5 ms of CPU and 50 kB: 256 are 13 MB.
  handshakesMax: 256,
  // A whole site behind one NAT is a handful of nodes, each with a handshake or two.
  handshakesPerIpMax: 64,
  connectionsPerIpPerSecondMax: 100,
  // A restarting peer is back within tenths of a second.
  backoffMinMs: 100,
  // A split must heal within 10 s of its end, so a round may start at most half of that later.
  backoffMaxMs: 5_000,
  duplicateGraceMs: CALL_LINK_DEFAULTS.silenceMs,
  link: CALL_LINK_DEFAULTS,
}

/** One link, for `flatmesh links`. */
export interface LinkStatus {
  readonly peer: NodeId
  readonly state: CallLinkState
  readonly carrier: 'tls' | 'memory'
  /** By this node. */
  readonly dialled: boolean
  readonly rttMs: number | undefined
  /** Open now, in both directions. */
  readonly calls: number
  readonly address: string
}

/** What the port turned away and what links ended by a peer's fault, since the start. */
export interface CallPlaneCounts {
  strangers: number
  failedHandshakes: number
  refusedConnections: number
  brokenProtocols: number
}

interface PeerLink {
  readonly link: CallLink
  readonly address: string
  /** When it was made, in order. */
  readonly order: number
  upAtMs: number | undefined
}

/** A peer this node keeps a link to. */
interface Wanted {
  addresses: readonly string[]
  /** Where the next round begins: past an address that let us in and then did not speak. */
  from: number
  failures: number
  dialling: Dial | undefined
  inRound: boolean
  cancelTimer: (() => void) | undefined
}

interface Peer {
  readonly id: NodeId
  readonly links: PeerLink[]
  wanted: Wanted | undefined
  up: boolean
  cancelGrace: (() => void) | undefined
}

/**
 * The links that calls run on: one port, one warm link per wanted peer, either end's.
 *
 * If both ends dial at once, both links work; after a grace period the one dialled by the smaller node id stays and the
 * other closes when its calls are over. Both ends decide alike without a word.
 */
export class CallPlane {
  readonly counts: CallPlaneCounts = { strangers: 0, failedHandshakes: 0, refusedConnections: 0, brokenProtocols: 0 }
  readonly #deps: CallPlaneDeps
  readonly #options: CallPlaneOptions
  readonly #clock: Clock
  readonly #random: () => number
  readonly #listener: CallListener
  readonly #peers = new Map<NodeId, Peer>()
  readonly #loggedAtMs = new Map<string, number>()
  readonly #closing = new Set<Promise<void>>()
  #context: SecureContext | undefined
  #order = 0
  #draining = false
  #stopped = false

  constructor(deps: CallPlaneDeps, options: Partial<CallPlaneOptions> & Pick<CallPlaneOptions, 'listen'>) {
    this.#deps = deps
    this.#options = { ...CALL_PLANE_DEFAULTS, ...options }
    this.#clock = deps.clock ?? systemClock
    this.#random = deps.random ?? Math.random
    this.#listener = new CallListener(
      {
        identity: deps.identity,
        isMember: deps.isMember,
        onPeer: (socket, peer) => this.#addLink(this.#peer(peer), socket, false),
        onExtraProtocol: (socket, alpn) => {
          if (deps.onExtraProtocol === undefined) socket.destroy()
          else deps.onExtraProtocol(socket, alpn)
        },
        onRefused: (kind, who, reason) => this.#onRefused(kind, who, reason),
      },
      this.#options,
    )
  }

  /** Resolves with the address listened at. Rejects with MeshError `port-in-use` or `bad-config`. */
  async start(): Promise<{ host: string; port: number }> {
    this.#context = meshSecureContext(this.#deps.identity)
    const { address, port } = await this.#listener.start()
    for (const peer of this.#peers.values()) this.#reconcile(peer)
    return { host: address, port }
  }

  /** Keeps a link to `peer` for ever, dialling `addresses` (`host:port`, best first). Again with others: dials at once. */
  want(peer: NodeId, addresses: readonly string[]): void {
    if (peer === this.#deps.identity.nodeId) return
    const state = this.#peer(peer)
    const known = state.wanted
    if (known === undefined) {
      state.wanted = {
        addresses,
        from: 0,
        failures: 0,
        dialling: undefined,
        inRound: false,
        cancelTimer: undefined,
      }
      this.#reconcile(state)
      return
    }
    if (known.addresses.join() === addresses.join()) return
    known.addresses = addresses
    known.from = 0
    this.nudge(peer)
  }

  /** Stops dialling. A link that is up stays until its end. */
  unwant(peer: NodeId): void {
    const state = this.#peers.get(peer)
    if (state?.wanted === undefined) return
    state.wanted.cancelTimer?.()
    state.wanted.dialling?.cancel()
    state.wanted = undefined
    this.#forgetIfIdle(state)
  }

  /** Dials now instead of at the end of the backoff: something says that the peer is back. */
  nudge(peer: NodeId): void {
    const state = this.#peers.get(peer)
    if (state?.wanted === undefined) return
    state.wanted.failures = 0
    state.wanted.cancelTimer?.()
    state.wanted.cancelTimer = undefined
    this.#reconcile(state)
  }

  /** Closes every link to a node that is no longer a member; its calls are reset `link-lost`. */
  cut(peer: NodeId, reason: string): void {
    for (const { link } of [...(this.#peers.get(peer)?.links ?? [])]) link.close(reason)
  }

  /** Undefined: no warm link to `peer` now, and nothing was sent. */
  open(peer: NodeId, open: CallOpen): Call | undefined {
    const state = this.#peers.get(peer)
    if (state === undefined) return undefined
    // The newest first: while two are up, the older may turn out to be dead.
    for (let i = state.links.length - 1; i >= 0; i--) {
      const link = state.links[i]?.link
      if (link?.state === 'up') {
        const call = link.open(open)
        if (call !== undefined) return call
      }
    }
    // Just connected: the peer has proven itself and its HELLO is on the way.
    for (const { link } of state.links) {
      const call = link.state === 'hello' ? link.open(open) : undefined
      if (call !== undefined) return call
    }
    return undefined
  }

  links(): LinkStatus[] {
    const all: LinkStatus[] = []
    for (const peer of this.#peers.values()) {
      for (const { link, address } of peer.links) {
        const { state, dialled, rttMs, inFlight } = link
        all.push({ peer: peer.id, state, carrier: 'tls', dialled, rttMs, calls: inFlight, address })
      }
    }
    return all
  }

  /** Takes no new calls and no new links, dials no more; resolves when the last call in either direction is over. */
  async drain(): Promise<void> {
    this.#draining = true
    void this.#listener.close()
    const ends: Promise<void>[] = []
    for (const peer of [...this.#peers.values()]) {
      this.#stopDialling(peer)
      for (const { link } of peer.links) ends.push(link.goAway('this node is shutting down'))
    }
    await Promise.all(ends)
  }

  /** Closes everything; open calls are reset `link-lost`. Resolves when every socket is closed. */
  async stop(): Promise<void> {
    this.#draining = true
    this.#stopped = true
    const closed = this.#listener.close()
    for (const peer of [...this.#peers.values()]) {
      this.#stopDialling(peer)
      peer.cancelGrace?.()
      for (const { link } of [...peer.links]) link.close('this node is shutting down')
    }
    await closed
    await Promise.all(this.#closing)
  }

  // ---- links ----

  #peer(id: NodeId): Peer {
    let peer = this.#peers.get(id)
    if (peer === undefined) {
      peer = { id, links: [], wanted: undefined, up: false, cancelGrace: undefined }
      this.#peers.set(id, peer)
    }
    return peer
  }

  #forgetIfIdle(peer: Peer): void {
    if (peer.links.length === 0 && peer.wanted === undefined) this.#peers.delete(peer.id)
  }

  #addLink(peer: Peer, socket: TLSSocket, dialled: boolean): void {
    if (this.#draining || peer.links.length >= LINKS_PER_PEER_MAX) {
      socket.destroy()
      this.#forgetIfIdle(peer)
      return
    }
    const closed = new Promise<void>(resolve => socket.once('close', () => resolve()))
    this.#closing.add(closed)
    void closed.then(() => this.#closing.delete(closed))
    const carrier = new TlsCarrier(socket)
    const link = new CallLink(
      {
        carrier,
        clock: this.#clock,
        log: this.#deps.log,
        self: this.#deps.identity.nodeId,
        peer: peer.id,
        accept: this.#deps.accept,
        onState: () => this.#onLinkState(peer, entry),
        onClosed: (reason, fault) => this.#onLinkClosed(peer, entry, reason, fault),
      },
      dialled,
      this.#options.link,
    )
    const entry: PeerLink = { link, address: carrier.address, order: this.#order++, upAtMs: undefined }
    peer.links.push(entry)
    link.start()
  }

  #onLinkState(peer: Peer, entry: PeerLink): void {
    if (entry.link.state === 'up' && entry.upAtMs === undefined) {
      entry.upAtMs = this.#clock.nowMs()
      if (peer.wanted !== undefined) peer.wanted.from = 0
      const { address, link } = entry
      this.#deps.log.info({ link: peer.id, address, dialled: link.dialled }, 'a link is up')
    }
    this.#reconcile(peer)
  }

  #onLinkClosed(peer: Peer, entry: PeerLink, reason: string, fault: boolean): void {
    const at = peer.links.indexOf(entry)
    if (at >= 0) peer.links.splice(at, 1)
    if (fault) {
      this.counts.brokenProtocols += 1
      this.#logLimited(peer.id, { link: peer.id, code: 'bad-frame', reason }, 'a peer broke the call protocol')
    } else if (entry.upAtMs !== undefined) {
      this.#deps.log.info({ link: peer.id, address: entry.address, reason }, 'a link is down')
    }
    const wanted = peer.wanted
    if (wanted !== undefined) {
      const livedMs = entry.upAtMs === undefined ? 0 : this.#clock.nowMs() - entry.upAtMs
      if (livedMs >= this.#options.backoffMaxMs) wanted.failures = 0
      else if (entry.link.dialled) wanted.failures += 1
      if (entry.upAtMs === undefined && entry.link.dialled) wanted.from += 1
    }
    this.#reconcile(peer)
    this.#forgetIfIdle(peer)
  }

  /** Whatever changed about the peer's links: says whether it is up, sees to a missing link and to one too many. */
  #reconcile(peer: Peer): void {
    const ups = peer.links.filter(({ link }) => link.state === 'up')
    if (ups.length > 0 !== peer.up) {
      peer.up = ups.length > 0
      this.#deps.onLinkChange?.(peer.id, peer.up)
    }
    if (this.#stopped) return
    if (ups.length > 1 && peer.cancelGrace === undefined) {
      peer.cancelGrace = this.#clock.after(this.#options.duplicateGraceMs, () => {
        peer.cancelGrace = undefined
        this.#retireDuplicates(peer)
      })
    }
    const usable = peer.links.some(({ link }) => (link.state === 'up' || link.state === 'hello') && !link.wornOut)
    if (!usable && peer.wanted !== undefined) this.#dialLater(peer, peer.wanted)
  }

  #retireDuplicates(peer: Peer): void {
    const ups = peer.links.filter(({ link }) => link.state === 'up')
    const [keeper, ...others] = ups.sort(
      (a, b) => this.#keepRank(b, peer) - this.#keepRank(a, peer) || b.order - a.order,
    )
    if (keeper === undefined) return
    for (const { link } of others) link.retire('another link to the same node is kept')
  }

  /** A fresh link before one that runs out of ids, then the one the smaller node id dialled; the caller adds: then the newer. */
  #keepRank({ link }: PeerLink, peer: Peer): number {
    const smaller = this.#deps.identity.nodeId < peer.id
    return (link.wornOut ? 0 : 2) + (link.dialled === smaller ? 1 : 0)
  }

  // ---- dialling ----

  #stopDialling(peer: Peer): void {
    if (peer.wanted === undefined) return
    peer.wanted.cancelTimer?.()
    peer.wanted.dialling?.cancel()
    peer.wanted = undefined
  }

  #dialLater(peer: Peer, wanted: Wanted): void {
    if (wanted.addresses.length === 0) return
    if (wanted.inRound || wanted.cancelTimer !== undefined || this.#draining || this.#context === undefined) return
    const delayMs = wanted.failures === 0 ? 0 : this.#backoffMs(wanted.failures)
    wanted.cancelTimer = this.#clock.after(delayMs, () => {
      wanted.cancelTimer = undefined
      void this.#dialRound(peer, wanted)
    })
  }

  /** Half of the doubled wait is chance, so that nodes that lost the same peer do not come back in step. */
  #backoffMs(failures: number): number {
    const { backoffMinMs, backoffMaxMs } = this.#options
    const fullMs = Math.min(backoffMaxMs, backoffMinMs * 2 ** Math.min(failures - 1, 30))
    return fullMs / 2 + (fullMs / 2) * this.#random()
  }

  async #dialRound(peer: Peer, wanted: Wanted): Promise<void> {
    const context = this.#context
    if (context === undefined || peer.wanted !== wanted) return
    const { identity, log } = this.#deps
    const addresses = wanted.addresses
    wanted.inRound = true
    for (let i = 0; i < addresses.length; i++) {
      const address = addresses[(wanted.from + i) % addresses.length] ?? ''
      wanted.dialling = dialPeer(context, identity.rootPem, peer.id, address, this.#options.dialTimeoutMs)
      try {
        const socket = await wanted.dialling.socket
        wanted.inRound = false
        wanted.dialling = undefined
        wanted.from = (wanted.from + i) % addresses.length
        if (peer.wanted === wanted) this.#addLink(peer, socket, true)
        else socket.destroy()
        return
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error)
        const code = error instanceof MeshError ? error.code : 'internal'
        log.debug({ link: peer.id, code, reason }, 'a dial failed')
        if (code !== 'unreachable')
          this.#logLimited(`dial ${address}`, { link: peer.id, code, reason }, 'a dial met a stranger')
      }
      // The peer's own dial came through meanwhile, or the addresses are out of date.
      if (peer.wanted !== wanted || wanted.addresses !== addresses || peer.up) break
    }
    wanted.inRound = false
    wanted.dialling = undefined
    if (peer.wanted !== wanted) return
    if (wanted.addresses === addresses) wanted.failures += 1
    this.#reconcile(peer)
  }

  // ---- what went wrong outside ----

  #onRefused(kind: 'stranger' | 'handshake' | 'flood', who: string, reason: string): void {
    if (kind === 'stranger') this.counts.strangers += 1
    else if (kind === 'handshake') this.counts.failedHandshakes += 1
    else this.counts.refusedConnections += 1
    this.#logLimited(
      who,
      { address: who, code: kind === 'flood' ? 'overloaded' : 'not-a-member', reason },
      'a connection to the call port was turned away',
    )
  }

  #logLimited(key: string, fields: Record<string, unknown>, message: string): void {
    const nowMs = this.#clock.nowMs()
    const lastMs = this.#loggedAtMs.get(key)
    if (lastMs !== undefined && nowMs - lastMs < LOG_PERIOD_MS) return
    if (this.#loggedAtMs.size >= LOG_KEYS_MAX) {
      for (const [other, atMs] of this.#loggedAtMs) if (nowMs - atMs >= LOG_PERIOD_MS) this.#loggedAtMs.delete(other)
      if (this.#loggedAtMs.size >= LOG_KEYS_MAX) return
    }
    this.#loggedAtMs.set(key, nowMs)
    this.#deps.log.warn(fields, message)
  }
}
