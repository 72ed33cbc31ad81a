import type { NodeId } from './model.ts'

/**
 * The few neighbours that hand on to this node what is fresh: each node names its own, so that everyone gets each batch
 * a few times, however many links there are, and whoever has few links has it from all of them.
 *
 * They are a fair sample of the neighbours, kept fair as links come and go: the nearest alone would be each other's, and
 * news from outside would stop at the border. Decides, does nothing.
 */
export class Providers {
  private readonly random: () => number
  private readonly chosen = new Set<NodeId>()

  constructor(random: () => number) {
    this.random = random
  }

  has(node: NodeId): boolean {
    return this.chosen.has(node)
  }

  /** A link came up; `links` counts it. Answers who was given up for it. */
  onLinkUp(node: NodeId, links: number, wanted: number): NodeId | undefined {
    if (this.chosen.size < wanted) {
      this.chosen.add(node)
      return undefined
    }
    if (this.random() * links >= wanted) return undefined
    const given = this.pick([...this.chosen])
    if (given !== undefined) this.chosen.delete(given)
    this.chosen.add(node)
    return given
  }

  /** A link went down; `others` are the neighbours left. Answers who takes its place, if it had one. */
  onLinkDown(node: NodeId, others: readonly NodeId[]): NodeId | undefined {
    if (!this.chosen.delete(node)) return undefined
    const next = this.pick(others.filter(other => !this.chosen.has(other)))
    if (next !== undefined) this.chosen.add(next)
    return next
  }

  private pick(from: readonly NodeId[]): NodeId | undefined {
    return from[Math.floor(this.random() * from.length)]
  }
}
