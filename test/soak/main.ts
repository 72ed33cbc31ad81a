import { setTimeout as wait } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import type { ListenView } from '../../daemon/admin-api.ts'
import { CONFIG_KEYS } from '../../daemon/config.ts'
import { createMesh, type MeshProcesses, waitUntil } from '../e2e/daemon-process.ts'
import { type Activity, Ingress } from './activity.ts'
import { GRPC_ACTIVITIES } from './grpc.ts'
import { HTTP1_ACTIVITIES, TCP_ACTIVITY } from './http1.ts'
import { HTTP2_ACTIVITIES } from './http2.ts'
import { SoakLoad } from './load.ts'
import { Services } from './services.ts'
import { badLines, type Held, judgeHeld, look, mb } from './watch.ts'

const HELP = `npm run soak -- [options]: three daemons, calls of every kind at random, many of them given up by their clients.

  --minutes N    of load after the warm-up (10); fractions are fine
  --seconds N    the same in seconds
  --rate N       calls a second (300)
  --seed N       what is called, where and when it is given up (drawn anew each time, and printed)
  --only NAMES   some kinds of calls, with commas between them
  --keep         keep the daemons' folders

Every answer is compared byte for byte. Exit code 1 if a call failed that its client had not given up, a byte was wrong, a daemon
wrote an error, or did not come back to its baseline: memory within 20 % and 20 MB (in runs of two minutes and more), descriptors
within 5, no call in flight. The baseline is taken after the warm-up (a minute, or half the run if that is shorter) and a pause.`

const WARM_UP_MS_MAX = 60_000
/** Pauses before the baseline and the end: idle connections to instances are let go after four seconds, and garbage is collected. */
const PAUSE_MS_MAX = 10_000
const PAUSE_MS_MIN = 6_000
/** Below this V8 is still taking the memory it will settle on. */
const RSS_JUDGED_FROM_MS = 120_000
const PROGRESS_MS = 5_000
const NODES = ['a', 'b', 'c']
const HAS_LISTENERS = (CONFIG_KEYS[''] as readonly string[]).includes('listeners')

type TcpPorts = readonly { readonly service: string; readonly address: string }[]

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '10' },
    seconds: { type: 'string' },
    rate: { type: 'string', default: '300' },
    seed: { type: 'string', default: String(Math.floor(Math.random() * 2 ** 31)) },
    only: { type: 'string' },
    keep: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
if (values.help) {
  console.log(HELP)
  process.exit(0)
}
const seed = Number(values.seed)
const runMs = values.seconds === undefined ? Number(values.minutes) * 60_000 : Number(values.seconds) * 1000
const callsPerSecond = Number(values.rate)
for (const [name, value] of Object.entries({ seed, runMs, rate: callsPerSecond }))
  if (!(value >= 0)) throw new Error(`--${name}: expected a number, found ${value}`)

const ALL: readonly Activity[] = [
  ...HTTP1_ACTIVITIES,
  ...HTTP2_ACTIVITIES,
  ...GRPC_ACTIVITIES,
  ...(HAS_LISTENERS ? [TCP_ACTIVITY] : []),
]
const wanted = values.only?.split(',')
const activities = ALL.filter(({ name }) => wanted === undefined || wanted.includes(name))
if (activities.length === 0) throw new Error(`--only: expected some of ${ALL.map(({ name }) => name).join(', ')}`)

const problems: string[] = []
process.on('unhandledRejection', error => void problems.push(`the soak itself: ${String(error)}`))
const services = { b: new Services(), c: new Services() }
const only = values.only === undefined ? '' : ` --only ${values.only}`
const again = `npm run soak -- --seconds ${runMs / 1000} --rate ${callsPerSecond} --seed ${seed}${only}`
console.log(`soak: ${again}`)
if (!HAS_LISTENERS) console.log('soak: this version has no listeners for plain TCP: left out')

const config = HAS_LISTENERS ? { listeners: [{ tcp: '127.0.0.1:0', service: 'raw' }] } : {}
const mesh = await createMesh({ nodes: NODES.map(name => ({ name, region: `region-${name}`, config })), mesh: 'soak' })
if (values.keep) mesh.keepFolder()
try {
  const ingresses = await prepare(mesh)
  const load = new SoakLoad({ activities, ingresses }, { seed, callsPerSecond })
  const stopProgress = showProgress(load, mesh)
  await load.run(Math.min(WARM_UP_MS_MAX, runMs / 2))
  const base = await rest(ingresses, mesh)
  await load.run(runMs)
  const end = await rest(ingresses, mesh)
  stopProgress()
  for (const name of NODES) {
    const [before, after] = [base.get(name), end.get(name)]
    if (before !== undefined && after !== undefined)
      problems.push(...judgeHeld(name, before, after, runMs >= RSS_JUDGED_FROM_MS))
  }
  for (const [region, its] of Object.entries(services)) {
    problems.push(...its.problems.map(problem => `the services of ${region}: ${problem}`))
    if (its.inFlight !== 0) problems.push(`the services of ${region}: ${its.inFlight} requests never ended`)
  }
  problems.push(...load.failures)
  printTable(load, base, end)
  for (const ingress of ingresses) ingress.close()
} finally {
  await mesh.stop().catch((error: unknown) => void problems.push(String(error)))
  for (const its of Object.values(services)) its.stop()
}
for (const problem of problems) console.log(`FAILED ${problem}`)
console.log(problems.length === 0 ? 'soak: clean' : `soak: ${problems.length} problems; again with: ${again}`)
process.exit(problems.length === 0 ? 0 : 1)

/** Services at b and c, all three reached by all: `a` has none of its own. */
async function prepare(mesh: MeshProcesses): Promise<Ingress[]> {
  for (const [name, its] of Object.entries(services)) {
    await its.start()
    mesh.node(name).writeServices(its.offer())
  }
  await mesh.converged()
  for (const name of NODES) {
    await waitUntil(`${name} knows all services of both regions`, async () =>
      (await mesh.node(name).routes()).filter(({ state }) => state === 'ready').length >= 8 ? true : undefined,
    )
  }
  return NODES.map(name => {
    const { http, tcp = [] }: ListenView & { readonly tcp?: TcpPorts } = mesh.node(name).listen
    return new Ingress(http, new Map(tcp.map(({ service, address }) => [service, Number(/\d+$/.exec(address)?.[0])])))
  })
}

/** Closes what clients keep open, waits, and looks at what the daemons still hold. */
async function rest(ingresses: readonly Ingress[], mesh: MeshProcesses): Promise<Map<string, Held>> {
  for (const ingress of ingresses) ingress.close()
  await wait(Math.max(PAUSE_MS_MIN, Math.min(PAUSE_MS_MAX, runMs / 6)))
  const held = new Map<string, Held>()
  for (const name of NODES) held.set(name, await look(mesh.node(name)))
  return held
}

function showProgress(load: SoakLoad, mesh: MeshProcesses): () => void {
  const startedAtMs = performance.now()
  const timer = setInterval(() => {
    const { done, givenUp, failed } = load.total
    const seconds = Math.round((performance.now() - startedAtMs) / 1000)
    const rss = NODES.map(name => (mesh.node(name).isRunning ? mb(mesh.node(name).rssBytes()) : 'gone')).join(' / ')
    process.stderr.write(
      `${seconds} s: ${done} done, ${givenUp} given up, ${failed} failed, ${load.inFlight} in flight; ${rss}\n`,
    )
  }, PROGRESS_MS)
  return () => clearInterval(timer)
}

function printTable(load: SoakLoad, base: Map<string, Held>, end: Map<string, Held>): void {
  const { done, givenUp, failed } = load.total
  const line = (name: string, ...cells: (number | string)[]): void =>
    console.log(`${name.padEnd(16)}${cells.map(cell => String(cell).padStart(12)).join('')}`)
  line('calls', 'done', 'given up', 'failed')
  for (const [name, count] of load.counts) line(name, count.done, count.givenUp, count.failed)
  line('all', done, givenUp, failed)
  console.log('')
  line('daemon', 'memory', 'at the end', 'descriptors', 'at the end', 'in flight')
  for (const name of NODES) {
    const [before, after] = [base.get(name), end.get(name)]
    if (before === undefined || after === undefined) continue
    line(name, mb(before.rssBytes), mb(after.rssBytes), before.descriptors, after.descriptors, after.inFlight)
    const bad = badLines(mesh.node(name).log())
    problems.push(...bad.slice(0, 20).map(text => `${name} wrote: ${text}`))
  }
}
