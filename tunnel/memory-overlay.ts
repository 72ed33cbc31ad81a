import type { NodeId } from '../router/model.ts'
import type { Overlay, OverlayHandler, OverlayLink } from './overlay.ts'

/** Frames that may wait at one link of a MemoryNetwork; more are dropped, as a slow link drops them. */
const FRAMES_MAX = 10_000

/** Where MemoryOverlays meet: every node that has started is reachable, unless it was cut off. */
export class MemoryNetwork {
  readonly nodes = new Map<NodeId, MemoryOverlay>()
  private readonly cuts = new Set<string>()

  /** Nothing passes between the two, and both notice, until `heal`. */
  cut(a: NodeId, b: NodeId): void {
    this.cuts.add(pair(a, b))
    this.nodes.get(a)?.connect()
    this.nodes.get(b)?.connect()
  }

  heal(a: NodeId, b: NodeId): void {
    this.cuts.delete(pair(a, b))
    this.nodes.get(a)?.connect()
    this.nodes.get(b)?.connect()
  }

  isOpen(a: NodeId, b: NodeId): boolean {
    return this.nodes.has(a) && this.nodes.has(b) && !this.cuts.has(pair(a, b))
  }
}

/** An overlay inside one process: the same promises as over libp2p, without sockets. For tests of what stands above it. */
export class MemoryOverlay implements Overlay {
  private readonly node: NodeId
  private readonly network: MemoryNetwork
  private readonly handler: OverlayHandler
  private readonly wanted = new Set<NodeId>()
  private readonly up = new Map<NodeId, { sinceMs: number; frames: Uint8Array[] }>()

  constructor(deps: { node: NodeId; network: MemoryNetwork; handler: OverlayHandler }) {
    this.node = deps.node
    this.network = deps.network
    this.handler = deps.handler
  }

  async start(): Promise<string[]> {
    this.network.nodes.set(this.node, this)
    for (const other of this.network.nodes.values()) other.connect()
    return [`/memory/${this.node}`]
  }

  async stop(): Promise<void> {
    this.network.nodes.delete(this.node)
    this.connect()
    for (const other of this.network.nodes.values()) other.connect()
  }

  send(node: NodeId, bytes: Uint8Array): void {
    const frames = this.network.nodes.get(node)?.up.get(this.node)?.frames
    if (!this.up.has(node) || frames === undefined || frames.length >= FRAMES_MAX) return
    frames.push(bytes.slice())
    if (frames.length === 1) setImmediate(() => this.network.nodes.get(node)?.deliver(this.node))
  }

  learn(node: NodeId): void {
    if (node === this.node) return
    this.wanted.add(node)
    this.connect()
    this.network.nodes.get(node)?.connect()
  }

  forget(node: NodeId): void {
    this.wanted.delete(node)
  }

  links(): OverlayLink[] {
    return [...this.up].map(([node, { sinceMs }]) => {
      return { node, rttMs: 0, lossRatio: 0, address: `/memory/${node}`, dialled: this.wanted.has(node), sinceMs }
    })
  }

  /** Brings the links in line with the network: either end may have asked for one. */
  connect(): void {
    for (const node of [...this.up.keys()]) {
      if (this.network.isOpen(this.node, node)) continue
      this.up.delete(node)
      setImmediate(() => this.handler.onLinkDown(node, 'cut'))
    }
    for (const [node, other] of this.network.nodes) {
      const isWanted = this.wanted.has(node) || other.wanted.has(this.node)
      if (node === this.node || !isWanted || this.up.has(node) || !this.network.isOpen(this.node, node)) continue
      this.up.set(node, { sinceMs: Date.now(), frames: [] })
      setImmediate(() => this.handler.onLinkUp(node, 0))
    }
  }

  private deliver(from: NodeId): void {
    const link = this.up.get(from)
    if (link === undefined) return
    const frames = link.frames.splice(0)
    for (const bytes of frames) this.handler.onFrame(from, bytes)
  }
}

function pair(a: NodeId, b: NodeId): string {
  return a < b ? `${a} ${b}` : `${b} ${a}`
}
