import { expect, test } from 'vitest'
import { TextPool } from './text-pool.ts'

const read = (pool: TextPool, text: string): string => {
  const bytes = new TextEncoder().encode(`<${text}>`)
  return pool.read(bytes, 1, bytes.length - 1)
}

test('the same bytes are the same text, read anew or remembered', () => {
  const pool = new TextPool(10)
  for (const text of ['12D3KooWabcdefgh', 'x', '', '12D3KooWabcdefgh', 'x']) expect(read(pool, text)).toBe(text)
})

test('texts with the same end, and so the same hash, are not taken for each other', () => {
  const pool = new TextPool(10)
  for (const text of ['one-abcdefgh', 'two-abcdefgh', 'one-abcdefgh', 'abcdefgh']) expect(read(pool, text)).toBe(text)
})

test('bytes above ASCII are one unit each, as they came', () => {
  expect(new TextPool(10).read(new Uint8Array([0xff, 0x80]), 0, 2)).toBe('\u00ff\u0080')
})
