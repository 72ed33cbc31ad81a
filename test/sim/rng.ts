import { hashText } from '../../router/hash.ts'

/** A seeded source of chance: the same seed, the same run. sfc32 after C. Doty-Humphrey's PractRand. */
export function seededRandom(seed: number): () => number {
  let a = 0x9e3779b9 ^ seed
  let b = 0x243f6a88
  let c = 0xb7e15162 ^ Math.imul(seed, 0x85ebca6b)
  let counter = 1
  const next = (): number => {
    const sum = (((a + b) | 0) + counter) | 0
    counter = (counter + 1) | 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) | 0
    c = (c << 21) | (c >>> 11)
    c = (c + sum) | 0
    return (sum >>> 0) / 4294967296
  }
  // The first outputs still show the seed.
  for (let i = 0; i < 15; i++) next()
  return next
}

/**
 * A source of its own for one purpose (`loss`, `router/n7` …), so that one more draw in one place shifts no other place.
 * The purpose is part of the seed; equal purposes give equal streams.
 */
export function randomFor(seed: number, purpose: string): () => number {
  return seededRandom(hashText(`${seed} ${purpose}`))
}

/** One of `items`, which must not be empty. */
export function pickOne<T>(random: () => number, items: readonly T[]): T {
  return items[Math.floor(random() * items.length)] as T
}

/** A copy of `items` in random order (Fisher-Yates). */
export function shuffle<T>(random: () => number, items: readonly T[]): T[] {
  const shuffled = [...items]
  for (let i = shuffled.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1))
    const held = shuffled[i] as T
    shuffled[i] = shuffled[j] as T
    shuffled[j] = held
  }
  return shuffled
}
