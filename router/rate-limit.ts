/** A token bucket: `burst` at once, `perSecond` for ever. Decides, does nothing; times are the caller's. */
export class RateLimit {
  private readonly perSecond: number
  private readonly burst: number
  private tokens: number
  /** Undefined: not asked yet; a clock may begin anywhere. */
  private atMs: number | undefined

  constructor(options: { readonly perSecond: number; readonly burst: number }, nowMs?: number) {
    this.perSecond = options.perSecond
    this.burst = options.burst
    this.tokens = options.burst
    this.atMs = nowMs
  }

  /** Takes `cost` tokens if they are there. */
  take(cost: number, nowMs: number): boolean {
    this.refill(nowMs)
    if (this.tokens < cost) return false
    this.tokens -= cost
    return true
  }

  /** Tokens that are there. */
  left(nowMs: number): number {
    this.refill(nowMs)
    return this.tokens
  }

  /** Milliseconds until a token is there. */
  waitMs(nowMs: number): number {
    this.refill(nowMs)
    return this.tokens >= 1 ? 0 : ((1 - this.tokens) / this.perSecond) * 1000
  }

  private refill(nowMs: number): void {
    this.tokens = Math.min(this.burst, this.tokens + ((nowMs - (this.atMs ?? nowMs)) / 1000) * this.perSecond)
    this.atMs = nowMs
  }
}
