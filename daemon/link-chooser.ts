import { chooseLinks, LINK_CHOICE_DEFAULTS, type LinkChoiceOptions, type LinkPeer } from '../router/link-choice.ts'
import type { NodeId } from '../router/model.ts'

export interface LinkChooserDeps {
  readonly self: NodeId
  /** Nodes whose addresses are known, dead ones included: whoever was split off for long must be found again. */
  known(): Iterable<NodeId>
  /** Others that the table holds now; those that nobody has reached for days are not among them. */
  inTable(): number
  /** Measured, or along the best path; undefined: no way leads there. */
  rttMs(node: NodeId): number | undefined
  linkCount(): number
  /** undefined: links to all. */
  choose(wanted: ReadonlySet<NodeId> | undefined): void
  /** Uniform in [0, 1). */
  random(): number
}

export interface LinkChooserOptions extends LinkChoiceOptions {
  /** Between two choices. */
  readonly periodMs: number
  /** From news to a choice: many nodes become known at once. In a sparse overlay a choice costs more than it changes. */
  readonly soonMs: number
  readonly soonSparseMs: number
}

export const LINK_CHOOSER_DEFAULTS: LinkChooserOptions = {
  ...LINK_CHOICE_DEFAULTS,
  // As in the simulator, whose runs of a thousand nodes these were found with.
  periodMs: 5000,
  soonMs: 250,
  soonSparseMs: 2000,
}

/** What a call counts for after each period: half of it after half a minute. */
const CALLS_KEPT_SHARE = 0.9
/** Below this a node is no longer one that is called. */
const CALLS_MIN = 0.5
/** Others that a node without any link tries in each period, beside its choice: those it chose may all be gone. */
const LONELY_TRIES = 8

/** Says again and again which nodes the overlay keeps links to: to all in a small mesh, to a few in a large one. */
export class LinkChooser {
  private readonly deps: LinkChooserDeps
  private readonly options: LinkChooserOptions
  private readonly calls = new Map<NodeId, number>()
  private wanted: ReadonlySet<NodeId> = new Set()
  private timer: NodeJS.Timeout | undefined
  private soon: NodeJS.Timeout | undefined
  private isSparse = false

  constructor(deps: LinkChooserDeps, options: Partial<LinkChooserOptions> = {}) {
    this.deps = deps
    this.options = { ...LINK_CHOOSER_DEFAULTS, ...options }
  }

  start(): void {
    this.timer = setInterval(() => {
      this.fade()
      this.choose()
    }, this.options.periodMs)
    this.choose()
  }

  stop(): void {
    clearInterval(this.timer)
    clearTimeout(this.soon)
  }

  /** A node became known, or was forgotten: choose again soon. */
  onNews(): void {
    if (this.timer === undefined || this.soon !== undefined) return
    this.soon = setTimeout(
      () => {
        this.soon = undefined
        this.choose()
      },
      this.isSparse ? this.options.soonSparseMs : this.options.soonMs,
    )
  }

  /** A call went there. */
  onCall(node: NodeId): void {
    this.calls.set(node, (this.calls.get(node) ?? 0) + 1)
  }

  /** Chooses now and tells the overlay. */
  choose(): void {
    const { deps, options } = this
    const known = [...deps.known()].filter(node => node !== deps.self)
    // What was known from earlier lives counts only until the table says how many there are.
    const count = deps.inTable() > 0 ? deps.inTable() : known.length
    this.isSparse = count >= options.fullMeshMax
    if (!this.isSparse) {
      deps.choose(undefined)
      return
    }
    const peers = known.map((node): LinkPeer => {
      return { node, rttMs: deps.rttMs(node), calls: this.calls.get(node) ?? 0 }
    })
    // Sparse it is, however many of those whose addresses are known.
    const wanted = chooseLinks(deps.self, peers, this.wanted, { ...options, fullMeshMax: 0 })
    this.wanted = wanted
    deps.choose(deps.linkCount() > 0 ? wanted : new Set([...wanted, ...this.someOf(known)]))
  }

  private fade(): void {
    for (const [node, count] of this.calls) {
      if (count * CALLS_KEPT_SHARE < CALLS_MIN) this.calls.delete(node)
      else this.calls.set(node, count * CALLS_KEPT_SHARE)
    }
  }

  private someOf(known: readonly NodeId[]): NodeId[] {
    const left = [...known]
    const some: NodeId[] = []
    while (some.length < LONELY_TRIES && left.length > 0) {
      some.push(...left.splice(Math.floor(this.deps.random() * left.length), 1))
    }
    return some
  }
}
