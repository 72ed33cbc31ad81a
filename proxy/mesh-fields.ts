import { EGRESS_NOTE } from './egress-note.ts'

/** Fields an instance must not be able to set: they are how the mesh's own answers are recognised, and what it notes on others'. */
export const MESH_FIELDS = ['x-flatmesh-error', 'x-flatmesh-node', EGRESS_NOTE] as const

/** Via as RFC 9110 §7.6.3 asks of every proxy; it is also how a caller sees who answered. */
export function viaLine(node: string): string {
  return `Via: 1.1 flatmesh-${node}\r\n`
}
