import { afterEach, describe, expect, it } from 'vitest'
import { until, type Witness } from './call-contract.ts'
import type { CallPlane } from './call-plane.ts'
import { MemoryNetwork, MemoryOverlay } from './memory-overlay.ts'
import type { OverlayHandler } from './overlay.ts'
import { askPlane, startPlane, type TestPlane } from './plane-fixture.ts'
import { createTestMesh } from './test-identities.ts'

const mesh = createTestMesh()
const NOWHERE = '127.0.0.1:1'

describe('calls over the overlay', () => {
  const planes: TestPlane[] = []
  afterEach(async () => {
    await Promise.all(planes.splice(0).map(({ plane }) => plane.stop()))
  })

  /** Two nodes with an overlay link, each of which keeps a link of calls to the other while it is up. */
  async function pair(network = new MemoryNetwork()) {
    const [one, two] = await Promise.all(
      ['one', 'two'].map(async name => {
        const identity = mesh.identity(name)
        const handler: OverlayHandler = {
          onLinkUp: node => plane().want(node, [NOWHERE]),
          onLinkDown: node => plane().unwant(node),
          onRtt() {},
          onFrame() {},
          onCallStream: (node, stream) => plane().takeOverlay(node, stream),
        }
        const overlay = new MemoryOverlay({ node: identity.nodeId, network, handler })
        const started = await startPlane(identity, {
          overlay: { isLinked: node => overlay.isLinked(node), open: node => overlay.openCalls(node) },
        })
        const plane = (): CallPlane => started.plane
        planes.push(started)
        await overlay.start()
        return { ...started, overlay }
      }),
    )
    if (one === undefined || two === undefined) throw new Error('expected two')
    one.overlay.learn(two.peer)
    const carrier = (): string | undefined => one.plane.linkTo(two.peer)?.carrier
    await until(() => carrier() === 'overlay' && two.plane.linkTo(one.peer) !== undefined, 'they are linked')
    return { one, two, network, carrier }
  }

  it('answers calls both ways when neither call port can be reached', async () => {
    const { one, two } = await pair()
    const asked = [askPlane(one.plane, two.peer, 'there'), askPlane(two.plane, one.peer, 'back')]
    await until(() => asked.every(({ ended }) => ended), 'both were answered')
    expect(asked.map(({ text }) => text)).toEqual(['there', 'back'])
    expect([two.callers, one.callers]).toEqual([[one.peer], [two.peer]])
  })

  it('moves to a direct link as soon as either end can dial, and loses no call on the move', async () => {
    const { one, two, carrier } = await pair()
    const asked: Witness[] = []
    const bulk = askPlane(one.plane, two.peer, Buffer.alloc(4 * 1024 * 1024, 'x'))
    bulk.keep = undefined
    let settled = false
    const askOn = (): void => {
      if (settled) return
      asked.push(askPlane(one.plane, two.peer), askPlane(two.plane, one.peer))
      setTimeout(askOn, 1)
    }
    askOn()
    two.plane.learn(one.peer, [one.address])
    await until(() => carrier() === 'direct', 'the direct link is up')
    await until(
      () => [...one.plane.links(), ...two.plane.links()].every(link => link.carrier === 'direct'),
      'the stream of the overlay is closed',
    )
    settled = true
    await until(() => asked.every(({ ended }) => ended) && bulk.ended, 'every call was answered')
    expect([...asked, bulk].flatMap(({ resets }) => resets)).toEqual([])
    expect(bulk.bytes).toBe(4 * 1024 * 1024)
  })

  it('falls back to the overlay when the direct link is lost for good', async () => {
    const { one, two, carrier } = await pair()
    one.plane.learn(two.peer, [two.address])
    await until(() => carrier() === 'direct', 'the direct link is up')
    one.plane.learn(two.peer, [NOWHERE])
    one.plane.cut(two.peer, 'a firewall closed')
    const asked = askPlane(one.plane, two.peer)
    await until(() => asked.ended, 'it was answered')
    expect(carrier()).toBe('overlay')
  })

  it('goes down with the overlay link, and comes back with it', async () => {
    const { one, two, network, carrier } = await pair()
    network.cut(one.peer, two.peer)
    await until(() => carrier() === undefined, 'the link is down')
    network.heal(one.peer, two.peer)
    await until(() => carrier() === 'overlay', 'the link is back')
    const asked = askPlane(one.plane, two.peer)
    await until(() => asked.ended, 'it was answered')
  })
})
