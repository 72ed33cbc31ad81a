import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { waitUntil } from './daemon-process.ts'
import { TwoRegions } from './two-regions.ts'

describe('what two daemons tell of the calls between them', () => {
  const regions = new TwoRegions({ a: { log: { access: 'all' } } })

  beforeAll(() => regions.start())
  afterAll(() => regions.stop())

  function lines(): Record<string, unknown>[] {
    const text = readFileSync(join(regions.a.folder, 'access.log'), 'utf8')
    return text
      .split('\n')
      .slice(0, -1)
      .map(line => JSON.parse(line))
  }

  async function metrics(name: string): Promise<(sample: string) => number> {
    const answer = await fetch(`${regions.mesh.node(name).adminUrl}/metrics`)
    expect(answer.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8')
    const text = await answer.text()
    return sample => {
      const line = text.split('\n').find(each => each.startsWith(`${sample} `))
      return line === undefined ? Number.NaN : Number(line.slice(sample.length + 1))
    }
  }

  it('has a line for each call, with the instance behind the other node and where the time went', async () => {
    const answer = await regions.client.call('orders', { method: 'POST', path: '/slow/30?secret=1', body: 'four' })
    expect(answer.headers['x-flatmesh-egress']).toBeUndefined()
    const line = await waitUntil('the line is there', () => lines().find(({ path }) => path === '/slow/30'))
    expect(line).toMatchObject({
      ...{ service: 'orders', method: 'POST', status: 200, outcome: 'ok', client: '127.0.0.1', carrier: 'direct' },
      ...{ ingress: 'a', egress: 'b', instance: regions.backend.address, bytesIn: 4, bytesOut: answer.body.length },
    })
    const { queueMs, pathMs, instanceMs, firstByteMs, totalMs } = line as Record<string, number>
    expect(instanceMs).toBeGreaterThan(29)
    expect((queueMs ?? 0) + (pathMs ?? 0) + (instanceMs ?? 0)).toBeLessThanOrEqual((firstByteMs ?? 0) + 0.02)
    expect(totalMs).toBeGreaterThanOrEqual(firstByteMs ?? Number.NaN)
  })

  it('counts it at the node that took it, by the node that answered, and the frames between them at both', async () => {
    const [ok, count] = [
      'flatmesh_calls_total{service="orders",outcome="ok",status="2xx"}',
      'flatmesh_call_first_byte_seconds_count{service="orders",target="b"}',
    ]
    const earlier = await metrics('a')
    for (let i = 0; i < 5; i++) await regions.client.call('orders')
    const [atA, atB] = [await metrics('a'), await metrics('b')]
    expect(atA(ok) - earlier(ok)).toBe(5)
    expect(atA(count) - earlier(count)).toBe(5)
    expect(atB(ok)).toBeNaN()
    expect(atB('flatmesh_instances{service="orders",state="healthy"}')).toBe(1)
    expect(atB('flatmesh_pool{service="orders",state="idle"}')).toBeGreaterThan(0)
    expect(atA('flatmesh_link_frames_total{direction="out"}')).toBeGreaterThan(5)
    expect(atB('flatmesh_link_frames_total{direction="in"}')).toBeGreaterThan(5)
    expect(atA('flatmesh_links{carrier="direct"}')).toBeGreaterThan(0)
    expect(atA('flatmesh_nodes{state="reachable"}')).toBe(2)
  })

  it('does not begin with an access log that it cannot write, and says which field to mend', async () => {
    const b = regions.b
    await b.stop()
    b.configure({ log: { access: 'all', accessFile: 'no/such/folder/access.log' } })
    const up = await b.cli('up')
    expect(up.code).toBe(1)
    expect(up.stderr).toMatch(/log\.accessFile: .*no\/such\/folder\/access\.log cannot be written/)
    b.configure({ log: { access: 'off' } })
    await b.up()
    await regions.answered()
  })

  it('leaves no line behind when the daemon stops', async () => {
    const before = lines().length
    for (let i = 0; i < 50; i++) await regions.client.call('orders', { path: `/last/${i}` })
    await regions.a.stop()
    const last = lines().filter(({ path }) => String(path).startsWith('/last/'))
    expect(last.map(({ path }) => path)).toEqual(Array.from({ length: 50 }, (_, i) => `/last/${i}`))
    expect(lines().length).toBeGreaterThanOrEqual(before + 50)
  })
})
