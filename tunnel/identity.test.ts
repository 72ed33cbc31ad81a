import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, createServer } from 'node:tls'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { MeshError } from '../router/errors.ts'
import { type LogFields, silentLog } from '../router/log.ts'
import { NODE_LIFETIME_MS, rootFingerprint } from './certificate.ts'
import { certificateChainPem, createMesh, loadIdentity, wrongNames } from './identity.ts'

const nowMs = Date.parse('2026-03-01T12:00:00Z')
const names = { mesh: 'acme', name: 'use1-a', region: 'aws-us-east-1' }
let base: string
let dataDir: string

beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), 'flatmesh-identity-'))
  dataDir = join(base, 'deep', 'data')
})
afterEach(() => rmSync(base, { recursive: true, force: true }))

function errorOf(action: () => unknown): MeshError {
  try {
    action()
  } catch (error) {
    if (error instanceof MeshError) return error
    throw error
  }
  throw new Error('expected a MeshError, nothing was thrown')
}

test('what init writes is what the daemon loads', () => {
  const made = createMesh(dataDir, { ...names, nowMs })
  const { key, ...loaded } = loadIdentity(dataDir, nowMs)
  expect(loaded).toMatchObject(names)
  expect(loaded.expiresAtMs).toBe(nowMs + NODE_LIFETIME_MS)
  expect(loaded.nodeId).toMatch(/^12D3KooW/)
  expect({ ...loaded, key: key.export({ type: 'pkcs8', format: 'pem' }) }).toEqual({ ...made, key: made.keyPem })
  expect(readdirSync(dataDir).sort()).toEqual(['node.crt', 'node.key', 'root.crt', 'root.key'])
})

test('private keys are readable by their owner alone, in a folder of theirs, whatever the umask', () => {
  const before = process.umask(0)
  try {
    createMesh(dataDir, { ...names, nowMs })
  } finally {
    process.umask(before)
  }
  for (const name of ['node.key', 'root.key']) expect(statSync(join(dataDir, name)).mode & 0o777, name).toBe(0o600)
  expect(statSync(dataDir).mode & 0o777).toBe(0o700)
})

test.each(['node.key', 'node.crt', 'root.crt', 'root.key'])('init never touches a folder that holds a %s', name => {
  mkdirSync(dataDir, { recursive: true })
  writeFileSync(join(dataDir, name), 'precious')
  const error = errorOf(() => createMesh(dataDir, { ...names, nowMs }))
  expect(error.code).toBe('data-dir')
  expect(error.message).toContain(name)
  expect(readdirSync(dataDir)).toEqual([name])
  expect(readFileSync(join(dataDir, name), 'utf8')).toBe('precious')
})

test('init keeps what else is in the folder', () => {
  mkdirSync(dataDir, { recursive: true })
  writeFileSync(join(dataDir, 'notes.txt'), 'mine')
  createMesh(dataDir, { ...names, nowMs })
  expect(readFileSync(join(dataDir, 'notes.txt'), 'utf8')).toBe('mine')
  expect(loadIdentity(dataDir, nowMs)).toMatchObject(names)
})

test('init into a path that is a file says so and leaves it alone', () => {
  const path = join(base, 'file')
  writeFileSync(path, 'mine')
  expect(errorOf(() => createMesh(path, { ...names, nowMs }))).toMatchObject({ code: 'data-dir' })
  expect(errorOf(() => createMesh(join(path, 'below'), { ...names, nowMs }))).toMatchObject({ code: 'data-dir' })
  expect(readFileSync(path, 'utf8')).toBe('mine')
})

test.each([
  [{ mesh: 'Acme' }, /mesh name "Acme"/],
  [{ name: 'a.b' }, /node name "a\.b"/],
  [{ region: 'a/b' }, /region "a\/b"/],
  [{ region: '..' }, /region "\.\."/],
  [{ name: '\u001b[2J' }, /node name "\\u001b\[2J"/],
])('a malformed name %j is refused before anything is written', (change, message) => {
  const error = errorOf(() => createMesh(dataDir, { ...names, ...change, nowMs }))
  expect(error.code).toBe('usage')
  expect(error.message).toMatch(message)
  expect(existsSync(join(base, 'deep'))).toBe(false)
  expect(wrongNames(names)).toBeUndefined()
})

test('a folder without an identity says how to get one', () => {
  for (const folder of [dataDir, base]) {
    const error = errorOf(() => loadIdentity(folder, nowMs))
    expect(error.code).toBe('no-identity')
    expect(error.message).toMatch(/flatmesh init .* flatmesh join/)
    expect(error.message).toContain(folder)
  }
})

test('a clock outside the life of the certificate is told apart from every other trouble', () => {
  createMesh(dataDir, { ...names, nowMs })
  expect(loadIdentity(dataDir, nowMs - 4 * 60_000).name).toBe('use1-a')
  const early = errorOf(() => loadIdentity(dataDir, nowMs - 6 * 60_000))
  expect(early.code).toBe('clock-wrong')
  expect(early.message).toMatch(/not yet valid: valid from 2026-03-01T11:55:00Z .* says 2026-03-01T11:54:00Z; set/)
  const late = errorOf(() => loadIdentity(dataDir, nowMs + NODE_LIFETIME_MS + 1000))
  expect(late.code).toBe('clock-wrong')
  expect(late.message).toMatch(/is expired: .* join again/)
})

test.each([
  ['node.key', /node\.key is missing/],
  ['node.crt', /node\.crt is missing/],
  ['root.crt', /root\.crt is missing/],
])('an identity without its %s is incomplete, not absent', (name, message) => {
  createMesh(dataDir, { ...names, nowMs })
  rmSync(join(dataDir, name))
  const error = errorOf(() => loadIdentity(dataDir, nowMs))
  expect(error.code).toBe('data-dir')
  expect(error.message).toMatch(message)
})

test('files that do not belong together are refused, each with the file to look at', () => {
  createMesh(dataDir, { ...names, nowMs })
  const otherDir = join(base, 'other')
  createMesh(otherDir, { ...names, nowMs })
  for (const [name, message] of [
    ['node.key', /node\.crt in .* is not for the key in node\.key/],
    ['node.crt', /node\.crt is unusable: .* not issued by the root/],
    ['root.crt', /node\.crt is unusable: .* not issued by the root/],
  ] as const) {
    const mine = readFileSync(join(dataDir, name))
    writeFileSync(join(dataDir, name), readFileSync(join(otherDir, name)))
    const error = errorOf(() => loadIdentity(dataDir, nowMs))
    expect(error.code, name).toBe('data-dir')
    expect(error.message, name).toMatch(message)
    writeFileSync(join(dataDir, name), mine)
  }
  expect(loadIdentity(dataDir, nowMs).name).toBe('use1-a')
})

test('a damaged key file is refused without quoting it', () => {
  createMesh(dataDir, { ...names, nowMs })
  writeFileSync(join(dataDir, 'node.key'), 'c2VjcmV0')
  const error = errorOf(() => loadIdentity(dataDir, nowMs))
  expect(error.code).toBe('data-dir')
  expect(error.message).toMatch(/expected an Ed25519 private key/)
  expect(JSON.stringify([error.message, error.cause])).not.toContain('c2VjcmV0')
})

test('an unreadable file, and one that is absurdly large, are errors and not absences', () => {
  createMesh(dataDir, { ...names, nowMs })
  rmSync(join(dataDir, 'node.crt'))
  mkdirSync(join(dataDir, 'node.crt'))
  expect(errorOf(() => loadIdentity(dataDir, nowMs))).toMatchObject({ code: 'data-dir' })
  rmSync(join(dataDir, 'node.crt'), { recursive: true })
  writeFileSync(join(dataDir, 'node.crt'), Buffer.alloc(100_000, 'x'))
  expect(errorOf(() => loadIdentity(dataDir, nowMs)).message).toMatch(/100000 bytes/)
})

test.each([
  'node.key',
  'root.key',
])('a %s that every user can read stops the daemon; one its group can read is warned of', name => {
  createMesh(dataDir, { ...names, nowMs })
  const warnings: LogFields[] = []
  const log = { ...silentLog, warn: (fields: LogFields) => void warnings.push(fields) }
  loadIdentity(dataDir, nowMs, log)
  expect(warnings).toEqual([])
  chmodSync(join(dataDir, name), 0o640)
  loadIdentity(dataDir, nowMs, log)
  expect(warnings).toMatchObject([
    { code: 'data-dir', reason: expect.stringContaining(`chmod 600 ${join(dataDir, name)}`) },
  ])
  chmodSync(join(dataDir, name), 0o604)
  const error = errorOf(() => loadIdentity(dataDir, nowMs, log))
  expect(error.code).toBe('data-dir')
  expect(error.message).toMatch(/every user .* chmod 600/)
})

test('two nodes of one mesh can speak TLS 1.3 with each other, and the root travels in the chain', async () => {
  // A node that bears its mesh's name is the hard case for chain building: issuer and subject look the same.
  const identity = createMesh(dataDir, { ...names, name: 'acme', nowMs: Date.now() })
  const tls = {
    key: identity.keyPem,
    cert: certificateChainPem(identity),
    ca: identity.rootPem,
    minVersion: 'TLSv1.3',
  } as const
  const server = createServer({ ...tls, requestCert: true, rejectUnauthorized: true }, socket => socket.end())
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  try {
    const address = server.address()
    const port = typeof address === 'object' && address !== null ? address.port : 0
    const socket = connect({ ...tls, port, host: '127.0.0.1', checkServerIdentity: () => undefined })
    await new Promise((resolve, reject) => socket.on('secureConnect', resolve).on('error', reject))
    expect(socket.authorized).toBe(true)
    const root = socket.getPeerX509Certificate()?.issuerCertificate
    expect(root && rootFingerprint(root.raw)).toBe(rootFingerprint(identity.rootPem))
    socket.destroy()
  } finally {
    await new Promise(resolve => server.close(resolve))
  }
})
