import type { Violation } from './checkers.ts'
import type { SimMesh } from './sim-mesh.ts'

/** Bytes one entry takes in a batch, at most: a link's key holds a node id of 52 characters. Measured: 80; a label or two on top. */
const ENTRY_BYTES = 160
/** A batch's head, signature and proof. */
const BATCH_BYTES = 200
/** A record's window holds superseded entries up to the live ones and 64 more (router/own-record.ts). */
const DEAD_FREE = 64
/** The router's sweep is its rarest timer. */
const WAKE_MS_MAX = 61_000

/** Memory within what the records can need, no honest node refused, none stuck without a timer. */
export function checkBounds(mesh: SimMesh): Violation[] {
  const violations: Violation[] = []
  const add = (node: string, what: string): void => {
    violations.push({ check: 'bounds', node, atMs: mesh.nowMs, what })
  }
  let allowed = 0
  for (const node of mesh.nodes.values()) {
    const live = 1 + node.services.size + Math.max(node.ends.size, node.known.size)
    allowed += (2 * live + DEAD_FREE) * (ENTRY_BYTES + BATCH_BYTES)
  }
  for (const node of mesh.living()) {
    const held = node.protocol.heldBytes()
    if (held > allowed) add(node.name, `holds ${held} bytes of records, expected at most ${allowed}`)
    for (const [reason, count] of node.protocol.refused()) {
      add(node.name, `refused ${count} times for ${reason}, though everyone is honest`)
    }
    const leftMs = node.trueMs(node.wakeAtMs) - mesh.nowMs
    // One that was due just now is being thought about, as is what asked for it.
    if (!node.frozen && (leftMs < -2 * mesh.thinkMs || leftMs > WAKE_MS_MAX)) {
      add(node.name, `is stuck: its next wake is in ${leftMs} ms, expected ${-2 * mesh.thinkMs} to ${WAKE_MS_MAX}`)
    }
  }
  for (const crash of mesh.crashes.splice(0)) {
    const said = crash.error instanceof Error ? (crash.error.stack ?? crash.error.message) : String(crash.error)
    violations.push({ check: 'crash', node: crash.node, atMs: crash.atMs, what: said })
  }
  return violations
}
