import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  BULK_BYTES,
  type Chain,
  startBackend,
  startGrpcBackend,
  startHaproxy,
  startNginxChain,
  startOurs,
} from './chain.ts'
import { type BulkFigures, type CallFigures, measureBulk, measureCalls, measureGrpc } from './load.ts'
import { hasProgram } from './process.ts'

/**
 * Calls through two hops: ours, and in the same run the same hops through HAProxy and nginx. gRPC through ours alone.
 *
 * `node bench/calls.ts [--rounds 3] [--seconds 4] [--json]`. Rounds are interleaved, medians are shown: machines are
 * noisy, so only ratios of one run mean anything. A peer that is not installed is left out with a word.
 */
interface ChainFigures {
  grpc: CallFigures[]
  one: CallFigures[]
  many: CallFigures[]
  bulk: BulkFigures[]
}

const option = (name: string, fallback: number): number => {
  const at = process.argv.indexOf(`--${name}`)
  return at === -1 ? fallback : Number(process.argv[at + 1])
}
const json = process.argv.includes('--json')
const rounds = option('rounds', 3)
const seconds = option('seconds', 4)
const say = (line: string): void => void process.stderr.write(`${line}\n`)

for (const program of ['wrk', 'nginx']) {
  if (!hasProgram(program)) {
    say(`bench calls needs ${program}: apt-get install wrk nginx-light (and haproxy, to compare with)`)
    process.exit(2)
  }
}

const folder = mkdtempSync(join(tmpdir(), 'flatmesh-bench-'))
const backend = await startBackend(folder)
const hasH2load = hasProgram('h2load')
if (!hasH2load) say('h2load is not installed (apt-get install nghttp2-client): gRPC is left out')
const grpcBackend = await startGrpcBackend(folder)
const chains: Chain[] = [await startOurs(backend.port, grpcBackend.port), await startNginxChain(folder, backend.port)]
if (hasProgram('haproxy')) chains.push(await startHaproxy(folder, backend.port))
else say('haproxy is not installed: left out')

/** A few seconds' worth. */
const GRPC_CALLS = 30_000

const figures = new Map<string, ChainFigures>(
  chains.map(({ name }) => [name, { one: [], many: [], bulk: [], grpc: [] }]),
)
try {
  for (const chain of chains) await measureCalls(chain, 32, 2)
  const [first] = chains
  const grpc: Chain | undefined = hasH2load && first !== undefined ? { ...first, host: 'grpc.mesh' } : undefined
  if (grpc !== undefined) await measureGrpc(grpc, 4, GRPC_CALLS)
  for (let round = 1; round <= rounds; round++) {
    for (const chain of chains) {
      say(`round ${round} of ${rounds}: ${chain.name}`)
      const its = figures.get(chain.name) as ChainFigures
      its.many.push(await measureCalls(chain, 32, seconds))
      its.one.push(await measureCalls(chain, 1, Math.max(1, Math.round(seconds / 2))))
      its.bulk.push(await measureBulk(chain, BULK_BYTES))
      if (chain === first && grpc !== undefined) its.grpc.push(await measureGrpc(grpc, 4, GRPC_CALLS))
    }
  }
} finally {
  for (const chain of chains) await chain.stop()
  await backend.stop()
  await grpcBackend.stop()
  rmSync(folder, { recursive: true, force: true })
}

const grpc = summarizeGrpc(figures.get('ours')?.grpc ?? [])
const result = Object.fromEntries([...figures].map(([name, its]) => [name, summarize(its)]))
const ours = result.ours as Summary
const ratios = Object.fromEntries(
  Object.entries(result)
    .filter(([name]) => name !== 'ours')
    .map(([name, peer]) => [name, ratio(ours, peer)]),
)
if (json) process.stdout.write(`${JSON.stringify({ ...result, ratio: ratios, ...(grpc !== undefined && { grpc }) })}\n`)
else print()

type Summary = ReturnType<typeof summarize>

function summarize(its: ChainFigures) {
  const of = (pick: (figures: CallFigures) => number, from: CallFigures[]): number => median(from.map(pick))
  return {
    callsPerSecond: Math.round(of(f => f.callsPerSecond, its.many)),
    cpuUsFirst: round(of(f => f.cpuUs[0], its.many)),
    cpuUsSecond: round(of(f => f.cpuUs[1], its.many)),
    p50UsAt1: Math.round(of(f => f.p50Us, its.one)),
    p99UsAt1: Math.round(of(f => f.p99Us, its.one)),
    p50UsAt32: Math.round(of(f => f.p50Us, its.many)),
    p99UsAt32: Math.round(of(f => f.p99Us, its.many)),
    errors: [...its.one, ...its.many].reduce((sum, f) => sum + f.errors, 0),
    bulkMbPerSecond: Math.round(median(its.bulk.map(f => f.megabytesPerSecond))),
    bulkCpuPerGbFirst: round(median(its.bulk.map(f => f.cpuPerGb[0]))),
    bulkCpuPerGbSecond: round(median(its.bulk.map(f => f.cpuPerGb[1]))),
  }
}

/** gRPC unary calls through our two daemons, beside the CPU of HTTP/1.1 calls in the same run. */
function summarizeGrpc(runs: readonly CallFigures[]) {
  if (runs.length === 0) return undefined
  const of = (pick: (figures: CallFigures) => number): number => round(median(runs.map(pick)))
  const http = figures.get('ours')?.many ?? []
  const httpUs = median(http.map(({ cpuUs }) => cpuUs[0] + cpuUs[1]))
  return {
    callsPerSecond: Math.round(of(f => f.callsPerSecond)),
    cpuUsFirst: of(f => f.cpuUs[0]),
    cpuUsSecond: of(f => f.cpuUs[1]),
    cpuToHttp: of(f => (f.cpuUs[0] + f.cpuUs[1]) / httpUs),
    meanUsAt32: Math.round(of(f => f.p50Us)),
    errors: runs.reduce((sum, f) => sum + f.errors, 0),
  }
}

function ratio(mine: Summary, peer: Summary) {
  return {
    cpuPerCall: round((mine.cpuUsFirst + mine.cpuUsSecond) / (peer.cpuUsFirst + peer.cpuUsSecond)),
    p50: round(mine.p50UsAt1 / peer.p50UsAt1),
    callsPerSecond: round(mine.callsPerSecond / peer.callsPerSecond),
    bulk: round(mine.bulkMbPerSecond / peer.bulkMbPerSecond),
  }
}

function print(): void {
  const rows = Object.entries(result).map(([name, s]) => [
    name,
    `${s.callsPerSecond}`,
    `${s.cpuUsFirst} / ${s.cpuUsSecond}`,
    `${s.p50UsAt1} / ${s.p99UsAt1}`,
    `${s.p50UsAt32} / ${s.p99UsAt32}`,
    `${s.bulkMbPerSecond}`,
    `${s.bulkCpuPerGbFirst} / ${s.bulkCpuPerGbSecond}`,
    `${s.errors}`,
  ])
  const heads = ['chain', 'calls/s', 'CPU µs/call', 'p50/p99 µs at 1', 'at 32', 'bulk MB/s', 'CPU s/GB', 'errors']
  const widths = heads.map((head, i) => Math.max(head.length, ...rows.map(row => row[i]?.length ?? 0)))
  for (const row of [heads, ...rows]) {
    process.stdout.write(`${row.map((cell, i) => cell.padStart(widths[i] ?? 0)).join('  ')}\n`)
  }
  if (grpc !== undefined) {
    const { callsPerSecond, cpuUsFirst, cpuUsSecond, cpuToHttp, errors } = grpc
    const cpu = `CPU ${cpuUsFirst} / ${cpuUsSecond} µs/call, ${cpuToHttp} of an HTTP/1.1 call`
    process.stdout.write(`gRPC unary through ours: ${callsPerSecond} calls/s, ${cpu}, errors ${errors}\n`)
  }
  for (const [name, r] of Object.entries(ratios)) {
    process.stdout.write(
      `ours / ${name}: CPU per call ${r.cpuPerCall}, p50 ${r.p50}, calls/s ${r.callsPerSecond}, bulk ${r.bulk}\n`,
    )
  }
}

function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
}

function round(value: number): number {
  return Math.round(value * 100) / 100
}
