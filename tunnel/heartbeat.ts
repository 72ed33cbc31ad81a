/** Between looks at the line. A quarter of a heartbeat: death is found out at most that much later than it could be. */
export const TICK_MS = 250
/** Between heartbeats. */
export const HEARTBEAT_MS = 1000
/**
 * Silence after which a link is down. Both ends send and answer a heartbeat a second, so at 2.5 s four or five messages
 * are missing; with a look every 250 ms a silent death is known within 2.75 s, and the bar is 3 s.
 */
export const SILENCE_MS = 2500
/**
 * Round trips up to here fit into the silence with room for one loss; what is beyond it counts twice, or a satellite's
 * link of two seconds that loses a packet now and then would be dead half of the time. Half the earth and back is 300 ms.
 */
const USUAL_RTT_MS = 300
/** Weight of a new round trip in the smoothed one: 1/8, as TCP does (RFC 6298 §2). */
const RTT_WEIGHT = 1 / 8
/** Weight of one heartbeat in the loss ratio: 1/32, so that one lost in a row of good ones shows as 3 %, and chance alone hardly ever as a fifth. */
const LOSS_WEIGHT = 1 / 32
/**
 * The first heartbeats follow each other at every look, and the least of their round trips counts: the very first ones
 * measure two processes that are busy with a handshake, or have not warmed up.
 */
const QUICK_PINGS = 4

export interface HeartbeatOptions {
  /** Looks between two heartbeats. */
  readonly ticksPerPing: number
  /** Looks in a row without a byte heard, after which the link is dead. */
  readonly silentTicksMax: number
}

export const HEARTBEAT_DEFAULTS: HeartbeatOptions = {
  ticksPerPing: HEARTBEAT_MS / TICK_MS,
  silentTicksMax: SILENCE_MS / TICK_MS,
}

/**
 * Liveness, round trip and loss of one link, from what was sent and heard; decides, does nothing.
 *
 * Silence is counted in looks at the line, not in milliseconds: a process that stood still looked at nothing, so its own
 * standstill is not held against the other end. Times are monotonic milliseconds, given by the caller.
 */
export class Heartbeat {
  /** Smoothed round trip; undefined until the first pong. */
  rttMs: number | undefined
  /** The least that was seen: the line's own round trip, without what queued on the way. */
  rttMinMs: number | undefined
  /** Smoothed share of heartbeats without an answer, 0..1. */
  lossRatio = 0
  /** To be set by whatever byte arrives: bulk data is a sign of life as good as a pong. */
  heard = false
  private readonly options: HeartbeatOptions
  private silentTicks = 0
  private ticks = 0
  private samples = 0
  private nextPing = 1
  private readonly unanswered = new Map<number, number>()

  constructor(options: HeartbeatOptions = HEARTBEAT_DEFAULTS) {
    this.options = options
  }

  /** To be called every `TICK_MS`: the number of a ping to send now, `none`, or `dead`. */
  tick(nowMs: number): number | 'none' | 'dead' {
    this.silentTicks = this.heard ? 0 : this.silentTicks + 1
    this.heard = false
    if (this.silentTicks >= this.options.silentTicksMax + this.patienceTicks()) return 'dead'
    this.ticks++
    const isQuick = this.ticks <= QUICK_PINGS
    return isQuick || this.ticks % this.options.ticksPerPing === 0 ? this.ping(nowMs) : 'none'
  }

  /** True if this pong answers a ping of ours and gave a new round trip. */
  onPong(ping: number, nowMs: number): boolean {
    const sentAtMs = this.unanswered.get(ping)
    if (sentAtMs === undefined) return false
    this.unanswered.delete(ping)
    this.lossRatio -= this.lossRatio * LOSS_WEIGHT
    const sampleMs = nowMs - sentAtMs
    this.samples++
    this.rttMinMs = Math.min(this.rttMinMs ?? sampleMs, sampleMs)
    if (this.rttMs === undefined) this.rttMs = sampleMs
    else if (this.samples <= QUICK_PINGS) this.rttMs = Math.min(this.rttMs, sampleMs)
    else this.rttMs += (sampleMs - this.rttMs) * RTT_WEIGHT
    return true
  }

  /** Looks by which a long line is given more time. */
  private patienceTicks(): number {
    return Math.ceil((2 * Math.max(0, (this.rttMs ?? 0) - USUAL_RTT_MS)) / TICK_MS)
  }

  private ping(nowMs: number): number {
    const lateMs = (this.options.silentTicksMax + this.patienceTicks()) * TICK_MS
    for (const [ping, sentAtMs] of this.unanswered) {
      if (nowMs - sentAtMs < lateMs) break
      this.unanswered.delete(ping)
      this.lossRatio += (1 - this.lossRatio) * LOSS_WEIGHT
    }
    const ping = this.nextPing
    this.nextPing = (this.nextPing + 1) >>> 0
    this.unanswered.set(ping, nowMs)
    return ping
  }
}
