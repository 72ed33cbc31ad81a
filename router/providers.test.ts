import { describe, expect, test } from 'vitest'
import { Providers } from './providers.ts'

/** Chance from a list, over and over. */
function dice(...rolls: number[]): () => number {
  let at = 0
  return () => rolls[at++ % rolls.length] ?? 0
}
const all = Array.from({ length: 40 }, (_, i) => `n${i}`)

describe('the neighbours that hand on', () => {
  test('there are as many as wanted, or all where there are fewer', () => {
    const providers = new Providers(Math.random)
    expect(providers.onLinkUp('a', 1, 3)).toBeUndefined()
    expect(providers.onLinkUp('b', 2, 3)).toBeUndefined()
    expect([providers.has('a'), providers.has('b'), providers.has('c')]).toEqual([true, true, false])
    for (const [i, node] of all.entries()) providers.onLinkUp(node, 3 + i, 3)
    expect([...all, 'a', 'b'].filter(node => providers.has(node))).toHaveLength(3)
  })

  test('a newcomer takes the place of one of them as often as is fair to all', () => {
    // Of ten neighbours three hand on: the eleventh is among them in three cases of eleven.
    for (const [roll, isTaken] of [
      [0.27, true],
      [0.28, false],
    ] as const) {
      const providers = new Providers(dice(roll, 0))
      for (const node of ['a', 'b', 'c']) providers.onLinkUp(node, 3, 3)
      const given = providers.onLinkUp('k', 11, 3)
      expect([providers.has('k'), given]).toEqual(isTaken ? [true, 'a'] : [false, undefined])
      expect(providers.has('a')).toBe(!isTaken)
    }
  })

  test('one that is gone is replaced by a neighbour that is none yet, and nobody by nobody', () => {
    const providers = new Providers(dice(0))
    for (const node of ['a', 'b', 'c']) providers.onLinkUp(node, 3, 3)
    expect(providers.onLinkDown('x', ['a', 'b', 'c', 'd'])).toBeUndefined()
    expect(providers.onLinkDown('a', ['b', 'c', 'd'])).toBe('d')
    expect(providers.onLinkDown('b', ['c', 'd'])).toBeUndefined()
    expect(['a', 'b', 'c', 'd'].map(node => providers.has(node))).toEqual([false, false, true, true])
  })
})
