import { nodeTail } from './entry.ts'
import { hashText } from './hash.ts'
import type { NodeId } from './model.ts'

export interface LinkChoiceOptions {
  /** Up to this many nodes, everyone links to everyone: 64 nodes are 63 heartbeats a second, and every call is one hop. */
  readonly fullMeshMax: number
  /** Links to the nearest nodes: short paths. */
  readonly nearest: number
  /** Links to random others: few hops to everywhere, and no split when a region goes. ln(1000) is 7: together with `nearest` a random graph of a thousand is connected with room to spare. */
  readonly random: number
  /** Links to nodes this one calls often. */
  readonly called: number
}

export const LINK_CHOICE_DEFAULTS: LinkChoiceOptions = { fullMeshMax: 64, nearest: 6, random: 6, called: 8 }

export interface LinkPeer {
  readonly node: NodeId
  /** Round trip, measured or along the best path known; undefined: not known. */
  readonly rttMs: number | undefined
  /** Calls this node sent there lately. */
  readonly calls: number
}

/**
 * Which nodes this one keeps a link to. Links that others chose come on top: about twice as many in all.
 *
 * The random ones are those with the least hash of both names: the same choice every time, so that links do not come
 * and go with every newcomer, and no source of chance is needed. A link that was chosen before stays among the nearest
 * until another is nearer by a quarter, so that noise does not tear links down.
 */
export function chooseLinks(
  self: NodeId,
  peers: readonly LinkPeer[],
  previous: ReadonlySet<NodeId>,
  options: LinkChoiceOptions = LINK_CHOICE_DEFAULTS,
): Set<NodeId> {
  const others = peers.filter(peer => peer.node !== self)
  if (others.length < options.fullMeshMax) return new Set(others.map(peer => peer.node))
  const distance = ({ node, rttMs }: LinkPeer): number =>
    (rttMs ?? Number.POSITIVE_INFINITY) * (previous.has(node) ? 0.75 : 1)
  const calledOnes = others.filter(peer => peer.calls > 0)
  return new Set([
    ...least(self, others, options.nearest, distance),
    ...least(self, others, options.random, () => 0),
    ...least(self, calledOnes, options.called, ({ calls }) => -calls),
  ])
}

interface Ranked {
  readonly node: NodeId
  readonly rank: number
  readonly hash: number
}

/** The `count` of least rank. Equals go by the hash of both names, or everyone would choose the same of them. */
function least(self: NodeId, peers: readonly LinkPeer[], count: number, rankOf: (peer: LinkPeer) => number): NodeId[] {
  const chosen: Ranked[] = []
  for (const peer of peers) {
    const rank = rankOf(peer)
    const last = chosen[count - 1]
    if (!Number.isFinite(rank) || count === 0 || (last !== undefined && rank > last.rank)) continue
    const ranked = { node: peer.node, rank, hash: hashText(`${nodeTail(self)} ${nodeTail(peer.node)}`) }
    if (last !== undefined && !isBefore(ranked, last)) continue
    if (last !== undefined) chosen.pop()
    const at = chosen.findIndex(other => isBefore(ranked, other))
    chosen.splice(at < 0 ? chosen.length : at, 0, ranked)
  }
  return chosen.map(({ node }) => node)
}

function isBefore(a: Ranked, b: Ranked): boolean {
  return a.rank < b.rank || (a.rank === b.rank && a.hash < b.hash)
}
