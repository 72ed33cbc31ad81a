import type { Batch, BatchHead } from './batch.ts'
import { DigestIndex, isInScope, type Scope } from './digest-index.ts'
import { DIGEST_ORIGINS_MAX, type SignedBatch, type Version } from './frame.ts'
import { sizeOf } from './kept-batch.ts'
import type { NodeId } from './model.ts'
import { NodeMap, type NodeNumbers } from './node-numbers.ts'
import type { OriginLog } from './origin-log.ts'
import type { RateLimit } from './rate-limit.ts'

/** What is held of another node. */
export interface Peer {
  readonly log: OriginLog
  readonly proof: Uint8Array
  /** New batches of it that may still come. */
  readonly rate: RateLimit
  /** Since when no path leads there; undefined while one does. */
  unreachableSinceMs: number | undefined
}

interface Forgotten extends Version {
  readonly untilMs: number
  proof: Uint8Array
}

/** What answers a digest. */
export interface Missing {
  readonly proofs: Uint8Array[]
  readonly batches: SignedBatch[]
  readonly bytes: number
}

/**
 * The records this node holds: its own, others', and of those it dropped how far it knew them. Answers who lacks what.
 * Decides nothing about time or links, and trusts what it is given: signatures and limits are the router's.
 */
export class Records {
  readonly index: DigestIndex
  /** Bytes of batches held for others. */
  bytesHeld = 0
  private readonly self: NodeId
  private readonly proof: Uint8Array
  private readonly ownLog: OriginLog
  private readonly peers: NodeMap<Peer>
  private readonly forgotten = new Map<NodeId, Forgotten>()

  constructor(self: NodeId, proof: Uint8Array, ownLog: OriginLog, numbers: NodeNumbers) {
    this.index = new DigestIndex(numbers)
    this.peers = new NodeMap(numbers)
    this.self = self
    this.proof = proof
    this.ownLog = ownLog
  }

  /** Others that are known. */
  get size(): number {
    return this.peers.size
  }

  peer(node: NodeId): Peer | undefined {
    return this.peers.get(node)
  }

  all(): IterableIterator<[NodeId, Peer]> {
    return this.peers.entries()
  }

  logOf(origin: NodeId): OriginLog | undefined {
    return origin === this.self ? this.ownLog : this.peers.get(origin)?.log
  }

  add(node: NodeId, peer: Peer): void {
    this.peers.set(node, peer)
    this.forgotten.delete(node)
  }

  /** A log has grown: the next digests say so. */
  onGrown(origin: NodeId, log: OriginLog, nowMs: number): void {
    this.index.set(origin, versionOf(log), nowMs)
  }

  // What was dropped ---------------------------------------------------------------------------------------------

  drop(node: NodeId, untilMs: number): void {
    const peer = this.peers.get(node)
    if (peer === undefined) return
    this.forgotten.set(node, { ...versionOf(peer.log), proof: peer.proof, untilMs })
    this.bytesHeld -= peer.log.bytes
    this.peers.delete(node)
    this.index.delete(node)
  }

  /** Ends the memory of those that were dropped long ago. */
  sweep(nowMs: number): void {
    for (const [node, { untilMs }] of this.forgotten) if (nowMs >= untilMs) this.forgotten.delete(node)
  }

  /** The membership proof of a node that was dropped. */
  forgottenProof(node: NodeId): Uint8Array | undefined {
    return this.forgotten.get(node)?.proof
  }

  /** A dropped node proves its membership anew. Answers whether it is one. */
  renew(node: NodeId, proof: Uint8Array): boolean {
    const forgotten = this.forgotten.get(node)
    if (forgotten !== undefined) forgotten.proof = proof
    return forgotten !== undefined
  }

  /** Whether a node that was dropped for its absence has something new to say, if this batch is true. */
  isBack({ origin, incarnation, seq }: Batch): boolean {
    const forgotten = this.forgotten.get(origin)
    return forgotten !== undefined && isNewer({ incarnation, contiguous: seq }, forgotten)
  }

  // Digests ------------------------------------------------------------------------------------------------------

  /** How far everyone is known, this node included. */
  versions(): Map<NodeId, Version> {
    const versions = new Map<NodeId, Version>()
    versions.set(this.self, versionOf(this.ownLog))
    for (const [id, peer] of this.peers.entries()) versions.set(id, versionOf(peer.log))
    return versions
  }

  /** The same of those in `scope` (undefined: all), with those that were dropped, as much as one digest may say. */
  digest(scope: Scope | undefined): Map<NodeId, Version> {
    const versions = new Map<NodeId, Version>()
    for (const node of this.index.originsIn(scope)) {
      const log = this.logOf(node)
      if (log !== undefined && versions.size < DIGEST_ORIGINS_MAX) versions.set(node, versionOf(log))
    }
    for (const [node, version] of this.forgotten) {
      const isMeant = scope === undefined || isInScope(node, scope)
      if (isMeant && versions.size < DIGEST_ORIGINS_MAX && !versions.has(node)) versions.set(node, version)
    }
    return versions
  }

  /** Whether somebody who knows `theirs` knows more of anyone. */
  isBehind(theirs: ReadonlyMap<NodeId, Version>): boolean {
    for (const [origin, their] of theirs) {
      const known = this.logOf(origin) ?? this.forgotten.get(origin)
      if (known === undefined || isNewer(their, known)) return true
    }
    return false
  }

  /**
   * What somebody who knows `theirs` of `scope` lacks, about `bytesMax` of it. `from` 0..1: where among the origins to
   * begin; who asks several neighbours in turn gets another part from each.
   */
  missingOf(theirs: ReadonlyMap<NodeId, Version>, scope: Scope | undefined, bytesMax: number, from: number): Missing {
    const proofs: Uint8Array[] = []
    const batches: SignedBatch[] = []
    let bytes = 0
    const origins = this.index.originsIn(scope)
    const first = Math.floor(from * origins.length)
    for (let i = 0; i < origins.length && bytes < bytesMax; i++) {
      const origin = origins[(first + i) % origins.length] as NodeId
      const log = this.logOf(origin)
      const their = theirs.get(origin)
      if (log === undefined || (their !== undefined && their.incarnation > log.incarnation)) continue
      const proof = this.proofOf(origin)
      if (their === undefined && proof !== undefined) {
        proofs.push(proof)
        bytes += proof.length
      }
      const after = their?.incarnation === log.incarnation ? their.contiguous : 0
      if (after >= log.newest) continue
      // An origin's window is of use only when it is whole, so the limit is looked at between origins.
      for (const batch of log.batchesAfter(after)) {
        batches.push(batch)
        bytes += sizeOf(batch)
      }
    }
    return { proofs, batches, bytes }
  }

  private proofOf(origin: NodeId): Uint8Array | undefined {
    return origin === this.self ? this.proof : this.peers.get(origin)?.proof
  }
}

export function versionOf({ incarnation, contiguous }: OriginLog): Version {
  return { incarnation, contiguous }
}

export function isNewer(a: Version, b: Version): boolean {
  return a.incarnation > b.incarnation || (a.incarnation === b.incarnation && a.contiguous > b.contiguous)
}

/** Whether this log holds the batch, or is past it. */
export function isKnown(log: OriginLog, { incarnation, seq }: BatchHead): boolean {
  return incarnation < log.incarnation || (incarnation === log.incarnation && log.holds(seq))
}
