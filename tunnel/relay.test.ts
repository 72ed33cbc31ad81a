import type { TLSSocket } from 'node:tls'
import { afterEach, describe, expect, it } from 'vitest'
import type { AcceptCall, CallReset } from '../proxy/call.ts'
import { silentLog } from '../router/log.ts'
import { callContract, openOf, until, Witness } from './call-contract.ts'
import { CallDuplex } from './call-duplex.ts'
import { CallLink } from './call-link.ts'
import { CALL_LINK_DEFAULTS } from './call-link-options.ts'
import { CallListener } from './call-listener.ts'
import { CALL_PLANE_DEFAULTS } from './call-plane.ts'
import { type Carrier, systemClock } from './carrier.ts'
import type { Identity } from './identity.ts'
import { memoryCarriers } from './memory-carrier.ts'
import { RELAY_DEFAULTS, Relay, type RelayDeps, type RelayOptions } from './relay.ts'
import { encodeRoute } from './route.ts'
import { createTestMesh } from './test-identities.ts'
import { TlsCarrier } from './tls-carrier.ts'
import { dialOver, meshSecureContext } from './tls-peer.ts'

const mesh = createTestMesh()
const [ann, bob, cid] = [mesh.identity('ann'), mesh.identity('bob'), mesh.identity('cid')]
const nobody: AcceptCall = call => void new Witness(call)
const links: CallLink[] = []

function linkOn(carrier: Carrier, self: Identity, peer: Identity, dialled: boolean, relay?: Relay): CallLink {
  const link = new CallLink(
    {
      ...{ carrier, clock: systemClock, log: silentLog, self: self.nodeId, peer: peer.nodeId, accept: nobody },
      ...(relay !== undefined && { acceptRelay: (call, route, from) => relay.accept(call, route, from) }),
      ...{ onState: () => {}, onClosed: () => {} },
    },
    dialled,
    CALL_LINK_DEFAULTS,
  )
  links.push(link)
  link.start()
  return link
}

const noRelay = { log: silentLog, openNext: () => undefined, onArrived: () => {} }

/** ann and cid are both linked to bob, who passes on what ann sends and keeps a copy of all of it. */
async function chain(options: Partial<RelayOptions> = {}, listener?: Identity) {
  const [annEnd, bobToAnn] = memoryCarriers()
  const [cidEnd, bobToCid] = memoryCarriers()
  const seen: Buffer[] = []
  const bobDeps: RelayDeps = {
    ...noRelay,
    self: bob.nodeId,
    openNext: (next, payload) =>
      next === cid.nodeId ? onward.open({ kind: 'relay', service: '', timeoutMs: 0, head: payload }) : undefined,
  }
  const relay = new Relay(bobDeps, { ...RELAY_DEFAULTS, ...options })
  const first = linkOn(annEnd, ann, bob, true)
  linkOn(spied(bobToAnn, seen), bob, ann, false, relay)
  const onward = linkOn(spied(bobToCid, seen), bob, cid, true)
  const accepted = Promise.withResolvers<TLSSocket>()
  const refused: string[] = []
  const at = new CallListener(
    {
      identity: listener ?? cid,
      isMember: () => true,
      onPeer: socket => accepted.resolve(socket),
      onExtraProtocol: socket => socket.destroy(),
      onRefused: (kind, _who, reason) => refused.push(`${kind}: ${reason}`),
    },
    { ...CALL_PLANE_DEFAULTS, listen: { host: '127.0.0.1', port: 0 } },
  )
  const end = new Relay(
    {
      ...{ ...noRelay, self: cid.nodeId },
      onArrived: (stream, { nodes }) => at.take(stream, { kind: 'relayed', peer: nodes[0] ?? '', via: [bob.nodeId] }),
    },
    RELAY_DEFAULTS,
  )
  linkOn(cidEnd, cid, bob, false, end)
  await until(() => first.state === 'up' && onward.state === 'up', 'both links are up')
  const route = [ann.nodeId, bob.nodeId, cid.nodeId]
  const openStream = (nodes: readonly string[] = route): CallDuplex => {
    const head = encodeRoute({ nodes, at: 1 })
    const call = first.open({ kind: 'relay', service: '', timeoutMs: 0, head })
    if (call === undefined) throw new Error('expected a link that is up')
    return new CallDuplex(call, ann.nodeId)
  }
  const dial = (as: Identity, stream = openStream()): Promise<TLSSocket> =>
    dialOver(meshSecureContext(as), as.rootPem, cid.nodeId, 'bob', stream, 5_000).socket
  return { relay, seen, openStream, dial, accepted: accepted.promise, refused, first, sever: () => annEnd.sever() }
}

/** A carrier that keeps what arrives on it. */
function spied(carrier: Carrier, seen: Buffer[]): Carrier {
  return {
    ...{ kind: carrier.kind, address: carrier.address },
    start: handler =>
      carrier.start({
        onBytes: chunk => {
          seen.push(Buffer.from(chunk))
          handler.onBytes(chunk)
        },
        onDrain: () => handler.onDrain(),
        onClose: reason => handler.onClose(reason),
      }),
    write: parts => carrier.write(parts),
    close: () => carrier.close(),
    destroy: () => carrier.destroy(),
  }
}

afterEach(() => {
  for (const link of links.splice(0)) link.close('the test is over')
})

callContract('a TLS session that a relay passes on', async () => {
  const { dial, accepted, sever } = await chain()
  const dialler = new TlsCarrier(await dial(ann), 'relayed', 'via bob')
  return { dialler, acceptor: new TlsCarrier(await accepted, 'relayed', 'via bob'), sever }
})

describe('a relay', () => {
  it('passes on what it cannot read (T3)', async () => {
    const { dial, accepted, seen, relay } = await chain()
    const [near, far] = [await dial(ann), await accepted]
    const secret = 'authorization: Bearer tell-nobody'
    const head = `GET /private HTTP/1.1\r\nhost: orders.mesh\r\n${secret}\r\n\r\n`
    const heard: AcceptCall = (call, open) => {
      const witness = new Witness(call)
      witness.onEnd = () => {
        call.sendHead(open.head)
        call.end()
      }
    }
    const deps = { clock: systemClock, log: silentLog, onState: () => {}, onClosed: () => {} }
    const [a, c] = [
      new CallLink(
        { ...deps, carrier: new TlsCarrier(near), self: ann.nodeId, peer: cid.nodeId, accept: nobody },
        true,
        CALL_LINK_DEFAULTS,
      ),
      new CallLink(
        { ...deps, carrier: new TlsCarrier(far), self: cid.nodeId, peer: ann.nodeId, accept: heard },
        false,
        CALL_LINK_DEFAULTS,
      ),
    ]
    links.push(a, c)
    a.start()
    c.start()
    const call = a.open(openOf('orders', head))
    if (call === undefined) throw new Error('expected a link')
    const witness = new Witness(call)
    call.end()
    await until(() => witness.ended, 'the call was answered')
    expect(witness.events[0]).toBe(`head ${head}`)
    const passed = Buffer.concat(seen).toString('latin1')
    expect(passed.length).toBeGreaterThan(2 * head.length)
    for (const word of ['tell-nobody', 'private', 'orders', 'GET', 'HTTP']) expect(passed).not.toContain(word)
    // The way is what it can read, and must.
    expect(passed).toContain(cid.nodeId)
    expect(relay.counts.bytes).toBeGreaterThan(2 * head.length)
  })

  it('cannot pass itself off as the node at the end, nor a member as another', async () => {
    const false_ = await chain({}, bob)
    await expect(false_.dial(ann)).rejects.toThrow('another node answers there')
    const { dial } = await chain()
    const stranger = createTestMesh('other').identity('ann')
    await expect(dial(stranger)).rejects.toMatchObject({ code: 'unreachable' })
    const other = await chain()
    const socket = await other.dial(bob).catch(() => undefined)
    await until(() => socket === undefined || socket.closed, 'it was closed')
    await until(() => other.refused.length === 1, 'the one who is not ann was turned away')
    expect(other.refused[0]).toContain(`expected ${ann.nodeId}`)
  })

  it.each<[string, () => string[], CallReset['code']]>([
    ['that passes it twice', () => [ann.nodeId, bob.nodeId, cid.nodeId, bob.nodeId], 'bad-request'],
    ['in which it is not next', () => [ann.nodeId, cid.nodeId, bob.nodeId], 'bad-request'],
    ['that another sent', () => [cid.nodeId, bob.nodeId, ann.nodeId], 'bad-request'],
    ['to a node it has no link to', () => [ann.nodeId, bob.nodeId, mesh.identity('dan').nodeId], 'unreachable'],
  ])('refuses a route %s', async (_what, nodes, code) => {
    const { openStream, relay } = await chain()
    const stream = openStream(nodes())
    stream.resume()
    await until(() => stream.closed, 'it was closed')
    expect(stream.resetBy).toMatchObject({ code, node: bob.nodeId, unexecuted: true })
    expect(relay.counts).toMatchObject({ streams: 0, refused: 1 })
  })

  it('that was switched off, is full, or stops, says so', async () => {
    for (const [options, code] of [
      [{ isOn: false }, 'relay-refused'],
      [{ perPeerMax: 0 }, 'relay-refused'],
      [{ streamsMax: 0 }, 'relay-refused'],
    ] as const) {
      const stream = (await chain(options)).openStream()
      stream.resume()
      await until(() => stream.closed, 'it was closed')
      expect(stream.resetBy?.code).toBe(code)
    }
    const { openStream, relay } = await chain()
    relay.drain()
    const stream = openStream()
    stream.resume()
    await until(() => stream.closed, 'it was closed')
    expect(stream.resetBy?.code).toBe('draining')
  })

  it('counts a stream out when it ends, whoever ends it and however', async () => {
    const { dial, openStream, accepted, relay } = await chain()
    const [near, far] = [await dial(ann), await accepted]
    far.resume()
    expect(relay.counts.streams).toBe(1)
    near.destroy()
    await until(() => far.closed, 'the other end is closed')
    await until(() => relay.counts.streams === 0, 'it is counted out')
    openStream().destroy()
    await until(() => relay.counts.total === 2 && relay.counts.streams === 0, 'so is one that was cut')
  })

  it('holds no more than the windows of a stream whose reader has stopped', async () => {
    const { dial, accepted, relay } = await chain()
    const [near, far] = [await dial(ann), await accepted]
    far.pause()
    let writtenBytes = 0
    const chunk = Buffer.alloc(64 * 1024)
    const pour = (): void => {
      while (writtenBytes < 64 * 1024 * 1024) {
        writtenBytes += chunk.length
        if (!near.write(chunk)) return
      }
    }
    near.on('drain', pour)
    pour()
    let passedBytes = -1
    // Quiet: nothing more has passed for 50 turns of the event loop.
    for (let quiet = 0; quiet < 50; quiet++) {
      if (relay.counts.bytes !== passedBytes) quiet = 0
      passedBytes = relay.counts.bytes
      await new Promise(resolve => setTimeout(resolve, 1))
    }
    // Two windows (to the relay, and from it on), and what streams, TLS and queues hold at either end.
    expect(writtenBytes).toBeLessThan(2 * CALL_LINK_DEFAULTS.relayWindowBytes + 2 * 1024 * 1024)
    far.resume()
    await until(() => writtenBytes >= 64 * 1024 * 1024, 'it flows again')
    near.destroy()
  })

  it('cuts a stream on which something other than bytes is said', async () => {
    const { first, relay } = await chain()
    const nodes = [ann.nodeId, bob.nodeId, cid.nodeId]
    const call = first.open({ kind: 'relay', service: '', timeoutMs: 0, head: encodeRoute({ nodes, at: 1 }) })
    if (call === undefined) throw new Error('expected a link')
    const witness = new Witness(call)
    await until(() => relay.counts.streams === 1, 'it is passed on')
    call.sendTrailers(Buffer.from('x: y\r\n'))
    await until(() => witness.resets.length === 1, 'it was cut')
    expect(witness.resets).toMatchObject([{ code: 'bad-frame' }])
    expect(relay.counts.streams).toBe(0)
  })
})
