import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { isInScope } from './digest-index.ts'
import { UNDER_WAY_MS } from './doubts.ts'
import { encodeServiceInfo, serviceKey } from './entry.ts'
import { decodeGossipFrame, type GossipFrame } from './frame.ts'
import {
  batch,
  exchange,
  info,
  join,
  linked,
  Node,
  offer,
  orders,
  proofOf,
  providersOf,
  shown,
  versions,
  who,
  wish,
} from './test-router.ts'

/** The hashes in the last summary that `node` has sent. */
function lastHashes(node: Node): Uint8Array {
  const summaries = node.sent.flatMap(({ bytes }) => {
    const decoded = decodeGossipFrame(bytes)
    return decoded.ok && decoded.frame?.type === 'summary' ? [decoded.frame.hashes] : []
  })
  return Uint8Array.from(summaries.at(-1) ?? [])
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

  test('who asks for everything again and again gets a hundred megabytes at once, then eight a second', () => {
    const me = linked(['b'])
    const labels = { note: 'x'.repeat(200) }
    const entries = Array.from({ length: 60 }, (_, i) => [
      serviceKey(`s${i}`),
      encodeServiceInfo(orders(1, { labels })),
    ])
    const names = Array.from({ length: 25 }, (_, i) => `o${i}`)
    for (const name of names) me.batches('b', [batch(name, 1, Object.fromEntries(entries))], [name])
    const ask = (times: number): number => {
      me.sent = []
      for (let i = 0; i < times; i++) me.frame('b', { type: 'digest', versions: new Map(), reply: false })
      return me.sent.reduce((sum, { bytes }) => sum + bytes.length, 0) / 1024 / 1024
    }
    expect(ask(1)).toBeGreaterThan(0.2)
    const atOnce = ask(700)
    expect(atOnce).toBeGreaterThan(100)
    expect(atOnce).toBeLessThan(130)
    me.pass(1000)
    expect(ask(100)).toBeLessThan(10)
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
    me.pass(1510)
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

describe('in a mesh of more than five hundred, where news is always under way', () => {
  const others = Array.from({ length: 600 }, (_, i) => `n${i}`)

  /** A node that knows all of them for a while, and `b`'s summary: as if `b` knew another version of `n7`. */
  function seasoned(): { me: Node; theirs: GossipFrame } {
    const me = linked(['b', 'c']).settle('b')
    for (const origin of others) me.batches('b', [batch(origin, 1, offer(1))], [origin])
    me.pass(60_000).sent = []
    me.pass(2000 * 3)
    const hashes = lastHashes(me)
    const count = hashes.length / 4
    const bucket = Array.from({ length: count }, (_, i) => i).find(index =>
      isInScope('n7', { count, indexes: new Set([index]) }),
    )
    hashes[4 * (bucket ?? 0)] = (hashes[4 * (bucket ?? 0)] as number) ^ 1
    me.takeSent()
    return { me, theirs: { type: 'summary', hashes, handOn: false, load: 2 } }
  }
  const digests = (me: Node): string[] => me.takeSent().filter(line => line.includes('digest'))

  test('what stays different is asked for after a while, and no more than that', () => {
    const { me, theirs } = seasoned()
    me.frame('b', theirs)
    expect(digests(me)).toEqual([])
    me.pass(UNDER_WAY_MS)
    const asked = digests(me)
    expect(asked).toHaveLength(1)
    expect(asked[0]).toMatch(/^b: digest\? .*n7@1\.1/)
    expect(asked[0]?.split('@').length).toBeLessThan(20)
  })

  test('what changes meanwhile is not, nor what changed just before', () => {
    const { me, theirs } = seasoned()
    me.frame('b', theirs).pass(UNDER_WAY_MS / 2)
    me.batches('c', [batch('n7', 2, offer(2))])
    expect(digests(me.pass(UNDER_WAY_MS / 2))).toEqual([])
    me.frame('b', theirs).pass(UNDER_WAY_MS)
    expect(digests(me)).toEqual([])
  })

  test('who was away for long is told the rest at once, answer by answer', () => {
    const { me, theirs } = seasoned()
    me.frame('b', theirs).pass(UNDER_WAY_MS)
    const missed = others.slice(0, 60).map(origin => batch(origin, 2, offer(2)))
    me.takeSent()
    me.frame('b', { type: 'batches', proofs: [], batches: missed, isAnswer: true }).frame('b', theirs)
    expect(digests(me)).toHaveLength(1)
  })
})
