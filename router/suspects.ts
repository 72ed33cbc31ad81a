import type { NodeId } from './model.ts'
import { Timetable } from './timetable.ts'

/** After the last word against a node, others of the same kind are under way for about so long. */
const WAIT_MS = 200
/** Between two questions about one node, and how many there are: what is lost once is seldom lost thrice. */
const AGAIN_MS = 250
const QUESTIONS_MAX = 4

export interface Suspect {
  readonly node: NodeId
  /** How often. */
  readonly asked: number
}

/**
 * Nodes that a neighbour of theirs has given up while they still claim the link: dead, or about to say so themselves.
 * When all neighbours but one have said so and the last one's word was lost, calls go on to a dead node until a digest
 * finds it out by chance; these are asked about instead. Decides when; does nothing.
 */
export class Suspects {
  /** By node: how often it was asked about. */
  private readonly waiting = new Timetable<NodeId, number>()

  /** When the first of them is due. */
  get atMs(): number {
    return this.waiting.atMs
  }

  /** One more has given it up. */
  add(node: NodeId, nowMs: number): void {
    const asked = this.waiting.get(node) ?? 0
    if (asked < QUESTIONS_MAX) this.waiting.plan(node, nowMs + WAIT_MS, asked)
  }

  /** Takes those whose time has come; who is asked about after all is to be told of with `onAsked`. */
  take(nowMs: number): Suspect[] {
    return this.waiting.take(nowMs).map(([node, asked]) => ({ node, asked }))
  }

  onAsked({ node, asked }: Suspect, nowMs: number): void {
    if (asked + 1 < QUESTIONS_MAX) this.waiting.plan(node, nowMs + AGAIN_MS, asked + 1)
  }
}
