import type { LinkInfo, NodeId } from './model.ts'

/**
 * Cost of each hop beside its round trip, milliseconds. Without one, a chain of near relays costs nothing and calls
 * wander over many nodes (Mycelium #54). 2 ms: about what two more daemons on the way cost on a busy machine; a guess
 * to be replaced by a measurement of relayed calls.
 */
export const HOP_COST_MS = 2
/** Links a call may pass: at most three relays. The ancestor's limit of 3 hops, plus one for a hub at either end. */
export const HOPS_MAX = 4

export interface Path {
  /** Nodes passed, the target last; empty for this node itself. */
  readonly path: readonly NodeId[]
  readonly rttMs: number
  readonly costMs: number
}

/** What a link costs: its round trip, made dearer by the share of heartbeats lost (a lost packet waits for a resend). */
export function linkCostMs({ rttMs, lossRatio }: LinkInfo): number {
  return costMsOf(rttMs, lossRatio)
}

/** The same of a link that is told in two numbers. */
export function costMsOf(rttMs: number, lossRatio: number): number {
  return rttMs * (1 + 2 * Math.min(lossRatio, 1)) + HOP_COST_MS
}
