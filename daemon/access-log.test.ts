import fc from 'fast-check'
import { beforeEach, describe, expect, test } from 'vitest'
import type { CallReport } from '../proxy/call-report.ts'
import { AccessLog, type AccessLogOptions } from './access-log.ts'

let lines: string[] = []
let clockMs = Date.parse('2026-11-22T19:44:45.007Z')
let chance = 0
beforeEach(() => {
  lines = []
})

function write(report: Partial<CallReport> = {}, options: Partial<AccessLogOptions> = {}): Record<string, unknown> {
  const log = new AccessLog(
    {
      node: 'use1-a',
      write: line => void lines.push(line),
      carrier: node => (node === 'id-b' ? 'relayed via c>d' : ''),
      clock: () => clockMs,
      random: () => chance,
    },
    { calls: 'all', ratio: 0.01, ...options },
  )
  log.onCallOver({ ...REPORT, ...report })
  const line = lines.at(-1)
  return line === undefined ? {} : JSON.parse(line)
}

const REPORT: CallReport = {
  ...{
    kind: 'http',
    protocol: 'HTTP/1.1',
    service: 'orders',
    method: 'GET',
    target: '/42?secret=1',
    client: '10.0.4.7',
  },
  ...{ status: 200, grpcStatus: undefined, outcome: 'ok', reason: '', egress: { node: 'id-b', name: 'euw3-a' } },
  ...{ egressNote: '10.8.1.5:9000 250 3200', attempts: [], bytesIn: 1, bytesOut: 100 },
  ...{ beganAtMs: 1000, openedAtMs: 1010, answeredAtMs: 1101.456, endedAtMs: 1200 },
}
/** A call that ended before an answer, at the place it was sent to. */
const FAILED: Partial<CallReport> = {
  ...{ status: 502, outcome: 'link-lost', reason: 'the link was lost: “x”', answeredAtMs: Number.NaN },
  ...{ egressNote: undefined, attempts: [{ node: 'euw3-a', code: 'link-lost', reason: '' }] },
}

describe('a line of the access log', () => {
  test('says who asked for what, who answered, by which way and how long each part took', () => {
    expect(write()).toEqual({
      ...{ level: 30, time: '2026-11-22T19:44:45.007Z', service: 'orders', kind: 'http', protocol: 'HTTP/1.1' },
      ...{ method: 'GET', path: '/42', status: 200, outcome: 'ok', client: '10.0.4.7', ingress: 'use1-a' },
      ...{ egress: 'euw3-a', instance: '10.8.1.5:9000', carrier: 'relayed via c>d', queueMs: 0.25, pathMs: 88.01 },
      ...{ instanceMs: 3.2, firstByteMs: 101.46, totalMs: 200, bytesIn: 1, bytesOut: 100, msg: 'call' },
    })
    expect(lines[0]?.endsWith('}\n')).toBe(true)
    expect(lines[0]?.slice(0, -1)).not.toContain('\n')
  })

  test('never holds the query, nor a path without end', () => {
    expect(JSON.stringify(write())).not.toContain('secret')
    expect(write({ target: `/${'a'.repeat(5000)}` }).path).toHaveLength(512)
  })

  test('leaves out what there was none of', () => {
    const gone = write({ ...FAILED, status: 0, outcome: 'client-gone', reason: '', attempts: [], egress: undefined })
    expect(Object.keys(gone)).toEqual(
      'level time service kind protocol method path outcome client ingress totalMs bytesIn bytesOut msg'.split(' '),
    )
  })

  test('tells every try in order when there was more than one, and how the last one ended', () => {
    const refused = { node: 'a', code: 'instance-refused' as const, reason: '' }
    expect(write({ attempts: [refused] }).attempts).toEqual([
      { node: 'a', outcome: 'instance-refused' },
      { node: 'euw3-a', outcome: 'ok' },
    ])
    const both = [refused, ...(FAILED.attempts ?? [])]
    expect(write({ ...FAILED, attempts: both }).attempts).toEqual([
      { node: 'a', outcome: 'instance-refused' },
      { node: 'euw3-a', outcome: 'link-lost' },
    ])
    const cut = { status: 200, outcome: 'link-lost' as const, attempts: FAILED.attempts ?? [] }
    expect(write({ ...cut, egress: { node: 'id-c', name: 'c' } }).attempts).toEqual([
      { node: 'euw3-a', outcome: 'link-lost' },
      { node: 'c', outcome: 'link-lost' },
    ])
    expect(write(FAILED).attempts).toBeUndefined()
    expect(write().attempts).toBeUndefined()
  })

  test('tells the error of the mesh in its words', () => {
    expect(write(FAILED)).toMatchObject({ status: 502, outcome: 'link-lost', reason: 'the link was lost: “x”' })
  })

  test('is one line of JSON, whatever clients and other nodes put into it', () => {
    const text = fc.oneof(
      fc.string(),
      fc.string({ unit: 'binary' }),
      fc.constantFrom('"', '\\', '\n', '\ud800', '\u2028'),
    )
    fc.assert(
      fc.property(text, text, text, text, (target, name, reason, grpcStatus) => {
        const line = write({ target: `/${target}`, egress: { node: 'id-b', name }, reason, grpcStatus, client: name })
        const [path = ''] = `/${target}`.split('?')
        expect(line).toMatchObject({ path, egress: name, client: name, grpcStatus })
        expect(line.reason ?? '').toBe(reason)
        expect(lines.at(-1)?.indexOf('\n')).toBe((lines.at(-1)?.length ?? 0) - 1)
      }),
      { numRuns: 5_000, seed: 1 },
    )
  })

  test('is dated right across seconds and years', () => {
    for (const time of ['2026-12-31T23:59:59.999Z', '2027-01-01T00:00:00.000Z', '2027-01-01T00:00:00.010Z']) {
      clockMs = Date.parse(time)
      expect(write().time).toBe(time)
    }
  })

  test('does without times that an egress made up', () => {
    expect(write({ egressNote: 'nonsense' })).not.toHaveProperty('instance')
    expect(write({ egressNote: 'a:1 999999999999 1' }).pathMs).toBe(0)
  })
})

describe('which calls get a line', () => {
  test('none when it is off', () => {
    write({}, { calls: 'off' })
    write(FAILED, { calls: 'off' })
    expect(lines).toEqual([])
  })

  test.each([
    [{}, false],
    [{ status: 404 }, false],
    [{ grpcStatus: '5' }, false],
    [{ status: 500 }, true],
    [FAILED, true],
    [{ outcome: 'client-gone' as const }, true],
    [{ outcome: 'unknown-service' as const, status: 404 }, true],
    [{ grpcStatus: '14' }, true],
  ])('when sampled, of those that went well the share asked for: %j always: %s', (report, isAlways) => {
    chance = 0.01
    write(report, { calls: 'sampled', ratio: 0.01 })
    expect(lines).toHaveLength(isAlways ? 1 : 0)
    chance = 0.009
    write(report, { calls: 'sampled', ratio: 0.01 })
    expect(lines).toHaveLength(isAlways ? 2 : 1)
  })
})
