interface Planned {
  readonly atMs: number
  readonly sequence: number
  readonly run: () => void
}

/** Virtual time: things happen in the order of (time, sequence), and nobody waits. */
export class EventQueue {
  nowMs = 0
  private sequence = 0
  private readonly heap: Planned[] = []

  get size(): number {
    return this.heap.length
  }

  at(atMs: number, run: () => void): void {
    const planned = { atMs: Math.max(atMs, this.nowMs), sequence: this.sequence++, run }
    this.heap.push(planned)
    let i = this.heap.length - 1
    while (i > 0) {
      const parent = (i - 1) >> 1
      if (isBefore(this.heap[parent] as Planned, planned)) break
      this.heap[i] = this.heap[parent] as Planned
      i = parent
    }
    this.heap[i] = planned
  }

  /** Runs everything due until `untilMs`, which is then the time. */
  runUntil(untilMs: number): void {
    while (this.heap.length > 0 && (this.heap[0] as Planned).atMs <= untilMs) {
      const next = this.take()
      this.nowMs = next.atMs
      next.run()
    }
    this.nowMs = untilMs
  }

  private take(): Planned {
    const first = this.heap[0] as Planned
    const last = this.heap.pop() as Planned
    if (this.heap.length === 0) return first
    let i = 0
    for (;;) {
      let child = 2 * i + 1
      if (child >= this.heap.length) break
      const right = this.heap[child + 1]
      if (right !== undefined && isBefore(right, this.heap[child] as Planned)) child++
      if (isBefore(last, this.heap[child] as Planned)) break
      this.heap[i] = this.heap[child] as Planned
      i = child
    }
    this.heap[i] = last
    return first
  }
}

function isBefore(a: Planned, b: Planned): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.sequence < b.sequence)
}
