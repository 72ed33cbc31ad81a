import { createPrivateKey, createPublicKey, randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { issueNodeCertificate } from '../../tunnel/certificate.ts'
import { readRootAuthority } from '../../tunnel/membership-store.ts'
import { Backend } from './backend.ts'
import { CallStream } from './call-stream.ts'
import { createMesh, DaemonProcess, type MeshProcesses, waitUntil } from './daemon-process.ts'
import { HttpClient, printFigure } from './http-client.ts'
import { dribble, flood, type Stranger, sayRaw, sayTls, truncate } from './stranger.ts'

const NAMES = ['a', 'b', 'c'] as const
/** Promise of the product: how long new calls may still go to a node that died in silence. */
const ROUTE_AROUND_MS = 3_500
const HOUR_MS = 3600_000

/** A loopback address of its own for each node of each run, so that its ports are free again after a restart. */
function ownHost(index: number): string {
  const [x = 0, y = 0] = randomBytes(2)
  return `127.${(x % 200) + 20}.${y}.${index + 1}`
}

describe('three daemons of one mesh', () => {
  const backends = new Map<string, Backend>()
  let mesh: MeshProcesses

  beforeAll(async () => {
    for (const name of NAMES) {
      const backend = new Backend(name)
      await backend.start()
      backends.set(name, backend)
    }
    mesh = await createMesh({
      nodes: NAMES.map((name, index) => ({
        ...{ name, region: `region-${name}`, host: ownHost(index), keepPorts: true },
      })),
    })
    for (const name of NAMES) {
      const instances = [{ address: backends.get(name)?.address }]
      mesh
        .node(name)
        .writeServices([
          { name: `only-${name}`, instances },
          { name: 'everywhere', instances },
          ...(name === 'a' ? [] : [{ name: 'elsewhere', instances }]),
        ])
    }
    await mesh.converged()
  })

  afterAll(async () => {
    await mesh?.stop()
    for (const backend of backends.values()) await backend.stop()
  })

  /** Until a call for what `at` alone offers, made at each of `from`, is answered. */
  async function callable(from: readonly string[], at: readonly string[]): Promise<void> {
    for (const caller of from) {
      const client = new HttpClient(mesh.node(caller).listen.http)
      for (const owner of at) {
        await waitUntil(`${caller} can call ${owner}`, async () => {
          const answer = await client.call(`only-${owner}`)
          return answer.status === 200 && answer.headers['x-instance'] === owner ? true : undefined
        })
      }
      client.close()
    }
  }

  /** The node that all streams are answered by, once that is one: distances on one machine are alike and change places. */
  function steadyAnswerer(streams: readonly CallStream[]): Promise<string> {
    return waitUntil('calls flow to one node', () => {
      if (streams.some(({ calls }) => calls.length < 20)) return undefined
      const names = new Set(streams.flatMap(({ calls }) => calls.slice(-10).map(call => call.answeredBy)))
      const [name = ''] = names
      return names.size === 1 && name !== '' ? name : undefined
    })
  }

  it.each([
    [['a', 'b', 'c']],
    [['c', 'b', 'a']],
    [['b', 'c', 'a']],
  ])('find each other when started in the order %s, knowing only the address of the first', async order => {
    for (const name of NAMES) {
      await mesh.node(name).stop()
      rmSync(join(mesh.node(name).folder, 'data/known-nodes.json'), { force: true })
    }
    for (const name of order) await mesh.up(name)
    const startedAtMs = performance.now()
    await mesh.converged()
    await callable(NAMES, NAMES)
    printFigure(`membership.order.${order.join('')}`, performance.now() - startedAtMs, 'ms')
  })

  it('find each other again after the first was restarted', async () => {
    await mesh.node('a').restart()
    const startedAtMs = performance.now()
    await mesh.converged()
    await callable(NAMES, NAMES)
    printFigure('membership.firstRestarted', performance.now() - startedAtMs, 'ms')
  })

  it('fail no call when one of them drains under load, and it exits with 0', async () => {
    const client = new HttpClient(mesh.node('a').listen.http)
    const streams = [
      new CallStream(client, 'elsewhere'),
      new CallStream(client, 'elsewhere', { method: 'POST', path: '/sink', body: 'a body'.repeat(1000) }),
      new CallStream(client, 'elsewhere', { path: '/slow/300' }),
    ]
    const victim = await steadyAnswerer(streams)
    const startedAtMs = performance.now()
    await mesh.node(victim).stop()
    printFigure('membership.drain', performance.now() - startedAtMs, 'ms')
    await waitUntil('calls flow elsewhere', () =>
      streams.every(
        stream =>
          stream.calls.filter(call => call.startedAtMs > performance.now() - 500 && call.answeredBy !== victim).length >
          0,
      )
        ? true
        : undefined,
    )
    for (const stream of streams) await stream.stop()
    client.close()
    printFigure(
      'membership.drain.calls',
      streams.reduce((sum, { calls }) => sum + calls.length, 0),
      'calls',
    )
    for (const stream of streams) expect(stream.failed()).toEqual([])
    await mesh.up(victim)
    await mesh.converged()
  })

  it('lose no idempotent call when one of them is killed, and route around it', async () => {
    const client = new HttpClient(mesh.node('a').listen.http)
    const stream = new CallStream(client, 'elsewhere')
    const slow = new CallStream(client, 'elsewhere', { path: '/slow/300' })
    const victim = await steadyAnswerer([stream, slow])
    const killedAtMs = performance.now()
    await mesh.node(victim).kill('SIGKILL')
    const survived = () =>
      stream.calls.filter(call => call.startedAtMs > killedAtMs && call.outcome === '200' && call.answeredBy !== victim)
    await waitUntil('the survivor answers', () => (survived().length >= 100 ? true : undefined))
    await Promise.all([stream.stop(), slow.stop()])
    const rerouteMs = Math.min(...survived().map(call => call.endedAtMs)) - killedAtMs
    printFigure('membership.kill9.reroute', rerouteMs, 'ms')
    expect([...stream.failed(), ...slow.failed()]).toEqual([])
    expect(rerouteMs).toBeLessThanOrEqual(ROUTE_AROUND_MS)
    client.close()
    await mesh.up(victim)
    await mesh.converged()
    await callable(NAMES, NAMES)
  })

  it('route around one that stands still without closing anything, and take it back when it goes on', async () => {
    const client = new HttpClient(mesh.node('a').listen.http)
    const stream = new CallStream(client, 'elsewhere')
    const victim = await steadyAnswerer([stream])
    const { pid } = mesh.node(victim)
    const stoppedAtMs = performance.now()
    process.kill(pid, 'SIGSTOP')
    const survived = () => stream.calls.filter(call => call.startedAtMs > stoppedAtMs && call.answeredBy !== victim)
    try {
      await waitUntil('the survivor answers', () => (survived().length >= 100 ? true : undefined))
    } finally {
      process.kill(pid, 'SIGCONT')
    }
    const continuedAtMs = performance.now()
    await stream.stop()
    const rerouteMs = Math.min(...survived().map(call => call.endedAtMs)) - stoppedAtMs
    printFigure('membership.standstill.reroute', rerouteMs, 'ms')
    await mesh.converged()
    await callable(NAMES, NAMES)
    printFigure('membership.standstill.heal', performance.now() - continuedAtMs, 'ms')
    expect(stream.failed()).toEqual([])
    expect(rerouteMs).toBeLessThanOrEqual(ROUTE_AROUND_MS)
    client.close()
  })

  it('are not joined by a daemon of another mesh that was given the address of one of them', async () => {
    const folder = join(mesh.folder, 'other')
    const other = new DaemonProcess({ name: 'other', region: 'elsewhere', folder })
    await other.init('othermesh')
    const { overlay } = mesh.node('a').listen
    const [host, port] = overlay.split(':')
    other.configure({ join: [`/ip4/${host}/tcp/${port}`] })
    const logged = mesh.node('a').log().length
    await other.up()
    try {
      await waitUntil('a says that it turned a stranger away', () =>
        mesh.node('a').log().slice(logged).includes('not-a-member') ? true : undefined,
      )
      expect(await other.nodes()).toHaveLength(1)
      expect((await mesh.node('a').nodes()).map(({ node }) => node).sort()).toEqual([...NAMES])
      await callable(NAMES, NAMES)
    } finally {
      await other.stop()
    }
  })

  // Last, because the first one does not come back.
  it('go on without the first when it is gone for good, and find each other after both were restarted', async () => {
    const client = new HttpClient(mesh.node('b').listen.http)
    const stream = new CallStream(client, 'only-c')
    await mesh.node('a').kill('SIGKILL')
    await waitUntil('b and c know that a is gone', async () => {
      const states = [...(await mesh.node('b').nodes()), ...(await mesh.node('c').nodes())]
      return states.filter(({ node }) => node === 'a').every(({ state }) => state === 'unreachable') ? true : undefined
    })
    await callable(['b', 'c'], ['b', 'c'])
    await stream.stop()
    client.close()
    expect(stream.failed()).toEqual([])
    expect(stream.calls.length).toBeGreaterThan(0)

    await Promise.all([mesh.node('b').stop(), mesh.node('c').stop()])
    await Promise.all([mesh.up('b'), mesh.up('c')])
    const startedAtMs = performance.now()
    await mesh.converged()
    await callable(['b', 'c'], ['b', 'c'])
    printFigure('membership.withoutFirst', performance.now() - startedAtMs, 'ms')
  })
})

describe('a stranger', () => {
  const backend = new Backend('orders')
  let mesh: MeshProcesses
  let node: DaemonProcess

  beforeAll(async () => {
    await backend.start()
    mesh = await createMesh({
      nodes: [
        { name: 'a', region: 'region-a' },
        { name: 'b', region: 'region-b' },
      ],
    })
    node = mesh.node('a')
    mesh.node('b').writeServices([{ name: 'orders', instances: [{ address: backend.address }] }])
    await mesh.converged()
    await waitUntil('orders is known', async () => ((await node.routes()).length === 1 ? true : undefined))
  })

  afterAll(async () => {
    await mesh?.stop()
    await backend.stop()
  })

  const httpRequest = Buffer.from('GET / HTTP/1.1\r\nHost: orders.mesh\r\n\r\n')
  const noise = randomBytes(64 * 1024)
  /** What libp2p's connections begin with, and then a frame that claims to be as long as a frame can claim. */
  const oversize = Buffer.concat([Buffer.from('\x13/multistream/1.0.0\n'), Buffer.alloc(16, 0xff)])
  const halfFrame = Buffer.from('\x13/multistr')
  const tlsClientHello = Buffer.concat([Buffer.from([0x16, 3, 1, 0x3f, 0xff]), randomBytes(1024)])

  const STRANGERS: readonly [string, 'overlay' | 'calls', Stranger][] = [
    ['sends an HTTP request to the overlay port', 'overlay', sayRaw(httpRequest)],
    ['sends an HTTP request to the call port', 'calls', sayRaw(httpRequest)],
    ['sends garbage to the overlay port', 'overlay', sayRaw(noise)],
    ['sends garbage to the call port', 'calls', sayRaw(noise)],
    ['sends an oversize frame to the overlay port', 'overlay', sayRaw(oversize)],
    ['sends a TLS record that claims to be huge to the call port', 'calls', sayRaw(tlsClientHello)],
    ['stops in the middle of a frame on the overlay port', 'overlay', truncate(halfFrame)],
    ['stops in the middle of a handshake on the call port', 'calls', truncate(tlsClientHello.subarray(0, 40))],
    ['speaks TLS without a certificate on the call port', 'calls', sayTls('flatmesh-calls/1', noise)],
    ['speaks TLS with a protocol nobody knows on the call port', 'calls', sayTls('h2', noise)],
    ['sends garbage over TLS to the protocol of joining', 'calls', sayTls('flatmesh-join/1', noise)],
    ['floods the overlay port', 'overlay', flood(noise)],
    ['floods the call port', 'calls', flood(noise)],
    ['says nothing on the overlay port', 'overlay', sayRaw(Buffer.alloc(0))],
    ['says nothing on the call port', 'calls', sayRaw(Buffer.alloc(0))],
    ['says a byte now and then on the overlay port', 'overlay', dribble(Buffer.from('\x13/multistream/1.0.0\n'), 500)],
    ['says a byte now and then on the call port', 'calls', dribble(tlsClientHello, 500)],
  ]

  it.concurrent.each(STRANGERS)('that %s is hung up on', async (_, port, stranger) => {
    const fate = await stranger(node.listen[port], 30_000)
    expect(fate.closed).toBe(true)
  })

  it.concurrent('that says a byte now and then on the ports for applications is hung up on too', async () => {
    const [http, admin] = await Promise.all([
      dribble(httpRequest.subarray(0, -4), 1_000)(node.listen.http, 90_000),
      dribble(httpRequest.subarray(0, -4), 1_000)(node.listen.admin, 90_000),
    ])
    expect([http.closed, admin.closed]).toEqual([true, true])
    expect(http.said.toString()).toContain('x-flatmesh-error: request-timeout')
  })

  it('that speaks no HTTP to the ingress is told so and hung up on', async () => {
    for (const words of [
      '\x16\x03\x01garbage\r\n\r\n',
      'GET\r\n\r\n',
      'GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n',
    ]) {
      const { closed, said } = await sayRaw(Buffer.from(words))(node.listen.http, 10_000)
      expect([words, closed]).toEqual([words, true])
      expect(said.toString()).toMatch(/^HTTP\/1\.1 400 .*\r\nx-flatmesh-error: bad-request\r\n/)
    }
  })

  it('that comes by the thousand is logged in a few lines, costs no memory that stays, and disturbs nobody', async () => {
    const client = new HttpClient(node.listen.http)
    const stream = new CallStream(client, 'orders')
    const rssBefore = await restingRss()
    const logBefore = node.log().length
    const startedAtMs = performance.now()
    // Those that must be waited for have been, one of each, above.
    const quick = STRANGERS.filter(([name]) => /garbage|call port|without|knows|frame on|handshake on/.test(name))
    const kinds = [...quick, ...quick, ...quick].filter(([name]) => !/says|floods|huge/.test(name))
    let closed = 0
    const rounds = 40
    for (let round = 0; round < rounds; round++) {
      const fates = kinds.map(([, port, stranger]) => stranger(node.listen[port], 30_000))
      closed += (await Promise.all(fates)).filter(fate => fate.closed).length
    }
    printFigure('strangers.turnedAway', closed / ((performance.now() - startedAtMs) / 1000), 'connections/s')
    await stream.stop()
    client.close()
    printFigure('strangers.count', closed, 'connections')
    const rssAfter = await restingRss()
    printFigure('strangers.rssBefore', rssBefore / 1e6, 'MB')
    printFigure('strangers.rssAfter', rssAfter / 1e6, 'MB')
    expect(closed).toBe(rounds * kinds.length)
    expect(stream.failed()).toEqual([])
    expect(stream.calls.length).toBeGreaterThan(100)
    // The first of them warm the program up; what each of hundreds would keep shows far above this.
    expect(rssAfter - rssBefore).toBeLessThan(60e6)
    const lines = node
      .log()
      .slice(logBefore)
      .split('\n')
      .filter(line => /stranger|turned|refused|handshake/.test(line))
    expect(lines.length).toBeGreaterThan(0)
    // Joining names each refusal, and takes no more than 30 of them a minute.
    expect(lines.length).toBeLessThan(30 + 20)
    expect(await node.nodes()).toHaveLength(2)
  })

  /** The least of some looks: what is still in use between two collections of garbage. */
  async function restingRss(): Promise<number> {
    const looks: number[] = []
    await waitUntil('ten looks', () => (looks.push(node.rssBytes()) >= 10 ? true : undefined))
    return Math.min(...looks)
  }
})

describe('a daemon that cannot start says why in a line and exits with a code', () => {
  const folder = mkdtempSync(join(tmpdir(), 'fm-start-'))
  let node: DaemonProcess
  let count = 0

  async function newNode(): Promise<DaemonProcess> {
    const made = new DaemonProcess({ name: 'lonely', region: 'nowhere', folder: join(folder, `node-${count++}`) })
    await made.init('alone')
    return made
  }

  /** The one line that `up` says before it gives up. */
  async function refusal(of: DaemonProcess, ...words: string[]): Promise<string> {
    const { code, stdout, stderr } = await of.cli('up', ...words)
    expect(stdout).toBe('')
    expect(code).not.toBe(0)
    const said = stderr.split('\n').filter(line => line !== '' && !line.startsWith('{'))
    expect(said).toHaveLength(1)
    expect(stderr).not.toMatch(/\n +at |bug/)
    return said[0] ?? ''
  }

  beforeAll(async () => {
    node = await newNode()
  })

  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  it.each(['overlay', 'calls', 'http', 'admin'])('when the %s port is in use', async port => {
    const taken: Server = createServer()
    await new Promise<void>(resolve => taken.listen(0, '127.0.0.1', resolve))
    const address = taken.address()
    const number = typeof address === 'object' && address !== null ? address.port : 0
    const busy = await newNode()
    busy.configure({ listen: { [port]: `127.0.0.1:${number}` } })
    const line = await refusal(busy)
    expect(line).toContain(String(number))
    expect(line).toMatch(/in use|taken|EADDRINUSE/)
    await new Promise(resolve => taken.close(resolve))
  })

  it('when another daemon runs in the same data folder', async () => {
    await node.up()
    expect(await refusal(node)).toMatch(/in use by another daemon \(process \d+\)/)
    expect((await node.status()).state).toBe('up')
    await node.stop()
  })

  it('when the data folder cannot be written', async () => {
    const file = join(folder, 'a-file')
    writeFileSync(file, '')
    const words = ['--mesh', 'alone', '--node', 'x', '--region', 'y', '--data', join(file, 'data')]
    const other = new DaemonProcess({ name: 'x', region: 'y', folder })
    const { code, stderr } = await other.cli('init', ...words)
    expect([code, stderr.trim().split('\n')]).toEqual([1, [expect.stringContaining(file)]])
    const moved = await newNode()
    moved.configure({ dataDir: join(file, 'data') })
    expect(await refusal(moved)).toContain(file)
  })

  it('when its certificate is over, or not yet begun, by the clock of this machine', async () => {
    for (const [sinceMs, word] of [
      [-2 * HOUR_MS, 'expired'],
      [2 * HOUR_MS, 'not yet valid'],
    ] as const) {
      const late = await newNode()
      const dataDir = join(late.folder, 'data')
      const key = createPrivateKey(readFileSync(join(dataDir, 'node.key')))
      const issued = issueNodeCertificate(
        readRootAuthority(dataDir),
        { name: 'lonely', region: 'nowhere', publicKey: createPublicKey(key) },
        Date.now() + sinceMs,
        HOUR_MS,
      )
      writeFileSync(join(dataDir, 'node.crt'), issued.certificatePem)
      const line = await refusal(late)
      expect(line).toContain(word)
      expect(line).toMatch(/clock/)
    }
  })

  it.each<[string, string, readonly string[]]>([
    ['is not there', '', ['flatmesh.yaml', 'flatmesh init']],
    ['is not YAML', 'mesh: [', ['flatmesh.yaml']],
    ['lacks a field', 'mesh: alone\nnode: lonely\n', ['flatmesh.yaml', 'region']],
    [
      'has a field nobody knows',
      'mesh: alone\nnode: lonely\nregion: nowhere\nlisten: { htpp: "127.0.0.1:0" }\n',
      ['flatmesh.yaml:4', 'listen.htpp', 'http'],
    ],
    [
      'has a wrong port',
      'mesh: alone\nnode: lonely\nregion: nowhere\nlisten: { http: "127.0.0.1:99999" }\n',
      ['flatmesh.yaml:4', 'listen.http', '127.0.0.1:99999'],
    ],
    [
      'opens the admin API to the network',
      'mesh: alone\nnode: lonely\nregion: nowhere\nlisten: { admin: "0.0.0.0:0" }\n',
      ['flatmesh.yaml:4', 'listen.admin', '0.0.0.0'],
    ],
    [
      'has a wrong number',
      'mesh: alone\nnode: lonely\nregion: nowhere\nproxy: { drainMs: -1 }\n',
      ['flatmesh.yaml:4', 'proxy.drainMs', '-1'],
    ],
  ])('when its config %s', async (_, text, parts) => {
    const wrong = await newNode()
    if (text === '') rmSync(wrong.configFile)
    else writeFileSync(wrong.configFile, text)
    const line = await refusal(wrong)
    for (const part of parts) expect(line).toContain(part)
  })

  it('when its config names another node than its certificate', async () => {
    const renamed = await newNode()
    renamed.configure({ node: 'someone' })
    const line = await refusal(renamed)
    for (const part of ['someone', 'lonely', 'flatmesh.yaml']) expect(line).toContain(part)
  })
})
