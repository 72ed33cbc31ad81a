import type { NodeId } from '../../router/model.ts'
import { HOP_COST_MS, HOPS_MAX } from '../../router/paths.ts'
import type { Violation } from './checkers.ts'
import type { SimMesh } from './sim-mesh.ts'
import type { LinkEnd, SimNode } from './sim-node.ts'
import type { SimProtocol } from './sim-protocol.ts'

/** By how much a link's published round trip may be off: the router's own deadband (10 % and 2 ms) and half again for smoothing. */
const RTT_SLACK_RATIO = 0.15
const RTT_SLACK_MS = 3
/** Published loss may be off by the deadband of a tenth; a tenth of loss makes a link a fifth dearer. */
const LOSS_SLACK_RATIO = 0.25

interface TrueLink {
  readonly to: SimNode
  /** One end gives it up: it still works, and a path over it is right as long as it does, but none must lead there. */
  readonly isLeaving: boolean
  readonly costMs: number
  readonly slackMs: number
}

/**
 * Paths against the links as they are: each leads over working links and through nodes that relay, passes no node twice and not the node itself, ends
 * at its owner, is at most `HOPS_MAX` long, and costs no more than the cheapest of a plain search, give or take what the
 * deadband hides and what has wandered since it was published. Whoever can be reached in that many hops has a path, and nobody else has.
 */
export function checkPaths(mesh: SimMesh, viewers: (group: readonly SimNode[]) => readonly SimNode[]): Violation[] {
  const links = new Map<SimNode, TrueLink[]>()
  for (const node of mesh.living()) links.set(node, trueLinks(mesh, node))
  const deadEnds = new Set([...mesh.nodes.values()].filter(({ relays }) => !relays).map(({ id }) => id))
  const violations: Violation[] = []
  for (const group of mesh.components()) {
    for (const node of viewers(group)) {
      if (!node.protocol.carriesHealth) continue
      const best = searchCheapest(node, links)
      for (const target of mesh.nodes.values()) {
        if (target === node) continue
        const what = judge(mesh, node, target, node.protocol, best.get(target), links, deadEnds)
        if (what !== undefined) violations.push({ check: 'paths', node: node.name, atMs: mesh.nowMs, what })
      }
    }
  }
  return violations
}

interface Cheapest {
  readonly costMs: number
  readonly slackMs: number
}

function judge(
  mesh: SimMesh,
  node: SimNode,
  target: SimNode,
  protocol: SimProtocol,
  best: Cheapest | undefined,
  links: ReadonlyMap<SimNode, readonly TrueLink[]>,
  deadEnds: ReadonlySet<NodeId>,
): string | undefined {
  const path = protocol.path(target.id)
  if (path === undefined) return best === undefined ? undefined : `no path to ${target.name}, which can be reached`
  const said = `path to ${target.name} via ${path.map(id => mesh.nameOf(id)).join('>')}`
  if (path.at(-1) !== target.id) return `${said} does not end there`
  if (path.length > HOPS_MAX) return `${said} is longer than ${HOPS_MAX} hops`
  const through = path.slice(0, -1).find(id => deadEnds.has(id))
  if (through !== undefined) return `${said} leads through ${mesh.nameOf(through)}, which passes nothing on`
  if (path.includes(node.id) || new Set(path).size !== path.length) return `${said} passes a node twice`
  const chosen = costOf(mesh, node, path, links)
  if (typeof chosen === 'string') return `${said} uses a link that is down: ${chosen}`
  if (best === undefined) return undefined
  if (chosen.costMs <= best.costMs + best.slackMs + chosen.slackMs) return undefined
  return `${said} costs ${chosen.costMs.toFixed(1)} ms, the cheapest ${best.costMs.toFixed(1)} ms`
}

function costOf(
  mesh: SimMesh,
  from: SimNode,
  path: readonly NodeId[],
  links: ReadonlyMap<SimNode, readonly TrueLink[]>,
): Cheapest | string {
  let [costMs, slackMs] = [0, 0]
  let at = from
  for (const id of path) {
    const link = links.get(at)?.find(({ to }) => to.id === id)
    if (link === undefined) return `${at.name}-${mesh.nameOf(id)}`
    costMs += link.costMs
    slackMs += link.slackMs
    at = link.to
  }
  return { costMs, slackMs }
}

/** Cheapest costs over at most `HOPS_MAX` links, by trying every link once a round: slow, plain, and written apart from the router's. */
function searchCheapest(from: SimNode, links: ReadonlyMap<SimNode, readonly TrueLink[]>): Map<SimNode, Cheapest> {
  let reached = new Map<SimNode, Cheapest>([[from, { costMs: 0, slackMs: 0 }]])
  for (let hop = 0; hop < HOPS_MAX; hop++) {
    const next = new Map(reached)
    for (const [node, { costMs, slackMs }] of reached) {
      if (!node.relays && node !== from) continue
      for (const link of links.get(node) ?? []) {
        if (link.isLeaving) continue
        const known = next.get(link.to)
        if (known !== undefined && known.costMs <= costMs + link.costMs) continue
        next.set(link.to, { costMs: costMs + link.costMs, slackMs: slackMs + link.slackMs })
      }
    }
    reached = next
  }
  reached.delete(from)
  return reached
}

/** What the two ends have measured; the dearer of the two counts, as in the router. */
function trueLinks(mesh: SimMesh, node: SimNode): TrueLink[] {
  const links: TrueLink[] = []
  for (const end of node.ends.values()) {
    if (end.other === undefined || !mesh.isWorking(end)) continue
    const [mine, theirs] = [measured(end), measured(end.other)]
    const costMs = Math.max(cost(mine), cost(theirs))
    const rttMs = Math.max(mine.rttMs, theirs.rttMs)
    const lossSlack = mine.lossRatio > 0 || theirs.lossRatio > 0 ? LOSS_SLACK_RATIO : 0
    const unrestMs = Math.max(end.unrestMs(), end.other.unrestMs())
    const isLeaving = end.isLeaving || end.other.isLeaving
    links.push({
      to: end.peer,
      isLeaving,
      costMs,
      slackMs: RTT_SLACK_MS + rttMs * (RTT_SLACK_RATIO + lossSlack) + unrestMs,
    })
  }
  return links
}

function measured({ toldRttMs, toldLossRatio }: LinkEnd): { rttMs: number; lossRatio: number } {
  return { rttMs: toldRttMs, lossRatio: toldLossRatio }
}

function cost({ rttMs, lossRatio }: { rttMs: number; lossRatio: number }): number {
  return rttMs * (1 + 2 * lossRatio) + HOP_COST_MS
}
