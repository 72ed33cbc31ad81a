import { BoundedMap } from './bounded-map.ts'
import type { NodeId } from './model.ts'
import { RateLimit } from './rate-limit.ts'

/** What one neighbour may send: ten times what the busiest mesh that was simulated needs, and a full table at once. */
export const NEIGHBOUR_RATE = { perSecond: 8 * 1024 * 1024, burst: 128 * 1024 * 1024 }
/** What one neighbour may ask to be told, as much: a digest of a few bytes asks for a quarter of a megabyte. */
const ANSWER_RATE = NEIGHBOUR_RATE

/** Links given up lately that are remembered. */
const LEAVING_MAX = 256

export interface Neighbour {
  /** It has asked for what is fresh. */
  readonly handOn: boolean
  /** When it was last asked about strangers. */
  askedAtMs: number
  /** Bytes it may still send. */
  readonly rate: RateLimit
  /** Bytes it may still ask for. */
  readonly answers: RateLimit
}

/** The nodes one link away, and which of them want to be handed on what is fresh. */
export class Neighbours {
  private readonly all = new Map<NodeId, { -readonly [K in keyof Neighbour]: Neighbour[K] }>()
  /** Links that are given up but still open. */
  private readonly leaving = new BoundedMap<NodeId, RateLimit>(LEAVING_MAX)
  private ids: readonly NodeId[] | undefined
  private asking: readonly NodeId[] | undefined

  get size(): number {
    return this.all.size
  }

  add(node: NodeId, nowMs: number): void {
    const rate = new RateLimit(NEIGHBOUR_RATE, nowMs)
    const answers = new RateLimit(ANSWER_RATE, nowMs)
    this.all.set(node, { handOn: false, askedAtMs: Number.NEGATIVE_INFINITY, rate, answers })
    this.leaving.delete(node)
    this.forgetLists()
  }

  /** `isPlanned`: the link stays open for a moment, and what comes over it is still counted. */
  delete(node: NodeId, isPlanned: boolean): void {
    const rate = this.all.get(node)?.rate
    if (isPlanned && rate !== undefined) this.leaving.set(node, rate)
    this.all.delete(node)
    this.forgetLists()
  }

  /** Bytes that a node may still send; undefined: it has no link. */
  rateOf(node: NodeId): RateLimit | undefined {
    return this.all.get(node)?.rate ?? this.leaving.get(node)
  }

  get(node: NodeId): Neighbour | undefined {
    return this.all.get(node)
  }

  nodes(): readonly NodeId[] {
    this.ids ??= [...this.all.keys()]
    return this.ids
  }

  /** Those that have asked this node to hand on what is fresh. */
  askers(): readonly NodeId[] {
    this.asking ??= this.nodes().filter(node => this.all.get(node)?.handOn === true)
    return this.asking
  }

  /** Whether that is another wish than before. */
  setHandOn(node: NodeId, handOn: boolean): boolean {
    const neighbour = this.all.get(node)
    if (neighbour === undefined || neighbour.handOn === handOn) return false
    neighbour.handOn = handOn
    this.asking = undefined
    return true
  }

  private forgetLists(): void {
    this.ids = undefined
    this.asking = undefined
  }
}
