import { createHash } from 'node:crypto'
import { encodeMsgpack } from '../../router/msgpack.ts'
import type { NodeInfo } from '../../router/model.ts'
import { Router, type RouterEffect, type RouterEvent, type RouterOptions } from '../../router/router.ts'
import { EventQueue } from './event-queue.ts'
import { seededRandom } from './rng.ts'

/** Heartbeats missed before a link is down: the daemon's rule, one a second and three missed. */
export const DETECT_MS = 3000

export interface SimLink {
  rttMs: number
  /** Share of frames lost, 0..1. */
  loss: number
  up: boolean
}

interface SimNode {
  readonly name: string
  router: Router
  incarnation: number
  /** Counts the lives of this node, so that what was meant for an earlier one does not reach the next. */
  life: number
  alive: boolean
  wakeAtMs: number
  readonly links: Set<string>
}

/**
 * Routers on a network that exists only in memory and in virtual time. Signatures are hashes: what they prove is
 * tested beside router/, here only who may say what matters.
 */
export class SimMesh {
  readonly queue = new EventQueue()
  readonly nodes = new Map<string, SimNode>()
  readonly links = new Map<string, SimLink>()
  readonly notes: { node: string; event: string; reason: string }[] = []
  bytesSent = 0
  private readonly random: () => number
  private readonly options: Partial<RouterOptions>

  constructor(seed: number, options: Partial<RouterOptions> = {}) {
    this.random = seededRandom(seed)
    this.options = options
  }

  addNode(name: string): void {
    const node: SimNode = {
      name,
      router: this.makeRouter(name, 100),
      incarnation: 100,
      life: 0,
      alive: true,
      wakeAtMs: Number.POSITIVE_INFINITY,
      links: new Set(),
    }
    this.nodes.set(name, node)
    this.step(node, { type: 'self', info: infoOf(name) })
  }

  link(a: string, b: string, rttMs: number, loss = 0): void {
    this.links.set(linkName(a, b), { rttMs, loss, up: true })
    this.connect(a, b)
  }

  /** Every packet between the two is lost from now on; both notice after the detection time. */
  cut(a: string, b: string): void {
    const link = this.linkOf(a, b)
    link.up = false
    this.queue.at(this.queue.nowMs + DETECT_MS, () => {
      if (!link.up) this.disconnect(a, b)
    })
  }

  heal(a: string, b: string): void {
    this.linkOf(a, b).up = true
    this.queue.at(this.queue.nowMs + this.linkOf(a, b).rttMs, () => this.connect(a, b))
  }

  crash(name: string): void {
    const node = this.node(name)
    node.alive = false
    node.life++
    const neighbours = [...node.links]
    this.queue.at(this.queue.nowMs + DETECT_MS, () => {
      for (const other of neighbours) if (!node.alive) this.disconnect(name, other)
    })
  }

  /** Starts again with nothing but its identity; without `clock`, also with an incarnation below those it has used. */
  restart(name: string, clock = true): void {
    const node = this.node(name)
    if (node.alive) node.life++
    for (const other of [...node.links]) this.disconnect(name, other)
    node.incarnation += clock ? 1 : -10
    node.alive = true
    node.wakeAtMs = Number.POSITIVE_INFINITY
    node.router = this.makeRouter(name, node.incarnation)
    this.step(node, { type: 'self', info: infoOf(name) })
    for (const [pair, link] of this.links) {
      const [a = '', b = ''] = pair.split('-')
      if (link.up && (a === name || b === name)) this.connect(a, b)
    }
  }

  serve(name: string, service: string, instances = 1, healthy = instances): void {
    this.step(this.node(name), {
      type: 'local',
      service: { name: service, protocol: 'http', instances, healthy, weight: healthy, labels: {} },
    })
  }

  run(ms: number): void {
    this.queue.runUntil(this.queue.nowMs + ms)
  }

  /** Runs until all living nodes that are connected hold equal tables, at most `withinMs`; answers how long that took. */
  settle(withinMs = 60_000): number {
    const from = this.queue.nowMs
    // Longer than the routers gather changes: what was just said must have been published.
    this.run(50)
    while (this.queue.nowMs - from < withinMs) {
      this.run(10)
      if (this.disagreement() === undefined) return this.queue.nowMs - from
    }
    throw new Error(`not settled after ${withinMs} ms: ${this.disagreement()}`)
  }

  /** Two neighbours whose digests differ, in words; undefined if there are none. */
  disagreement(): string | undefined {
    for (const node of this.nodes.values()) {
      for (const other of node.links) {
        const mine = digestText(node.router)
        const theirs = digestText(this.node(other).router)
        if (mine !== theirs) return `${node.name} knows ${mine}; ${other} knows ${theirs}`
      }
    }
    return undefined
  }

  node(name: string): SimNode {
    const node = this.nodes.get(name)
    if (node === undefined) throw new Error(`no node ${name} in this scenario`)
    return node
  }

  private linkOf(a: string, b: string): SimLink {
    const link = this.links.get(linkName(a, b))
    if (link === undefined) throw new Error(`no link ${a}-${b} in this scenario`)
    return link
  }

  private connect(a: string, b: string): void {
    const [from, to] = [this.node(a), this.node(b)]
    const link = this.linkOf(a, b)
    if (!link.up || !from.alive || !to.alive || from.links.has(b)) return
    from.links.add(b)
    to.links.add(a)
    this.step(from, { type: 'link-up', to: b, rttMs: link.rttMs })
    this.step(to, { type: 'link-up', to: a, rttMs: link.rttMs })
  }

  private disconnect(a: string, b: string): void {
    for (const [from, to] of [[a, b] as const, [b, a] as const]) {
      const node = this.node(from)
      if (node.links.delete(to) && node.alive) this.step(node, { type: 'link-down', to })
    }
  }

  private makeRouter(name: string, incarnation: number): Router {
    return new Router(
      {
        self: name,
        incarnation,
        proof: encodeMsgpack(name),
        verifyProof: proof => new TextDecoder().decode(proof.subarray(1)),
        sign: bytes => signature(name, bytes),
        verify: (signer, bytes, claimed) => Buffer.from(claimed).equals(signature(signer, bytes)),
        random: this.random,
      },
      this.options,
    )
  }

  private step(node: SimNode, event: RouterEvent): void {
    if (node.alive) for (const effect of node.router.step(event, this.queue.nowMs)) this.perform(node, effect)
  }

  private perform(node: SimNode, effect: RouterEffect): void {
    const life = node.life
    if (effect.type === 'send') this.send(node, effect.to, effect.bytes)
    else if (effect.type === 'note') {
      this.notes.push({ node: node.name, event: effect.event, reason: effect.fields.reason ?? '' })
    } else if (effect.type === 'wake-at') {
      node.wakeAtMs = effect.atMs
      this.queue.at(effect.atMs, () => {
        if (node.life === life && node.wakeAtMs === effect.atMs) this.step(node, { type: 'wake' })
      })
    }
  }

  private send(from: SimNode, to: string, bytes: Uint8Array): void {
    this.bytesSent += bytes.length
    const link = this.linkOf(from.name, to)
    const target = this.node(to)
    const life = target.life
    if (this.random() < link.loss) return
    this.queue.at(this.queue.nowMs + link.rttMs / 2, () => {
      const arrives = link.up && target.life === life && target.links.has(from.name)
      if (arrives) this.step(target, { type: 'frame', from: from.name, bytes })
    })
  }
}

export function digestText(router: Router): string {
  return [...router.digest()]
    .map(([origin, { incarnation, contiguous }]) => `${origin}@${incarnation}.${contiguous}`)
    .sort()
    .join(' ')
}

function linkName(a: string, b: string): string {
  return a < b ? `${a}-${b}` : `${b}-${a}`
}

function infoOf(name: string): NodeInfo {
  return { name, region: `region-${name}`, version: 'sim', overlay: [], calls: [], state: 'up' }
}

function signature(signer: string, bytes: Uint8Array): Uint8Array {
  return createHash('sha256').update(signer).update(bytes).digest()
}
