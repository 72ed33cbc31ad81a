import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { makeFolder } from './command-fixture.ts'
import { listenFile, readListenFile, writeListenFile } from './listen-file.ts'

const LISTEN = {
  ...{ overlay: '0.0.0.0:50001', calls: '[::]:50002', http: '127.0.0.1:50003', admin: 'unix:/run/f.sock' },
  tcp: [{ service: 'postgres', address: '127.0.0.1:50004' }],
}

test('what the daemon notes is what other commands read, and a later note replaces it whole', () => {
  using made = makeFolder()
  writeListenFile(made.folder, { ...LISTEN, http: '127.0.0.1:1' })
  writeListenFile(made.folder, LISTEN)
  expect(readListenFile(made.folder)).toEqual(LISTEN)
  expect(readdirSync(made.folder)).toEqual(['listen.json'])
})

test.each([
  '',
  '{',
  'null',
  '[]',
  '{}',
  JSON.stringify({ ...LISTEN, admin: 5 }),
  JSON.stringify({ ...LISTEN, http: 'x' }),
  JSON.stringify({ ...LISTEN, tcp: undefined }),
  JSON.stringify({ ...LISTEN, tcp: [{ service: 'a', address: 'x' }] }),
  JSON.stringify({ ...LISTEN, tcp: [null] }),
])('a note of %j is as good as none', text => {
  using made = makeFolder()
  writeFileSync(listenFile(made.folder), text)
  expect(readListenFile(made.folder)).toBeUndefined()
})

test('no note, or something else in its place, is as good as none', () => {
  using made = makeFolder()
  expect(readListenFile(made.folder)).toBeUndefined()
  mkdirSync(join(made.folder, 'listen.json'))
  expect(readListenFile(made.folder)).toBeUndefined()
})
