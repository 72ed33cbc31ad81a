import type { NodeId } from './model.ts'

/** After the last word against a node, others of the same kind are under way for about so long. */
const WAIT_MS = 200
/** Between two questions about one node, and how many there are: what is lost once is seldom lost thrice. */
const AGAIN_MS = 250
const QUESTIONS_MAX = 4

interface Suspect {
  atMs: number
  asked: number
}

/**
 * Nodes that a neighbour of theirs has given up while they still claim the link: dead, or about to say so themselves.
 * When all neighbours but one have said so and the last one's word was lost, calls go on to a dead node until a digest
 * finds it out by chance; these are asked about instead. Decides when; does nothing.
 */
export class Suspects {
  /** When the first of them is due. */
  atMs = Number.POSITIVE_INFINITY
  private readonly waiting = new Map<NodeId, Suspect>()

  /** One more has given it up. */
  add(node: NodeId, nowMs: number): void {
    const asked = this.waiting.get(node)?.asked ?? 0
    if (asked < QUESTIONS_MAX) this.plan(node, nowMs + WAIT_MS, asked)
  }

  /** Takes those whose time has come; who is asked about after all is to be told of with `onAsked`. */
  take(nowMs: number): { node: NodeId; asked: number }[] {
    const due: { node: NodeId; asked: number }[] = []
    this.atMs = Number.POSITIVE_INFINITY
    for (const [node, { atMs, asked }] of this.waiting) {
      if (nowMs < atMs) {
        this.atMs = Math.min(this.atMs, atMs)
        continue
      }
      this.waiting.delete(node)
      due.push({ node, asked })
    }
    return due
  }

  onAsked({ node, asked }: { node: NodeId; asked: number }, nowMs: number): void {
    if (asked + 1 < QUESTIONS_MAX) this.plan(node, nowMs + AGAIN_MS, asked + 1)
  }

  private plan(node: NodeId, atMs: number, asked: number): void {
    this.waiting.set(node, { atMs, asked })
    this.atMs = Math.min(this.atMs, atMs)
  }
}
