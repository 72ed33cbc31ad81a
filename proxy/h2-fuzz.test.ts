import { describe, expect, test } from 'vitest'
import { Dice, fuzzConnection, fuzzHeaderBlocks, fuzzRequest, fuzzResponse } from './h2-fuzz.ts'

/** Each kind gets a second here; `npm run fuzz -- --only h2` runs for longer, and with other seeds. */
const RUN_MS = 1000
const SEED = 20_261_122

/** Runs cases by seed until the time is over; at least 200 of them. A failure names its seed. */
function forAWhile<T>(run: (dice: Dice) => T): T[] {
  const endAtMs = performance.now() + RUN_MS
  const found: T[] = []
  for (let seed = SEED; found.length < 200 || performance.now() < endAtMs; seed++) {
    try {
      found.push(run(new Dice(seed)))
    } catch (error) {
      throw new Error(`seed ${seed}: ${error instanceof Error ? error.stack : String(error)}`)
    }
  }
  return found
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0)

describe('whatever a peer sends', () => {
  test('a connection neither throws, nor hangs, nor keeps a stream past its end', () => {
    const seen = forAWhile(fuzzConnection)
    // Were every connection refused at once, nothing would be tried.
    expect(sum(seen.map(({ streams }) => streams))).toBeGreaterThan(seen.length / 4)
  })

  test('a header block is read or refused, within its limits', () => {
    expect(sum(forAWhile(fuzzHeaderBlocks))).toBeGreaterThan(100)
  })
})

describe('translation into HTTP/1', () => {
  test('a request that is taken is the same request to the strict parser of HTTP/1', () => {
    const found = forAWhile(fuzzRequest)
    for (const verdict of ['taken', 'refused']) expect(found.filter(one => one === verdict).length).toBeGreaterThan(100)
  })

  test('so are an answer, and trailers', () => {
    expect(forAWhile(fuzzResponse).filter(isTaken => isTaken).length).toBeGreaterThan(100)
  })
})
