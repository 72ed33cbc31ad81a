import { expect, test } from 'vitest'
import { ByteRing } from './byte-ring.ts'

function write(ring: ByteRing, text: string, onFull?: () => boolean): void {
  const from = ring.reserve(text.length, onFull)
  ring.bytes.write(text, from)
  ring.commit(text.length)
}

function read(ring: ByteRing): string {
  const { from, end } = ring.read()
  return ring.bytes.toString('utf8', from, end)
}

test('what one end writes the other reads, in that order and in one piece, many times around', () => {
  const writer = new ByteRing(256)
  const reader = new ByteRing(writer.memory)
  const texts = Array.from({ length: 500 }, (_, i) => `${i}`.repeat(1 + (i % 15)))
  const found: string[] = []
  for (let i = 0; i < texts.length; i += 2) {
    for (const text of texts.slice(i, i + 2)) write(writer, text)
    found.push(read(reader), read(reader))
  }
  expect(found).toEqual(texts)
})

test('a record lies untouched until the next is read, however much is written meanwhile', () => {
  const writer = new ByteRing(64)
  const reader = new ByteRing(writer.memory)
  write(writer, 'first')
  const { from, end } = reader.read()
  let isFull = false
  for (let i = 0; i < 10 && !isFull; i++) {
    write(writer, 'another one', () => {
      isFull = true
      expect(reader.bytes.toString('utf8', from, end)).toBe('first')
      // Whoever reads on makes room.
      while (read(reader) === 'another one' && --i > 0);
      return true
    })
  }
  expect(isFull).toBe(true)
})

test('a record that could never find room is refused at once', () => {
  expect(() => new ByteRing(64).reserve(40)).toThrow('more than half a ring')
})

test('who waits for a side that is gone is told so', () => {
  expect(() => new ByteRing(64, 20).read()).toThrow('has not answered for 0.02 s')
})
