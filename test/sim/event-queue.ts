interface Planned {
  readonly atMs: number
  readonly sequence: number
  readonly run: () => void
}

/** Virtual time: things happen in the order of (time, sequence), and nobody waits. A heap with four children a node. */
export class EventQueue {
  nowMs = 0
  /** Things done so far. */
  done = 0
  private sequence = 0
  private readonly heap: Planned[] = []

  get size(): number {
    return this.heap.length
  }

  /** `run` happens at `atMs`, or now if that is over. */
  at(atMs: number, run: () => void): void {
    const planned = { atMs: Math.max(atMs, this.nowMs), sequence: this.sequence++, run }
    const { heap } = this
    let i = heap.length
    heap.push(planned)
    while (i > 0) {
      const parent = (i - 1) >> 2
      const above = heap[parent] as Planned
      // A later sequence never goes before an equal time, so the time alone decides here.
      if (above.atMs <= planned.atMs) break
      heap[i] = above
      i = parent
    }
    heap[i] = planned
  }

  after(ms: number, run: () => void): void {
    this.at(this.nowMs + ms, run)
  }

  /** Runs everything due until `untilMs`, which is then the time. */
  runUntil(untilMs: number): void {
    const { heap } = this
    while (heap.length > 0 && (heap[0] as Planned).atMs <= untilMs) {
      const next = this.take()
      this.nowMs = next.atMs
      this.done++
      next.run()
    }
    this.nowMs = untilMs
  }

  private take(): Planned {
    const { heap } = this
    const first = heap[0] as Planned
    const last = heap.pop() as Planned
    const { length } = heap
    if (length === 0) return first
    let i = 0
    for (;;) {
      let least = 4 * i + 1
      if (least >= length) break
      const end = Math.min(least + 4, length)
      for (let child = least + 1; child < end; child++) {
        if (isBefore(heap[child] as Planned, heap[least] as Planned)) least = child
      }
      if (isBefore(last, heap[least] as Planned)) break
      heap[i] = heap[least] as Planned
      i = least
    }
    heap[i] = last
    return first
  }
}

function isBefore(a: Planned, b: Planned): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.sequence < b.sequence)
}
