import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { BATCH_BYTES_MAX } from './batch.ts'
import {
  DIGEST_ORIGINS_MAX,
  decodeGossipFrame,
  encodeGossipFrame,
  FRAME_BYTES_MAX,
  FRAME_PROOFS_MAX,
  type GossipFrame,
} from './frame.ts'
import { encodeMsgpack } from './msgpack.ts'

const frame = fc.oneof(
  fc.record({
    type: fc.constant('batches' as const),
    proofs: fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 4 }),
    batches: fc.array(
      fc.record({ payload: fc.uint8Array({ maxLength: 40 }), signature: fc.uint8Array({ maxLength: 64 }) }),
      { maxLength: 4 },
    ),
    isAnswer: fc.boolean(),
  }),
  fc.record({
    type: fc.constant('summary' as const),
    hashes: fc.constantFrom(1, 2, 64, 1024).chain(n => fc.uint8Array({ minLength: 4 * n, maxLength: 4 * n })),
    handOn: fc.boolean(),
    load: fc.nat(),
  }),
  fc.record({
    type: fc.constant('digest' as const),
    reply: fc.boolean(),
    versions: fc
      .array(fc.tuple(fc.string(), fc.maxSafeNat(), fc.maxSafeNat()), { maxLength: 8 })
      .map(rows => new Map(rows.map(([origin, incarnation, contiguous]) => [origin, { incarnation, contiguous }]))),
  }),
)

/** Digits and text only, so that views of any class compare by their bytes. */
function shown(value: GossipFrame | undefined): unknown {
  if (value?.type === 'batches') {
    return {
      isAnswer: value.isAnswer,
      proofs: value.proofs.map(proof => [...proof]),
      batches: value.batches.map(({ payload, signature }) => [[...payload], [...signature]]),
    }
  }
  return value?.type === 'summary' ? [value.handOn, value.load, ...value.hashes] : value
}

describe('gossip frames', () => {
  test('a frame is decoded as it was encoded', () => {
    fc.assert(
      fc.property(frame, value => {
        const decoded = decodeGossipFrame(encodeGossipFrame(value))
        expect(decoded.ok && shown(decoded.frame)).toEqual(shown(value))
      }),
      { numRuns: 300 },
    )
  })

  test('a type of a later version, and later elements of a known one, are ignored', () => {
    expect(decodeGossipFrame(encodeMsgpack([9, 'anything']))).toEqual({ ok: true, frame: undefined })
    expect(decodeGossipFrame(encodeMsgpack([2, Uint8Array.of(1, 2, 3, 4), 'later']))).toMatchObject({
      ok: true,
      frame: { type: 'summary' },
    })
  })

  test.each([
    ['not an array', 5],
    ['empty', []],
    ['a type that is text', ['batches', [], []]],
    ['proofs that are not a list', [1, 'x', []]],
    ['a proof that is text', [1, ['x'], []]],
    ['a proof too long', [1, [new Uint8Array(4097)], []]],
    ['too many proofs', [1, Array.from({ length: FRAME_PROOFS_MAX + 1 }, () => new Uint8Array(1)), []]],
    ['half a batch', [1, [], [new Uint8Array(1)]]],
    ['a batch that is text', [1, [], ['x', 'y']]],
    ['a batch too long', [1, [], [new Uint8Array(BATCH_BYTES_MAX + 1), new Uint8Array(1)]]],
    ['a summary without hashes', [2]],
    ['a summary of three buckets', [2, new Uint8Array(12)]],
    ['a summary of too many buckets', [2, new Uint8Array(8192)]],
    ['a digest about a bucket that is not there', [3, false, [], 4, [4]]],
    ['a digest about three buckets', [3, false, [], 3, [0]]],
    ['a summary too long', [2, 'x'.repeat(65)]],
    ['a digest without triples', [3, true, ['a', 1]]],
    ['a digest with a negative number', [3, true, ['a', -1, 0]]],
    ['a digest with an origin that is a number', [3, true, [1, 1, 1]]],
    ['a digest of too many', [3, true, Array.from({ length: (DIGEST_ORIGINS_MAX + 1) * 3 }, () => 0)]],
  ])('a malformed frame is refused with a reason: %s', (_, value) => {
    expect(decodeGossipFrame(encodeMsgpack(value))).toEqual({ ok: false, reason: expect.stringMatching(/./) })
  })

  test('a frame over the limit is refused unread', () => {
    expect(decodeGossipFrame(new Uint8Array(FRAME_BYTES_MAX + 1)).ok).toBe(false)
  })

  test('the largest digest that may be sent fits in a frame, or a large mesh would cut its own links', () => {
    const versions = new Map(
      Array.from({ length: DIGEST_ORIGINS_MAX }, (_, i) => [
        `12D3KooW${String(i).padStart(44, 'x')}`,
        { incarnation: Number.MAX_SAFE_INTEGER, contiguous: Number.MAX_SAFE_INTEGER },
      ]),
    )
    const bytes = encodeGossipFrame({ type: 'digest', versions, reply: true })
    expect(bytes.length).toBeLessThanOrEqual(FRAME_BYTES_MAX)
    expect(decodeGossipFrame(bytes).ok).toBe(true)
  })

  test('arbitrary and mutated bytes never throw', () => {
    fc.assert(
      fc.property(frame, fc.nat(), fc.nat(255), fc.uint8Array({ maxLength: 64 }), (value, at, byte, noise) => {
        const bytes = encodeGossipFrame(value).slice()
        bytes[at % bytes.length] = byte
        expect(typeof decodeGossipFrame(bytes).ok).toBe('boolean')
        expect(typeof decodeGossipFrame(noise).ok).toBe('boolean')
      }),
      { numRuns: 3000 },
    )
  })
})
