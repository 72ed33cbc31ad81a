import { expect, it } from 'vitest'
import { copyOf, giveBack } from './copy-pool.ts'

it('keeps what it copied when the original is used again, whatever its size', () => {
  for (const length of [1, 4_095, 4_096, 64 * 1024, 64 * 1024 + 1]) {
    const original = Buffer.alloc(length, 'a')
    const copy = copyOf(original)
    original.fill('b')
    expect(copy.bytes.equals(Buffer.alloc(length, 'a'))).toBe(true)
  }
})

it('uses a room again only when it was given back', () => {
  const first = copyOf(Buffer.alloc(10_000, 'a'))
  const second = copyOf(Buffer.alloc(10_000, 'b'))
  expect(second.room).not.toBe(first.room)
  giveBack(first.room)
  expect(copyOf(Buffer.alloc(10_000, 'c')).room).toBe(first.room)
  expect(second.bytes.equals(Buffer.alloc(10_000, 'b'))).toBe(true)
})
