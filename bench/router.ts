/**
 * The router at its bars: `npm run bench -- router [--json] [--nodes 1000] [--services 1000] [--only sync,table,idle]`.
 *
 * Memory and lookup: one router that knows `nodes` others, each linked to it and offering the same `services` names.
 * Full sync: 100,000 entries of 100 origins arrive as frames at a router that knows nothing, with real Ed25519 checks.
 * Idle: 50 nodes of 40 services in the simulator, a minute in which nothing changes; all the CPU of the process, the
 * simulator's own included, over the nodes.
 */
import { parseArgs } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { decodeBatch } from '../router/batch.ts'
import { encodeGossipFrame } from '../router/frame.ts'
import type { NodeId } from '../router/model.ts'
import { Router, type RouterEffect } from '../router/router.ts'
import { CANDIDATES_MAX } from '../router/table.ts'
import { nodeIdOf, SimSigning } from '../test/sim/signing.ts'
import { SimMesh } from '../test/sim/sim-mesh.ts'

const { values } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    nodes: { type: 'string', default: '1000' },
    services: { type: 'string', default: '1000' },
    only: { type: 'string', default: 'sync,table,idle' },
  },
})
const NODES = Number(values.nodes)
const SERVICES = Number(values.services)
const SELF = nodeIdOf('self')
const HUB = nodeIdOf('node-0')
const LOOKUPS = 2_000_000

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

function heldMegabytes(): number {
  collect()
  collect()
  const { heapUsed, arrayBuffers } = process.memoryUsage()
  return (heapUsed + arrayBuffers) / 1e6
}

function makeRouter(self: NodeId, signing: SimSigning): Router {
  // Each batch is read anew, as a daemon does: the simulator's memory of what it has read is not a router's.
  return new Router({ self, incarnation: 1024, random: Math.random, ...signing.of(self), decode: decodeBatch })
}

/** What an origin with these services and links sends to the last of its neighbours. */
function framesOf(name: string, services: number, neighbours: readonly NodeId[], signing: SimSigning): Uint8Array[] {
  const origin = makeRouter(nodeIdOf(name), signing)
  const effects: RouterEffect[] = []
  const address = '10.1.2.3'
  const info = {
    ...{ name, region: 'region-1', version: '0.1.0', state: 'up' as const },
    ...{ overlay: [`/ip4/${address}/tcp/4700`], calls: [`${address}:4701`] },
  }
  effects.push(...origin.step({ type: 'self', info }, 0))
  for (let i = 0; i < services; i++) {
    const service = { name: `service-${i}`, protocol: 'http' as const, instances: 3, healthy: 3, weight: 3, labels: {} }
    effects.push(...origin.step({ type: 'local', service }, 0))
  }
  origin.step({ type: 'wake' }, 1000)
  for (const to of neighbours) {
    effects.push(...origin.step({ type: 'link-up', to, rttMs: 10 + Math.random() * 200 }, 2000))
  }
  effects.push(...origin.step({ type: 'wake' }, 3000))
  // Nothing answers here: what a digest would bring is asked for by an empty one.
  const digest = encodeGossipFrame({ type: 'digest', versions: new Map(), reply: false })
  const last = neighbours.at(-1) ?? SELF
  effects.push(...origin.step({ type: 'frame', from: last, bytes: digest }, 3001))
  return effects.flatMap(effect => (effect.type === 'send' && effect.to === last ? [effect.bytes] : []))
}

function benchTable() {
  const signing = new SimSigning('stub')
  const router = makeRouter(SELF, signing)
  const beforeMb = heldMegabytes()
  // One neighbour, which is linked with all others: nothing has to be handed on, so only this router works here.
  const others = Array.from({ length: NODES - 1 }, (_, i) => nodeIdOf(`node-${i + 1}`))
  router.step({ type: 'link-up', to: HUB, rttMs: 10 }, 0)
  for (let i = 0; i < NODES; i++) {
    const neighbours = i === 0 ? [...others, SELF] : [HUB]
    for (const bytes of framesOf(`node-${i}`, SERVICES, neighbours, signing)) {
      router.step({ type: 'frame', from: HUB, bytes }, i)
    }
  }
  const names = Array.from({ length: SERVICES }, (_, i) => `service-${i}`)
  let found = 0
  // Every service has been called once, so what a lookup keeps is counted too.
  for (const name of names) found += router.candidates(name).length
  const expected = Math.min(NODES, CANDIDATES_MAX) * SERVICES
  if (found !== expected) throw new Error(`expected ${expected} candidates, found ${found}`)
  const routesMb = heldMegabytes() - beforeMb

  let beganMs = performance.now()
  let sum = 0
  for (let i = 0; i < LOOKUPS; i++) sum += router.candidates(names[i % names.length] as string)[0]?.instances ?? 0
  const lookupUs = ((performance.now() - beganMs) * 1000) / LOOKUPS
  if (sum !== LOOKUPS * 3) throw new Error('a lookup found nothing')

  // The first lookup after a link's round trip has moved: what a call pays in a mesh that is never quite still.
  beganMs = performance.now()
  const moves = 200
  for (let i = 0; i < moves; i++) {
    router.step({ type: 'rtt', to: HUB, rttMs: 300 + i * 50, lossRatio: 0 }, 10_000 + i * 10_000)
    router.step({ type: 'wake' }, 15_000 + i * 10_000)
    router.candidates(names[i % names.length] as string)
  }
  const lookupAfterMoveUs = ((performance.now() - beganMs) * 1000) / moves
  return { routes: NODES * SERVICES, routesMb, lookupUs, lookupAfterMoveUs }
}

function benchSync() {
  const signing = new SimSigning('ed25519')
  const origins = 100
  const perOrigin = 1000
  const frames = Array.from({ length: origins }, (_, i) => framesOf(`node-${i}`, perOrigin, [SELF], signing))
  const router = makeRouter(SELF, signing)
  router.step({ type: 'link-up', to: HUB, rttMs: 10 }, 0)
  const checkedBefore = signing.checked
  const beganMs = performance.now()
  for (const bytes of frames.flat()) router.step({ type: 'frame', from: HUB, bytes }, 1)
  const syncMs = performance.now() - beganMs
  let entries = 0
  for (const node of router.table.nodeIds()) for (const _ of router.table.servicesOf(node)) entries++
  if (entries !== origins * perOrigin) throw new Error(`expected ${origins * perOrigin} entries, found ${entries}`)
  return { syncEntries: entries, syncMs, syncChecks: signing.checked - checkedBefore }
}

function benchIdle() {
  const nodes = 50
  const idleMs = 60_000
  const mesh = new SimMesh({
    seed: 1,
    conditions: () => ({ latencyMs: 20 }),
    signatures: 'ed25519',
    transcript: false,
  })
  for (let i = 0; i < nodes; i++) {
    mesh.addNode(`n${i}`, { seeds: i === 0 ? [] : ['n0'] })
    for (let j = 0; j < 40; j++) mesh.serve(`n${i}`, { name: `service-${(i * 7 + j) % 250}`, instances: 3 })
  }
  mesh.run(30_000)
  const sentBefore = [...mesh.nodes.values()].map(({ sent }) => sent.gossipBytes)
  const before = process.cpuUsage()
  mesh.run(idleMs)
  const { user, system } = process.cpuUsage(before)
  const bytes = [...mesh.nodes.values()].map(({ sent }, i) => sent.gossipBytes - (sentBefore[i] ?? 0))
  return {
    idleCpuPercent: ((user + system) / 1000 / idleMs / nodes) * 100,
    idleBytesPerSecond: bytes.reduce((sum, count) => sum + count, 0) / nodes / (idleMs / 1000),
  }
}

const rows: [string, string, string][] = []
const figures: Record<string, number> = {}
const parts = values.only.split(',')
if (parts.includes('sync')) {
  const { syncEntries, syncMs, syncChecks } = Object.assign(figures, benchSync())
  rows.push([`full sync of ${syncEntries} entries`, `${syncMs.toFixed(0)} ms`, '2000 ms'])
  rows.push(['… with signature checks', String(syncChecks), ''])
}
if (parts.includes('table')) {
  const { routes, routesMb, lookupUs, lookupAfterMoveUs } = Object.assign(figures, benchTable())
  rows.push([`${routes} routes`, `${routesMb.toFixed(0)} MB`, '400 MB'])
  rows.push(['candidate lookup', `${lookupUs.toFixed(3)} µs`, '1 µs'])
  rows.push(['first lookup after a link moved', `${lookupAfterMoveUs.toFixed(0)} µs`, ''])
}
if (parts.includes('idle')) {
  const { idleCpuPercent, idleBytesPerSecond } = Object.assign(figures, benchIdle())
  rows.push(['idle CPU of a node, 50 × 40', `${idleCpuPercent.toFixed(3)} %`, '2 %'])
  rows.push(['idle gossip of a node', `${(idleBytesPerSecond / 1000).toFixed(2)} kB/s`, '20 kB/s'])
}
if (values.json) console.log(JSON.stringify(figures, undefined, 2))
else {
  for (const [what, found, bar] of rows) {
    console.log(`${what.padEnd(36)}${found.padStart(12)}${bar === '' ? '' : `   bar ${bar}`}`)
  }
}
