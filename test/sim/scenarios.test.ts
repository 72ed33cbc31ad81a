import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { runScenario } from './scenario.ts'

const folder = new URL('./scenarios/', import.meta.url)
const SEEDS = [1, 2, 3, 4]

describe('every scenario comes out as written, whatever the seed', () => {
  // Those of large/ take too long for here: `npm run sim -- --scenario FILE`.
  for (const file of readdirSync(folder)
    .filter(name => name.endsWith('.txt'))
    .sort()) {
    const text = readFileSync(new URL(file, folder), 'utf8')
    const title = /^# (.*)$/m.exec(text)?.[1] ?? file
    test.each(SEEDS)(`${title} (seed %i)`, seed => {
      const { found, expected } = runScenario(text, seed)
      expect(found, `${file}, seed ${seed}`).toEqual(expected)
    })
  }
})

test('one seed run twice gives the same transcript, another seed gives another', () => {
  const text = readFileSync(new URL('lossy-links.txt', folder), 'utf8')
  const [first, again, other] = [42, 42, 43].map(seed => runScenario(text, seed).transcript)
  expect(first).toBe(again)
  expect(first).not.toBe(other)
})
