import { describe, expect, test } from 'vitest'
import { Providers } from './providers.ts'

/** Chance from a list, over and over. */
function dice(...rolls: number[]): () => number {
  let at = 0
  return () => rolls[at++ % rolls.length] ?? 0
}
function seeded(seed: number): () => number {
  let state = seed
  return () => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff
    return state / 0x80000000
  }
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
    expect(providers.onLinkUp('d', 400, 3)).toBe('a')
    expect(providers.onLinkDown('x')).toBeUndefined()
    expect(providers.onLinkDown('d')).toBe('a')
    expect(providers.onLinkDown('b')).toBeUndefined()
    expect(['a', 'b', 'c', 'd'].map(node => providers.has(node))).toEqual([true, false, true, false])
  })

  test('when fewer are wanted than there are, the one with the most to do is left for none', () => {
    const providers = new Providers(dice(0.99))
    for (const node of ['a', 'b', 'c', 'd']) providers.onLinkUp(node, 4, 3)
    providers.onLoad('b', 1)
    expect(providers.balance(3)).toBeUndefined()
    expect(providers.balance(2)).toEqual(['b'])
    expect(['a', 'b', 'c', 'd'].map(node => providers.has(node))).toEqual([true, false, true, false])
    expect(providers.balance(2)).toBeUndefined()
  })

  test('one with clearly more to do than a neighbour is left for it, and a difference of one is left alone', () => {
    const providers = new Providers(dice(0.99))
    for (const node of ['a', 'b', 'c']) providers.onLinkUp(node, 4, 2)
    providers.onLoad('a', 1)
    providers.onLoad('b', 6)
    providers.onLoad('c', 5)
    expect(providers.balance(3)).toBeUndefined()
    providers.onLoad('c', 4)
    expect(providers.balance(3)).toEqual(['b', 'c'])
    expect(['a', 'b', 'c'].map(node => providers.has(node))).toEqual([true, false, true])
    expect(providers.balance(3)).toBeUndefined()
  })

  test('a whole mesh that began with everyone at one provider comes to an even burden', () => {
    const random = seeded(7)
    const nodes = new Map(all.map(node => [node, new Providers(random)]))
    for (const [node, providers] of nodes) {
      for (const other of all) if (other !== node) providers.onLinkUp(other, 100_000, 2)
    }
    const load = (node: string): number => [...nodes.values()].filter(one => one.has(node)).length
    expect(Math.max(...all.map(load))).toBeGreaterThan(30)
    for (const providers of nodes.values()) {
      for (const node of all) if (providers.has(node)) providers.onLoad(node, load(node))
    }
    for (let round = 0; round < 100; round++) {
      for (const [node, providers] of nodes) {
        // It hears from one neighbour at a time, and from its providers when it changes them.
        const heard = all[Math.floor(random() * all.length)] as string
        if (heard !== node) providers.onLoad(heard, load(heard))
        for (const touched of providers.balance(3) ?? []) providers.onLoad(touched, load(touched))
      }
    }
    expect(Math.max(...all.map(load))).toBeLessThanOrEqual(5)
  })
})
