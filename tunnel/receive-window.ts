/**
 * The rate of reading is taken over a round trip, or over this where that is shorter. A process that did not run for a while
 * reads what has gathered in a burst, which says nothing of the line: on a busy machine it waits for 30 ms now and then.
 */
const MEASURE_MS_MIN = 50
/**
 * Round trips at the rate of reading that a window holds. Credit comes for half a window, so two are the least that never
 * hold a sender back; four, or a window that is used up whole would not grow.
 */
const ROUND_TRIPS = 4

/**
 * What a peer may send on a call, or on a link, before it hears more.
 *
 * Credit is given lazily, half a window at a time, and only for what was read. A reader that takes more in a round trip than
 * a quarter of the window gets a larger one: so it grows to what line and reader can do, and one that is slow or has stopped
 * keeps the window it has. What is larger than that only queues, in the kernels of both ends, before all other calls of the link.
 * Source: the bandwidth-delay product with the least round trip, as BBR has it; the lazy credit is that of QUIC's implementations.
 */
export class ReceiveWindow {
  sizeBytes: number
  /** Negative: the peer has sent more than it was given. */
  leftBytes: number
  #uncreditedBytes = 0
  /** Read since `#measuredFromMs`, as far as it was credited. */
  #measuredBytes = 0
  #measuredFromMs = Number.NEGATIVE_INFINITY

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
    const growBytes = this.#growth(nowMs, rttMs, growBytesMax)
    const bytes = this.#uncreditedBytes + growBytes
    this.#uncreditedBytes = 0
    this.sizeBytes += growBytes
    this.leftBytes += bytes
    return bytes
  }

  #growth(nowMs: number, rttMs: number | undefined, growBytesMax: number): number {
    this.#measuredBytes += this.#uncreditedBytes
    const spanMs = nowMs - this.#measuredFromMs
    if (spanMs < Math.max(MEASURE_MS_MIN, rttMs ?? 0)) return 0
    const perRoundTripBytes = ((rttMs ?? 0) * this.#measuredBytes) / spanMs
    this.#measuredBytes = 0
    this.#measuredFromMs = nowMs
    return Math.max(0, Math.min(Math.ceil(ROUND_TRIPS * perRoundTripBytes) - this.sizeBytes, growBytesMax))
  }
}
