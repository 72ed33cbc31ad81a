import { createHash } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Batch, decodeBatch, encodeBatchPayload, signedBytes } from './batch.ts'
import { isInScope } from './digest-index.ts'
import { encodeServiceInfo, serviceKey } from './entry.ts'
import { decodeGossipFrame, encodeGossipFrame, type GossipFrame, type Version } from './frame.ts'
import type { LocalService, NodeInfo } from './model.ts'
import { encodeMsgpack } from './msgpack.ts'
import { Router, type RouterEffect, type RouterEvent, type RouterOptions } from './router.ts'

/** Signatures as hashes with the signer's name: enough to tell true from false here. */
function signAs(node: string): (bytes: Uint8Array) => Uint8Array {
  return bytes => createHash('sha256').update(node).update(bytes).digest()
}
const proofOf = (node: string): Uint8Array => Buffer.from(`proof of ${node}`)

function info(name: string, state: NodeInfo['state'] = 'up'): NodeInfo {
  return { name, region: 'r', version: '1', overlay: [], calls: [], state }
}
function orders(instances = 1, over: Partial<LocalService> = {}): LocalService {
  return { name: 'orders', protocol: 'http', instances, healthy: instances, weight: instances, labels: {}, ...over }
}

/** A router with its own clock, whose effects are kept apart by kind. */
class Node {
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

function shown(bytes: Uint8Array): string {
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
function batch(origin: string, seq: number, entries: Record<string, unknown>, incarnation = 1, signer = origin): Batch {
  const list = Object.entries(entries).map(([key, value]) => ({ key, value }))
  const head = { origin, incarnation, seq, base: 1, entries: list }
  const payload = encodeBatchPayload(head)
  return { ...head, payload, signature: signAs(signer)(signedBytes(payload)) }
}
const offer = (healthy: number): Record<string, unknown> => ({
  [serviceKey('orders')]: encodeServiceInfo(orders(healthy)),
})
const who = (name: string): Record<string, unknown> => ({
  node: { n: name, r: 'r', v: '1', o: [], c: [], d: false },
  'link/me': { r: 10, l: 0 },
})
const versions = (rows: Record<string, Version>): Map<string, Version> => new Map(Object.entries(rows))

/** `me`, up and linked to `neighbours`, what that made it send looked at and put away. */
function linked(neighbours: string[], options: Partial<RouterOptions> = {}): Node {
  const me = new Node('me', options).step({ type: 'self', info: info('me') }).pass(20)
  for (const to of neighbours) me.step({ type: 'link-up', to, rttMs: 10 })
  me.takeSent()
  return me
}

/** Carries frames between nodes until nobody has anything to say. */
function exchange(...nodes: Node[]): void {
  const byId = new Map(nodes.map(node => [node.id, node]))
  for (let round = 0; round < 100; round++) {
    const frames = nodes.flatMap(node => node.sent.splice(0).map(({ to, bytes }) => ({ from: node.id, to, bytes })))
    if (frames.length === 0) return
    for (const { from, to, bytes } of frames) byId.get(to)?.step({ type: 'frame', from, bytes })
  }
  throw new Error('the nodes never stop talking')
}
function join(a: Node, b: Node, rttMs = 10): void {
  a.step({ type: 'link-up', to: b.id, rttMs })
  b.step({ type: 'link-up', to: a.id, rttMs })
}

describe('telling', () => {
  test('changes within the window leave as one batch when it is over, to every neighbour', () => {
    const me = linked(['b', 'c'])
    me.step({ type: 'local', service: orders(1) }).pass(10)
    me.step({ type: 'local', service: orders(2) }).pass(9)
    expect(me.takeSent()).toEqual([])
    expect(me.routes).toEqual([])
    me.pass(1)
    expect(me.takeSent()).toEqual(['b: me@100.4', 'c: me@100.4'])
    expect(me.routes).toEqual(['me 2'])
  })

  test('a change that was undone within the window is not told', () => {
    const me = linked(['b'])
    me.step({ type: 'local', service: orders(1) })
    me.step({ type: 'local', service: orders(0) }).pass(100)
    expect(me.takeSent()).toEqual([])
  })

  test('a change is told although the timer that should tell it comes early', () => {
    const me = linked([])
    me.step({ type: 'local', service: orders(1) })
    me.nowMs += 19.2
    me.wakeAtMs = Number.POSITIVE_INFINITY
    me.step({ type: 'wake' })
    expect(me.wakeAtMs).toBeLessThan(me.nowMs + 5)
    me.pass(5)
    expect(me.routes).toEqual(['me 1'])
  })

  test('the first batch of a life carries the proof of who tells it; later ones do not', () => {
    const me = new Node('me').step({ type: 'link-up', to: 'b', rttMs: 10 })
    expect(me.takeSent()).toEqual(['b: proof of me me@100.1', 'b: summary'])
    me.step({ type: 'self', info: info('me') }).pass(20)
    expect(me.takeSent()).toEqual(['b: me@100.2'])
  })

  /** `me` with its neighbours b and c, of which b says that it has a link to `me`. */
  const linkedBothWays = (): Node => {
    const me = linked(['b', 'c'])
      .pass(20_000)
      .batches('b', [batch('b', 1, who('b'))], ['b'])
      .pass(20_000)
    me.takeSent()
    return me
  }
  const told = (me: Node): string[] => me.takeSent().filter(line => line.includes('me@'))

  test('a dead link is told at once, without waiting for the window', () => {
    const me = linkedBothWays().step({ type: 'link-down', to: 'b' })
    expect(told(me)).toEqual(['c: me@100.4'])
  })

  test('a link that is given up while it works leaves this table at once, and is told within a second', () => {
    const me = linkedBothWays().step({ type: 'link-down', to: 'b', isPlanned: true })
    expect([me.router.table.link('me', 'b'), told(me)]).toEqual([undefined, []])
    me.pass(1000)
    expect(told(me)).toEqual(['c: me@100.4'])
  })

  test('the end of a link that its other end has taken back is no hurry: it is over for everyone', () => {
    const me = linkedBothWays().batches('b', [batch('b', 2, { 'link/me': undefined })])
    me.step({ type: 'link-down', to: 'b' })
    expect(told(me)).toEqual([])
    me.pass(1000)
    expect(told(me)).toEqual(['c: me@100.4'])
  })

  test('of many links that die together the first are told at once and the rest in one batch', () => {
    const names = Array.from({ length: 30 }, (_, i) => `n${i}`)
    const me = linked(['c', ...names]).pass(20_000)
    me.batches(
      'c',
      names.map(name => batch(name, 1, who(name))),
      names,
    ).pass(20_000)
    me.takeSent()
    for (const to of names) me.step({ type: 'link-down', to })
    me.pass(20)
    expect(new Set(told(me).map(line => line.slice(line.indexOf(':')))).size).toBeLessThanOrEqual(4)
    expect(names.map(name => me.router.table.link('me', name))).toEqual(names.map(() => undefined))
  })

  test('one more way to a node that is reached already is told within a second, the first at once', () => {
    const me = linked(['b']).pass(20_000)
    me.batches('b', [batch('b', 1, { ...who('b'), 'link/o': { r: 1, l: 0 } })], ['b'])
    me.batches('b', [batch('o', 1, { ...who('o'), 'link/b': { r: 1, l: 0 } })], ['o']).pass(20_000)
    me.takeSent()
    me.step({ type: 'link-up', to: 'o', rttMs: 5 })
    expect([me.router.table.path('o')?.path, told(me)]).toEqual([['o'], []])
    me.pass(1000)
    expect(told(me)).toHaveLength(2)
    me.step({ type: 'link-up', to: 'p', rttMs: 5 })
    expect(told(me)).toHaveLength(3)
  })

  test('what is withdrawn leaves the table of others', () => {
    const [a, b] = [new Node('a'), new Node('b')]
    for (const node of [a, b]) node.step({ type: 'self', info: info(node.id) })
    a.step({ type: 'local', service: orders(1) })
    join(a, b)
    exchange(a, b)
    expect(b.routes).toEqual(['a 1'])
    a.step({ type: 'local', service: orders(0) }).pass(20)
    exchange(a, b)
    expect([b.routes, b.router.table.knows('orders')]).toEqual([[], false])
  })
})

describe('round trips', () => {
  const rtt = (me: Node, rttMs: number, lossRatio = 0): string[] => {
    const lines = me.step({ type: 'rtt', to: 'b', rttMs, lossRatio }).pass(1000).takeSent()
    return lines.filter(line => line !== 'b: summary')
  }
  const HELD = 10_000

  test.each([
    [11.9, 0, 'within 2 ms'],
    [8.1, 0, 'within 2 ms below'],
    [10, 0.19, 'a little loss'],
  ])('a move to %s ms and %s loss stays untold: %s', (rttMs, loss) => {
    expect(rtt(linked(['b']).pass(HELD), rttMs, loss)).toEqual([])
  })

  test('a move past both deadbands is told, and the next is measured from there', () => {
    const me = linked(['b']).pass(HELD)
    expect(rtt(me, 13)).toEqual(['b: me@100.3'])
    me.pass(HELD)
    expect(rtt(me, 11.5)).toEqual([])
    expect(me.router.table.link('me', 'b')).toEqual({ rttMs: 13, lossRatio: 0 })
  })

  test('a link that was told of is left in peace for a while, unless it is another link altogether', () => {
    const me = linked(['b']).pass(HELD)
    expect(rtt(me, 13)).toEqual(['b: me@100.3'])
    expect(rtt(me, 17)).toEqual([])
    expect(rtt(me, 40)).toEqual(['b: me@100.4'])
    expect(rtt(me, 30)).toEqual([])
    me.pass(HELD)
    expect(rtt(me, 30)).toEqual(['b: me@100.5'])
  })

  test('a link that has just come up is measured again soon: the first round trip was taken in a hurry', () => {
    const me = linked(['b'])
    expect(rtt(me, 6)).toEqual([])
    expect(rtt(me, 6)).toEqual(['b: me@100.3'])
    expect(rtt(me, 9)).toEqual([])
  })

  test('what a link measures is no hurry: it leaves within a second, with whatever else there is to say', () => {
    const me = linked(['b']).pass(HELD)
    me.takeSent()
    me.step({ type: 'rtt', to: 'b', rttMs: 15, lossRatio: 0 }).pass(500)
    expect(me.takeSent().filter(line => line.includes('@'))).toEqual([])
    me.step({ type: 'local', service: orders(1) }).pass(20)
    expect(me.takeSent()).toContain('b: me@100.3')
  })

  test('a tenth of a long round trip is noise although it is more than 2 ms', () => {
    const me = linked([])
    me.step({ type: 'link-up', to: 'b', rttMs: 200 }).pass(HELD).takeSent()
    expect(rtt(me, 215)).toEqual([])
    expect(rtt(me, 225)).toEqual(['b: me@100.3'])
  })

  test('loss that moved by a fifth is told', () => {
    expect(rtt(linked(['b']).pass(HELD), 10, 0.2)).toEqual(['b: me@100.3'])
  })

  test('a sample of a link that is down says nothing', () => {
    const me = linked(['b'])
    me.step({ type: 'link-down', to: 'b' }).takeSent()
    expect(rtt(me, 500)).toEqual([])
    expect(me.router.table.link('me', 'b')).toBeUndefined()
  })
})

const wish = (handOn: boolean, load = 0): GossipFrame => ({
  ...{ type: 'summary', hashes: Uint8Array.of(0, 0, 0, 0) },
  ...{ handOn, load },
})

/** Neighbours of `node` that it has asked to hand on, by its latest word to each. */
function providersOf(node: Node): string[] {
  const said = new Map<string, boolean>()
  for (const { to, bytes } of node.sent) {
    const decoded = decodeGossipFrame(bytes)
    if (decoded.ok && decoded.frame?.type === 'summary') said.set(to, decoded.frame.handOn)
  }
  return [...said].flatMap(([to, handOn]) => (handOn ? [to] : [])).sort()
}

describe('handing on', () => {
  test('a fresh batch goes to those who asked for it, never back nor to its origin', () => {
    const me = linked(['b', 'c', 'd', 'o'])
    for (const asker of ['b', 'c', 'o']) me.frame(asker, wish(true))
    me.takeSent()
    me.batches('b', [batch('o', 1, who('o'))], ['o'])
    expect(me.takeSent()).toEqual(['c: proof of o o@1.1'])
  })

  test('who takes its wish back gets nothing more', () => {
    const me = linked(['b', 'c', 'd']).frame('c', wish(true)).frame('d', wish(true)).frame('c', wish(false))
    me.takeSent()
    me.batches('b', [batch('o', 1, who('o'))], ['o'])
    expect(me.takeSent()).toEqual(['d: proof of o o@1.1'])
  })

  test('an answer is handed on as word of it alone: a newcomer must not flood others with what only it did not know', () => {
    const me = linked(['b', 'c']).frame('c', wish(true)).pass(1000)
    me.takeSent()
    me.frame('b', { type: 'summary', hashes: Uint8Array.of(1, 2, 3, 4), handOn: false, load: 0 }).takeSent()
    const batches = [batch('o', 1, offer(1))]
    me.frame('b', { type: 'batches', proofs: [proofOf('o')], batches, isAnswer: true })
    expect([me.takeSent(), me.routes.length]).toEqual([[], 0])
    expect(me.router.table.knows('orders')).toBe(true)
    me.frame('b', { type: 'summary', hashes: Uint8Array.of(1, 2, 3, 4), handOn: false, load: 0 })
    expect(me.takeSent()).toContain('c: summary')
  })

  test('a neighbour with much less to hand on is asked in place of one with much', () => {
    const me = new Node('me').step({ type: 'self', info: info('me') }).pass(20)
    const all = ['b', 'c', 'd', 'e']
    for (const to of all) me.step({ type: 'link-up', to, rttMs: 10 })
    const [first = '', second = ''] = providersOf(me)
    const idle = all.find(node => node !== first && node !== second) ?? ''
    me.sent = []
    for (const node of all) me.frame(node, wish(false, node === idle ? 2 : 10))
    me.pass(4000)
    expect(providersOf(me)).toContain(idle)
  })

  test('who is asked by many tells the next one so', () => {
    const me = linked(['b', 'c', 'd', 'e', 'f', 'g'])
    for (const asker of ['b', 'c', 'd', 'e', 'f']) me.frame(asker, wish(true))
    expect(me.takeSent().filter(line => line.startsWith('f: summary'))).toHaveLength(1)
    me.frame('f', wish(true))
    expect(me.takeSent().filter(line => line.startsWith('f: summary'))).toEqual([])
  })

  test('the first neighbours are asked to hand on, more of them where not everyone is a neighbour', () => {
    const me = new Node('me').step({ type: 'self', info: info('me') }).pass(20)
    for (const to of ['b', 'c', 'd', 'e']) me.step({ type: 'link-up', to, rttMs: 10 })
    expect(providersOf(me)).toHaveLength(2)
    me.batches('b', [batch('o', 1, {}), batch('p', 1, {}), batch('q', 1, {})], ['o', 'p', 'q', 'x', 'y', 'z'])
    me.step({ type: 'link-up', to: 'f', rttMs: 10 })
    expect(providersOf(me)).toHaveLength(3)
    expect(providersOf(me)).toContain('f')
  })

  test('when a neighbour that hands on is gone, another is asked in its place', () => {
    const me = new Node('me').step({ type: 'self', info: info('me') }).pass(20)
    for (const to of ['b', 'c', 'd']) me.step({ type: 'link-up', to, rttMs: 10 })
    const [gone = '', other] = providersOf(me)
    me.sent = []
    me.step({ type: 'link-down', to: gone })
    expect(providersOf(me)).toEqual(['b', 'c', 'd'].filter(node => node !== gone && node !== other))
  })

  test('a batch that is known already is not handed on again', () => {
    const me = linked(['b', 'c']).frame('c', wish(true))
    const one = batch('o', 1, offer(1))
    me.batches('b', [one], ['o']).takeSent()
    me.batches('c', [one]).batches('b', [one], ['o'])
    expect([me.takeSent(), me.notes]).toEqual([[], []])
  })

  test('what is passed on is byte for byte what the origin signed', () => {
    const me = linked(['b', 'c']).frame('c', wish(true))
    me.takeSent()
    const one = batch('o', 1, { 'zone/later': { anything: [1, 'x'] } })
    me.batches('b', [one], ['o'])
    const decoded = decodeGossipFrame(me.sent[0]?.bytes ?? new Uint8Array())
    const frame = decoded.ok ? decoded.frame : undefined
    expect(frame?.type === 'batches' && Buffer.from(frame.batches[0]?.payload ?? [])).toEqual(Buffer.from(one.payload))
  })
})

describe('making up for what was lost', () => {
  test('a summary goes to one neighbour every digest interval, and an equal one ends the exchange', () => {
    const me = linked(['b']).pass(10_000)
    me.takeSent()
    me.pass(2000)
    expect(me.takeSent()).toEqual(['b: summary'])
    me.pass(2000)
    const [{ bytes } = { bytes: new Uint8Array() }] = me.sent
    me.takeSent()
    me.step({ type: 'frame', from: 'b', bytes })
    expect(me.takeSent()).toEqual([])
  })

  test('without neighbours nothing is sent and nothing is planned but the sweep', () => {
    const me = linked(['b']).step({ type: 'link-down', to: 'b' })
    me.takeSent()
    me.pass(10_000)
    expect(me.takeSent()).toEqual([])
    expect(me.wakeAtMs - me.nowMs).toBeGreaterThan(10_000)
  })

  test('a different summary is answered with a digest, a digest with what is missing, and that with the rest', () => {
    const me = linked(['b']).pass(1000)
    me.batches('b', [batch('o', 1, offer(1))], ['o']).takeSent()
    me.frame('b', { type: 'summary', hashes: Uint8Array.of(1, 2, 3, 4), handOn: false, load: 2 })
    expect(me.takeSent()).toEqual(['b: digest? me@100.2 o@1.1'])
    const theirs = versions({ me: { incarnation: 100, contiguous: 1 }, x: { incarnation: 1, contiguous: 3 } })
    me.frame('b', { type: 'digest', versions: theirs, reply: true })
    // What this node lacks is under way: it has asked for it already.
    expect(me.takeSent()).toEqual(['b: proof of o o@1.1 me@100.2', 'b: summary'])
    me.pass(1000).takeSent()
    me.frame('b', { type: 'digest', versions: theirs, reply: true })
    expect(me.takeSent()).toContain('b: digest me@100.2 o@1.1')
  })

  test('an answer is cut where it gets long, and who gets somewhere with it goes on asking until there is no more', () => {
    const [a, b] = [new Node('a'), new Node('b')]
    for (const node of [a, b]) node.step({ type: 'self', info: info(node.id) })
    const labels = { note: 'x'.repeat(200) }
    const names = Array.from({ length: 20 }, (_, i) => `o${i}`)
    for (const name of names) {
      const entries = Array.from({ length: 100 }, (_, i) => [
        serviceKey(`s${i}`),
        encodeServiceInfo(orders(1, { labels })),
      ])
      a.batches('x', [batch(name, 1, Object.fromEntries(entries))], [name])
    }
    a.sent = []
    join(a, b)
    let asked = 0
    let answeredMax = 0
    for (let round = 0; round < 100 && (a.sent.length > 0 || b.sent.length > 0); round++) {
      for (const { bytes } of b.sent.splice(0)) {
        if (shown(bytes).startsWith('digest')) asked++
        a.step({ type: 'frame', from: 'b', bytes })
      }
      answeredMax = Math.max(
        answeredMax,
        a.sent.reduce((sum, { bytes }) => sum + bytes.length, 0),
      )
      for (const { bytes } of a.sent.splice(0)) b.step({ type: 'frame', from: 'a', bytes })
    }
    expect(b.router.digest()).toEqual(a.router.digest())
    expect(asked).toBeGreaterThan(1)
    expect(answeredMax).toBeLessThan(320 * 1024)
  })

  test('an answer that brings nothing new is not asked for again at once', () => {
    const me = linked(['b']).pass(1000)
    me.takeSent()
    const other: GossipFrame = { type: 'summary', hashes: Uint8Array.of(1, 2, 3, 4), handOn: false, load: 2 }
    me.frame('b', other)
    expect(me.takeSent()).toHaveLength(1)
    me.frame('b', other)
    expect(me.takeSent()).toEqual([])
    me.frame('b', other)
    expect(me.takeSent()).toHaveLength(1)
  })

  test('of many who know more only one is asked at a time: a joiner must not get everything from each', () => {
    const me = linked(['b', 'c'])
    const other: GossipFrame = { type: 'summary', hashes: Uint8Array.of(1, 2, 3, 4), handOn: false, load: 2 }
    me.pass(1000).takeSent()
    me.frame('b', other).frame('c', other)
    expect(me.takeSent()).toEqual(['b: digest? me@100.3'])
    me.pass(300).takeSent()
    me.frame('c', other)
    expect(me.takeSent()).toEqual(['c: digest? me@100.3'])
  })

  test('right after something new five exchanges come soon, then they come at the usual pace again', () => {
    const me = linked(['b']).pass(20_000)
    me.takeSent()
    me.batches('b', [batch('o', 1, offer(1))], ['o']).takeSent()
    me.pass(1260)
    expect(me.takeSent()).toEqual(Array(5).fill('b: summary'))
    me.pass(1900)
    expect(me.takeSent()).toEqual([])
  })

  test('a digest about some origins is answered about those, and a joiner of one bucket hears of no other', () => {
    const me = linked(['b']).pass(1000)
    me.batches('b', [batch('o', 1, offer(1)), batch('p', 1, offer(1))], ['o', 'p']).takeSent()
    const count = 1024
    const index = [...Array(count).keys()].find(i => isInScope('o', { count, indexes: new Set([i]) })) ?? 0
    me.frame('b', { type: 'digest', versions: versions({}), reply: false, scope: { count, indexes: new Set([index]) } })
    expect(me.takeSent()).toEqual(['b: proof of o o@1.1', 'b: summary'])
  })

  test('a digest that asks for no reply gets none, and one that knows all gets a summary alone', () => {
    const me = linked(['b'])
    const all = versions({ me: { incarnation: 100, contiguous: 2 }, x: { incarnation: 1, contiguous: 3 } })
    me.frame('b', { type: 'digest', versions: all, reply: false })
    expect(me.takeSent()).toEqual(['b: summary'])
  })

  test('batches of a stranger are not believed; its proof is asked for, at most once a second', () => {
    const me = linked(['b'])
    me.batches('b', [batch('o', 2, offer(1))])
    expect(me.takeSent()).toEqual(['b: digest me@100.2'])
    me.batches('b', [batch('o', 3, offer(1))])
    expect(me.takeSent()).toEqual([])
    me.pass(1000).takeSent()
    me.batches('b', [batch('o', 4, offer(1))])
    expect(me.takeSent()).toEqual(['b: digest me@100.2'])
    expect(me.router.table.knows('orders')).toBe(false)
  })

  test('a joiner learns everything there is, proofs first, in frames that fit', () => {
    const [a, b, c] = [new Node('a'), new Node('b'), new Node('c')]
    for (const node of [a, b, c]) node.step({ type: 'self', info: info(node.id) })
    for (let i = 0; i < 4000; i++) a.step({ type: 'local', service: { ...orders(1), name: `s${i}` } })
    join(a, b)
    exchange(a, b)
    join(b, c)
    const sizes = b.sent.map(({ bytes }) => bytes.length)
    exchange(a, b, c)
    expect([...c.router.table.services()]).toHaveLength(4000)
    expect(c.router.digest()).toEqual(a.router.digest())
    expect(Math.max(...sizes)).toBeLessThan(128 * 1024)
  })

  test('any order, loss and doubling of frames ends in equal tables after digest exchanges', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(99), { minLength: 40, maxLength: 200, size: 'max' }), dice => {
        let at = 0
        const roll = (): number => (dice[at++ % dice.length] as number) / 100
        const nodes = ['a', 'b', 'c'].map(id => new Node(id, {}, 100, roll))
        const [a, b, c] = nodes as [Node, Node, Node]
        for (const node of nodes) node.step({ type: 'self', info: info(node.id) })
        join(a, b)
        join(b, c)
        join(a, c)
        for (let round = 0; round < 30; round++) {
          const teller = nodes[Math.floor(roll() * 3)] as Node
          teller.step({ type: 'local', service: { ...orders(Math.floor(roll() * 3)), name: `s${round % 4}` } })
          for (const node of nodes) node.pass(30)
          const frames = nodes.flatMap(node =>
            node.sent.splice(0).map(({ to, bytes }) => ({ from: node.id, to, bytes })),
          )
          while (frames.length > 0) {
            const [one] = frames.splice(Math.floor(roll() * frames.length), 1)
            const target = nodes.find(({ id }) => id === one?.to)
            if (one === undefined || roll() < 0.4) continue
            target?.step({ type: 'frame', from: one.from, bytes: one.bytes })
            if (roll() < 0.2) target?.step({ type: 'frame', from: one.from, bytes: one.bytes })
          }
        }
        for (let round = 0; round < 60; round++) {
          for (const node of nodes) node.pass(1000)
          exchange(...nodes)
        }
        expect(b.router.digest()).toEqual(a.router.digest())
        expect(c.router.digest()).toEqual(a.router.digest())
        const told = nodes.map(({ router }) =>
          [...router.table.services()].sort().map(name => [
            name,
            ...router
              .candidates(name)
              .map(one => one.node)
              .sort(),
          ]),
        )
        expect(told[1]).toEqual(told[0])
        expect(told[2]).toEqual(told[0])
      }),
      { numRuns: 25 },
    )
  })
})

describe('what is not true', () => {
  const known = (): Node => linked(['b', 'c']).batches('b', [batch('o', 1, { ...who('o'), ...offer(1) })], ['o'])
  const see = (me: Node): [string[], string[]] => [me.takeSent(), me.notes]

  test('a batch that its origin did not sign changes nothing and is noted', () => {
    const me = known()
    me.takeSent()
    me.batches('b', [batch('o', 2, offer(9), 1, 'b')])
    expect(see(me)).toEqual([[], ['refused bad-signature']])
    expect(me.router.refused.get('bad-signature')).toBe(1)
    expect(me.router.digest().get('o')).toEqual({ incarnation: 1, contiguous: 1 })
  })

  test('a batch altered on its way changes nothing and is noted', () => {
    const me = known()
    const { payload, signature } = batch('o', 2, offer(1))
    const altered = payload.slice()
    altered[altered.length - 1] = (altered.at(-1) ?? 0) ^ 1
    me.takeSent()
    me.frame('b', { type: 'batches', proofs: [], batches: [{ payload: altered, signature }], isAnswer: false })
    expect(me.router.digest().get('o')?.contiguous).toBe(1)
    expect(me.notes).toHaveLength(1)
  })

  test('an old batch sent again, of this life or an earlier one, changes nothing', () => {
    const me = known()
    me.batches('b', [batch('o', 2, offer(0))])
    expect(me.routes).toEqual([])
    me.batches('c', [batch('o', 1, { ...who('o'), ...offer(1) })])
    me.batches('b', [batch('o', 1, offer(5), 2)]).takeSent()
    me.batches('c', [batch('o', 2, offer(0)), batch('o', 3, offer(0))])
    expect(see(me)).toEqual([[], []])
    expect(me.router.digest().get('o')).toEqual({ incarnation: 2, contiguous: 1 })
  })

  test('a proof that the root did not issue admits nobody', () => {
    const me = linked(['b'])
    const proofs = [Buffer.from('made up')]
    me.frame('b', { type: 'batches', proofs, batches: [batch('o', 1, offer(1))], isAnswer: false })
    expect(me.notes).toEqual(['refused bad-proof'])
    expect(me.router.digest().has('o')).toBe(false)
  })

  test('rubbish is noted the 1st, 2nd, 4th, 8th … time: it must not fill the log', () => {
    const me = linked(['b'])
    for (let i = 0; i < 100; i++) me.step({ type: 'frame', from: 'b', bytes: Uint8Array.of(0xc1) })
    expect(me.notes).toHaveLength(7)
    expect(me.router.refused.get('bad-frame')).toBe(100)
  })

  test('no bytes make it throw: noise, and true frames with bytes changed', () => {
    const me = linked(['b', 'o'])
    const good = [
      encodeGossipFrame({
        type: 'batches',
        proofs: [proofOf('o')],
        batches: [batch('o', 1, { ...who('o'), ...offer(1) })],
        isAnswer: true,
      }),
      encodeGossipFrame({ type: 'digest', versions: versions({ me: { incarnation: 1, contiguous: 1 } }), reply: true }),
      encodeGossipFrame({ type: 'summary', hashes: new Uint8Array(4), handOn: true, load: 2 }),
      encodeMsgpack([1, [], [encodeMsgpack([{ toString: 1, valueOf: 1 }, 'o', 1, 1, 1, []]), new Uint8Array(64)]]),
      encodeMsgpack([{ toString: 1 }, { toString: 1 }, { toString: 1 }]),
    ]
    for (const bytes of good) me.step({ type: 'frame', from: 'b', bytes })
    const change = fc.tuple(fc.nat(), fc.nat(255))
    fc.assert(
      fc.property(
        fc.constantFrom(...good),
        fc.array(change, { maxLength: 4 }),
        fc.uint8Array(),
        (frame, changes, noise) => {
          const bytes = frame.slice()
          for (const [at, value] of changes) bytes[at % bytes.length] = value
          me.step({ type: 'frame', from: 'b', bytes })
          me.step({ type: 'frame', from: 'nobody', bytes: noise })
        },
      ),
      { numRuns: 3000 },
    )
    expect(me.routes).toEqual(['o 1'])
  })

  test('no signed value makes it throw, and none hides an entry beside it', () => {
    const me = linked(['b'])
    const { entries } = batch('o', 1, who('o'))
    let seq = 0
    const value = fc.oneof(fc.jsonValue(), fc.constant({ toString: 1, valueOf: 1 }), fc.uint8Array())
    const key = fc.constantFrom('node', 'service/orders', 'link/me', 'link/b', 'later', '__proto__')
    fc.assert(
      fc.property(fc.array(fc.tuple(key, value), { maxLength: 5 }), pairs => {
        seq++
        const list = [...pairs.map(([name, given]) => ({ key: name, value: given })), ...entries]
        const head = { origin: 'o', incarnation: 1, seq, base: seq, entries: list }
        const payload = encodeBatchPayload(head)
        const signature = signAs('o')(signedBytes(payload))
        me.batches('b', [{ ...head, payload, signature }], ['o'])
        expect(me.router.table.nodeInfo('o')?.name).toBe('o')
      }),
      { numRuns: 300 },
    )
  })

  test('what is kept does not hold on to the frame it came in', () => {
    const me = linked(['b'])
    const { payload, signature } = batch('o', 1, { 'later/x': new Uint8Array(3) })
    const frame = encodeGossipFrame({
      type: 'batches',
      proofs: [proofOf('o')],
      batches: [{ payload, signature }],
      isAnswer: true,
    })
    const big = new Uint8Array(1_000_000)
    big.set(frame)
    me.step({ type: 'frame', from: 'b', bytes: big.subarray(0, frame.length) })
    big.fill(0)
    me.frame('b', { type: 'digest', versions: new Map(), reply: false })
    const kept = me.sent.flatMap(({ bytes }) => {
      const decoded = decodeGossipFrame(bytes)
      return decoded.ok && decoded.frame?.type === 'batches' ? decoded.frame.batches : []
    })
    expect(kept.map(one => Buffer.from(one.payload).toString('hex'))).toContain(Buffer.from(payload).toString('hex'))
  })
})

describe('an earlier life of this node', () => {
  test('a record of it at a higher incarnation is outbid, and everything is told again', () => {
    const me = linked(['b'])
    me.step({ type: 'local', service: orders(1) })
      .pass(20)
      .takeSent()
    me.batches('b', [batch('me', 40, { ...offer(7), 'service/gone': encodeServiceInfo(orders(1)) }, 500)])
    expect(me.notes).toEqual(['outbid'])
    expect(me.takeSent()).toEqual(['b: proof of me me@501.1'])
    expect(me.routes).toEqual(['me 1'])
    expect(me.router.table.knows('gone')).toBe(false)
  })

  test('a neighbour that knows of such a record is asked for it', () => {
    const me = linked(['b'])
    me.frame('b', { type: 'digest', versions: versions({ me: { incarnation: 500, contiguous: 3 } }), reply: false })
    expect(me.takeSent()).toEqual(['b: summary', 'b: digest me@100.2'])
  })

  test('a forged one impresses nobody, and what this node knows of itself neither', () => {
    const me = linked(['b'])
    me.batches('b', [batch('me', 1, offer(7), 500, 'b'), batch('me', 1, offer(7), 100), batch('me', 9, {}, 99)])
    expect([me.notes, me.takeSent()]).toEqual([[], []])
    expect(me.router.digest().get('me')?.incarnation).toBe(100)
  })

  test('it never goes below an incarnation of its own, even before it has said anything', () => {
    const me = new Node('me').batches('b', [batch('me', 1, offer(1), 50)])
    me.step({ type: 'self', info: info('me') }).pass(20)
    expect(me.router.digest().get('me')?.incarnation).toBeGreaterThanOrEqual(100)
  })
})

describe('forgetting', () => {
  const HOUR_MS = 3_600_000
  /** A node that o told of itself, and that has not been reachable for longer than the limit. */
  function lonely(): Node {
    const me = linked(['b', 'o'], { forgetMs: HOUR_MS })
    me.batches('b', [batch('o', 1, { ...who('o'), ...offer(1) })], ['o'])
    me.step({ type: 'link-down', to: 'o' })
    me.pass(HOUR_MS)
    expect(me.router.digest().has('o')).toBe(true)
    me.changes = []
    me.pass(3 * 60_000).takeSent()
    return me
  }

  test('a node nobody reaches for the whole limit is dropped with its routes, and its owner is told', () => {
    const me = lonely()
    expect(me.changes).toEqual(['o forgotten', 'orders'])
    expect([me.router.digest().has('o'), me.router.table.knows('orders')]).toEqual([false, false])
  })

  test('a node that is reachable again in between starts the limit anew', () => {
    const me = linked(['o'], { forgetMs: HOUR_MS })
    me.batches('o', [batch('o', 1, { ...who('o'), ...offer(1) })], ['o'])
    for (let i = 0; i < 4; i++) {
      me.step({ type: 'link-down', to: 'o' }).pass(0.9 * HOUR_MS)
      me.step({ type: 'link-up', to: 'o', rttMs: 1 }).pass(120_000)
    }
    expect(me.routes).toEqual(['o 1'])
  })

  test('it is not given back by a neighbour that still holds it, with or without its proof', () => {
    const me = lonely()
    me.batches('b', [batch('o', 1, { ...who('o'), ...offer(1) })], ['o'])
    me.batches('b', [batch('o', 1, { ...who('o'), ...offer(1) })])
    expect(me.router.digest().has('o')).toBe(false)
    me.pass(1000).takeSent()
    // Its version is still in the digests this node sends, so that neighbours keep it to themselves.
    me.frame('b', { type: 'summary', hashes: Uint8Array.of(1, 2, 3, 4), handOn: false, load: 2 })
    expect(me.takeSent().join()).toContain('o@1.1')
    me.frame('b', { type: 'digest', versions: versions({ o: { incarnation: 1, contiguous: 1 } }), reply: true })
    expect(me.takeSent().filter(line => line.includes('digest'))).toEqual([])
  })

  test('a forged word of it does not bring it back', () => {
    const me = lonely()
    me.batches('b', [batch('o', 1, offer(1), 9, 'b')])
    expect(me.notes).toEqual(['refused bad-signature'])
    me.batches('b', [batch('o', 1, { ...who('o'), ...offer(1) })], ['o'])
    expect(me.router.digest().has('o')).toBe(false)
  })

  test('it is a node like any other when it has something new to say itself', () => {
    const me = lonely()
    me.step({ type: 'link-up', to: 'o', rttMs: 1 })
    me.batches('o', [batch('o', 1, { ...who('o'), ...offer(3) }, 2)])
    expect(me.routes).toEqual(['o 3'])
  })

  test('what is remembered of it ends after the limit has passed once more', () => {
    const me = lonely().pass(HOUR_MS)
    me.takeSent()
    me.frame('b', { type: 'summary', hashes: Uint8Array.of(1, 2, 3, 4), handOn: false, load: 2 })
    expect(me.takeSent().join()).not.toContain('o@')
  })
})
