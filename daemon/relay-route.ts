import type { NodeId } from '../router/model.ts'
import { linkCostMs } from '../router/paths.ts'
import type { Table } from '../router/table.ts'

type Links = Pick<Table, 'self' | 'path' | 'nodeIds' | 'nodeInfo' | 'link'>

/**
 * The nodes that calls to `target` pass, the target last: the table's path, or the cheapest way round when a relay on that
 * path is to be avoided or is stopping. Never through a node that says that it passes nothing on.
 *
 * Ways round have one relay or two, of links that both their ends state (this node's own on its word, as in the table).
 * Undefined: none. Pure; a way round costs one look at each node.
 */
export function chooseRoute(table: Links, target: NodeId, avoided: ReadonlySet<NodeId>): readonly NodeId[] | undefined {
  const path = table.path(target)?.path
  if (path === undefined) return undefined
  const isFit = (node: NodeId): boolean => {
    const info = table.nodeInfo(node)
    return !avoided.has(node) && info?.state !== 'draining' && info?.relays !== false
  }
  const relays = path.slice(0, -1)
  if (relays.every(isFit)) return path
  // Better by a relay that is stopping than not at all; one that is avoided has said no.
  return chooseDetour(table, target, isFit) ?? (relays.some(node => avoided.has(node)) ? undefined : path)
}

function chooseDetour(table: Links, target: NodeId, isFit: (node: NodeId) => boolean): readonly NodeId[] | undefined {
  const near: [NodeId, number][] = []
  const far: [NodeId, number][] = []
  for (const node of table.nodeIds()) {
    if (node === table.self || node === target || !isFit(node)) continue
    const own = table.link(table.self, node)
    if (own !== undefined) near.push([node, linkCostMs(own)])
    const lastMs = costMs(table, node, target)
    if (lastMs !== undefined) far.push([node, lastMs])
  }
  let best: readonly NodeId[] | undefined
  let bestMs = Number.POSITIVE_INFINITY
  for (const [first, firstMs] of near) {
    for (const [last, lastMs] of far) {
      const middleMs = first === last ? 0 : costMs(table, first, last)
      if (middleMs === undefined || firstMs + middleMs + lastMs >= bestMs) continue
      best = first === last ? [first, target] : [first, last, target]
      bestMs = firstMs + middleMs + lastMs
    }
  }
  return best
}

/** Of a link that both ends state, the dearer statement. */
function costMs(table: Links, a: NodeId, b: NodeId): number | undefined {
  const [there, back] = [table.link(a, b), table.link(b, a)]
  return there === undefined || back === undefined ? undefined : Math.max(linkCostMs(there), linkCostMs(back))
}
