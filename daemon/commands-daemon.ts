import pino from 'pino'
import type { StatusView } from './admin-api.ts'
import { type Command, EXIT, printJson, readConfig, toAdminClient } from './command.ts'
import type { Config } from './config.ts'
import { formatBytes, formatSpan } from './quantity.ts'
import { type Cell, formatPairs } from './table.ts'
import { flatmeshVersion } from './version.ts'

const up: Command = {
  name: 'up',
  operands: '',
  count: [0, 0],
  summary: 'run the daemon',
  about:
    'Runs the daemon of this region in the foreground until SIGTERM or SIGINT, then drains: withdraws its routes,\n' +
    'finishes the calls in flight, and exits 0. A second signal ends it at once. Log lines go to stderr, as JSON.',
  example: 'flatmesh up --config /etc/flatmesh/flatmesh.yaml',
  async run(invocation, io) {
    const config = readConfig(invocation, io)
    return io.rooms.runDaemon(config, { log: createLog(config), stdout: io.stdout, stop: io.stopSignal() })
  },
}

const status: Command = {
  name: 'status',
  operands: '',
  count: [0, 0],
  summary: 'how this node is doing',
  about: 'Shows what the daemon of this config says about itself. Needs a running daemon.',
  example: 'flatmesh status --json',
  async run(invocation, io) {
    const view = await toAdminClient(readConfig(invocation, io)).status()
    if (invocation.json) printJson(io, view)
    else io.stdout.write(formatPairs(toPairs(view, io.nowMs()), io))
    return EXIT.ok
  },
}

const version: Command = {
  name: 'version',
  operands: '',
  count: [0, 0],
  summary: 'print the version of this program',
  about: 'Prints the version of this program (that of a running daemon is in status).',
  example: 'flatmesh version',
  async run({ json }, io) {
    const view = {
      version: flatmeshVersion(),
      node: process.versions.node,
      platform: process.platform,
      arch: process.arch,
    }
    if (json) printJson(io, view)
    else io.stdout.write(`flatmesh ${view.version} (Node ${view.node}, ${view.platform} ${view.arch})\n`)
    return EXIT.ok
  },
}

export const DAEMON_COMMANDS: readonly Command[] = [up, status, version]

/** JSON lines on stderr: stdout is for people. Written at once, so that the last line before a crash is there. */
function createLog(config: Config) {
  const options = { level: config.log.level, base: null, timestamp: pino.stdTimeFunctions.isoTime }
  return pino(options, pino.destination({ fd: 2, sync: true }))
}

function toPairs(view: StatusView, nowMs: number): [string, Cell][] {
  const { listen, calls, memory, gossip } = view
  const tone = view.state === 'up' ? 'good' : 'warn'
  const certificateMs = view.certificateExpiresAtMs - nowMs
  const certificate: Cell =
    certificateMs > 0 ? `expires in ${formatSpan(certificateMs)}` : { text: 'EXPIRED', tone: 'bad' }
  return [
    ['node', view.node],
    ['id', view.id],
    ['mesh', view.mesh],
    ['region', view.region],
    ['state', { text: `${view.state} for ${formatSpan(view.uptimeMs)}`, tone }],
    ['version', view.version],
    ['overlay', listen.overlay],
    ['calls', listen.calls],
    ['http', listen.http],
    ...listen.tcp.map(({ service, address }): [string, Cell] => ['tcp', `${address} for ${service}`]),
    ['admin', listen.admin],
    ['advertises', view.advertise.length === 0 ? 'nothing of its own' : view.advertise.join(', ')],
    ['certificate', certificate],
    ['nodes', `${view.nodes.reachable} of ${view.nodes.known} reachable`],
    ['services', `${view.services}, by ${view.routes} routes`],
    ['calls made', `${calls.total}, ${calls.failed} failed, ${calls.inFlight} in flight`],
    ['memory', `${formatBytes(memory.rssBytes)}, heap ${formatBytes(memory.heapBytes)}`],
    ...gossip.heldBack.map(({ service, forMs }): [string, Cell] => [
      'held back',
      { text: `${service} comes and goes: told of again in ${formatSpan(forMs)}`, tone: 'warn' },
    ]),
    ...Object.entries(gossip.refused).map(([reason, count]): [string, Cell] => [
      'refused',
      { text: `${count} from the mesh: ${reason}`, tone: 'warn' },
    ]),
    ...view.registries.map(({ name, problem }): [string, Cell] => [
      'registry',
      problem === null ? `${name}: ok` : { text: `${name}: ${problem}`, tone: 'bad' },
    ]),
  ]
}
