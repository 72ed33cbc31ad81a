import type { ServiceName } from './model.ts'

export interface DampingOptions {
  /** Added each time a service comes back after it had gone. As BGP's route flap damping (RFC 2439) counts. */
  readonly penalty: number
  /** Above this the service is held back … */
  readonly suppress: number
  /** … until its penalty has decayed below this. */
  readonly reuse: number
  readonly halfLifeMs: number
  /** Never held back longer than this. */
  readonly maxMs: number
}

/**
 * Three returns within half a minute are a flap: a restart is one, a crash loop is many. A service that has calmed down
 * is back within a minute at worst; RFC 7196 found RFC 2439's longer times do more harm than good.
 */
export const DAMPING_DEFAULTS: DampingOptions = {
  penalty: 1000,
  suppress: 3000,
  reuse: 1500,
  halfLifeMs: 15_000,
  maxMs: 60_000,
}

/** Decayed penalties below this are forgotten. */
const FORGET_BELOW = 50

interface Penalty {
  value: number
  atMs: number
  suppressedSinceMs: number | undefined
}

/**
 * Holds back services that come and go: bad news is always told at once, good news of a flapping service waits.
 * Decides, does nothing; times are the router's.
 */
export class Damping {
  private readonly options: DampingOptions
  private readonly penalties = new Map<ServiceName, Penalty>()

  constructor(options: DampingOptions = DAMPING_DEFAULTS) {
    this.options = options
  }

  /** The service is there again after it had gone. */
  onReturn(service: ServiceName, nowMs: number): void {
    const penalty = this.penalties.get(service) ?? { value: 0, atMs: nowMs, suppressedSinceMs: undefined }
    this.decay(penalty, nowMs)
    penalty.value += this.options.penalty
    if (penalty.value > this.options.suppress) penalty.suppressedSinceMs ??= nowMs
    this.penalties.set(service, penalty)
  }

  /** When the service may be told of; undefined: now. */
  heldUntilMs(service: ServiceName, nowMs: number): number | undefined {
    const penalty = this.penalties.get(service)
    if (penalty === undefined) return undefined
    this.decay(penalty, nowMs)
    if (penalty.value < FORGET_BELOW) this.penalties.delete(service)
    if (penalty.suppressedSinceMs === undefined) return undefined
    const { reuse, halfLifeMs, maxMs } = this.options
    const decayMs = penalty.value <= reuse ? 0 : halfLifeMs * Math.log2(penalty.value / reuse)
    const untilMs = Math.min(nowMs + decayMs, penalty.suppressedSinceMs + maxMs)
    if (untilMs > nowMs) return untilMs
    penalty.suppressedSinceMs = undefined
    return undefined
  }

  private decay(penalty: Penalty, nowMs: number): void {
    penalty.value *= 0.5 ** ((nowMs - penalty.atMs) / this.options.halfLifeMs)
    penalty.atMs = nowMs
  }
}
