import { describe, expect, test } from 'vitest'
import { nodeIdOf, SimSigning } from './signing.ts'

describe.each(['stub', 'ed25519'] as const)('%s signatures', kind => {
  test('hold for what was signed by whom, for nothing else, and are counted', () => {
    const signing = new SimSigning(kind)
    const [a, b] = [nodeIdOf('a'), nodeIdOf('b')]
    const [ours, bytes] = [signing.of(a), new Uint8Array([1, 2, 3, 4, 5, 6, 7])]
    const signature = ours.sign(bytes)
    expect(signature).toHaveLength(64)
    expect(ours.verify(a, bytes, signature)).toBe(true)
    expect(ours.verify(b, bytes, signature)).toBe(false)
    for (let i = 0; i < bytes.length; i++) {
      const altered = bytes.slice()
      altered[i] = 9
      expect(ours.verify(a, altered, signature), `byte ${i}`).toBe(false)
    }
    expect([signing.signed, signing.checked]).toEqual([1, 9])
  })
})

test('a proof names its node, and anything else is none', () => {
  const { proof, verifyProof } = new SimSigning('stub').of(nodeIdOf('a'))
  expect(verifyProof(proof)).toBe(nodeIdOf('a'))
  expect(verifyProof(proof.subarray(1))).toBeUndefined()
  expect(verifyProof(new Uint8Array(408))).toBeUndefined()
})

test('a proof is kept once for all who ask, as a copy: the memory of a frame is used again', () => {
  const signing = new SimSigning('stub')
  const { proof, keepProof, verifyProof } = signing.of(nodeIdOf('a'))
  const frame = new Uint8Array(proof)
  const kept = keepProof?.(frame)
  frame.fill(0)
  expect(verifyProof(kept ?? frame)).toBe(nodeIdOf('a'))
  expect(signing.of(nodeIdOf('b')).keepProof?.(new Uint8Array(proof))).toBe(kept)
})

test('an id has the length of a real one and depends on the name alone', () => {
  expect(nodeIdOf('a')).toMatch(/^12D3KooW[1-9A-HJ-NP-Za-km-z]{44}$/)
  expect(nodeIdOf('a')).toBe(nodeIdOf('a'))
  expect(nodeIdOf('a')).not.toBe(nodeIdOf('b'))
})
