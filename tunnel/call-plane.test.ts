import { once } from 'node:events'
import { connect as connectTcp, createServer as createTcpServer, type Socket } from 'node:net'
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls'
import { afterEach, describe, expect, it } from 'vitest'
import type { AcceptCall, Call } from '../proxy/call.ts'
import type { MeshError } from '../router/errors.ts'
import { type Log, silentLog } from '../router/log.ts'
import { openOf, until, Witness } from './call-contract.ts'
import { CALL_LINK_DEFAULTS } from './call-link-options.ts'
import { CallPlane, type CallPlaneDeps, type CallPlaneOptions } from './call-plane.ts'
import type { Identity } from './identity.ts'
import { createTestMesh } from './test-identities.ts'
import { CALLS_ALPN } from './tls-peer.ts'

const LOOPBACK = { host: '127.0.0.1', port: 0 }
const mesh = createTestMesh()
// By node id, so that tests can say which end's dialling is kept.
const [smaller, bigger] = [mesh.identity('one'), mesh.identity('two')].sort((a, b) =>
  a.nodeId < b.nodeId ? -1 : 1,
) as [Identity, Identity]

const echo: AcceptCall = call => {
  const witness = new Witness(call)
  witness.onData = chunk => void call.write(chunk, true)
  witness.onEnd = () => call.end()
}

describe('the call plane', () => {
  const planes: CallPlane[] = []
  const sockets: Socket[] = []
  afterEach(async () => {
    for (const socket of sockets.splice(0)) socket.destroy()
    await Promise.all(planes.splice(0).map(plane => plane.stop()))
  })

  async function started(
    identity: Identity,
    deps: Partial<CallPlaneDeps> = {},
    options: Partial<CallPlaneOptions> = {},
  ) {
    const changes: string[] = []
    const plane = new CallPlane(
      {
        identity,
        log: silentLog,
        accept: echo,
        isMember: () => true,
        onLinkChange: (peer, up) => changes.push(`${up ? 'up' : 'down'} ${peer}`),
        ...deps,
      },
      { listen: LOOPBACK, backoffMinMs: 5, backoffMaxMs: 40, duplicateGraceMs: 50, ...options },
    )
    planes.push(plane)
    const { port } = await plane.start()
    return { plane, address: `127.0.0.1:${port}`, port, changes, peer: identity.nodeId }
  }

  const isUp = (plane: CallPlane): boolean => plane.links().some(({ state }) => state === 'up')

  function ask(plane: CallPlane, peer: string, body = 'hello'): Witness {
    const call: Call | undefined = plane.open(peer, openOf('orders'))
    if (call === undefined) throw new Error('expected a warm link')
    const witness = new Witness(call)
    call.write(Buffer.from(body))
    call.end()
    return witness
  }

  /** A raw TLS client; answers what the other end did with it. */
  async function knock(
    port: number,
    options: ConnectionOptions,
  ): Promise<{ socket: TLSSocket; closed: () => boolean }> {
    const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false, ...options })
    sockets.push(socket)
    let closed = false
    socket.on('error', () => {})
    socket.on('close', () => {
      closed = true
    })
    socket.resume()
    await new Promise<void>(resolve => socket.once('secureConnect', resolve).once('close', () => resolve()))
    return { socket, closed: () => closed }
  }

  const proof = ({ keyPem, certificatePem, rootPem }: Identity): ConnectionOptions => ({
    key: keyPem,
    cert: certificatePem,
    ca: rootPem,
    ALPNProtocols: [CALLS_ALPN],
  })

  it('keeps one warm link to a wanted peer, and both ends open calls on it', async () => {
    const [one, two] = [await started(smaller), await started(bigger)]
    expect(one.plane.open(two.peer, openOf('orders'))).toBeUndefined()
    one.plane.want(two.peer, [two.address])
    await until(() => isUp(one.plane) && isUp(two.plane), 'the link is up')
    const asked = [ask(one.plane, two.peer, 'a'), ask(two.plane, one.peer, 'b')]
    await until(() => asked.every(({ ended }) => ended), 'both calls were answered')
    expect(asked.map(({ text }) => text)).toEqual(['a', 'b'])
    await until(() => one.plane.links()[0]?.rttMs !== undefined, 'the round trip is known')
    expect(one.plane.links()).toMatchObject([
      { peer: two.peer, state: 'up', carrier: 'direct', dialled: true, calls: 0, address: two.address },
    ])
    expect(two.plane.links()).toMatchObject([{ peer: one.peer, state: 'up', dialled: false }])
    expect([one.changes, two.changes]).toEqual([[`up ${two.peer}`], [`up ${one.peer}`]])
  })

  it.each([
    ['without a certificate', (): ConnectionOptions => ({ ALPNProtocols: [CALLS_ALPN] })],
    ['of another mesh', () => proof(createTestMesh('other').identity('spy'))],
    ['of another mesh with the same name', () => proof(createTestMesh('test').identity('spy'))],
    ['with an expired certificate', () => proof(mesh.identity('late', 2 * 3_600_000))],
    ['that names no protocol', () => ({ ...proof(mesh.identity('old')), ALPNProtocols: [] })],
    ['that is no longer a member', () => proof(smaller)],
  ])('closes a stranger %s before it reads a frame', async (_name, options) => {
    let accepted = 0
    const { plane, port } = await started(bigger, {
      accept: () => {
        accepted += 1
      },
      isMember: node => node !== smaller.nodeId,
    })
    const { socket, closed } = await knock(port, options())
    socket.write(Buffer.alloc(64 * 1024, 0xff))
    await until(closed, 'the stranger was closed')
    await until(() => plane.counts.strangers === 1, 'the stranger was counted')
    expect(plane.links()).toEqual([])
    expect([accepted, plane.counts.brokenProtocols]).toEqual([0, 0])
  })

  it('closes what is not TLS, or older than 1.3, or another protocol, and counts it', async () => {
    const { plane, port } = await started(bigger)
    const plain = connectTcp(port, '127.0.0.1')
    sockets.push(plain)
    plain.on('error', () => {})
    plain.resume()
    plain.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n')
    await once(plain, 'close')
    const old = await knock(port, { ...proof(smaller), maxVersion: 'TLSv1.2' })
    const http = await knock(port, { ...proof(smaller), ALPNProtocols: ['h2'] })
    await until(() => old.closed() && http.closed(), 'both were closed')
    await until(() => plane.counts.failedHandshakes === 3, 'all were counted')
  })

  it('closes a connection that never shakes hands, and refuses more of them than it can hold', async () => {
    const { plane, port } = await started(
      bigger,
      {},
      { handshakesMax: 3, handshakesPerIpMax: 3, handshakeTimeoutMs: 300 },
    )
    const idle = Array.from({ length: 5 }, () => {
      const socket = connectTcp(port, '127.0.0.1')
      socket.on('error', () => {})
      socket.resume()
      sockets.push(socket)
      return socket
    })
    await until(() => plane.counts.refusedConnections === 2, 'two were refused at once')
    await until(() => idle.every(({ destroyed }) => destroyed), 'the others ran into the time-out')
    const { socket } = await knock(port, proof(smaller))
    await until(() => isUp(plane) || plane.links().length === 1, 'there is room for a member again')
    expect(socket.destroyed).toBe(false)
  })

  it('bounds the connections of one address in a second', async () => {
    const { plane, port } = await started(bigger, {}, { connectionsPerIpPerSecondMax: 0 })
    const { closed } = await knock(port, proof(smaller))
    await until(closed, 'it was closed')
    expect(plane.counts.refusedConnections).toBe(1)
  })

  it('hands a connection with an extra protocol over, certificate or not', async () => {
    const taken: string[] = []
    const { plane, port } = await started(
      bigger,
      {
        onExtraProtocol: (socket, alpn) => {
          taken.push(alpn)
          socket.end('welcome')
        },
      },
      { extraAlpn: ['flatmesh-join/1'] },
    )
    const { socket, closed } = await knock(port, { ALPNProtocols: ['flatmesh-join/1'] })
    expect(socket.alpnProtocol).toBe('flatmesh-join/1')
    await until(closed, 'the taker closed it')
    expect(taken).toEqual(['flatmesh-join/1'])
    expect(plane.counts.strangers).toBe(0)
  })

  it('turns away from an address where another node answers, and takes the next', async () => {
    const [one, two] = [await started(smaller), await started(bigger)]
    const wrong = await started(mesh.identity('wrong'))
    const foreign = await started(createTestMesh('other').identity('foreign'))
    one.plane.want(two.peer, [wrong.address, foreign.address, '127.0.0.1:1', 'nonsense', two.address])
    await until(() => isUp(one.plane), 'the link is up')
    expect(one.plane.links()).toMatchObject([{ peer: two.peer, address: two.address }])
    expect(one.plane.open(wrong.peer, openOf('orders'))).toBeUndefined()
    await until(() => wrong.plane.links().length === 0, 'the wrong node has no link left')
  })

  it('ends with the link the smaller id dialled when both dial at once, and loses no call on the way', async () => {
    const [one, two] = [await started(smaller), await started(bigger)]
    one.plane.want(two.peer, [two.address])
    two.plane.want(one.peer, [one.address])
    const asked: Witness[] = []
    let sawTwo = false
    let settled = false
    await until(() => isUp(one.plane) && isUp(two.plane), 'a link is up')
    const askOn = (): void => {
      asked.push(ask(one.plane, two.peer), ask(two.plane, one.peer))
      sawTwo ||= one.plane.links().length === 2
      if (!settled) setImmediate(askOn)
    }
    askOn()
    const links = () => [...one.plane.links(), ...two.plane.links()]
    await until(() => one.plane.links().length === 1 && two.plane.links().length === 1 && sawTwo, 'one link is left')
    settled = true
    await until(() => asked.every(({ ended }) => ended), 'every call was answered')
    expect(asked.flatMap(({ resets }) => resets)).toEqual([])
    expect(links()).toMatchObject([
      { state: 'up', dialled: true },
      { state: 'up', dialled: false },
    ])
    expect([one.changes, two.changes]).toEqual([[`up ${two.peer}`], [`up ${one.peer}`]])
  })

  it('comes back to a peer that restarts, and resets the calls that were open', async () => {
    const one = await started(smaller)
    const two = await started(bigger, { accept: call => void new Witness(call) })
    one.plane.want(two.peer, [two.address])
    await until(() => isUp(one.plane), 'the link is up')
    const lost = ask(one.plane, two.peer)
    await two.plane.stop()
    await until(() => lost.resets.length === 1, 'the call was reset')
    expect(lost.resets[0]?.code).toBe('link-lost')
    await until(() => one.changes.length === 2, 'the link is down')
    const again = await started(bigger, {}, { listen: { host: '127.0.0.1', port: two.port } })
    await until(() => isUp(one.plane) && isUp(again.plane), 'the link is up again')
    const asked = ask(one.plane, two.peer)
    await until(() => asked.ended, 'a call is answered')
    expect(one.changes).toEqual([`up ${two.peer}`, `down ${two.peer}`, `up ${two.peer}`])
  })

  it('dials at once when the addresses change or someone nudges, whatever the backoff', async () => {
    const one = await started(smaller, {}, { backoffMinMs: 3_600_000, backoffMaxMs: 3_600_000 })
    const gone = await started(bigger)
    await gone.plane.stop()
    one.plane.want(gone.peer, [gone.address])
    const two = await started(bigger, {}, { listen: { host: '127.0.0.1', port: gone.port } })
    one.plane.nudge(two.peer)
    await until(() => {
      one.plane.nudge(two.peer)
      return isUp(one.plane)
    }, 'the nudge was heard')
    await two.plane.stop()
    await until(() => !isUp(one.plane), 'the link is down')
    const moved = await started(bigger)
    one.plane.want(two.peer, [moved.address])
    await until(() => isUp(one.plane), 'the new address was dialled')
  })

  it('gives a dial to an address that never answers up, and goes on', async () => {
    const silent = createTcpServer(socket => void sockets.push(socket))
    silent.listen(0, '127.0.0.1')
    await once(silent, 'listening')
    const { port } = silent.address() as { port: number }
    const one = await started(smaller, {}, { dialTimeoutMs: 30 })
    const two = await started(bigger)
    one.plane.want(two.peer, [`127.0.0.1:${port}`, two.address])
    await until(() => isUp(one.plane), 'the second address was taken')
    silent.close()
  })

  it('dials no more after unwant, nor after stop', async () => {
    const one = await started(smaller)
    const two = await started(bigger)
    one.plane.want(two.peer, [two.address])
    await until(() => isUp(one.plane), 'the link is up')
    one.plane.unwant(two.peer)
    await two.plane.stop()
    await until(() => one.plane.links().length === 0, 'the link is gone')
    const again = await started(bigger, {}, { listen: { host: '127.0.0.1', port: two.port } })
    one.plane.want(again.peer, [again.address])
    one.plane.unwant(again.peer)
    await one.plane.stop()
    one.plane.want(again.peer, [again.address])
    const three = await started(mesh.identity('three'))
    three.plane.want(again.peer, [again.address])
    await until(() => isUp(again.plane), 'another node came through')
    expect(again.plane.links().map(({ peer }) => peer)).toEqual([three.peer])
  })

  it('drains: answers what it has, refuses what comes, closes its port, then stops', async () => {
    const held: Witness[] = []
    const one = await started(smaller)
    const two = await started(bigger, { accept: call => void held.push(new Witness(call)) })
    one.plane.want(two.peer, [two.address])
    await until(() => isUp(one.plane), 'the link is up')
    const old = ask(one.plane, two.peer)
    await until(() => held.length === 1, 'the call arrived')
    let drained = false
    const crossing = ask(one.plane, two.peer)
    void two.plane.drain().then(() => {
      drained = true
    })
    await until(() => crossing.resets.length === 1, 'the crossing call was reset')
    expect(crossing.resets).toMatchObject([{ code: 'draining', unexecuted: true }])
    const late = ask(one.plane, two.peer)
    await until(() => late.resets.length === 1, 'a later call was reset')
    expect(late.resets).toMatchObject([{ code: 'unreachable', unexecuted: true }])
    expect(one.changes).toEqual([`up ${two.peer}`, `down ${two.peer}`])
    const refused = connectTcp(two.port, '127.0.0.1')
    const [error] = (await once(refused, 'error')) as [NodeJS.ErrnoException]
    expect([error.code, drained]).toEqual(['ECONNREFUSED', false])
    held[0]?.call.write(Buffer.from('done'))
    held[0]?.call.end()
    await until(() => drained && old.ended, 'the drain is over')
    expect(old.text).toBe('done')
    await two.plane.stop()
  })

  it('cuts the links of a node that is no longer a member', async () => {
    const [one, two] = [await started(smaller), await started(bigger)]
    one.plane.want(two.peer, [two.address])
    await until(() => isUp(two.plane), 'the link is up')
    one.plane.unwant(two.peer)
    two.plane.cut(one.peer, 'revoked')
    await until(() => one.plane.links().length + two.plane.links().length === 0, 'the link is gone')
  })

  it('closes a member that breaks the protocol, counts it each time and logs it once', async () => {
    const warnings: string[] = []
    const log: Log = { ...silentLog, warn: (fields, message) => void warnings.push(`${message}: ${fields.reason}`) }
    const { plane, port } = await started(bigger, { log })
    for (let i = 0; i < 3; i++) {
      const { socket, closed } = await knock(port, proof(smaller))
      socket.write(Buffer.alloc(1_000, 0x7f))
      await until(closed, 'it was closed')
    }
    await until(() => plane.counts.brokenProtocols === 3, 'all were counted')
    expect(warnings).toHaveLength(1)
    expect(warnings[0]).toContain('a peer broke the call protocol')
  })

  it('bounds the links one peer may hold', async () => {
    const { plane, port } = await started(bigger)
    const knocks = await Promise.all(Array.from({ length: 12 }, () => knock(port, proof(smaller))))
    await until(() => knocks.filter(({ closed }) => closed()).length === 4, 'four were turned away')
    expect(plane.links()).toHaveLength(8)
  })

  it('moves to a fresh link before the ids of the old one run out, and loses no call', async () => {
    const link = { ...CALL_LINK_DEFAULTS, recycleFromId: 200 }
    const [one, two] = [await started(smaller, {}, { link }), await started(bigger)]
    one.plane.want(two.peer, [two.address])
    await until(() => isUp(one.plane), 'the link is up')
    const asked: Witness[] = []
    for (let i = 0; i < 300; i++) {
      const witness = ask(one.plane, two.peer)
      asked.push(witness)
      await until(() => witness.ended || witness.resets.length > 0, 'it was answered')
    }
    expect(asked.flatMap(({ resets }) => resets)).toEqual([])
    await until(() => one.plane.links().every(({ state }) => state === 'up'), 'old links are gone')
    expect(one.changes).toEqual([`up ${two.peer}`])
  })

  it('says in one line that its port is in use', async () => {
    const { port } = await started(smaller)
    const plane = new CallPlane(
      { identity: bigger, log: silentLog, accept: echo, isMember: () => true },
      { listen: { host: '127.0.0.1', port } },
    )
    const error = await plane.start().then(
      () => undefined,
      (reason: MeshError) => reason,
    )
    expect(error?.code).toBe('port-in-use')
    expect(error?.message).toContain(`127.0.0.1:${port} is in use`)
  })
})
