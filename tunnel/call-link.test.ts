import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { createServer, type TLSSocket } from 'node:tls'
import fc from 'fast-check'
import { afterEach, describe, expect, it } from 'vitest'
import { CALL_WINDOW_BYTES } from '../proxy/call.ts'
import { silentLog } from '../router/log.ts'
import { ACCEPTOR, callContract, DIALLER, openOf, until, Witness } from './call-contract.ts'
import { CallLink } from './call-link.ts'
import { CALL_LINK_DEFAULTS, type CallLinkOptions } from './call-link-options.ts'
import { encodeGoAway, encodeHello, encodeU32, FRAME, FrameDecoder, type Hello, LAST_ID_ANY } from './frame.ts'
import { FrameBatch } from './frame-batch.ts'
import { HandClock } from './hand-clock-fixture.ts'
import { SILENCE_MS, TICK_MS } from './heartbeat.ts'
import { type MemoryCarrier, memoryCarriers } from './memory-carrier.ts'
import { createTestMesh } from './test-identities.ts'
import { TlsCarrier } from './tls-carrier.ts'
import { CALLS_ALPN, dialPeer, meshSecureContext } from './tls-peer.ts'

callContract('memory', async () => {
  const [dialler, acceptor] = memoryCarriers()
  return { dialler, acceptor, sever: () => dialler.sever() }
})

let cutSeed = 1
callContract('memory that cuts the bytes anywhere', async () => {
  const chance = fc.sample(fc.integer({ min: 1, max: 40_000 }), { numRuns: 997, seed: cutSeed++ })
  let at = 0
  const [dialler, acceptor] = memoryCarriers(length => Math.min(length, chance[at++ % chance.length] ?? 1))
  return { dialler, acceptor, sever: () => dialler.sever() }
})

const mesh = createTestMesh()
const [us, them] = [mesh.identity('us'), mesh.identity('them')]

callContract('a TLS socket', tlsCarriers)

async function tlsCarriers() {
  const server = createServer({
    key: them.keyPem,
    cert: them.certificatePem,
    ca: them.rootPem,
    requestCert: true,
    ALPNProtocols: [CALLS_ALPN],
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const accepted = once(server, 'secureConnection')
  const { port } = server.address() as AddressInfo
  const socket = await dialPeer(meshSecureContext(us), us.rootPem, them.nodeId, `127.0.0.1:${port}`, 5_000).socket
  const [other] = (await accepted) as [TLSSocket]
  server.close()
  return {
    dialler: new TlsCarrier(socket),
    acceptor: new TlsCarrier(other),
    sever: () => other.destroy(),
  }
}

it('a TLS session is read into one buffer, of which a link has one of its own', async () => {
  const { dialler, acceptor, sever } = await tlsCarriers()
  const heard = { dialler: new Set<unknown>(), acceptor: new Set<unknown>() }
  let bytes = 0
  const told = (by: Set<unknown>) => ({
    onBytes(chunk: Buffer): void {
      by.add(chunk.buffer)
      bytes += chunk.length
    },
    onDrain() {},
    onClose() {},
  })
  dialler.start(told(heard.dialler))
  acceptor.start(told(heard.acceptor))
  for (const [i, size] of [1, 20_000, 60_000, 300].entries()) {
    const carrier = i % 2 === 0 ? dialler : acceptor
    const untilBytes: number = bytes + size
    carrier.write([Buffer.alloc(size)])
    await until(() => bytes === untilBytes, 'it has come')
  }
  expect([heard.dialler.size, heard.acceptor.size]).toEqual([1, 1])
  expect([...heard.dialler][0]).not.toBe([...heard.acceptor][0])
  sever()
})

describe('a link whose peer is a script', () => {
  const links: CallLink[] = []
  afterEach(() => {
    for (const link of links.splice(0)) link.close('the test is over')
  })

  /** The peer dialled, so its calls are odd. `frames` is what it was sent, by type. */
  function scripted(options: Partial<CallLinkOptions> = {}) {
    const [peer, carrier] = memoryCarriers()
    const clock = new HandClock()
    const seen: { type: number; callId: number; payload: Buffer }[] = []
    const accepted: Witness[] = []
    const state = { closed: '', fault: false, carrierClosed: false }
    const link = new CallLink(
      {
        carrier,
        clock,
        log: silentLog,
        self: ACCEPTOR,
        peer: DIALLER,
        accept: call => void accepted.push(new Witness(call)),
        onState: () => {},
        onClosed: (reason, fault) => Object.assign(state, { closed: reason, fault }),
      },
      false,
      { ...CALL_LINK_DEFAULTS, ...options },
    )
    const decoder = new FrameDecoder({
      onFrame: (type, callId, payload) => void seen.push({ type, callId, payload: Buffer.from(payload) }),
      onDataPiece: (callId, piece) => void seen.push({ type: FRAME.DATA, callId, payload: piece }),
    })
    peer.start({
      onBytes: chunk => void decoder.push(chunk),
      onDrain: () => {},
      onClose: () => {
        state.carrierClosed = true
      },
    })
    links.push(link)
    link.start()
    const send = (type: number, callId: number, payload: Buffer = Buffer.alloc(0)): void => {
      const batch = new FrameBatch()
      batch.add(type, callId, payload)
      peer.write(batch.take())
    }
    const hello = (flags: Partial<Hello> = {}): void => {
      const windows = { callWindowBytes: CALL_WINDOW_BYTES, linkWindowBytes: 1 << 20 }
      send(FRAME.HELLO, 0, encodeHello({ ...windows, knowsParallel: true, isParallel: false, ...flags }))
    }
    const open = (callId: number, service = 'orders', kind = 1): void => {
      const batch = new FrameBatch()
      batch.addOpen(callId, kind, 0, service, Buffer.from('GET / HTTP/1.1\r\n\r\n'))
      peer.write(batch.take())
    }
    const types = (): number[] => seen.map(({ type }) => type)
    return { link, peer: peer as MemoryCarrier, carrier, clock, seen, types, accepted, state, send, hello, open }
  }
  type Script = ReturnType<typeof scripted>

  const faults: [string, (peer: Script) => void][] = [
    ['speaks before HELLO', peer => peer.open(1)],
    ['sends data before HELLO', peer => peer.send(FRAME.DATA, 1, Buffer.from('x'))],
    ['says HELLO twice', peer => [peer.hello(), peer.hello()]],
    [
      'speaks another major version',
      peer => peer.send(FRAME.HELLO, 0, Buffer.concat([Buffer.from([9]), Buffer.alloc(9)])),
    ],
    ['sends no frames at all', peer => peer.peer.write([Buffer.from('GET / HTTP/1.1\r\nhost: x\r\n\r\n')])],
    ['uses an id of the other end', peer => [peer.hello(), peer.open(2)]],
    ['uses an id twice', peer => [peer.hello(), peer.open(5), peer.open(5)]],
    ['goes back in ids', peer => [peer.hello(), peer.open(5), peer.open(3)]],
    ['sends data of a call that never was', peer => [peer.hello(), peer.send(FRAME.DATA, 7, Buffer.from('x'))]],
    ['answers a call that never was', peer => [peer.hello(), peer.send(FRAME.END, 2)]],
    [
      'sends a head from the opening end',
      peer => [peer.hello(), peer.open(1), peer.send(FRAME.HEAD, 1, Buffer.from('x'))],
    ],
    [
      'sends data after the end',
      peer => [peer.hello(), peer.open(1), peer.send(FRAME.END, 1), peer.send(FRAME.DATA, 1, Buffer.from('x'))],
    ],
    [
      'sends data after trailers',
      peer => [
        peer.hello(),
        peer.open(1),
        peer.send(FRAME.TRAILERS, 1, Buffer.from('x')),
        peer.send(FRAME.DATA, 1, Buffer.from('x')),
      ],
    ],
    ['ends twice', peer => [peer.hello(), peer.open(1), peer.send(FRAME.END, 1), peer.send(FRAME.END, 1)]],
    ['grants nothing', peer => [peer.hello(), peer.open(1), peer.send(FRAME.WINDOW, 1, encodeU32(0))]],
    ['grants too much', peer => [peer.hello(), peer.open(1), peer.send(FRAME.WINDOW, 1, encodeU32(0x7fffffff))]],
    ['grants the link too much', peer => [peer.hello(), peer.send(FRAME.WINDOW, 0, encodeU32(0x7fffffff))]],
  ]

  it.each(faults)('is closed with a reason, and its calls are reset, when the peer %s', async (_name, act) => {
    const peer = scripted()
    act(peer)
    await until(() => peer.state.closed !== '' && peer.state.carrierClosed, 'the link closed')
    expect(peer.state.fault).toBe(true)
    const last = peer.seen.at(-1)
    expect(last?.type).toBe(FRAME.GOAWAY)
    expect(last?.payload.subarray(5).toString()).toBe(peer.state.closed)
    for (const { resets } of peer.accepted) expect(resets.map(({ code }) => code)).toEqual(['link-lost'])
  })

  it('is closed when the peer passes the window of a call that does not read', async () => {
    const peer = scripted()
    peer.hello()
    peer.open(1)
    await until(() => peer.accepted.length === 1, 'the call arrived')
    peer.accepted[0]?.call.pause()
    for (let i = 0; i < 4; i++) peer.send(FRAME.DATA, 1, Buffer.alloc(65_536))
    await until(() => peer.accepted[0]?.bytes === CALL_WINDOW_BYTES, 'one window arrived')
    expect(peer.state.closed).toBe('')
    peer.send(FRAME.DATA, 1, Buffer.from('x'))
    await until(() => peer.state.fault, 'the link closed')
    expect(peer.accepted[0]?.bytes).toBe(CALL_WINDOW_BYTES)
  })

  it('counts data of a call it has reset against the window of the link, and gives it back', async () => {
    const peer = scripted({ linkWindowBytes: 256 * 1024 })
    peer.hello()
    peer.open(1)
    await until(() => peer.accepted.length === 1, 'the call arrived')
    peer.accepted[0]?.call.reset({ code: 'cancelled', reason: 'enough', node: ACCEPTOR, unexecuted: false })
    for (let i = 0; i < 3; i++) peer.send(FRAME.DATA, 1, Buffer.alloc(65_536))
    await until(() => peer.types().includes(FRAME.WINDOW), 'the link gave credit')
    expect(peer.seen.find(({ type }) => type === FRAME.WINDOW)).toMatchObject({
      callId: 0,
      payload: encodeU32(131_072),
    })
    expect(peer.seen.filter(({ type }) => type === FRAME.RESET)).toHaveLength(1)
    expect(peer.state.closed).toBe('')
  })

  it('gives a fast reader a larger window, one that stopped none, and all of them together no more than their share', async () => {
    const peer = scripted({ callWindowBytes: 2_000, callWindowBytesMax: 8_000, grownBytesMax: 9_000 })
    peer.hello()
    await until(() => peer.types().includes(FRAME.PING), 'the link pinged')
    peer.clock.advance(50)
    peer.send(FRAME.PONG, 0, peer.seen.find(({ type }) => type === FRAME.PING)?.payload)
    await until(() => peer.link.rttMs !== undefined, 'the round trip is known')
    const grantedBytes = (callId: number): number =>
      peer.seen
        .filter(({ type, callId: id }) => type === FRAME.WINDOW && id === callId)
        .reduce((sum, { payload }) => sum + payload.readUInt32BE(), 0)
    // What was sent comes back as credit; what comes beyond it is how far the window has grown.
    const grownBytes = async (callId: number): Promise<number> => {
      peer.open(callId)
      await until(() => peer.accepted.length === (callId + 1) / 2, 'the call arrived')
      let sentBytes = 0
      for (let i = 0; i < 5; i++) {
        const leftBytes = 2_000 + grantedBytes(callId) - sentBytes
        const before = grantedBytes(callId)
        peer.clock.advance(50)
        peer.send(FRAME.DATA, callId, Buffer.alloc(leftBytes))
        sentBytes += leftBytes
        await until(() => grantedBytes(callId) > before, 'credit came')
      }
      return grantedBytes(callId) - sentBytes
    }
    expect(await grownBytes(1)).toBe(6_000)
    expect(await grownBytes(3)).toBe(3_000)
    peer.accepted[0]?.call.pause()
    peer.send(FRAME.DATA, 1, Buffer.alloc(8_000))
    await until(() => peer.link.heldBytes === 8_000, 'the stopped reader holds its window')
    peer.send(FRAME.DATA, 1, Buffer.from('x'))
    await until(() => peer.state.fault, 'the link closed')
  })

  it('says that it is crowded at every look, to a peer that knows the word', async () => {
    for (const knowsParallel of [true, false]) {
      const peer = scripted()
      peer.hello({ knowsParallel })
      await until(() => peer.link.state === 'up', 'the link is up')
      for (let i = 0; i < 8; i++) peer.link.load.look(true)
      peer.link.look()
      peer.send(FRAME.PING, 0, Buffer.alloc(8))
      await until(() => peer.types().includes(FRAME.PONG), 'what was to be said was said')
      expect(peer.types().filter(type => type === FRAME.CROWDED)).toHaveLength(knowsParallel ? 1 : 0)
    }
  })

  it('believes a peer that says that it is crowded', async () => {
    const peer = scripted()
    peer.hello()
    peer.send(FRAME.CROWDED, 0)
    await until(() => peer.link.load.isCrowded, 'the word was heard')
    expect(peer.state.closed).toBe('')
  })

  it('refuses one call, not the link, for a kind or a name it does not know', async () => {
    const peer = scripted()
    peer.hello()
    peer.open(1, 'orders', 9)
    peer.open(3, 'No_Name')
    peer.open(5)
    await until(() => peer.accepted.length === 1, 'the good call arrived')
    await until(() => peer.types().filter(type => type === FRAME.RESET).length === 2, 'two were refused')
    expect(peer.seen.filter(({ type }) => type === FRAME.RESET).map(({ callId }) => callId)).toEqual([1, 3])
  })

  it('waits for HELLO, then gives the link up', async () => {
    const peer = scripted()
    peer.clock.advance(4_999)
    expect(peer.link.state).toBe('hello')
    peer.clock.advance(1)
    await until(() => peer.state.carrierClosed, 'the link closed')
    expect(peer.state.closed).toContain('HELLO')
  })

  it('gives up a peer that is silent for 2.5 s, not one that says anything at all', async () => {
    const peer = scripted()
    peer.hello()
    for (let i = 0; i < 20; i++) {
      peer.clock.advance(TICK_MS)
      peer.send(0x80, 0, Buffer.from('x'))
      await until(() => peer.carrier.bytesArrived > i * 9 + 19, 'the byte arrived')
    }
    expect(peer.link.state).toBe('up')
    for (let i = 0; i < SILENCE_MS / TICK_MS; i++) peer.clock.advance(TICK_MS)
    expect(peer.link.state).toBe('up')
    peer.clock.advance(TICK_MS)
    expect(peer.state.closed).toBe('no byte for 2500 ms')
    expect(peer.state.fault).toBe(false)
  })

  it('does not blame the peer when this process itself was stopped for long', async () => {
    const peer = scripted()
    peer.hello()
    await until(() => peer.link.state === 'up', 'the link is up')
    peer.clock.advance(60_000)
    expect(peer.link.state).toBe('up')
  })

  it('takes the round trip from the answer to its own ping', async () => {
    const peer = scripted()
    peer.hello()
    await until(() => peer.types().includes(FRAME.PING), 'a ping came')
    peer.clock.advance(80)
    const ping = peer.seen.find(({ type }) => type === FRAME.PING)
    peer.send(FRAME.PONG, 0, Buffer.alloc(8, 0xff))
    peer.send(FRAME.PONG, 0, ping?.payload)
    await until(() => peer.link.rttMs !== undefined, 'the round trip was taken')
    expect(peer.link.rttMs).toBe(80)
  })

  it('measures a round trip that is longer than the time between pings', async () => {
    const peer = scripted()
    peer.hello()
    await until(() => peer.types().includes(FRAME.PING), 'a ping came')
    const ping = peer.seen.find(({ type }) => type === FRAME.PING)
    for (let i = 0; i < 5; i++) peer.clock.advance(500)
    peer.send(FRAME.PONG, 0, ping?.payload)
    await until(() => peer.link.rttMs !== undefined, 'the round trip was taken')
    expect(peer.link.rttMs).toBe(2_500)
  })

  it('answers only the newest of many pings and closes on a peer that makes it talk without listening', async () => {
    const peer = scripted({ inboundCallsMax: 0 })
    peer.hello()
    await until(() => peer.link.state === 'up', 'the link is up')
    peer.peer.held = true
    for (let i = 0; i < 1_000; i++) peer.send(FRAME.PING, 0, Buffer.alloc(8))
    let callId = 1
    while (peer.state.closed === '') {
      for (let i = 0; i < 500; i++, callId += 2) peer.open(callId)
      await new Promise(resolve => setImmediate(resolve))
      expect(callId).toBeLessThan(200_000)
    }
    expect(peer.state.closed).toContain('taking nothing')
    expect(peer.peer.bytesOnTheWayMax + peer.carrier.bytesOnTheWayMax).toBeLessThan(4_000_000)
  })

  it('calls a call unexecuted when the line is cut before its opening left, or when the peer said it would not answer', async () => {
    const peer = scripted()
    const waiting = new Witness(peer.link.open(openOf('orders')) ?? expect.fail('expected a call'))
    peer.carrier.sever()
    await until(() => waiting.resets.length === 1, 'the call was reset')
    expect(waiting.resets).toMatchObject([{ code: 'link-lost', unexecuted: true }])

    const other = scripted()
    other.hello()
    await until(() => other.link.state === 'up', 'the link is up')
    const calls = [0, 1].map(() => new Witness(other.link.open(openOf('orders')) ?? expect.fail('expected a call')))
    await until(() => other.types().filter(type => type === FRAME.OPEN).length === 2, 'both left')
    other.send(FRAME.GOAWAY, 0, encodeGoAway({ lastId: 2, code: 'draining', reason: 'bye' }))
    await until(() => calls[1]?.resets.length === 1, 'the second was given back')
    other.peer.sever()
    await until(() => calls[0]?.resets.length === 1, 'the first was lost')
    expect(calls.map(({ resets }) => resets.map(({ code, unexecuted }) => [code, unexecuted]))).toEqual([
      [['link-lost', false]],
      [['draining', true]],
    ])
  })

  it('says that no OPEN follows only after every OPEN that waited', async () => {
    const peer = scripted()
    const waiting = new Witness(peer.link.open(openOf('orders')) ?? expect.fail('expected a call'))
    peer.link.retire('a better link exists')
    expect(waiting.resets).toEqual([])
    peer.hello()
    await until(() => peer.types().includes(FRAME.GOAWAY), 'the word came')
    const types = peer.types()
    expect(types.indexOf(FRAME.OPEN)).toBeGreaterThan(0)
    expect(types.indexOf(FRAME.OPEN)).toBeLessThan(types.indexOf(FRAME.GOAWAY))
    peer.send(FRAME.GOAWAY, 0, encodeGoAway({ lastId: LAST_ID_ANY, code: 'draining', reason: 'agreed' }))
    peer.send(FRAME.END, 2)
    waiting.call.end()
    await until(() => peer.state.carrierClosed, 'the link closed when the call was over')
    expect(waiting.events).toEqual(['end'])
  })

  it('asks to be replaced long before its ids run out', async () => {
    const peer = scripted({ recycleFromId: 6 })
    peer.hello()
    await until(() => peer.link.state === 'up', 'the link is up')
    for (let i = 0; i < 2; i++) new Witness(peer.link.open(openOf('orders')) ?? expect.fail('expected a call'))
    expect(peer.link.wornOut).toBe(false)
    new Witness(peer.link.open(openOf('orders')) ?? expect.fail('expected a call'))
    expect(peer.link.wornOut).toBe(true)
    expect(peer.link.state).toBe('up')
  })

  it('survives garbage after HELLO: it closes or reads on, but never throws, hangs or forgets a call', async () => {
    const garbage = fc.array(
      fc.record({
        type: fc.integer({ min: 0, max: 13 }),
        callId: fc.integer({ min: 0, max: 9 }),
        payload: fc.uint8Array({ maxLength: 40 }),
      }),
      { minLength: 1, maxLength: 12 },
    )
    await fc.assert(
      fc.asyncProperty(garbage, async frames => {
        const peer = scripted()
        peer.hello()
        peer.open(1)
        await until(() => peer.accepted.length === 1, 'a call arrived')
        for (const { type, callId, payload } of frames) peer.send(type, callId, Buffer.from(payload))
        peer.peer.close()
        await until(() => peer.state.closed !== '', 'the link closed')
        expect(peer.link.inFlight).toBe(0)
        for (const { events, ended, call } of peer.accepted) {
          expect(ended || events.some(event => event.startsWith('reset'))).toBe(true)
          call.write(Buffer.from('no-op'))
        }
      }),
      { numRuns: 200, seed: 20_261_122 },
    )
  })
})
