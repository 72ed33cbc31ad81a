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

/** What every node says of its live links: node → neighbour → link. */
export type LinkStates = ReadonlyMap<NodeId, ReadonlyMap<NodeId, LinkInfo>>

/** What a link costs: its round trip, made dearer by the share of heartbeats lost (a lost packet waits for a resend). */
export function linkCostMs(link: LinkInfo): number {
  return link.rttMs * (1 + 2 * Math.min(link.lossRatio, 1)) + HOP_COST_MS
}

/**
 * The cheapest path from `self` to every node that one leads to, over at most `hopsMax` links.
 *
 * A link counts while both its ends state it, at the dearer of the two statements. `self`'s own links count on its own
 * word: it has just heard an answer over them. Ties go to fewer hops, then to the smaller node id, so that equal
 * records give equal choices. Bellman-Ford by rounds, because the number of hops is bounded.
 * Shape: one entry per reachable node, `self` included.
 */
export function shortestPaths(self: NodeId, links: LinkStates, hopsMax: number = HOPS_MAX): Map<NodeId, Path> {
  const best = new Map<NodeId, Path>([[self, { path: [], rttMs: 0, costMs: 0 }]])
  let frontier = new Map(best)
  for (let hop = 0; hop < hopsMax && frontier.size > 0; hop++) {
    const next = new Map<NodeId, Path>()
    for (const [from, path] of frontier) {
      for (const [to, link] of links.get(from) ?? []) {
        if (to === self || path.path.includes(to)) continue
        const back = links.get(to)?.get(from)
        if (back === undefined && from !== self) continue
        const dearer = back !== undefined && from !== self && linkCostMs(back) > linkCostMs(link) ? back : link
        const candidate: Path = {
          path: [...path.path, to],
          rttMs: path.rttMs + dearer.rttMs,
          costMs: path.costMs + linkCostMs(dearer),
        }
        const known = next.get(to) ?? best.get(to)
        if (known === undefined || isBetter(candidate, known)) next.set(to, candidate)
      }
    }
    for (const [to, path] of next) best.set(to, path)
    frontier = next
  }
  return best
}

function isBetter(a: Path, b: Path): boolean {
  if (a.costMs !== b.costMs) return a.costMs < b.costMs
  if (a.path.length !== b.path.length) return a.path.length < b.path.length
  return a.path.join('>') < b.path.join('>')
}
