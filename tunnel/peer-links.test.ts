import { afterEach, describe, expect, it } from 'vitest'
import { silentLog } from '../router/log.ts'
import { ACCEPTOR, DIALLER, openOf, until, Witness } from './call-contract.ts'
import { CallLink } from './call-link.ts'
import { CALL_LINK_DEFAULTS } from './call-link-options.ts'
import { encodeHello, FRAME } from './frame.ts'
import { FrameBatch } from './frame-batch.ts'
import { HandClock } from './hand-clock-fixture.ts'
import { memoryCarriers } from './memory-carrier.ts'
import { type PeerLink, PeerLinks } from './peer-links.ts'

describe('the links to one peer', () => {
  const made: CallLink[] = []
  const calls: Witness[] = []
  let order = 0
  afterEach(() => {
    calls.length = 0
    for (const link of made.splice(0)) link.close('the test is over')
  })

  interface Made {
    readonly dialled?: boolean
    readonly isParallel?: boolean
    readonly knowsParallel?: boolean
  }

  /** A link that is up, to a peer that says HELLO and nothing else. */
  async function linked(links: PeerLinks, { dialled = true, isParallel = false, knowsParallel = true }: Made = {}) {
    const [peer, carrier] = memoryCarriers()
    const link = new CallLink(
      {
        ...{ carrier, clock: new HandClock(), log: silentLog, accept: () => {}, isParallel: isParallel && dialled },
        ...{ self: DIALLER, peer: ACCEPTOR, onState: () => {}, onClosed: () => {} },
      },
      dialled,
      CALL_LINK_DEFAULTS,
    )
    made.push(link)
    peer.start({ onBytes: () => {}, onDrain: () => {}, onClose: () => {} })
    link.start()
    const windows = { callWindowBytes: 65_536, linkWindowBytes: 65_536 }
    const batch = new FrameBatch()
    batch.add(FRAME.HELLO, 0, encodeHello({ ...windows, knowsParallel, isParallel: isParallel && !dialled }))
    peer.write(batch.take())
    await until(() => link.state === 'up', 'the link is up')
    const entry: PeerLink = {
      ...{ link, kind: 'direct', via: [], address: 'a:1', over: undefined, staleness: 0, order: order++ },
      ...{ upAtMs: 0, isRetired: false, callsSeen: link.callsSeen, idleSinceMs: 0 },
    }
    links.add(entry)
    return entry
  }

  /** Opens a call; answers the link that took it. */
  function taker(links: PeerLinks): PeerLink | undefined {
    const before = links.all.map(({ link }) => link.inFlight)
    const call = links.open(openOf('orders'))
    if (call !== undefined) calls.push(new Witness(call))
    return links.all.find(({ link }, i) => link.inFlight > (before[i] ?? 0))
  }

  const crowd = ({ link }: PeerLink): void => {
    for (let i = 0; i < 8; i++) link.load.look(true)
  }
  const clear = ({ link }: PeerLink): void => {
    for (let i = 0; i < 8; i++) link.load.look(false)
  }

  it('give a new call one that is not crowded, the least busy of several, and the first again when it is not', async () => {
    const links = new PeerLinks()
    const first = await linked(links)
    const [second, third] = [await linked(links, { isParallel: true }), await linked(links, { isParallel: true })]
    expect(taker(links)).toBe(first)
    crowd(first)
    second.link.load.passedBytes = 9_000
    second.link.load.look(false)
    third.link.load.look(false)
    expect(taker(links)).toBe(third)
    crowd(third)
    expect(taker(links)).toBe(second)
    for (const entry of [first, second, third]) {
      crowd(entry)
      entry.link.load.passedBytes = entry === first ? 1_000 : 9_000
      entry.link.load.look(true)
    }
    expect(taker(links)).toBe(first)
    clear(first)
    expect(taker(links)).toBe(first)
    expect(calls.flatMap(({ resets }) => resets)).toEqual([])
  })

  it('need another one only if all are crowded, up to a number, and at the end that dialled the first', async () => {
    const links = new PeerLinks()
    const first = await linked(links)
    expect(links.needsAnother(2)).toBeUndefined()
    crowd(first)
    expect(links.needsAnother(1)).toBeUndefined()
    expect(links.needsAnother(2)).toBe(first)
    const second = await linked(links, { isParallel: true })
    expect(links.needsAnother(3)).toBeUndefined()
    crowd(second)
    expect([links.needsAnother(2), links.needsAnother(3)]).toEqual([undefined, first])

    const accepted = new PeerLinks()
    crowd(await linked(accepted, { dialled: false }))
    expect(accepted.needsAnother(4)).toBeUndefined()
  })

  it('need no other one of a peer that would take it for a duplicate', async () => {
    const links = new PeerLinks()
    crowd(await linked(links, { knowsParallel: false }))
    expect(links.needsAnother(4)).toBeUndefined()
  })

  it('do not count a parallel one as a duplicate, whoever dialled it, nor as a link that is kept', async () => {
    const links = new PeerLinks()
    const first = await linked(links)
    await linked(links, { isParallel: true })
    await linked(links, { isParallel: true, dialled: false })
    expect([links.hasDuplicates, links.duplicates(true), links.rank]).toEqual([false, [], 3])
    expect(links.best).toBe(first)
    links.remove(first)
    expect([links.isUp, links.rank]).toEqual([true, -1])
    const again = await linked(links)
    const duplicate = await linked(links, { dialled: false })
    expect([links.hasDuplicates, links.duplicates(true)]).toEqual([true, [duplicate]])
    expect(links.duplicates(false)).toEqual([again])
  })

  it('spare a parallel one without calls after a while, as long as one is left that is not crowded', async () => {
    const links = new PeerLinks()
    const first = await linked(links)
    const [second, third] = [await linked(links, { isParallel: true }), await linked(links, { isParallel: true })]
    crowd(first)
    links.spare(0)
    const answered = second.link.open(openOf('orders'))
    if (answered === undefined) throw new Error('the link takes no calls')
    calls.push(new Witness(answered))
    expect(links.spare(1_000)).toEqual([])
    expect(links.spare(5_100)).toEqual([third])
    answered.reset({ code: 'cancelled', reason: 'enough', node: DIALLER, unexecuted: false })
    // Either could go, but not both: small calls need one of them.
    expect(links.spare(60_000)).toHaveLength(1)
    clear(first)
    expect(links.spare(120_000)).toEqual(expect.arrayContaining([second, third]))
  })
})
