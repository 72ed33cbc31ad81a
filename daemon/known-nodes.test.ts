import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { silentLog } from '../router/log.ts'
import { KnownNodes } from './known-nodes.ts'

const A = { name: 'a', overlay: ['/ip4/1.2.3.4/tcp/1'], calls: ['1.2.3.4:2'] }
const B = { name: 'b', overlay: [], calls: [] }
let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'flatmesh-known-'))
})
afterEach(() => {
  vi.useRealTimers()
  rmSync(folder, { recursive: true, force: true })
})

function create(name = 'known.json'): { known: KnownNodes; warned: string[]; path: string } {
  const warned: string[] = []
  const log = { ...silentLog, warn: (_: unknown, message: string): void => void warned.push(message) }
  const path = join(folder, name)
  return { known: new KnownNodes({ log }, { path }), warned, path }
}
const reread = (name?: string): [string, unknown][] => {
  const { known } = create(name)
  known.load()
  return [...known.nodes]
}

test('what was known is known again after a restart', () => {
  const { known } = create()
  known.set('id-a', A)
  known.set('id-b', B)
  known.delete('id-b')
  known.stop()
  expect(reread()).toEqual([['id-a', A]])
})

test('a burst of changes makes one write, and a change that is none makes no write', () => {
  vi.useFakeTimers()
  const { known, path } = create()
  known.set('id-a', A)
  known.set('id-b', B)
  expect(readdirSync(folder)).toEqual([])
  vi.advanceTimersByTime(1000)
  expect(Object.keys(JSON.parse(readFileSync(path, 'utf8')))).toEqual(['id-a', 'id-b'])
  rmSync(path)
  known.set('id-a', { ...A })
  known.delete('nobody')
  vi.advanceTimersByTime(10_000)
  known.stop()
  expect(readdirSync(folder)).toEqual([])
})

test('the folder is made when it is not there, and no half-written file is left', () => {
  const { known } = create('deep/er/known.json')
  known.set('id-a', A)
  known.stop()
  expect(readdirSync(join(folder, 'deep/er'))).toEqual(['known.json'])
})

test('no file yet is nothing to talk about', () => {
  const { known, warned } = create()
  known.load()
  expect([known.nodes.size, warned]).toEqual([0, []])
})

test.each([
  ['not JSON', '{"id-a":', 1, []],
  ['a list', '[1,2]', 0, []],
  ['nothing', 'null', 0, []],
  ['a number', '7', 0, []],
  [
    'entries that cannot be read',
    JSON.stringify({ x: 1, y: { name: 1 }, z: { ...A, calls: [1] }, 'id-a': A }),
    0,
    ['id-a'],
  ],
])('a broken file costs no more than what is broken in it: %s', (_, text, warnings, ids) => {
  const { known, warned, path } = create()
  writeFileSync(path, text)
  known.load()
  expect([[...known.nodes.keys()], warned.length]).toEqual([ids, warnings])
})

test('a folder that cannot be written is a warning, not an end', () => {
  const { known, warned } = create('file/known.json')
  writeFileSync(join(folder, 'file'), '')
  known.set('id-a', A)
  known.stop()
  expect(warned).toEqual(['known nodes could not be written'])
})
