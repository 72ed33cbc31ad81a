/** Counts of values by size: how many were at most each of `bounds`, and how many were greater than all. */
export class Histogram {
  /** Upper ends of the buckets, inclusive, rising. */
  readonly bounds: readonly number[]
  /** Of each bucket alone, not of those below it; one more than `bounds`. */
  readonly counts: number[]
  sum = 0

  constructor(bounds: readonly number[]) {
    this.bounds = bounds
    this.counts = new Array(bounds.length + 1).fill(0)
  }

  observe(value: number): void {
    const { bounds, counts } = this
    let at = 0
    while (at < bounds.length && value > (bounds[at] ?? 0)) at++
    counts[at] = (counts[at] ?? 0) + 1
    this.sum += value
  }
}

/** From half a millisecond, a call on one machine, to a minute, the usual limit: thrice a decade. Guess. */
export const LATENCY_BOUNDS_SECONDS: readonly number[] = [
  0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60,
]
