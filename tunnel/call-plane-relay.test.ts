import { type AddressInfo, createServer, type Socket } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import type { NodeId } from '../router/model.ts'
import { openOf, until, Witness } from './call-contract.ts'
import type { CallPlaneDeps, CallPlaneOptions } from './call-plane.ts'
import { askPlane, startPlane, type TestPlane } from './plane-fixture.ts'
import type { RelayOptions } from './relay.ts'
import { createTestMesh } from './test-identities.ts'

const mesh = createTestMesh()
const NOWHERE = '127.0.0.1:1'

type Options = Partial<Omit<CallPlaneOptions, 'relay'>> & { relay?: Partial<RelayOptions> }

describe('calls through relays', () => {
  const planes: TestPlane[] = []
  afterEach(async () => {
    await Promise.all(planes.splice(0).map(({ plane }) => plane.stop()))
  })

  async function started(name: string, deps: Partial<CallPlaneDeps> = {}, options: Options = {}): Promise<TestPlane> {
    const plane = await startPlane(mesh.identity(name), deps, options)
    planes.push(plane)
    return plane
  }

  /** The route that a router would give: the first of `routes` that none of the avoided is on. */
  const routed = (routes: () => readonly (readonly TestPlane[])[]) => (_peer: NodeId, avoided: ReadonlySet<NodeId>) =>
    routes()
      .map(route => route.map(({ peer }) => peer))
      .find(route => !route.slice(0, -1).some(node => avoided.has(node)))

  async function link(from: TestPlane, to: TestPlane): Promise<void> {
    from.plane.want(to.peer, [to.address])
    await until(
      () => to.plane.linkTo(from.peer) !== undefined && from.plane.linkTo(to.peer) !== undefined,
      'they are linked',
    )
  }

  /** a and c cannot dial each other; b is linked to both, and so is d. */
  async function diamond(options: { b?: Options; d?: Options; a?: Options } = {}) {
    let routes: TestPlane[][] = []
    const a = await started('a', { route: routed(() => routes) }, options.a)
    const [b, c, d] = [await started('b', {}, options.b), await started('c'), await started('d', {}, options.d)]
    routes = [
      [b, c],
      [d, c],
    ]
    for (const relay of [b, d]) {
      await link(a, relay)
      await link(relay, c)
    }
    a.plane.learn(c.peer, [NOWHERE])
    return { a, b, c, d, setRoutes: (next: TestPlane[][]) => (routes = next) }
  }

  it('answers a call to a node that only a relay can reach, and the ends are proven to each other', async () => {
    const { a, b, c } = await diamond()
    const asked = askPlane(a.plane, c.peer)
    await until(() => asked.ended, 'it was answered')
    expect([asked.text, c.callers]).toEqual(['hello', [a.peer]])
    expect(a.plane.linkTo(c.peer)).toEqual({ carrier: 'relayed', via: [b.peer] })
    expect(c.plane.linkTo(a.peer)).toEqual({ carrier: 'relayed', via: [b.peer] })
    expect(b.callers).toEqual([])
    expect(b.plane.relayed).toMatchObject({ streams: 1, total: 1, refused: 0 })
  })

  it('carries calls of both ends on one relayed link, however many ask for it at once', async () => {
    const { a, b, c } = await diamond()
    const asked = Array.from({ length: 50 }, (_, i) => askPlane(a.plane, c.peer, `call ${i}`))
    await until(() => asked.every(({ ended }) => ended), 'all were answered')
    expect(asked.map(({ text }) => text)).toEqual(asked.map((_, i) => `call ${i}`))
    expect(b.plane.relayed.total).toBe(1)
    const back = askPlane(c.plane, a.peer, 'back')
    await until(() => back.ended, 'the other end was answered')
    expect([back.text, a.callers]).toEqual(['back', [c.peer]])
  })

  it('passes three relays, and no more', async () => {
    let path: TestPlane[] = []
    const a = await started('a', { route: routed(() => [path]) })
    const chain = [a]
    for (const name of ['b', 'c', 'd', 'e', 'f']) {
      const next = await started(name)
      await link(chain.at(-1) ?? a, next)
      chain.push(next)
    }
    const [, , , , e, f] = chain as [TestPlane, TestPlane, TestPlane, TestPlane, TestPlane, TestPlane]
    a.plane.learn(e.peer, [])
    a.plane.learn(f.peer, [])
    path = chain.slice(1, 5)
    const asked = askPlane(a.plane, e.peer)
    await until(() => asked.ended, 'the fifth node answered')
    expect(a.plane.linkTo(e.peer)?.via).toHaveLength(3)
    path = chain.slice(1, 6)
    const tooFar = askPlane(a.plane, f.peer)
    await until(() => tooFar.resets.length === 1, 'the sixth was not reached')
    expect(tooFar.resets).toMatchObject([{ code: 'unreachable', unexecuted: true }])
  })

  it('lays no relayed way over a link that is itself relayed: bytes would pass a node they have passed', async () => {
    let routes: TestPlane[][] = []
    const a = await started('a', { route: routed(() => routes) })
    const [x, b, c] = [await started('x'), await started('b'), await started('c')]
    await link(a, x)
    await link(x, b)
    await link(b, c)
    a.plane.learn(b.peer, [])
    a.plane.learn(c.peer, [])
    routes = [[x, b]]
    const toB = askPlane(a.plane, b.peer)
    await until(() => toB.ended, 'b answered through x')
    routes = [[b, c]]
    const toC = askPlane(a.plane, c.peer)
    await until(() => toC.resets.length === 1, 'it was not tried')
    expect(toC.resets).toMatchObject([{ code: 'unreachable', unexecuted: true }])
    expect([x.plane.relayed.total, b.plane.relayed.total]).toEqual([1, 0])
  })

  it('goes another way when a relay refuses, and says so when there is none', async () => {
    const { a, b, c, d, setRoutes } = await diamond({ b: { relay: { isOn: false } } })
    const asked = askPlane(a.plane, c.peer)
    await until(() => asked.ended, 'it was answered')
    expect(a.plane.linkTo(c.peer)).toEqual({ carrier: 'relayed', via: [d.peer] })
    expect([b.plane.relayed.refused, b.plane.relayed.streams]).toEqual([1, 0])
    setRoutes([[b, c]])
    await d.plane.stop()
    await until(() => a.plane.linkTo(c.peer) === undefined, 'the other way is gone')
    a.plane.unwant(c.peer)
    const fresh = await started('fresh', { route: routed(() => [[b, c]]) })
    await link(fresh, b)
    fresh.plane.learn(c.peer, [])
    const refused = askPlane(fresh.plane, c.peer)
    await until(() => refused.resets.length === 1, 'it was refused')
    expect(refused.resets).toMatchObject([{ code: 'relay-refused', unexecuted: true }])
  })

  it('stays on a way round a relay that refused, and makes no other link for it', async () => {
    const { a, c, d } = await diamond({ a: { idleMs: 60 }, b: { relay: { isOn: false } } })
    // Many looks at whether the way has changed: one each 15 ms.
    for (let calls = 0; calls < 150; calls++) {
      const asked = askPlane(a.plane, c.peer)
      await until(() => asked.ended, 'it was answered')
    }
    expect([a.plane.linkTo(c.peer)?.via, d.plane.relayed.total]).toEqual([[d.peer], 1])
  })

  it('refuses streams beyond what one neighbour may have passed on', async () => {
    const { a, b, c, setRoutes } = await diamond({ b: { relay: { perPeerMax: 1 } } })
    setRoutes([[b, c]])
    const first = askPlane(a.plane, c.peer)
    await until(() => first.ended, 'the first was answered')
    const other = await started('other')
    await link(b, other)
    a.plane.learn(other.peer, [])
    setRoutes([[b, other]])
    const second = askPlane(a.plane, other.peer)
    await until(() => second.resets.length === 1, 'the second stream was refused')
    expect(second.resets).toMatchObject([{ code: 'relay-refused' }])
    expect(b.plane.relayed).toMatchObject({ streams: 1, total: 1, refused: 1 })
  })

  it('survives the loss of a relay: open calls are reset, the next ones go another way', async () => {
    const { a, b, c, d } = await diamond()
    const asked = askPlane(a.plane, c.peer)
    await until(() => asked.ended, 'it was answered')
    const held = a.plane.open(c.peer, openOf('orders'))
    if (held === undefined) throw new Error('expected a link')
    const lost = new Witness(held)
    await b.plane.stop()
    await until(() => lost.resets.length === 1, 'the open call was reset')
    expect(lost.resets).toMatchObject([{ code: 'link-lost' }])
    const again = askPlane(a.plane, c.peer)
    await until(() => again.ended, 'the other relay took over')
    expect(a.plane.linkTo(c.peer)).toEqual({ carrier: 'relayed', via: [d.peer] })
  })

  it('loses no call when a relay drains: calls finish, new ones go another way, then the relay is done', async () => {
    const { a, b, c, d } = await diamond()
    const first = askPlane(a.plane, c.peer)
    await until(() => first.ended, 'it was answered')
    const call = a.plane.open(c.peer, openOf('orders'))
    if (call === undefined) throw new Error('expected a link')
    const long = new Witness(call)
    call.write(Buffer.from('before '))
    await until(() => long.bytes === 7, 'the long call runs')
    let drained = false
    void b.plane.drain().then(() => {
      drained = true
    })
    await until(() => a.plane.linkTo(b.peer) === undefined, 'a knows that b stops')
    const next = askPlane(a.plane, c.peer)
    await until(() => next.ended, 'a new call was answered')
    expect(a.plane.linkTo(c.peer)).toEqual({ carrier: 'relayed', via: [d.peer] })
    expect([drained, long.resets]).toEqual([false, []])
    call.write(Buffer.from('after'))
    call.end()
    await until(() => long.ended, 'the long call ended')
    expect(long.text).toBe('before after')
    await until(() => drained && b.plane.relayed.streams === 0, 'b is done')
  })

  it('takes the next way at once when a link was given up in order, as if nothing had failed', async () => {
    const slow = { backoffMaxMs: 60_000, askedBackoffMaxMs: 60_000, improveMinMs: 60_000, improveMaxMs: 60_000 }
    const { a, b, c, d } = await diamond({ a: { backoffMinMs: 50, ...slow } })
    const asked: Witness[] = []
    const askOne = async (): Promise<void> => {
      const witness = askPlane(a.plane, c.peer)
      asked.push(witness)
      await until(() => witness.ended || witness.resets.length > 0, 'it was answered')
    }
    const startedAtMs = performance.now()
    // Until the link has lived longer than a first wait after a failure would be.
    while (performance.now() - startedAtMs < 200) await askOne()
    a.plane.leaveRelay(b.peer)
    await until(() => a.plane.links().every(({ peer }) => peer !== c.peer), 'the link is closed, and nobody calls')
    await askOne()
    expect(a.plane.linkTo(c.peer)?.via).toEqual([d.peer])
    expect(asked.flatMap(({ resets }) => resets)).toEqual([])
  })

  it('leaves a relay in the middle of the way when word comes that it is stopping', async () => {
    const { a, b, c, d } = await diamond()
    const first = askPlane(a.plane, c.peer)
    await until(() => first.ended, 'it was answered')
    a.plane.leaveRelay(b.peer)
    const next = askPlane(a.plane, c.peer)
    await until(() => next.ended, 'a new call was answered')
    expect(a.plane.linkTo(c.peer)).toEqual({ carrier: 'relayed', via: [d.peer] })
    await until(() => b.plane.relayed.streams === 0, 'nothing passes the first relay any more')
  })

  it('moves to a direct link when the way opens, and loses no call on the move', async () => {
    const { a, b, c } = await diamond()
    const first = askPlane(a.plane, c.peer)
    await until(() => first.ended, 'it was answered')
    const asked: Witness[] = []
    const bulk = askPlane(a.plane, c.peer, Buffer.alloc(8 * 1024 * 1024, 'x'))
    bulk.keep = undefined
    let settled = false
    const askOn = (): void => {
      if (settled) return
      asked.push(askPlane(a.plane, c.peer), askPlane(c.plane, a.peer))
      setTimeout(askOn, 1)
    }
    askOn()
    a.plane.learn(c.peer, [NOWHERE, c.address])
    await until(() => a.plane.linkTo(c.peer)?.carrier === 'direct', 'the direct link is up')
    await until(() => b.plane.relayed.streams === 0, 'the relayed one is closed')
    settled = true
    await until(() => asked.every(({ ended }) => ended) && bulk.ended, 'every call was answered')
    expect([...asked, bulk].flatMap(({ resets }) => resets)).toEqual([])
    expect(bulk.bytes).toBe(8 * 1024 * 1024)
  })

  it('follows when another way has become the one to take, and loses no call on the move', async () => {
    const { a, b, c, d, setRoutes } = await diamond({ a: { idleMs: 60 } })
    const call = a.plane.open(c.peer, openOf('orders'))
    if (call === undefined) throw new Error('expected a link')
    const long = new Witness(call)
    call.write(Buffer.from('before '))
    await until(() => a.plane.linkTo(c.peer)?.via[0] === b.peer && long.bytes > 0, 'the first way is taken')
    setRoutes([[d, c]])
    await until(() => a.plane.linkTo(c.peer)?.via[0] === d.peer, 'the other way is taken')
    call.write(Buffer.from('after'))
    call.end()
    await until(() => long.ended, 'the call on the first way ended')
    expect([long.text, long.resets]).toEqual(['before after', []])
    await until(() => b.plane.relayed.streams === 0, 'the first way is left')
  })

  it('closes a link that nobody wants kept when it has been idle, and makes another for the next call', async () => {
    const { a, c } = await diamond({ a: { idleMs: 60 } })
    const first = askPlane(a.plane, c.peer)
    await until(() => first.ended, 'it was answered')
    await until(() => a.plane.links().every(({ peer }) => peer !== c.peer), 'the idle link is gone')
    expect(a.plane.links().filter(({ state }) => state === 'up')).toHaveLength(2)
    const again = askPlane(a.plane, c.peer)
    await until(() => again.ended, 'it was answered again')
  })

  it('lets a call wait for a direct link, and keeps the link only while it is used', async () => {
    const [a, b] = [await started('a', {}, { idleMs: 60 }), await started('b')]
    a.plane.learn(b.peer, [b.address])
    expect(a.plane.links()).toEqual([])
    const asked = Array.from({ length: 20 }, () => askPlane(a.plane, b.peer, Buffer.alloc(200 * 1024, 'y')))
    const writer = a.plane.open(b.peer, openOf('orders'))
    if (writer === undefined) throw new Error('expected a link on its way')
    const written = new Witness(writer)
    expect([writer.write(Buffer.alloc(1024)), writer.write(Buffer.alloc(64 * 1024))]).toEqual([true, false])
    await until(() => written.drains === 1, 'it may write on')
    writer.end()
    await until(() => written.ended && written.bytes === 65 * 1024, 'what it wrote while it waited came back')
    await until(() => asked.every(({ ended, bytes }) => ended && bytes === 200 * 1024), 'all were answered, whole')
    expect(b.callers).toHaveLength(21)
    await until(() => a.plane.links().length + b.plane.links().length === 0, 'the idle link is gone')
  })

  it('gives a call that waits up in its time, with the next place still to be tried', async () => {
    const a = await started('a', {}, { dialTimeoutMs: 60_000 })
    const silent = mesh.identity('silent').nodeId
    // The address takes connections and never speaks.
    const sockets: Socket[] = []
    const deaf = createServer(socket => void sockets.push(socket))
    await new Promise<void>(resolve => deaf.listen(0, '127.0.0.1', resolve))
    const { port } = deaf.address() as AddressInfo
    a.plane.learn(silent, [`127.0.0.1:${port}`])
    const asked = askPlane(a.plane, silent, 'x', 30)
    await until(() => asked.resets.length === 1, 'it gave up')
    expect(asked.resets).toMatchObject([{ code: 'unreachable', unexecuted: true }])
    for (const socket of sockets) socket.destroy()
    deaf.close()
  })

  it('fails a waiting call at once when the dial is refused, and the next ones without another dial', async () => {
    const a = await started('a', {}, { askedBackoffMaxMs: 60_000, backoffMinMs: 60_000 })
    const gone = mesh.identity('gone').nodeId
    a.plane.learn(gone, [NOWHERE])
    const asked = askPlane(a.plane, gone)
    await until(() => asked.resets.length === 1, 'it was refused')
    expect(asked.resets[0]?.reason).toContain('ECONNREFUSED')
    expect(a.plane.open(gone, openOf('orders'))).toBeUndefined()
    a.plane.nudge(gone)
    expect(a.plane.open(gone, openOf('orders'))).toBeDefined()
  })
})
