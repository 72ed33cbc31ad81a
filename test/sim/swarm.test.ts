import { describe, expect, test } from 'vitest'
import { runSwarmSeed } from './swarm.ts'

const SEEDS = Array.from({ length: 50 }, (_, i) => i + 1)

describe('a small mesh in trouble is well again once it is left in peace', () => {
  test.each(SEEDS)('seed %i', seed => {
    const { violations, shape } = runSwarmSeed(seed, { nodesMax: 8, roundsMax: 2 })
    expect(violations, `npm run sim -- --swarm 1 --seed ${seed} (at most 8 nodes; ${shape})`).toEqual([])
  })
})

test('one seed run twice does the same to the last byte, another seed does not', () => {
  const options = { nodesMax: 8, roundsMax: 2 }
  const [first, again, other] = [7, 7, 8].map(seed => runSwarmSeed(seed, options).transcript)
  expect(first).toBe(again)
  expect(first).not.toBe(other)
})
