import type { LocalService, ServiceName } from '../../router/model.ts'
import type { MeshObserver, SimMesh } from './sim-mesh.ts'
import type { SimNode } from './sim-node.ts'
import type { Sights } from './watches.ts'

/** A change that was not seen everywhere after so long is asked whether it still can be. */
const SUSPECT_MS = 1000

/** How long a route that came back must stand to have risen from the dead. One digest round and a half. */
const RISEN_MS = 3000

interface Change {
  readonly owner: SimNode
  readonly life: number
  readonly service: LocalService
  readonly atMs: number
  readonly watch: number
  readonly pending: Set<SimNode>
  lastMs: number
}

interface Withdrawn {
  readonly watch: number
  /** The nodes that held the route then, and whether each has dropped it since. */
  readonly holders: Map<SimNode, 'held' | 'dropped'>
}

/** A node that shows again what it had dropped, though its owner had withdrawn it for good. */
export interface Resurrection {
  readonly node: string
  readonly owner: string
  readonly service: ServiceName
  readonly atMs: number
}

/**
 * Measures how long a registry's change takes to show at every node: from the event at its owner to the last node that
 * was alive then, stayed alive, and stayed connected to the owner. Also catches what comes back from the dead.
 */
export class Convergence implements MeshObserver {
  /** Milliseconds each change took, in the order in which they were complete. */
  readonly tookMs: number[] = []
  readonly resurrections: Resurrection[] = []
  changes = 0
  /** Overtaken by another change of the same route, or their owner went away: no figure. */
  abandoned = 0
  /** Nodes left out of a change because they were cut off from its owner. */
  excluded = 0
  isMeasuring = true
  private readonly mesh: SimMesh
  private readonly open = new Map<ServiceName, Change[]>()
  /** Withdrawn routes, by their owners. */
  private readonly withdrawn = new Map<ServiceName, Map<SimNode, Withdrawn>>()

  constructor(mesh: SimMesh) {
    this.mesh = mesh
  }

  onLocal(owner: SimNode, service: LocalService, before: LocalService | undefined): void {
    this.abandon(change => change.owner === owner && change.service.name === service.name)
    this.withdrawn.get(service.name)?.delete(owner)
    const watch = this.mesh.watch(owner, service)
    if (service.instances === 0) this.onWithdrawn(owner, service.name, watch)
    const pending = new Set(this.mesh.living())
    pending.delete(owner)
    const isVisible = owner.protocol.carriesHealth || before === undefined || service.instances === 0
    if (!this.isMeasuring || !isVisible || pending.size === 0) {
      this.endWatch(owner, service.name)
      return
    }
    this.changes++
    const { nowMs } = this.mesh
    const change = { owner, life: owner.life, service, atMs: nowMs, watch, pending, lastMs: nowMs }
    const open = this.open.get(service.name)
    if (open === undefined) this.open.set(service.name, [change])
    else open.push(change)
  }

  onRoutes(node: SimNode, service: ServiceName, sights: Sights): void {
    for (const change of this.open.get(service) ?? []) {
      const sight = sights.get(change.owner.id)
      if (sight?.watch === change.watch && sight.shows && change.pending.has(node)) this.see(change, node)
    }
    for (const [owner, { watch, holders }] of this.withdrawn.get(service) ?? []) {
      const sight = sights.get(owner.id)
      const state = holders.get(node)
      // A node that has just started may still be told of what was, before it is told that it is over.
      if (state === undefined || sight?.watch !== watch) continue
      if (!sight.has) holders.set(node, 'dropped')
      else if (state === 'dropped') this.suspect(node, owner, service)
    }
  }

  /**
   * Who hears of an owner's new incarnation in pieces may drop a route, be told of its past, and then of its end. That
   * is over in a moment; what has risen from the dead stays.
   */
  private suspect(node: SimNode, owner: SimNode, service: ServiceName): void {
    const { life } = node
    const { nowMs } = this.mesh
    this.mesh.queue.after(RISEN_MS, () => {
      const isWithdrawn = this.withdrawn.get(service)?.get(owner)?.holders.has(node)
      if (!isWithdrawn || node.life !== life || node.frozen || !node.protocol.has(owner.id, service)) return
      this.resurrections.push({ node: node.name, owner: owner.name, service, atMs: nowMs })
    })
  }

  private onWithdrawn(owner: SimNode, service: ServiceName, watch: number): void {
    const holders = new Map(this.mesh.holders(owner, service).map(node => [node, 'held' as 'held' | 'dropped']))
    const byOwner = this.withdrawn.get(service) ?? new Map<SimNode, Withdrawn>()
    this.withdrawn.set(service, byOwner.set(owner, { watch, holders }))
  }

  /** Unless there is more to be seen of the route. */
  private endWatch(owner: SimNode, service: ServiceName): void {
    if (this.withdrawn.get(service)?.has(owner)) return
    if (!this.open.get(service)?.some(change => change.owner === owner)) this.mesh.unwatch(owner, service)
  }

  /** Its registry may have changed while it was down. */
  onUp(node: SimNode): void {
    for (const service of node.services.keys()) {
      if (this.withdrawn.get(service)?.delete(node)) this.endWatch(node, service)
    }
  }

  onDown(node: SimNode): void {
    this.abandon(change => change.owner === node)
    for (const changes of [...this.open.values()]) for (const change of [...changes]) this.drop(change, node)
    for (const byOwner of this.withdrawn.values()) for (const { holders } of byOwner.values()) holders.delete(node)
  }

  /** To be called about once a second: leaves out nodes that a change cannot reach. */
  sweep(): void {
    const overdue = [...this.open.values()].flat().filter(change => this.mesh.nowMs - change.atMs > SUSPECT_MS)
    if (overdue.length === 0) return
    const groupOf = new Map<SimNode, number>()
    for (const [i, group] of this.mesh.components().entries()) for (const node of group) groupOf.set(node, i)
    for (const change of overdue) {
      for (const node of [...change.pending]) {
        // Frozen nodes and repeated states raise no event; a look at the table settles it.
        if (node.protocol.shows(change.owner.id, change.service)) {
          this.see(change, node)
          continue
        }
        const group = groupOf.get(node)
        if (group !== undefined && group === groupOf.get(change.owner)) continue
        this.excluded++
        this.drop(change, node)
      }
    }
  }

  /** Changes that some node has still not seen, oldest first, in words. */
  unfinished(): string[] {
    const open = [...this.open.values()].flat().sort((a, b) => a.atMs - b.atMs)
    return open.map(({ owner, service, atMs, pending }) => {
      const [node] = pending
      return `${service.name} of ${owner.name}, changed at ${Math.round(atMs)} ms, missing at ${pending.size} nodes (${node?.name} …)`
    })
  }

  private see(change: Change, node: SimNode): void {
    change.lastMs = this.mesh.nowMs
    this.drop(change, node)
  }

  private drop(change: Change, node: SimNode): void {
    if (change.pending.delete(node) && change.pending.size === 0) this.complete(change)
  }

  private complete(change: Change): void {
    this.remove(change)
    this.tookMs.push(change.lastMs - change.atMs)
  }

  private abandon(isGone: (change: Change) => boolean): void {
    for (const changes of [...this.open.values()]) {
      for (const change of changes.filter(isGone)) {
        this.remove(change)
        this.abandoned++
      }
    }
  }

  private remove(change: Change): void {
    const { name } = change.service
    const rest = (this.open.get(name) ?? []).filter(other => other !== change)
    if (rest.length === 0) this.open.delete(name)
    else this.open.set(name, rest)
    this.endWatch(change.owner, name)
  }
}
