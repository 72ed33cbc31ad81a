import type { CallResult } from './steady-calls.ts'

export interface Phase {
  readonly name: string
  /** The region that answered, or several with their counts; 'nobody' if there was no answer. */
  readonly answeredBy: string
  readonly calls: number
  readonly p50Ms: number
  readonly p99Ms: number
  /** True if every call sent in this phase was answered, and by the region it should be. */
  readonly isAsExpected: boolean
}

export interface Story {
  readonly killedAtMs: number
  readonly nearest: string
  readonly next: string
}

/** A change is known everywhere within a second (DESIGN, numbers); until then either region is a right answer. */
const RETURN_WITHIN_MS = 1_000

/**
 * The three phases of the demo, from the results of all calls. Times are of `performance.now()`.
 *
 * before: calls answered before the kill. killed: calls sent, or still without answer, from the kill until the nearest
 * region has returned for good. back: calls sent from then on.
 */
export function toPhases(results: readonly CallResult[], story: Story): Phase[] {
  const { killedAtMs, nearest, next } = story
  const returned = returnedAtMs(results, story) ?? Number.POSITIVE_INFINITY
  const settled = settledAtMs(results, story) ?? Number.POSITIVE_INFINITY
  const before = results.filter(call => call.answeredAtMs < killedAtMs)
  const after = results.filter(call => call.answeredAtMs >= killedAtMs)
  const killed = after.filter(call => call.sentAtMs >= killedAtMs && call.sentAtMs < returned)
  const back = after.filter(call => call.sentAtMs >= settled)
  // In flight at the kill, or sent while the nearest region was on its way back: either may have answered.
  const between = after.filter(
    call => call.sentAtMs < killedAtMs || (call.sentAtMs >= returned && call.sentAtMs < settled),
  )
  const isAnswered = between.every(call => call.region === nearest || call.region === next)
  return [
    toPhase('nearest answers', before, nearest),
    toPhase('nearest killed', killed, next, isAnswered, between),
    toPhase('nearest is back', back, nearest),
  ]
}

function toPhase(
  name: string,
  calls: readonly CallResult[],
  expected: string,
  others = true,
  timedToo: readonly CallResult[] = [],
): Phase {
  const counts = new Map<string, number>()
  for (const { region = 'nobody' } of calls) counts.set(region, (counts.get(region) ?? 0) + 1)
  const regions = [...counts].sort(([, a], [, b]) => b - a)
  const spans = toSpans([...calls, ...timedToo])
  return {
    name,
    answeredBy:
      regions.length <= 1 ? (regions[0]?.[0] ?? 'nobody') : regions.map(([region, n]) => `${region} ${n}`).join(', '),
    calls: calls.length + timedToo.length,
    p50Ms: percentile(spans, 0.5),
    p99Ms: percentile(spans, 0.99),
    isAsExpected: others && calls.length > 0 && calls.every(call => call.region === expected),
  }
}

/** When the first call after the kill that the nearest region answered was sent; undefined: none yet. */
export function returnedAtMs(results: readonly CallResult[], { killedAtMs, nearest }: Story): number | undefined {
  const sent = results.filter(call => call.sentAtMs >= killedAtMs && call.region === nearest).map(call => call.sentAtMs)
  return sent.length === 0 ? undefined : Math.min(...sent)
}

/**
 * From when on the calls sent are answered by the nearest region again, all of them as far as one second after its
 * first answer tells; undefined: not yet. What strays later is not part of the return.
 */
export function settledAtMs(results: readonly CallResult[], story: Story): number | undefined {
  const returned = returnedAtMs(results, story)
  if (returned === undefined) return undefined
  const calls = results
    .filter(({ sentAtMs }) => sentAtMs >= returned && sentAtMs < returned + RETURN_WITHIN_MS)
    .sort((a, b) => a.sentAtMs - b.sentAtMs)
  const strayed = calls.findLastIndex(call => call.region !== story.nearest)
  return calls[strayed + 1]?.sentAtMs ?? returned + RETURN_WITHIN_MS
}

/**
 * Milliseconds from the kill until callers no longer notice it: the answer of the first call sent after the kill from
 * which on every call is answered by the next region, until the nearest one is back; and the answers of all calls sent
 * before that one, those in flight at the kill included. Infinity: it never came to that.
 */
export function failoverMs(results: readonly CallResult[], story: Story): number {
  const { killedAtMs, next } = story
  const backAtMs = returnedAtMs(results, story) ?? Number.POSITIVE_INFINITY
  const touched = results
    .filter(call => call.answeredAtMs >= killedAtMs && call.sentAtMs < backAtMs)
    .sort((a, b) => a.sentAtMs - b.sentAtMs)
  const isGood = (call: CallResult): boolean => call.sentAtMs >= killedAtMs && call.region === next
  const settled = touched.findLastIndex(call => !isGood(call)) + 1
  if (settled >= touched.length) return Number.POSITIVE_INFINITY
  return Math.max(...touched.slice(0, settled + 1).map(call => call.answeredAtMs)) - killedAtMs
}

/** How long each took, milliseconds. */
export function toSpans(calls: readonly CallResult[]): number[] {
  return calls.map(call => call.answeredAtMs - call.sentAtMs)
}

/** Nearest-rank percentile; 0 of nothing. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? 0
}
