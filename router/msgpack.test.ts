import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { decodeMsgpack, encodeMsgpack } from './msgpack.ts'

/** Plain values as frames and batches hold them. */
const plain = fc.letrec(tie => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.constant(null),
    fc.boolean(),
    fc.integer(),
    fc.maxSafeInteger(),
    fc.double({ noNaN: true }).map(value => (value === 0 ? 0 : value)),
    fc.string(),
    fc.uint8Array({ maxLength: 300 }),
    fc.array(tie('value'), { maxLength: 20 }),
    fc.dictionary(
      fc.string().filter(key => key !== '__proto__'),
      tie('value'),
      { maxKeys: 20, noNullPrototype: true },
    ),
  ),
})).value

/** Byte views of any class as plain ones, so that a comparison looks at the bytes. */
function unviewed(value: unknown): unknown {
  if (value instanceof Uint8Array) return { bytes: [...value] }
  if (Array.isArray(value)) return value.map(unviewed)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, unviewed(inner)]))
}

describe('msgpack', () => {
  test('what was encoded is decoded to the same value', () => {
    fc.assert(
      fc.property(plain, value => {
        const decoded = decodeMsgpack(encodeMsgpack(value))
        expect(decoded.ok && unviewed(decoded.value)).toEqual(unviewed(value))
      }),
      { numRuns: 300 },
    )
  })

  test('arbitrary bytes give a value or a reason, never an exception', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), bytes => {
        const decoded = decodeMsgpack(bytes)
        expect(decoded.ok ? '' : typeof decoded.reason).toBe(decoded.ok ? '' : 'string')
      }),
      { numRuns: 3000 },
    )
  })

  test('a message that was cut short anywhere is refused', () => {
    fc.assert(
      fc.property(plain, fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), (value, share) => {
        const bytes = encodeMsgpack(value)
        expect(decodeMsgpack(bytes.subarray(0, Math.floor(bytes.length * share))).ok).toBe(false)
      }),
      { numRuns: 300 },
    )
  })

  test.each([
    ['array 32 of 4 billion', [0xdd, 0xff, 0xff, 0xff, 0xff]],
    ['array 16 of 65535', [0xdc, 0xff, 0xff, 0x01]],
    ['map 32 of 4 billion', [0xdf, 0xff, 0xff, 0xff, 0xff]],
    ['map 16 of 65535', [0xde, 0xff, 0xff]],
    ['small map of 15', [0x8f, 0x01]],
    ['bin 32 of 4 GiB', [0xc6, 0xff, 0xff, 0xff, 0xff, 0x00]],
    ['bin 8 one byte short', [0xc4, 0x02, 0x00]],
    ['str 32 of 4 GiB', [0xdb, 0xff, 0xff, 0xff, 0xff]],
    ['str 16 without its length', [0xda, 0x00]],
    ['a length that is cut itself', [0xdd, 0x00]],
    ['float 64 cut', [0xcb, 0, 0, 0]],
    ['nothing', []],
  ])('a lying length is refused before anything is allocated: %s', (_, bytes) => {
    expect(decodeMsgpack(Uint8Array.from(bytes))).toEqual({ ok: false, reason: 'not msgpack, or longer than it says' })
  })

  test.each([
    ['the byte msgpack never uses', [0xc1]],
    ['fixext 1', [0xd4, 0x01, 0x00]],
    ['ext 8 of no bytes', [0xc7, 0x00, 0x01]],
    ['a timestamp', [0xd6, 0xff, 0, 0, 0, 0]],
    ['an extension inside an array', [0x91, 0xd4, 0x72, 0x40]],
    ['ext 32 of 4 GiB', [0xc9, 0xff, 0xff, 0xff, 0xff, 0x01]],
  ])('extension types are refused, whatever msgpackr makes of them: %s', (_, bytes) => {
    expect(decodeMsgpack(Uint8Array.from(bytes)).ok).toBe(false)
  })

  test('nesting is bounded, so that a small message cannot exhaust the stack', () => {
    const nested = (levels: number): Uint8Array => Uint8Array.from([...Array<number>(levels).fill(0x91), 0xc0])
    expect(decodeMsgpack(nested(12)).ok).toBe(true)
    expect(decodeMsgpack(nested(13)).ok).toBe(false)
    expect(decodeMsgpack(nested(200_000)).ok).toBe(false)
  })

  test('bytes after the value are refused', () => {
    expect(decodeMsgpack(Uint8Array.of(0xc0, 0xc0))).toEqual({ ok: false, reason: '1 bytes after the end' })
  })

  test('a key named __proto__ does not reach the prototype of what is decoded', () => {
    const bytes = Uint8Array.from([0x81, 0xa9, ...Buffer.from('__proto__'), 0x81, 0xa1, 0x78, 0x01])
    const decoded = decodeMsgpack(bytes)
    const value: unknown = decoded.ok ? decoded.value : {}
    expect(value).not.toHaveProperty('x')
    expect({}).not.toHaveProperty('x')
  })
})
