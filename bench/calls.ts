import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { bulkPart } from './calls-bulk.ts'
import { grpcPart } from './calls-grpc.ts'
import { httpPart } from './calls-http.ts'
import { idlePart } from './calls-idle.ts'
import { type CallsReport, describeMachine, formatReport, judge, type PartResult, ratioOf } from './calls-report.ts'
import { tcpPart, whyNoRawTcp } from './calls-tcp.ts'
import { type BackendPorts, type Chain, type ChainName, startBackend, startGrpcBackend, startOurs } from './chain.ts'
import { HTTP_CLIENT, loadHttp } from './load.ts'
import { type Figures, type Part, summarize } from './part.ts'
import { startHaproxy, startNginxChain } from './peers.ts'
import { hasProgram } from './process.ts'

/**
 * Calls through two hops: ours, and in the same run the same hops through HAProxy and nginx (docs/bench.md).
 *
 * Rounds are interleaved and medians shown: machines are noisy, so only ratios of one run mean anything.
 */
const PARTS: readonly Part[] = [httpPart, bulkPart, grpcPart, tcpPart, idlePart]
const HELP = `npm run bench -- calls [options]

  --rounds N     how often each is measured; medians are shown (3)
  --seconds N    of each run of load (4)
  --only NAMES   some parts, with commas between them: ${PARTS.map(({ name }) => name).join(', ')}
  --json         the report as JSON on stdout

Exit code 1 if a call through our daemons failed.`
/** Before anything, of each chain: a daemon that has just started compiles for some seconds, which is not what it costs afterwards. */
const WARM_UP_SECONDS = 10

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '4' },
    only: { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
const [rounds, seconds] = [readCount('rounds', values.rounds), readCount('seconds', values.seconds)]
const parts = readParts(values.only)
const say = (line: string): void => void process.stderr.write(`${line}\n`)

if (values.help) {
  console.log(HELP)
  process.exit(0)
}
if (!hasProgram('nginx')) {
  say(
    'bench calls needs nginx, which answers the calls: apt-get install nginx-light (and haproxy, wrk, nghttp2-client)',
  )
  process.exit(2)
}

const leftOut: string[] = []
const folder = mkdtempSync(join(tmpdir(), 'flatmesh-bench-'))
const stops: (() => Promise<void>)[] = []
let folders = 0

/** A chain of two new processes, in a folder of its own. */
function start(name: ChainName, backend: BackendPorts): Promise<Chain> {
  const its = join(folder, `${name}-${folders++}`)
  mkdirSync(its)
  if (name === 'ours') return startOurs(backend)
  return name === 'haproxy' ? startHaproxy(its, backend) : startNginxChain(its, backend)
}

async function measure(): Promise<CallsReport> {
  const web = await startBackend(folder)
  stops.push(() => web.stop())
  const backend: BackendPorts = { http: web.port, ...(parts.includes(grpcPart) && (await grpcPort())) }
  const names: ChainName[] = ['ours', 'haproxy', 'nginx']
  const chains: Chain[] = []
  for (const name of names) {
    if (name === 'haproxy' && !hasProgram('haproxy')) {
      leftOut.push('haproxy: it is not installed (apt-get install haproxy)')
      continue
    }
    const chain = await start(name, backend)
    stops.push(() => chain.stop())
    chains.push(chain)
    say(`warming up: ${name}`)
    await loadHttp(chain.http, chain.pids, { connections: 32, seconds: WARM_UP_SECONDS })
  }
  const found = new Map(parts.map(part => [part, new Map<ChainName, Figures[]>()]))
  // Round 0 is not counted: what is new to a daemon's compiler in any part is then known to it in all rounds.
  for (let round = 0; round <= rounds; round++) {
    for (const [part, byChain] of found) {
      if (round === 0 && part.startsFresh) continue
      for (const chain of chains) {
        const why = part.leaveOut(chain)
        if (why !== undefined) {
          leave(`${part.name} of ${chain.name}: ${why}`)
          continue
        }
        if (part === tcpPart && whyNoRawTcp(chain) !== undefined)
          leave(`raw TCP of ${chain.name}: ${whyNoRawTcp(chain)}`)
        say(`${round === 0 ? 'warming up' : `round ${round} of ${rounds}`}: ${part.name}, ${chain.name}`)
        const startFresh = (name: ChainName): Promise<Chain> => start(name, backend)
        const figures = await part.measure(chain, { seconds, startFresh })
        if (round > 0) byChain.set(chain.name, [...(byChain.get(chain.name) ?? []), figures])
      }
    }
  }
  const results = Object.fromEntries(
    [...found].map(([part, byChain]) => {
      const medians: PartResult = Object.fromEntries([...byChain].map(([name, its]) => [name, summarize(its)]))
      const ratio = ratioOf(part, medians)
      return [part.name, { ...medians, ...(ratio !== undefined && { ratio }) }]
    }),
  )
  const report = { ...results, machine: describeMachine(rounds, seconds), leftOut }
  return { ...report, bars: judge(report) }
}

async function grpcPort(): Promise<{ grpc: number }> {
  const server = await startGrpcBackend(folder)
  stops.push(() => server.stop())
  return { grpc: server.port }
}

function leave(line: string): void {
  if (leftOut.includes(line)) return
  leftOut.push(line)
  say(`left out: ${line}`)
}

function readCount(name: string, text: string): number {
  const count = Number(text)
  if (Number.isInteger(count) && count > 0) return count
  throw new Error(`--${name}: expected a whole number above 0, found ${JSON.stringify(text)}`)
}

function readParts(names: string | undefined): readonly Part[] {
  if (names === undefined) return PARTS
  const wanted = names.split(',')
  const unknown = wanted.find(name => !PARTS.some(part => part.name === name))
  if (unknown !== undefined) {
    const known = PARTS.map(({ name }) => name).join(', ')
    throw new Error(`--only: expected some of ${known}, found ${JSON.stringify(unknown)}`)
  }
  return PARTS.filter(({ name }) => wanted.includes(name))
}

if (HTTP_CLIENT === 'own') say("wrk is not installed: the bench's own client makes the load, and costs more itself")
try {
  const report = await measure()
  process.stdout.write(values.json ? `${JSON.stringify(report)}\n` : formatReport(report, parts))
  const failed = parts.filter(({ name }) => (report[name]?.ours?.errors ?? 0) > 0)
  if (failed.length > 0) {
    say(`calls through our daemons failed: ${failed.map(({ name }) => name).join(', ')}`)
    process.exitCode = 1
  }
} finally {
  for (const stop of stops.reverse()) await stop()
  rmSync(folder, { recursive: true, force: true })
}
