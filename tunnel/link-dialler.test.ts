import { type AddressInfo, createServer, type Socket } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { silentLog } from '../router/log.ts'
import { until } from './call-contract.ts'
import { HandClock } from './hand-clock-fixture.ts'
import { DIAL_DEFAULTS, LinkDialler, type LinkDiallerDeps, type Need } from './link-dialler.ts'
import { createTestMesh } from './test-identities.ts'
import { meshSecureContext } from './tls-peer.ts'

const mesh = createTestMesh()
const [us, peer] = [mesh.identity('us'), mesh.identity('peer').nodeId]
const NOWHERE = '127.0.0.1:1'
const KEPT: Need = { rank: -1, isKept: true, isAsked: false }
const ASKED: Need = { rank: -1, isKept: false, isAsked: true }
const { backoffMinMs, backoffMaxMs, askedBackoffMaxMs, headStartMs, quietHeadStartMs, improveMaxMs } = DIAL_DEFAULTS

describe('when a link is dialled, and how', () => {
  const cleanups: (() => void)[] = []
  afterEach(() => {
    for (const cleanup of cleanups.splice(0)) cleanup()
  })

  function dialler(given: Partial<LinkDiallerDeps> = {}) {
    const clock = new HandClock()
    const seen = { overlay: 0, exhausted: [] as string[], routes: [] as string[] }
    const context = meshSecureContext(us)
    const made = new LinkDialler(
      {
        ...{ peer, identity: us, clock, log: silentLog, random: () => 1 },
        context: () => context,
        rttMs: () => 100,
        route: () => undefined,
        openRelay: route => {
          seen.routes.push(route.join('>'))
          return undefined
        },
        linkRelay: () => Promise.resolve(false),
        hasOverlay: () => true,
        openOverlay: () => {
          seen.overlay += 1
          return Promise.reject(new Error('refused'))
        },
        onDialled: ({ socket }) => socket.destroy(),
        onExhausted: ({ message }) => seen.exhausted.push(message),
        onStranger: () => {},
        ...given,
      },
      DIAL_DEFAULTS,
    )
    cleanups.push(() => made.stop())
    return { made, clock, seen }
  }

  /** Takes connections and says nothing. */
  async function silent(): Promise<{ address: string; sockets: Socket[] }> {
    const sockets: Socket[] = []
    const server = createServer(socket => void sockets.push(socket))
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
    cleanups.push(() => {
      for (const socket of sockets) socket.destroy()
      server.close()
    })
    return { address: `127.0.0.1:${(server.address() as AddressInfo).port}`, sockets }
  }

  it('gives a better way a head start of some round trips while calls wait, and a long one while nobody does', async () => {
    const { address, sockets } = await silent()
    const { made, clock, seen } = dialler()
    made.addresses = [address]
    made.update(KEPT)
    clock.advance(0)
    await until(() => sockets.length === 1, 'the direct dial is on its way')
    clock.advance(quietHeadStartMs - 1_000)
    expect(seen.overlay).toBe(0)
    // A call comes: what was left of the long wait is cut short.
    made.update({ ...KEPT, isAsked: true })
    clock.advance(headStartMs + 4 * 100 - 1)
    expect([seen.overlay, made.isBusy]).toEqual([0, true])
    clock.advance(1)
    expect(seen.overlay).toBe(1)
  })

  it('begins with the overlay at once when a call asks, if nothing better is known, and later when none does', () => {
    const asked = dialler()
    asked.made.update(ASKED)
    asked.clock.advance(0)
    expect(asked.seen.overlay).toBe(1)
    const kept = dialler()
    kept.made.update(KEPT)
    kept.clock.advance(quietHeadStartMs - 1)
    expect(kept.seen.overlay).toBe(0)
    kept.clock.advance(1)
    expect(kept.seen.overlay).toBe(1)
  })

  it('tries on for ever while a link is to be kept, at most every five seconds', async () => {
    const { made, clock, seen } = dialler({ rttMs: () => 0 })
    made.update({ ...KEPT, isAsked: true })
    let waitMs = 0
    let longestMs = 0
    for (let tries = 1; tries <= 12; tries++) {
      for (waitMs = 0; seen.overlay < tries; waitMs += 10) clock.advance(10)
      longestMs = Math.max(longestMs, waitMs)
      await until(() => made.isBusy === false || tries < 3, 'it has failed')
      await new Promise(resolve => setImmediate(resolve))
      made.update({ ...KEPT, isAsked: true })
    }
    expect(longestMs).toBeGreaterThan(backoffMaxMs - 100)
    expect(longestMs).toBeLessThanOrEqual(backoffMaxMs + 20)
  })

  it('fails those who ask at once when all ways are used up, and tries again for the next after a short wait', async () => {
    const { made, clock, seen } = dialler()
    made.update(ASKED)
    clock.advance(0)
    await until(() => seen.exhausted.length === 1, 'the ways are used up')
    expect([seen.exhausted, made.isBusy]).toEqual([['refused'], false])
    made.update(ASKED)
    clock.advance(backoffMinMs - 1)
    expect([made.isBusy, seen.overlay]).toEqual([false, 1])
    for (let tries = 2; tries < 10; tries++) {
      clock.advance(askedBackoffMaxMs)
      made.update(ASKED)
      clock.advance(0)
      await until(() => seen.exhausted.length === tries, 'it was tried again')
    }
  })

  it('tries again while calls wait when a link has just ended, and fails them when a second has brought nothing', async () => {
    const { made, clock, seen } = dialler()
    made.onEnded()
    made.update(ASKED)
    clock.advance(0)
    for (let tries = 0; tries < 50; tries++) {
      // A try that fails is over a turn later.
      await new Promise(resolve => setImmediate(resolve))
      if (clock.nowMs() < 900) expect(seen.exhausted).toEqual([])
      clock.advance(30)
    }
    expect([seen.overlay > 10, seen.exhausted.length, made.isBusy]).toEqual([true, 1, false])
  })

  it('looks for a better way while a worse one is in use, less and less often', async () => {
    const { made, clock, seen } = dialler()
    made.addresses = [NOWHERE]
    const onOverlay: Need = { rank: 1, isKept: false, isAsked: false }
    made.update(onOverlay)
    for (let tries = 1; tries < 8; tries++) {
      clock.advance(improveMaxMs)
      await until(() => seen.exhausted.length === tries, 'the direct way was tried')
    }
    expect(seen.overlay).toBe(0)
    made.update({ ...onOverlay, rank: 3 })
    clock.advance(improveMaxMs)
    expect([made.isBusy, seen.exhausted.length]).toEqual([false, 7])
  })

  it('goes round a relay that there is no link to, and takes it again when there is no other', async () => {
    const routes = [
      ['b', peer],
      ['d', peer],
    ]
    const { made, clock, seen } = dialler({
      hasOverlay: () => false,
      route: avoided => routes.find(([relay = '']) => !avoided.has(relay)),
    })
    made.update(ASKED)
    clock.advance(0)
    await until(() => seen.exhausted.length === 1, 'it gave up')
    expect(seen.routes).toEqual([`b>${peer}`, `d>${peer}`, `b>${peer}`])
    expect(seen.exhausted[0]).toContain('there is no link to b')
  })
})
