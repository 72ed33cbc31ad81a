import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Batch, Entry } from './batch.ts'
import { type ApplyOutcome, OriginLog } from './origin-log.ts'

const NONE = new Uint8Array(0)

function batch(seq: number, base: number, entries: Record<string, unknown>, incarnation = 1, bytes = 10): Batch {
  const list: Entry[] = Object.entries(entries).map(([key, value]) => ({ key, value }))
  return { origin: 'o', incarnation, seq, base, entries: list, payload: new Uint8Array(bytes), signature: NONE }
}

/** A log, and what is left of the values it told. */
class Follower extends OriginLog {
  readonly values = new Map<string, unknown>()

  override apply(one: Batch): ApplyOutcome {
    const applied = super.apply(one)
    if (applied.outcome !== 'new') return applied
    for (const { key, value } of applied.changed) {
      if (value === undefined) this.values.delete(key)
      else this.values.set(key, value)
    }
    return applied
  }

  get(key: string): unknown {
    return this.values.get(key)
  }
}

const gone = (key: string): Entry => ({ key, value: undefined })

function live({ values }: Follower): Record<string, unknown> {
  return Object.fromEntries([...values].sort(([a], [b]) => (a < b ? -1 : 1)))
}

/** One change of a made-up origin: a few keys get a value or a tombstone, and the tail is tidied up by some batches. */
interface Step {
  readonly changes: readonly (readonly [key: string, value: number | undefined])[]
  readonly dropped: number
}

const steps = fc.array(
  fc.record({
    changes: fc.array(fc.tuple(fc.constantFrom('a', 'b', 'c', 'd', 'e'), fc.option(fc.nat(9), { nil: undefined })), {
      maxLength: 3,
    }),
    dropped: fc.constantFrom(0, 0, 0, 1, 2, 5),
  }),
  { minLength: 1, maxLength: 30 },
)

/** The batches of an honest origin: what still holds in the batches it drops stands again in the one that drops them. */
function batchesOf(history: readonly Step[], incarnation = 1): Batch[] {
  const batches: Batch[] = []
  const last = new Map<string, { seq: number; value: number | undefined }>()
  let base = 1
  for (const { changes, dropped } of history) {
    const seq = batches.length + 1
    const entries: Record<string, unknown> = {}
    for (const [key, value] of changes) {
      entries[key] = value
      last.set(key, { seq, value })
    }
    base = Math.min(seq, base + dropped)
    for (const [key, state] of last) {
      if (state.seq >= base || state.value === undefined) continue
      entries[key] = state.value
      last.set(key, { seq, value: state.value })
    }
    batches.push(batch(seq, base, entries, incarnation))
  }
  return batches
}

/** The rule, said in the dumbest way: of all that was received, the highest base whose batches are all there. */
function oracle(received: readonly Batch[]): { base: number; contiguous: number; live: Record<string, unknown> } {
  const incarnation = Math.max(0, ...received.map(one => one.incarnation))
  const bySeq = new Map(received.filter(one => one.incarnation === incarnation).map(one => [one.seq, one]))
  let base = 1
  for (const one of bySeq.values()) {
    let isWhole = true
    for (let seq = one.base; seq < one.seq; seq++) isWhole &&= bySeq.has(seq)
    if (isWhole) base = Math.max(base, one.base)
  }
  let contiguous = base - 1
  while (bySeq.has(contiguous + 1)) contiguous++
  const values = new Map<string, unknown>()
  for (const seq of [...bySeq.keys()].sort((a, b) => a - b)) {
    if (seq >= base) for (const { key, value } of bySeq.get(seq)?.entries ?? []) values.set(key, value)
  }
  const entries = [...values].filter(([, value]) => value !== undefined).sort(([a], [b]) => (a < b ? -1 : 1))
  return { base, contiguous, live: Object.fromEntries(entries) }
}

/** An order in which a network may deliver: any, with some twice. */
const disorder = fc.infiniteStream(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }))

function scrambled(batches: readonly Batch[], chance: Iterator<number>): Batch[] {
  const next = (): number => chance.next().value ?? 0
  const order: Batch[] = []
  for (const one of batches) {
    order.splice(Math.floor(next() * (order.length + 1)), 0, one)
    if (next() < 0.3) order.splice(Math.floor(next() * (order.length + 1)), 0, one)
  }
  return order
}

describe('the log of an origin', () => {
  test('after every batch, in any order and with any doubled, it holds what the rule says, neither more nor less', () => {
    fc.assert(
      fc.property(steps, disorder, (history, chance) => {
        const log = new Follower('o')
        const received: Batch[] = []
        for (const one of scrambled(batchesOf(history), chance)) {
          log.apply(one)
          received.push(one)
          expect({ base: log.base, contiguous: log.contiguous, live: live(log) }).toEqual(oracle(received))
        }
      }),
      { numRuns: 300 },
    )
  })

  test('two followers end equal to the origin, whatever was lost and sent again', () => {
    fc.assert(
      fc.property(steps, disorder, disorder, (history, chance, otherChance) => {
        const batches = batchesOf(history)
        const origin = new Follower('o')
        for (const one of batches) origin.apply(one)
        for (const luck of [chance, otherChance]) {
          const follower = new Follower('o')
          for (const one of scrambled(batches, luck)) if ((luck.next().value ?? 0) < 0.6) follower.apply(one)
          // The second half of a digest exchange: what the origin has above what the follower holds without a gap.
          for (const { seq } of origin.batchesAfter(follower.contiguous)) follower.apply(batches[seq - 1] as Batch)
          expect(live(follower)).toEqual(live(origin))
          expect(follower.contiguous).toBe(origin.contiguous)
        }
      }),
      { numRuns: 200 },
    )
  })

  test('an entry that always stood at the origin never disappears at a follower once it was seen', () => {
    fc.assert(
      fc.property(steps, disorder, (history, chance) => {
        const kept: Step = { changes: [['keep', 1]], dropped: 0 }
        const log = new Follower('o')
        let isSeen = false
        for (const one of scrambled(batchesOf([kept, ...history]), chance)) {
          const applied = log.apply(one)
          if (isSeen) expect(log.get('keep')).toBe(1)
          isSeen ||= log.get('keep') === 1
          if (applied.outcome === 'new' && log.get('keep') === undefined)
            expect(applied.changed.map(({ key }) => key)).not.toContain('keep')
        }
        expect(log.get('keep')).toBe(1)
      }),
      { numRuns: 200 },
    )
  })

  test('what was deleted does not come back when its old batch is sent again, even after its tombstone is gone', () => {
    const log = new Follower('o')
    const old = batch(1, 1, { a: 1, keep: 1 })
    log.apply(old)
    log.apply(batch(2, 1, { a: undefined }))
    expect(live(log)).toEqual({ keep: 1 })
    log.apply(batch(3, 3, { keep: 1 }))
    expect([log.base, log.batchesAfter(0).flatMap(({ keys }) => keys)]).toEqual([3, ['keep']])
    expect(log.apply(old)).toEqual({ outcome: 'stale' })
    expect(live(log)).toEqual({ keep: 1 })
  })

  test('a deletion is told as a change, whether by a tombstone or by its batch dropping out', () => {
    const log = new Follower('o')
    log.apply(batch(1, 1, { a: 1, b: 1 }))
    expect(log.apply(batch(2, 1, { a: undefined }))).toEqual({ outcome: 'new', changed: [gone('a')] })
    // Also what was told before: a key that is not there any more cannot be gone twice.
    expect(log.apply(batch(3, 3, {}))).toEqual({ outcome: 'new', changed: [gone('a'), gone('b')] })
  })

  test('a base takes effect only when every batch from it on is there', () => {
    const log = new Follower('o')
    log.apply(batch(1, 1, { a: 1, b: 1 }))
    log.apply(batch(4, 3, { b: 1 }))
    expect([log.base, live(log)]).toEqual([1, { a: 1, b: 1 }])
    log.apply(batch(3, 1, { a: 2 }))
    expect([log.base, log.contiguous, live(log)]).toEqual([3, 4, { a: 2, b: 1 }])
  })

  test('a higher incarnation clears everything at once and tells every key of it', () => {
    const log = new Follower('o')
    log.apply(batch(1, 1, { a: 1, b: 1 }))
    const applied = log.apply(batch(3, 1, { b: 2 }, 2))
    expect(applied).toEqual({ outcome: 'new', changed: [gone('a'), { key: 'b', value: 2 }] })
    expect([live(log), log.incarnation, log.contiguous]).toEqual([{ b: 2 }, 2, 0])
    expect(log.apply(batch(2, 1, { a: 9 }, 1))).toEqual({ outcome: 'stale' })
    expect(live(log)).toEqual({ b: 2 })
  })

  test('a batch it has is a duplicate, and what it has can be passed on in order', () => {
    const log = new Follower('o')
    for (const seq of [3, 1, 2]) log.apply(batch(seq, 1, {}))
    expect(log.apply(batch(2, 1, { a: 1 }))).toEqual({ outcome: 'duplicate' })
    expect(log.batchesAfter(1).map(({ seq }) => seq)).toEqual([2, 3])
    expect([log.holds(3), log.holds(4)]).toEqual([true, false])
  })

  test('an origin that says more than the limits allow is not kept, by bytes nor by number of batches', () => {
    const heavy = new Follower('o')
    const outcomes = new Set<string>()
    for (let seq = 1; seq <= 200; seq++) outcomes.add(heavy.apply(batch(seq, 1, {}, 1, 64 * 1024)).outcome)
    expect([...outcomes]).toEqual(['new', 'over-limit'])
    expect(heavy.bytes).toBe(8 * 1024 * 1024)
    const many = new Follower('o')
    for (let seq = 1; seq <= 8192; seq++) expect(many.apply(batch(seq, 1, {})).outcome).toBe('new')
    expect(many.apply(batch(8193, 1, {})).outcome).toBe('over-limit')
    expect(many.apply(batch(1, 1, { a: 1 }, 2)).outcome).toBe('new')
    expect(many.bytes).toBe(10)
  })

  test('an origin may speak of so many keys and no more, however little each takes', () => {
    const log = new Follower('o')
    const entries = Object.fromEntries(Array.from({ length: 4096 }, (_, i) => [`k${i}`, 1]))
    for (let seq = 1; seq <= 32; seq++) expect(log.apply(batch(seq, 1, entries)).outcome).toBe('new')
    expect(log.apply(batch(33, 1, { a: 1 })).outcome).toBe('over-limit')
    expect(log.apply(batch(33, 33, {})).outcome).toBe('new')
    // Its base counts only when the batches down to it are there, which they are: room for as much again.
    expect(log.apply(batch(34, 33, entries)).outcome).toBe('new')
  })

  test('a base that drops more keys than are looked for one by one drops just those that stand nowhere else', () => {
    const log = new Follower('o')
    const many = Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`k${i}`, 1]))
    log.apply(batch(1, 1, many))
    log.apply(batch(2, 1, { k3: 2, k4: undefined }))
    log.apply(batch(3, 2, { k5: 3 }))
    expect(live(log)).toEqual({ k3: 2, k5: 3 })
  })

  test('what is kept is a copy: the frame it came in may be used for the next', () => {
    const log = new OriginLog('o')
    const first = { ...batch(1, 1, { a: 1 }), payload: new Uint8Array([1, 2, 3]), signature: new Uint8Array([4, 5]) }
    log.apply(first)
    first.payload.fill(9)
    first.signature.fill(9)
    const kept = log.batch(1)
    expect([kept?.payload, kept?.signature]).toEqual([new Uint8Array([1, 2, 3]), new Uint8Array([4, 5])])
    expect(log.batch(2)).toBe(undefined)
  })

  test('bytes are given back when the base moves', () => {
    const log = new Follower('o')
    for (let seq = 1; seq <= 5; seq++) log.apply(batch(seq, 1, { a: seq }))
    log.apply(batch(6, 6, { a: 6 }))
    expect(log.bytes).toBe(10)
  })
})
