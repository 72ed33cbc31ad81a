import { createHash } from 'node:crypto'
import { type Batch, decodeBatch, encodeBatchPayload, signedBytes } from './batch.ts'
import { encodeServiceInfo, serviceKey } from './entry.ts'
import { decodeGossipFrame, encodeGossipFrame, type GossipFrame, type Version } from './frame.ts'
import type { LocalService, NodeInfo } from './model.ts'
import { Router, type RouterEffect, type RouterEvent, type RouterOptions } from './router.ts'

/** Signatures as hashes with the signer's name: enough to tell true from false here. */
export function signAs(node: string): (bytes: Uint8Array) => Uint8Array {
  return bytes => createHash('sha256').update(node).update(bytes).digest()
}
export const proofOf = (node: string): Uint8Array => Buffer.from(`proof of ${node}`)

export function info(name: string, state: NodeInfo['state'] = 'up'): NodeInfo {
  return { name, region: 'r', version: '1', overlay: [], calls: [], state }
}
export function orders(instances = 1, over: Partial<LocalService> = {}): LocalService {
  return { name: 'orders', protocol: 'http', instances, healthy: instances, weight: instances, labels: {}, ...over }
}

/** A router with its own clock, whose effects are kept apart by kind. */
export class Node {
  readonly id: string
  readonly router: Router
  nowMs = 0
  wakeAtMs = Number.POSITIVE_INFINITY
  sent: { to: string; bytes: Uint8Array }[] = []
  notes: string[] = []
  changes: string[] = []

  constructor(id: string, options: Partial<RouterOptions> = {}, incarnation = 100, random = (): number => 0.5) {
    this.id = id
    this.router = new Router(
      {
        ...{ self: id, incarnation, proof: proofOf(id), sign: signAs(id), random },
        verify: (signer, bytes, signature) => Buffer.compare(signAs(signer)(bytes), signature) === 0,
        verifyProof: proof => /^proof of (\w+)$/.exec(Buffer.from(proof).toString())?.[1],
      },
      options,
    )
  }

  step(event: RouterEvent): this {
    for (const effect of this.router.step(event, this.nowMs)) this.perform(effect)
    return this
  }

  /** Lets time pass, with a wake whenever one was asked for. */
  pass(ms: number): this {
    const untilMs = this.nowMs + ms
    while (this.wakeAtMs <= untilMs) {
      this.nowMs = Math.max(this.nowMs, this.wakeAtMs)
      this.wakeAtMs = Number.POSITIVE_INFINITY
      this.step({ type: 'wake' })
    }
    this.nowMs = untilMs
    return this
  }

  frame(from: string, frame: GossipFrame): this {
    return this.step({ type: 'frame', from, bytes: encodeGossipFrame(frame) })
  }

  batches(from: string, batches: readonly Batch[], proofs: readonly string[] = []): this {
    return this.frame(from, { type: 'batches', proofs: proofs.map(proofOf), batches, isAnswer: false })
  }

  /** `from` shows to know nothing: this node is no newcomer. */
  settle(from: string): this {
    return this.frame(from, { type: 'digest', versions: new Map(), reply: false })
  }

  /** What was sent since the last look, in words. */
  takeSent(): string[] {
    const lines = this.sent.map(({ to, bytes }) => `${to}: ${shown(bytes)}`)
    this.sent = []
    return lines
  }

  get routes(): string[] {
    return this.router.candidates('orders').map(({ node, healthy }) => `${node} ${healthy}`)
  }

  private perform(effect: RouterEffect): void {
    if (effect.type === 'send') this.sent.push(effect)
    else if (effect.type === 'wake-at') this.wakeAtMs = effect.atMs
    else if (effect.type === 'note') this.notes.push(`${effect.event} ${effect.fields.code ?? ''}`.trim())
    else if (effect.type === 'routes-changed') this.changes.push(effect.service)
    else this.changes.push(`${effect.node} ${effect.info?.state ?? 'forgotten'}`)
  }
}

export function shown(bytes: Uint8Array): string {
  const decoded = decodeGossipFrame(bytes)
  if (!decoded.ok || decoded.frame === undefined) return 'unreadable'
  const { frame } = decoded
  if (frame.type === 'summary') return 'summary'
  if (frame.type === 'digest') {
    const rows = [...frame.versions].map(
      ([node, { incarnation, contiguous }]) => `${node}@${incarnation}.${contiguous}`,
    )
    return `digest${frame.reply ? '?' : ''} ${rows.sort().join(' ')}`
  }
  const proofs = frame.proofs.map(proof => `${Buffer.from(proof)}`)
  const batches = frame.batches.map(({ payload, signature }) => {
    const read = decodeBatch(payload, signature)
    return read.ok ? `${read.batch.origin}@${read.batch.incarnation}.${read.batch.seq}` : 'bad'
  })
  return [...proofs, ...batches].join(' ')
}

/** A true batch of `origin`, made outside any router. */
export function batch(
  origin: string,
  seq: number,
  entries: Record<string, unknown>,
  incarnation = 1,
  signer = origin,
): Batch {
  const list = Object.entries(entries).map(([key, value]) => ({ key, value }))
  const head = { origin, incarnation, seq, base: 1, entries: list }
  const payload = encodeBatchPayload(head)
  return { ...head, payload, signature: signAs(signer)(signedBytes(payload)) }
}
export const offer = (healthy: number): Record<string, unknown> => ({
  [serviceKey('orders')]: encodeServiceInfo(orders(healthy)),
})
export const who = (name: string): Record<string, unknown> => ({
  node: { n: name, r: 'r', v: '1', o: [], c: [], d: false },
  'link/me': { r: 10, l: 0 },
})
export const versions = (rows: Record<string, Version>): Map<string, Version> => new Map(Object.entries(rows))

/** `me`, up and linked to `neighbours`, what that made it send looked at and put away. */
export function linked(neighbours: string[], options: Partial<RouterOptions> = {}): Node {
  const me = new Node('me', options).step({ type: 'self', info: info('me') }).pass(20)
  for (const to of neighbours) me.step({ type: 'link-up', to, rttMs: 10 })
  me.takeSent()
  return me
}

/** Carries frames between nodes until nobody has anything to say. */
export function exchange(...nodes: Node[]): void {
  const byId = new Map(nodes.map(node => [node.id, node]))
  for (let round = 0; round < 100; round++) {
    const frames = nodes.flatMap(node => node.sent.splice(0).map(({ to, bytes }) => ({ from: node.id, to, bytes })))
    if (frames.length === 0) return
    for (const { from, to, bytes } of frames) byId.get(to)?.step({ type: 'frame', from, bytes })
  }
  throw new Error('the nodes never stop talking')
}
export function join(a: Node, b: Node, rttMs = 10): void {
  a.step({ type: 'link-up', to: b.id, rttMs })
  b.step({ type: 'link-up', to: a.id, rttMs })
}

export const wish = (handOn: boolean, load = 0): GossipFrame => ({
  ...{ type: 'summary', hashes: Uint8Array.of(0, 0, 0, 0) },
  ...{ handOn, load },
})

/** Neighbours of `node` that it has asked to hand on, by its latest word to each. */
export function providersOf(node: Node): string[] {
  const said = new Map<string, boolean>()
  for (const { to, bytes } of node.sent) {
    const decoded = decodeGossipFrame(bytes)
    if (decoded.ok && decoded.frame?.type === 'summary') said.set(to, decoded.frame.handOn)
  }
  return [...said].flatMap(([to, handOn]) => (handOn ? [to] : [])).sort()
}
