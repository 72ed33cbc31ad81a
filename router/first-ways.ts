import type { NodeId } from './model.ts'
import { Timetable } from './timetable.ts'

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
  /** By node: when it is waited for no more. */
  private readonly waiting = new Timetable<NodeId, number>()

  /** When the first of them is due. */
  get atMs(): number {
    return this.waiting.atMs
  }

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
    this.waiting.plan(to, nowMs + LOOK_MS, nowMs + WAIT_MS)
  }

  /** The link is gone, or told of. */
  delete(to: NodeId): void {
    this.waiting.delete(to)
  }

  /** What was waited for is known: all are due. */
  hasten(nowMs: number): void {
    for (const [to] of this.waiting.take(Number.POSITIVE_INFINITY)) this.waiting.plan(to, nowMs, nowMs)
  }

  /** Takes those that are to be looked at now; each is looked at twice at most. */
  take(nowMs: number): FirstWay[] {
    return this.waiting.take(nowMs).map(([to, untilMs]) => {
      const isOver = nowMs >= untilMs
      if (!isOver) this.waiting.plan(to, untilMs, untilMs)
      return { to, isOver }
    })
  }
}
