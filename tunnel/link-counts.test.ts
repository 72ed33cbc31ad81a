import { afterEach, describe, expect, it } from 'vitest'
import type { CallReset } from '../proxy/call.ts'
import { CALL_WINDOW_BYTES } from '../proxy/call.ts'
import { silentLog } from '../router/log.ts'
import { ACCEPTOR, DIALLER, openOf, until, Witness } from './call-contract.ts'
import { CallLink } from './call-link.ts'
import { CALL_LINK_DEFAULTS, type CallLinkOptions } from './call-link-options.ts'
import { HandClock } from './hand-clock-fixture.ts'
import { createLinkCounts, type LinkCounts } from './link-counts.ts'
import { memoryCarriers } from './memory-carrier.ts'

const CANCEL: CallReset = { code: 'cancelled', reason: 'enough', node: DIALLER, unexecuted: false }

describe('what a link counts', () => {
  const links: CallLink[] = []
  afterEach(() => {
    for (const link of links.splice(0)) link.close('the test is over')
  })

  function linked(options: Partial<CallLinkOptions> = {}) {
    const [dialler, acceptor] = memoryCarriers()
    const accepted: Witness[] = []
    // No clock moves: there is the first ping and no other.
    const clock = new HandClock()
    const make = (dialled: boolean, counts: LinkCounts): CallLink => {
      const link = new CallLink(
        {
          ...{ carrier: dialled ? dialler : acceptor, clock, log: silentLog, counts },
          ...{ self: dialled ? DIALLER : ACCEPTOR, peer: dialled ? ACCEPTOR : DIALLER },
          accept: call => void accepted.push(new Witness(call)),
          onState: () => {},
          onClosed: () => {},
        },
        dialled,
        { ...CALL_LINK_DEFAULTS, ...options },
      )
      links.push(link)
      link.start()
      return link
    }
    const [ours, theirs] = [createLinkCounts(), createLinkCounts()]
    const link = make(true, ours)
    make(false, theirs)
    return { link, ours, theirs, accepted }
  }

  it('is the same at both ends: every frame and byte that one sent, the other got', async () => {
    // So much that none is credited meanwhile.
    const { link, ours, theirs, accepted } = linked({ linkWindowBytes: CALL_WINDOW_BYTES })
    const call = link.open(openOf('orders', 'GET / HTTP/1.1\r\n\r\n'))
    if (call === undefined) throw new Error('the link takes no calls')
    const witness = new Witness(call)
    await until(() => accepted.length === 1, 'the call arrived')
    const answer = accepted[0]?.call
    answer?.sendHead(Buffer.from('HTTP/1.1 200 OK\r\n\r\n'))
    answer?.write(Buffer.alloc(100_000))
    answer?.end()
    call.end()
    await until(() => witness.ended && accepted[0]?.ended === true, 'the call is over')
    expect([ours.framesOut, ours.bytesOut]).toEqual([theirs.framesIn, theirs.bytesIn])
    expect([theirs.framesOut, theirs.bytesOut]).toEqual([ours.framesIn, ours.bytesIn])
    // HELLO, PING and PONG of both; OPEN and END; HEAD, two of DATA, END.
    expect([ours.framesOut, theirs.framesOut]).toEqual([3 + 2, 3 + 4])
    expect(theirs.bytesOut).toBeGreaterThan(100_000)
    expect([ours.callWindowsExhausted, ours.linkWindowsExhausted]).toEqual([0, 0])
    expect([theirs.callWindowsExhausted, theirs.linkWindowsExhausted]).toEqual([0, 0])
  })

  it('tells a call that waits for its own credit from one that waits for the link', async () => {
    const own = linked({ callWindowBytes: 64 * 1024 })
    const call = own.link.open(openOf('orders'))
    call?.write(Buffer.alloc(128 * 1024))
    await until(() => own.accepted.length === 1, 'the call arrived')
    await until(() => own.ours.callWindowsExhausted > 0, 'its window is used up')
    expect(own.ours.linkWindowsExhausted).toBe(0)
    call?.reset(CANCEL)

    const shared = linked({ linkWindowBytes: 64 * 1024 })
    shared.link.open(openOf('orders'))?.write(Buffer.alloc(128 * 1024))
    await until(() => shared.ours.linkWindowsExhausted > 0, 'the window of the link is used up')
    expect(shared.ours.callWindowsExhausted).toBe(0)
  })
})
