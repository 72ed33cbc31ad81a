import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createMesh } from './identity.ts'
import {
  addToken,
  appendIssued,
  readRootAuthority,
  stageMember,
  takeToken,
  tokenName,
  tokenState,
} from './membership-store.ts'

const nowMs = Date.parse('2026-03-01T12:00:00Z')
const files = { keyPem: 'key', certificatePem: 'certificate', rootPem: 'root', rootKeyPem: 'root key' }
let base: string
let dataDir: string

beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), 'flatmesh-store-'))
  dataDir = join(base, 'deep', 'data')
})
afterEach(() => rmSync(base, { recursive: true, force: true }))

test('nothing shows in the data folder before the commit, and nothing stays after giving up', () => {
  const stage = stageMember(dataDir)
  expect(readdirSync(dataDir).filter(name => !name.startsWith('.'))).toEqual([])
  stage.abandon()
  expect(readdirSync(base)).toEqual([])
})

test('giving up keeps folders that were there, and files that others have put there meanwhile', () => {
  mkdirSync(dataDir, { recursive: true })
  stageMember(dataDir).abandon()
  expect(readdirSync(dataDir)).toEqual([])
  rmSync(join(base, 'deep'), { recursive: true })
  const stage = stageMember(dataDir)
  writeFileSync(join(dataDir, 'theirs'), '')
  stage.abandon()
  expect(readdirSync(dataDir)).toEqual(['theirs'])
})

test('giving up after the commit is too late to take anything away', () => {
  const stage = stageMember(dataDir)
  stage.commit(files)
  stage.abandon()
  expect(readdirSync(dataDir).sort()).toEqual(['node.crt', 'node.key', 'root.crt', 'root.key'])
})

test('of two commands on one folder one becomes the member, and the other leaves its files alone', () => {
  const first = stageMember(dataDir)
  const second = stageMember(dataDir)
  second.commit({ ...files, keyPem: 'second' })
  expect(() => first.commit({ ...files, keyPem: 'first' })).toThrow(/never overwritten/)
  first.abandon()
  expect(readFileSync(join(dataDir, 'node.key'), 'utf8')).toBe('second')
  expect(readdirSync(dataDir).sort()).toEqual(['node.crt', 'node.key', 'root.crt', 'root.key'])
})

test('a commit that cannot put all its files in place takes back those it had put there', () => {
  const stage = stageMember(dataDir)
  writeFileSync(join(dataDir, 'root.crt'), 'precious')
  expect(() => stage.commit(files)).toThrow(/without an identity, found root\.crt/)
  stage.abandon()
  expect(readdirSync(dataDir)).toEqual(['root.crt'])
  expect(readFileSync(join(dataDir, 'root.crt'), 'utf8')).toBe('precious')
})

test('a commit that cannot write its files leaves nothing', () => {
  const stage = stageMember(dataDir)
  const staged = readdirSync(dataDir).find(name => name.startsWith('.new-')) ?? ''
  mkdirSync(join(dataDir, staged, 'node.crt'))
  expect(() => stage.commit(files)).toThrow(/cannot write/)
  stage.abandon()
  expect(existsSync(join(base, 'deep'))).toBe(false)
})

test('a node without the root key is told where to invite instead', () => {
  createMesh(dataDir, { mesh: 'acme', name: 'a', region: 'r', nowMs })
  expect(readRootAuthority(dataDir).mesh).toBe('acme')
  rmSync(join(dataDir, 'root.key'))
  expect(() => readRootAuthority(dataDir)).toThrow(/root\.key is not in .* invite on the node that created the mesh/)
})

test('a root key that is not the root certificate\u2019s is not used', () => {
  createMesh(dataDir, { mesh: 'acme', name: 'a', region: 'r', nowMs })
  writeFileSync(join(dataDir, 'root.key'), readFileSync(join(dataDir, 'node.key')))
  expect(() => readRootAuthority(dataDir)).toThrow(/does not belong to root\.crt/)
})

test('a token is good once, says so to the second user, and is unknown after its time', () => {
  mkdirSync(dataDir, { recursive: true })
  const secret = Buffer.alloc(16, 7)
  addToken(dataDir, secret, { mesh: 'acme', issuedAtMs: nowMs, expiresAtMs: nowMs + 1000 })
  expect(tokenState(dataDir, secret, nowMs + 999)).toBe('ok')
  expect(tokenState(dataDir, secret, nowMs + 1000)).toBe('token-expired')
  expect(takeToken(dataDir, secret, nowMs + 1000)).toBe('token-expired')
  expect(takeToken(dataDir, Buffer.alloc(16, 8), nowMs)).toBe('bad-token')
  expect(takeToken(dataDir, secret, nowMs)).toBe('ok')
  expect(takeToken(dataDir, secret, nowMs)).toBe('token-used')
  expect(tokenState(dataDir, secret, nowMs)).toBe('token-used')
  const other = Buffer.alloc(16, 9)
  addToken(dataDir, other, { mesh: 'acme', issuedAtMs: nowMs + 1000, expiresAtMs: nowMs + 2000 })
  expect(tokenState(dataDir, secret, nowMs + 1000)).toBe('bad-token')
  expect(readdirSync(join(dataDir, 'tokens'))).toEqual([tokenName(other)])
})

test('a sweep leaves alone what it cannot read and what is not a token', () => {
  const folder = join(dataDir, 'tokens')
  mkdirSync(folder, { recursive: true })
  const half = tokenName(Buffer.alloc(16, 1))
  writeFileSync(join(folder, half), '{"mesh":')
  writeFileSync(join(folder, 'README'), JSON.stringify({ mesh: 'a', issuedAtMs: 0, expiresAtMs: 0 }))
  addToken(dataDir, Buffer.alloc(16, 2), { mesh: 'acme', issuedAtMs: nowMs, expiresAtMs: nowMs + 1000 })
  expect(readdirSync(folder).sort()).toEqual([half, tokenName(Buffer.alloc(16, 2)), 'README'].sort())
  expect(tokenState(dataDir, Buffer.alloc(16, 1), nowMs)).toBe('bad-token')
})

test('every certificate has its line, and only the owner may read them', () => {
  mkdirSync(dataDir, { recursive: true })
  const line = { atMs: nowMs, serial: '0A', node: 'n', name: 'a', region: 'r', expiresAtMs: 1, token: 't', remote: 'x' }
  appendIssued(dataDir, line)
  appendIssued(dataDir, { ...line, name: 'b' })
  const path = join(dataDir, 'issued.jsonl')
  const lines = readFileSync(path, 'utf8').trimEnd().split('\n')
  expect(lines.map(text => JSON.parse(text))).toEqual([line, { ...line, name: 'b' }])
  expect(statSync(path).mode & 0o077).toBe(0)
})
