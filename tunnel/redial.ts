/** First wait after a failed dial. */
const REDIAL_MIN_MS = 250
/** Longest wait. 5 s: a split heals within 10 s of the network's return, and a dead node costs its peers a packet or two a second. */
const REDIAL_MAX_MS = 5000
const REDIAL_FACTOR = 1.7

/**
 * When to dial a node again: for ever, with capped and jittered backoff. Decides, does nothing.
 * `random` is uniform in [0, 1).
 */
export class Redial {
  private delayMs = REDIAL_MIN_MS
  failures = 0

  onSuccess(): void {
    this.delayMs = REDIAL_MIN_MS
    this.failures = 0
  }

  /** Milliseconds until the next try: half to the whole of a delay that grows. */
  onFailure(random: number): number {
    this.failures++
    const delayMs = this.delayMs
    this.delayMs = Math.min(REDIAL_MAX_MS, this.delayMs * REDIAL_FACTOR)
    return delayMs * (0.5 + random / 2)
  }
}
