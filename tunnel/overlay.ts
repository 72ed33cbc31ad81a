import type { Duplex } from 'node:stream'
import type { NodeId } from '../router/model.ts'

/** What the owner of an overlay is told. Up and down alternate for each node; round trips come only between them, frames too, and while a link is left. */
export interface OverlayHandler {
  onLinkUp(node: NodeId, rttMs: number): void
  /** `isPlanned`: this end leaves the link, which stays open for a while: what the other end still sends on it is told, and may be answered. */
  onLinkDown(node: NodeId, reason: string, isPlanned: boolean): void
  onRtt(node: NodeId, rttMs: number, lossRatio: number): void
  onFrame(node: NodeId, bytes: Uint8Array): void
  /** The node has opened a stream with `openCalls`. Absent: such streams are refused. */
  onCallStream?(node: NodeId, stream: Duplex): void
}

export interface OverlayLink {
  readonly node: NodeId
  readonly rttMs: number
  readonly lossRatio: number
  readonly address: string
  /** True if this end dialled. */
  readonly dialled: boolean
  /** It carries a stream of calls. */
  readonly isInUse: boolean
  /** Since when, Unix milliseconds. */
  readonly sinceMs: number
}

/**
 * Links to other members, for control: found, proven, kept and redialled for ever without being asked.
 *
 * One contract suite (overlay-contract.ts) runs over every implementation.
 */
export interface Overlay {
  /** Begins to listen and to dial. Resolves with the multiaddrs it listens on. Rejects with MeshError `port-in-use`. */
  start(): Promise<string[]>
  stop(): Promise<void>
  /** Best effort: queued, or dropped. Never throws, also not for a node without a link. */
  send(node: NodeId, bytes: Uint8Array): void
  /**
   * This node exists and is said to be at these multiaddrs: keep a link to it. Replaces what was learned before.
   * `pinned`: these addresses and no others.
   */
  learn(node: NodeId, addresses: readonly string[], pinned?: boolean): void
  /** Stop dialling it. A link that is up stays. */
  forget(node: NodeId): void
  /**
   * Of the nodes that were learned, dial these alone; undefined: all of them, as at first. Links that are up stay.
   * Addresses to join through are dialled as long as there is no link at all.
   */
  choose(wanted: ReadonlySet<NodeId> | undefined): void
  /**
   * Gives up a link that this end alone dialled and that carries no stream of calls; nothing happens to others. It is down at
   * once here (`onLinkDown`, planned) and closed a little later: by then others have heard, and send nothing over it any more.
   */
  leave(node: NodeId): void
  links(): OverlayLink[]
  /** There is a link to this node, and it is up. */
  isLinked(node: NodeId): boolean
  /**
   * Opens a stream of bytes to a neighbour, beside gossip, for a link of calls. It has back-pressure and no proofs of its own.
   * Rejects with MeshError `unreachable` without a link, and with other errors when the other end refuses.
   */
  openCalls(node: NodeId, timeoutMs: number): Promise<Duplex>
}
