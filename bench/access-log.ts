import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Chain, startBackend, startOurs } from './chain.ts'
import { type CallFigures, loadHttp } from './load.ts'
import { hasOption, numberOption } from './options.ts'
import { median } from './part.ts'
import { hasProgram } from './process.ts'

/**
 * What the access log costs: the same two daemons with `log.access` off and with `all`, in interleaved rounds.
 *
 * `node bench/access-log.ts [--rounds 7] [--seconds 3] [--json]`. Medians; only the ratio means anything.
 */
const rounds = numberOption('rounds', 7)
const seconds = numberOption('seconds', 3)

for (const program of ['wrk', 'nginx']) {
  if (hasProgram(program)) continue
  process.stderr.write(`bench access-log needs ${program}: apt-get install wrk nginx-light\n`)
  process.exit(2)
}

const folder = mkdtempSync(join(tmpdir(), 'flatmesh-bench-'))
const backend = await startBackend(folder)
const start = (access: 'off' | 'all'): Promise<Chain> => startOurs({ http: backend.port }, { log: { access } })
const chains = { off: await start('off'), all: await start('all') }
const measure = ({ http, pids }: Chain, seconds: number): Promise<CallFigures> =>
  loadHttp(http, pids, { connections: 32, seconds })
const figures: Record<keyof typeof chains, CallFigures[]> = { off: [], all: [] }
try {
  for (const chain of Object.values(chains)) await measure(chain, 2)
  for (let round = 1; round <= rounds; round++) {
    process.stderr.write(`round ${round} of ${rounds}\n`)
    // Whoever goes first in a round meets what the machine did before.
    for (const access of round % 2 === 0 ? (['off', 'all'] as const) : (['all', 'off'] as const)) {
      figures[access].push(await measure(chains[access], seconds))
    }
  }
} finally {
  for (const chain of Object.values(chains)) await chain.stop()
  await backend.stop()
  rmSync(folder, { recursive: true, force: true })
}

const off = summarize(figures.off)
const all = summarize(figures.all)
const cost = { callsPerSecond: 1 - all.callsPerSecond / off.callsPerSecond, cpuUs: all.cpuUs - off.cpuUs }
if (hasOption('json')) process.stdout.write(`${JSON.stringify({ off, all, cost })}\n`)
else {
  for (const [name, { callsPerSecond, cpuUs }] of Object.entries({ off, all })) {
    process.stdout.write(
      `${name.padEnd(4)} ${Math.round(callsPerSecond)} calls/s, ${cpuUs.toFixed(1)} µs of CPU at the ingress\n`,
    )
  }
  process.stdout.write(`cost ${(cost.callsPerSecond * 100).toFixed(1)} % of calls/s, ${cost.cpuUs.toFixed(1)} µs\n`)
}

function summarize(its: readonly CallFigures[]): { callsPerSecond: number; cpuUs: number; errors: number } {
  return {
    callsPerSecond: median(its.map(({ callsPerSecond }) => callsPerSecond)),
    cpuUs: median(its.map(({ cpuUs }) => cpuUs[0])),
    errors: its.reduce((sum, { errors }) => sum + errors, 0),
  }
}
