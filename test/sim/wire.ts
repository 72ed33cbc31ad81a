/** How one direction between two nodes behaves. All of it may change while the simulation runs. */
export interface WireConditions {
  /** One way, milliseconds. */
  latencyMs: number
  /** Added to the latency, uniform in 0..this, milliseconds. */
  jitterMs: number
  /** Share of messages that vanish, 0..1. */
  loss: number
  /** Share of messages that arrive twice, 0..1. */
  duplicate: number
  /** Share of messages that may be overtaken by later ones, 0..1. 0: order is kept, as over one TCP stream. */
  reorder: number
  /** Messages queue for this, bytes per second; Infinity: no queue. */
  bytesPerSecond: number
  /** True: everything sent vanishes, and nobody is told (a black hole, or one direction of a one-way cut). */
  blocked: boolean
}

export const WIRE_DEFAULTS: WireConditions = {
  latencyMs: 10,
  jitterMs: 0,
  loss: 0,
  duplicate: 0,
  reorder: 0,
  bytesPerSecond: Number.POSITIVE_INFINITY,
  blocked: false,
}

/** What may wait for a slow wire; the rest is dropped, as in the overlay's gossip stream (QUEUE_BYTES_MAX there). */
const QUEUE_BYTES_MAX = 4 * 1024 * 1024
/** TCP's least time before it sends again (Linux: 200 ms; RFC 6298 would have 1 s). */
const RETRANSMIT_MIN_MS = 200
const RETRANSMITS_MAX = 15

/** One source of chance per purpose: more draws for one do not shift the others. */
export interface WireChance {
  loss(): number
  jitter(): number
  duplicate(): number
  reorder(): number
}

/** One direction between two nodes. Decides when a message arrives, if it does; carries nothing itself. */
export class Wire {
  readonly conditions: WireConditions
  private lastArrivalMs = 0
  private freeAtMs = 0

  constructor(conditions: WireConditions) {
    this.conditions = conditions
  }

  /**
   * When a message of `bytes` given to the wire at `nowMs` arrives: 0..2 instants.
   *
   * `retransmit`: what is lost is sent again after a time-out that doubles, and what follows waits for it, as over TCP.
   * Otherwise what is lost is gone.
   */
  arrivals(bytes: number, nowMs: number, chance: WireChance, retransmit: boolean): number[] {
    const { conditions } = this
    if (conditions.blocked) return []
    const sentMs = this.queue(bytes, nowMs)
    if (sentMs === undefined) return []
    let lateMs = 0
    if (conditions.loss > 0) {
      let timeoutMs = Math.max(RETRANSMIT_MIN_MS, 3 * conditions.latencyMs)
      for (let tries = 0; chance.loss() < conditions.loss; tries++) {
        if (!retransmit || tries >= RETRANSMITS_MAX) return []
        lateMs += timeoutMs
        timeoutMs *= 2
      }
    }
    const first = this.arrival(sentMs + lateMs, chance)
    const isTwice = conditions.duplicate > 0 && chance.duplicate() < conditions.duplicate
    return isTwice ? [first, this.arrival(sentMs + lateMs, chance)] : [first]
  }

  /** How long what is sent at `nowMs` waits for what was sent before it and is late, milliseconds. */
  behindMs(nowMs: number): number {
    return Math.max(0, this.lastArrivalMs - nowMs - this.conditions.latencyMs - this.conditions.jitterMs)
  }

  /** From now on nothing waits for what was sent before: it is of another connection. */
  startAnew(): void {
    this.lastArrivalMs = 0
  }

  /** Milliseconds a message of `bytes` takes to pass, beside the latency; its first bytes are heard long before its last. */
  passingMs(bytes: number): number {
    return (bytes / this.conditions.bytesPerSecond) * 1000
  }

  /** When the last byte has left, or undefined if the queue is full. */
  private queue(bytes: number, nowMs: number): number | undefined {
    const { bytesPerSecond } = this.conditions
    if (bytesPerSecond === Number.POSITIVE_INFINITY) return nowMs
    const startMs = Math.max(nowMs, this.freeAtMs)
    if (((startMs - nowMs) / 1000) * bytesPerSecond > QUEUE_BYTES_MAX) return undefined
    this.freeAtMs = startMs + (bytes / bytesPerSecond) * 1000
    return this.freeAtMs
  }

  private arrival(sentMs: number, chance: WireChance): number {
    const { latencyMs, jitterMs, reorder } = this.conditions
    const arrivalMs = sentMs + latencyMs + (jitterMs > 0 ? chance.jitter() * jitterMs : 0)
    if (reorder > 0 && chance.reorder() < reorder) return arrivalMs + chance.reorder() * latencyMs
    this.lastArrivalMs = Math.max(this.lastArrivalMs, arrivalMs)
    return this.lastArrivalMs
  }
}
