import type { NodeId } from './model.ts'
import { pickOne } from './pick.ts'

/** A provider is left for another that has so many fewer to hand on to: a difference of one is no gain. */
const LOAD_GAP = 2

/**
 * The few neighbours that hand on to this node what is fresh: each node names its own, so that everyone gets each batch
 * a few times, however many links there are, and whoever has few links has it from all of them.
 *
 * They are a sample of the neighbours, whatever their distance: the nearest alone would be each other's, and news from
 * outside would stop at the border. Each node says how many it hands on to, and the burden evens out. Decides, does nothing.
 */
export class Providers {
  private readonly random: () => number
  private readonly chosen = new Set<NodeId>()
  /** What each neighbour said last: how many it hands on to. */
  private readonly loads = new Map<NodeId, number>()

  constructor(random: () => number) {
    this.random = random
  }

  has(node: NodeId): boolean {
    return this.chosen.has(node)
  }

  /** A link came up; `links` counts it. Answers who was given up for it. */
  onLinkUp(node: NodeId, links: number, wanted: number): NodeId | undefined {
    this.loads.set(node, 0)
    if (this.chosen.size < wanted) {
      this.chosen.add(node)
      return undefined
    }
    if (this.random() * links >= wanted) return undefined
    const given = pickOne([...this.chosen], this.random)
    if (given !== undefined) this.chosen.delete(given)
    this.chosen.add(node)
    return given
  }

  /** A link went down. Answers who takes its place, if it had one. */
  onLinkDown(node: NodeId): NodeId | undefined {
    this.loads.delete(node)
    if (!this.chosen.delete(node)) return undefined
    const next = pickOne(
      [...this.loads.keys()].filter(other => !this.chosen.has(other)),
      this.random,
    )
    if (next !== undefined) this.chosen.add(next)
    return next
  }

  onLoad(node: NodeId, load: number): void {
    if (this.loads.has(node)) this.loads.set(node, load)
  }

  /**
   * Leaves the provider with the most to do: for none if there are more than `wanted`, else for a neighbour with clearly
   * less. At most one at a time. Answers who is to hear of it.
   */
  balance(wanted: number): readonly NodeId[] | undefined {
    let left: NodeId | undefined
    for (const node of this.chosen) if (left === undefined || this.load(node) > this.load(left)) left = node
    if (left === undefined) return undefined
    if (this.chosen.size > wanted) {
      this.chosen.delete(left)
      return [left]
    }
    const mostLoad = this.load(left) - LOAD_GAP
    // Any of them, not the least: everyone would run to the same one.
    const lighter = [...this.loads].flatMap(([node, load]) => (load <= mostLoad && !this.has(node) ? [node] : []))
    const taken = pickOne(lighter, this.random)
    if (taken === undefined) return undefined
    this.chosen.delete(left)
    this.chosen.add(taken)
    // Their next word corrects it; until then they are not judged by the last.
    this.loads.set(taken, this.load(taken) + 1)
    this.loads.set(left, this.load(left) - 1)
    return [left, taken]
  }

  private load(node: NodeId): number {
    return this.loads.get(node) ?? 0
  }
}
