/** A map that is emptied rather than grow past `max`: for what can be worked out again, under keys that a peer may invent. */
export class BoundedMap<K, V> extends Map<K, V> {
  private readonly max: number

  constructor(max: number) {
    super()
    this.max = max
  }

  override set(key: K, value: V): this {
    if (this.size >= this.max && !this.has(key)) this.clear()
    return super.set(key, value)
  }
}
