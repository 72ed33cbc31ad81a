import type { Duplex } from 'node:stream'
import type { SecureContext, TLSSocket } from 'node:tls'
import type { AcceptCall, Call, CallOpen } from '../proxy/call.ts'
import type { MeshError, MeshErrorCode } from '../router/errors.ts'
import type { Log } from '../router/log.ts'
import type { NodeId } from '../router/model.ts'
import { CallDuplex } from './call-duplex.ts'
import { CallLink, type CallLinkState } from './call-link.ts'
import { CALL_LINK_DEFAULTS, type CallLinkOptions } from './call-link-options.ts'
import { CallListener, type StreamOrigin } from './call-listener.ts'
import { type CarrierKind, type Clock, systemClock } from './carrier.ts'
import { TICK_MS } from './heartbeat.ts'
import type { Identity } from './identity.ts'
import { createLinkCounts } from './link-counts.ts'
import { DIAL_DEFAULTS, type Dialled, type DialOptions, LinkDialler } from './link-dialler.ts'
import { LinkWaiters } from './link-waiters.ts'
import { idleForMs, type PeerLink, PeerLinks } from './peer-links.ts'
import { PendingCall } from './pending-call.ts'
import { RELAY_DEFAULTS, Relay, type RelayCounts, type RelayOptions } from './relay.ts'
import { encodeRoute, NODES_MAX as ROUTE_NODES_MAX, type Route } from './route.ts'
import { TlsCarrier } from './tls-carrier.ts'
import { type Dial, dialPeer, meshSecureContext } from './tls-peer.ts'

/** Calls that wait for a link to one peer; one more is not taken. A call that waits holds its head and up to 64 KiB. */
const WAITING_MAX = 1_024
/** Between tries of a parallel link that did not come up, or was lost. Guess: bulk that lasts less needs none. */
const PARALLEL_RETRY_MS = 5_000
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
  /** The round trip to a peer, if it is known: how long a dial may take. */
  readonly rttMs?: (peer: NodeId) => number | undefined
  /** The nodes that calls to `peer` would pass, the peer last, none of `avoided` before it. Default: nothing is relayed. */
  readonly route?: (peer: NodeId, avoided: ReadonlySet<NodeId>) => readonly NodeId[] | undefined
  /** The overlay, which carries links where nothing else gets through. Default: it does not. */
  readonly overlay?: CallOverlay
  readonly clock?: Clock
  /** 0 ≤ x < 1. */
  readonly random?: () => number
}

/** Streams of the overlay, as far as the call plane needs them. */
export interface CallOverlay {
  /** There is a connection to `peer` that a stream can be opened on. */
  isLinked(peer: NodeId): boolean
  /** Rejects when there is none in time. The other end gives its end to `CallPlane.takeOverlay`. */
  open(peer: NodeId, timeoutMs: number): Promise<Duplex>
}

export interface CallPlaneOptions extends DialOptions {
  readonly listen: { readonly host: string; readonly port: number }
  readonly extraAlpn: readonly string[]
  readonly handshakeTimeoutMs: number
  readonly handshakesMax: number
  readonly handshakesPerIpMax: number
  readonly connectionsPerIpPerSecondMax: number
  /** Two links to one peer are both kept this long: long enough for a dead one to be found out. */
  readonly duplicateGraceMs: number
  /** How long a call waits for a link, unless it is told otherwise: this and six round trips, so that the next place gets its turn. */
  readonly waitMs: number
  /** A link that nobody wants kept is closed by the end that dialled it when it had no call for so long. */
  readonly idleMs: number
  /** Direct links to one peer that calls are spread over while bulk goes to it, so that small calls have one without; 1: no parallel ones. */
  readonly carriersMax: number
  readonly link: CallLinkOptions
  readonly relay: RelayOptions
}

export const CALL_PLANE_DEFAULTS: Omit<CallPlaneOptions, 'listen'> = {
  ...DIAL_DEFAULTS,
  extraAlpn: [],
  handshakeTimeoutMs: 5_000,
  // One costs about 0.5 ms of CPU and 50 kB: 256 are 13 MB.
  handshakesMax: 256,
  // A whole site behind one NAT is a handful of nodes, each with a handshake or two.
  handshakesPerIpMax: 64,
  connectionsPerIpPerSecondMax: 100,
  duplicateGraceMs: CALL_LINK_DEFAULTS.silenceMs,
  // A dial and its handshake on a busy machine. Guess.
  waitMs: 500,
  // Longer than most callers' keep-alive and polling; an idle link costs two pings a second.
  idleMs: 30_000,
  // One for small calls beside three of bulk; a fourth takes turns.
  carriersMax: 4,
  link: CALL_LINK_DEFAULTS,
  relay: RELAY_DEFAULTS,
}

/** One link, for `flatmesh links`. */
export interface LinkStatus {
  readonly peer: NodeId
  readonly state: CallLinkState
  readonly carrier: CarrierKind
  /** The relays on the way, in order from this node; empty unless relayed. */
  readonly via: readonly NodeId[]
  /** By this node. */
  readonly dialled: boolean
  /** It stays beside others while bulk goes to the peer. */
  readonly parallel: boolean
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

interface Peer {
  readonly id: NodeId
  readonly links: PeerLinks
  readonly dialler: LinkDialler
  readonly waiting: Set<PendingCall>
  /** Other nodes are to be reached through it. */
  readonly relayWanted: LinkWaiters
  isWanted: boolean
  /** Its addresses were told: it is remembered without links too. */
  isLearnt: boolean
  up: boolean
  cancelGrace: (() => void) | undefined
  /** A parallel link on its way, and when one may be tried again. */
  parallelDial: Dial | undefined
  parallelNotBeforeMs: number
}

/**
 * The links that calls run on: one warm link to every wanted peer, either end's, and to others while calls go there.
 *
 * What a link runs over is the best that works: a connection to the peer's port, a stream that relays pass on, a stream
 * of the overlay. A better one takes the new calls as soon as it is up, and the other closes when its calls are over.
 * If both ends dial at once, both links work; after a grace period the one with the better carrier stays, of equals the
 * one dialled by the smaller node id. Both ends decide alike without a word. While bulk goes to a peer, the end that dialled
 * dials parallel links, meant to stay beside the first, and new calls take one that is not crowded.
 */
export class CallPlane {
  readonly counts: CallPlaneCounts = { strangers: 0, failedHandshakes: 0, refusedConnections: 0, brokenProtocols: 0 }
  /** What went over all links. */
  readonly linkCounts = createLinkCounts()
  readonly #deps: CallPlaneDeps
  readonly #options: CallPlaneOptions
  readonly #clock: Clock
  readonly #random: () => number
  readonly #listener: CallListener
  readonly #relay: Relay
  readonly #peers = new Map<NodeId, Peer>()
  /** Which link carries a piece of a relayed way. */
  readonly #carriers = new WeakMap<Call, PeerLink>()
  readonly #loggedAtMs = new Map<string, number>()
  readonly #closing = new Set<Promise<void>>()
  #context: SecureContext | undefined
  #order = 0
  #draining = false
  #stopped = false
  #stopSweep: (() => void) | undefined
  #stopLooking: (() => void) | undefined

  constructor(deps: CallPlaneDeps, options: Partial<CallPlaneOptions> & Pick<CallPlaneOptions, 'listen'>) {
    this.#deps = deps
    this.#options = { ...CALL_PLANE_DEFAULTS, ...options }
    this.#clock = deps.clock ?? systemClock
    this.#random = deps.random ?? Math.random
    this.#listener = new CallListener(
      {
        identity: deps.identity,
        isMember: deps.isMember,
        onPeer: (socket, peer, origin) => this.#onAccepted(socket, peer, origin),
        onExtraProtocol: (socket, alpn) => {
          if (deps.onExtraProtocol === undefined) socket.destroy()
          else deps.onExtraProtocol(socket, alpn)
        },
        onRefused: (kind, who, reason) => this.#onRefused(kind, who, reason),
      },
      this.#options,
    )
    this.#relay = new Relay(
      {
        self: deps.identity.nodeId,
        log: deps.log,
        openNext: (next, payload) => this.#openPiece(next, payload),
        onArrived: (stream, route) => this.#onArrived(stream, route),
      },
      this.#options.relay,
    )
  }

  /** What this node passes on for others. */
  get relayed(): Readonly<RelayCounts> {
    return this.#relay.counts
  }

  /** Resolves with the address listened at. Rejects with MeshError `port-in-use` or `bad-config`. */
  async start(): Promise<{ host: string; port: number }> {
    this.#context = meshSecureContext(this.#deps.identity)
    const { address, port } = await this.#listener.start()
    this.#stopSweep = this.#clock.every(this.#options.idleMs / 4, () => this.#sweep())
    this.#stopLooking = this.#clock.every(TICK_MS, () => this.#lookForCrowds())
    for (const peer of this.#peers.values()) this.#reconcile(peer)
    return { host: address, port }
  }

  /** Where `peer` can be dialled (`host:port`, best first), should a call want a link to it. */
  learn(peer: NodeId, addresses: readonly string[]): void {
    if (peer === this.#deps.identity.nodeId) return
    const state = this.#peer(peer)
    state.isLearnt = true
    if (state.dialler.addresses.join() === addresses.join()) return
    state.dialler.addresses = addresses
    state.dialler.nudge()
  }

  /** Forgets where `peer` can be dialled. A link that is up stays until its end. */
  forget(peer: NodeId): void {
    const state = this.#peers.get(peer)
    if (state === undefined) return
    state.isLearnt = false
    state.dialler.addresses = []
    this.unwant(peer)
  }

  /** Keeps a link to `peer` for ever, over whatever gets there. `addresses`: as `learn`, if they are known. */
  want(peer: NodeId, addresses?: readonly string[]): void {
    if (peer === this.#deps.identity.nodeId) return
    const state = this.#peer(peer)
    state.isWanted = true
    if (addresses !== undefined) this.learn(peer, addresses)
    this.#reconcile(state)
  }

  /** Keeps no link for its own sake any more. One that is up stays while it has calls, and `idleMs` longer. */
  unwant(peer: NodeId): void {
    const state = this.#peers.get(peer)
    if (state === undefined) return
    state.isWanted = false
    this.#reconcile(state)
    this.#forgetIfIdle(state)
  }

  /** Dials now instead of at the end of the backoff: something says that the peer is back. */
  nudge(peer: NodeId): void {
    this.#peers.get(peer)?.dialler.nudge()
  }

  /** `node` is about to go: links that it passes on move to another way, and lose no call. */
  leaveRelay(node: NodeId): void {
    for (const peer of this.#peers.values()) {
      const through = peer.links.all.filter(({ via }) => via.includes(node))
      if (through.length === 0) continue
      peer.dialler.onRelayLost(node)
      for (const { link } of through) link.retire('a relay on the way is stopping')
    }
  }

  /** Closes every link to a node that is no longer a member; its calls are reset `link-lost`. */
  cut(peer: NodeId, reason: string): void {
    for (const { link } of this.#peers.get(peer)?.links.all ?? []) link.close(reason)
  }

  /**
   * Opens a call to `peer`: on a warm link, or on one that is made for it.
   *
   * The call may wait for its link, at most `waitMs` or as long as it has itself; then it is reset `unreachable`, or with
   * the code that a relay gave, unexecuted. Undefined: no way to `peer` is known or worth trying now, nothing was sent.
   */
  open(peer: NodeId, open: CallOpen, waitMs?: number): Call | undefined {
    const state = this.#peers.get(peer)
    if (state === undefined) return undefined
    return state.links.open(open) ?? this.#openLater(state, open, waitMs)
  }

  /** A stream of the overlay that `peer` opened for calls. */
  takeOverlay(peer: NodeId, stream: Duplex): void {
    if (this.#draining) stream.destroy()
    else this.#listener.take(stream, { kind: 'overlay', peer, via: [] })
  }

  links(): LinkStatus[] {
    const all: LinkStatus[] = []
    for (const peer of this.#peers.values()) {
      for (const { link, kind, via, address } of peer.links.all) {
        const { state, dialled, isParallel: parallel, rttMs, inFlight: calls } = link
        all.push({ peer: peer.id, state, carrier: kind, via, dialled, parallel, rttMs, calls, address })
      }
    }
    return all
  }

  /** The link that a call to `peer` would take now; undefined: it would wait for one. */
  linkTo(peer: NodeId): Pick<LinkStatus, 'carrier' | 'via'> | undefined {
    const best = this.#peers.get(peer)?.links.best
    return best === undefined ? undefined : { carrier: best.kind, via: best.via }
  }

  /** Takes no new calls and no new links, dials no more; resolves when the last call in either direction is over. */
  async drain(): Promise<void> {
    this.#draining = true
    this.#relay.drain()
    void this.#listener.close()
    const ends: Promise<void>[] = []
    for (const peer of [...this.#peers.values()]) {
      this.#stopDialling(peer)
      for (const { link } of peer.links.all) ends.push(link.goAway('this node is shutting down'))
    }
    await Promise.all(ends)
  }

  /** Closes everything; open calls are reset `link-lost`. Resolves when every socket is closed. */
  async stop(): Promise<void> {
    this.#draining = true
    this.#stopped = true
    this.#stopSweep?.()
    this.#stopLooking?.()
    const closed = this.#listener.close()
    for (const peer of [...this.#peers.values()]) {
      this.#stopDialling(peer)
      peer.cancelGrace?.()
      for (const { link } of peer.links.all) link.close('this node is shutting down')
    }
    await closed
    await Promise.all(this.#closing)
  }

  // ---- calls ----

  #openLater(peer: Peer, open: CallOpen, waitMs: number | undefined): Call | undefined {
    if (this.#draining || peer.waiting.size >= WAITING_MAX) return undefined
    const call = new PendingCall(open, this.#clock.nowMs(), () => {
      leave()
      this.#reconcile(peer)
    })
    peer.waiting.add(call)
    this.#reconcile(peer)
    if (!peer.dialler.isBusy) {
      peer.waiting.delete(call)
      return undefined
    }
    const defaultMs = this.#options.waitMs + 6 * (this.#deps.rttMs?.(peer.id) ?? 0)
    const boundMs = Math.min(waitMs ?? defaultMs, open.timeoutMs === 0 ? Number.POSITIVE_INFINITY : open.timeoutMs)
    const cancel = this.#clock.after(boundMs, () => {
      peer.waiting.delete(call)
      this.#fail(call, 'unreachable', `no link came up within ${Math.round(boundMs)} ms`)
      this.#reconcile(peer)
    })
    const leave = (): void => {
      cancel()
      peer.waiting.delete(call)
    }
    call.onLeave = leave
    return call
  }

  #attachWaiting(peer: Peer): void {
    for (const waiting of [...peer.waiting]) {
      const call = peer.links.open(waiting.openNow(this.#clock.nowMs()))
      if (call === undefined) return
      waiting.onLeave()
      waiting.attach(call)
    }
  }

  #failWaiting(peer: Peer, code: MeshErrorCode, reason: string): void {
    for (const call of [...peer.waiting]) {
      call.onLeave()
      this.#fail(call, code, reason)
    }
  }

  #fail(call: PendingCall, code: MeshErrorCode, reason: string): void {
    call.fail({ code, reason, node: this.#deps.identity.nodeId, unexecuted: true })
  }

  // ---- relayed streams ----

  #openPiece(next: NodeId, payload: Buffer): Call | undefined {
    const opened = this.#peers.get(next)?.links.openPiece(payload)
    if (opened !== undefined) this.#carriers.set(opened.call, opened.entry)
    return opened?.call
  }

  #openRoute(path: readonly NodeId[]): CallDuplex | undefined {
    const self = this.#deps.identity.nodeId
    const nodes = [self, ...path]
    const [, first] = nodes
    if (first === undefined || nodes.length > ROUTE_NODES_MAX) return undefined
    const call = this.#openPiece(first, encodeRoute({ nodes, at: 1 }))
    return call === undefined ? undefined : new CallDuplex(call, self)
  }

  /** See LinkDiallerDeps.linkRelay. */
  #linkRelay(relay: NodeId): Promise<boolean> {
    const peer = this.#peers.get(relay)
    if (peer === undefined || this.#draining) return Promise.resolve(false)
    const waitMs = this.#options.waitMs + 6 * (this.#deps.rttMs?.(relay) ?? 0)
    const linked = peer.relayWanted.wait(waitMs, () => this.#reconcile(peer))
    this.#reconcile(peer)
    if (!peer.dialler.isBusy) peer.relayWanted.tell(false)
    return linked
  }

  #onArrived(stream: CallDuplex, { nodes }: Route): void {
    const [peer = '', ...rest] = nodes
    if (this.#draining) stream.destroy()
    else this.#listener.take(stream, { kind: 'relayed', peer, via: rest.slice(0, -1).reverse(), call: stream.call })
  }

  // ---- links ----

  #peer(id: NodeId): Peer {
    const known = this.#peers.get(id)
    if (known !== undefined) return known
    const { identity, log, overlay, route, rttMs } = this.#deps
    const dialler = new LinkDialler(
      {
        ...{ peer: id, identity, log, clock: this.#clock, random: this.#random },
        context: () => (this.#draining ? undefined : this.#context),
        rttMs: () => rttMs?.(id),
        route: avoided => route?.(id, avoided),
        openRelay: path => this.#openRoute(path),
        linkRelay: relay => this.#linkRelay(relay),
        hasOverlay: () => overlay?.isLinked(id) === true,
        openOverlay: timeoutMs => overlay?.open(id, timeoutMs) ?? Promise.reject(new Error('there is no overlay')),
        onDialled: dialled => this.#addLink(peer, dialled, true),
        onExhausted: ({ code, message }: MeshError) => {
          this.#failWaiting(peer, code, message)
          peer.relayWanted.tell(false)
          this.#forgetIfIdle(peer)
        },
        onStranger: (address, code, reason) =>
          this.#logLimited(`dial ${address}`, { link: id, code, reason }, 'a dial met a stranger'),
      },
      this.#options,
    )
    const peer: Peer = {
      ...{
        id,
        links: new PeerLinks(),
        dialler,
        waiting: new Set<PendingCall>(),
        relayWanted: new LinkWaiters(this.#clock),
      },
      ...{ isWanted: false, isLearnt: false, up: false, cancelGrace: undefined },
      ...{ parallelDial: undefined, parallelNotBeforeMs: Number.NEGATIVE_INFINITY },
    }
    this.#peers.set(id, peer)
    return peer
  }

  #forgetIfIdle(peer: Peer): void {
    if (peer.links.size > 0 || peer.isWanted || peer.isLearnt || peer.waiting.size + peer.relayWanted.size > 0) return
    peer.dialler.stop()
    this.#peers.delete(peer.id)
  }

  #onAccepted(socket: TLSSocket, id: NodeId, origin: StreamOrigin | undefined): void {
    const { kind, via, call } = origin ?? { kind: 'direct' as const, via: [], call: undefined }
    this.#addLink(this.#peer(id), { socket, kind, via, call, address: undefined }, false)
  }

  #addLink(
    peer: Peer,
    { socket, kind, via, call, address }: Omit<Dialled, 'address'> & { address: string | undefined },
    dialled: boolean,
    isParallel = false,
  ): void {
    if (this.#draining || peer.links.isFull) {
      socket.destroy()
      this.#forgetIfIdle(peer)
      return
    }
    const closed = new Promise<void>(resolve => socket.once('close', () => resolve()))
    this.#closing.add(closed)
    void closed.then(() => this.#closing.delete(closed))
    const carrier = new TlsCarrier(socket, kind, kind === 'direct' ? undefined : (address ?? ''))
    const link = new CallLink(
      {
        carrier,
        clock: this.#clock,
        log: this.#deps.log,
        self: this.#deps.identity.nodeId,
        peer: peer.id,
        counts: this.linkCounts,
        isParallel,
        accept: this.#deps.accept,
        acceptRelay: (piece, route, from) => {
          this.#carriers.set(piece, entry)
          this.#relay.accept(piece, route, from)
        },
        onState: () => this.#onLinkState(peer, entry),
        onClosed: (reason, fault) => this.#onLinkClosed(peer, entry, reason, fault),
      },
      dialled,
      this.#options.link,
    )
    const entry: PeerLink = {
      ...{ link, kind, via, address: carrier.address, order: this.#order++, upAtMs: undefined },
      ...{ over: call === undefined ? undefined : this.#carriers.get(call), staleness: 0, isRetired: false },
      ...{ callsSeen: 0, idleSinceMs: this.#clock.nowMs() },
    }
    peer.links.add(entry)
    link.start()
    this.#attachWaiting(peer)
    if (kind !== 'relayed') peer.relayWanted.tell(true)
    this.#reconcile(peer)
  }

  #onLinkState(peer: Peer, entry: PeerLink): void {
    const { link, kind, via, address } = entry
    if (link.state === 'up' && entry.upAtMs === undefined) {
      entry.upAtMs = this.#clock.nowMs()
      if (link.isParallel) peer.links.sort(entry)
      else peer.dialler.onGood(kind)
      const { dialled, isParallel: parallel } = link
      const fields = { link: peer.id, carrier: kind, address, via: via.join('>'), dialled, parallel }
      this.#deps.log.info(fields, 'a link is up')
    }
    if (link.state === 'retiring') entry.isRetired = true
    // What it passes on for this node moves with it: the relay stops, or has another link for it.
    if (link.state === 'retiring' && kind !== 'relayed') this.#leaveLink(entry)
    this.#reconcile(peer)
  }

  /** Relayed links whose nearest piece runs on this link take another one while their calls can still finish here. */
  #leaveLink(entry: PeerLink): void {
    if (this.#draining) return
    for (const peer of this.#peers.values()) {
      for (const { link, via, over } of peer.links.all) {
        const [relay] = via
        if (over !== entry || relay === undefined) continue
        if (!this.#isUp(relay)) peer.dialler.onRelayLost(relay)
        link.retire('a link on the way was retired')
      }
    }
  }

  #onLinkClosed(peer: Peer, entry: PeerLink, reason: string, fault: boolean): void {
    peer.links.remove(entry)
    const { kind, via, address, upAtMs } = entry
    if (fault) {
      this.counts.brokenProtocols += 1
      this.#logLimited(peer.id, { link: peer.id, code: 'bad-frame', reason }, 'a peer broke the call protocol')
    } else if (upAtMs !== undefined) {
      this.#deps.log.info({ link: peer.id, carrier: kind, address, reason }, 'a link is down')
    }
    if (entry.link.isParallel) {
      if (!entry.isRetired) peer.parallelNotBeforeMs = this.#clock.nowMs() + PARALLEL_RETRY_MS
      this.#reconcile(peer)
      this.#forgetIfIdle(peer)
      return
    }
    if (upAtMs !== undefined) peer.dialler.onEnded()
    const livedMs = upAtMs === undefined ? 0 : this.#clock.nowMs() - upAtMs
    // A link that was given up in order says nothing against its way, or calls would be refused until the backoff is over;
    // unless it was given up at once: that would go round and round.
    const { backoffMinMs, backoffMaxMs } = this.#options
    if (livedMs >= (entry.isRetired ? backoffMinMs : backoffMaxMs)) peer.dialler.onGood(kind)
    else if (entry.link.dialled) peer.dialler.onBad(kind, upAtMs !== undefined)
    const [relay] = via
    if (relay !== undefined && !this.#isUp(relay)) peer.dialler.onRelayLost(relay)
    this.#reconcile(peer)
    this.#forgetIfIdle(peer)
  }

  #isUp(peer: NodeId): boolean {
    return this.#peers.get(peer)?.links.isUp === true
  }

  /** Whatever changed about the peer's links: says whether it is up, sees to a missing link and to one too many. */
  #reconcile(peer: Peer): void {
    const { links } = peer
    if (links.isUp !== peer.up) {
      peer.up = links.isUp
      this.#deps.onLinkChange?.(peer.id, peer.up)
    }
    if (this.#stopped) return
    if (links.hasDuplicates && peer.cancelGrace === undefined) {
      peer.cancelGrace = this.#clock.after(this.#options.duplicateGraceMs, () => {
        peer.cancelGrace = undefined
        for (const { link } of links.duplicates(this.#deps.identity.nodeId < peer.id)) {
          link.retire('another link to the same node is kept')
        }
      })
    }
    if (this.#draining) return
    peer.dialler.update({
      rank: links.rank,
      isKept: peer.isWanted,
      isAsked: peer.waiting.size + peer.relayWanted.size > 0,
    })
  }

  /** Closes links that nobody wants kept and nobody has called on for a while, and sees to relayed ones whose way has changed. */
  #sweep(): void {
    const nowMs = this.#clock.nowMs()
    for (const peer of this.#peers.values()) {
      this.#lookForStale(peer)
      if (peer.isWanted || peer.waiting.size > 0 || peer.relayWanted.size > 0) continue
      for (const entry of peer.links.all) {
        const { link } = entry
        const idleMs = idleForMs(entry, nowMs)
        if (link.dialled && link.state === 'up' && idleMs >= this.#options.idleMs) {
          link.retire(`no call for ${Math.round(idleMs)} ms`)
        }
      }
    }
  }

  /** A way that differs at two looks in a row is no passing whim of the round trips: new calls shall take it. */
  #lookForStale(peer: Peer): void {
    let isAny = false
    for (const entry of peer.links.all) {
      if (entry.kind !== 'relayed' || !entry.link.dialled || entry.link.state !== 'up') continue
      const way = peer.dialler.route()?.slice(0, -1).join('>') ?? ''
      const isOther = way !== '' && way !== entry.via.join('>')
      entry.staleness = isOther ? (entry.staleness === 0 ? 1 : 2) : 0
      isAny ||= entry.staleness === 2
    }
    if (isAny) this.#reconcile(peer)
  }

  /** Judges the load of all links: where small calls wait behind others on all there are, another is dialled beside them. */
  #lookForCrowds(): void {
    const nowMs = this.#clock.nowMs()
    for (const peer of this.#peers.values()) {
      for (const { link } of peer.links.all) if (link.state === 'up') link.look()
      for (const { link } of peer.links.spare(nowMs)) link.retire('the links beside it suffice')
      if (peer.parallelDial !== undefined || nowMs < peer.parallelNotBeforeMs) continue
      const beside = peer.links.needsAnother(this.#options.carriersMax)
      if (beside !== undefined) void this.#dialParallel(peer, beside.address)
    }
  }

  async #dialParallel(peer: Peer, address: string): Promise<void> {
    const { identity, log } = this.#deps
    if (this.#draining || this.#context === undefined) return
    try {
      peer.parallelDial = dialPeer(this.#context, identity.rootPem, peer.id, address, this.#options.dialTimeoutMs)
      const socket = await peer.parallelDial.socket
      this.#addLink(peer, { socket, kind: 'direct', via: [], call: undefined, address }, true, true)
    } catch (error) {
      peer.parallelNotBeforeMs = this.#clock.nowMs() + PARALLEL_RETRY_MS
      log.debug({ link: peer.id, address, reason: String(error) }, 'a dial of a parallel link failed')
    } finally {
      peer.parallelDial = undefined
    }
  }

  #stopDialling(peer: Peer): void {
    peer.isWanted = false
    peer.parallelDial?.cancel()
    peer.dialler.stop()
    this.#failWaiting(peer, 'draining', 'this node is shutting down')
    peer.relayWanted.tell(false)
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
