import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  BATCH_BYTES_MAX,
  BATCH_ENTRIES_MAX,
  decodeBatch,
  ENTRY_KEY_BYTES_MAX,
  encodeBatchPayload,
  peekBatch,
  signedBytes,
} from './batch.ts'
import { encodeMsgpack } from './msgpack.ts'

const SIGNATURE = new Uint8Array(64)
const decode = (value: unknown) => decodeBatch(encodeMsgpack(value), SIGNATURE)

describe('batches', () => {
  test('a batch is decoded as it was encoded, tombstones included', () => {
    const head = {
      origin: 'a',
      incarnation: 1_800_000_000_000_123,
      seq: 7,
      base: 3,
      entries: [
        { key: 'service/orders', value: { i: 1, h: 1, w: 1 } },
        { key: 'link/b', value: undefined },
      ],
    }
    const payload = encodeBatchPayload(head)
    expect(decodeBatch(payload, SIGNATURE)).toEqual({ ok: true, batch: { ...head, payload, signature: SIGNATURE } })
  })

  test('which batch it is can be told from its first bytes, the same as from all of them', () => {
    const count = fc.oneof(fc.nat(300), fc.nat(70_000), fc.nat(), fc.maxSafeNat())
    const origin = fc.string({ unit: fc.constantFrom(...'12DKoW'), minLength: 1, maxLength: 128 })
    fc.assert(
      fc.property(origin, count, count, (origin, incarnation, last) => {
        const seq = Math.max(1, last)
        const payload = encodeBatchPayload({ origin, incarnation, seq, base: 1, entries: [] })
        expect(peekBatch(payload)).toEqual({ origin, incarnation, seq })
        // As it stands in a frame: not at the beginning of its memory.
        const shifted = new Uint8Array(payload.length + 7)
        shifted.set(payload, 7)
        expect(peekBatch(shifted.subarray(7))).toEqual({ origin, incarnation, seq })
        for (let cut = 0; cut < payload.length; cut++) peekBatch(payload.subarray(0, cut))
      }),
    )
  })

  test('what is told from the first bytes of anything that decodes is never another batch than decoding finds', () => {
    const good = encodeBatchPayload({ origin: '12DKoW', incarnation: 2 ** 45, seq: 70_000, base: 1, entries: [] })
    const change = fc.tuple(fc.nat(good.length - 1), fc.nat(255))
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 3 }), changes => {
        const bytes = good.slice()
        for (const [at, value] of changes) bytes[at] = value
        const head = peekBatch(bytes)
        const decoded = decodeBatch(bytes, SIGNATURE)
        if (head === undefined || !decoded.ok) return
        const { origin, incarnation, seq } = decoded.batch
        // Ids are ASCII; another text is read as other characters and found to be unknown.
        expect({ incarnation: head.incarnation, seq: head.seq }).toEqual({ incarnation, seq })
        if (/^[ -~]*$/.test(origin)) expect(head.origin).toBe(origin)
      }),
      { numRuns: 1000 },
    )
  })

  test('elements after the sixth belong to later versions and are ignored', () => {
    expect(decode([1, 'a', 1, 1, 1, [], 'later', { x: 1 }]).ok).toBe(true)
  })

  test.each([
    ['not an array', { a: 1 }],
    ['five elements', [1, 'a', 1, 1, 1]],
    ['another version', [2, 'a', 1, 1, 1, []]],
    ['no origin', [1, '', 1, 1, 1, []]],
    ['an origin too long', [1, 'x'.repeat(129), 1, 1, 1, []]],
    ['an origin that is bytes', [1, new Uint8Array(3), 1, 1, 1, []]],
    ['a negative incarnation', [1, 'a', -1, 1, 1, []]],
    ['an incarnation beyond safe integers', [1, 'a', 2 ** 60, 1, 1, []]],
    ['a fraction as number', [1, 'a', 1, 1.5, 1, []]],
    ['batch 0', [1, 'a', 1, 0, 1, []]],
    ['base 0', [1, 'a', 1, 1, 0, []]],
    ['a base beyond the batch', [1, 'a', 1, 1, 2, []]],
    ['half a pair', [1, 'a', 1, 1, 1, ['node']]],
    ['an empty key', [1, 'a', 1, 1, 1, ['', 1]]],
    ['a key too long', [1, 'a', 1, 1, 1, ['k'.repeat(ENTRY_KEY_BYTES_MAX + 1), 1]]],
    ['a key that is a number', [1, 'a', 1, 1, 1, [5, 1]]],
    ['too many entries', [1, 'a', 1, 1, 1, Array.from({ length: (BATCH_ENTRIES_MAX + 1) * 2 }, () => 'k')]],
  ])('a malformed batch is refused with a reason: %s', (_, value) => {
    expect(decode(value)).toEqual({ ok: false, reason: expect.stringMatching(/./) })
  })

  test('values that resist being shown as text are refused like any other, not thrown over', () => {
    const tricky = { toString: 1, valueOf: 1 }
    for (let at = 0; at < 6; at++) {
      const value: unknown[] = [1, 'a', 1, 1, 1, []]
      value[at] = tricky
      expect(decode(value).ok).toBe(false)
      value[at] = [tricky]
      expect(decode(value).ok).toBe(false)
    }
  })

  test('a batch or a signature over its limit is refused unread', () => {
    expect(decodeBatch(new Uint8Array(BATCH_BYTES_MAX + 1), SIGNATURE)).toEqual({
      ok: false,
      reason: `batch of ${BATCH_BYTES_MAX + 1} bytes, at most ${BATCH_BYTES_MAX}`,
    })
    const payload = encodeMsgpack([1, 'a', 1, 1, 1, []])
    expect(decodeBatch(payload, new Uint8Array(129)).ok).toBe(false)
  })

  test('arbitrary and mutated bytes never throw', () => {
    const good = encodeBatchPayload({
      ...{ origin: 'a', incarnation: 5, seq: 2, base: 1 },
      entries: [
        { key: 'node', value: { n: 'a', r: 'x' } },
        { key: 'link/b', value: { r: 1, l: 0 } },
      ],
    })
    const mutations = fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 })
    fc.assert(
      fc.property(mutations, fc.uint8Array({ maxLength: 64 }), (changes, noise) => {
        const bytes = good.slice()
        for (const [at, value] of changes) bytes[at] = value
        expect(typeof decodeBatch(bytes, SIGNATURE).ok).toBe('boolean')
        expect(typeof decodeBatch(noise, SIGNATURE).ok).toBe('boolean')
      }),
      { numRuns: 3000 },
    )
  })

  test('what is signed begins with words of its own, so the signature is good for nothing else', () => {
    const signed = signedBytes(Uint8Array.of(1, 2, 3))
    expect(Buffer.from(signed).toString('latin1')).toBe('flatmesh batch 1\n\x01\x02\x03')
  })
})
