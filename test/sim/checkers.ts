import type { Version } from '../../router/frame.ts'
import type { NodeId } from '../../router/model.ts'
import { findLaggard, ownVersions } from './check-agreement.ts'
import { checkBounds } from './check-bounds.ts'
import { checkPaths } from './check-paths.ts'
import { checkTruth } from './check-truth.ts'
import type { Convergence } from './convergence.ts'
import { randomFor, shuffle } from './rng.ts'
import type { SimMesh } from './sim-mesh.ts'
import type { SimNode } from './sim-node.ts'

/** A promise of the mesh that was not kept. */
export interface Violation {
  readonly check: 'agreement' | 'truth' | 'paths' | 'bounds' | 'resurrection' | 'convergence' | 'crash'
  readonly node: string
  readonly atMs: number
  readonly what: string
}

/** Violations kept of one check at one quiet point: the first few tell the story. */
const KEPT_MAX = 5
/** Nodes whose tables are looked at in a large mesh; in a small one, all are. */
const VIEWERS_MAX = 60
/** A mesh of more than this is looked at this often until all is well. */
const LARGE_NODES = 200
const LARGE_LOOK_MS = 5000

/**
 * Looks at a mesh that was left in peace, and runs it on until all is well or `withinMs` is over: what is wrong then is a
 * violation. Nothing here knows what happened before; that is the scenarios' part.
 */
export function checkAtRest(
  mesh: SimMesh,
  withinMs: number,
  convergence?: Convergence,
  onStep: () => void = () => {},
): Violation[] {
  const untilMs = mesh.nowMs + withinMs
  const random = randomFor(mesh.nowMs, 'viewers')
  const viewers = (group: readonly SimNode[]): readonly SimNode[] =>
    group.length <= VIEWERS_MAX ? group : shuffle(random, group).slice(0, VIEWERS_MAX)
  const said = ownVersions(mesh)
  let found = look(mesh, said, viewers)
  const stepMs = mesh.nodes.size > VIEWERS_MAX ? 1000 : 100
  // Looking costs more than running when the mesh is large.
  const lookMs = mesh.nodes.size > LARGE_NODES ? LARGE_LOOK_MS : stepMs
  let lookAtMs = mesh.nowMs + lookMs
  while ((found.length > 0 || convergence?.unfinished().length) && mesh.nowMs < untilMs) {
    mesh.run(stepMs)
    convergence?.sweep()
    onStep()
    if (mesh.nowMs < lookAtMs && mesh.nowMs < untilMs) continue
    found = look(mesh, said, viewers)
    lookAtMs = mesh.nowMs + lookMs
  }
  const all = [...found, ...checkBounds(mesh)]
  for (const what of convergence?.unfinished().slice(0, KEPT_MAX) ?? []) {
    all.push({ check: 'convergence', node: '', atMs: mesh.nowMs, what })
  }
  for (const { node, owner, service, atMs } of convergence?.resurrections.splice(0) ?? []) {
    all.push({ check: 'resurrection', node, atMs, what: `shows ${service} of ${owner} again after it was withdrawn` })
  }
  return thin(all)
}

function look(
  mesh: SimMesh,
  said: ReadonlyMap<NodeId, Version>,
  viewers: (group: readonly SimNode[]) => readonly SimNode[],
): Violation[] {
  const disagreement = findLaggard(mesh, said)
  if (disagreement !== undefined) {
    return [{ check: 'agreement', node: '', atMs: mesh.nowMs, what: disagreement }, ...checkTruth(mesh, viewers)]
  }
  return [...checkTruth(mesh, viewers), ...checkPaths(mesh, viewers)]
}

function thin(violations: readonly Violation[]): Violation[] {
  const seen = new Map<string, number>()
  return violations.filter(({ check }) => {
    const count = (seen.get(check) ?? 0) + 1
    seen.set(check, count)
    return count <= KEPT_MAX
  })
}
