import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import fc from 'fast-check'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { MeshError } from '../router/errors.ts'
import { encodeMsgpack } from '../router/msgpack.ts'
import { rootFingerprint } from './certificate.ts'
import { createMesh } from './identity.ts'
import {
  consumeToken,
  decodeJoinToken,
  encodeJoinToken,
  issueToken,
  type JoinToken,
  TOKEN_TTL_MS,
} from './join-token.ts'

const nowMs = Date.parse('2026-03-01T12:00:00Z')
const token: JoinToken = {
  mesh: 'acme',
  rootFingerprint: Buffer.alloc(32, 5).toString('base64url'),
  secret: Buffer.from('0123456789abcdef'),
  expiresAtMs: nowMs + 1000,
  calls: ['203.0.113.7:4701', '[2001:db8::1]:4701', 'use1-a.example.com:4701'],
  overlay: ['/ip4/203.0.113.7/tcp/4700'],
}
let dataDir: string

beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), 'flatmesh-token-'))
})
afterEach(() => rmSync(dataDir, { recursive: true, force: true }))

function errorOf(action: () => unknown): MeshError {
  try {
    action()
  } catch (error) {
    if (error instanceof MeshError) return error
    throw error
  }
  throw new Error('expected a MeshError, nothing was thrown')
}

test('a token is one word that says all it was made of', () => {
  const text = encodeJoinToken(token)
  expect(text).toMatch(/^fmj1_[A-Za-z0-9_-]+$/)
  expect(decodeJoinToken(` ${text}\n`, nowMs)).toEqual(token)
})

test('an expired token says until when it was good, by whose clock, and what to do', () => {
  const error = errorOf(() => decodeJoinToken(encodeJoinToken(token), token.expiresAtMs))
  expect(error.code).toBe('token-expired')
  expect(error.message).toMatch(
    /until 2026-03-01T12:00:01Z and the clock here says 2026-03-01T12:00:01Z.*flatmesh invite/,
  )
})

test('a mangled paste is told from a wrong token, wherever one character is lost, changed or added', () => {
  const text = encodeJoinToken(token)
  for (let at = 5; at < text.length; at++) {
    const changed = text[at] === 'A' ? 'B' : 'A'
    for (const mangled of [
      text.slice(0, at) + text.slice(at + 1),
      text.slice(0, at) + changed + text.slice(at + 1),
      `${text.slice(0, at)} ${text.slice(at)}`,
    ]) {
      const error = errorOf(() => decodeJoinToken(mangled, nowMs))
      expect(error.code).toBe('bad-token')
      expect(error.message).toMatch(/damaged/)
    }
  }
})

test.each([
  ['', /does not begin with fmj1_/],
  ['hello', /does not begin with fmj1_/],
  ['fmj2_AAAA', /of a version/],
  ['fmj1_', /damaged/],
  [`fmj1_${'A'.repeat(5000)}`, /5005 characters, expected at most 4096/],
  [' '.repeat(5000), /5000 characters/],
])('what is no token is refused with the reason: %#', (text, message) => {
  const error = errorOf(() => decodeJoinToken(text, nowMs))
  expect(error.code).toBe('bad-token')
  expect(error.message).toMatch(message)
})

test.each<[string, Partial<JoinToken>]>([
  ['mesh', { mesh: '../x' }],
  ['root', { rootFingerprint: 'AAAA' }],
  ['secret', { secret: new Uint8Array(15) }],
  ['expiresAtMs', { expiresAtMs: Number.NaN }],
  ['calls', { calls: [] }],
  ['calls', { calls: Array<string>(9).fill('a:1') }],
  ['calls.0', { calls: ['no-port'] }],
  ['calls.0', { calls: ['a:65536'] }],
  ['calls.0', { calls: ['a b:1'] }],
  ['calls.0', { calls: ['2001:db8::1:4701'] }],
  ['overlay.0', { overlay: ['ip4'] }],
  ['overlay.0', { overlay: [`/${'x'.repeat(300)}`] }],
])('a well-formed token with a wrong %s is refused', (field, change) => {
  const error = errorOf(() => decodeJoinToken(encodeJoinToken({ ...token, ...change }), nowMs))
  expect(error.code).toBe('bad-token')
  expect(error.message).toContain(`token: ${field} is not what`)
})

test('no text makes decoding do anything but answer or refuse', () => {
  const checked = (body: Uint8Array) => {
    // A valid checksum, so that the noise reaches the decoder behind it.
    return `fmj1_${Buffer.concat([body, sumOf(body)]).toString('base64url')}`
  }
  const whole = Buffer.from(encodeJoinToken(token).slice(5), 'base64url')
  expect(decodeJoinToken(checked(whole.subarray(0, -4)), nowMs)).toEqual(token)
  const refused = (text: string) => {
    expect(errorOf(() => decodeJoinToken(text, nowMs)).code).toBe('bad-token')
  }
  fc.assert(fc.property(fc.string({ maxLength: 200 }), refused))
  fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), body => void refused(checked(body))))
  fc.assert(fc.property(fc.jsonValue(), value => refused(checked(encodeMsgpack(value)))))
})

test('what invite prints leads to this mesh and is kept as a hash only', () => {
  const identity = createMesh(dataDir, { mesh: 'acme', name: 'a', region: 'r', nowMs })
  const text = issueToken(dataDir, { calls: ['127.0.0.1:1'], overlay: ['/ip4/127.0.0.1/tcp/2'], nowMs })
  const issued = decodeJoinToken(text, nowMs)
  expect(issued).toMatchObject({
    mesh: 'acme',
    rootFingerprint: rootFingerprint(identity.rootPem),
    expiresAtMs: nowMs + TOKEN_TTL_MS,
    calls: ['127.0.0.1:1'],
    overlay: ['/ip4/127.0.0.1/tcp/2'],
  })
  const [name = ''] = readdirSync(join(dataDir, 'tokens'))
  const kept = name + readFileSync(join(dataDir, 'tokens', name), 'utf8')
  for (const encoding of ['hex', 'base64', 'base64url'] as const) {
    expect(kept).not.toContain(Buffer.from(issued.secret).toString(encoding))
  }
  expect(consumeToken(dataDir, issued.secret, nowMs)).toBe('ok')
  expect(consumeToken(dataDir, issued.secret, nowMs)).toBe('token-used')
})

test('two tokens never share a secret', () => {
  createMesh(dataDir, { mesh: 'acme', name: 'a', region: 'r', nowMs })
  const secrets = Array.from({ length: 20 }, () => {
    const text = issueToken(dataDir, { calls: ['127.0.0.1:1'], overlay: [], nowMs })
    return Buffer.from(decodeJoinToken(text, nowMs).secret).toString('hex')
  })
  expect(new Set(secrets).size).toBe(20)
})

test('inviting is refused where it cannot work, and leaves no token behind', () => {
  const options = { calls: ['127.0.0.1:1'], overlay: [], nowMs }
  expect(errorOf(() => issueToken(dataDir, options))).toMatchObject({ code: 'data-dir' })
  createMesh(dataDir, { mesh: 'acme', name: 'a', region: 'r', nowMs })
  for (const [change, message] of [
    [{ ttlMs: 0 }, /1 second to 7 days/],
    [{ ttlMs: Number.NaN }, /1 second to 7 days/],
    [{ ttlMs: 8 * 24 * 3600_000 }, /1 second to 7 days/],
    [{ calls: [] }, /advertise/],
    [{ calls: ['/ip4/127.0.0.1/tcp/1'] }, /cannot carry the address/],
    [{ overlay: ['127.0.0.1:1'] }, /cannot carry the address/],
    [
      { calls: Array<string>(8).fill(`${'a'.repeat(250)}:1`), overlay: Array<string>(8).fill(`/${'a'.repeat(290)}`) },
      /too long/,
    ],
  ] as const) {
    const error = errorOf(() => issueToken(dataDir, { ...options, ...change }))
    expect(error.code).toBe('usage')
    expect(error.message).toMatch(message)
  }
  expect(readdirSync(dataDir)).not.toContain('tokens')
  rmSync(join(dataDir, 'root.key'))
  expect(errorOf(() => issueToken(dataDir, options)).message).toMatch(/root\.key is not in/)
})

test('one token admits one, even when several processes reach for it at the same moment', async () => {
  createMesh(dataDir, { mesh: 'acme', name: 'a', region: 'r', nowMs })
  const rounds = 10
  const secrets = Array.from({ length: rounds }, () => {
    const text = issueToken(dataDir, { calls: ['127.0.0.1:1'], overlay: [], nowMs })
    return Buffer.from(decodeJoinToken(text, nowMs).secret).toString('hex')
  })
  const go = join(dataDir, 'go')
  const program = `
    const { existsSync } = await import('node:fs')
    const { consumeToken } = await import(${JSON.stringify(pathToFileURL(join(import.meta.dirname, 'join-token.ts')).href)})
    console.log('ready')
    while (!existsSync(${JSON.stringify(go)}));
    const answers = ${JSON.stringify(secrets)}.map(hex =>
      consumeToken(${JSON.stringify(dataDir)}, Buffer.from(hex, 'hex'), ${nowMs}))
    console.log(answers.join(' '))`
  const racers = Array.from({ length: 3 }, () => racer(program))
  try {
    await Promise.all(racers.map(({ line }) => line(0)))
    writeFileSync(go, '')
    const answers = (await Promise.all(racers.map(({ line }) => line(1)))).map(text => text.split(' '))
    for (let round = 0; round < rounds; round++) {
      const got = answers.map(list => list[round]).sort()
      expect(got).toEqual(['ok', 'token-used', 'token-used'])
    }
  } finally {
    for (const { stop } of racers) stop()
  }
})

/** The documented checksum: four bytes of SHA-256 over prefix and body. */
function sumOf(body: Uint8Array): Buffer {
  return createHash('sha256').update('fmj1_').update(body).digest().subarray(0, 4)
}

/** A child process and a promise for each line it prints; rejects with what it said on stderr if it ends before. */
function racer(program: string) {
  const child = spawn(process.execPath, ['--input-type=module', '-e', program])
  let out = ''
  let trouble = ''
  const waiting = new Set<() => void>()
  const changed = () => {
    for (const check of waiting) check()
  }
  child.stdout.on('data', chunk => {
    out += chunk
    changed()
  })
  child.stderr.on('data', chunk => {
    trouble += chunk
  })
  child.on('close', changed)
  const line = (index: number) =>
    new Promise<string>((resolve, reject) => {
      const check = () => {
        const lines = out.split('\n')
        if (lines.length > index + 1) resolve(lines[index] ?? '')
        else if (child.exitCode !== null || child.signalCode !== null) reject(new Error(`ended: ${trouble}`))
      }
      waiting.add(check)
      check()
    })
  return { line, stop: () => child.kill('SIGKILL') }
}
