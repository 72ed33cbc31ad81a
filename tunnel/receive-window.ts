/** A window that is used up half within so many round trips is what holds its sender back: a sender that is not waits for nobody. */
const FAST_ROUND_TRIPS = 2

/**
 * What a peer may send on a call, or on a link, before it hears more.
 *
 * Credit is given lazily, half a window at a time, and only for what was read. A reader that takes half of the window
 * within two round trips gets twice the window: so it grows to what line and reader can do, and one that is slow or has
 * stopped keeps the window it has.
 * Source: the rule of QUIC's implementations (Chromium's flow controller); gRPC's BDP estimator has the same fixed point.
 */
export class ReceiveWindow {
  sizeBytes: number
  /** Negative: the peer has sent more than it was given. */
  leftBytes: number
  #uncreditedBytes = 0
  #creditedAtMs = Number.NEGATIVE_INFINITY

  constructor(sizeBytes: number) {
    this.sizeBytes = sizeBytes
    this.leftBytes = sizeBytes
  }

  /** Half of it is waiting to be given back. */
  get isDue(): boolean {
    return this.#uncreditedBytes >= this.sizeBytes / 2
  }

  take(bytes: number): void {
    this.leftBytes -= bytes
    this.#uncreditedBytes += bytes
  }

  /** The owner has told the peer that it may send so much more at once. */
  widen(bytes: number): void {
    this.sizeBytes += bytes
    this.leftBytes += bytes
  }

  /**
   * What the peer is to be granted now. `growBytesMax`: by how much the window may grow. `rttMs`: the line's own, without
   * what queues on it, or queues would grow windows and windows queues.
   */
  credit(nowMs: number, rttMs: number | undefined, growBytesMax: number): number {
    const isFast = rttMs !== undefined && nowMs - this.#creditedAtMs < FAST_ROUND_TRIPS * rttMs
    const growBytes = isFast ? Math.max(0, Math.min(this.sizeBytes, growBytesMax)) : 0
    const bytes = this.#uncreditedBytes + growBytes
    this.#creditedAtMs = nowMs
    this.#uncreditedBytes = 0
    this.sizeBytes += growBytes
    this.leftBytes += bytes
    return bytes
  }
}
