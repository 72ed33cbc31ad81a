import type { SimMesh } from './sim-mesh.ts'

/** One look at the whole mesh. */
export interface TrafficSample {
  readonly atMs: number
  /** Gossip bytes a node sent since the look before, per second: over the nodes. */
  readonly p50: number
  readonly p99: number
  /** Routes in a table: over the nodes. */
  readonly routesP50: number
}

/** Samples what each node sends, once a second of virtual time, by its own counters. */
export class Traffic {
  readonly samples: TrafficSample[] = []
  private readonly mesh: SimMesh
  private readonly last = new Map<string, number>()
  private readonly first = new Map<string, { gossip: number; heartbeat: number; frames: number; atMs: number }>()
  private lastMs = 0

  constructor(mesh: SimMesh) {
    this.mesh = mesh
  }

  /** What was sent until now does not count. */
  begin(): void {
    const { nowMs } = this.mesh
    for (const { name, sent } of this.mesh.nodes.values()) {
      this.first.set(name, {
        gossip: sent.gossipBytes,
        heartbeat: sent.heartbeatBytes,
        frames: sent.frames,
        atMs: nowMs,
      })
    }
  }

  sample(withRoutes: boolean): void {
    const { nowMs } = this.mesh
    const seconds = (nowMs - this.lastMs) / 1000
    const rates: number[] = []
    const routes: number[] = []
    for (const node of this.mesh.nodes.values()) {
      rates.push((node.sent.gossipBytes - (this.last.get(node.name) ?? 0)) / seconds)
      this.last.set(node.name, node.sent.gossipBytes)
      if (withRoutes && node.alive) routes.push(node.protocol.routes())
    }
    this.lastMs = nowMs
    rates.sort(ascending)
    routes.sort(ascending)
    const routesP50 = withRoutes ? quantile(routes, 0.5) : (this.samples.at(-1)?.routesP50 ?? 0)
    this.samples.push({ atMs: nowMs, p50: quantile(rates, 0.5), p99: quantile(rates, 0.99), routesP50 })
  }

  /** Bytes per second of each node since `begin`, ascending; and how many frames and heartbeat bytes a node on average. */
  rates(): { gossip: number[]; heartbeatMean: number; framesMean: number } {
    const gossip: number[] = []
    let heartbeats = 0
    let frames = 0
    for (const { name, sent } of this.mesh.nodes.values()) {
      const first = this.first.get(name) ?? { gossip: 0, heartbeat: 0, frames: 0, atMs: 0 }
      const seconds = (this.mesh.nowMs - first.atMs) / 1000
      gossip.push((sent.gossipBytes - first.gossip) / seconds)
      heartbeats += (sent.heartbeatBytes - first.heartbeat) / seconds
      frames += (sent.frames - first.frames) / seconds
    }
    const { size } = this.mesh.nodes
    return { gossip: gossip.sort(ascending), heartbeatMean: heartbeats / size, framesMean: frames / size }
  }
}

export function ascending(a: number, b: number): number {
  return a - b
}

/** Of an ascending list, by the nearest rank; 0 of an empty one. */
export function quantile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(share * sorted.length) - 1))] ?? 0
}
