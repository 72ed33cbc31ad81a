import { readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import { reportJson, reportTable } from './report.ts'
import { reportHtml } from './report-html.ts'
import { Run, type RunOptions, type RunProgress, type RunResult } from './run.ts'
import { runScenario } from './scenario.ts'
import { runSwarmSeed } from './swarm.ts'
import { TOPOLOGIES, type TopologyName } from './topology.ts'

/** How often progress is shown: to somebody who watches, and in a log. */
const BAR_EACH_MS = 100
const LINE_EACH_MS = 30_000

const HELP = `npm run sim -- [options]: simulates a whole mesh from a seed.

  --nodes N            nodes (50)
  --services N         services each node offers (40)
  --topology NAME      ${TOPOLOGIES.join(', ')} (clouds)
  --churn P%/min       share of services that change each minute (5%/min)
  --node-churn P%/min  share of nodes that go away each minute, half without a word, and come back (as --churn)
  --loss P%            share of frames that vanish (0%)
  --jitter P%          of each wire's latency (5%)
  --retransmit         what is lost arrives a time-out later, as over TCP, instead of never
  --heartbeats KIND    exact or modelled (exact)
  --minutes N          of churn, after all have joined (2)
  --seed N             (1)
  --protocol NAME      flatmesh, or micro: the ancestor's gossip, with flatmesh beside it (flatmesh)
  --micro-strategy S   best or local (best)
  --signatures KIND    stub or ed25519 (stub)
  --threads N          beside the first, for meshes of more than 200 nodes; no result depends on it (cores but one, at most 3)
  --no-transcript      do not hash every frame
  --swarm N            instead: N small meshes with faults, sizes and rates from their seeds, from --seed on
  --scenario FILE      instead: a scenario written as text, with --seed
  --json               the result as JSON
  --html FILE          a report with pictures

Exit code 1 on any violation; the line that reproduces it is printed.`

function main(args: readonly string[]): number {
  const { values } = parseArgs({
    args: [...args],
    options: {
      nodes: { type: 'string', default: '50' },
      services: { type: 'string', default: '40' },
      topology: { type: 'string', default: 'clouds' },
      churn: { type: 'string', default: '5%/min' },
      'node-churn': { type: 'string' },
      loss: { type: 'string', default: '0%' },
      jitter: { type: 'string', default: '5%' },
      retransmit: { type: 'boolean', default: false },
      heartbeats: { type: 'string', default: 'exact' },
      minutes: { type: 'string', default: '2' },
      seed: { type: 'string', default: '1' },
      protocol: { type: 'string', default: 'flatmesh' },
      'micro-strategy': { type: 'string', default: 'best' },
      signatures: { type: 'string', default: 'stub' },
      threads: { type: 'string', default: String(Math.min(3, availableParallelism() - 1)) },
      'no-transcript': { type: 'boolean', default: false },
      swarm: { type: 'string' },
      scenario: { type: 'string' },
      json: { type: 'boolean', default: false },
      html: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    console.log(HELP)
    return 0
  }
  const seed = parseWhole('--seed', values.seed, 0, 2 ** 31)
  if (values.swarm !== undefined) return swarm(seed, parseWhole('--swarm', values.swarm, 1, 1_000_000))
  if (values.scenario !== undefined) return scenario(values.scenario, seed)
  const options: RunOptions = {
    nodes: parseWhole('--nodes', values.nodes, 1, 5000),
    services: parseWhole('--services', values.services, 0, 1000),
    topology: parseOneOf<TopologyName>('--topology', values.topology, TOPOLOGIES),
    churnPerMinute: parseShare('--churn', values.churn),
    nodeChurnPerMinute: parseShare('--node-churn', values['node-churn'] ?? values.churn),
    loss: parseShare('--loss', values.loss),
    jitterRatio: parseShare('--jitter', values.jitter),
    seed,
    minutes: parseWhole('--minutes', values.minutes, 0, 100_000),
    protocol: parseOneOf('--protocol', values.protocol, ['flatmesh', 'micro']),
    microStrategy: parseOneOf('--micro-strategy', values['micro-strategy'], ['best', 'local']),
    retransmit: values.retransmit,
    heartbeats: parseOneOf('--heartbeats', values.heartbeats, ['exact', 'modelled']),
    transcript: !values['no-transcript'],
    threads: parseWhole('--threads', values.threads, 0, 16),
    signatures: parseOneOf('--signatures', values.signatures, ['stub', 'ed25519']),
  }
  const command = `npm run sim -- ${args.join(' ')}`
  const { result, pictures } = execute(options)
  let against: RunResult | undefined
  if (options.protocol === 'micro') against = execute({ ...options, protocol: 'flatmesh' }).result
  console.log(values.json ? reportJson(result, against) : reportTable(result, against))
  if (values.html !== undefined) writeFileSync(values.html, reportHtml(result, pictures, command))
  const violations = [...result.violations, ...(against?.violations ?? [])]
  if (violations.length === 0) return 0
  if (!values.json) {
    for (const { check, node, atMs, what } of violations)
      console.log(`${check} ${node} at ${Math.round(atMs)} ms: ${what}`)
  }
  console.error(`violated with seed ${seed}; again with: ${command}`)
  return 1
}

function execute(options: RunOptions): ReturnType<Run['execute']> {
  const bar = new ProgressBar()
  const run = new Run({ onProgress: progress => bar.show(options.protocol, progress) }, options)
  const executed = run.execute()
  bar.end()
  return executed
}

function scenario(file: string, seed: number): number {
  const { found, expected } = runScenario(readFileSync(file, 'utf8'), seed)
  const isAsWritten = found.join('\n') === expected.join('\n')
  for (const [i, line] of found.entries()) {
    console.log(line === expected[i] ? line : `${line}   (expected: ${expected[i] ?? 'nothing more'})`)
  }
  if (!isAsWritten) console.log(`not as written; again with: npm run sim -- --scenario ${file} --seed ${seed}`)
  return isAsWritten ? 0 : 1
}

function swarm(firstSeed: number, count: number): number {
  const beganMs = performance.now()
  const bar = new ProgressBar()
  let failed = 0
  for (let seed = firstSeed; seed < firstSeed + count; seed++) {
    const { violations, shape } = runSwarmSeed(seed)
    bar.show('swarm', { phase: `seed ${seed}`, share: (seed - firstSeed + 1) / count, nowMs: 0 })
    if (violations.length === 0) continue
    failed++
    bar.end()
    for (const { check, node, atMs, what } of violations)
      console.log(`${check} ${node} at ${Math.round(atMs)} ms: ${what}`)
    console.log(`violated with seed ${seed} (${shape}); again with: npm run sim -- --swarm 1 --seed ${seed}`)
  }
  bar.end()
  const seconds = (performance.now() - beganMs) / 1000
  console.log(`${count} seeds from ${firstSeed}: ${count - failed} clean, ${failed} violated, ${seconds.toFixed(1)} s`)
  return failed === 0 ? 0 : 1
}

/** On standard error: a bar where somebody watches, else a line now and then. */
class ProgressBar {
  private readonly beganMs = performance.now()
  private shownMs = this.beganMs

  show(title: string, { phase, share, nowMs }: RunProgress): void {
    const { isTTY } = process.stderr
    const wallMs = performance.now()
    if (wallMs - this.shownMs < (isTTY ? BAR_EACH_MS : LINE_EACH_MS)) return
    this.shownMs = wallMs
    const simulated = nowMs > 0 ? ` ${(nowMs / 1000).toFixed(0)} s` : ''
    if (!isTTY) {
      const percent = Math.round(100 * Math.min(1, share))
      process.stderr.write(
        `${title}: ${phase}, ${percent} %${simulated}, after ${Math.round((wallMs - this.beganMs) / 1000)} s\n`,
      )
      return
    }
    const full = Math.round(30 * Math.min(1, share))
    const bar = '█'.repeat(full) + '░'.repeat(30 - full)
    process.stderr.write(`\r\x1b[K${title} ${bar} ${phase}${simulated}`)
  }

  end(): void {
    if (process.stderr.isTTY) process.stderr.write('\r\x1b[K')
  }
}

class UsageError extends Error {}

function parseWhole(flag: string, text: string, min: number, max: number): number {
  const value = Number(text)
  if (Number.isInteger(value) && value >= min && value <= max) return value
  throw new UsageError(`${flag}: expected a whole number from ${min} to ${max}, found ${text}`)
}

/** `5%`, `5%/min` or `0.05`. */
function parseShare(flag: string, text: string): number {
  const [, number = '', percent] = /^([0-9.]+)(%)?(?:\/min)?$/.exec(text) ?? []
  const value = Number(number) / (percent === undefined ? 1 : 100)
  if (number !== '' && value >= 0 && value <= 1) return value
  throw new UsageError(`${flag}: expected a share such as 5% or 5%/min, found ${text}`)
}

function parseOneOf<T extends string>(flag: string, text: string, allowed: readonly T[]): T {
  const found = allowed.find(name => name === text)
  if (found !== undefined) return found
  throw new UsageError(`${flag}: expected one of ${allowed.join(', ')}, found ${text}`)
}

try {
  process.exitCode = main(process.argv.slice(2))
} catch (error) {
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  if (!(error instanceof UsageError) && !code.startsWith('ERR_PARSE_ARGS')) throw error
  console.error(`${error instanceof Error ? error.message : error}\n\n${HELP}`)
  process.exitCode = 2
}
