import { describe, expect, test } from 'vitest'
import type { CallReport } from '../proxy/call-report.ts'
import { CallMeter, OTHER, UNKNOWN } from './call-meter.ts'
import { Exposition } from './exposition.ts'
import { type ReadSample, readExposition } from './exposition-fixture.ts'

const REPORT: CallReport = {
  ...{ kind: 'http', protocol: 'HTTP/1.1', service: 'orders', method: 'GET', target: '/', client: '10.0.4.7' },
  ...{ status: 200, grpcStatus: undefined, outcome: 'ok', reason: '', egress: { node: 'id-b', name: 'b' } },
  ...{ egressNote: undefined, attempts: [], bytesIn: 3, bytesOut: 10 },
  ...{ beganAtMs: 1000, openedAtMs: 1000, answeredAtMs: 1020, endedAtMs: 1200 },
}
const REFUSED: Partial<CallReport> = {
  ...{ outcome: 'unknown-service', status: 404, egress: undefined, answeredAtMs: Number.NaN },
}

function read(meter: CallMeter, name: string): readonly ReadSample[] {
  const text = new Exposition()
  meter.expose(text)
  const family = readExposition(text.toString()).get(name)
  if (family === undefined) throw new Error(`there is no ${name}`)
  return family.samples
}
/** `labels value`, in order. */
function lines(meter: CallMeter, name: string): string[] {
  return read(meter, name)
    .map(({ labels, value }) => `${Object.values(labels).join(' ')} ${value}`)
    .sort()
}

describe('the meter of calls', () => {
  test('counts calls by service, outcome and status, and errors of the mesh by code', () => {
    const meter = new CallMeter()
    meter.onCallOver(REPORT)
    meter.onCallOver({ ...REPORT, status: 204 })
    meter.onCallOver({ ...REPORT, status: 503 })
    meter.onCallOver({ ...REPORT, service: 'stock', outcome: 'link-lost', status: 502 })
    meter.onCallOver({ ...REPORT, outcome: 'client-gone', status: 0 })
    meter.onCallOver({ ...REPORT, outcome: 'link-lost', status: 200 })
    expect(lines(meter, 'flatmesh_calls_total')).toEqual([
      'orders client-gone none 1',
      'orders link-lost 2xx 1',
      'orders ok 2xx 2',
      'orders ok 5xx 1',
      'stock link-lost 5xx 1',
    ])
    expect(lines(meter, 'flatmesh_errors_total')).toEqual(['link-lost 2'])
    expect(lines(meter, 'flatmesh_call_received_bytes_total')).toEqual(['orders 15', 'stock 3'])
    expect(lines(meter, 'flatmesh_call_sent_bytes_total')).toEqual(['orders 50', 'stock 10'])
  })

  test('tells how long answers took to begin, by service and node, of calls that were answered', () => {
    const meter = new CallMeter()
    meter.onCallOver(REPORT)
    meter.onCallOver({ ...REPORT, egress: { node: 'id-c', name: 'c' }, answeredAtMs: 3000 })
    meter.onCallOver({ ...REPORT, outcome: 'deadline', status: 504, answeredAtMs: Number.NaN })
    const samples = read(meter, 'flatmesh_call_first_byte_seconds')
    const of = (target: string, suffix: string): ReadSample[] =>
      samples.filter(({ name, labels }) => name.endsWith(suffix) && labels.target === target)
    expect(of('b', '_count')[0]?.value).toBe(1)
    expect(of('b', '_sum')[0]?.value).toBeCloseTo(0.02)
    const firstFull = (target: string): string | undefined =>
      of(target, '_bucket').find(({ value }) => value > 0)?.labels.le
    expect([firstFull('b'), firstFull('c')]).toEqual(['0.025', '2.5'])
  })

  test('counts each try that came to nothing, though the call went well', () => {
    const meter = new CallMeter()
    const attempts = [{ node: 'a', code: 'instance-refused' as const, reason: '' }]
    meter.onCallOver({ ...REPORT, attempts })
    expect(lines(meter, 'flatmesh_failed_tries_total')).toEqual(['a instance-refused 1'])
    expect(lines(meter, 'flatmesh_errors_total')).toEqual([])
  })

  test('gives no label to what clients call services that nobody offers', () => {
    const meter = new CallMeter()
    for (let i = 0; i < 1000; i++) meter.onCallOver({ ...REPORT, ...REFUSED, service: `made-up-${i}` })
    expect(lines(meter, 'flatmesh_calls_total')).toEqual([`${UNKNOWN} unknown-service 4xx 1000`])
    meter.onCallOver({ ...REPORT, ...REFUSED, service: 'idle', outcome: 'no-healthy-place', status: 503 })
    expect(lines(meter, 'flatmesh_calls_total')).toContain('idle no-healthy-place 5xx 1')
    meter.onCallOver({ ...REPORT, ...REFUSED, service: 'elsewhere', outcome: 'no-matching-place', status: 503 })
    expect(lines(meter, 'flatmesh_calls_total')).toContain('elsewhere no-matching-place 5xx 1')
  })

  test('has numbers of their own for so many services and nodes only, and for all others together', () => {
    const meter = new CallMeter({ servicesMax: 2, targetsMax: 2, pairsMax: 3 })
    const refused = (node: string) => [{ node, code: 'link-lost' as const, reason: '' }]
    for (let i = 0; i < 500; i++) {
      const egress = { node: `id-${i}`, name: `n${i % 5}` }
      meter.onCallOver({ ...REPORT, service: `s${i % 7}`, egress, attempts: refused(`n${i % 5}`) })
    }
    const calls = read(meter, 'flatmesh_calls_total')
    expect(calls.map(({ labels }) => labels.service)).toEqual(['s0', 's1', OTHER])
    expect(calls.reduce((sum, { value }) => sum + value, 0)).toBe(500)
    const counts = read(meter, 'flatmesh_call_first_byte_seconds').filter(({ name }) => name.endsWith('_count'))
    expect(counts.reduce((sum, { value }) => sum + value, 0)).toBe(500)
    expect(counts.length).toBeLessThanOrEqual(3 + 3)
    const targets = new Set(counts.map(({ labels }) => labels.target))
    expect(targets).toEqual(new Set(['n0', 'n1', OTHER]))
    expect(lines(meter, 'flatmesh_failed_tries_total')).toEqual([
      `${OTHER} link-lost 300`,
      'n0 link-lost 100',
      'n1 link-lost 100',
    ])
  })
})
