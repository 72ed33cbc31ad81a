import { type Duplex, duplexPair } from 'node:stream'
import { MeshError } from '../router/errors.ts'
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

interface MemoryLink {
  readonly sinceMs: number
  readonly frames: Uint8Array[]
  readonly streams: Set<Duplex>
  /** It is down for its owner, and about to be closed. */
  isLeft: boolean
}

/** An overlay inside one process: the same promises as over libp2p, without sockets. For tests of what stands above it. */
export class MemoryOverlay implements Overlay {
  private readonly node: NodeId
  private readonly network: MemoryNetwork
  private readonly handler: OverlayHandler
  private readonly learned = new Set<NodeId>()
  private chosen: ReadonlySet<NodeId> | undefined
  private readonly up = new Map<NodeId, MemoryLink>()

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
    this.learned.add(node)
    this.connect()
    this.network.nodes.get(node)?.connect()
  }

  forget(node: NodeId): void {
    this.learned.delete(node)
  }

  choose(wanted: ReadonlySet<NodeId> | undefined): void {
    this.chosen = wanted
    this.connect()
    for (const node of this.network.nodes.values()) node.connect()
  }

  private wants(node: NodeId): boolean {
    return this.learned.has(node) && (this.chosen === undefined || this.chosen.has(node))
  }

  /** Nobody waits in memory: what is on its way still arrives, that is all. */
  leave(node: NodeId): void {
    const [link, other] = [this.up.get(node), this.network.nodes.get(node)]
    if (link === undefined || link.isLeft || link.streams.size > 0 || other?.wants(this.node) === true) return
    link.isLeft = true
    this.handler.onLinkDown(node, 'left', true)
    setImmediate(() =>
      setImmediate(() => {
        this.drop(node)
        other?.drop(this.node)
        this.connect()
        other?.connect()
      }),
    )
  }

  private isWanted(node: NodeId): boolean {
    return this.wants(node) || this.network.nodes.get(node)?.wants(this.node) === true
  }

  links(): OverlayLink[] {
    return [...this.up]
      .filter(([, { isLeft }]) => !isLeft)
      .map(([node, { sinceMs, streams }]) => {
        const measured = { rttMs: 0, lossRatio: 0, address: `/memory/${node}` }
        return { node, ...measured, dialled: this.wants(node), isInUse: streams.size > 0, sinceMs }
      })
  }

  isLinked(node: NodeId): boolean {
    return this.up.get(node)?.isLeft === false
  }

  async openCalls(node: NodeId): Promise<Duplex> {
    const other = this.network.nodes.get(node)
    if (!this.isLinked(node) || other?.handler.onCallStream === undefined) {
      throw new MeshError('unreachable', `there is no overlay link to ${node} that takes calls`)
    }
    const [mine, theirs] = duplexPair()
    this.keepStream(node, mine)
    other.keepStream(this.node, theirs)
    other.handler.onCallStream(this.node, theirs)
    return mine
  }

  /** Streams end with their link. */
  private keepStream(node: NodeId, stream: Duplex): void {
    const streams = this.up.get(node)?.streams
    streams?.add(stream)
    stream.on('error', () => {})
    stream.once('close', () => streams?.delete(stream))
  }

  /** Brings the links in line with the network: either end may have asked for one. */
  connect(): void {
    for (const node of [...this.up.keys()]) {
      if (!this.network.isOpen(this.node, node)) this.drop(node)
    }
    for (const node of this.network.nodes.keys()) {
      if (node === this.node || this.up.has(node)) continue
      if (!this.isWanted(node) || !this.network.isOpen(this.node, node)) continue
      this.up.set(node, { sinceMs: Date.now(), frames: [], streams: new Set(), isLeft: false })
      setImmediate(() => this.handler.onLinkUp(node, 0))
    }
  }

  private drop(node: NodeId): void {
    const link = this.up.get(node)
    if (link === undefined) return
    for (const stream of link.streams) stream.destroy(new Error('cut'))
    this.up.delete(node)
    if (!link.isLeft) setImmediate(() => this.handler.onLinkDown(node, 'cut', false))
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
