import { hashText } from './digest-index.ts'
import type { NodeId } from './model.ts'

/** Any will do, as long as it stays: another one would move every random link. FNV's offset basis. */
const HASH_SEED = 0x811c9dc5

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
  const chosen = new Set<NodeId>()
  const distance = ({ node, rttMs }: LinkPeer): number =>
    (rttMs ?? Number.POSITIVE_INFINITY) * (previous.has(node) ? 0.75 : 1)
  const calledOnes = others.filter(peer => peer.calls > 0)
  take(self, chosen, others, options.nearest, distance)
  take(self, chosen, others, options.random, () => 0)
  take(self, chosen, calledOnes, options.called, ({ calls }) => -calls)
  return chosen
}

/** The first `count` by rank. Equals go by the hash of both names, or everyone would choose the same of them. */
function take(
  self: NodeId,
  chosen: Set<NodeId>,
  peers: readonly LinkPeer[],
  count: number,
  rank: (peer: LinkPeer) => number,
): void {
  const ranked = peers.map(peer => ({
    node: peer.node,
    rank: rank(peer),
    hash: hashText(`${self} ${peer.node}`, HASH_SEED),
  }))
  ranked.sort((a, b) => a.rank - b.rank || a.hash - b.hash)
  for (const { node, rank } of ranked.slice(0, count)) if (Number.isFinite(rank)) chosen.add(node)
}
