import { describe, expect, test } from 'vitest'
import { reportJson, reportTable } from './report.ts'
import { reportHtml } from './report-html.ts'
import { Run, type RunOptions } from './run.ts'

const OPTIONS: RunOptions = {
  ...{ nodes: 8, services: 5, topology: 'clouds', seed: 7, minutes: 1, protocol: 'flatmesh', microStrategy: 'best' },
  ...{ churnPerMinute: 0.5, nodeChurnPerMinute: 0.25, loss: 0.05, jitterRatio: 0.05 },
  ...{ retransmit: false, heartbeats: 'exact', transcript: true, signatures: 'stub', threads: 0 },
}

function run(options: Partial<RunOptions> = {}) {
  return new Run({ onProgress() {} }, { ...OPTIONS, ...options }).execute()
}

describe('a run', () => {
  test('with one seed does the same twice, to the last byte and figure; another seed does not', () => {
    const timeless = (options: Partial<RunOptions>) => ({ ...run(options).result, wallMs: 0, rssBytes: 0 })
    const [first, again, other] = [timeless({}), timeless({}), timeless({ seed: 8 })]
    expect(first).toEqual(again)
    expect(first.transcript).not.toBe(other.transcript)
  })

  test('measures changes and traffic, and finds nothing wrong with an honest mesh', () => {
    const { result } = run()
    expect(result.violations).toEqual([])
    expect(result.changes).toBeGreaterThan(10)
    expect(result.convergenceMs.p50).toBeGreaterThan(20)
    expect(result.bytesPerNodePerSecond.p50).toBeGreaterThan(0)
    expect(result.nodesLost).toBeGreaterThan(0)
    expect([result.ghostRoutes, result.missingRoutes]).toEqual([0, 0])
  })

  test('tells how far it is each second of its time, from the first on, while nodes still start', () => {
    const toldMs = [0]
    new Run({ onProgress: ({ nowMs }) => toldMs.push(nowMs) }, { ...OPTIONS, nodes: 60, minutes: 0 }).execute()
    const gapsMs = toldMs.slice(1).map((atMs, i) => atMs - (toldMs[i] ?? 0))
    expect(gapsMs.length).toBeGreaterThan(2)
    expect(Math.max(...gapsMs)).toBeLessThanOrEqual(1000)
  })

  test.each([
    'full',
    'ring',
    'line',
    'star',
    'grid',
    'geometric',
    'islands',
  ] as const)('ends well on the topology %s', topology => {
    // A line longer than the four hops that paths may have cannot be whole.
    const { result } = run({ topology, nodes: topology === 'line' || topology === 'grid' ? 5 : 8 })
    expect(result.violations).toEqual([])
  })

  test('ends well over modelled heartbeats, retransmission and real signatures', () => {
    const { result } = run({ heartbeats: 'modelled', retransmit: true, signatures: 'ed25519' })
    expect(result.violations).toEqual([])
    expect(result.signatures.checked).toBeGreaterThan(result.signatures.made)
  })
})

describe('the gossip of the ancestor, on the same network', () => {
  test('takes at least twenty times as long, and leaves routes that nobody offers', () => {
    const options = { nodes: 12, minutes: 3, nodeChurnPerMinute: 0 }
    const [micro, ours] = [run({ ...options, protocol: 'micro' }).result, run(options).result]
    expect(micro.changes).toBeGreaterThan(0)
    expect(micro.convergenceMs.p50).toBeGreaterThan(20 * ours.convergenceMs.p50)
    expect(micro.ghostRoutes).toBeGreaterThan(0)
    expect(ours.ghostRoutes).toBe(0)
  })
})

describe('a report', () => {
  test('as JSON holds what the documentation names', () => {
    const found = JSON.parse(reportJson(run({ nodes: 3 }).result)) as object
    expect(found).toMatchObject({
      ...{ nodes: 3, services: 5, seed: 7, simulatedMs: expect.any(Number), changes: expect.any(Number) },
      convergenceMs: { p50: expect.any(Number), p99: expect.any(Number), max: expect.any(Number) },
      bytesPerNodePerSecond: { p50: expect.any(Number), p99: expect.any(Number) },
      ...{ violations: [], wallMs: expect.any(Number), rssBytes: expect.any(Number) },
    })
  })

  test('as a table has a column for each protocol', () => {
    const { result } = run({ nodes: 3 })
    const [head] = reportTable(result, { ...result, protocol: 'micro' }).split('\n')
    expect(head?.trim().split(/\s+/)).toEqual(['flatmesh', 'micro'])
  })

  test('as a page loads nothing from elsewhere and takes no markup from what it shows', () => {
    const { result, pictures } = run({ nodes: 3 })
    const page = reportHtml(result, pictures, 'npm run sim -- --topology <script>')
    expect(page).not.toMatch(/<script|src=|href=|url\(|@import/)
    expect(page).not.toMatch(/NaN|undefined|Infinity/)
    expect(page.match(/<svg/g)).toHaveLength(5)
  })
})
