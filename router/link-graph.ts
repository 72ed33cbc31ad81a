import { nodeTail, TAIL_LENGTH } from './entry.ts'
import type { LinkInfo, NodeId } from './model.ts'
import { growTo, NodeNumbers } from './node-numbers.ts'
import { costMsOf, linkCostMs, type Path } from './paths.ts'

/**
 * Of one link, in the row of numbers that stands where its other end stands among the ends: the statement, …
 */
const RTT_MS = 0
const LOSS_RATIO = 1
/** … and what the link counts for in a path: the dearer of both ends' statements; infinite while one end alone states it. */
const COST_MS = 2
const COUNTED_RTT_MS = 3
const ROW = 4

/**
 * What one node states of its links: numbers in two arrays, for a mesh has very many links, and which of a node's links
 * leads to another is what is asked most.
 */
interface Edges {
  /** The other ends, by number. */
  readonly ends: number[]
  /** As many rows. */
  readonly rows: number[]
}

/**
 * What every node says of its live links, and the cheapest paths over them.
 *
 * Nodes go by number, so that a search over 1,000 nodes with 24 links each takes under a millisecond. A number is given
 * up when nobody states a link from or to its node. A node is known by the tail of its id until it says something itself;
 * no path passes one that has not, but for a neighbour of `self`, which gives the whole id.
 */
export class LinkGraph {
  private readonly numbers: NodeNumbers
  /** Of the nodes that someone states a link from or to: the id as far as it is known here. */
  private readonly ids: (NodeId | undefined)[] = []
  private readonly edges: (Edges | undefined)[] = []
  /** Links stated towards each node. */
  private readonly statedTo: number[] = []
  /** Links of each node that both ends state. */
  private readonly counted: number[] = []
  private count = 0
  /** Who spoke last, and its number: a batch tells of many links of one node. */
  private lastFrom: NodeId | undefined
  private lastNumber = 0
  /** Nodes that pass nothing on: paths end there. */
  private readonly deadEnds = new Set<NodeId>()

  constructor(numbers = new NodeNumbers()) {
    this.numbers = numbers
  }

  /** Nodes that someone states a link from or to. */
  get size(): number {
    return this.count
  }

  /** Takes what `from` says of its link to `to`; undefined: that there is none. Answers whether that is another than before. */
  set(from: NodeId, to: NodeId, link: LinkInfo | undefined): boolean {
    if (link === undefined) return this.remove(from, to)
    if (from !== this.lastFrom) {
      this.lastNumber = this.number(from)
      this.lastFrom = from
    }
    const fromNumber = this.lastNumber
    const toNumber = this.number(to)
    const { ends, rows } = this.edgesOf(fromNumber)
    const { rttMs, lossRatio } = link
    let at = ends.indexOf(toNumber)
    if (at < 0) {
      at = ends.length
      ends.push(toNumber)
      rows.push(rttMs, lossRatio, Number.POSITIVE_INFINITY, 0)
      this.statedTo[toNumber] = (this.statedTo[toNumber] as number) + 1
    } else {
      const row = at * ROW
      if (rows[row + RTT_MS] === rttMs && rows[row + LOSS_RATIO] === lossRatio) return false
      rows[row + RTT_MS] = rttMs
      rows[row + LOSS_RATIO] = lossRatio
    }
    this.weigh(fromNumber, at, toNumber)
    return true
  }

  /** What `from` says of its link to `to`. */
  get(from: NodeId, to: NodeId): LinkInfo | undefined {
    const [fromNumber, toNumber] = [this.find(from), this.find(to)]
    if (fromNumber === undefined || toNumber === undefined) return undefined
    const { ends, rows } = this.edgesOf(fromNumber)
    const at = ends.indexOf(toNumber)
    return at < 0 ? undefined : linkAt(rows, at * ROW)
  }

  /** The links that `node` states. */
  statedBy(node: NodeId): (readonly [NodeId, LinkInfo])[] {
    const number = this.find(node)
    if (number === undefined) return []
    const { ends, rows } = this.edgesOf(number)
    return ends.map((end, at) => [this.ids[end] as NodeId, linkAt(rows, at * ROW)] as const)
  }

  /** How many links `node` states. */
  countOf(node: NodeId): number {
    const number = this.find(node)
    return number === undefined ? 0 : this.edgesOf(number).ends.length
  }

  /** The whole id of a node that is known by its tail; undefined: nobody states a link from or to it. */
  idOf(tail: string): NodeId | undefined {
    const number = this.find(tail)
    return number === undefined ? undefined : this.ids[number]
  }

  /** How many of them the other end states as well. */
  countedOf(node: NodeId): number {
    const number = this.find(node)
    return number === undefined ? 0 : (this.counted[number] as number)
  }

  /** Nodes that state a link to `node` as it states one to them. */
  linkedTo(node: NodeId): NodeId[] {
    const number = this.find(node)
    if (number === undefined) return []
    const { ends, rows } = this.edgesOf(number)
    const isCounted = (_: number, at: number): boolean => rows[at * ROW + COST_MS] !== Number.POSITIVE_INFINITY
    return ends.filter(isCounted).map(end => this.ids[end] as NodeId)
  }

  /** Takes what `node` says of itself: whether it passes calls on. Answers whether that is another than before. */
  setRelays(node: NodeId, relays: boolean): boolean {
    if (relays) return this.deadEnds.delete(node)
    if (this.deadEnds.has(node)) return false
    this.deadEnds.add(node)
    return true
  }

  /** Drops all that `node` states. */
  forget(node: NodeId): void {
    this.deadEnds.delete(node)
    const number = this.find(node)
    if (number === undefined) return
    for (const end of [...this.edgesOf(number).ends]) this.remove(node, this.ids[end] as NodeId)
  }

  /**
   * The cheapest path from `self` to every node that one leads to, over at most `hopsMax` links.
   *
   * A link counts while both its ends state it, at the dearer of the two statements. `self`'s own links count on its own
   * word: it has just heard an answer over them. Paths may begin at a node that passes nothing on, or end there. Ties go to fewer hops, then to the smaller node ids, so that equal
   * records give equal choices. Bellman-Ford by rounds, because the number of hops is bounded: round h knows the best
   * walks of just h links, and a walk that meets itself is never better than the same without its loop.
   */
  shortestPaths(self: NodeId, hopsMax: number): ShortestPaths {
    const start = this.find(self)
    const size = this.ids.length
    const bestMs = new Float64Array(size).fill(Number.POSITIVE_INFINITY)
    const bestHops = new Uint8Array(size)
    const rounds: Round[] = []
    const found = { self, ids: [...this.ids], numbers: this.numbers, bestMs, bestHops, rounds }
    const paths = new ShortestPaths(found)
    if (start === undefined) return paths
    bestMs[start] = 0
    const isDeadEnd = this.deadEndsAmong(size)
    let frontier = [start]
    let costMs: Float64Array = new Float64Array(size)
    let rttMs: Float64Array = new Float64Array(size)
    for (let hops = 1; hops <= hopsMax && frontier.length > 0; hops++) {
      const round: Round = {
        costMs: new Float64Array(size),
        rttMs: new Float64Array(size),
        previous: new Int32Array(size),
      }
      rounds.push(round)
      const next: number[] = []
      for (const from of frontier) {
        const own = this.edges[from]
        if (own === undefined || (isDeadEnd[from] === 1 && from !== start)) continue
        const { ends, rows } = own
        for (let i = 0; i < ends.length; i++) {
          const to = ends[i] as number
          if (to === start) continue
          const row = i * ROW
          const isOwn = from === start
          const linkMs = costAt(rows, row, isOwn)
          const totalMs = (costMs[from] as number) + linkMs
          const knownMs = bestMs[to] as number
          // Written so that an infinite cost is never taken.
          if (!(totalMs < knownMs)) {
            const isTie = totalMs === knownMs && bestHops[to] === hops && linkMs < Number.POSITIVE_INFINITY
            if (!isTie || !paths.isBefore(from, round.previous[to] as number, hops - 1)) continue
          }
          if (bestHops[to] !== hops) next.push(to)
          bestMs[to] = totalMs
          bestHops[to] = hops
          round.costMs[to] = totalMs
          round.rttMs[to] = (rttMs[from] as number) + rttAt(rows, row, isOwn)
          round.previous[to] = from
        }
      }
      frontier = next
      costMs = round.costMs
      rttMs = round.rttMs
    }
    return paths
  }

  /**
   * Round trips to the `count` nodes that are cheapest to reach, over however many links: a look around, which in a large mesh
   * is a small part of the search for all paths. A node that is known by its tail goes by that.
   */
  nearest(self: NodeId, count: number): Map<NodeId, number> {
    const found = new Map<NodeId, number>()
    const start = this.find(self)
    if (start === undefined) return found
    const done = new Set<number>()
    const open = new Map<number, Way>([[start, { costMs: 0, rttMs: 0 }]])
    while (found.size < count) {
      const next = cheapestOf(open)
      if (next === undefined) break
      const [from, way] = next
      const id = this.ids[from] as NodeId
      open.delete(from)
      done.add(from)
      if (from !== start) found.set(id, way.rttMs)
      if (from !== start && this.deadEnds.has(id)) continue
      const { ends, rows } = this.edgesOf(from)
      for (const [i, to] of ends.entries()) {
        const row = i * ROW
        const isOwn = from === start
        const costMs = way.costMs + costAt(rows, row, isOwn)
        const knownMs = open.get(to)?.costMs ?? Number.POSITIVE_INFINITY
        if (done.has(to) || !(costMs < knownMs)) continue
        open.set(to, { costMs, rttMs: way.rttMs + rttAt(rows, row, isOwn) })
      }
    }
    return found
  }

  /**
   * Whether a path of at most `hopsMax` links leads from `self` to `to`, as `shortestPaths` would find; with `isBesides`, one
   * that does not go by `self`'s own link to it. Looked for from `to` backwards: whoever is anywhere is near some neighbour.
   */
  leads(self: NodeId, to: NodeId, hopsMax: number, isBesides = false): boolean {
    const [start, end] = [this.find(self), this.find(to)]
    if (start === undefined || end === undefined) return false
    const neighbours = new Set(this.edgesOf(start).ends)
    if (neighbours.delete(end) && !isBesides) return true
    const seen = new Set([start, end])
    let frontier = [end]
    for (let hops = 1; hops < hopsMax && frontier.length > 0; hops++) {
      const next: number[] = []
      for (const at of frontier) {
        const { ends, rows } = this.edgesOf(at)
        for (const [i, passed] of ends.entries()) {
          if (rows[i * ROW + COST_MS] === Number.POSITIVE_INFINITY || seen.has(passed)) continue
          seen.add(passed)
          if (this.deadEnds.has(this.ids[passed] as NodeId)) continue
          if (neighbours.has(passed)) return true
          next.push(passed)
        }
      }
      frontier = next
    }
    return false
  }

  private deadEndsAmong(size: number): Uint8Array {
    const isDeadEnd = new Uint8Array(size)
    for (const node of this.deadEnds) {
      const number = this.find(node)
      if (number !== undefined) isDeadEnd[number] = 1
    }
    return isDeadEnd
  }

  private remove(from: NodeId, to: NodeId): boolean {
    const [fromNumber, toNumber] = [this.find(from), this.find(to)]
    if (fromNumber === undefined || toNumber === undefined) return false
    const { ends, rows } = this.edgesOf(fromNumber)
    const at = ends.indexOf(toNumber)
    if (at < 0) return false
    // The last takes its place.
    ends[at] = ends.at(-1) as number
    ends.length--
    const last = rows.length - ROW
    for (let i = 0; i < ROW; i++) rows[at * ROW + i] = rows[last + i] as number
    rows.length = last
    this.statedTo[toNumber] = (this.statedTo[toNumber] as number) - 1
    const back = this.edgesOf(toNumber)
    const backAt = back.ends.indexOf(fromNumber)
    if (backAt >= 0) {
      this.recount(fromNumber, toNumber, back.rows[backAt * ROW + COST_MS] as number, Number.POSITIVE_INFINITY)
      back.rows[backAt * ROW + COST_MS] = Number.POSITIVE_INFINITY
    }
    this.giveUp(fromNumber)
    this.giveUp(toNumber)
    return true
  }

  /** A link between two nodes counts for something, or no longer does. */
  private recount(a: number, b: number, beforeMs: number, nowMs: number): void {
    const more = Number(nowMs !== Number.POSITIVE_INFINITY) - Number(beforeMs !== Number.POSITIVE_INFINITY)
    if (more === 0) return
    this.counted[a] = (this.counted[a] as number) + more
    this.counted[b] = (this.counted[b] as number) + more
  }

  /** Works out what a link counts for, at both of its ends. */
  private weigh(from: number, at: number, to: number): void {
    const there = this.edgesOf(from).rows
    const { ends, rows: back } = this.edgesOf(to)
    const backAt = ends.indexOf(from)
    if (backAt < 0) return
    const row = at * ROW
    const backRow = backAt * ROW
    const thereMs = costMsOf(there[row + RTT_MS] as number, there[row + LOSS_RATIO] as number)
    const backMs = costMsOf(back[backRow + RTT_MS] as number, back[backRow + LOSS_RATIO] as number)
    const costMs = Math.max(thereMs, backMs)
    const rttMs = (backMs > thereMs ? back[backRow + RTT_MS] : there[row + RTT_MS]) as number
    this.recount(from, to, there[row + COST_MS] as number, costMs)
    there[row + COST_MS] = costMs
    there[row + COUNTED_RTT_MS] = rttMs
    back[backRow + COST_MS] = costMs
    back[backRow + COUNTED_RTT_MS] = rttMs
  }

  private number(node: NodeId): number {
    const known = this.find(node)
    if (known !== undefined) {
      // Looked at first: the tail of an id, which is what nearly always comes, tells nothing new.
      if (node.length > TAIL_LENGTH && node.length > (this.ids[known] as NodeId).length) this.ids[known] = node
      return known
    }
    const number = this.numbers.take(node)
    growTo(this.ids, number, undefined)
    growTo(this.edges, number, undefined)
    growTo(this.statedTo, number, 0)
    growTo(this.counted, number, 0)
    this.ids[number] = node
    this.count++
    return number
  }

  private find(node: NodeId): number | undefined {
    const number = this.numbers.find(node)
    return number === undefined || this.ids[number] === undefined ? undefined : number
  }

  private giveUp(number: number): void {
    if (this.ids[number] === undefined || this.statedTo[number] || this.edgesOf(number).ends.length > 0) return
    this.lastFrom = undefined
    this.ids[number] = undefined
    this.count--
    this.numbers.release(number)
  }

  private edgesOf(number: number): Edges {
    const known = this.edges[number]
    if (known !== undefined) return known
    const created: Edges = { ends: [], rows: [] }
    this.edges[number] = created
    return created
  }
}

interface Way {
  readonly costMs: number
  readonly rttMs: number
}

/** One by one: there are some dozens. */
function cheapestOf(open: ReadonlyMap<number, Way>): readonly [number, Way] | undefined {
  let cheapest: readonly [number, Way] | undefined
  for (const entry of open) if (cheapest === undefined || entry[1].costMs < cheapest[1].costMs) cheapest = entry
  return cheapest
}

/** The best walks of just so many links, by node number; of use only where they were better than all shorter ones. */
interface Round {
  readonly costMs: Float64Array
  readonly rttMs: Float64Array
  readonly previous: Int32Array
}

interface Found {
  readonly self: NodeId
  /** As they were then. */
  readonly ids: readonly (NodeId | undefined)[]
  readonly numbers: NodeNumbers
  readonly bestMs: Float64Array
  readonly bestHops: Uint8Array
  readonly rounds: readonly Round[]
}

/** The outcome of one search. It stays as it is when the graph changes. */
export class ShortestPaths {
  private readonly found: Found

  constructor(found: Found) {
    this.found = found
  }

  /** Infinite: no path. */
  costMs(node: NodeId): number {
    if (node === this.found.self) return 0
    const number = this.find(node)
    return number === undefined ? Number.POSITIVE_INFINITY : (this.found.bestMs[number] as number)
  }

  /** Undefined: no path. */
  rttMs(node: NodeId): number | undefined {
    if (node === this.found.self) return 0
    const number = this.find(node)
    if (number === undefined || this.found.bestMs[number] === Number.POSITIVE_INFINITY) return undefined
    return this.found.rounds[(this.found.bestHops[number] as number) - 1]?.rttMs[number]
  }

  get(node: NodeId): Path | undefined {
    const { self, bestMs, bestHops, rounds, ids } = this.found
    if (node === self) return { path: [], rttMs: 0, costMs: 0 }
    const number = this.find(node)
    if (number === undefined || bestMs[number] === Number.POSITIVE_INFINITY) return undefined
    const hops = bestHops[number] as number
    const path = this.walk(number, hops).map(passed => ids[passed] as NodeId)
    return { path, rttMs: rounds[hops - 1]?.rttMs[number] ?? 0, costMs: bestMs[number] as number }
  }

  /** Nodes that a path leads to, `self` included. */
  *nodes(): IterableIterator<NodeId> {
    yield this.found.self
    for (const [number, node] of this.found.ids.entries()) {
      const isOther = node !== undefined && node !== this.found.self
      if (isOther && this.found.bestMs[number] !== Number.POSITIVE_INFINITY) yield node
    }
  }

  /** Of two walks of equally many links, whether the one to `a` passes the smaller ids. */
  isBefore(a: number, b: number, hops: number): boolean {
    const [mine, theirs] = [this.walk(a, hops), this.walk(b, hops)]
    for (const [i, number] of mine.entries()) {
      const [id, other] = [this.found.ids[number] as NodeId, this.found.ids[theirs[i] as number] as NodeId]
      if (id !== other) return id < other
    }
    return false
  }

  private find(node: NodeId): number | undefined {
    const number = this.found.numbers.find(node)
    const id = number === undefined ? undefined : this.found.ids[number]
    // The number may have gone to another node since.
    return id === node || (id !== undefined && nodeTail(id) === nodeTail(node)) ? number : undefined
  }

  private walk(to: number, hops: number): number[] {
    const path: number[] = []
    let at = to
    for (let hop = hops; hop > 0; hop--) {
      path.push(at)
      at = this.found.rounds[hop - 1]?.previous[at] ?? at
    }
    return path.reverse()
  }
}

/** What a link costs: the searching node's own on its own word, another as it is counted. */
function costAt(rows: readonly number[], row: number, isOwn: boolean): number {
  return isOwn ? linkCostMs(linkAt(rows, row)) : (rows[row + COST_MS] as number)
}

/** The round trip that goes with it. */
function rttAt(rows: readonly number[], row: number, isOwn: boolean): number {
  return rows[row + (isOwn ? RTT_MS : COUNTED_RTT_MS)] as number
}

function linkAt(rows: readonly number[], row: number): LinkInfo {
  return { rttMs: rows[row + RTT_MS] as number, lossRatio: rows[row + LOSS_RATIO] as number }
}
