import type { Clock } from './carrier.ts'

/** Time that moves when told to. */
export class HandClock implements Clock {
  #nowMs = 0
  readonly #tasks = new Set<{ atMs: number; everyMs: number; run: () => void }>()
  nowMs(): number {
    return this.#nowMs
  }
  after(delayMs: number, run: () => void): () => void {
    return this.#add({ atMs: this.#nowMs + delayMs, everyMs: 0, run })
  }
  every(periodMs: number, run: () => void): () => void {
    return this.#add({ atMs: this.#nowMs + periodMs, everyMs: periodMs, run })
  }
  advance(ms: number): void {
    this.#nowMs += ms
    for (const task of [...this.#tasks]) {
      if (task.atMs > this.#nowMs || !this.#tasks.has(task)) continue
      if (task.everyMs === 0) this.#tasks.delete(task)
      else task.atMs = this.#nowMs + task.everyMs
      task.run()
    }
  }
  #add(task: { atMs: number; everyMs: number; run: () => void }): () => void {
    this.#tasks.add(task)
    return () => this.#tasks.delete(task)
  }
}
