import type { Version } from '../../router/frame.ts'
import type { NodeId } from '../../router/model.ts'
import type { SimMesh } from './sim-mesh.ts'
import type { SimNode } from './sim-node.ts'

/**
 * Two connected nodes that know different things, in words; undefined if there are none.
 *
 * Equal digests mean equal tables. Of a living node in the same part of the mesh, everyone must know the same; of others,
 * those who still remember them must.
 */
export function findDisagreement(mesh: SimMesh): string | undefined {
  for (const group of mesh.components()) {
    const found = findDisagreementIn(mesh, group)
    if (found !== undefined) return found
  }
  return undefined
}

/** How far each living node has told of itself. */
export function ownVersions(mesh: SimMesh): Map<NodeId, Version> {
  const versions = new Map<NodeId, Version>()
  for (const { id, protocol } of mesh.living()) {
    const own = protocol.versions()?.get(id)
    if (own !== undefined) versions.set(id, own)
  }
  return versions
}

/**
 * A node that does not know yet what `said` had been told, in words. Where heartbeats are noisy someone always has
 * something new to say, so that digests are hardly ever equal at one instant; but what was said once must arrive.
 */
export function findLaggard(mesh: SimMesh, said: ReadonlyMap<NodeId, Version>): string | undefined {
  for (const group of mesh.components()) {
    for (const node of group) {
      const digest = node.protocol.versions()
      if (digest === undefined) return undefined
      for (const { id, name } of group) {
        const [known, told] = [digest.get(id), said.get(id)]
        if (known === undefined) return `${node.name} does not know ${name}`
        if (told !== undefined && isOlder(known, told)) {
          return `${node.name} knows ${name} up to ${say(known)}, long after it had told up to ${say(told)}`
        }
      }
    }
  }
  return undefined
}

function isOlder(a: Version, b: Version): boolean {
  return a.incarnation < b.incarnation || (a.incarnation === b.incarnation && a.contiguous < b.contiguous)
}

function findDisagreementIn(mesh: SimMesh, group: readonly SimNode[]): string | undefined {
  const present = new Set(group.map(node => node.id))
  const first = new Map<NodeId, { version: Version; holder: SimNode }>()
  for (const node of group) {
    const digest = node.protocol.versions()
    if (digest === undefined) return undefined
    for (const id of present) {
      if (!digest.has(id)) return `${node.name} does not know ${mesh.nameOf(id)}`
    }
    for (const [origin, version] of digest) {
      const known = first.get(origin)
      if (known === undefined) first.set(origin, { version, holder: node })
      else if (known.version.incarnation !== version.incarnation || known.version.contiguous !== version.contiguous) {
        const [mine, theirs] = [say(version), say(known.version)]
        return `${node.name} knows ${mesh.nameOf(origin)} up to ${mine}, ${known.holder.name} up to ${theirs}`
      }
    }
  }
  return undefined
}

function say({ incarnation, contiguous }: Version): string {
  return `${incarnation}.${contiguous}`
}
