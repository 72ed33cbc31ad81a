import { execFileSync } from 'node:child_process'
import { cpus } from 'node:os'
import type { ChainName } from './chain.ts'
import { HTTP_CLIENT } from './load.ts'
import { type Figures, type Part, shorten } from './part.ts'
import { hasProgram } from './process.ts'

/** Of one part: medians by chain, and ours to HAProxy's where both were measured. */
export type PartResult = Partial<Record<ChainName | 'ratio', Figures>>

export interface Bar {
  readonly what: string
  readonly bar: string
  readonly found: number
  readonly isMet: boolean
}

export interface Machine {
  readonly date: string
  readonly cores: number
  readonly cpu: string
  readonly node: string
  /** `null`: not installed. */
  readonly haproxy: string | null
  readonly nginx: string | null
  readonly client: 'wrk' | 'own'
  readonly rounds: number
  readonly seconds: number
}

export interface CallsReport extends Partial<Record<Part['name'], PartResult>> {
  readonly machine: Machine
  readonly bars: readonly Bar[]
  /** What was left out, and why. */
  readonly leftOut: readonly string[]
}

/** Ours to HAProxy's. */
export function ratioOf(part: Part, chains: PartResult): Figures | undefined {
  const { ours, haproxy } = chains
  if (ours === undefined || haproxy === undefined) return undefined
  return Object.fromEntries(Object.entries(part.ratio(ours, haproxy)).map(([name, value]) => [name, round(value)]))
}

/** What this version is to reach, judged by what was measured. */
export function judge(results: CallsReport | Omit<CallsReport, 'bars'>): Bar[] {
  const { http = {}, bulk = {}, grpc = {}, tcp = {}, idle = {} } = results
  const bars: Bar[] = []
  const add = (what: string, found: number | undefined, is: 'at most' | 'at least', bar: number, unit = ''): void => {
    if (found === undefined || Number.isNaN(found)) return
    const isMet = is === 'at most' ? found <= bar : found >= bar
    bars.push({ what, bar: `${is} ${bar}${unit}`, found: round(found), isMet })
  }
  const cpuUs = (figures: Figures | undefined): number | undefined =>
    figures === undefined ? undefined : (figures.cpuUsFirst ?? Number.NaN) + (figures.cpuUsSecond ?? Number.NaN)
  add('CPU per call, to HAProxy', http.ratio?.cpuPerCall, 'at most', 1.5, ' ×')
  add('p50 one at a time, to HAProxy', http.ratio?.p50, 'at most', 1.5, ' ×')
  add('calls/s, to nginx', over(http.ours?.callsPerSecond, http.nginx?.callsPerSecond), 'at least', 1, ' ×')
  add('bulk MB/s, to HAProxy', bulk.ratio?.megabytesPerSecond, 'at least', 1, ' ×')
  add('CPU per gRPC call, to HTTP/1.1', over(cpuUs(grpc.ours), cpuUs(http.ours)), 'at most', 2, ' ×')
  add('bytes per idle client', idle.ours?.bytesPerConnection, 'at most', 20_000)
  add('new connections/s over HTTP', tcp.ours?.httpConnectionsPerSecond, 'at least', 2_000)
  add('new connections/s over raw TCP', tcp.ours?.rawConnectionsPerSecond, 'at least', 2_000)
  return bars
}

function over(a: number | undefined, b: number | undefined): number | undefined {
  return a === undefined || b === undefined ? undefined : a / b
}

/** Ratios to two decimals, the rest as everywhere. */
function round(value: number): number {
  return Math.abs(value) < 10 ? Math.round(value * 100) / 100 : shorten(value)
}

export function describeMachine(rounds: number, seconds: number): Machine {
  return {
    date: new Date().toISOString(),
    cores: cpus().length,
    cpu: cpus()[0]?.model ?? '',
    node: process.versions.node,
    haproxy: version('haproxy', /version ([\d.]+)/),
    nginx: version('nginx', /nginx\/([\d.]+)/),
    client: HTTP_CLIENT,
    rounds,
    seconds,
  }
}

function version(program: string, pattern: RegExp): string | null {
  if (!hasProgram(program)) return null
  return pattern.exec(execFileSync('sh', ['-c', `${program} -v 2>&1`], { encoding: 'utf8' }))?.[1] ?? ''
}

/** A table for each part, with the ratios below, and the bars at the end. */
export function formatReport(report: CallsReport, parts: readonly Part[]): string {
  const { machine, bars, leftOut } = report
  const { cores, cpu, node, haproxy, nginx, client, rounds, seconds } = machine
  const lines = [
    `${machine.date}: ${cores} cores (${cpu}), Node ${node}, HAProxy ${haproxy ?? '–'}, nginx ${nginx ?? '–'}, load by ${client}`,
    `medians of ${rounds} rounds of ${seconds} s; first hop / second hop`,
  ]
  for (const part of parts) {
    const result = report[part.name] ?? {}
    const { ratio, ...chains } = result
    const rows = Object.entries(chains).map(([name, figures]) => [
      name,
      ...part.columns.map(([, text]) => text(figures)),
    ])
    lines.push('', part.title, ...formatTable([['', ...part.columns.map(([head]) => head)], ...rows]))
    if (ratio !== undefined) {
      lines.push(
        `ours / haproxy: ${Object.entries(ratio)
          .map(([name, value]) => `${name} ${value}`)
          .join(', ')}`,
      )
    }
  }
  if (bars.length > 0) {
    const rows = bars.map(({ what, bar, found, isMet }) => [what, String(found), bar, isMet ? 'met' : 'MISSED'])
    lines.push('', ...formatTable([['bar', 'found', 'wanted', ''], ...rows]))
  }
  if (leftOut.length > 0) lines.push('', ...leftOut.map(line => `left out: ${line}`))
  return `${lines.join('\n')}\n`
}

function formatTable(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map(row => row[column]?.length ?? 0)))
  return rows.map(row =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join('  ')
      .trimEnd(),
  )
}
