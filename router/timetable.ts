/** Things that are due at a time each, by key: at most one of a key. Decides when; does nothing. */
export class Timetable<K, V> {
  /** When the first of them is due; may be a little early when that one was deleted or put off. Infinite: nothing is planned. */
  atMs = Number.POSITIVE_INFINITY
  private readonly planned = new Map<K, { readonly atMs: number; readonly what: V }>()

  /** Plans `what` for `atMs`, instead of what was planned under the key. */
  plan(key: K, atMs: number, what: V): void {
    this.planned.set(key, { atMs, what })
    this.atMs = Math.min(this.atMs, atMs)
  }

  get(key: K): V | undefined {
    return this.planned.get(key)?.what
  }

  delete(key: K): void {
    if (this.planned.delete(key) && this.planned.size === 0) this.atMs = Number.POSITIVE_INFINITY
  }

  /** Takes what is due at `nowMs`, in the order in which its keys were planned first. */
  take(nowMs: number): [key: K, what: V][] {
    const due: [K, V][] = []
    this.atMs = Number.POSITIVE_INFINITY
    for (const [key, { atMs, what }] of this.planned) {
      if (nowMs < atMs) {
        this.atMs = Math.min(this.atMs, atMs)
        continue
      }
      this.planned.delete(key)
      due.push([key, what])
    }
    return due
  }
}
