/** A power of two; what most connections ever have under way at once fits. */
const SLOTS_MIN = 16
/** Spreads ids that lie side by side, as ids that are counted up do (Fibonacci hashing). */
const SPREAD = 0x9e3779b1

/**
 * Calls or streams by their number, for many that come and go: as a `Map`, but changed where it stands.
 *
 * A `Map` that is added to and deleted from copies itself every few dozen times, and V8's collector, once it has taken one
 * of the old copies for long-lived, keeps all that follow it with all that was in them until it marks the whole heap:
 * more than a quarter of all that calls leave behind outlived its young collection, at 20 ms of pause for each (November 2026).
 *
 * Calls come and go in bursts, so it is not made smaller at once: one that grew and shrank with each burst would copy
 * itself all the time. As many deletions as it has slots must find it nearly empty, and none a quarter full between them.
 */
export class IdMap<V> {
  /** 0: free. */
  private ids: number[] = filled(SLOTS_MIN, 0)
  private values: (V | undefined)[] = filled(SLOTS_MIN, undefined)
  private bits = Math.log2(SLOTS_MIN)
  private count = 0
  /** Deletions that found it nearly empty since it was a quarter full. */
  private sparse = 0

  get size(): number {
    return this.count
  }

  get(id: number): V | undefined {
    return this.values[this.find(id)]
  }

  has(id: number): boolean {
    return this.ids[this.find(id)] === id
  }

  /** `id`: a whole number from 1 on. */
  set(id: number, value: V): void {
    let at = this.find(id)
    if (this.ids[at] !== id) {
      if (2 * (this.count + 1) > this.ids.length) {
        this.resize(this.bits + 1)
        at = this.find(id)
      }
      this.ids[at] = id
      this.count++
      if (4 * this.count >= this.ids.length) this.sparse = 0
    }
    this.values[at] = value
  }

  /** Answers whether it was there. */
  delete(id: number): boolean {
    const { ids, values } = this
    let hole = this.find(id)
    if (ids[hole] !== id) return false
    const mask = ids.length - 1
    // Those behind it that stand where they do because their place was taken move up.
    for (let at = (hole + 1) & mask; ids[at] !== 0; at = (at + 1) & mask) {
      const ownId = ids[at] as number
      if (((at - this.place(ownId)) & mask) < ((at - hole) & mask)) continue
      ids[hole] = ownId
      values[hole] = values[at]
      hole = at
    }
    ids[hole] = 0
    values[hole] = undefined
    this.count--
    if (ids.length > SLOTS_MIN && 16 * this.count < ids.length && ++this.sparse > ids.length) this.resize(this.bits - 2)
    return true
  }

  /** A copy, in no order. */
  all(): V[] {
    const all: V[] = []
    for (let at = 0; at < this.ids.length; at++) if (this.ids[at] !== 0) all.push(this.values[at] as V)
    return all
  }

  clear(): void {
    this.ids = filled(SLOTS_MIN, 0)
    this.values = filled(SLOTS_MIN, undefined)
    this.bits = Math.log2(SLOTS_MIN)
    this.count = 0
    this.sparse = 0
  }

  /** Where `id` stands, or the free slot where it would. */
  private find(id: number): number {
    const { ids } = this
    const mask = ids.length - 1
    let at = this.place(id)
    while (ids[at] !== id && ids[at] !== 0) at = (at + 1) & mask
    return at
  }

  private place(id: number): number {
    return Math.imul(id, SPREAD) >>> (32 - this.bits)
  }

  private resize(bits: number): void {
    const { ids, values } = this
    this.sparse = 0
    this.bits = Math.max(bits, Math.log2(SLOTS_MIN))
    this.ids = filled(2 ** this.bits, 0)
    this.values = filled(2 ** this.bits, undefined)
    for (let at = 0; at < ids.length; at++) {
      const id = ids[at] as number
      if (id === 0) continue
      const to = this.find(id)
      this.ids[to] = id
      this.values[to] = values[at]
    }
  }
}

function filled<T>(length: number, value: T): T[] {
  return Array.from({ length }, () => value)
}
