import { generateKeyPairSync } from 'node:crypto'
import { fuzzH2 } from '../../proxy/h2-fuzz.ts'
import { differentialCase } from '../../proxy/http1-fuzz.ts'
import { decodeBatch, encodeBatchPayload, peekBatch } from '../../router/batch.ts'
import { decodeLinkInfo, decodeNodeInfo, decodeServiceInfo } from '../../router/entry.ts'
import { MeshError } from '../../router/errors.ts'
import { decodeGossipFrame, encodeGossipFrame } from '../../router/frame.ts'
import { decodeMsgpack, encodeMsgpack } from '../../router/msgpack.ts'
import { Router } from '../../router/router.ts'
import {
  createRootCertificate,
  issueNodeCertificate,
  readRootCertificate,
  verifyNodeCertificate,
} from '../../tunnel/certificate.ts'
import {
  decodeGoAway,
  decodeHello,
  decodeOpen,
  decodeReset,
  encodeGoAway,
  encodeHello,
  encodeReset,
  encodeU32,
  FRAME,
  FrameDecoder,
  openBytes,
  writeHeader,
  writeOpenPrefix,
} from '../../tunnel/frame.ts'
import { decodeJoinToken, encodeJoinToken } from '../../tunnel/join-token.ts'
import { nodeIdOf, SimSigning } from '../sim/signing.ts'
import { type Below, mutate } from './mutate.ts'

/** Something that reads bytes of a peer. `run` throws when it finds a fault: an exception that should not be, or a promise not kept. */
export interface Target {
  readonly name: string
  run(below: Below, caseSeed: number): void
}

const NOW_MS = 1_800_000_000_000

/** A target that reads changed copies of good examples. */
function reader(
  name: string,
  examples: readonly Uint8Array[],
  read: (bytes: Uint8Array, below: Below) => void,
): Target {
  return {
    name,
    run: below => read(mutate(examples[below(examples.length)] ?? new Uint8Array(), examples, below), below),
  }
}

function check(isKept: boolean, promise: string): void {
  if (!isKept) throw new Error(`not kept: ${promise}`)
}

const isSame = (a: unknown, b: unknown): boolean => Buffer.compare(encode(a), encode(b)) === 0
const encode = (value: unknown): Uint8Array => encodeMsgpack(value)

// Gossip -------------------------------------------------------------------------------------------------------------

const SELF = nodeIdOf('self')
const PEER = nodeIdOf('peer')

/** What two routers say to each other while they meet, change and part. */
function gossip(): Uint8Array[] {
  const signing = new SimSigning('stub')
  const frames: Uint8Array[] = []
  const routers = [SELF, PEER].map(
    self => new Router({ self, incarnation: 1024, random: () => 0.5, ...signing.of(self) }),
  )
  const [one, other] = routers as [Router, Router]
  const step = (router: Router, event: Parameters<Router['step']>[0], nowMs: number): void => {
    const to = router === one ? other : one
    for (const effect of router.step(event, nowMs)) {
      if (effect.type !== 'send' || frames.length > 60) continue
      frames.push(effect.bytes)
      step(to, { type: 'frame', from: router === one ? SELF : PEER, bytes: effect.bytes }, nowMs)
    }
  }
  const info = {
    name: 'n',
    region: 'r',
    version: '1',
    overlay: ['/ip4/10.0.0.1/tcp/1'],
    calls: ['10.0.0.1:2'],
    state: 'up' as const,
  }
  for (const router of routers) step(router, { type: 'self', info }, 0)
  for (let i = 0; i < 8; i++) {
    const service = {
      name: `s${i}`,
      protocol: 'http' as const,
      instances: 2,
      healthy: i % 3,
      weight: 2,
      labels: { version: `v${i}` },
    }
    step(one, { type: 'local', service }, i * 10)
  }
  step(one, { type: 'link-up', to: PEER, rttMs: 10 }, 1000)
  step(other, { type: 'link-up', to: SELF, rttMs: 10 }, 1000)
  for (let nowMs = 1100; nowMs < 8000; nowMs += 100) for (const router of routers) step(router, { type: 'wake' }, nowMs)
  step(
    one,
    { type: 'local', service: { name: 's1', protocol: 'tcp', instances: 0, healthy: 0, weight: 0, labels: {} } },
    9000,
  )
  step(one, { type: 'wake' }, 9100)
  return frames
}

function batches(frames: readonly Uint8Array[]): Uint8Array[] {
  return frames.flatMap(bytes => {
    const decoded = decodeGossipFrame(bytes)
    return decoded.ok && decoded.frame?.type === 'batches' ? decoded.frame.batches.map(({ payload }) => payload) : []
  })
}

/** A router that lives on from case to case: what one frame leaves behind must not make a later one fatal. */
function routerTarget(frames: readonly Uint8Array[]): Target {
  const signing = new SimSigning('stub')
  let router = new Router({ self: SELF, incarnation: 2048, random: Math.random, ...signing.of(SELF) })
  let nowMs = 0
  let left = 0
  return {
    name: 'router',
    run: below => {
      if (left-- <= 0) {
        router = new Router({ self: SELF, incarnation: 2048, random: () => below(1000) / 1000, ...signing.of(SELF) })
        router.step({ type: 'link-up', to: PEER, rttMs: 5 }, nowMs)
        left = 200
      }
      nowMs += below(50)
      const example = frames[below(frames.length)] ?? new Uint8Array()
      const bytes = below(4) === 0 ? example : mutate(example, frames, below)
      const effects = router.step({ type: 'frame', from: PEER, bytes }, nowMs)
      router.step({ type: 'wake' }, nowMs)
      const sent = effects.reduce((sum, effect) => sum + (effect.type === 'send' ? effect.bytes.length : 0), 0)
      check(sent < 1024 * 1024, 'one frame is answered by less than a megabyte')
      check(router.heldBytes() < 16 * 1024 * 1024, 'a few hundred frames leave less than 16 MiB')
      for (const service of router.table.services()) router.candidates(service)
    },
  }
}

function gossipTargets(): Target[] {
  const frames = gossip()
  const payloads = batches(frames)
  return [
    reader('msgpack', [...frames, ...payloads], bytes => {
      const decoded = decodeMsgpack(bytes)
      if (decoded.ok) encodeMsgpack(decoded.value)
    }),
    reader('gossip-frame', frames, bytes => {
      const decoded = decodeGossipFrame(bytes)
      if (!decoded.ok || decoded.frame === undefined) return
      const again = decodeGossipFrame(encodeGossipFrame(decoded.frame))
      check(again.ok && again.frame?.type === decoded.frame.type, 'what was read can be written and read again')
    }),
    reader('batch', payloads, bytes => {
      const head = peekBatch(bytes)
      const decoded = decodeBatch(bytes, new Uint8Array(64))
      if (!decoded.ok) return
      const { origin, incarnation, seq } = decoded.batch
      const isAscii = /^[ -~]*$/.test(origin)
      if (head !== undefined && isAscii)
        check(isSame(head, { origin, incarnation, seq }), 'the head peeked is the head read')
      for (const { value } of decoded.batch.entries) {
        decodeNodeInfo(value)
        decodeServiceInfo(value)
        decodeLinkInfo(value)
      }
      const again = decodeBatch(encodeBatchPayload(decoded.batch), new Uint8Array(64))
      check(
        again.ok && isSame(again.batch.entries, decoded.batch.entries),
        'what was read can be written and read again',
      )
    }),
    routerTarget(frames),
  ]
}

// Calls --------------------------------------------------------------------------------------------------------------

function frameOf(type: number, callId: number, payload: Buffer): Buffer {
  const header = Buffer.alloc(8)
  writeHeader(header, 0, type, callId, payload.length)
  return Buffer.concat([header, payload])
}

/** One side of a link from its first word to its last. */
function callStream(): Buffer {
  const head = Buffer.from('GET /x HTTP/1.1\r\nhost: orders\r\n\r\n')
  const open = Buffer.alloc(openBytes('orders', head))
  head.copy(open, writeOpenPrefix(open, 0, 1, 5000, 'orders'))
  const reset = encodeReset({ code: 'overloaded', reason: 'too many', unexecuted: true, node: PEER }, SELF)
  return Buffer.concat([
    frameOf(
      FRAME.HELLO,
      0,
      encodeHello({ callWindowBytes: 262_144, linkWindowBytes: 16_777_216, knowsParallel: true, isParallel: false }),
    ),
    frameOf(FRAME.OPEN, 1, open),
    frameOf(FRAME.HEAD, 1, Buffer.from('HTTP/1.1 200 OK\r\n\r\n')),
    frameOf(FRAME.DATA, 1, Buffer.alloc(40, 0x61)),
    frameOf(FRAME.WINDOW, 1, encodeU32(5)),
    frameOf(FRAME.PING, 0, Buffer.alloc(8, 7)),
    frameOf(FRAME.END, 1, Buffer.alloc(0)),
    frameOf(FRAME.RESET, 1, reset),
    frameOf(FRAME.GOAWAY, 0, encodeGoAway({ lastId: 7, code: 'draining', reason: 'going' })),
  ])
}

function readPayload(type: number, payload: Buffer): string | undefined {
  if (type === FRAME.HELLO) return asFault(decodeHello(payload))
  if (type === FRAME.OPEN) return asFault(decodeOpen(payload))
  if (type === FRAME.RESET) return asFault(decodeReset(payload, PEER))
  if (type === FRAME.GOAWAY) decodeGoAway(payload)
  return undefined
}

function asFault(read: unknown): string | undefined {
  return typeof read === 'string' ? read : undefined
}

function callTarget(): Target {
  const stream = callStream()
  return reader('call-frames', [stream, stream.subarray(18), stream.subarray(0, 60)], (bytes, below) => {
    let held = 0
    const decoder = new FrameDecoder({
      onFrame: (type, _callId, payload) => {
        held += payload.length
        return readPayload(type, payload)
      },
      onDataPiece: (_callId, piece) => {
        held += piece.length
        return undefined
      },
    })
    for (let at = 0; at < bytes.length; ) {
      const end = Math.min(bytes.length, at + 1 + below(100))
      if (decoder.push(Buffer.from(bytes.subarray(at, end))) !== undefined) break
      at = end
    }
    check(held <= bytes.length, 'no more comes out than went in')
  })
}

// Joining ------------------------------------------------------------------------------------------------------------

function pemToDer(pem: string): Buffer {
  return Buffer.from(pem.replace(/-----[^-]+-----|\s/g, ''), 'base64')
}

function trustTargets(): Target[] {
  const [rootKey, nodeKey] = [generateKeyPairSync('ed25519'), generateKeyPairSync('ed25519')]
  const root = createRootCertificate('acme', rootKey.privateKey, NOW_MS)
  const node = issueNodeCertificate(
    { certificatePem: root, key: rootKey.privateKey },
    { name: 'use1-a', region: 'use1', publicKey: nodeKey.publicKey },
    NOW_MS,
  )
  const ders = [pemToDer(root), pemToDer(node.certificatePem)]
  const token = encodeJoinToken({
    mesh: 'acme',
    rootFingerprint: Buffer.alloc(32, 1).toString('base64url'),
    secret: new Uint8Array(16).fill(2),
    expiresAtMs: NOW_MS + 60_000,
    calls: ['10.0.0.1:4701'],
    overlay: [`/ip4/10.0.0.1/tcp/4700/p2p/${SELF}`],
  })
  return [
    reader('certificate', ders, bytes => {
      readRootCertificate(bytes)
      const verdict = verifyNodeCertificate(bytes, root, NOW_MS)
      if (!verdict.ok) return
      check(verdict.name === 'use1-a' && verdict.mesh === 'acme', 'a changed certificate names nobody else')
    }),
    reader('join-token', [Buffer.from(token)], bytes => {
      try {
        decodeJoinToken(Buffer.from(bytes).toString('latin1'), NOW_MS)
      } catch (error) {
        if (!(error instanceof MeshError)) throw error
      }
    }),
  ]
}

/** HTTP/1.1 beside Node's own parser: what ours accepts, it accepts with the same meaning. */
const http1: Target = {
  name: 'http1',
  run: (_below, caseSeed) => {
    const { problem } = differentialCase(caseSeed)
    if (problem !== undefined) throw new Error(problem)
  },
}

/** HTTP/2: connections of both roles, header blocks, and what becomes of their heads in HTTP/1. */
const h2: Target = { name: 'h2', run: (_below, caseSeed) => fuzzH2(caseSeed) }

/** Every decoder of bytes that somebody else controls. */
export function makeTargets(): Target[] {
  return [...gossipTargets(), callTarget(), ...trustTargets(), http1, h2]
}
