import { LinkPolicy, type LinkPolicyOptions, type RoundTrips } from '../../router/link-policy.ts'
import type { NodeId } from '../../router/model.ts'
import type { RouterEvent } from '../../router/router.ts'
import { HEARTBEAT_DEFAULTS, HEARTBEAT_MS, TICK_MS } from '../../tunnel/heartbeat.ts'
import type { EventQueue } from './event-queue.ts'
import { FrameSlabs } from './frame-slabs.ts'
import { randomFor } from './rng.ts'
import { LinkEnd, type SimNode } from './sim-node.ts'
import type { Transcript } from './transcript.ts'
import { Wire, type WireChance, type WireConditions } from './wire.ts'

/** How long a dial waits for an answer: the overlay's own limit. */
const DIAL_TIMEOUT_MS = 5000
/** Round trips until a link is up: TCP, noise, and the stream with the first answered heartbeat. */
const SETUP_ROUND_TRIPS = 3
/** TCP's wait before it sends an unanswered SYN, or one of a handshake's segments, again (RFC 6298 §2: 1 s). */
const HANDSHAKE_RETRY_MS = 1000
/** How long a modelled heartbeat repeats a new round trip: real ones never stop, and the router may hold a first one for noise. */
const TELL_MS = 60_000
/** Length, type byte: the head of each message on a gossip stream. */
const HEAD_BYTES = 5
const NO_FRAME = new Uint8Array(0)
const NOWHERE: RoundTrips = new Map<NodeId, number>()
/** A heartbeat: the head and its number. */
const HEARTBEAT_BYTES = HEAD_BYTES + 4

export interface OverlayOptions {
  /** `exact`: every heartbeat travels and may be lost. `modelled`: a link falls when the way to it is dead for as long as heartbeats would need to find out; loss does not tear it down. */
  readonly heartbeats: 'exact' | 'modelled'
  /** What is lost arrives a time-out later, as over TCP, instead of never. */
  readonly retransmit: boolean
  readonly links: Partial<LinkPolicyOptions>
}

export const OVERLAY_DEFAULTS: OverlayOptions = {
  heartbeats: 'exact',
  retransmit: false,
  links: {},
}

export interface OverlayDeps {
  readonly queue: EventQueue
  readonly seed: number
  readonly transcript: Transcript | undefined
  node(id: NodeId): SimNode | undefined
  /** How the wire from one node to another begins; undefined: there is none. */
  conditions(from: SimNode, to: SimNode): WireConditions | undefined
  step(node: SimNode, event: RouterEvent): void
  /** Goes on when a node has had its time to think. */
  think(then: () => void): void
}

/** The simulated overlay: wires, dials, links, heartbeats. Does what tunnel/libp2p-overlay.ts does, over wires that exist in memory alone. */
export class SimOverlay {
  private readonly deps: OverlayDeps
  private readonly options: OverlayOptions
  private readonly wires: (Wire | null)[][] = []
  private readonly policies = new Map<SimNode, LinkPolicy>()
  private readonly chance: WireChance
  private readonly slabs = new FrameSlabs()
  private readonly dialRandom: () => number
  private readonly phaseRandom: () => number
  private readonly handshakeRandom: () => number

  constructor(deps: OverlayDeps, options: OverlayOptions) {
    this.deps = deps
    this.options = options
    this.chance = {
      loss: randomFor(deps.seed, 'loss'),
      jitter: randomFor(deps.seed, 'jitter'),
      duplicate: randomFor(deps.seed, 'duplicate'),
      reorder: randomFor(deps.seed, 'reorder'),
    }
    this.dialRandom = randomFor(deps.seed, 'dial')
    this.phaseRandom = randomFor(deps.seed, 'phase')
    this.handshakeRandom = randomFor(deps.seed, 'handshake')
  }

  /** The wire of one direction; undefined: the two have none. */
  wire(from: SimNode, to: SimNode): Wire | undefined {
    let row = this.wires[from.index]
    if (row === undefined) {
      row = []
      this.wires[from.index] = row
    }
    let wire = row[to.index]
    if (wire === undefined) {
      const conditions = this.deps.conditions(from, to)
      wire = conditions === undefined ? null : new Wire({ ...conditions })
      row[to.index] = wire
    }
    return wire ?? undefined
  }

  /** Forgets how the wires between two nodes were, so that they are asked for again. */
  rewire(a: SimNode, b: SimNode): void {
    delete this.wires[a.index]?.[b.index]
    delete this.wires[b.index]?.[a.index]
  }

  /** Both directions pass something. */
  isOpen(a: SimNode, b: SimNode): boolean {
    const [there, back] = [this.wire(a, b), this.wire(b, a)]
    return there !== undefined && back !== undefined && !there.conditions.blocked && !back.conditions.blocked
  }

  // A node's life ------------------------------------------------------------------------------------------------

  /** The node begins to look after its links. */
  start(node: SimNode): void {
    const { life } = node
    this.policies.delete(node)
    const { periodMs } = this.policy(node).options
    const tick = (): void => {
      if (node.life !== life) return
      this.tick(node)
      this.deps.queue.after(TICK_MS, () => this.whenAwake(node, life, tick))
    }
    this.deps.queue.after(this.phaseRandom() * TICK_MS, () => this.whenAwake(node, life, tick))
    const choose = (): void => {
      if (node.life !== life) return
      this.choose(node, 'period', againMs => this.deps.queue.after(againMs, () => this.whenAwake(node, life, choose)))
    }
    this.deps.queue.after(periodMs * (0.5 + this.phaseRandom() / 2), () => this.whenAwake(node, life, choose))
    this.choose(node, 'start')
  }

  /** The node is gone. `isTold`: the system closes its connections; otherwise nobody hears anything. */
  stop(node: SimNode, isTold: boolean): void {
    for (const end of [...node.ends.values()]) {
      end.isUp = false
      if (isTold) this.sendClose(end)
    }
    node.ends.clear()
    node.dials.clear()
    node.redials.clear()
    node.stalled.length = 0
  }

  /** A node became known: choose again soon. */
  chooseSoon(node: SimNode): void {
    this.chooseAt(node, this.policy(node).onNews(node.known.size, this.deps.queue.nowMs))
  }

  /** A choice is to come soon: links may change without further cause. */
  isChoosePlanned(node: SimNode): boolean {
    return this.policy(node).isPlanned
  }

  private chooseAt(node: SimNode, atMs: number | undefined): void {
    if (atMs === undefined) return
    const { life } = node
    this.deps.queue.at(atMs, () => this.whenAwake(node, life, () => this.choose(node, 'planned')))
  }

  /** Of this life: a node that starts again knows nothing of how it chose before. */
  private policy(node: SimNode): LinkPolicy {
    const known = this.policies.get(node)
    if (known !== undefined) return known
    const random = randomFor(this.deps.seed, `links ${node.id} ${node.life}`)
    const created = new LinkPolicy({ self: node.id, random }, { ...this.options.links, ...node.links })
    this.policies.set(node, created)
    return created
  }

  send(node: SimNode, to: NodeId, bytes: Uint8Array): void {
    const end = node.ends.get(to)
    if (end === undefined) return
    node.sent.frames++
    node.sent.gossipBytes += bytes.length + HEAD_BYTES
    const deliver = (other: LinkEnd, frame: Uint8Array): void => {
      this.deps.transcript?.add(this.deps.queue.nowMs, 'frame', node.name, other.node.name, frame)
      this.deps.step(other.node, { type: 'frame', from: node.id, bytes: frame })
    }
    this.transmit(end, bytes.length + HEAD_BYTES, deliver, bytes)
  }

  /** Runs it now, or when the node thaws; not at all in another life. */
  whenAwake(node: SimNode, life: number, run: () => void): void {
    if (node.life !== life || !node.alive) return
    if (!node.frozen) run()
    else
      node.stalled.push(() => {
        if (node.life === life && node.alive) run()
      })
  }

  // Links --------------------------------------------------------------------------------------------------------

  /** `then` is told when to choose again, as `period`. */
  private choose(node: SimNode, occasion: 'start' | 'period' | 'planned', then?: (againMs: number) => void): void {
    const { life } = node
    const policy = this.policy(node)
    const isSparse = policy.isSparse(node.known.size)
    const finish = isSparse ? node.protocol.beginNearest(policy.lookedAt) : () => NOWHERE
    this.deps.think(() => {
      const nearest = finish()
      if (node.life !== life || !node.alive) return
      const againMs = this.chooseAmong(node, nearest, occasion)
      then?.(againMs)
    })
  }

  private chooseAmong(node: SimNode, nearest: RoundTrips, occasion: 'start' | 'period' | 'planned'): number {
    const { ends } = node
    const known = [...node.known].filter(id => {
      const peer = this.deps.node(id)
      // Nobody dials where the topology has no wire: an operator's firewall says as much.
      return peer !== undefined && this.wire(node, peer) !== undefined
    })
    const links = [...ends.values()].map(({ peer, dialled }) => ({ node: peer.id, dialled, isInUse: false }))
    const rttMs = { get: (id: NodeId) => ends.get(id)?.toldRttMs ?? nearest.get(id) }
    const seen = { known, count: node.known.size, links, nearest: () => rttMs }
    const { wanted, leave, periodMs, againAtMs } = this.policy(node).choose(seen, this.deps.queue.nowMs, occasion)
    node.wanted = wanted
    this.chooseAt(node, againAtMs)
    for (const id of [...wanted, ...node.seeds]) if (this.isWanted(node, id)) this.dial(node, id, 0)
    for (const id of leave) {
      const end = ends.get(id)
      if (end !== undefined) this.leave(end)
    }
    return periodMs
  }

  /** Others hear of it first, so that nothing is sent over a link that is gone. */
  private leave(end: LinkEnd): void {
    if (end.isLeaving) return
    end.isLeaving = true
    this.deps.step(end.node, { type: 'link-down', to: end.peer.id, isPlanned: true })
    this.deps.queue.after(this.policy(end.node).options.leaveMs, () =>
      this.whenAwake(end.node, end.node.life, () => this.close(end, 'unwanted', true)),
    )
  }

  private dial(node: SimNode, id: NodeId, delayMs: number): void {
    const peer = this.deps.node(id)
    if (peer === undefined || peer === node || node.ends.has(id) || node.dials.has(id)) return
    if (this.wire(node, peer) === undefined) return
    node.dials.add(id)
    const { life } = node
    this.deps.queue.after(delayMs, () => this.whenAwake(node, life, () => this.attempt(node, peer)))
  }

  private attempt(node: SimNode, peer: SimNode): void {
    const { queue } = this.deps
    const [life, peerLife] = [node.life, peer.life]
    if (node.ends.has(peer.id) || !this.isWanted(node, peer.id)) {
      node.dials.delete(peer.id)
      return
    }
    const fail = (atMs: number): void =>
      queue.at(atMs, () => this.whenAwake(node, life, () => this.onDialFailed(node, peer)))
    const timeoutMs = queue.nowMs + DIAL_TIMEOUT_MS
    const setupMs = this.setupMs(node, peer)
    if (!peer.alive && peer.hostUp && this.isOpen(node, peer)) return fail(queue.nowMs + setupMs / SETUP_ROUND_TRIPS)
    if (!peer.alive || peer.frozen || !this.isOpen(node, peer) || setupMs > DIAL_TIMEOUT_MS) return fail(timeoutMs)
    queue.after(setupMs, () => {
      if (node.life !== life || !node.alive) return
      const isAnswered = peer.alive && peer.life === peerLife && !peer.frozen && this.isOpen(node, peer)
      if (isAnswered && !node.frozen) this.establish(node, peer)
      else fail(timeoutMs)
    })
  }

  /** Seeds are dialled for ever; in a mesh too large to be full, only by nodes that have no other link: a thousand have the same seed. */
  private isWanted(node: SimNode, id: NodeId): boolean {
    if (node.wanted.has(id)) return true
    return node.seeds.has(id) && (node.ends.size === 0 || !this.policy(node).isSparse(node.known.size))
  }

  private setupMs(node: SimNode, peer: SimNode): number {
    let totalMs = 0
    for (const [from, to] of [[node, peer] as const, [peer, node] as const]) {
      const conditions = this.wire(from, to)?.conditions
      if (conditions === undefined) continue
      for (let i = 0; i < SETUP_ROUND_TRIPS; i++) {
        totalMs += conditions.latencyMs + this.handshakeRandom() * conditions.jitterMs
        while (this.handshakeRandom() < conditions.loss && totalMs < 2 * DIAL_TIMEOUT_MS) totalMs += HANDSHAKE_RETRY_MS
      }
    }
    return totalMs
  }

  private onDialFailed(node: SimNode, peer: SimNode): void {
    node.dials.delete(peer.id)
    const delayMs = node.redial(peer.id).onFailure(this.dialRandom())
    if (this.isWanted(node, peer.id)) this.dial(node, peer.id, delayMs)
  }

  private establish(node: SimNode, peer: SimNode): void {
    node.dials.delete(peer.id)
    const [mine, theirs] = [node.ends.get(peer.id), peer.ends.get(node.id)]
    // Both dialled at once: one connection is enough.
    if (mine !== undefined && mine.other === theirs) return
    if (mine !== undefined) this.close(mine, 'replaced', false)
    if (theirs !== undefined) this.close(theirs, 'replaced', false)
    this.deps.transcript?.add(this.deps.queue.nowMs, 'link', node.name, peer.name)
    const [near, far] = [new LinkEnd(node, peer, true), new LinkEnd(peer, node, false)]
    near.other = far
    far.other = near
    for (const end of [near, far]) {
      end.node.redial(end.peer.id).onSuccess()
      this.policy(end.node).onLinkUp(end.peer.id)
      end.tell(this.sampleRttMs(end), 0, this.deps.queue.nowMs)
      // The first answered heartbeat is what brings a link up.
      end.beat.rttMs = end.toldRttMs
      end.beat.heard = true
      end.node.ends.set(end.peer.id, end)
    }
    for (const end of [near, far]) {
      this.deps.step(end.node, { type: 'link-up', to: end.peer.id, rttMs: end.toldRttMs })
    }
  }

  private sampleRttMs(end: LinkEnd): number {
    const [there, back] = [this.wire(end.node, end.peer), this.wire(end.peer, end.node)]
    if (there === undefined || back === undefined) return 0
    if (this.options.heartbeats === 'modelled') return meanMs(there) + meanMs(back)
    const jitterMs =
      this.handshakeRandom() * there.conditions.jitterMs + this.handshakeRandom() * back.conditions.jitterMs
    return there.conditions.latencyMs + back.conditions.latencyMs + jitterMs
  }

  /** This end is done with the link. `isTold`: the other end gets to know, if the way is open. */
  close(end: LinkEnd, reason: string, isTold: boolean): void {
    if (!end.isUp) return
    const { node, peer } = end
    end.isUp = false
    if (node.ends.get(peer.id) === end) node.ends.delete(peer.id)
    this.deps.transcript?.add(this.deps.queue.nowMs, reason, node.name, peer.name)
    if (isTold) this.sendClose(end)
    if (!node.alive) return
    if (!end.isLeaving) this.deps.step(node, { type: 'link-down', to: peer.id })
    // The first retry comes soon, but not from all sides in the same millisecond.
    if (reason !== 'replaced' && this.isWanted(node, peer.id)) {
      this.dial(node, peer.id, node.redial(peer.id).onFailure(this.dialRandom()))
    }
  }

  /** TCP sends the end of a connection again until it is through; loss only delays it. */
  private sendClose(end: LinkEnd): void {
    const wire = this.wire(end.node, end.peer)
    if (wire === undefined || wire.conditions.blocked) return
    this.deps.queue.after(wire.conditions.latencyMs, () => {
      const { other } = end
      if (other === undefined || !other.isUp || wire.conditions.blocked) return
      this.whenAwake(other.node, other.node.life, () => this.close(other, 'closed', false))
    })
  }

  private transmit(
    end: LinkEnd,
    bytes: number,
    deliver: (other: LinkEnd, frame: Uint8Array) => void,
    frame: Uint8Array = NO_FRAME,
  ): void {
    const wire = this.wire(end.node, end.peer)
    if (wire === undefined) return
    const arrivals = wire.arrivals(bytes, this.deps.queue.nowMs, this.chance, this.options.retransmit)
    if (arrivals.length === 0) return
    const held = this.slabs.hold(frame, arrivals.length)
    for (const atMs of arrivals) {
      // A long message on a slow wire is heard while it comes in, or it would pass for silence.
      for (let heardMs = atMs - wire.passingMs(bytes); heardMs < atMs; heardMs += TICK_MS) {
        this.deps.queue.at(heardMs, () => {
          if (!wire.conditions.blocked && end.other?.isUp) end.other.beat.heard = true
        })
      }
      this.deps.queue.at(atMs, () => {
        this.arrive(end, wire, held.bytes, deliver)
        held.release()
      })
    }
  }

  private arrive(
    end: LinkEnd,
    wire: Wire,
    bytes: Uint8Array,
    deliver: (other: LinkEnd, frame: Uint8Array) => void,
  ): void {
    const { other } = end
    if (wire.conditions.blocked || other === undefined) return
    if (!other.isUp) return this.onStray(end)
    // What a frozen node will read must outlast this moment.
    const frame = other.node.frozen ? new Uint8Array(bytes) : bytes
    this.whenAwake(other.node, other.node.life, () => {
      if (!other.isUp) return
      other.beat.heard = true
      deliver(other, frame)
    })
  }

  /** A message for a connection that the other system does not know: it says so (RST), if there is a system. */
  private onStray(end: LinkEnd): void {
    if (!end.peer.hostUp || !end.isUp) return
    const back = this.wire(end.peer, end.node)
    if (back === undefined || back.conditions.blocked) return
    this.deps.queue.after(back.conditions.latencyMs, () => {
      if (!back.conditions.blocked) this.whenAwake(end.node, end.node.life, () => this.close(end, 'reset', false))
    })
  }

  // Heartbeats ---------------------------------------------------------------------------------------------------

  /** One look at every link of a node. */
  private tick(node: SimNode): void {
    const isExact = this.options.heartbeats === 'exact'
    for (const end of [...node.ends.values()]) {
      if (!end.isUp) continue
      if (isExact) this.tickExact(end)
      else this.tickModelled(end)
    }
  }

  private tickExact(end: LinkEnd): void {
    const { node } = end
    const verdict = end.beat.tick(node.localMs(this.deps.queue.nowMs))
    if (verdict === 'dead') this.close(end, 'silent', true)
    else if (verdict !== 'none') {
      node.sent.heartbeatBytes += HEARTBEAT_BYTES
      this.transmit(end, HEARTBEAT_BYTES, other => {
        other.node.sent.heartbeatBytes += HEARTBEAT_BYTES
        this.transmit(other, HEARTBEAT_BYTES, back => this.onPong(back, verdict))
      })
    }
  }

  private onPong(end: LinkEnd, ping: number): void {
    const { node, peer, beat } = end
    if (!beat.onPong(ping, node.localMs(this.deps.queue.nowMs)) || beat.rttMs === undefined) return
    end.tell(beat.rttMs, beat.lossRatio, this.deps.queue.nowMs)
    this.deps.step(node, { type: 'rtt', to: peer.id, rttMs: beat.rttMs, lossRatio: beat.lossRatio })
  }

  private tickModelled(end: LinkEnd): void {
    const { node, peer, other } = end
    const [there, back] = [this.wire(node, peer), this.wire(peer, node)]
    const isDead = back === undefined || back.conditions.blocked || !peer.alive || peer.frozen || !other?.isUp
    end.silentTicks = isDead ? end.silentTicks + 1 : 0
    if (end.silentTicks >= HEARTBEAT_DEFAULTS.silentTicksMax) return this.close(end, 'silent', true)
    node.sent.heartbeatBytes += (2 * HEARTBEAT_BYTES * TICK_MS) / HEARTBEAT_MS
    if (isDead || there === undefined) return
    const rttMs = meanMs(there) + meanMs(back)
    const lossRatio = 1 - (1 - there.conditions.loss) * (1 - back.conditions.loss)
    const { nowMs } = this.deps.queue
    if (rttMs !== end.toldRttMs || lossRatio !== end.toldLossRatio) end.tellUntilMs = nowMs + TELL_MS
    if (nowMs >= end.tellUntilMs) return
    end.tell(rttMs, lossRatio, nowMs)
    this.deps.step(node, { type: 'rtt', to: peer.id, rttMs, lossRatio })
  }
}

function meanMs(wire: Wire): number {
  return wire.conditions.latencyMs + wire.conditions.jitterMs / 2
}
