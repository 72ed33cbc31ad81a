import type { ChildProcess } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type BackendPorts, type Chain, startOurs } from './chain.ts'
import { type BulkRates, type Latencies, moveBulk, startInstance, startSmallCalls } from './mixed-load.ts'
import { median } from './part.ts'
import { startHaproxy } from './peers.ts'
import { cpuSeconds, hasProgram, rssBytes } from './process.ts'
import { whenAnswered } from './ready.ts'

/**
 * Small calls beside bulk on one link: `npm run bench -- mixed [--gigabytes 2] [--rate 500] [--seconds 10] [--rounds 3] [--only ours] [--json]`.
 *
 * `rate` calls a second at fixed times, whether the last one is back or not; first alone for `seconds`, then beside one
 * download and one upload of `gigabytes` each. A call's time counts from when it was due. Small calls and bulk have an
 * instance each and a client each, processes of their own; on a machine with few cores they take time from the proxies.
 * What that alone costs is seen by the same through two HAProxys with HTTP/2 over TLS between them, in the same run.
 * Chains take turns, started anew each round, and medians are shown: one percent of the calls of one round is few.
 */
const option = (name: string, fallback: number): number => {
  const at = process.argv.indexOf(`--${name}`)
  return at === -1 ? fallback : Number(process.argv[at + 1])
}
const only = process.argv.includes('--only') ? process.argv[process.argv.indexOf('--only') + 1] : undefined
const BULK_BYTES = option('gigabytes', 2) * 1e9
const ROUNDS = option('rounds', 3)
/** What a chain is warmed up for; it does not count. */
const WARM_UP_SECONDS = 3

interface Found extends BulkRates {
  readonly alone: Latencies
  readonly beside: Latencies
  readonly p99Ratio: number
  /** Of each hop. */
  readonly cpuPerGb: readonly number[]
  readonly rssMb: { readonly firstHalfMax: readonly number[]; readonly secondHalfMax: readonly number[] }
}

const children: ChildProcess[] = []
const folder = mkdtempSync(join(tmpdir(), 'flatmesh-bench-'))
try {
  const [http, bulk] = [await startInstance('small'), await startInstance('bulk')]
  children.push(http.child, bulk.child)
  const backend: BackendPorts = { http: http.port, bulk: bulk.port }
  const starts: Record<string, () => Promise<Chain>> = {
    ...(only !== 'haproxy' && { ours: () => startOurs(backend) }),
    ...(only !== 'ours' && hasProgram('haproxy') && { haproxy: () => startHaproxy(folder, backend) }),
  }
  const found: Record<string, Found[]> = {}
  for (let round = 1; round <= ROUNDS; round++) {
    // Whoever goes first in a round meets what the machine did before.
    for (const [name, start] of round % 2 === 0 ? Object.entries(starts).reverse() : Object.entries(starts)) {
      process.stderr.write(`round ${round} of ${ROUNDS}: ${name}\n`)
      found[name] = [...(found[name] ?? []), await measure(await start())]
    }
  }
  if (process.argv.includes('--json')) console.log(JSON.stringify(found))
  else for (const name of Object.keys(starts)) console.log(`${name}\n${describe(found[name] ?? [])}`)
} finally {
  for (const child of children) child.kill()
  rmSync(folder, { recursive: true, force: true })
}

async function measure(chain: Chain): Promise<Found> {
  const { http, bulk = http, pids } = chain
  try {
    for (const { port, host } of [http, bulk]) await whenAnswered(`http://127.0.0.1:${port}/`, host)
    const small = await startSmallCalls(http, option('rate', 500))
    children.push(small.child)
    await duringCalls(small, WARM_UP_SECONDS)
    const alone = await duringCalls(small, option('seconds', 10))
    const cpuBefore = pids.map(cpuSeconds)
    const rssMb: number[][] = []
    const watch = setInterval(() => rssMb.push(pids.map(pid => Math.round(rssBytes(pid) / 1e6))), 500)
    small.begin()
    const rates = await moveBulk(bulk, BULK_BYTES)
    const beside = await small.end()
    clearInterval(watch)
    small.child.kill()
    const half = Math.floor(rssMb.length / 2)
    const most = (rows: number[][]): number[] => pids.map((_, i) => Math.max(...rows.map(row => row[i] ?? 0)))
    return {
      ...{ alone, beside, p99Ratio: round(beside.p99Ms / alone.p99Ms), ...rates },
      cpuPerGb: pids.map((pid, i) => round((cpuSeconds(pid) - (cpuBefore[i] ?? 0)) / ((2 * BULK_BYTES) / 1e9))),
      rssMb: { firstHalfMax: most(rssMb.slice(0, half)), secondHalfMax: most(rssMb.slice(half)) },
    }
  } finally {
    await chain.stop()
  }
}

async function duringCalls(small: { begin(): void; end(): Promise<Latencies> }, seconds: number): Promise<Latencies> {
  small.begin()
  await new Promise(resolve => setTimeout(resolve, seconds * 1000))
  return small.end()
}

/** Medians of all rounds. */
function describe(its: readonly Found[]): string {
  const of = (figure: (found: Found) => number): number => round(median(its.map(figure)))
  const line = (pick: (found: Found) => Latencies): string => {
    const [p50, p99] = [of(found => pick(found).p50Ms), of(found => pick(found).p99Ms)]
    const failed = its.reduce((sum, found) => sum + pick(found).failed, 0)
    return `p50 ${p50} ms, p99 ${p99} ms, max ${of(found => pick(found).maxMs)} ms, failed ${failed}`
  }
  const hops = (pick: (found: Found) => readonly number[]): string =>
    [0, 1].map(hop => of(found => pick(found)[hop] ?? Number.NaN)).join(' / ')
  return [
    `  small calls alone:   ${line(({ alone }) => alone)}`,
    `  small calls beside:  ${line(({ beside }) => beside)}`,
    `  p99 beside to p99 alone: ${of(({ p99Ratio }) => p99Ratio)} times, by round ${its.map(({ p99Ratio }) => p99Ratio).join(', ')}`,
    `  bulk: down ${of(found => found.downMbPerSecond)} MB/s, up ${of(found => found.upMbPerSecond)} MB/s, CPU s/GB ${hops(found => found.cpuPerGb)}`,
    `  RSS MB at most: first half ${hops(({ rssMb }) => rssMb.firstHalfMax)}, second half ${hops(({ rssMb }) => rssMb.secondHalfMax)}`,
  ].join('\n')
}

function round(value: number): number {
  return Math.round(value * 100) / 100
}
