import type { LinkPolicyOptions } from '../../router/link-policy.ts'
import type { LocalService, NodeId, ServiceName } from '../../router/model.ts'
import { Heartbeat } from '../../tunnel/heartbeat.ts'
import { Redial } from '../../tunnel/redial.ts'
import type { SimProtocol } from './sim-protocol.ts'

/** A node's own idea of time: a monotonic clock that runs fast or slow, and a calendar that is off. */
export interface SimClock {
  /** Local milliseconds for each true one; 1.0001 is 100 ppm fast. */
  rate: number
  offsetMs: number
  /** By how much the calendar is ahead; its readings make incarnations. */
  wallAheadMs: number
}

/** One end of a link. The two ends of a link find out on their own that it is over. */
export class LinkEnd {
  readonly node: SimNode
  readonly peer: SimNode
  /** This end dialled; it also closes the link when it has no more use for it. */
  readonly dialled: boolean
  readonly beat = new Heartbeat()
  other: LinkEnd | undefined
  isUp = true
  /** This end has said that it gives the link up. */
  isLeaving = false
  /** Looks in a row at a line that was dead; used in place of `beat` when heartbeats are modelled. */
  silentTicks = 0
  /** What the router was last told: the measured state of the link. */
  toldRttMs = 0
  toldLossRatio = 0
  /** Until when a new state is told again with each heartbeat, where heartbeats are modelled. */
  tellUntilMs = 0
  private recent = NO_SPREAD
  private earlier = NO_SPREAD
  private recentSinceMs = 0

  constructor(node: SimNode, peer: SimNode, dialled: boolean) {
    this.node = node
    this.peer = peer
    this.dialled = dialled
  }

  /** Keeps what the router is told now. */
  tell(rttMs: number, lossRatio: number, nowMs: number): void {
    this.toldRttMs = rttMs
    this.toldLossRatio = lossRatio
    if (nowMs - this.recentSinceMs >= SPREAD_MS) {
      this.earlier = this.recent
      this.recent = NO_SPREAD
      this.recentSinceMs = nowMs
    }
    const now = { rttLowMs: rttMs, rttHighMs: rttMs, lossLow: lossRatio, lossHigh: lossRatio }
    this.recent = widen(this.recent, now)
  }

  /** By how much the link's cost has wandered lately, milliseconds. */
  unrestMs(): number {
    const spread = widen(this.recent, this.earlier)
    if (spread.rttHighMs < spread.rttLowMs) return 0
    const { rttLowMs, rttHighMs, lossLow, lossHigh } = spread
    return rttHighMs * (1 + 2 * lossHigh) - rttLowMs * (1 + 2 * lossLow)
  }
}

/** Least and greatest of what was measured. */
interface Spread {
  readonly rttLowMs: number
  readonly rttHighMs: number
  readonly lossLow: number
  readonly lossHigh: number
}

const NO_SPREAD: Spread = {
  rttLowMs: Number.POSITIVE_INFINITY,
  rttHighMs: Number.NEGATIVE_INFINITY,
  lossLow: Number.POSITIVE_INFINITY,
  lossHigh: Number.NEGATIVE_INFINITY,
}

/** What was published may be as old as this, twice over: the spread is kept in two halves. */
const SPREAD_MS = 15_000

function widen(a: Spread, b: Spread): Spread {
  return {
    rttLowMs: Math.min(a.rttLowMs, b.rttLowMs),
    rttHighMs: Math.max(a.rttHighMs, b.rttHighMs),
    lossLow: Math.min(a.lossLow, b.lossLow),
    lossHigh: Math.max(a.lossHigh, b.lossHigh),
  }
}

/** What one node has sent, in messages and bytes; a message's frame counts with its five bytes of head. */
export interface Sent {
  frames: number
  gossipBytes: number
  heartbeatBytes: number
}

/** One simulated node: its state, nothing else. */
export class SimNode {
  readonly name: string
  readonly id: NodeId
  readonly region: string
  readonly index: number
  readonly clock: SimClock = { rate: 1, offsetMs: 0, wallAheadMs: 0 }
  readonly sent: Sent = { frames: 0, gossipBytes: 0, heartbeatBytes: 0 }
  /** Its local registry: what it offers, whether or not it has told anyone. */
  readonly services = new Map<ServiceName, LocalService>()
  /** Nodes whose address it has. */
  readonly known = new Set<NodeId>()
  /** Nodes it was configured to join through. */
  readonly seeds = new Set<NodeId>()
  wanted: ReadonlySet<NodeId> = new Set()
  /** How it chooses its links, where that is not as all others do. */
  links: Partial<LinkPolicyOptions> = {}
  readonly ends = new Map<NodeId, LinkEnd>()
  readonly redials = new Map<NodeId, Redial>()
  /** Dials under way or planned. */
  readonly dials = new Set<NodeId>()
  protocol: SimProtocol
  incarnation: number
  /** Counts the lives of this node: what was meant for an earlier one does not reach the next. */
  life = 0
  alive = true
  frozen = false
  /** Its machine answers, though the process may be gone: dials are refused at once instead of timing out. */
  hostUp = true
  state: 'up' | 'draining' = 'up'
  /** It passes calls on between others. */
  relays = true
  aliveSinceMs = 0
  /** When it wants to be woken, on its own clock; when something that looks for that is queued, in true time. */
  wakeAtMs = Number.POSITIVE_INFINITY
  wakeQueuedAtMs = Number.POSITIVE_INFINITY
  /** What came while it was frozen. */
  readonly stalled: (() => void)[] = []

  constructor(
    identity: { name: string; id: NodeId; region: string; index: number },
    protocol: SimProtocol,
    incarnation: number,
  ) {
    this.name = identity.name
    this.id = identity.id
    this.region = identity.region
    this.index = identity.index
    this.protocol = protocol
    this.incarnation = incarnation
  }

  redial(peer: NodeId): Redial {
    const known = this.redials.get(peer)
    if (known !== undefined) return known
    const created = new Redial()
    this.redials.set(peer, created)
    return created
  }

  localMs(trueMs: number): number {
    return trueMs * this.clock.rate + this.clock.offsetMs
  }

  trueMs(localMs: number): number {
    return (localMs - this.clock.offsetMs) / this.clock.rate
  }
}
