import { LinkPolicy, type LinkPolicyOptions, type StandingLink, type Surroundings } from '../router/link-policy.ts'
import type { NodeId } from '../router/model.ts'

export interface LinkChooserDeps {
  readonly self: NodeId
  /** Nodes whose addresses are known, dead ones included: whoever was split off for long must be found again. */
  known(): Iterable<NodeId>
  /** Others that the table holds now; those that nobody has reached for days are not among them. */
  inTable(): number
  nearest: Surroundings['nearest']
  links(): readonly StandingLink[]
  /** `wanted` undefined: links to all. `isSparse`: links are few, and others than these of no use. */
  choose(wanted: ReadonlySet<NodeId> | undefined, isSparse: boolean): void
  /** Gives up a link. */
  leave(node: NodeId): void
  /** Monotonic milliseconds. */
  nowMs(): number
  /** Uniform in [0, 1). */
  random(): number
}

/** Gives the policy of links its time and what it has to see, and carries out what it decides. */
export class LinkChooser {
  private readonly deps: LinkChooserDeps
  private readonly policy: LinkPolicy
  private isStarted = false
  private timer: NodeJS.Timeout | undefined
  private planned: NodeJS.Timeout | undefined
  /** Whoever becomes known is dialled at once. */
  private isOpen = false

  constructor(deps: LinkChooserDeps, options: Partial<LinkPolicyOptions> = {}) {
    this.deps = deps
    this.policy = new LinkPolicy(deps, options)
  }

  start(): void {
    this.isStarted = true
    this.choose('start')
  }

  stop(): void {
    clearTimeout(this.timer)
    clearTimeout(this.planned)
    this.isStarted = false
  }

  /** A node became known. To be told before the overlay learns of it. */
  onNews(): void {
    if (!this.isStarted) return
    const known = this.known()
    const wanted = this.policy.hold(known.length)
    if (this.isOpen && wanted !== undefined) {
      this.isOpen = false
      this.deps.choose(wanted, false)
    }
    this.plan(this.policy.onNews(this.count(known), this.deps.nowMs()))
  }

  /** A call went there. */
  onCall(node: NodeId): void {
    this.policy.onCall(node)
  }

  onLinkUp(node: NodeId): void {
    this.policy.onLinkUp(node)
  }

  /** Chooses now and tells the overlay. */
  choose(occasion: 'start' | 'period' | 'planned'): void {
    const { deps } = this
    const known = this.known()
    const seen = { known, count: this.count(known), links: deps.links(), nearest: deps.nearest }
    const { wanted, isAll, isSparse, leave, periodMs, againAtMs } = this.policy.choose(seen, deps.nowMs(), occasion)
    this.plan(againAtMs)
    if (occasion !== 'planned' && this.isStarted) {
      clearTimeout(this.timer)
      this.timer = setTimeout(() => this.choose('period'), periodMs)
    }
    this.isOpen = isAll
    deps.choose(isAll ? undefined : wanted, isSparse)
    for (const node of leave) deps.leave(node)
  }

  private known(): NodeId[] {
    return [...this.deps.known()].filter(node => node !== this.deps.self)
  }

  /** What was known from earlier lives counts only until the table says how many there are. */
  private count(known: readonly NodeId[]): number {
    const inTable = this.deps.inTable()
    return inTable > 0 ? inTable : known.length
  }

  private plan(atMs: number | undefined): void {
    if (atMs === undefined || !this.isStarted) return
    clearTimeout(this.planned)
    this.planned = setTimeout(() => this.choose('planned'), Math.max(0, Math.ceil(atMs - this.deps.nowMs())))
  }
}
