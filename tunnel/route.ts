import type { NodeId } from '../router/model.ts'
import { HOPS_MAX } from '../router/paths.ts'

/** The nodes of a relayed stream: who begins it, at least one relay, and who it is for. */
const NODES_MIN = 3
export const NODES_MAX = HOPS_MAX + 1
const NODE_ID = /^[1-9A-HJ-NP-Za-km-z]{1,128}$/

/** The way of a relayed stream, chosen whole by the node that begins it. */
export interface Route {
  /** Who begins it, the relays in order, who it is for. */
  readonly nodes: readonly NodeId[]
  /** Which of `nodes` this is sent to. */
  readonly at: number
}

/** at u8 · number of nodes u8 · for each: length u8 · id. */
export function encodeRoute({ nodes, at }: Route): Buffer {
  const parts = [Buffer.from([at, nodes.length])]
  for (const node of nodes) parts.push(Buffer.from([node.length]), Buffer.from(node, 'latin1'))
  return Buffer.concat(parts)
}

/** The route, or why the bytes are none. That it is a possible one says `routeFault`. */
export function decodeRoute(payload: Buffer): Route | string {
  const count = payload[1] ?? 0
  if (count < NODES_MIN || count > NODES_MAX)
    return `expected a route of ${NODES_MIN}..${NODES_MAX} nodes, found ${count}`
  const nodes: NodeId[] = []
  let offset = 2
  for (let i = 0; i < count; i++) {
    const end = offset + 1 + (payload[offset] ?? 0)
    const node = payload.toString('latin1', offset + 1, end)
    if (end > payload.length || !NODE_ID.test(node)) return 'expected node ids in a route, found something else'
    nodes.push(node)
    offset = end
  }
  if (offset !== payload.length) return `expected the end of a route, found ${payload.length - offset} bytes more`
  return { nodes, at: payload[0] ?? 0 }
}

/**
 * Why `self` takes no part in a route that `from` sent it, or undefined.
 * Each node checks its own place and the one before it, so a route that was changed on the way ends where it was changed.
 */
export function routeFault({ nodes, at }: Route, self: NodeId, from: NodeId): string | undefined {
  if (at < 1 || nodes[at] !== self) return 'expected this node at its place of the route, found another'
  if (nodes[at - 1] !== from) return 'expected the sender before this node in the route, found another'
  if (new Set(nodes).size !== nodes.length) return 'expected each node once in a route, found one twice'
  return undefined
}
