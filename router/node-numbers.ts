import { interned, nodeTail, TAIL_LENGTH } from './entry.ts'
import { hashText, runHash } from './hash.ts'
import type { NodeId } from './model.ts'

/** What digests are made of, as far as it depends on the id alone. */
export interface IdHashes {
  readonly hash: number
  /** The beginning of the hash of (id, incarnation, sequence). */
  readonly begun: number
}

/** Begins that hash; another than that of buckets, or they would go together. */
const VERSION_SEED = 0x01000193

/**
 * A small whole number for each node that somebody keeps something of, so that what is kept stands in arrays.
 *
 * A node is found by its id and by the tail of it, which is all that links tell (`nodeTail`). A number counts its users and
 * is given to another node after the last has released it. Each daemon has one of these; a simulator has one for a
 * thousand routers, whose own maps of ids would be looked up in memory that no cache holds.
 */
export class NodeNumbers {
  private readonly numbers = new Map<string, number>()
  /** Whole ids where they were told, else tails. */
  private readonly names: string[] = []
  /** By number, of whole ids, once somebody has asked. */
  private readonly hashes: (IdHashes | undefined)[] = []
  private readonly users: number[] = []
  private readonly free: number[] = []

  /** By an id or its tail. */
  find(name: string): number | undefined {
    return this.numbers.get(name) ?? this.numbers.get(nodeTail(name))
  }

  /** By the whole id alone: the same tail, or a longer id, is not enough. */
  findWhole(node: NodeId): number | undefined {
    const number = this.numbers.get(node)
    return number !== undefined && this.names[number] === node ? number : undefined
  }

  /** The whole id of the node, or its tail if nobody has told more. */
  nameOf(number: number): string {
    return this.names[number] as string
  }

  hashesOf(number: number): IdHashes {
    const known = this.hashes[number]
    if (known !== undefined) return known
    const name = this.nameOf(number)
    const hashes = { hash: hashText(name), begun: runHash(`${name} `, VERSION_SEED) }
    this.hashes[number] = hashes
    return hashes
  }

  /** The number of a node, for one more user. */
  take(name: string): number {
    const number = this.find(name) ?? this.add(interned(nodeTail(name)))
    const known = this.names[number] as string
    if (known === name || name.length <= TAIL_LENGTH) return this.use(number)
    // Nobody makes two ids of one tail; were there two, they would be two nodes.
    if (known.length > TAIL_LENGTH) return this.use(this.numbers.get(name) ?? this.add(name))
    this.names[number] = name
    this.hashes[number] = undefined
    this.numbers.set(name, number)
    return this.use(number)
  }

  /** One user less. */
  release(number: number): void {
    const left = (this.users[number] as number) - 1
    this.users[number] = left
    if (left > 0) return
    const name = this.names[number] as string
    const tail = nodeTail(name)
    this.numbers.delete(name)
    if (this.numbers.get(tail) === number) this.numbers.delete(tail)
    this.names[number] = ''
    this.free.push(number)
  }

  private add(name: string): number {
    const number = this.free.pop() ?? this.names.length
    this.names[number] = name
    this.hashes[number] = undefined
    this.users[number] = 0
    this.numbers.set(name, number)
    return number
  }

  private use(number: number): number {
    this.users[number] = (this.users[number] as number) + 1
    return number
  }
}

/** Something kept of each of some nodes, by their whole ids; it is gone through in the order of their numbers. */
export class NodeMap<V> {
  private readonly numbers: NodeNumbers
  private readonly values: (V | undefined)[] = []
  private count = 0

  constructor(numbers: NodeNumbers) {
    this.numbers = numbers
  }

  get size(): number {
    return this.count
  }

  get(node: NodeId): V | undefined {
    const number = this.numbers.findWhole(node)
    return number === undefined ? undefined : this.values[number]
  }

  set(node: NodeId, value: V): void {
    let number = this.numbers.findWhole(node)
    if (number === undefined || this.values[number] === undefined) {
      number = this.numbers.take(node)
      this.count++
      growTo(this.values, number, undefined)
    }
    this.values[number] = value
  }

  delete(node: NodeId): void {
    const number = this.numbers.findWhole(node)
    if (number === undefined || this.values[number] === undefined) return
    this.values[number] = undefined
    this.count--
    this.numbers.release(number)
  }

  *keys(): IterableIterator<NodeId> {
    for (const [node] of this.entries()) yield node
  }

  *entries(): IterableIterator<[NodeId, V]> {
    for (const [number, value] of this.values.entries()) {
      if (value !== undefined) yield [this.numbers.nameOf(number), value]
    }
  }
}

/** Makes room for what stands at `number`, without a gap: arrays with large gaps are slow ones. */
export function growTo<T>(array: T[], number: number, empty: T): void {
  while (array.length <= number) array.push(empty)
}
