import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { decodeJoinToken, encodeJoinToken } from '../../tunnel/join-token.ts'
import { Backend } from './backend.ts'
import { type CliResult, DaemonProcess, waitUntil } from './daemon-process.ts'
import { HttpClient } from './http-client.ts'

/** Every field that `--json` of a command shows, as the documentation has it. */
const FIELDS = {
  status: [
    ...['node', 'id', 'mesh', 'region', 'version', 'state', 'startedAtMs', 'uptimeMs', 'certificateExpiresAtMs'],
    ...['listen', 'advertise', 'nodes', 'services', 'routes', 'registries', 'calls', 'memory', 'gossip'],
  ],
  nodes: ['node', 'id', 'region', 'state', 'rttMs', 'via', 'version'],
  links: [
    'node',
    'id',
    'region',
    'overlay',
    'calls',
    'carrier',
    'carriers',
    'rttMs',
    'lossRatio',
    'address',
    'sinceMs',
    'inFlight',
  ],
  services: ['service', 'protocol', 'nodes', 'instances', 'healthy', 'closest'],
  routes: [
    'service',
    'node',
    'region',
    'protocol',
    'instances',
    'healthy',
    'costMs',
    'via',
    'carrier',
    'state',
    'ageMs',
  ],
  explain: ['service', 'node', 'known', 'candidates', 'choice', 'summary'],
  candidate: ['node', 'region', 'rank', 'costMs', 'parts', 'via', 'carrier', 'instances', 'healthy', 'state', 'why'],
  call: ['status', 'headers', 'body', 'encoding'],
  registration: ['service', 'id', 'address', 'protocol', 'labels', 'weight', 'source', 'ttlMs', 'expiresAtMs'],
} as const

describe('the quick start, through the command line alone', () => {
  const folder = mkdtempSync(join(tmpdir(), 'fm-quick-'))
  const use1 = new DaemonProcess({ name: 'use1-a', region: 'aws-us-east-1', folder: join(folder, 'use1-a') })
  const euw3 = new DaemonProcess({ name: 'euw3-a', region: 'gcp-europe-west3', folder: join(folder, 'euw3-a') })
  const backend = new Backend('orders-1')

  beforeAll(async () => {
    await backend.start()
    await use1.init('acme')
    await use1.up()
    const token = await use1.invite()
    await euw3.join(token)
    await euw3.up()
    await euw3.mustRun('service', 'add', 'orders', backend.address, '--label', 'version=v1')
    await waitUntil('orders is known and its links are up', async () => {
      const isReady = (await use1.routes()).some(route => route.state === 'ready')
      const links = [...(await use1.links()), ...(await euw3.links())]
      return isReady && links.every(link => link.overlay === 'up' && link.calls === 'up') ? true : undefined
    })
  })

  afterAll(async () => {
    await Promise.allSettled([use1.kill(), euw3.kill(), backend.stop()])
    rmSync(folder, { recursive: true, force: true })
  })

  it('answers a call made at one node by a service of the other, named by the Host header', async () => {
    const client = new HttpClient(use1.listen.http)
    for (const host of ['orders.mesh', 'orders', 'ORDERS.mesh', 'orders.mesh:80']) {
      const { status, headers, body } = await client.call('orders', { headers: { host } })
      expect([host, status, headers['x-instance'], body.toString()]).toEqual([
        host,
        200,
        'orders-1',
        'hello from orders-1\n',
      ])
    }
    client.close()
  })

  it('answers a call in the absolute form that a client of an HTTP proxy sends', async () => {
    expect(await throughProxy(use1.listen.http, 'http://orders.mesh/42')).toEqual([200, 'orders-1'])
    expect(await throughProxy(use1.listen.http, 'http://nobody.mesh/')).toEqual([404, undefined])
  })

  it('says which error is the mesh’s own, and which node made it', async () => {
    const client = new HttpClient(use1.listen.http)
    const { status, headers, body } = await client.call('nobody')
    expect([status, headers['x-flatmesh-error'], headers['x-flatmesh-node']]).toEqual([
      404,
      'unknown-service',
      'use1-a',
    ])
    const view: unknown = JSON.parse(body.toString())
    expect(view).toMatchObject({ error: { code: 'unknown-service', node: 'use1-a', service: 'nobody' } })
    client.close()
  })

  it('answers a call that asks for a label or a region only there, and explains the same choice', async () => {
    const client = new HttpClient(use1.listen.http)
    const asked = { 'x-flatmesh-label': 'version=v1', 'x-flatmesh-region': 'gcp-*' }
    expect((await client.call('orders', { headers: asked })).headers['x-instance']).toBe('orders-1')
    for (const fields of [{ 'x-flatmesh-label': 'version=v2' }, { 'x-flatmesh-region': 'aws-us-east-1' }]) {
      const { status, headers } = await client.call('orders', { headers: fields })
      expect([status, headers['x-flatmesh-error']]).toEqual([503, 'no-matching-place'])
    }
    client.close()
    const there = await use1.mustRun('explain', 'orders', '--label', 'version=v1', '--region', 'gcp-*')
    expect(there.stdout).toContain('answered at euw3-a')
    const nowhere = await use1.mustRun('explain', 'orders', '--label', 'version=v2')
    expect(nowhere.stdout).toContain('its label version is v1, not v2')
    expect((await use1.cli('call', 'orders', '--label', 'version=v2')).code).toBe(69)
  })

  it('shows status, with the real ports behind port 0', async () => {
    const { json } = await use1.mustRun('status', '--json')
    expect(fieldsOf(json)).toEqual([...FIELDS.status].sort())
    expect(json).toMatchObject({ node: 'use1-a', mesh: 'acme', region: 'aws-us-east-1', state: 'up' })
    expect(json).toMatchObject({ listen: use1.listen, nodes: { known: 2, reachable: 2 }, services: 1, routes: 1 })
    const { tcp, ...own } = use1.listen
    expect(tcp).toEqual([])
    for (const address of Object.values(own)) expect(address).toMatch(/:[1-9]\d*$/)
    const { stdout } = await use1.mustRun('status')
    expect(stdout).toMatch(/^node +use1-a$/m)
    expect(stdout).toMatch(/^nodes +2 of 2 reachable$/m)
  })

  it('shows nodes, links, services and routes as tables and as JSON of the documented fields', async () => {
    const nodes = await rows(use1, FIELDS.nodes, 'nodes')
    expect(nodes).toMatchObject([
      { node: 'use1-a', region: 'aws-us-east-1', state: 'self', rttMs: 0, via: '' },
      { node: 'euw3-a', region: 'gcp-europe-west3', state: 'up', via: '' },
    ])
    const links = await rows(use1, FIELDS.links, 'links')
    expect(links).toMatchObject([{ node: 'euw3-a', overlay: 'up', calls: 'up', inFlight: 0 }])
    const services = await rows(use1, FIELDS.services, 'services')
    expect(services).toEqual([
      { service: 'orders', protocol: 'http', nodes: 1, instances: 1, healthy: 1, closest: 'euw3-a' },
    ])
    const routes = await rows(use1, FIELDS.routes, 'routes')
    const route = { service: 'orders', node: 'euw3-a', region: 'gcp-europe-west3', protocol: 'http' }
    expect(routes).toMatchObject([{ ...route, instances: 1, healthy: 1, via: '', carrier: 'direct', state: 'ready' }])
    expect(await rows(use1, FIELDS.routes, 'routes', 'orders')).toHaveLength(1)
    for (const [command, row] of [
      ['nodes', /^euw3-a +gcp-europe-west3 +up /m],
      ['links', /^euw3-a +gcp-europe-west3 +up +up /m],
      ['services', /^orders +http +1 +1\/1 +euw3-a$/m],
      ['routes', /^orders +euw3-a +gcp-europe-west3 +http +1\/1 .* ready /m],
    ] as const) {
      expect((await use1.mustRun(command)).stdout).toMatch(row)
    }
  })

  it('explains who would answer a call, and why', async () => {
    const { json } = await use1.mustRun('explain', 'orders', '--json')
    expect(fieldsOf(json)).toEqual([...FIELDS.explain].sort())
    expect(json).toMatchObject({ service: 'orders', node: 'use1-a', known: true, choice: 'euw3-a' })
    const candidates = Object(json).candidates
    expect(candidates).toHaveLength(1)
    expect(fieldsOf(candidates[0])).toEqual([...FIELDS.candidate].sort())
    const { costMs, parts } = candidates[0]
    expect(parts.rttMs + parts.hopsMs).toBeCloseTo(costMs, 0)
    expect((await use1.mustRun('explain', 'orders')).stdout).toContain('answered at euw3-a')
    expect((await euw3.mustRun('explain', 'orders')).stdout).toContain('this node itself')
  })

  it('calls a service from the command line, with exit codes that scripts can use', async () => {
    expect((await use1.mustRun('call', 'orders', '/42')).stdout).toBe('hello from orders-1\n')
    const { json } = await use1.mustRun('call', 'orders', '--json')
    expect(fieldsOf(json)).toEqual([...FIELDS.call].sort())
    expect(json).toMatchObject({ status: 200, body: 'hello from orders-1\n', encoding: 'utf8' })
    const sent = await use1.mustRun('call', 'orders', '/sink', '-d', 'twelve bytes')
    expect(sent.json).toMatchObject({ bytes: 12 })

    const unknown = await use1.cli('call', 'nobody')
    expect([unknown.code, unknown.stdout]).toEqual([69, ''])
    expect(unknown.stderr).toContain('unknown-service')
    expect((await use1.cli('routes', 'nobody')).code).toBe(4)
    expect((await use1.cli('explain', 'nobody')).code).toBe(4)
    expect((await use1.cli('service', 'remove', 'nobody')).code).toBe(4)
    expect((await use1.cli('exlpain', 'orders')).code).toBe(2)
    expect((await use1.cli('status', '--nonsense')).code).toBe(2)
    const idle = new DaemonProcess({ name: 'idle', region: 'nowhere', folder: join(folder, 'idle') })
    await idle.init('alone')
    const down = await idle.cli('status', '--json')
    expect([down.code, JSON.parse(down.stderr).error.code]).toEqual([3, 'daemon-unreachable'])
  })

  it('lists what this node offers, and takes it out again everywhere', async () => {
    const added = await euw3.mustRun('service', 'add', 'billing', backend.address, '--json')
    expect(added.json).toMatchObject({ service: 'billing', address: backend.address, changed: true })
    await waitUntil('billing is known at the other node', async () =>
      (await use1.routes()).some(route => route.service === 'billing' && route.state === 'ready') ? true : undefined,
    )
    const list = await rows(euw3, FIELDS.registration, 'service', 'list')
    expect(list).toMatchObject([
      { service: 'billing', address: backend.address, protocol: 'http', ttlMs: null },
      { service: 'orders', address: backend.address, labels: { version: 'v1' }, weight: 1 },
    ])
    expect((await euw3.mustRun('service', 'list')).stdout).toMatch(/^orders +127\.0\.0\.1:\d+ +http +1 +version=v1 /m)
    await euw3.mustRun('service', 'remove', 'billing')
    await waitUntil('billing is gone at the other node', async () =>
      (await use1.routes()).some(route => route.service === 'billing') ? undefined : true,
    )
  })

  it('prints help and version without a config', async () => {
    const nobody = new DaemonProcess({ name: 'nobody', region: 'nowhere', folder })
    expect((await nobody.mustRun('version', '--json')).json).toMatchObject({ version: expect.any(String) })
    for (const command of ['init', 'up', 'invite', 'join', 'explain', 'call', 'service']) {
      const { stdout } = await nobody.mustRun(command, '--help')
      expect(stdout).toContain(`usage: flatmesh ${command}`)
    }
  })

  describe('a token that is no good is refused at both ends with the reason, and nothing is written:', () => {
    it.each([
      [
        'one that has been used',
        async (token: string) => ((await joinAs('second', token)).code === 0 ? token : ''),
        'token-used',
        /has been used/,
      ],
      [
        'one whose time is over by the inviter’s clock',
        async (token: string) => outlive(token),
        'token-expired',
        /expired|was good until/,
      ],
      ['one that this mesh never issued', async (token: string) => forge(token), 'bad-token', /./],
    ])('%s', async (_, spoil, code, reason) => {
      const { json } = await use1.mustRun('invite', '--ttl', code === 'token-expired' ? '1s' : '15m', '--json')
      const spoilt = await spoil(String(Object(json).token))
      const logged = refusals(use1).length
      const result = await joinAs('stranger', spoilt, '--json')
      expect(result.code).not.toBe(0)
      expect(result.stdout).toBe('')
      const told: unknown = JSON.parse(result.stderr)
      expect(told).toMatchObject({ error: { code, message: expect.stringMatching(reason) } })
      expect(readdirSync(join(folder, 'stranger'))).toEqual([])
      const line = await waitUntil('the inviter logs it', () => refusals(use1)[logged])
      expect(line).toMatchObject({ code, remote: '127.0.0.1', reason: expect.stringMatching(reason) })
    })

    it('a mangled one, which is not even shown to the inviter', async () => {
      const token = await use1.invite()
      const logged = refusals(use1).length
      for (const mangled of [
        'garbage',
        token.slice(0, -3),
        `${token.slice(0, 40)}x${token.slice(41)}`,
        'fmj9_AAAA',
        '',
      ]) {
        const result = await joinAs('stranger', mangled)
        expect([mangled, result.code === 0]).toEqual([mangled, false])
        expect(result.stderr).toMatch(/^flatmesh: .*token/)
        expect(result.stderr.trim().split('\n')).toHaveLength(1)
        expect(readdirSync(join(folder, 'stranger'))).toEqual([])
      }
      expect(refusals(use1).length).toBe(logged)
      expect((await joinAs('later', token)).code).toBe(0)
    })

    it('a good one for a name that is taken, which can be used again under another', async () => {
      const token = await use1.invite()
      const result = await joinAs('stranger', token, '--node', 'euw3-a')
      expect(result.code).not.toBe(0)
      expect(result.stderr).toContain('euw3-a')
      expect(existsSync(join(folder, 'stranger/flatmesh.yaml'))).toBe(false)
      expect((await joinAs('third', token)).code).toBe(0)
    })
  })

  async function joinAs(name: string, token: string, ...words: string[]): Promise<CliResult> {
    const where = join(folder, name)
    mkdirSync(where, { recursive: true })
    const node = new DaemonProcess({ name, region: 'nowhere', folder: where })
    return node.cli('join', '--node', name, '--region', 'nowhere', ...words, token)
  }
})

/** The token with a longer life than the inviter gave it, once that one is over. */
async function outlive(text: string): Promise<string> {
  const token = decodeJoinToken(text, 0)
  await waitUntil('the token’s time is over', () => (Date.now() > token.expiresAtMs ? true : undefined))
  return encodeJoinToken({ ...token, expiresAtMs: token.expiresAtMs + 3600_000 })
}

function forge(text: string): string {
  return encodeJoinToken({ ...decodeJoinToken(text, 0), secret: randomBytes(16) })
}

function refusals(node: DaemonProcess): unknown[] {
  const lines = node
    .log()
    .split('\n')
    .filter(line => line.includes('"join refused"'))
  return lines.map(line => JSON.parse(line))
}

/** What a command shows as JSON: an array of objects, each with exactly these fields. */
async function rows(node: DaemonProcess, fields: readonly string[], ...words: string[]): Promise<unknown[]> {
  const { json } = await node.mustRun(...words, '--json')
  if (!Array.isArray(json)) throw new Error(`${words.join(' ')} --json is no array`)
  for (const row of json) expect(fieldsOf(row)).toEqual([...fields].sort())
  return json
}

function fieldsOf(value: unknown): string[] {
  return Object.keys(Object(value)).sort()
}

/** What `curl --proxy` does: the whole URL in the request line. */
function throughProxy(address: string, url: string): Promise<[number | undefined, string | undefined]> {
  const [host, port] = address.split(':')
  return new Promise((resolve, reject) => {
    const asked = request({ host, port, path: url, headers: { host: new URL(url).host } }, answer => {
      answer.resume()
      const instance = answer.headers['x-instance']
      answer.on('end', () => resolve([answer.statusCode, typeof instance === 'string' ? instance : undefined]))
    })
    asked.on('error', reject)
    asked.end()
  })
}
