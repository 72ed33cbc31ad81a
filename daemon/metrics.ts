import type { Egress } from '../proxy/egress.ts'
import type { Ingress } from '../proxy/ingress.ts'
import type { Instances } from '../proxy/instances.ts'
import type { Catalog } from '../registry/catalog.ts'
import type { Router } from '../router/router.ts'
import type { CallPlane } from '../tunnel/call-plane.ts'
import type { Identity } from '../tunnel/identity.ts'
import type { Overlay } from '../tunnel/overlay.ts'
import { type CallMeter, OTHER } from './call-meter.ts'
import { Exposition, type Sample } from './exposition.ts'
import type { LineFile } from './line-file.ts'
import type { ProcessMeter } from './process-meter.ts'

/** Services of this node, and nodes it has links to, with lines of their own; the rest are added up. As the calls have them. Guess. */
const LABELS_MAX = 200

export interface MetricsDeps {
  readonly identity: Pick<Identity, 'mesh' | 'name' | 'region' | 'expiresAtMs'>
  readonly version: string
  /** Monotonic milliseconds, the router's. */
  readonly nowMs: () => number
  readonly state: () => string
  readonly ingress: Pick<Ingress, 'counters' | 'inFlight'>
  readonly egress: Pick<Egress, 'inFlight' | 'poolCounts' | 'queueCounters'>
  readonly instances: Pick<Instances, 'all'>
  readonly calls: CallMeter
  readonly accessFile: Pick<LineFile, 'counts'> | undefined
  readonly callPlane: Pick<CallPlane, 'links' | 'linkCounts' | 'counts' | 'relayed'>
  readonly overlay: Pick<Overlay, 'links'>
  readonly router: Router
  readonly catalog: Pick<Catalog, 'sources'>
  readonly process: ProcessMeter
}

/**
 * What the daemon counts, as Prometheus reads it. docs/metrics.md explains each; a test keeps the two in step.
 *
 * Whoever has a number keeps it in a field of its own; here they are read when somebody asks, so a call pays for an
 * addition and nothing else. There is no registry: what is not named here does not exist.
 */
export class Metrics {
  private readonly deps: MetricsDeps

  constructor(deps: MetricsDeps) {
    this.deps = deps
  }

  /** A snapshot, made without waiting: text format 0.0.4. */
  text(): string {
    const text = new Exposition()
    this.exposeNode(text)
    this.exposeCalls(text)
    this.exposeInstances(text)
    this.exposeLinks(text)
    this.exposeGossip(text)
    this.deps.process.expose(text)
    return text.toString()
  }

  private exposeNode(text: Exposition): void {
    const { identity, version, state, catalog } = this.deps
    const { mesh, name: node, region, expiresAtMs } = identity
    const build = { version, node_version: process.version }
    text.gauge('flatmesh_build_info', 'Always 1; the labels say what runs.', [[build, 1]])
    text.gauge('flatmesh_node_info', 'Always 1; the labels say who this is.', [[{ mesh, node, region }, 1]])
    text.gauge(
      'flatmesh_up',
      '1 while calls are welcome, 0 while the daemon starts or drains.',
      state() === 'up' ? 1 : 0,
    )
    const expiry = 'flatmesh_certificate_expiry_timestamp_seconds'
    text.gauge(expiry, "When this node's certificate ends, Unix time.", expiresAtMs / 1000)
    text.gauge(
      'flatmesh_registry_problem',
      '1 while a registry cannot be read and its last good content is in force.',
      catalog.sources().map(({ name: registry, problem }): Sample => [{ registry }, problem === undefined ? 0 : 1]),
    )
  }

  private exposeCalls(text: Exposition): void {
    const { ingress, egress, calls, accessFile } = this.deps
    calls.expose(text)
    const inFlight = 'Calls under way, by where: taken from applications here (ingress), answered here (egress).'
    text.gauge('flatmesh_calls_in_flight', inFlight, [
      [{ at: 'ingress' }, ingress.inFlight],
      [{ at: 'egress' }, egress.inFlight],
    ])
    text.counter('flatmesh_retries_total', 'Tries after the first, to have a call answered.', ingress.counters.retries)
    const { written, dropped } = accessFile?.counts ?? { written: 0, dropped: 0 }
    text.counter('flatmesh_access_log_lines_total', 'Lines of the access log that were written.', written)
    text.counter(
      'flatmesh_access_log_dropped_total',
      'Lines that were lost: the disk was too slow, or failed.',
      dropped,
    )
  }

  private exposeInstances(text: Exposition): void {
    const states = new Map<string, { healthy: number; out: number }>()
    for (const { service, isHealthy } of this.deps.instances.all()) {
      const counts = states.get(service) ?? { healthy: 0, out: 0 }
      states.set(service, counts)
      counts[isHealthy ? 'healthy' : 'out']++
    }
    text.gauge(
      'flatmesh_instances',
      'Instances of services of this node: healthy, or out until they answer again.',
      bounded(states, 'service', ['healthy', 'out']),
    )
    const pools = new Map(this.deps.egress.poolCounts().map(({ service, ...counts }) => [service, counts]))
    text.gauge(
      'flatmesh_pool',
      'By service of this node: connections to instances without a call (idle) and calls on them (busy), and calls that wait for one (queued).',
      bounded(pools, 'service', ['idle', 'busy', 'queued']),
    )
    const { queued, refused, expired } = this.deps.egress.queueCounters
    text.counter(
      'flatmesh_queued_total',
      'Calls that had to wait for an instance with room: all of them, those refused because too many waited, and those whose turn did not come in time.',
      [
        [{ outcome: 'all' }, queued],
        [{ outcome: 'refused' }, refused],
        [{ outcome: 'expired' }, expired],
      ],
    )
  }

  private exposeLinks(text: Exposition): void {
    const { callPlane, overlay, router } = this.deps
    const { linkCounts, counts, relayed } = callPlane
    const links = callPlane.links()
    const byKind = new Map<string, number>([
      ['direct', 0],
      ['relayed', 0],
      ['overlay', 0],
    ])
    for (const { carrier, state } of links) if (state === 'up') byKind.set(carrier, (byKind.get(carrier) ?? 0) + 1)
    const help = 'Links that calls can be opened on now, by what carries them.'
    text.gauge(
      'flatmesh_links',
      help,
      [...byKind].map(([carrier, count]): Sample => [{ carrier }, count]),
    )
    text.gauge('flatmesh_overlay_links', 'Links that carry gossip.', overlay.links().length)
    const nameOf = (id: string): string => router.table.nodeInfo(id)?.name ?? id
    const rtts = new Map<string, number>()
    for (const { peer, state, rttMs } of links) {
      if (state === 'up' && rttMs !== undefined && rtts.size < LABELS_MAX) rtts.set(nameOf(peer), rttMs / 1000)
    }
    const rttHelp = 'Smoothed round trip on the link for calls to a node; what queues on the way is in it.'
    text.gauge(
      'flatmesh_link_rtt_seconds',
      rttHelp,
      [...rtts].map(([target, rtt]): Sample => [{ target }, rtt]),
    )
    text.counter('flatmesh_link_frames_total', 'Frames on links for calls.', [
      [{ direction: 'in' }, linkCounts.framesIn],
      [{ direction: 'out' }, linkCounts.framesOut],
    ])
    text.counter('flatmesh_link_bytes_total', 'Bytes of those frames, before encryption.', [
      [{ direction: 'in' }, linkCounts.bytesIn],
      [{ direction: 'out' }, linkCounts.bytesOut],
    ])
    text.counter(
      'flatmesh_windows_exhausted_total',
      'Times data waited for credit: of its call, or of the whole link.',
      [
        [{ window: 'call' }, linkCounts.callWindowsExhausted],
        [{ window: 'link' }, linkCounts.linkWindowsExhausted],
      ],
    )
    text.counter(
      'flatmesh_links_refused_total',
      'Connections to the call port, and links, that were turned away or ended by a fault of the peer.',
      [
        [{ reason: 'stranger' }, counts.strangers],
        [{ reason: 'handshake' }, counts.failedHandshakes],
        [{ reason: 'flood' }, counts.refusedConnections],
        [{ reason: 'protocol' }, counts.brokenProtocols],
      ],
    )
    text.gauge(
      'flatmesh_relayed_streams_in_flight',
      'Streams that this node passes on for others now.',
      relayed.streams,
    )
    text.counter('flatmesh_relayed_streams_total', 'Streams that this node has passed on for others.', relayed.total)
    text.counter('flatmesh_relayed_bytes_total', 'Bytes that this node has passed on for others.', relayed.bytes)
    text.counter('flatmesh_relay_refused_total', 'Streams that this node would not pass on.', relayed.refused)
  }

  private exposeGossip(text: Exposition): void {
    const { router, nowMs } = this.deps
    const { table } = router
    const nodes = { reachable: 0, unreachable: 0 }
    for (const id of table.nodeIds()) nodes[table.path(id) === undefined ? 'unreachable' : 'reachable']++
    text.gauge('flatmesh_nodes', 'Nodes of the mesh that this one knows, itself included.', [
      [{ state: 'reachable' }, nodes.reachable],
      [{ state: 'unreachable' }, nodes.unreachable],
    ])
    text.gauge('flatmesh_routes', 'Routes in the table: a service at a node.', table.routeCount)
    text.gauge(
      'flatmesh_services_held_back',
      'Services of this node that come and go, and are not told of for a while.',
      router.dampedServices(nowMs()).length,
    )
    text.gauge('flatmesh_gossip_held_bytes', "Memory of everybody's records, as they were signed.", router.heldBytes())
    text.counter(
      'flatmesh_gossip_refused_total',
      'Frames, batches and proofs of other nodes that were refused.',
      [...router.refused].map(([reason, count]): Sample => [{ reason }, count]),
    )
  }
}

/** A sample for each key and state; keys beyond `LABELS_MAX` are added up under `_other`. */
function bounded<S extends string>(
  counts: ReadonlyMap<string, Readonly<Record<S, number>>>,
  label: string,
  states: readonly S[],
): Sample[] {
  const samples: Sample[] = []
  const rest = new Map<S, number>()
  let used = 0
  for (const [key, numbers] of counts) {
    used++
    for (const state of states) {
      if (used <= LABELS_MAX) samples.push([{ [label]: key, state }, numbers[state]])
      else rest.set(state, (rest.get(state) ?? 0) + numbers[state])
    }
  }
  for (const [state, count] of rest) samples.push([{ [label]: OTHER, state }, count])
  return samples
}
