import type { TLSSocket } from 'node:tls'
import { afterAll, beforeAll, vi } from 'vitest'
import { silentLog } from '../router/log.ts'
import { callContract } from './call-contract.ts'
import { CallListener } from './call-listener.ts'
import { CALL_PLANE_DEFAULTS } from './call-plane.ts'
import { Libp2pOverlay } from './libp2p-overlay.ts'
import type { OverlayHandler } from './overlay.ts'
import { createTestMesh } from './test-identities.ts'
import { TlsCarrier } from './tls-carrier.ts'
import { dialOver, meshSecureContext } from './tls-peer.ts'

const mesh = createTestMesh()
const [us, them] = [mesh.identity('us'), mesh.identity('them')]
const deaf: OverlayHandler = { onLinkUp() {}, onLinkDown() {}, onRtt() {}, onFrame() {} }
let accepted = Promise.withResolvers<TLSSocket>()

const listener = new CallListener(
  {
    identity: them,
    isMember: () => true,
    onPeer: socket => accepted.resolve(socket),
    onExtraProtocol: socket => socket.destroy(),
    onRefused: (_kind, _who, reason) => accepted.reject(new Error(reason)),
  },
  { ...CALL_PLANE_DEFAULTS, listen: { host: '127.0.0.1', port: 0 } },
)
const options = { host: '127.0.0.1', port: 0, join: [], advertise: [] }
const theirs = new Libp2pOverlay(
  {
    ...{ identity: them, log: silentLog, random: Math.random },
    handler: { ...deaf, onCallStream: (peer, stream) => listener.take(stream, { kind: 'overlay', peer, via: [] }) },
  },
  options,
)
const ours = new Libp2pOverlay({ identity: us, log: silentLog, handler: deaf, random: Math.random }, options)

beforeAll(async () => {
  const addresses = await theirs.start()
  await ours.start()
  ours.learn(them.nodeId, addresses)
  await vi.waitFor(
    () => {
      if (!ours.isLinked(them.nodeId) || !theirs.isLinked(us.nodeId)) throw new Error('expected a link')
    },
    { timeout: 15_000 },
  )
})
afterAll(() => Promise.all([ours.stop(), theirs.stop()]))

callContract('a TLS session over a libp2p stream', async () => {
  accepted = Promise.withResolvers<TLSSocket>()
  const stream = await ours.openCalls(them.nodeId, 10_000)
  const socket = await dialOver(meshSecureContext(us), us.rootPem, them.nodeId, 'the overlay', stream, 10_000).socket
  const other = await accepted.promise
  return {
    dialler: new TlsCarrier(socket, 'overlay', ''),
    acceptor: new TlsCarrier(other, 'overlay', ''),
    sever: () => other.destroy(),
  }
})
