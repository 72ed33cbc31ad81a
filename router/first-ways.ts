import type { NodeId } from './model.ts'

/** In a mesh of at most so many nodes the first way to a node is told at once. */
const SMALL_MESH_NODES = 100
/** In a larger one it is looked at after this: by then the other end's own word says whether it has other links. */
const LOOK_MS = 250
/** If it has, one of those may be told of by somebody else; who waited so long in vain tells of it. */
const WAIT_MS = 2000

/** A link to a node that no path led to when it came up. */
export interface FirstWay {
  readonly to: NodeId
  /** Nobody else was heard of in all that time. */
  readonly isOver: boolean
}

/**
 * Links to nodes that no path led to when they came up: others wait for the news, but one of a newcomer's twenty links
 * is enough. Of those at their other ends, the one that has the newcomer's only link tells it at once; the others wait
 * whether they get to hear of that. Decides when; does nothing.
 */
export class FirstWays {
  /** When the first of them is due. */
  atMs = Number.POSITIVE_INFINITY
  private readonly waiting = new Map<NodeId, { atMs: number; untilMs: number }>()

  /**
   * Whether the news of a first way cannot wait: in a small mesh it costs little, and the first link of all is this
   * node's only one. `others`: nodes that are known; undefined: a newcomer, to which every way seems the first.
   */
  static isUrgent(others: number | undefined, links: number): boolean {
    return links <= 1 || (others !== undefined && FirstWays.isSmall(others))
  }

  /** Whether everyone may be told of every link at once; a second way is what calls take when the first is lost. */
  static isSmall(others: number): boolean {
    return others < SMALL_MESH_NODES
  }

  add(to: NodeId, nowMs: number): void {
    this.waiting.set(to, { atMs: nowMs + LOOK_MS, untilMs: nowMs + WAIT_MS })
    this.atMs = Math.min(this.atMs, nowMs + LOOK_MS)
  }

  /** The link is gone, or told of. */
  delete(to: NodeId): void {
    if (this.waiting.delete(to) && this.waiting.size === 0) this.atMs = Number.POSITIVE_INFINITY
  }

  /** What was waited for is known: all are due. */
  hasten(nowMs: number): void {
    for (const waiting of this.waiting.values()) {
      waiting.atMs = nowMs
      waiting.untilMs = nowMs
    }
    if (this.waiting.size > 0) this.atMs = nowMs
  }

  /** Takes those that are to be looked at now; each is looked at twice at most. */
  take(nowMs: number): FirstWay[] {
    const due: FirstWay[] = []
    this.atMs = Number.POSITIVE_INFINITY
    for (const [to, waiting] of this.waiting) {
      if (nowMs >= waiting.atMs) {
        const isOver = nowMs >= waiting.untilMs
        due.push({ to, isOver })
        if (isOver) this.waiting.delete(to)
        waiting.atMs = waiting.untilMs
        if (isOver) continue
      }
      this.atMs = Math.min(this.atMs, waiting.atMs)
    }
    return due
  }
}
