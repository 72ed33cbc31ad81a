import type { Version } from './frame.ts'
import { endHash, hashText, runHash } from './hash.ts'
import type { NodeId } from './model.ts'
import { growTo, NodeNumbers } from './node-numbers.ts'

/** Hashes kept, one for each share of the origins; a summary sends as many as the number of origins is worth. */
const FINE_BUCKETS = 1024
/** Origins that share a hash in a summary, about: 4 bytes of summary for each 4 origins, and little to say when one differs. */
const ORIGINS_PER_BUCKET = 4

/** Some of the buckets that origins fall into: `indexes` of `count`, a power of two. */
export interface Scope {
  readonly count: number
  readonly indexes: ReadonlySet<number>
}

/**
 * Hashes over (origin, incarnation, sequence) of all origins, kept up to date as they change, in buckets: two nodes
 * that know the same have equal hashes, and two that differ find out in which buckets without telling everything.
 */
export class DigestIndex {
  private readonly fine = new Uint32Array(FINE_BUCKETS)
  /** When each of them changed last. */
  private readonly changedAtMs = new Float64Array(FINE_BUCKETS).fill(Number.NEGATIVE_INFINITY)
  /** The hashes in the width in which they were last asked for; changed along with `fine`. */
  private last: Uint8Array | undefined
  private readonly numbers: NodeNumbers
  /** By the numbers of the origins: the hash of what is known of each, signed: such numbers take no room of their own. */
  private readonly known: (number | undefined)[] = []
  private count = 0

  constructor(numbers = new NodeNumbers()) {
    this.numbers = numbers
  }

  set(origin: NodeId, version: Version, nowMs: number): void {
    let number = this.numbers.findWhole(origin)
    if (number === undefined || this.known[number] === undefined) {
      number = this.numbers.take(origin)
      growTo(this.known, number, undefined)
      this.count++
    }
    const { hash: idHash, begun } = this.numbers.hashesOf(number)
    // The origin's part of the text is the same every time.
    const hash = endHash(runHash(`${version.incarnation} ${version.contiguous}`, begun)) | 0
    const bucket = idHash & (FINE_BUCKETS - 1)
    this.change(bucket, (this.known[number] ?? 0) ^ hash)
    this.changedAtMs[bucket] = nowMs
    this.known[number] = hash
  }

  delete(origin: NodeId): void {
    const number = this.numbers.findWhole(origin)
    const known = number === undefined ? undefined : this.known[number]
    if (number === undefined || known === undefined) return
    this.change(this.numbers.hashesOf(number).hash & (FINE_BUCKETS - 1), known)
    this.known[number] = undefined
    this.count--
    this.numbers.release(number)
  }

  /** Origins that fall into these buckets; undefined: all. */
  originsIn(scope: Scope | undefined): NodeId[] {
    const origins: NodeId[] = []
    for (let number = 0; number < this.known.length; number++) {
      if (this.known[number] === undefined) continue
      const isIn = scope === undefined || scope.indexes.has(this.numbers.hashesOf(number).hash & (scope.count - 1))
      if (isIn) origins.push(this.numbers.nameOf(number))
    }
    return origins
  }

  /** The buckets that these nodes fall into. */
  scopeOf(nodes: readonly NodeId[]): Scope {
    const count = bucketsFor(this.count)
    return { count, indexes: new Set(nodes.map(node => bucketOf(node, count))) }
  }

  /** The hashes as they are sent, until the next change: 4 bytes each, big endian, as many as the origins known here are worth. */
  summary(): Uint8Array {
    return this.folded(bucketsFor(this.count))
  }

  /** The buckets in which a neighbour's summary differs from what is known here; undefined: none. */
  compare(theirs: Uint8Array): Scope | undefined {
    const mine = this.folded(theirs.length / 4)
    const indexes = new Set<number>()
    for (let i = 0; i < mine.length; i++) if (mine[i] !== theirs[i]) indexes.add(i >> 2)
    return indexes.size === 0 ? undefined : { count: theirs.length / 4, indexes }
  }

  /** Those of the buckets in which nothing has changed after `sinceMs`; undefined: none. */
  unchanged({ count, indexes }: Scope, sinceMs: number): Scope | undefined {
    const left = new Set<number>()
    for (const index of indexes) {
      let bucket = index
      while (bucket < FINE_BUCKETS && (this.changedAtMs[bucket] as number) <= sinceMs) bucket += count
      if (bucket >= FINE_BUCKETS) left.add(index)
    }
    return left.size === 0 ? undefined : { count, indexes: left }
  }

  private change(bucket: number, by: number): void {
    this.fine[bucket] = (this.fine[bucket] as number) ^ by
    if (this.last === undefined) return
    const view = new DataView(this.last.buffer)
    const at = (bucket % (this.last.length / 4)) * 4
    view.setUint32(at, view.getUint32(at) ^ by)
  }

  /** Asked for again and again in the same width. It changes with the next change: copy it to keep it. */
  private folded(count: number): Uint8Array {
    if (this.last?.length !== count * 4) this.last = this.fold(count)
    return this.last
  }

  private fold(count: number): Uint8Array {
    const bytes = new Uint8Array(count * 4)
    const view = new DataView(bytes.buffer)
    for (let bucket = 0; bucket < count; bucket++) {
      let hash = 0
      for (let i = bucket; i < FINE_BUCKETS; i += count) hash ^= this.fine[i] as number
      view.setUint32(bucket * 4, hash)
    }
    return bytes
  }
}

export function isInScope(origin: NodeId, scope: Scope): boolean {
  return scope.indexes.has(bucketOf(origin, scope.count))
}

/** Whether a number of buckets is one that a summary may have. */
export function isBucketCount(count: number): boolean {
  return Number.isInteger(count) && count >= 1 && count <= FINE_BUCKETS && (count & (count - 1)) === 0
}

function bucketsFor(origins: number): number {
  let count = 1
  while (count * ORIGINS_PER_BUCKET < origins && count < FINE_BUCKETS) count *= 2
  return count
}

function bucketOf(origin: NodeId, count: number): number {
  return hashText(origin) & (count - 1)
}
