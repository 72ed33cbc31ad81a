import { constants, type NodeGCPerformanceDetail, type PerformanceEntry, PerformanceObserver } from 'node:perf_hooks'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { countPassed } from './young-garbage.ts'

/** As the types of Node do not say: entries of type `gc` have it. */
type GcEntry = PerformanceEntry & { readonly detail: NodeGCPerformanceDetail }

const CHUNK_BYTES = 64 * 1024
/** Of 6 MiB. */
const CHUNKS = 96
const PERIODS = 3

test('the young part of the heap, and no more of it, is collected with each 6 MiB that have passed', async () => {
  const found: { kind: number | undefined; atMs: number }[] = []
  const told = Promise.withResolvers<void>()
  const observer = new PerformanceObserver(list => {
    for (const { startTime, detail } of list.getEntries() as GcEntry[]) {
      // V8's own collections are not forced.
      const isForced = ((detail.flags ?? 0) & constants.NODE_PERFORMANCE_GC_FLAGS_FORCED) !== 0
      if (isForced) found.push({ kind: detail.kind, atMs: startTime })
    }
    if (found.length >= PERIODS) told.resolve()
  })
  observer.observe({ entryTypes: ['gc'] })
  const due: { fromMs: number; untilMs: number }[] = []
  for (let i = 1; i <= PERIODS * CHUNKS; i++) {
    const fromMs = performance.now()
    countPassed(CHUNK_BYTES)
    if (i % CHUNKS === 0) due.push({ fromMs, untilMs: performance.now() })
  }
  await told.promise
  // Any that were too many have been told of after this.
  await nextTurn()
  observer.disconnect()
  expect(found.map(({ kind }) => kind)).toEqual(due.map(() => constants.NODE_PERFORMANCE_GC_MINOR))
  // In the very call that filled the period: an order of events, not how long they took.
  for (const [i, { fromMs, untilMs }] of due.entries()) {
    expect(found[i]?.atMs).toBeGreaterThanOrEqual(fromMs)
    expect(found[i]?.atMs).toBeLessThanOrEqual(untilMs)
  }
})
