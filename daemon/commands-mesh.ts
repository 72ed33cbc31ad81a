import { MeshError } from '../router/errors.ts'
import type { ExplainView, LinkView, NodeView, RouteView, ServiceView } from './admin-api.ts'
import { type Command, EXIT, type Io, printJson, printTable, readConfig, toAdminClient } from './command.ts'
import { PLACE_OPTIONS, readPlaceOptions } from './place-options.ts'
import { formatMs, formatPercent, formatSpan } from './quantity.ts'
import { type Cell, type Column, printable, type Tone } from './table.ts'

const NO_SERVICES = 'no services yet: flatmesh service add NAME ADDRESS'

const nodes: Command = {
  name: 'nodes',
  operands: '',
  count: [0, 0],
  summary: 'the nodes of the mesh, as seen from here',
  about: 'Lists every node this node has heard of. RTT is the round trip of the path in use. Needs a running daemon.',
  example: 'flatmesh nodes',
  async run(invocation, io) {
    const views = await toAdminClient(readConfig(invocation, io)).nodes()
    if (invocation.json) printJson(io, views)
    else printTable(io, NODE_COLUMNS, views.map(toNodeRow), 'no nodes yet')
    return EXIT.ok
  },
}

const links: Command = {
  name: 'links',
  operands: '',
  count: [0, 0],
  summary: 'the links of this node to others',
  about:
    'Lists this node’s links. OVERLAY is the connection for gossip, CALLS the one for calls, OVER what\n' +
    'carries that one (direct, relayed via others, or a stream of the overlay; ×2 to ×4 while bulk goes\n' +
    'there, so that small calls do not wait behind it), FOR how long the link is\n' +
    'in this state, LOSS the share of heartbeats lost, OPEN the calls in flight. Needs a running daemon.',
  example: 'flatmesh links',
  async run(invocation, io) {
    const views = await toAdminClient(readConfig(invocation, io)).links()
    if (invocation.json) printJson(io, views)
    else printTable(io, LINK_COLUMNS, views.map(toLinkRow), 'no links yet: flatmesh invite lets another node join')
    return EXIT.ok
  },
}

const services: Command = {
  name: 'services',
  operands: '',
  count: [0, 0],
  summary: 'the services of the mesh',
  about: 'Lists every service that can be called from here, and the node that is closest. Needs a running daemon.',
  example: 'flatmesh services',
  async run(invocation, io) {
    const views = await toAdminClient(readConfig(invocation, io)).services()
    if (invocation.json) printJson(io, views)
    else printTable(io, SERVICE_COLUMNS, views.map(toServiceRow), NO_SERVICES)
    return EXIT.ok
  },
}

const routes: Command = {
  name: 'routes',
  operands: '[SERVICE]',
  count: [0, 1],
  summary: 'which nodes offer which services',
  about:
    'Lists the routing table of this node: one row per service and node. COST is what the choice is made by, AGE the\n' +
    'time since the owner’s last word about it. With SERVICE: its routes alone. Needs a running daemon.',
  example: 'flatmesh routes orders',
  async run(invocation, io) {
    const [service] = invocation.operands
    const all = await toAdminClient(readConfig(invocation, io)).routes()
    const views = service === undefined ? all : all.filter(route => route.service === service)
    if (invocation.json) printJson(io, views)
    else if (views.length > 0 || service === undefined)
      printTable(io, ROUTE_COLUMNS, views.map(toRouteRow), NO_SERVICES)
    if (service !== undefined && views.length === 0) throw unknownService(service)
    return EXIT.ok
  },
}

const explain: Command = {
  name: 'explain',
  operands: 'SERVICE',
  count: [1, 1],
  summary: 'who would answer a call now, and why',
  about:
    'Lists every node that offers SERVICE in the order of choice: its cost (round trip RTT plus HOPS, the base cost of\n' +
    'the path’s hops), and why others are out. With --region and --label: for a call that asks for such a place with the\n' +
    'fields x-flatmesh-region and x-flatmesh-label. Exits 4 if nobody offers it. Needs a running daemon.',
  example: 'flatmesh explain orders\nflatmesh explain orders --region aws-* --label version=v2',
  options: PLACE_OPTIONS,
  async run(invocation, io) {
    const [service = ''] = invocation.operands
    const filter = readPlaceOptions(explain, invocation)
    const view = await toAdminClient(readConfig(invocation, io)).explain(service, filter)
    if (invocation.json) printJson(io, view)
    else if (view.known) printExplain(io, view)
    if (!view.known) throw unknownService(service)
    return EXIT.ok
  },
}

export const MESH_COMMANDS: readonly Command[] = [nodes, links, services, routes, explain]

function unknownService(service: string): MeshError {
  const shown = printable(JSON.stringify(service.slice(0, 80)))
  return new MeshError('not-found', `no node of the mesh offers ${shown}: flatmesh services lists those that are known`)
}

function printExplain(io: Io, view: ExplainView): void {
  io.stdout.write(`${printable(view.summary)}\n\n`)
  const rows = view.candidates.map((candidate): Cell[] => [
    candidate.rank === null ? { text: 'out', tone: 'dim' } : String(candidate.rank),
    candidate.node,
    candidate.region,
    formatMs(candidate.costMs),
    formatMs(candidate.parts.rttMs),
    formatMs(candidate.parts.hopsMs),
    showVia(candidate.via),
    showVia(candidate.carrier),
    healthOf(candidate),
    candidate.why,
  ])
  printTable(io, EXPLAIN_COLUMNS, rows, 'no candidates')
}

const right = (title: string): Column => ({ title, align: 'right' })
const shrinking = (title: string): Column => ({ title, shrinks: true })
const fixed = (title: string): Column => ({ title })

const NODE_COLUMNS = [
  shrinking('NODE'),
  shrinking('REGION'),
  fixed('STATE'),
  right('RTT MS'),
  shrinking('VIA'),
  shrinking('VERSION'),
]
const LINK_COLUMNS = [
  shrinking('NODE'),
  shrinking('REGION'),
  fixed('OVERLAY'),
  fixed('CALLS'),
  shrinking('OVER'),
  right('RTT MS'),
  right('LOSS %'),
  right('OPEN'),
  right('FOR'),
  shrinking('ADDRESS'),
]
const SERVICE_COLUMNS = [
  shrinking('SERVICE'),
  fixed('PROTOCOL'),
  right('NODES'),
  right('HEALTHY'),
  shrinking('CLOSEST'),
]
const ROUTE_COLUMNS = [
  shrinking('SERVICE'),
  shrinking('NODE'),
  shrinking('REGION'),
  fixed('PROTOCOL'),
  right('HEALTHY'),
  right('COST MS'),
  shrinking('VIA'),
  shrinking('OVER'),
  shrinking('STATE'),
  right('AGE'),
]
const EXPLAIN_COLUMNS = [
  right('RANK'),
  shrinking('NODE'),
  shrinking('REGION'),
  right('COST MS'),
  right('RTT'),
  right('HOPS'),
  shrinking('VIA'),
  shrinking('OVER'),
  right('HEALTHY'),
  shrinking('WHY'),
]

const TONE_OF_STATE: Readonly<Record<string, Tone>> = {
  self: 'good',
  up: 'good',
  ready: 'good',
  draining: 'warn',
  down: 'bad',
  unreachable: 'bad',
  'no-healthy-instance': 'bad',
}

function showState(state: string): Cell {
  const tone = TONE_OF_STATE[state]
  return tone === undefined ? state : { text: state, tone }
}

function showVia(via: string): string {
  return via === '' ? '-' : via
}

function healthOf({ healthy, instances }: { healthy: number; instances: number }): Cell {
  const text = `${healthy}/${instances}`
  return healthy === instances ? text : { text, tone: healthy === 0 ? 'bad' : 'warn' }
}

function toNodeRow(view: NodeView): Cell[] {
  return [view.node, view.region, showState(view.state), formatMs(view.rttMs), showVia(view.via), view.version]
}

function toLinkRow(view: LinkView): Cell[] {
  return [
    view.node,
    view.region,
    showState(view.overlay),
    showState(view.calls),
    view.carriers > 1 ? `${view.carrier} ×${view.carriers}` : showVia(view.carrier),
    formatMs(view.rttMs),
    formatPercent(view.lossRatio),
    String(view.inFlight),
    formatSpan(view.sinceMs),
    view.address === '' ? '-' : view.address,
  ]
}

function toServiceRow(view: ServiceView): Cell[] {
  const closest: Cell = view.closest ?? { text: 'none can take a call', tone: 'bad' }
  return [view.service, view.protocol, String(view.nodes), healthOf(view), closest]
}

function toRouteRow(view: RouteView): Cell[] {
  return [
    view.service,
    view.node,
    view.region,
    view.protocol,
    healthOf(view),
    formatMs(view.costMs),
    showVia(view.via),
    showVia(view.carrier),
    showState(view.state),
    formatSpan(view.ageMs),
  ]
}
