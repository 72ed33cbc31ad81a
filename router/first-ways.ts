import type { NodeId } from './model.ts'

/** In a mesh of at most so many nodes the first way to a node is told at once. */
const SMALL_MESH_NODES = 100
/** In a larger one it waits this long: nearly always another of the new node's links is told of by then, and is enough. */
const WAIT_MS = 500

/** Links to nodes that no path led to when they came up: others wait for the news, unless they get to hear of another way meanwhile. */
export class FirstWays {
  /** When the first of them is due. */
  atMs = Number.POSITIVE_INFINITY
  private readonly waiting = new Map<NodeId, number>()

  /**
   * Whether the news of a first way cannot wait: in a small mesh it costs little, and the first link of all is this
   * node's only one. `others`: nodes that are known; undefined: a newcomer, to which every way seems the first.
   */
  static isUrgent(others: number | undefined, links: number): boolean {
    return links <= 1 || (others !== undefined && others < SMALL_MESH_NODES)
  }

  add(to: NodeId, nowMs: number): void {
    this.waiting.set(to, nowMs + WAIT_MS)
    this.atMs = Math.min(this.atMs, nowMs + WAIT_MS)
  }

  /** The link is gone, or told of. */
  delete(to: NodeId): void {
    if (this.waiting.delete(to) && this.waiting.size === 0) this.atMs = Number.POSITIVE_INFINITY
  }

  /** What was waited for is known: all are due. */
  hasten(nowMs: number): void {
    for (const to of this.waiting.keys()) this.waiting.set(to, nowMs)
    if (this.waiting.size > 0) this.atMs = nowMs
  }

  /** Takes those whose time has come. */
  take(nowMs: number): NodeId[] {
    const due: NodeId[] = []
    this.atMs = Number.POSITIVE_INFINITY
    for (const [to, atMs] of this.waiting) {
      if (nowMs < atMs) this.atMs = Math.min(this.atMs, atMs)
      else if (this.waiting.delete(to)) due.push(to)
    }
    return due
  }
}
