import { BoundedMap } from './bounded-map.ts'

/** Keys remembered, at most: a mesh of 3,000 nodes with 20,000 different services, and room. A peer may invent more. */
const KEYS_MAX = 100_000

/** One string for all keys that are equal: the same service and the same node stand in the records of many. */
export class KeyPool {
  private readonly keys = new BoundedMap<string, string>(KEYS_MAX)

  get size(): number {
    return this.keys.size
  }

  share(key: string): string {
    const known = this.keys.get(key)
    if (known !== undefined) return known
    this.keys.set(key, key)
    return key
  }
}
