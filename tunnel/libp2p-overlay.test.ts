import { type AddressInfo, connect, createServer } from 'node:net'
import type { Duplex } from 'node:stream'
import { describe, expect, test, vi } from 'vitest'
import { type Log, silentLog } from '../router/log.ts'
import type { Identity } from './identity.ts'
import { Libp2pOverlay } from './libp2p-overlay.ts'
import type { OverlayHandler } from './overlay.ts'
import { overlayContract } from './overlay-contract.ts'
import { createTestMesh } from './test-identities.ts'

const deaf: OverlayHandler = { onLinkUp() {}, onLinkDown() {}, onRtt() {}, onFrame() {} }

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  await new Promise(resolve => server.close(resolve))
  return typeof address === 'object' && address !== null ? address.port : 0
}

function overlay(
  identity: Identity,
  port: number,
  handler: OverlayHandler = deaf,
  join: string[] = [],
  log: Log = silentLog,
): Libp2pOverlay {
  const deps = { identity, log, handler, random: Math.random }
  return new Libp2pOverlay(deps, {
    host: '127.0.0.1',
    port,
    join,
    advertise: [],
    leaveMs: 100,
    duplicateGraceMs: 100,
  })
}

describe('the overlay over libp2p', () => {
  overlayContract(async () => {
    const mesh = await createTestMesh()
    const members = await Promise.all([mesh.identity('a'), mesh.identity('b'), mesh.identity('c')])
    const ports = await Promise.all([freePort(), freePort(), freePort()])
    return {
      ids: [members[0].nodeId, members[1].nodeId, members[2].nodeId],
      make: (index, handler) => overlay(members[index], ports[index] ?? 0, handler),
      addresses: index => [`/ip4/127.0.0.1/tcp/${ports[index]}`],
      close: async () => {},
    }
  })

  test('one address of any member is enough: the node behind it is proven and linked', async () => {
    const mesh = await createTestMesh()
    const b = overlay(await mesh.identity('b'), 0)
    const [address = ''] = await b.start()
    const up: string[] = []
    const a = overlay(await mesh.identity('a'), 0, { ...deaf, onLinkUp: node => up.push(node) }, [address])
    await a.start()
    await vi.waitFor(() => expect(up).toHaveLength(1), { timeout: 10_000 })
    await Promise.all([a.stop(), b.stop()])
  })

  test('addresses to join through are dialled again by a node that has lost its last link, and by no other', async () => {
    const mesh = await createTestMesh()
    const [ann, bob, cid] = [mesh.identity('a'), mesh.identity('b'), mesh.identity('c')]
    const seed = overlay(ann, 0)
    const [seedAt = ''] = await seed.start()
    const other = overlay(bob, 0)
    const otherAt = await other.start()
    const node = overlay(cid, 0, deaf, [seedAt])
    node.choose(new Set([bob.nodeId]))
    await node.start()
    const linked = (): string[] => node.links().map(link => link.node)
    await vi.waitFor(() => expect(linked()).toEqual([ann.nodeId]), { timeout: 10_000 })
    node.learn(bob.nodeId, otherAt)
    await vi.waitFor(
      () => {
        if (node.isLinked(bob.nodeId)) node.leave(ann.nodeId)
        expect(linked()).toEqual([bob.nodeId])
      },
      { timeout: 10_000 },
    )
    await other.stop()
    await vi.waitFor(() => expect(linked()).toEqual([ann.nodeId]), { timeout: 10_000 })
    await Promise.all([seed.stop(), node.stop()])
  })

  test('a second connection is closed, but not while it carries a stream of calls', async () => {
    const mesh = await createTestMesh()
    const [smaller, bigger] = [mesh.identity('a'), mesh.identity('b')].sort((one, two) =>
      one.nodeId < two.nodeId ? -1 : 1,
    ) as [Identity, Identity]
    const taken: Duplex[] = []
    let roundTrips = 0
    const near = overlay(smaller, 0, {
      ...deaf,
      onCallStream: (_node, stream) => void taken.push(stream),
      onRtt: () => {
        roundTrips += 1
      },
    })
    const far = overlay(bigger, 0)
    const [nearAt, [farAt = '']] = [await near.start(), await far.start()]
    // The dial that is to be kept comes through later: the other one is in use by then.
    let connections = 0
    const slow = createServer(socket => {
      connections += 1
      setTimeout(() => {
        const onward = connect(Number(farAt.split('/').at(-1)), '127.0.0.1')
        socket.on('error', () => {}).pipe(onward)
        onward.on('error', () => {}).pipe(socket)
      }, 500)
    })
    await new Promise<void>(resolve => slow.listen(0, '127.0.0.1', resolve))
    const { port } = slow.address() as AddressInfo
    near.learn(bigger.nodeId, [`/ip4/127.0.0.1/tcp/${port}`])
    await vi.waitFor(() => expect(connections).toBe(1), { timeout: 10_000 })
    far.learn(smaller.nodeId, nearAt)
    await vi.waitFor(() => expect(far.isLinked(smaller.nodeId)).toBe(true), { timeout: 10_000, interval: 1 })
    const stream = await far.openCalls(smaller.nodeId, 10_000)
    stream.write('hello')
    await vi.waitFor(() => expect(taken).toHaveLength(1), { timeout: 10_000 })
    await vi.waitFor(() => expect(near.links()).toMatchObject([{ dialled: true }]), { timeout: 10_000 })
    // Both ends prefer the later connection by now, and look for one too many ten times between two heartbeats.
    roundTrips = 0
    await vi.waitFor(() => expect(roundTrips).toBeGreaterThan(3), { timeout: 10_000 })
    expect(stream.destroyed).toBe(false)
    expect(near.connectionsTo(bigger.nodeId)).toBe(2)
    stream.destroy()
    await vi.waitFor(() => expect(near.connectionsTo(bigger.nodeId)).toBe(1), { timeout: 10_000 })
    expect(near.isLinked(bigger.nodeId)).toBe(true)
    await Promise.all([near.stop(), far.stop()])
    slow.close()
  })

  test('a stranger gets no link, whatever root it brings', async () => {
    const [home, abroad] = [await createTestMesh(), await createTestMesh('abroad')]
    const linked = vi.fn()
    const member = overlay(await home.identity('a'), 0, { ...deaf, onLinkUp: linked })
    const [address = ''] = await member.start()
    const stranger = overlay(await abroad.identity('x'), 0, { ...deaf, onLinkUp: linked }, [address])
    const friend = overlay(await home.identity('b'), 0, deaf, [address])
    await stranger.start()
    await friend.start()
    // The friend came later and is in: so the stranger had its chance.
    await vi.waitFor(() => expect(linked).toHaveBeenCalledTimes(1), { timeout: 10_000 })
    expect(stranger.links()).toEqual([])
    await Promise.all([member.stop(), stranger.stop(), friend.stop()])
  })

  test('the operator hears of members of other meshes and of garbage, not once for each', async () => {
    const [home, abroad] = [await createTestMesh(), await createTestMesh('abroad')]
    const warn = vi.fn()
    const member = overlay(await home.identity('a'), 0, deaf, [], { ...silentLog, warn })
    const [address = ''] = await member.start()
    const stranger = overlay(await abroad.identity('x'), 0, deaf, [address])
    await stranger.start()
    await vi.waitFor(() => expect(warn).toHaveBeenCalledTimes(1), { timeout: 10_000 })
    await stranger.stop()
    expect(warn.mock.lastCall?.[0]).toMatchObject({ code: 'not-a-member', count: 1, remote: expect.any(String) })
    for (let round = 0; round < 20; round++) {
      const socket = connect(Number(address.split('/').at(-1)), '127.0.0.1')
      await new Promise(resolve => socket.on('error', resolve).on('close', resolve).end(Buffer.alloc(2000, 0xff)))
    }
    await vi.waitFor(() => expect(warn.mock.lastCall?.[0].count).toBeGreaterThanOrEqual(16), { timeout: 10_000 })
    expect(warn.mock.calls.length).toBeLessThan(8)
    await member.stop()
  })

  test('a port that is taken is an error in one line, not a daemon that hears nobody', async () => {
    const mesh = await createTestMesh()
    const first = overlay(await mesh.identity('a'), 0)
    const [address = ''] = await first.start()
    const port = Number(address.split('/').at(-1))
    const second = overlay(await mesh.identity('b'), port)
    const error: unknown = await second.start().catch((reason: unknown) => reason)
    expect(error).toMatchObject({ code: 'port-in-use', message: expect.stringMatching(/^[^\n]*EADDRINUSE[^\n]*$/) })
    await Promise.all([first.stop(), second.stop()])
  })

  test('a node that comes back on another port is found through the others', async () => {
    const mesh = await createTestMesh()
    const [alice, bob, carol] = await Promise.all([mesh.identity('a'), mesh.identity('b'), mesh.identity('c')])
    const up: string[] = []
    const a = overlay(alice, 0, { ...deaf, onLinkUp: node => up.push(node) })
    const [aliceAt = ''] = await a.start()
    const b = overlay(bob, 0, deaf, [aliceAt])
    const [bobAt = ''] = await b.start()
    const gone = overlay(carol, 0, deaf, [aliceAt])
    const [carolWas = ''] = await gone.start()
    a.learn(carol.nodeId, [carolWas])
    await vi.waitFor(() => expect(up.filter(node => node === carol.nodeId)).toHaveLength(1), { timeout: 10_000 })
    await gone.stop()
    // It comes back elsewhere and knows only b; a has nothing but the old address and the DHT.
    const back = overlay(carol, 0, deaf, [bobAt])
    await back.start()
    await vi.waitFor(() => expect(up.filter(node => node === carol.nodeId)).toHaveLength(2), { timeout: 15_000 })
    await Promise.all([a.stop(), b.stop(), back.stop()])
  })
})
