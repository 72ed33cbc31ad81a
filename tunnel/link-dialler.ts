import type { Duplex } from 'node:stream'
import type { SecureContext, TLSSocket } from 'node:tls'
import type { Call } from '../proxy/call.ts'
import { MeshError, type MeshErrorCode, messageOf } from '../router/errors.ts'
import type { Log } from '../router/log.ts'
import type { NodeId } from '../router/model.ts'
import { HOPS_MAX } from '../router/paths.ts'
import type { CallDuplex } from './call-duplex.ts'
import type { CarrierKind, Clock } from './carrier.ts'
import type { Identity } from './identity.ts'
import { type Dial, dialOver, dialPeer } from './tls-peer.ts'

/** Better ways first. A relayed one costs others their bytes, one over the overlay costs both ends five times the CPU. */
export const CARRIER_RANK: Readonly<Record<CarrierKind, number>> = { direct: 3, relayed: 2, overlay: 1, memory: 0 }

export interface DialOptions {
  /** To connect and shake hands with one address. */
  readonly dialTimeoutMs: number
  /** First wait after a failed round of dialling; doubles to the longest. */
  readonly backoffMinMs: number
  readonly backoffMaxMs: number
  /** The longest wait while calls ask for a link that is not kept: each of them would hear a stale no for so long. */
  readonly askedBackoffMaxMs: number
  /** The same pair for a better way than the one in use. */
  readonly improveMinMs: number
  readonly improveMaxMs: number
  /** What a better way gets before a worse one is tried beside it, while calls wait: this and four round trips. */
  readonly headStartMs: number
  /** The same while nobody waits: a link over a worse way would be made only to be left. */
  readonly quietHeadStartMs: number
  /** How long a relay is avoided that refused, and one that had just lost its link or was lost. */
  readonly refusedRelayMs: number
  readonly lostRelayMs: number
}

export const DIAL_DEFAULTS: DialOptions = {
  // A handshake is three round trips; 5 s allows a lost packet or two on the longest lines.
  dialTimeoutMs: 5_000,
  // A restarting peer is back within tenths of a second.
  backoffMinMs: 100,
  // A split must heal within 10 s of its end, so a round may start at most half of that later.
  backoffMaxMs: 5_000,
  askedBackoffMaxMs: 1_000,
  improveMinMs: 1_000,
  // What a firewall drops is a packet or two per address and node in this time; a way that opens is found as soon.
  improveMaxMs: 10_000,
  // Four round trips are a handshake and what queues; 250 ms a busy machine. Guesses.
  headStartMs: 250,
  quietHeadStartMs: 3_000,
  // Whether a node relays changes with its config, or when its other streams end.
  refusedRelayMs: 60_000,
  // Word of a lost link is everywhere within a second or two.
  lostRelayMs: 5_000,
}

/** A connection that was made, both ends proven. */
export interface Dialled {
  readonly socket: TLSSocket
  readonly kind: CarrierKind
  /** `host:port`, or what stands for it. */
  readonly address: string
  /** The relays, in order; empty unless relayed. */
  readonly via: readonly NodeId[]
  /** Of a relayed one: the call that carries it. */
  readonly call: Call | undefined
}

/**
 * How good a carrier is, fractions of `CARRIER_RANK` included: of two relayed ones that with fewer relays is better, and
 * one whose way is no longer the one to take is worse than any that is.
 */
export function carrierRank(kind: CarrierKind, relays: number, isStale = false): number {
  if (kind !== 'relayed') return CARRIER_RANK[kind]
  return CARRIER_RANK.relayed + (HOPS_MAX - relays) / 10 - (isStale ? 0.05 : 0)
}

/** What a dialler asks of the links it serves. */
export interface LinkDiallerDeps {
  readonly peer: NodeId
  readonly identity: Identity
  readonly clock: Clock
  readonly log: Log
  /** 0 ≤ x < 1. */
  readonly random: () => number
  /** Undefined: not started yet, or closing: nothing is dialled. */
  context(): SecureContext | undefined
  rttMs(): number | undefined
  /** The way of calls to the peer, the peer last, without `avoided` as relays; undefined or of one node: no relayed one. */
  readonly route: (avoided: ReadonlySet<NodeId>) => readonly NodeId[] | undefined
  /** Opens a stream along a route; undefined: there is no link to its first relay. */
  openRelay(route: readonly NodeId[]): CallDuplex | undefined
  /** Waits a bounded time for a link to a route's first relay, if one is on its way; false: none came, or none will. */
  linkRelay(relay: NodeId): Promise<boolean>
  hasOverlay(): boolean
  openOverlay(timeoutMs: number): Promise<Duplex>
  onDialled(dialled: Dialled): void
  /** Nothing is under way any more, and nothing came of it; `error` is the last reason. */
  onExhausted(error: MeshError): void
  /** Somebody else answered at an address. */
  onStranger(address: string, code: MeshErrorCode, reason: string): void
}

/** Why a link is wanted, and what there is. */
export interface Need {
  /** The rank of the best carrier in use; -1: none. */
  readonly rank: number
  /** A link is to be kept whether calls ask for one or not. */
  readonly isKept: boolean
  /** Calls wait for one. */
  readonly isAsked: boolean
}

const NO_NEED: Need = { rank: -1, isKept: false, isAsked: false }

/** One way to the peer, and how it went lately. */
interface Way {
  readonly kind: 'direct' | 'relayed' | 'overlay'
  failures: number
  notBeforeMs: number
  isRunning: boolean
  timer: { readonly atMs: number; readonly cancel: () => void } | undefined
}

const NEVER_MS = Number.NEGATIVE_INFINITY

/**
 * Finds one node a connection: directly, else through relays, else over the overlay; and looks for a better way while a
 * worse one is in use. When to try what is decided here; what is made of a connection is not.
 */
export class LinkDialler {
  /** `host:port` of the peer, best first. */
  addresses: readonly string[] = []
  readonly #deps: LinkDiallerDeps
  readonly #options: DialOptions
  readonly #ways: readonly Way[]
  /** Relays that said no, and relays that were lost, until when they are avoided. */
  readonly #refused = new Map<NodeId, number>()
  readonly #lost = new Map<NodeId, number>()
  /** Where the next round of dialling begins: past an address that let us in and then did not speak. */
  #from = 0
  #need: Need = NO_NEED
  #current: Dial | undefined
  #isStopped = false
  /** Until when a call that waits is reason enough to try again soon: the peer had a link a moment ago. */
  #insistUntilMs = NEVER_MS
  #lastError: MeshError

  constructor(deps: LinkDiallerDeps, options: DialOptions) {
    this.#deps = deps
    this.#options = options
    this.#ways = (['direct', 'relayed', 'overlay'] as const).map(kind => {
      return { kind, failures: 0, notBeforeMs: NEVER_MS, isRunning: false, timer: undefined }
    })
    this.#lastError = new MeshError('unreachable', `no way to ${deps.peer} is known`)
  }

  /** True while something is being tried, or will be so soon that a call may wait for it. */
  get isBusy(): boolean {
    const soonMs = this.#deps.clock.nowMs() + this.#headStartMs()
    return this.#ways.some(({ isRunning, timer }) => isRunning || (timer !== undefined && timer.atMs <= soonMs))
  }

  /** What is wanted, again whenever it changes. */
  update(need: Need): void {
    this.#need = need
    if (this.#isStopped || this.#deps.context() === undefined) return
    const isWanted = need.isKept || need.isAsked || need.rank >= 0
    // Where the peer can be dialled is not known yet: word of it follows a new link, and only a call cannot wait for it.
    let isBetterRunning = this.addresses.length === 0 && !need.isAsked
    for (const way of this.#ways) {
      if (!isWanted || this.#rankOf(way) <= need.rank) {
        way.timer?.cancel()
        way.timer = undefined
        continue
      }
      if (!way.isRunning) this.#plan(way, isBetterRunning)
      // A way that failed before gives the next one no reason to wait for it.
      isBetterRunning ||= (way.isRunning || way.timer !== undefined) && way.failures === 0
    }
  }

  /** Forgets failures: something says that the peer can be reached again. */
  nudge(): void {
    for (const way of this.#ways) this.#clear(way)
    this.update(this.#need)
  }

  /** A link of this kind has come up, or ended after it had lasted: its way is as good as new. */
  onGood(kind: CarrierKind): void {
    const way = this.#ways.find(other => other.kind === kind)
    if (way !== undefined) this.#clear(way)
    if (kind === 'direct') this.#from = 0
  }

  /** A link of this kind ended early; `wasUp` false: it let us in and then did not speak. */
  onBad(kind: CarrierKind, wasUp: boolean): void {
    const way = this.#ways.find(other => other.kind === kind)
    if (way !== undefined) this.#fail(way)
    if (kind === 'direct' && !wasUp) this.#from += 1
  }

  /** A link that was up has ended. What was on its way with it may need a moment, and calls that wait are not failed for that. */
  onEnded(): void {
    this.#insistUntilMs = this.#deps.clock.nowMs() + INSIST_MS
  }

  /** A relay was lost, or is about to be: another way is taken for a while if there is one. */
  onRelayLost(relay: NodeId): void {
    this.#lost.set(relay, this.#deps.clock.nowMs() + this.#options.lostRelayMs)
    const relayed = this.#ways.find(({ kind }) => kind === 'relayed')
    if (relayed !== undefined) this.#clear(relayed)
  }

  /** The way through relays to take now, the peer last: round lost ones if it can be; through one that refused, never. */
  route(): readonly NodeId[] | undefined {
    const nowMs = this.#deps.clock.nowMs()
    for (const avoided of [this.#refused, this.#lost]) {
      for (const [relay, untilMs] of avoided) if (untilMs <= nowMs) avoided.delete(relay)
    }
    const { route } = this.#deps
    const safe = this.#lost.size === 0 ? undefined : route(new Set([...this.#refused.keys(), ...this.#lost.keys()]))
    return safe ?? route(new Set(this.#refused.keys()))
  }

  stop(): void {
    this.#isStopped = true
    for (const way of this.#ways) this.#clear(way)
    this.#current?.cancel()
  }

  #clear(way: Way): void {
    way.failures = 0
    way.notBeforeMs = NEVER_MS
    way.timer?.cancel()
    way.timer = undefined
  }

  /** What a link on this way would be worth; -1: it is not possible now. */
  #rankOf({ kind }: Way): number {
    if (kind === 'direct') return this.addresses.length > 0 ? CARRIER_RANK.direct : -1
    if (kind === 'overlay') return this.#deps.hasOverlay() ? CARRIER_RANK.overlay : -1
    const nodes = this.route()?.length ?? 0
    return nodes > 1 ? carrierRank(kind, nodes - 1) : -1
  }

  #headStartMs(): number {
    return this.#options.headStartMs + 4 * (this.#deps.rttMs() ?? 0)
  }

  #plan(way: Way, isBetterRunning: boolean): void {
    const { clock } = this.#deps
    const nowMs = clock.nowMs()
    let atMs = way.notBeforeMs
    if (isBetterRunning) {
      const startMs = this.#need.isAsked ? this.#headStartMs() : this.#options.quietHeadStartMs
      atMs = Math.max(atMs, nowMs + startMs)
    }
    // Without a reason to keep a link nobody tries on; the next call does, once the wait is over.
    const isPatient = this.#need.isKept || this.#need.rank >= 0 || (this.#need.isAsked && nowMs < this.#insistUntilMs)
    if (!isPatient && way.notBeforeMs > nowMs) return
    if (way.timer !== undefined) {
      if (way.timer.atMs <= atMs) return
      way.timer.cancel()
    }
    const cancel = clock.after(Math.max(0, atMs - nowMs), () => {
      way.timer = undefined
      void this.#try(way)
    })
    way.timer = { atMs, cancel }
  }

  async #try(way: Way): Promise<void> {
    const context = this.#deps.context()
    if (this.#isStopped || context === undefined) return
    way.isRunning = true
    const dialled = await (way.kind === 'direct'
      ? this.#dialDirect(context)
      : way.kind === 'relayed'
        ? this.#dialRelayed(context)
        : this.#dialOverlay(context)
    ).catch((error: unknown) => {
      this.#lastError = toMeshError(error)
      return undefined
    })
    way.isRunning = false
    if (dialled !== undefined) {
      if (this.#isStopped) dialled.socket.destroy()
      else this.#deps.onDialled(dialled)
      return
    }
    const { peer, log } = this.#deps
    const { code, message } = this.#lastError
    log.debug({ link: peer, carrier: way.kind, code, reason: message }, 'a dial failed')
    this.#fail(way)
    const nowMs = this.#deps.clock.nowMs()
    if (this.#need.isAsked && nowMs < this.#insistUntilMs) way.notBeforeMs = nowMs + INSIST_PERIOD_MS
    this.update(this.#need)
    if (!this.#isStopped && !this.isBusy) this.#deps.onExhausted(this.#lastError)
  }

  #fail(way: Way): void {
    const { backoffMinMs, backoffMaxMs, askedBackoffMaxMs, improveMinMs, improveMaxMs } = this.#options
    way.failures += 1
    const { rank } = this.#need
    const isImproving = rank >= 0 && this.#rankOf(way) > rank
    const minMs = isImproving ? improveMinMs : backoffMinMs
    const maxMs = isImproving ? improveMaxMs : this.#need.isKept ? backoffMaxMs : askedBackoffMaxMs
    // Half of the doubled wait is chance, so that nodes that lost the same peer do not come back in step.
    const fullMs = Math.min(maxMs, minMs * 2 ** Math.min(way.failures - 1, 30))
    way.notBeforeMs = this.#deps.clock.nowMs() + fullMs / 2 + (fullMs / 2) * this.#deps.random()
  }

  async #dialDirect(context: SecureContext): Promise<Dialled> {
    const { peer, identity } = this.#deps
    const { addresses } = this
    let last = new MeshError('unreachable', `no address of ${peer} is known`)
    for (let i = 0; i < addresses.length; i++) {
      const at = (this.#from + i) % addresses.length
      const address = addresses[at] ?? ''
      this.#current = dialPeer(context, identity.rootPem, peer, address, this.#options.dialTimeoutMs)
      try {
        const socket = await this.#current.socket
        this.#from = at
        return { socket, kind: 'direct', address, via: [], call: undefined }
      } catch (error) {
        last = toMeshError(error)
        if (last.code !== 'unreachable') this.#deps.onStranger(address, last.code, last.message)
      } finally {
        this.#current = undefined
      }
      // The peer's own dial came through meanwhile, or the addresses are out of date.
      if (this.#isStopped || this.addresses !== addresses || this.#need.rank >= CARRIER_RANK.direct) break
    }
    throw last
  }

  /** A relay that fails is avoided, and the next route tried at once while there is one. */
  async #dialRelayed(context: SecureContext): Promise<Dialled> {
    const { peer, identity, clock } = this.#deps
    const { dialTimeoutMs, refusedRelayMs, lostRelayMs } = this.#options
    let last = new MeshError('unreachable', `no relay leads to ${peer}`)
    for (let tries = 0; tries < ROUTES_TRIED_MAX; tries++) {
      const route = this.route()
      const [first] = route ?? []
      if (route === undefined || first === undefined || route.length < 2) break
      const via = route.slice(0, -1)
      let stream = this.#deps.openRelay(route)
      // Word of a node comes over gossip, often before the first link for calls to it is up.
      if (stream === undefined && (await this.#deps.linkRelay(first))) stream = this.#deps.openRelay(route)
      if (this.#isStopped) {
        stream?.destroy()
        break
      }
      if (stream === undefined) {
        last = new MeshError('unreachable', `there is no link to ${first}, the first relay on the way to ${peer}`)
        this.#lost.set(first, clock.nowMs() + lostRelayMs)
        continue
      }
      const at = via.join('>')
      try {
        const socket = await dialOver(context, identity.rootPem, peer, at, stream, dialTimeoutMs).socket
        return { socket, kind: 'relayed', address: '', via, call: stream.call }
      } catch (error) {
        stream.destroy()
        const { resetBy } = stream
        last = resetBy === undefined ? toMeshError(error) : new MeshError(resetBy.code, resetBy.reason)
        // The one that says no, or, if nobody says anything, the one this node depends on.
        const culprit = resetBy !== undefined && via.includes(resetBy.node) ? resetBy.node : first
        if (resetBy?.code === 'relay-refused') this.#refused.set(culprit, clock.nowMs() + refusedRelayMs)
        else this.#lost.set(culprit, clock.nowMs() + lostRelayMs)
        if (this.#isStopped) break
      }
    }
    throw last
  }

  async #dialOverlay(context: SecureContext): Promise<Dialled> {
    const { peer, identity } = this.#deps
    const { dialTimeoutMs } = this.#options
    const stream = await this.#deps.openOverlay(dialTimeoutMs)
    const { socket } = dialOver(context, identity.rootPem, peer, 'a stream of the overlay', stream, dialTimeoutMs)
    try {
      return { socket: await socket, kind: 'overlay', address: '', via: [], call: undefined }
    } catch (error) {
      stream.destroy()
      throw error
    }
  }
}

/** Two nodes that had two links at the start give one up after 2.5 s, and what relays carried over it takes another way: within this. */
const INSIST_MS = 1000
/** Between two tries then: shorter than the head start of any way, so that calls still wait. */
const INSIST_PERIOD_MS = 30

/** Routes tried before a way through relays counts as failed: each is a few round trips while a call waits. */
const ROUTES_TRIED_MAX = 3

function toMeshError(error: unknown): MeshError {
  if (error instanceof MeshError) return error
  return new MeshError('unreachable', messageOf(error), { cause: error })
}
