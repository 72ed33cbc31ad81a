import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { runScenario } from './scenario.ts'

const folder = new URL('./scenarios/', import.meta.url)
const SEEDS = [1, 2, 3, 4, 5, 6, 7, 8]

describe('every scenario comes out as written, whatever the seed', () => {
  for (const file of readdirSync(folder).sort()) {
    const text = readFileSync(new URL(file, folder), 'utf8')
    const title = /^# (.*)$/m.exec(text)?.[1] ?? file
    test.each(SEEDS)(`${title} (seed %i)`, seed => {
      const { found, expected } = runScenario(text, seed)
      expect(found, `${file}, seed ${seed}`).toEqual(expected)
    })
  }
})

test('one seed run twice gives the same transcript', () => {
  const text = readFileSync(new URL('lossy-links.txt', folder), 'utf8')
  expect(runScenario(text, 42).found).toEqual(runScenario(text, 42).found)
})
