/** Keys remembered, at most: a mesh of 3,000 nodes with 20,000 different services, and room. A peer may invent more. */
const KEYS_MAX = 100_000

/** One string for all keys that are equal: the same service and the same node stand in the records of many. */
export class KeyPool {
  private readonly keys = new Map<string, string>()

  get size(): number {
    return this.keys.size
  }

  share(key: string): string {
    const known = this.keys.get(key)
    if (known !== undefined) return known
    if (this.keys.size >= KEYS_MAX) this.keys.clear()
    this.keys.set(key, key)
    return key
  }
}
