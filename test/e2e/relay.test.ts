import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Backend } from './backend.ts'
import { CallStream } from './call-stream.ts'
import { createMesh, type Door, type MeshProcesses, waitUntil } from './daemon-process.ts'
import { HttpClient, percentile, printFigure } from './http-client.ts'
import { WanRelay } from './wan-relay.ts'

const FILE_BYTES = 32 * 1024 * 1024

/** Resets whatever dials it until it is opened. */
class ShutDoor implements Door {
  readonly port: 'overlay' | 'calls'
  readonly #relay = new WanRelay({ rttMs: 0 })
  #target = ''

  constructor(port: 'overlay' | 'calls') {
    this.port = port
  }

  get address(): string {
    return this.#relay.address
  }

  async start(): Promise<void> {
    await this.#relay.start()
  }

  lead(target: string): void {
    this.#target = target
  }

  open(): void {
    this.#relay.lead(this.#target)
  }

  stop(): Promise<void> {
    return this.#relay.stop()
  }
}

/**
 * a and c cannot dial each other; b and d can reach both and be reached by both. The doors between a and c are shut: what
 * dials there is reset, as by a firewall that rejects. No privileges needed.
 */
describe('two nodes that cannot reach each other, and two that reach both', () => {
  const doors: ShutDoor[] = []
  const backend = new Backend('c')
  let mesh: MeshProcesses
  let client: HttpClient

  beforeAll(async () => {
    mesh = await createMesh({
      // b founds it: everyone finds the mesh through the founder.
      nodes: ['b', 'a', 'c', 'd'].map(name => ({ name, region: `region-${name}` })),
      openDoor: async (from, to, port) => {
        if (!['a>c', 'c>a'].includes(`${from}>${to}`)) return undefined
        const door = new ShutDoor(port)
        doors.push(door)
        await door.start()
        return door
      },
    })
    await backend.start()
    mesh.node('c').writeServices([{ name: 'web', instances: [{ address: backend.address }] }])
    mesh.node('b').writeServices([{ name: 'near', instances: [{ address: backend.address }] }])
    client = new HttpClient(mesh.node('a').listen.http)
    await waitUntil('a knows the route to c', async () => ((await route('web')) ? true : undefined))
    await waitUntil('and that to b', async () => ((await route('near')) ? true : undefined))
  })

  afterAll(async () => {
    client?.close()
    await mesh?.stop()
    await Promise.all([...doors.map(door => door.stop()), backend.stop()])
  })

  const route = async (service: string) =>
    (await mesh.node('a').routes()).find(view => view.service === service && view.state === 'ready')

  /** The relays of the link in use, such as `b`, or `b>d`; empty: it is not relayed. */
  async function relayInUse(): Promise<string> {
    // A link that was idle when it had to move comes back with the next call.
    await client.call('web')
    return /relayed via (.*)/.exec((await route('web'))?.carrier ?? '')?.[1] ?? ''
  }

  function open(port: 'overlay' | 'calls'): void {
    for (const door of doors) if (door.port === port) door.open()
  }

  it('calls go through a relay, whole, and the tables say which', async () => {
    const answer = await client.call('web')
    expect([answer.status, answer.body.toString()]).toEqual([200, 'hello from c\n'])
    // At first every round trip is that of processes that have just started: the path may be a longer one for a while.
    const view = await waitUntil('the shortest way is taken', async () => {
      await client.call('web')
      const now = await route('web')
      return ['relayed via b', 'relayed via d'].includes(now?.carrier ?? '') ? now : undefined
    })
    const [explained] = (await mesh.node('a').explain('web')).candidates
    expect(explained).toMatchObject({ node: 'c', carrier: view.carrier })
    expect(explained?.via).toMatch(/^[bd]/)
    const link = (await mesh.node('a').links()).find(({ node }) => node === 'c')
    expect(link).toMatchObject({ overlay: 'down', calls: 'up', carrier: view.carrier })
    const file = await client.call('web', { path: `/bytes/${FILE_BYTES}` })
    expect([file.status, file.body.length]).toEqual([200, FILE_BYTES])
    printFigure('relay.bulk', FILE_BYTES / 1e6 / (file.tookMs / 1000), 'MB/s')
    const direct = await client.call('near', { path: `/bytes/${FILE_BYTES}` })
    printFigure('relay.bulk.direct', FILE_BYTES / 1e6 / (direct.tookMs / 1000), 'MB/s')
    for (const [name, service] of [
      ['relay.p50', 'web'],
      ['relay.p50.direct', 'near'],
    ] as const) {
      const took: number[] = []
      for (let i = 0; i < 500; i++) took.push((await client.call(service)).tookMs)
      printFigure(name, percentile(took, 0.5) * 1000, 'µs')
    }
  })

  it('survives the loss of the relay without a failed call, and takes the other way', async () => {
    const first = await waitUntil('one relay is in use', async () => {
      const relay = await relayInUse()
      return relay.length === 1 ? relay : undefined
    })
    const other = first === 'b' ? 'd' : 'b'
    const stream = new CallStream(client, 'web')
    await waitUntil('calls flow', () => (stream.calls.length > 100 ? true : undefined))
    await mesh.node(first).kill('SIGKILL')
    const cutAtMs = performance.now()
    await waitUntil('calls go the other way', async () => ((await relayInUse()) === other ? true : undefined))
    await waitUntil('and are answered', () =>
      stream.calls.filter(call => call.startedAtMs > cutAtMs && call.outcome === '200').length > 100 ? true : undefined,
    )
    await stream.stop()
    printFigure(
      'relay.loss.slowestCall',
      Math.max(...stream.calls.map(call => call.endedAtMs - call.startedAtMs)),
      'ms',
    )
    expect(stream.failed()).toEqual([])
    await mesh.node(first).up()
  })

  it('loses no call when the relay stops in order', async () => {
    const first = await waitUntil('there are two ways again', async () => {
      const nodes = await mesh.node('a').nodes()
      const isWhole = ['b', 'd'].every(name => nodes.find(({ node }) => node === name)?.state === 'up')
      const relay = await relayInUse()
      return isWhole && relay.length === 1 ? relay : undefined
    })
    const stream = new CallStream(client, 'web', { method: 'POST', body: 'once' })
    await waitUntil('calls flow', () => (stream.calls.length > 100 ? true : undefined))
    await mesh.node(first).stop()
    await waitUntil('calls go another way', async () => {
      const relay = await relayInUse()
      return relay !== '' && relay !== first ? true : undefined
    })
    await stream.stop()
    expect(stream.failed()).toEqual([])
    await mesh.node(first).up()
  })

  it('heals to direct when the way opens, and loses no call', async () => {
    const stream = new CallStream(client, 'web', { method: 'POST', body: 'once' })
    open('overlay')
    await waitUntil('the overlay links a and c', async () =>
      (await mesh.node('a').links()).some(({ node, overlay }) => node === 'c' && overlay === 'up') ? true : undefined,
    )
    open('calls')
    await waitUntil('the link is direct', async () => ((await route('web'))?.carrier === 'direct' ? true : undefined))
    await waitUntil('calls go on', () => (stream.calls.length > 100 ? true : undefined))
    await stream.stop()
    expect(stream.failed()).toEqual([])
  })
})

describe('two nodes whose overlays meet, but not their call ports', () => {
  let mesh: MeshProcesses
  let client: HttpClient
  const backend = new Backend('b')

  beforeAll(async () => {
    mesh = await createMesh({
      nodes: [
        { name: 'a', region: 'region-a', config: { dial: { b: { calls: [] } } } },
        { name: 'b', region: 'region-b', config: { dial: { a: { calls: [] } } } },
      ],
    })
    await backend.start()
    mesh.node('b').writeServices([{ name: 'web', instances: [{ address: backend.address }] }])
    client = new HttpClient(mesh.node('a').listen.http)
    await waitUntil('a knows b', async () =>
      (await mesh.node('a').routes()).some(({ state }) => state === 'ready') ? true : undefined,
    )
  })

  afterAll(async () => {
    client?.close()
    await mesh?.stop()
    await backend.stop()
  })

  it('answers calls on a stream of the overlay', async () => {
    const answer = await client.call('web')
    expect([answer.status, answer.body.toString()]).toEqual([200, 'hello from b\n'])
    expect((await mesh.node('a').routes())[0]).toMatchObject({ node: 'b', via: '', carrier: 'overlay' })
    const file = await client.call('web', { path: `/bytes/${FILE_BYTES}` })
    expect(file.body.length).toBe(FILE_BYTES)
    printFigure('overlay.bulk', FILE_BYTES / 1e6 / (file.tookMs / 1000), 'MB/s')
    const took: number[] = []
    for (let i = 0; i < 500; i++) took.push((await client.call('web')).tookMs)
    printFigure('overlay.p50', percentile(took, 0.5) * 1000, 'µs')
  })
})
