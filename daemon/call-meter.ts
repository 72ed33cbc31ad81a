import type { CallReport } from '../proxy/call-report.ts'
import type { Exposition, Sample } from './exposition.ts'
import { Histogram, LATENCY_BOUNDS_SECONDS } from './histogram.ts'

export interface CallMeterOptions {
  /** Services with numbers of their own; those that come later are counted together. */
  readonly servicesMax: number
  /** The same for nodes that calls are sent to. */
  readonly targetsMax: number
  /** Pairs of the two with a histogram of their own; beyond, a service's other nodes share one. */
  readonly pairsMax: number
}

/** A histogram is 19 lines: 1,000 of them, and what goes with 200 services, are 2 MB of text. Guess. */
export const CALL_METER_DEFAULTS: CallMeterOptions = { servicesMax: 200, targetsMax: 100, pairsMax: 1000 }

/** Stands for all that are beyond the limits. No name of a service or node has an underscore. */
export const OTHER = '_other'
/** Stands for a service that nobody has ever offered, whatever it was called: clients must not make labels. */
export const UNKNOWN = '_unknown'

/** All calls of one service. */
interface ServiceNumbers {
  /** Of answers that were passed on whole, by the first digit of their status; 0: without one. */
  readonly ok: number[]
  /** Of all others, by `outcome` and the first digit of the status the client got. */
  readonly failed: Map<string, { readonly outcome: string; readonly digit: number; count: number }>
  /** Of answers' first bytes, by node. */
  readonly firstByte: Map<string, Histogram>
  bytesIn: number
  bytesOut: number
}

/**
 * Counts the calls that this node took, for metrics.
 *
 * Memory: bounded by the options, whatever clients ask for and however many services and nodes the mesh has. A name
 * keeps its numbers until the daemon ends, as counters must.
 */
export class CallMeter {
  private readonly options: CallMeterOptions
  private readonly services = new Map<string, ServiceNumbers>()
  private readonly targets = new Set<string>()
  private readonly errors = new Map<string, number>()
  /** Tries that came to nothing, by node and code. */
  private readonly tries = new Map<string, Map<string, number>>()
  private pairs = 0

  constructor(options: Partial<CallMeterOptions> = {}) {
    this.options = { ...CALL_METER_DEFAULTS, ...options }
  }

  onCallOver(report: CallReport): void {
    const { outcome, status, egress, answeredAtMs, beganAtMs, attempts } = report
    const service = this.serviceOf(report)
    const digit = Math.floor(status / 100)
    if (outcome === 'ok') service.ok[digit] = (service.ok[digit] ?? 0) + 1
    else this.countFailed(service, outcome, digit)
    service.bytesIn += report.bytesIn
    service.bytesOut += report.bytesOut
    if (egress !== undefined && !Number.isNaN(answeredAtMs)) {
      this.firstByteOf(service, egress.name).observe((answeredAtMs - beganAtMs) / 1000)
    }
    for (const { node, code } of attempts) this.countTry(node, code)
  }

  expose(text: Exposition): void {
    const services = [...this.services]
    text.counter(
      'flatmesh_calls_total',
      'Calls taken here from applications that are over, by how they ended and the class of the status.',
      services.flatMap(([service, numbers]) => callSamples(service, numbers)),
    )
    text.counter(
      'flatmesh_errors_total',
      'Calls taken here that ended with an error of the mesh, by its code.',
      [...this.errors].map(([code, count]): Sample => [{ code }, count]),
    )
    text.counter(
      'flatmesh_failed_tries_total',
      'Tries to have a call answered that came to nothing, by the node that was asked and the code; another try may have gone well.',
      [...this.tries].flatMap(([target, codes]) => [...codes].map(([code, n]): Sample => [{ target, code }, n])),
    )
    text.histogram(
      'flatmesh_call_first_byte_seconds',
      "Time from a request's head to its answer's, by service and the node that answered.",
      services.flatMap(([service, { firstByte }]) =>
        [...firstByte].map(([target, histogram]): Sample<Histogram> => [{ service, target }, histogram]),
      ),
    )
    text.counter(
      'flatmesh_call_received_bytes_total',
      'Bytes of request bodies and tunnels that came from applications.',
      services.map(([service, { bytesIn }]): Sample => [{ service }, bytesIn]),
    )
    text.counter(
      'flatmesh_call_sent_bytes_total',
      'Bytes of answers and tunnels that went to applications.',
      services.map(([service, { bytesOut }]): Sample => [{ service }, bytesOut]),
    )
  }

  private serviceOf({ service, egress, outcome }: CallReport): ServiceNumbers {
    const known = this.services.get(service)
    if (known !== undefined) return known
    const isReal = egress !== undefined || outcome === 'no-healthy-place' || outcome === 'no-matching-place'
    const label = !isReal ? UNKNOWN : this.services.size < this.options.servicesMax ? service : OTHER
    const existing = this.services.get(label)
    if (existing !== undefined) return existing
    const numbers = { ok: [], failed: new Map(), firstByte: new Map(), bytesIn: 0, bytesOut: 0 }
    this.services.set(label, numbers)
    return numbers
  }

  private countFailed(service: ServiceNumbers, outcome: CallReport['outcome'], digit: number): void {
    const key = `${outcome} ${digit}`
    const known = service.failed.get(key)
    if (known !== undefined) known.count++
    else service.failed.set(key, { outcome, digit, count: 1 })
    if (outcome !== 'client-gone') increase(this.errors, outcome)
  }

  private countTry(node: string, code: string): void {
    const target = this.targetOf(node)
    const codes = this.tries.get(target) ?? new Map<string, number>()
    this.tries.set(target, codes)
    increase(codes, code)
  }

  private firstByteOf(service: ServiceNumbers, node: string): Histogram {
    const known = service.firstByte.get(node)
    if (known !== undefined) return known
    const target = this.pairs < this.options.pairsMax ? this.targetOf(node) : OTHER
    const existing = service.firstByte.get(target)
    if (existing !== undefined) return existing
    const histogram = new Histogram(LATENCY_BOUNDS_SECONDS)
    service.firstByte.set(target, histogram)
    this.pairs++
    return histogram
  }

  private targetOf(node: string): string {
    if (this.targets.has(node)) return node
    if (this.targets.size >= this.options.targetsMax) return OTHER
    this.targets.add(node)
    return node
  }
}

function callSamples(service: string, { ok, failed }: ServiceNumbers): Sample[] {
  const samples: Sample[] = []
  for (const [digit, count] of ok.entries()) {
    if (count !== undefined) samples.push([{ service, outcome: 'ok', status: statusClass(digit) }, count])
  }
  for (const { outcome, digit, count } of failed.values()) {
    samples.push([{ service, outcome, status: statusClass(digit) }, count])
  }
  return samples
}

function statusClass(digit: number): string {
  return digit === 0 ? 'none' : `${digit}xx`
}

function increase(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1)
}
