import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { LINK_NEWS_MS_MAX } from './advertiser.ts'
import { type Batch, encodeBatchPayload, signedBytes } from './batch.ts'
import { encodeServiceInfo } from './entry.ts'
import { decodeGossipFrame, encodeGossipFrame } from './frame.ts'
import { encodeMsgpack } from './msgpack.ts'
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
  signAs,
  versions,
  who,
} from './test-router.ts'

describe('telling', () => {
  test('changes within the window leave as one batch when it is over, to every neighbour', () => {
    const me = linked(['b', 'c'])
    me.step({ type: 'local', service: orders(1) }).pass(10)
    me.step({ type: 'local', service: orders(2) }).pass(9)
    expect(me.takeSent()).toEqual([])
    expect(me.routes).toEqual([])
    me.pass(1)
    expect(me.takeSent()).toEqual(['b: me@100.3', 'c: me@100.3'])
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
    expect(told(me.pass(LINK_NEWS_MS_MAX - 1))).toEqual([])
    expect(told(me.pass(1))).toEqual(['c: me@100.4'])
  })

  /** `me` with a neighbour b through which it has just heard of n0 … n99, n0 and n1 with links to b; long a member, or new itself. */
  const crowded = (isNew = false): Node => {
    const names = Array.from({ length: 100 }, (_, i) => `n${i}`)
    const links = { 'link/me': { r: 1, l: 0 }, 'link/n0': { r: 1, l: 0 }, 'link/n1': { r: 1, l: 0 } }
    const settled = isNew ? linkedBothWays() : linkedBothWays().settle('b')
    const me = settled
      .batches('b', [batch('b', 2, links)])
      .batches(
        'b',
        names.map(name => batch(name, 1, { ...who(name), 'link/b': { r: 1, l: 0 } })),
        names,
      )
      .settle('b')
    me.takeSent()
    return me
  }

  test('one more way to a node is told within a second, and later while newcomers stream in', () => {
    const me = crowded()
    me.step({ type: 'link-up', to: 'n0', rttMs: 1 }).pass(3200)
    expect(told(me)).toEqual([])
    expect(told(me.pass(100))).not.toEqual([])
    me.pass(20_000).takeSent()
    me.step({ type: 'link-up', to: 'n1', rttMs: 1 }).pass(999)
    expect(told(me)).toEqual([])
    expect(told(me.pass(1))).not.toEqual([])
  })

  test('who has just come itself does not take all others for newcomers', () => {
    const me = crowded(true)
    me.step({ type: 'link-up', to: 'n0', rttMs: 1 })
    expect(told(me.pass(1000))).not.toEqual([])
  })

  test('a link is given up within a second while newcomers stream in as well: before it is closed', () => {
    const me = crowded().step({ type: 'link-down', to: 'b', isPlanned: true })
    expect(told(me.pass(999))).toEqual([])
    expect(told(me.pass(1))).not.toEqual([])
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
    const me = linked(['b']).settle('b').pass(20_000)
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

  describe('in a large mesh, the first way to a node', () => {
    /** 120 nodes that b knows are known; then a link to `p` comes up. */
    function large(): Node {
      const others = Array.from({ length: 120 }, (_, i) => `o${i}`)
      const me = linked(['b']).settle('b')
      me.batches('b', [batch('b', 1, { ...who('b'), 'link/p': { r: 1, l: 0 } })], ['b'])
      for (const other of others) me.batches('b', [batch(other, 1, who(other))], [other])
      me.pass(20_000).takeSent()
      return me.step({ type: 'link-up', to: 'p', rttMs: 5 })
    }

    const born = (...links: string[]): Batch =>
      batch('p', 1, { ...who('p'), ...Object.fromEntries(links.map(to => [`link/${to}`, { r: 1, l: 0 }])) })

    test('is told soon when the other end has no other link', () => {
      const me = large()
        .batches('b', [born('me')], ['p'])
        .pass(249)
      expect(told(me)).toEqual([])
      me.pass(1)
      expect(told(me)).toHaveLength(2)
    })

    test('leaves with the next news when the other end has other links', () => {
      const me = large()
        .batches('b', [born('me', 'q')], ['p'])
        .pass(999)
      expect(told(me)).toEqual([])
      me.pass(1)
      expect(told(me)).toHaveLength(2)
    })

    test('is no news when the link is gone by then', () => {
      const me = large().pass(100).step({ type: 'link-down', to: 'p' }).pass(450)
      expect(told(me)).toEqual([])
    })
  })

  test('a newcomer tells of its first link at once, and of the others when it knows which of them are first ways', () => {
    const me = new Node('me').step({ type: 'self', info: info('me') }).pass(20)
    for (const to of ['b', 'c', 'd']) me.step({ type: 'link-up', to, rttMs: 10 })
    expect(told(me)).toEqual(['b: me@100.2'])
    me.settle('b')
    expect(told(me)).toEqual(expect.arrayContaining(['b: me@100.3', 'c: me@100.3', 'd: me@100.3']))
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
    // As a socket gives it: a Buffer, whose slices share its memory.
    const big = Buffer.alloc(1_000_000)
    big.set(frame)
    me.step({ type: 'frame', from: 'b', bytes: big.subarray(0, frame.length) })
    big.fill(0)
    me.frame('b', { type: 'digest', versions: new Map(), reply: false })
    const kept = me.sent.flatMap(({ bytes }) => {
      const decoded = decodeGossipFrame(bytes)
      if (!decoded.ok || decoded.frame?.type !== 'batches') return []
      return [...decoded.frame.proofs, ...decoded.frame.batches.map(one => one.payload)]
    })
    const hex = kept.map(bytes => Buffer.from(bytes).toString('hex'))
    expect(hex).toContain(Buffer.from(payload).toString('hex'))
    expect(hex).toContain(Buffer.from(proofOf('o')).toString('hex'))
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

describe('a node that its neighbours give up', () => {
  const links = (...to: string[]): Record<string, unknown> =>
    Object.fromEntries(to.map(other => [`link/${other}`, { r: 1, l: 0 }]))

  /** b, c and d have links with x and with this node; b and c take theirs to x back. */
  function bereaved(): Node {
    const me = linked(['b', 'c', 'd']).settle('b')
    for (const witness of ['b', 'c', 'd'])
      me.batches('b', [batch(witness, 1, { ...who(witness), ...links('x') })], [witness])
    me.batches('b', [batch('x', 1, { node: who('x').node, ...links('b', 'c', 'd') })], ['x'])
      .pass(20_000)
      .takeSent()
    for (const witness of ['b', 'c']) me.batches('b', [batch(witness, 2, { 'link/x': null })])
    return me
  }
  const questions = (me: Node): string[] => me.takeSent().filter(line => line.includes('digest '))

  test('is asked about when one link alone still leads there', () => {
    const me = bereaved()
    expect(me.router.table.path('x')?.path).toEqual(['d', 'x'])
    expect(questions(me.pass(199))).toEqual([])
    const asked = questions(me.pass(1))
    expect(asked).toHaveLength(2)
    for (const line of asked) expect(line).toMatch(/ d@1\.1.* x@1\.1/)
  })

  test('is asked about a few times, not for ever, and not at all once the last one has given it up', () => {
    expect(questions(bereaved().pass(20_000))).toHaveLength(8)
    const me = bereaved().pass(200)
    me.takeSent()
    me.batches('b', [batch('d', 2, { 'link/x': null })])
    expect(questions(me.pass(20_000))).toEqual([])
  })

  test('is not asked about when it has said so itself, for then it lives', () => {
    const me = bereaved().batches('b', [batch('x', 2, { 'link/b': null, 'link/c': null })])
    expect(questions(me.pass(20_000))).toEqual([])
  })

  test('is not asked about while more neighbours stand by it than could all have died unheard', () => {
    const many = Array.from({ length: 30 }, (_, i) => `n${i}`)
    const me = linked(['b', 'c', ...many]).settle('b')
    for (const witness of many) me.batches('b', [batch(witness, 1, { ...who(witness), ...links('x') })], [witness])
    me.batches('b', [batch('x', 1, { node: who('x').node, ...links(...many) })], ['x'])
      .pass(20_000)
      .takeSent()
    for (const witness of many.slice(13)) me.batches('b', [batch(witness, 2, { 'link/x': null })])
    expect(questions(me.pass(20_000))).toEqual([])
    me.batches('b', [batch('n0', 2, { 'link/x': null })])
    expect(questions(me.pass(20_000))).toHaveLength(8)
  })
})
