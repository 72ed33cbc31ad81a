import { expect, test } from 'vitest'
import { chooseNearest, suggest } from './nearest.ts'

const commands = ['init', 'up', 'invite', 'join', 'status', 'nodes', 'links', 'services', 'routes', 'explain']

test.each([
  ['statsu', 'status'],
  ['service', 'services'],
  ['rotues', 'routes'],
  ['node', 'nodes'],
  ['Explain', 'explain'],
  ['joni', 'join'],
])('a slip of the hand in %s is taken for %s', (word, meant) => {
  expect(chooseNearest(word, commands)).toBe(meant)
})

test.each(['deploy', 'x', '', 'a'.repeat(100_000)])('a word that is near nothing gets no guess', word => {
  expect(chooseNearest(word, commands)).toBeUndefined()
  expect(suggest(word, commands)).toBe('')
})
