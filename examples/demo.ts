import { once } from 'node:events'
import { parseArgs } from 'node:util'
import { messageOf } from '../router/errors.ts'
import { waitUntil } from '../test/e2e/daemon-process.ts'
import {
  failoverMs,
  type Phase,
  percentile,
  returnedAtMs,
  type Story,
  settledAtMs,
  toPhases,
  toSpans,
} from './call-phases.ts'
import { DemoMesh, FAR, HOME, MAP, NEAR } from './demo-mesh.ts'
import { DemoScreen } from './demo-screen.ts'
import { type CallResult, SteadyCalls } from './steady-calls.ts'

/** Enough for a percentile of two hundred calls per phase. */
const CALLS_PER_SECOND = 50
/** How long each of the three phases is shown. */
const PHASE_MS = 5_000
/** A silent death must be routed around in 3 s; ten times that is given up. */
const MOVE_DEADLINE_MS = 30_000
const SECOND_MS = 1_000
/** On a terminal, each cell of the strip: ten calls, so that the moment of the change can be seen. */
const CELL_MS = 200
const PROBLEMS_SHOWN_MAX = 5

const USAGE = `usage: npm run demo [-- --once] [--json] [--keep]

Three daemons on this machine, as far apart as datacenters: calls from one region go to the nearest that answers, move on
when it is killed, and come back.

  --once   for scripts: plain lines; the exit code is 0 only if no call failed and every call went where it should
  --json   print only the summary, as JSON, on stdout; the story goes to stderr (implies --once)
  --keep   leave the mesh running at the end, with commands to try, until Ctrl-C
  --help   print this
`

interface Flags {
  readonly once: boolean
  readonly json: boolean
  readonly keep: boolean
}

interface Summary {
  readonly calls: number
  readonly failed: number
  readonly failoverMs: number
  readonly convergeMs: number
  readonly phases: readonly Phase[]
  readonly returnMs: number
  /** Why calls failed, each reason once, the first few. */
  readonly problems: readonly string[]
  readonly isGood: boolean
}

/** Undefined: there is nothing to run, and the exit code is set. */
function readFlags(words: readonly string[]): Flags | undefined {
  try {
    const option = { type: 'boolean', default: false } as const
    const { values } = parseArgs({
      args: [...words],
      options: { once: option, json: option, keep: option, help: { ...option, short: 'h' } },
    })
    if (values.help) {
      process.stdout.write(USAGE)
      return undefined
    }
    if (values.keep && (values.once || values.json)) {
      throw new Error('--keep waits for a person, --once and --json do not')
    }
    return { once: values.once || values.json, json: values.json, keep: values.keep }
  } catch (error) {
    const [reason] = messageOf(error).split('. ')
    process.stderr.write(`demo: ${reason}; it takes --once, --json or --keep, see --help\n`)
    process.exitCode = 2
    return undefined
  }
}

async function run({ once: isOnce, json, keep }: Flags): Promise<void> {
  const out = json ? process.stderr : process.stdout
  const screen = new DemoScreen(out, {
    isLive: !isOnce && out.isTTY === true,
    color: out.isTTY === true && (process.env.NO_COLOR ?? '') === '',
    columns: out.isTTY === true ? out.columns : 100,
  })
  const mesh = new DemoMesh()
  let isTold = false
  const stop = onStopSignal()
  const interrupted = once(stop, 'abort').then((): 'interrupted' => 'interrupted')
  try {
    const told = await Promise.race([tell(mesh, screen), interrupted])
    if (told === 'interrupted') throw new Interrupted()
    isTold = true
    printSummary(screen, told)
    if (keep) {
      printCommands(screen, mesh)
      await interrupted
      throw new Interrupted()
    }
    screen.step('The daemons finish what is in flight and exit.')
    await mesh.stop()
    if (json) process.stdout.write(`${JSON.stringify(toJson(told))}\n`)
    process.exitCode = told.isGood ? 0 : 1
  } catch (error) {
    screen.closeLine()
    const isInterrupted = error instanceof Interrupted
    if (!isInterrupted) process.stderr.write(`\ndemo: ${messageOf(error)}\n`)
    screen.step('Everything the demo started is ended and removed.')
    await mesh.abandon()
    // 130: a shell's code for what Ctrl-C ended. Once the story is told, that is how --keep is meant to end.
    process.exit(isInterrupted ? (isTold ? 0 : 130) : 1)
  }
}

/** The story from the first daemon to the last call. */
async function tell(mesh: DemoMesh, screen: DemoScreen): Promise<Summary> {
  screen.step('One daemon per region, each a process with its own folder, and lines as long as between datacenters:')
  screen.block(MAP)
  await mesh.form()
  screen.note(`flatmesh init at ${HOME.name}, flatmesh invite, flatmesh join at the two others: done.`)
  await mesh.startFirstServices()
  await mesh.startNearService()
  screen.step(`The last daemon, ${NEAR.name}, starts.`)
  const converge = await mesh.converge()
  const up = `All three know all routes ${Math.round(converge.sinceUpMs)} ms after it was up.`
  screen.note(`${up} What ${HOME.name} sees (flatmesh nodes, flatmesh routes):`)
  const [nodes, routes] = await Promise.all([mesh.home.mustRun('nodes'), mesh.home.mustRun('routes')])
  screen.raw(`\n${nodes.stdout}\n${routes.stdout}`)

  const calls = new SteadyCalls({ ingress: mesh.home.listen.http, service: 'orders', perSecond: CALLS_PER_SECOND })
  const beats = new Beats(screen, calls)
  try {
    screen.step(`${CALLS_PER_SECOND} calls a second for orders, from ${HOME.name}. The nearest answers: ${NEAR.name}.`)
    calls.start()
    beats.start()
    await pause(PHASE_MS)

    beats.turn()
    screen.step(`kill -9 of the daemon of ${NEAR.name}, without warning. The next nearest takes over: ${FAR.name}.`)
    const story: Story = { killedAtMs: performance.now(), nearest: NEAR.region, next: FAR.region }
    await mesh.near.kill('SIGKILL')
    await pause(PHASE_MS)
    await waitUntil(
      'calls go to the next region',
      () => truly(failoverMs(calls.results, story) < Infinity),
      MOVE_DEADLINE_MS,
    )

    beats.turn()
    screen.step(`The daemon of ${NEAR.name} is started again. Calls come back to the nearest.`)
    const restartedAtMs = performance.now()
    await mesh.near.up()
    await waitUntil('calls come back', () => returnedAtMs(calls.results, story), MOVE_DEADLINE_MS)
    await pause(PHASE_MS)
    beats.turn()
    await calls.stop()
    const backAtMs = settledAtMs(calls.results, story) ?? Number.POSITIVE_INFINITY
    return summarize(calls.results, story, converge.sinceStartMs, backAtMs - restartedAtMs)
  } finally {
    beats.stop()
  }
}

function summarize(results: readonly CallResult[], story: Story, convergeMs: number, returnMs: number): Summary {
  const { failed } = countAnswers(results)
  const phases = toPhases(results, story)
  return {
    calls: results.length,
    failed,
    failoverMs: failoverMs(results, story),
    convergeMs,
    phases,
    returnMs,
    problems: [...new Set(results.flatMap(call => call.problem ?? []))].slice(0, PROBLEMS_SHOWN_MAX),
    isGood: failed === 0 && phases.every(phase => phase.isAsExpected),
  }
}

/** Who answered: on a terminal a strip that grows, else a line each second. */
class Beats {
  private readonly screen: DemoScreen
  private readonly calls: SteadyCalls
  private readonly periodMs: number
  private timer: NodeJS.Timeout | undefined
  private cells = ''
  private told = 0
  private toldAtMs = 0

  constructor(screen: DemoScreen, calls: SteadyCalls) {
    this.screen = screen
    this.calls = calls
    this.periodMs = screen.isLive ? CELL_MS : SECOND_MS
  }

  start(): void {
    this.timer = setInterval(() => this.beat(), this.periodMs)
    this.toldAtMs = performance.now()
  }

  /** The next part of the story begins: its time is counted from here. */
  turn(): void {
    clearInterval(this.timer)
    if (performance.now() - this.toldAtMs > this.periodMs / 2) this.beat()
    this.told = this.calls.results.length
    this.cells = ''
    this.start()
  }

  stop(): void {
    clearInterval(this.timer)
    this.screen.closeLine()
  }

  private beat(): void {
    const { screen, calls } = this
    const nowMs = performance.now()
    const fresh = countAnswers(calls.results.slice(this.told))
    this.told = calls.results.length
    this.toldAtMs = nowMs
    this.cells += fresh.failed > 0 ? '!' : fresh.near + fresh.far === 0 ? '·' : fresh.near >= fresh.far ? '█' : '▒'
    const second = calls.results.filter(call => call.answeredAtMs > nowMs - SECOND_MS)
    const { near, far } = countAnswers(second)
    const p50Ms = percentile(toSpans(second), 0.5)
    const { failed } = countAnswers(calls.results)
    const who = `${NEAR.name} ${String(near).padStart(2)}  ${FAR.name} ${String(far).padStart(2)}`
    const failures = failed === 0 ? screen.good('failed 0') : screen.bad(`failed ${failed}`)
    const picture = screen.isLive ? screen.strip(this.cells) : screen.bar(near, far)
    screen.beat(`${picture}  ${who}  p50 ${p50Ms.toFixed(0).padStart(3)} ms  ${failures}`)
  }
}

function countAnswers(calls: readonly CallResult[]): { near: number; far: number; failed: number } {
  const of = (region: string | undefined): number => calls.filter(call => call.region === region).length
  return { near: of(NEAR.region), far: of(FAR.region), failed: of(undefined) }
}

function printSummary(screen: DemoScreen, summary: Summary): void {
  const { calls, failed, phases, isGood } = summary
  screen.step('Summary')
  const rows = [
    ['PHASE', 'ANSWERED BY', 'CALLS', 'P50 MS', 'P99 MS'],
    ...phases.map(({ name, answeredBy, calls: count, p50Ms, p99Ms }) => [
      name,
      answeredBy,
      String(count),
      p50Ms.toFixed(1),
      p99Ms.toFixed(1),
    ]),
  ]
  const widths = [0, 1, 2, 3, 4].map(i => Math.max(...rows.map(row => (row[i] ?? '').length)))
  const lines = rows.map(row =>
    row.map((cell, i) => (i < 2 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join('  '),
  )
  const failures = String(failed).padStart(7)
  const facts = [
    `calls sent          ${String(calls).padStart(7)}`,
    `calls failed        ${failed === 0 ? screen.good(failures) : screen.bad(failures)}`,
    `time to fail over   ${formatMs(summary.failoverMs)}   from kill -9 until callers no longer notice`,
    `time to come back   ${formatMs(summary.returnMs)}   from its restart until it answers again`,
    `time to converge    ${formatMs(summary.convergeMs)}   from a start until all know all routes`,
  ]
  screen.block(`\n${lines.join('\n')}\n\n${facts.join('\n')}`)
  if (!isGood)
    screen.block(`\n${screen.bad('Not as it should be: a call failed, or went to another region than it should.')}`)
}

function printCommands(screen: DemoScreen, mesh: DemoMesh): void {
  const flatmesh = 'node_modules/.bin/node daemon/flatmesh.js'
  screen.step('The mesh keeps running until Ctrl-C. In another terminal, in this folder, try:')
  screen.block(
    [
      '',
      `curl -H 'Host: orders.mesh' ${mesh.home.httpUrl}/`,
      `curl --proxy ${mesh.home.httpUrl} http://billing.mesh/`,
      `config=${mesh.home.configFile}`,
      `${flatmesh} explain orders --config $config`,
      `${flatmesh} routes --config $config`,
      `tail -f ${mesh.home.logFile}`,
      `kill -9 ${mesh.near.pid}     # ${NEAR.name} again`,
    ].join('\n'),
  )
}

/** Exactly the fields that are promised. Milliseconds to the tenth. */
function toJson({ calls, failed, failoverMs: failover, convergeMs, phases }: Summary): unknown {
  return {
    calls,
    failed,
    failoverMs: round(failover),
    convergeMs: round(convergeMs),
    phases: phases.map(({ name, answeredBy, p50Ms, p99Ms }) => ({
      name,
      answeredBy,
      p50Ms: round(p50Ms),
      p99Ms: round(p99Ms),
    })),
  }
}

class Interrupted extends Error {}

/** Ctrl-C, a supervisor's wish, or a terminal that was closed. */
function onStopSignal(): AbortSignal {
  const controller = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => controller.abort())
  return controller.signal
}

function pause(ms: number): Promise<void> {
  return new Promise(resolve => setTimeout(resolve, ms))
}

function truly(condition: boolean): true | undefined {
  return condition ? true : undefined
}

function formatMs(ms: number): string {
  return `${String(Math.round(ms)).padStart(7)} ms`
}

function round(ms: number): number {
  return Math.round(ms * 10) / 10
}

const flags = readFlags(process.argv.slice(2))
if (flags !== undefined) await run(flags)
