import fc from 'fast-check'
import { expect, test } from 'vitest'
import { BatchStore } from './batch-store.ts'

const bytes = (length: number, fill: number): Uint8Array => new Uint8Array(length).fill(fill)

test('whatever is put in and dropped, what is left comes out byte for byte, oldest first', () => {
  const put = fc.record({ size: fc.nat(700), dropped: fc.constantFrom(0, 0, 0, 0, 1, 3, 20) })
  fc.assert(
    fc.property(fc.array(put, { minLength: 1, maxLength: 60, size: 'max' }), puts => {
      const store = new BatchStore()
      const model = new Map<number, { payload: Uint8Array; signature: Uint8Array }>()
      let base = 1
      for (const [i, { size, dropped }] of puts.entries()) {
        const [seq, payload, signature] = [i + 1, bytes(size, i), bytes(64, 255 - i)]
        store.put({ seq, base, payload, signature })
        model.set(seq, { payload, signature })
        base = Math.min(seq + 1, base + dropped)
        store.dropBelow(base)
        for (const old of [...model.keys()]) if (old < base) model.delete(old)
        expect(store.after(0)).toEqual([...model].map(([held, one]) => ({ seq: held, ...one })))
        expect(store.bytes).toBe([...model.values()].reduce((sum, one) => sum + one.payload.length + 64, 0))
        expect([store.size, store.has(base - 1)]).toEqual([model.size, false])
      }
    }),
    { numRuns: 100 },
  )
})

test('what was put in is copied: the frame it came in may be used for the next', () => {
  const store = new BatchStore()
  const payload = bytes(10, 1)
  store.put({ seq: 1, base: 1, payload, signature: bytes(64, 2) })
  payload.fill(9)
  expect(store.after(0)[0]?.payload).toEqual(bytes(10, 1))
})

test('batches that came out of order leave in order, from the one after the last known', () => {
  const store = new BatchStore()
  for (const seq of [5, 3, 4]) store.put({ seq, base: seq - 1, payload: bytes(1, seq), signature: bytes(1, 0) })
  expect(store.after(3).map(({ seq, payload }) => [seq, payload[0]])).toEqual([
    [4, 4],
    [5, 5],
  ])
  expect([store.baseOf(5), store.baseOf(6)]).toEqual([4, undefined])
  store.clear()
  expect([store.size, store.bytes, store.after(0)]).toEqual([0, 0, []])
})
