/** Between heartbeats. DESIGN: one a second, three missed and the link is down. */
export const HEARTBEAT_MS = 1000
/** Silence after which a link is down. */
export const SILENCE_MS = 3 * HEARTBEAT_MS
/** Weight of a new round trip in the smoothed one: 1/8, as TCP does (RFC 6298 §2). */
const RTT_WEIGHT = 1 / 8
/** Weight of one heartbeat in the loss ratio: 1/16, so that one lost in a row of good ones shows as 6 %. */
const LOSS_WEIGHT = 1 / 16

/**
 * Liveness, round trip and loss of one link, from what was sent and heard; decides, does nothing.
 *
 * Times are monotonic milliseconds, given by the caller. Everything heard is a sign of life, not only pongs. When this
 * process itself stood still, its silence is not held against the other end.
 */
export class Heartbeat {
  /** Smoothed round trip; undefined until the first pong. */
  rttMs: number | undefined
  lossRatio = 0
  private heardAtMs: number
  private tickedAtMs: number
  private readonly unanswered = new Map<number, number>()
  private nextPing = 1

  constructor(nowMs: number) {
    this.heardAtMs = nowMs
    this.tickedAtMs = nowMs
  }

  /** To be called each `HEARTBEAT_MS`: the ping to send, or that the link is dead. */
  tick(nowMs: number): { dead: false; ping: number } | { dead: true; silentMs: number } {
    const stoodStillMs = nowMs - this.tickedAtMs - HEARTBEAT_MS
    if (stoodStillMs > HEARTBEAT_MS) this.heardAtMs = Math.min(nowMs, this.heardAtMs + stoodStillMs)
    this.tickedAtMs = nowMs
    const silentMs = nowMs - this.heardAtMs
    if (silentMs >= SILENCE_MS) return { dead: true, silentMs }
    for (const [ping, sentAtMs] of this.unanswered) {
      if (nowMs - sentAtMs < SILENCE_MS) break
      this.unanswered.delete(ping)
      this.lossRatio += (1 - this.lossRatio) * LOSS_WEIGHT
    }
    const ping = this.nextPing++
    this.unanswered.set(ping, nowMs)
    return { dead: false, ping }
  }

  onHeard(nowMs: number): void {
    this.heardAtMs = nowMs
  }

  /** True if this pong answers a ping of ours and gave a new round trip. */
  onPong(ping: number, nowMs: number): boolean {
    const sentAtMs = this.unanswered.get(ping)
    if (sentAtMs === undefined) return false
    this.unanswered.delete(ping)
    const sampleMs = nowMs - sentAtMs
    this.rttMs = this.rttMs === undefined ? sampleMs : this.rttMs + (sampleMs - this.rttMs) * RTT_WEIGHT
    this.lossRatio -= this.lossRatio * LOSS_WEIGHT
    return true
  }
}
