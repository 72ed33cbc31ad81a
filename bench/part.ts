import type { Chain, ChainName } from './chain.ts'

/** Figures by name, the unit in the name. One round's, or the medians of all rounds. */
export type Figures = Readonly<Record<string, number>>

export interface PartOptions {
  /** Of one run of load. */
  readonly seconds: number
  /** The same two hops, started anew; the caller stops them. */
  readonly startFresh: (name: ChainName) => Promise<Chain>
}

/**
 * Of each run of small calls, before it is measured: parts take turns, and what a daemon's compiler and heap are used to
 * from the part before is not what this one costs while it lasts.
 */
export const LEAD_IN_SECONDS = 2

/** One subject of the bench of calls: measured chain by chain and round by round, so that what disturbs the machine disturbs all. */
export interface Part {
  readonly name: 'http' | 'bulk' | 'grpc' | 'tcp' | 'idle'
  readonly title: string
  /** It measures processes of its own, which need no warming up here. */
  readonly startsFresh?: true
  /** Why a chain has no figures here; undefined: it has. */
  leaveOut(chain: Chain): string | undefined
  measure(chain: Chain, options: PartOptions): Promise<Figures>
  /** Ours to a peer's, of medians: below 1 is less than the peer. */
  ratio(ours: Figures, peer: Figures): Figures
  /** Of the table for people: heads, and what stands below each. */
  readonly columns: readonly (readonly [head: string, show: (figures: Figures) => string])[]
}

export function divide(ours: Figures, peer: Figures, ...names: readonly string[]): number {
  const sum = (figures: Figures): number => names.reduce((total, name) => total + (figures[name] ?? Number.NaN), 0)
  return sum(ours) / sum(peer)
}

/** Of a table: the figures by name, with a slash between them. */
export function show(...names: readonly string[]): (figures: Figures) => string {
  const cell = (value: number | undefined): string => (value === undefined ? '–' : String(shorten(value)))
  return figures => names.map(name => cell(figures[name])).join(' / ')
}

/** Medians by name; what is counted as an error is summed. */
export function summarize(rounds: readonly Figures[]): Figures {
  const names = Object.keys(rounds[0] ?? {})
  return Object.fromEntries(
    names.map(name => {
      const values = rounds.map(figures => figures[name] ?? Number.NaN)
      if (name === 'errors') return [name, values.reduce((total, value) => total + value, 0)]
      return [name, shorten(median(values))]
    }),
  )
}

/** The middle one; of an even number of values the greater of the two. NaN of none. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
}

/** Three digits say all that a run is good for. */
export function shorten(value: number): number {
  if (Math.abs(value) >= 100) return Math.round(value)
  return Number(value.toPrecision(3))
}
