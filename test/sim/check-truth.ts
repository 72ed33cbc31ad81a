import type { Violation } from './checkers.ts'
import type { SimMesh } from './sim-mesh.ts'
import type { SimNode } from './sim-node.ts'

/**
 * Tables against the registries: of every living node that is connected, each node must hold just the services that it
 * offers now. What was deleted and stands again, what was never heard, what outlived its owner's restart: all show here.
 */
export function checkTruth(mesh: SimMesh, viewers: (group: readonly SimNode[]) => readonly SimNode[]): Violation[] {
  const violations: Violation[] = []
  for (const group of mesh.components()) {
    for (const node of viewers(group)) {
      for (const owner of group) {
        const what = findDifference(node, owner)
        if (what !== undefined) violations.push({ check: 'truth', node: node.name, atMs: mesh.nowMs, what })
      }
    }
  }
  return violations
}

/** Routes that calls may take at connected nodes and that nobody offers, and offered routes that are missing there. */
export function countErrors(mesh: SimMesh): { ghosts: number; missing: number } {
  let ghosts = 0
  let missing = 0
  for (const group of mesh.components()) {
    const connected = new Set(group)
    for (const node of group) {
      for (const owner of mesh.nodes.values()) {
        if (owner === node) continue
        const offered = owner.alive && connected.has(owner) ? owner.services : new Map()
        let [held, wrong] = [0, 0]
        for (const service of node.protocol.servicesOf(owner.id)) {
          held++
          if (!offered.has(service)) wrong++
        }
        if (wrong > 0 && node.protocol.reaches(owner.id)) ghosts += wrong
        missing += Math.max(0, offered.size - held + wrong)
      }
    }
  }
  return { ghosts, missing }
}

/** A node, and one connected to it whose services it does not hold as they are. */
export interface Lack {
  readonly node: SimNode
  readonly owner: SimNode
}

/** The first to be found; undefined: each node holds just what those connected to it offer. `before`: as last found, and looked at first. */
export function findLack(mesh: SimMesh, before: Lack | undefined): Lack | undefined {
  for (const group of mesh.components()) {
    if (before && group.includes(before.node) && group.includes(before.owner)) {
      if (findDifference(before.node, before.owner) !== undefined) return before
    }
    for (const node of group) {
      for (const owner of group) {
        if (owner !== node && findDifference(node, owner) !== undefined) return { node, owner }
      }
    }
  }
  return undefined
}

function findDifference(node: SimNode, owner: SimNode): string | undefined {
  let held = 0
  for (const service of node.protocol.servicesOf(owner.id)) {
    held++
    if (!owner.services.has(service)) return `holds ${service} of ${owner.name}, which does not offer it`
  }
  if (held === owner.services.size) return undefined
  for (const service of owner.services.values()) {
    if (!node.protocol.has(owner.id, service.name)) return `lacks ${service.name} of ${owner.name}`
  }
  return undefined
}
