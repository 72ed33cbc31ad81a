import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import type { InstanceState } from '../proxy/instances.ts'
import { encodeLinkInfo, encodeNodeInfo, linkKey, NODE_KEY } from '../router/entry.ts'
import { Router } from '../router/router.ts'
import type { LinkStatus } from '../tunnel/call-plane.ts'
import { createLinkCounts } from '../tunnel/link-counts.ts'
import { CallMeter, OTHER } from './call-meter.ts'
import { type ReadFamily, readExposition } from './exposition-fixture.ts'
import { Metrics, type MetricsDeps } from './metrics.ts'
import { ProcessMeter } from './process-meter.ts'

function createMetrics(over: Partial<MetricsDeps> = {}): Metrics {
  const router = new Router({
    ...{ self: 'id-me', incarnation: 1, proof: new Uint8Array(1), random: () => 0.5 },
    ...{ sign: () => new Uint8Array(64), verify: () => true, verifyProof: () => undefined },
  })
  for (const name of ['me', 'near', 'lost']) {
    const info = { name, region: 'r', version: '1', overlay: [], calls: [], state: 'up' as const }
    router.table.update(`id-${name}`, { key: NODE_KEY, value: encodeNodeInfo(info) }, 0)
  }
  for (const [a, b] of [
    ['id-me', 'id-near'],
    ['id-near', 'id-me'],
  ] as const) {
    router.table.update(a, { key: linkKey(b), value: encodeLinkInfo({ rttMs: 10, lossRatio: 0 }) }, 0)
  }
  router.step({ type: 'frame', from: 'id-near', bytes: Buffer.from('nonsense') }, 0)
  return new Metrics({
    ...{ version: '0.1.0', router, calls: new CallMeter(), process: new ProcessMeter({ nowMs }), nowMs },
    identity: { mesh: 'acme', name: 'me', region: 'r', expiresAtMs: 2000 },
    state: () => 'up',
    ingress: { counters: { total: 9, failed: 1, retries: 4 }, inFlight: 2 },
    egress: {
      ...{ inFlight: 3, queueCounters: { queued: 9, refused: 4, expired: 2 } },
      poolCounts: () => [{ service: 'orders', idle: 1, busy: 2, queued: 5 }],
    },
    instances: { all: () => [instance('orders', true), instance('orders', true), instance('orders', false)].values() },
    accessFile: { counts: { written: 11, dropped: 12 } },
    callPlane: {
      links: () => [link('id-near', 'direct'), link('id-near', 'relayed', 'retiring'), link('id-far', 'relayed')],
      linkCounts: {
        ...{ framesIn: 21, framesOut: 22, bytesIn: 23, bytesOut: 24 },
        ...{ callWindowsExhausted: 25, linkWindowsExhausted: 26 },
      },
      counts: { strangers: 31, failedHandshakes: 32, refusedConnections: 33, brokenProtocols: 34 },
      relayed: { streams: 41, total: 42, refused: 43, bytes: 44 },
    },
    overlay: { links: () => [] },
    catalog: {
      sources: () => [
        { name: 'http', problem: undefined },
        { name: 'file', problem: 'not YAML' },
      ],
    },
    ...over,
  })
}
const nowMs = (): number => performance.now()

function instance(service: string, isHealthy: boolean): InstanceState {
  return { service, address: 'a:1', weight: 1, inFlight: 0, isHealthy, reason: '' }
}

function link(peer: string, carrier: LinkStatus['carrier'], state: LinkStatus['state'] = 'up'): LinkStatus {
  return { peer, carrier, state, via: [], dialled: true, parallel: false, rttMs: 12.5, calls: 0, address: '' }
}

/** `labels value` of a family, in order. */
function lines(families: ReadonlyMap<string, ReadFamily>, name: string): string[] {
  const family = families.get(name)
  if (family === undefined) throw new Error(`there is no ${name}`)
  return family.samples.map(({ labels, value }) => [...Object.values(labels), value].join(' '))
}

describe('the metrics of a daemon', () => {
  test.each([
    ['flatmesh_build_info', [`0.1.0 ${process.version} 1`]],
    ['flatmesh_node_info', ['acme me r 1']],
    ['flatmesh_up', ['1']],
    ['flatmesh_certificate_expiry_timestamp_seconds', ['2']],
    ['flatmesh_registry_problem', ['http 0', 'file 1']],
    ['flatmesh_calls_in_flight', ['ingress 2', 'egress 3']],
    ['flatmesh_retries_total', ['4']],
    ['flatmesh_access_log_lines_total', ['11']],
    ['flatmesh_access_log_dropped_total', ['12']],
    ['flatmesh_instances', ['orders healthy 2', 'orders out 1']],
    ['flatmesh_pool', ['orders idle 1', 'orders busy 2', 'orders queued 5']],
    ['flatmesh_links', ['direct 1', 'relayed 1', 'overlay 0']],
    ['flatmesh_link_rtt_seconds', ['near 0.0125', 'id-far 0.0125']],
    ['flatmesh_link_frames_total', ['in 21', 'out 22']],
    ['flatmesh_link_bytes_total', ['in 23', 'out 24']],
    ['flatmesh_windows_exhausted_total', ['call 25', 'link 26']],
    ['flatmesh_links_refused_total', ['stranger 31', 'handshake 32', 'flood 33', 'protocol 34']],
    ['flatmesh_relayed_streams_in_flight', ['41']],
    ['flatmesh_relayed_streams_total', ['42']],
    ['flatmesh_relay_refused_total', ['43']],
    ['flatmesh_relayed_bytes_total', ['44']],
    ['flatmesh_nodes', ['reachable 2', 'unreachable 1']],
    ['flatmesh_gossip_refused_total', ['bad-frame 1']],
  ])('%s tells %j', (name, expected) => {
    expect(lines(readExposition(createMetrics().text()), name)).toEqual(expected)
  })

  test('say that calls are not welcome while it drains, and nothing of a log that is off', () => {
    const families = readExposition(createMetrics({ state: () => 'draining', accessFile: undefined }).text())
    expect(lines(families, 'flatmesh_up')).toEqual(['0'])
    expect(lines(families, 'flatmesh_access_log_lines_total')).toEqual(['0'])
  })

  test('have lines for 200 services of this node and one for all others, and no more links than that', () => {
    const services = Array.from({ length: 1000 }, (_, i) => `s${i}`)
    const peers = Array.from({ length: 1000 }, (_, i) => link(`id-${i}`, 'direct'))
    const families = readExposition(
      createMetrics({
        instances: { all: () => services.map(service => instance(service, true)).values() },
        egress: {
          ...{ inFlight: 0, queueCounters: { queued: 0, refused: 0, expired: 0 } },
          poolCounts: () => services.map(service => ({ service, idle: 1, busy: 1, queued: 0 })),
        },
        callPlane: {
          ...{
            links: () => peers,
            linkCounts: createLinkCounts(),
            relayed: { streams: 0, total: 0, refused: 0, bytes: 0 },
          },
          counts: { strangers: 0, failedHandshakes: 0, refusedConnections: 0, brokenProtocols: 0 },
        },
      }).text(),
    )
    expect(lines(families, 'flatmesh_instances')).toHaveLength(402)
    expect(lines(families, 'flatmesh_instances')).toContain(`${OTHER} healthy 800`)
    expect(lines(families, 'flatmesh_pool')).toContain(`${OTHER} idle 800`)
    expect(lines(families, 'flatmesh_link_rtt_seconds')).toHaveLength(200)
    expect(lines(families, 'flatmesh_links')[0]).toBe('direct 1000')
  })

  test('count the process itself: memory, time, files, and how late timers are', async () => {
    const meter = new ProcessMeter({ nowMs })
    meter.start()
    const metrics = createMetrics({ process: meter })
    const count = (): number =>
      readExposition(metrics.text())
        .get('nodejs_eventloop_delay_seconds')
        ?.samples.find(({ name }) => name.endsWith('_count'))?.value ?? 0
    const endAtMs = nowMs() + 10_000
    while (count() < 2 && nowMs() < endAtMs) await new Promise(resolve => setTimeout(resolve, 20))
    meter.stop()
    expect(count()).toBeGreaterThanOrEqual(2)
    const families = readExposition(metrics.text())
    const value = (name: string): number => families.get(name)?.samples[0]?.value ?? Number.NaN
    expect(value('process_resident_memory_bytes')).toBeGreaterThan(10e6)
    expect(value('process_cpu_seconds_total')).toBeGreaterThan(0)
    expect(value('process_open_fds')).toBeGreaterThan(2)
    expect(Math.abs(value('process_start_time_seconds') - Date.now() / 1000)).toBeLessThan(3600)
    expect(value('nodejs_eventloop_active_seconds_total')).toBeGreaterThan(0)
  })

  test('are each explained in docs/metrics.md with type and labels, and nothing is explained that is not there', () => {
    const docs = readFileSync(new URL('../docs/metrics.md', import.meta.url), 'utf8')
    const calls = new CallMeter()
    calls.onCallOver({
      ...{
        kind: 'http',
        protocol: 'HTTP/1.1',
        service: 's',
        method: 'GET',
        target: '/',
        client: undefined,
        status: 200,
      },
      ...{ grpcStatus: undefined, outcome: 'link-lost', reason: '', egress: { node: 'id-b', name: 'b' } },
      ...{ egressNote: undefined, attempts: [{ node: 'b', code: 'link-lost', reason: '' }], bytesIn: 0, bytesOut: 0 },
      ...{ beganAtMs: 0, openedAtMs: 0, answeredAtMs: 1, endedAtMs: 1 },
    })
    const families = readExposition(createMetrics({ calls }).text())
    const rows = [...docs.matchAll(/^\| `([a-z_]+)` \| (counter|gauge|histogram) \|([^|]*)\| [^|]+ \|$/gm)]
    expect(
      rows.map(([, name, type, labels]) => `${name} ${type} ${labels?.replaceAll('`', '').trim()}`).sort(),
    ).toEqual(
      [...families]
        .map(([name, { type, samples }]) => {
          const labels = Object.keys(samples[0]?.labels ?? {}).filter(label => label !== 'le')
          return `${name} ${type} ${labels.join(', ')}`
        })
        .sort(),
    )
    const asked = [...docs.matchAll(/\b(?:flatmesh|process|nodejs)_[a-z_]+/g)].map(([name]) =>
      name.replace(/_bucket$/, ''),
    )
    expect(asked.filter(name => !families.has(name))).toEqual([])
  })
})
