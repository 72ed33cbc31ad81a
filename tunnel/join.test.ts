import { createPublicKey, sign } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer as createTcpServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, createServer, type TLSSocket } from 'node:tls'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { MeshError } from '../router/errors.ts'
import type { Log, LogFields } from '../router/log.ts'
import { decodeMsgpack, encodeMsgpack } from '../router/msgpack.ts'
import { CLOCK_SKEW_MS, issueNodeCertificate, NODE_LIFETIME_MS } from './certificate.ts'
import { certificateChainPem, createKey, createMesh, type Identity, loadIdentity } from './identity.ts'
import { joinMesh } from './join-client.ts'
import { JOIN_ALPN } from './join-message.ts'
import { JoinLimit, serveJoin } from './join-server.ts'
import { decodeJoinToken, encodeJoinToken, issueToken } from './join-token.ts'
import { readRootAuthority, tokenState } from './membership-store.ts'

const startMs = Date.parse('2026-03-01T12:00:00Z')
let base: string
let cleanups: (() => unknown)[]

beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), 'flatmesh-join-'))
  cleanups = []
})
afterEach(async () => {
  for (const clean of cleanups.reverse()) await clean()
  rmSync(base, { recursive: true, force: true })
})

async function listen(server: Server): Promise<string> {
  const sockets = new Set<Socket>()
  server.on('connection', socket => {
    sockets.add(socket)
    socket.on('error', () => {}).on('close', () => sockets.delete(socket))
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  cleanups.push(() => {
    for (const socket of sockets) socket.destroy()
    return new Promise(resolve => server.close(resolve))
  })
  const address = server.address()
  if (typeof address !== 'object' || address === null) throw new Error('no address')
  return `127.0.0.1:${address.port}`
}

/** A call port as join.ts says it must be. */
function callPort(
  identity: Identity,
  onJoiner: (socket: TLSSocket) => void,
  onHangUp: () => void = () => {},
): Promise<string> {
  const server = createServer(
    {
      key: identity.keyPem,
      cert: certificateChainPem(identity),
      ALPNProtocols: ['flatmesh-call/1', JOIN_ALPN],
      minVersion: 'TLSv1.3',
      requestCert: true,
      rejectUnauthorized: false,
    },
    socket => {
      socket.on('error', () => {})
      if (socket.alpnProtocol === JOIN_ALPN) onJoiner(socket)
      else socket.destroy()
    },
  )
  server.on('tlsClientError', () => {})
  server.on('connection', socket => socket.on('close', onHangUp))
  return listen(server)
}

interface InviterOptions {
  name?: string
  mesh?: string
  limit?: JoinLimit
}

/** A running inviter: its call port, its clock, its log, and what it did. */
async function startInviter(options: InviterOptions = {}) {
  const dataDir = join(base, `inviter-${options.name ?? 'use1-a'}-${options.mesh ?? 'acme'}`)
  const identity = createMesh(dataDir, {
    mesh: options.mesh ?? 'acme',
    name: options.name ?? 'use1-a',
    region: 'aws-us-east-1',
    nowMs: startMs,
  })
  const logged: { level: string; message: string; fields: LogFields }[] = []
  const at = (level: string) => (fields: LogFields, message: string) => void logged.push({ level, message, fields })
  const log: Log = { error: at('error'), warn: at('warn'), info: at('info'), debug: at('debug') }
  const taken = new Map<string, string>()
  const state = { nowMs: startMs, served: 0, settled: 0, questionTimeoutMs: 10_000 }
  const limit = options.limit ?? new JoinLimit({ failuresPerMinuteMax: 1000 })
  const deps = {
    dataDir,
    identity,
    log,
    limit,
    nameTaken: (name: string) => taken.get(name),
    members: () => ['/ip4/203.0.113.7/tcp/4700', '/ip4/203.0.113.9/tcp/4700'],
    clock: () => state.nowMs,
  }
  const serve = async (socket: TLSSocket) => {
    state.served++
    await serveJoin(deps, socket, { questionTimeoutMs: state.questionTimeoutMs })
    state.settled++
  }
  const address = await callPort(identity, socket => void serve(socket))
  const invite = (calls = [address]) =>
    issueToken(dataDir, { calls, overlay: ['/ip4/203.0.113.7/tcp/4700'], nowMs: state.nowMs })
  const worth = (token: string) => tokenState(dataDir, decodeJoinToken(token, startMs).secret, state.nowMs)
  const issued = () => {
    const path = join(dataDir, 'issued.jsonl')
    if (!existsSync(path)) return []
    const lines = readFileSync(path, 'utf8').trimEnd().split('\n')
    return lines.map((line): Record<string, unknown> => JSON.parse(line))
  }
  const refusals = () => logged.filter(line => line.message === 'join refused' && line.level === 'warn')
  return { dataDir, identity, address, invite, worth, issued, logged, refusals, taken, state }
}

function joinAs(name: string, token: string, change: Partial<Parameters<typeof joinMesh>[0]> = {}) {
  return joinMesh({ token, dataDir: join(base, name), name, region: 'gcp-europe-west3', nowMs: startMs, ...change })
}

/** The error of a join that must fail, having checked that it left nothing behind. */
async function failedJoin(name: string, token: string, change: Partial<Parameters<typeof joinMesh>[0]> = {}) {
  try {
    await joinAs(name, token, change)
  } catch (error) {
    if (!(error instanceof MeshError)) throw error
    expect(existsSync(join(base, name)), 'a failed join leaves no folder').toBe(false)
    return error
  }
  throw new Error('expected the join to fail')
}

async function until(condition: () => boolean, what: string): Promise<void> {
  const deadline = performance.now() + 10_000
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`waited 10 s in vain: ${what}`)
    await new Promise(resolve => setTimeout(resolve, 5))
  }
}

/** A joiner that sends what it likes, and hears all that is answered until the close. */
async function rawJoiner(address: string) {
  const [host, port] = address.split(':')
  const socket = connect({
    host,
    port: Number(port),
    ALPNProtocols: [JOIN_ALPN],
    minVersion: 'TLSv1.3',
    rejectUnauthorized: false,
  })
  cleanups.push(() => socket.destroy())
  socket.on('error', () => {})
  const chunks: Buffer[] = []
  socket.on('data', chunk => chunks.push(chunk))
  const closed = new Promise<Buffer>(resolve => socket.on('close', () => resolve(Buffer.concat(chunks))))
  await new Promise(resolve => socket.once('secureConnect', resolve))
  const answer = async () => {
    const bytes = await closed
    const decoded = decodeMsgpack(bytes.subarray(4))
    if (!decoded.ok || bytes.readUInt32BE(0) !== bytes.length - 4) throw new Error('no whole answer')
    return decoded.value
  }
  return { socket, closed, answer }
}

function framed(value: unknown): Buffer {
  const body = encodeMsgpack(value)
  const head = Buffer.alloc(4)
  head.writeUInt32BE(body.length)
  return Buffer.concat([head, body])
}

/** A question as joinMesh would ask it, for this socket. */
function questionFor(socket: TLSSocket, token: string) {
  const { key } = createKey()
  const session = socket.exportKeyingMaterial(32, 'EXPERIMENTAL flatmesh join 1', Buffer.alloc(0))
  return {
    v: 1,
    secret: decodeJoinToken(token, startMs).secret,
    publicKey: Buffer.from(createPublicKey(key).export({ format: 'jwk' }).x ?? '', 'base64url'),
    signature: sign(null, Buffer.concat([Buffer.from('flatmesh join 1\n'), session]), key),
    mesh: 'acme',
    name: 'raw-a',
    region: 'r',
    nowMs: startMs,
  }
}

describe('a node with a token', () => {
  test('becomes a member, with files it can start from and addresses to dial', async () => {
    const inviter = await startInviter()
    const token = inviter.invite()
    const joined = await joinAs('euw3-a', token)
    expect(joined.mesh).toBe('acme')
    expect(joined.overlay).toEqual(['/ip4/203.0.113.7/tcp/4700', '/ip4/203.0.113.9/tcp/4700'])
    expect(joined.identity).toMatchObject({ mesh: 'acme', name: 'euw3-a', region: 'gcp-europe-west3' })
    expect(joined.identity.rootPem).toBe(inviter.identity.rootPem)
    expect(joined.identity.expiresAtMs).toBe(startMs + NODE_LIFETIME_MS)
    const { key, ...loaded } = loadIdentity(join(base, 'euw3-a'), startMs)
    const { key: joinedKey, ...rest } = joined.identity
    expect(loaded).toEqual(rest)
    expect(key.equals(joinedKey)).toBe(true)
    expect(readdirSync(join(base, 'euw3-a')).sort()).toEqual(['node.crt', 'node.key', 'root.crt'])
    expect(statSync(join(base, 'euw3-a', 'node.key')).mode & 0o777).toBe(0o600)
  })

  test('is on record at the inviter, key, serial and all, while the secret is nowhere', async () => {
    const inviter = await startInviter()
    const token = inviter.invite()
    const { identity } = await joinAs('euw3-a', token)
    expect(inviter.issued()).toEqual([
      expect.objectContaining({
        atMs: startMs,
        node: identity.nodeId,
        name: 'euw3-a',
        region: 'gcp-europe-west3',
        expiresAtMs: identity.expiresAtMs,
        remote: '127.0.0.1',
      }),
    ])
    expect(inviter.logged).toMatchObject([{ level: 'info', message: 'node joined', fields: { name: 'euw3-a' } }])
    const secret = Buffer.from(decodeJoinToken(token, startMs).secret).toString('hex')
    expect(JSON.stringify([inviter.issued(), inviter.logged])).not.toContain(secret)
  })

  test('is refused, with the reason at both ends, when the token has been used', async () => {
    const inviter = await startInviter()
    const token = inviter.invite()
    await joinAs('euw3-a', token)
    const error = await failedJoin('euw3-b', token)
    expect(error.code).toBe('token-used')
    expect(error.message).toMatch(/has been used.*flatmesh invite/)
    expect(inviter.refusals()).toMatchObject([{ fields: { code: 'token-used', remote: '127.0.0.1' } }])
    expect(inviter.issued()).toHaveLength(1)
  })

  test('wins alone when twenty race for one token', async () => {
    const inviter = await startInviter()
    const token = inviter.invite()
    const racers = Array.from({ length: 20 }, (_, index) => `racer-${index}`)
    const outcomes = await Promise.allSettled(racers.map(name => joinAs(name, token)))
    const winners = racers.filter((_, index) => outcomes[index]?.status === 'fulfilled')
    expect(winners).toHaveLength(1)
    for (const outcome of outcomes) {
      if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 'token-used' })
    }
    expect(inviter.issued().map(line => line.name)).toEqual(winners)
    expect(readdirSync(base).filter(name => name.startsWith('racer-'))).toEqual(winners)
  })

  test('is refused when the token has expired by the inviter’s clock, though not by its own', async () => {
    const inviter = await startInviter()
    const token = issueToken(inviter.dataDir, { ttlMs: 60_000, calls: [inviter.address], overlay: [], nowMs: startMs })
    inviter.state.nowMs += 61_000
    expect((await failedJoin('euw3-a', token)).code).toBe('token-expired')
    expect(inviter.refusals()).toMatchObject([{ fields: { code: 'token-expired' } }])
  })

  test('gets nowhere with an expired token, and does not even call', async () => {
    const inviter = await startInviter()
    const token = inviter.invite()
    expect((await failedJoin('euw3-a', token, { nowMs: startMs + 16 * 60_000 })).code).toBe('token-expired')
    expect(inviter.state.served).toBe(0)
  })

  test('is refused when the inviter never issued that token', async () => {
    const inviter = await startInviter()
    const forged = encodeJoinToken({ ...decodeJoinToken(inviter.invite(), startMs), secret: Buffer.alloc(16, 1) })
    const error = await failedJoin('euw3-a', forged)
    expect(error.code).toBe('bad-token')
    expect(inviter.refusals()).toMatchObject([{ fields: { code: 'bad-token' } }])
  })

  test('is told who has the name it wants, and may come again under another with the same token', async () => {
    const inviter = await startInviter()
    inviter.taken.set('euw3-a', 'node 12D3KooWxyz in gcp-europe-west3')
    const token = inviter.invite()
    const error = await failedJoin('euw3-a', token)
    expect(error.code).toBe('join-refused')
    expect(error.message).toMatch(/name euw3-a is taken by node 12D3KooWxyz in gcp-europe-west3; choose another/)
    expect((await failedJoin('use1-a', token)).message).toMatch(/taken by the inviter itself/)
    expect(inviter.worth(token)).toBe('ok')
    expect((await joinAs('euw3-b', token)).identity.name).toBe('euw3-b')
  })

  test('is told to set its clock when that is off, before or after it speaks, and keeps its token', async () => {
    const inviter = await startInviter()
    const token = inviter.invite()
    const far = await failedJoin('euw3-a', token, { nowMs: startMs - 10 * 60_000 })
    expect(far.code).toBe('clock-wrong')
    expect(far.message).toMatch(/not yet valid.*clock here says 2026-03-01T11:50:00Z.*Set this machine's clock/)
    expect(inviter.issued()).toEqual([])
    for (const offMs of [-CLOCK_SKEW_MS + 10_000, CLOCK_SKEW_MS]) {
      const near = await failedJoin('euw3-a', token, { nowMs: startMs + offMs })
      expect(near.code).toBe('clock-wrong')
      expect(near.message).toMatch(/clocks differ by more than 4 minutes: 2026-03-01T12:00:00Z at the inviter use1-a/)
    }
    expect(inviter.worth(token)).toBe('ok')
    expect((await joinAs('euw3-a', token, { nowMs: startMs - 3 * 60_000 })).mesh).toBe('acme')
  })

  test.each([{ name: 'Bad' }, { region: 'a/b' }])('is stopped by a malformed name %j before it calls', async change => {
    const inviter = await startInviter()
    expect((await failedJoin('euw3-a', inviter.invite(), change)).code).toBe('usage')
    expect(inviter.state.served).toBe(0)
  })

  test('does not spend it when its data folder belongs to a member, or cannot be one', async () => {
    const inviter = await startInviter()
    const token = inviter.invite()
    await joinAs('euw3-a', inviter.invite())
    const key = readFileSync(join(base, 'euw3-a', 'node.key'))
    await expect(joinAs('euw3-a', token)).rejects.toMatchObject({ code: 'data-dir' })
    expect(readFileSync(join(base, 'euw3-a', 'node.key'))).toEqual(key)
    writeFileSync(join(base, 'file'), '')
    await expect(joinAs('euw3-b', token, { dataDir: join(base, 'file') })).rejects.toMatchObject({ code: 'data-dir' })
    expect(inviter.worth(token)).toBe('ok')
    expect(inviter.state.served).toBe(1)
  })
})

describe('whoever intercepts a joiner', () => {
  /** A TLS server that is not of the mesh, and all it hears. */
  async function impostor(identity: Identity) {
    const heard: Buffer[] = []
    // Connections are counted below TLS: a joiner that hangs up at once may do so before our end calls it secure.
    const state = { closed: 0 }
    const hear = (socket: TLSSocket) => socket.on('data', chunk => heard.push(chunk))
    const address = await callPort(identity, hear, () => state.closed++)
    return { address, heard, state }
  }

  function stranger(): Identity {
    return createMesh(join(base, 'stranger'), { mesh: 'acme', name: 'use1-a', region: 'aws-us-east-1', nowMs: startMs })
  }

  test('with a root of its own, mesh and node named alike, never hears the secret', async () => {
    const inviter = await startInviter()
    const { address, heard, state } = await impostor(stranger())
    const token = inviter.invite([address])
    const error = await failedJoin('euw3-a', token)
    expect(error.code).toBe('not-a-member')
    expect(error.message).toContain(`${address} (its certificate is of another root)`)
    expect(error.message).toMatch(/told nothing, the token is still good/)
    await until(() => state.closed === 1, 'the joiner hangs up')
    expect(Buffer.concat(heard)).toHaveLength(0)
    expect(inviter.worth(token)).toBe('ok')
  })

  test('showing the real root behind a certificate of its own never hears the secret', async () => {
    const inviter = await startInviter()
    const other = stranger()
    const { address, heard, state } = await impostor({ ...other, rootPem: inviter.identity.rootPem })
    expect((await failedJoin('euw3-a', inviter.invite([address]))).code).toBe('not-a-member')
    await until(() => state.closed === 1, 'the joiner hangs up')
    expect(Buffer.concat(heard)).toHaveLength(0)
  })

  test('showing the real certificates behind its own never hears the secret', async () => {
    const inviter = await startInviter()
    const other = stranger()
    const chain = other.certificatePem + certificateChainPem(inviter.identity)
    const { address, heard, state } = await impostor({ ...other, certificatePem: chain, rootPem: '' })
    expect((await failedJoin('euw3-a', inviter.invite([address]))).code).toBe('not-a-member')
    await until(() => state.closed === 1, 'the joiner hangs up')
    expect(Buffer.concat(heard)).toHaveLength(0)
  })

  test('with a certificate of the right root that has run out never hears the secret', async () => {
    const inviter = await startInviter()
    const root = readRootAuthority(inviter.dataDir)
    const publicKey = createPublicKey(inviter.identity.key)
    const node = { name: 'use1-a', region: 'r', publicKey }
    const { certificatePem } = issueNodeCertificate(root, node, startMs - 2 * NODE_LIFETIME_MS)
    const { address, heard, state } = await impostor({ ...inviter.identity, certificatePem })
    const error = await failedJoin('euw3-a', inviter.invite([address]))
    expect(error.code).toBe('clock-wrong')
    expect(error.message).toMatch(/expired/)
    await until(() => state.closed === 1, 'the joiner hangs up')
    expect(Buffer.concat(heard)).toHaveLength(0)
  })

  test('cannot put a question it has heard to the inviter again', async () => {
    const inviter = await startInviter()
    const token = inviter.invite()
    const first = await rawJoiner(inviter.address)
    const question = framed(questionFor(first.socket, token))
    first.socket.destroy()
    const second = await rawJoiner(inviter.address)
    second.socket.write(question)
    expect(await second.answer()).toMatchObject({ ok: false, code: 'join-refused', reason: /did not prove/ })
    expect(inviter.worth(token)).toBe('ok')
    const third = await rawJoiner(inviter.address)
    third.socket.write(framed(questionFor(third.socket, token)))
    expect(await third.answer()).toMatchObject({ ok: true })
  })

  test('does not keep a joiner from the right address after it', async () => {
    const inviter = await startInviter()
    const { address } = await impostor(stranger())
    expect((await joinAs('euw3-a', inviter.invite([address, inviter.address]))).mesh).toBe('acme')
  })
})

describe('a joiner that reaches nobody', () => {
  test('lists every address and why it failed', async () => {
    const inviter = await startInviter()
    const chatty = await listen(createTcpServer(socket => socket.end('SSH-2.0-hello\r\n')))
    const closing = await listen(createTcpServer(socket => socket.destroy()))
    const web = await listen(
      createServer({ key: inviter.identity.keyPem, cert: inviter.identity.certificatePem, ALPNProtocols: ['h2'] }),
    )
    const error = await failedJoin('euw3-a', inviter.invite(['127.0.0.1:1', chatty, closing, web]))
    expect(error.code).toBe('daemon-unreachable')
    expect(error.message).toContain('127.0.0.1:1 (connection refused)')
    expect(error.message).toContain(`${chatty} (answers, but not with TLS)`)
    expect(error.message).toContain(`${closing} (closed the connection)`)
    expect(error.message).toContain(`${web} (answers, but admits no joiners)`)
    expect(error.message).toMatch(/call port can be reached/)
  })

  test('gives up on one that is silent, and stops at once when it is told to', async () => {
    const inviter = await startInviter()
    const silent = await listen(createTcpServer(() => {}))
    const token = inviter.invite([silent])
    const error = await failedJoin('euw3-a', token, { connectTimeoutMs: 300 })
    expect(error.message).toContain(`${silent} (no answer within 300 ms)`)
    const controller = new AbortController()
    const stopped = failedJoin('euw3-a', token, { signal: controller.signal, connectTimeoutMs: 3_600_000 })
    controller.abort()
    expect((await stopped).code).toBe('cancelled')
    expect((await failedJoin('euw3-a', token, { signal: controller.signal })).code).toBe('cancelled')
  })
})

describe('an inviter that is broken', () => {
  async function answering(answer: (socket: TLSSocket, question: unknown, inviter: Identity) => void) {
    const inviter = await startInviter()
    const address = await callPort(inviter.identity, socket => {
      socket.once('data', chunk => {
        const decoded = decodeMsgpack(chunk.subarray(4))
        answer(socket, decoded.ok ? decoded.value : undefined, inviter.identity)
      })
    })
    return { inviter, token: inviter.invite([address]) }
  }

  test.each<[string, RegExp, (socket: TLSSocket) => void]>([
    ['closes without a word', /closed before a whole message/, socket => socket.destroy()],
    ['stops half-way', /closed before a whole message/, socket => socket.end(framed({ ok: true }).subarray(0, 6))],
    ['answers garbage', /not msgpack/, socket => socket.end(Buffer.from([0, 0, 0, 2, 0xc1, 0xc1]))],
    ['announces more than is read', /at most 16384/, socket => socket.write(Buffer.from([0x7f, 0, 0, 0]))],
    ['answers something else', /version this flatmesh does not read/, socket => socket.end(framed({ hello: 1 }))],
    [
      'refuses with an unknown code',
      /refused: because/,
      socket => socket.end(framed({ ok: false, code: 'x', reason: 'because' })),
    ],
    [
      'plays with the terminal',
      /refused: a \[2Jb$/,
      socket => socket.end(framed({ ok: false, code: 'bad-token', reason: 'a\u001b[2Jb' })),
    ],
  ])('and %s leaves nothing behind at the joiner', async (_what, message, answer) => {
    const { token } = await answering(answer)
    const error = await failedJoin('euw3-a', token)
    expect(error.message).toMatch(message)
  })

  test('and never answers leaves nothing behind at the joiner', async () => {
    const { token } = await answering(() => {})
    const error = await failedJoin('euw3-a', token, { answerTimeoutMs: 300 })
    expect(error.message).toMatch(/no whole message within 300 ms.*token may have been used up/)
  })

  test.each<
    [string, RegExp, (root: ReturnType<typeof readRootAuthority>) => { certificatePem: string; rootPem: string }]
  >([
    [
      'a certificate for a key that is not its own',
      /not for the key/,
      root => {
        const node = { name: 'euw3-a', region: 'gcp-europe-west3', publicKey: createPublicKey(createKey().key) }
        return { ...issueNodeCertificate(root, node, startMs), rootPem: root.certificatePem }
      },
    ],
    [
      'the root as its certificate',
      /unusable/,
      root => ({ certificatePem: root.certificatePem, rootPem: root.certificatePem }),
    ],
    ['no certificate', /unusable/, root => ({ certificatePem: '', rootPem: root.certificatePem })],
    ['no root', /root is another one/, () => ({ certificatePem: '', rootPem: '' })],
  ])('and hands out %s leaves nothing behind at the joiner', async (_what, message, make) => {
    const { token } = await answering((socket, _question, identity) => {
      const root = readRootAuthority(join(base, `inviter-${identity.name}-acme`))
      socket.end(framed({ ok: true, ...make(root), members: [] }))
    })
    const error = await failedJoin('euw3-a', token)
    expect(error.code).toBe('join-refused')
    expect(error.message).toMatch(message)
  })

  /** A yes for the key that asks, as far as `change` leaves it good. */
  function yes(socket: TLSSocket, question: unknown, identity: Identity, change: { name?: string; rootPem?: string }) {
    const root = readRootAuthority(join(base, `inviter-${identity.name}-acme`))
    const raw = question !== null && typeof question === 'object' && 'publicKey' in question ? question.publicKey : ''
    const x = raw instanceof Uint8Array ? Buffer.from(raw).toString('base64url') : ''
    const publicKey = createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' })
    const node = { name: change.name ?? 'euw3-a', region: 'gcp-europe-west3', publicKey }
    const { certificatePem } = issueNodeCertificate(root, node, startMs)
    socket.end(framed({ ok: true, certificatePem, rootPem: change.rootPem ?? root.certificatePem, members: [] }))
  }

  test('and names the joiner differently leaves nothing behind there', async () => {
    const { token } = await answering((socket, question, identity) =>
      yes(socket, question, identity, { name: 'other' }),
    )
    const error = await failedJoin('euw3-a', token)
    expect(error.message).toMatch(/a certificate for other in gcp-europe-west3, asked for euw3-a/)
  })

  test('and names another root in its answer than in its handshake leaves nothing behind at the joiner', async () => {
    const other = createMesh(join(base, 'other'), { mesh: 'acme', name: 'x', region: 'r', nowMs: startMs })
    const { token } = await answering((socket, question, identity) =>
      yes(socket, question, identity, { rootPem: other.rootPem }),
    )
    expect((await failedJoin('euw3-a', token)).message).toMatch(/its root is another one/)
  })

  test('and is given up while it is silent leaves nothing behind at the joiner', async () => {
    const controller = new AbortController()
    const { token } = await answering(() => controller.abort())
    expect((await failedJoin('euw3-a', token, { signal: controller.signal })).code).toBe('cancelled')
  })

  test('in that its root key is gone keeps the token and says so in its own log only', async () => {
    const inviter = await startInviter()
    const token = inviter.invite()
    rmSync(join(inviter.dataDir, 'root.key'))
    const error = await failedJoin('euw3-a', token)
    expect(error.code).toBe('data-dir')
    expect(error.message).not.toContain(inviter.dataDir)
    expect(inviter.logged).toMatchObject([
      { level: 'error', message: 'join failed here', fields: { code: 'data-dir' } },
    ])
    expect(inviter.worth(token)).toBe('ok')
  })

  test('in that it cannot keep its record hands out no certificate', async () => {
    const inviter = await startInviter()
    mkdirSync(join(inviter.dataDir, 'issued.jsonl'))
    expect((await failedJoin('euw3-a', inviter.invite())).code).toBe('data-dir')
  })
})

describe('a stranger on the join port', () => {
  test.each<[string, RegExp, Buffer]>([
    ['garbage', /not msgpack/, Buffer.from([0, 0, 0, 4, 0xc1, 1, 2, 3])],
    ['an HTTP request', /1195725856 bytes, at most 16384/, Buffer.from('GET / HTTP/1.1\r\n\r\n')],
    ['more than a question takes', /at most 16384/, Buffer.from([0, 0, 0x40, 1])],
    ['a list that claims to be endless', /not msgpack/, Buffer.from([0, 0, 0, 5, 0xdd, 0xff, 0xff, 0xff, 0xff])],
    ['an empty message', /not msgpack/, Buffer.alloc(4)],
    ['another version', /malformed at v/, framed({ v: 2 })],
    ['a short key', /malformed at/, framed({ v: 1, secret: Buffer.alloc(16), publicKey: Buffer.alloc(31) })],
  ])('that sends %s is told so and hung up on, and the next joiner is let in', async (_what, reason, bytes) => {
    const inviter = await startInviter()
    const raw = await rawJoiner(inviter.address)
    raw.socket.write(bytes)
    expect(await raw.answer()).toMatchObject({ ok: false, code: 'bad-frame', reason })
    expect(inviter.refusals()).toMatchObject([{ fields: { code: 'bad-frame' } }])
    expect((await joinAs('euw3-a', inviter.invite())).mesh).toBe('acme')
  })

  test.each([
    ['half a question and nothing more', Buffer.from([0, 0, 1, 0, 1])],
    ['nothing at all', Buffer.alloc(0)],
  ])('that sends %s is cut off in time, and the next joiner is let in', async (_what, bytes) => {
    const inviter = await startInviter()
    inviter.state.questionTimeoutMs = 300
    const raw = await rawJoiner(inviter.address)
    raw.socket.write(bytes)
    expect(await raw.answer()).toMatchObject({ ok: false, code: 'bad-frame', reason: /no whole message within 300 ms/ })
    inviter.state.questionTimeoutMs = 10_000
    expect((await joinAs('euw3-a', inviter.invite())).mesh).toBe('acme')
  })

  test('that drips its question byte by byte is cut off at the same moment as a silent one', async () => {
    const inviter = await startInviter()
    inviter.state.questionTimeoutMs = 300
    const raw = await rawJoiner(inviter.address)
    raw.socket.write(Buffer.from([0, 0, 0x40, 0]))
    const drip = setInterval(() => raw.socket.write(Buffer.from([0x01])), 20)
    cleanups.push(() => clearInterval(drip))
    expect(await raw.answer()).toMatchObject({ ok: false, code: 'bad-frame', reason: /within 300 ms/ })
  })

  test('that vanishes in the middle leaves no attempt open', async () => {
    const limit = new JoinLimit({ openMax: 1, failuresPerMinuteMax: 100 })
    const inviter = await startInviter({ limit })
    for (let round = 1; round <= 3; round++) {
      const raw = await rawJoiner(inviter.address)
      raw.socket.write(Buffer.from([0, 0, 1, 0, 1]))
      raw.socket.destroy()
      await until(() => inviter.state.settled === round, 'the attempt is over')
    }
    expect((await joinAs('euw3-a', inviter.invite())).mesh).toBe('acme')
  })

  test('without a token learns nothing about names, clocks or keys', async () => {
    const inviter = await startInviter()
    inviter.taken.set('raw-a', 'somebody')
    const raw = await rawJoiner(inviter.address)
    const question = { ...questionFor(raw.socket, inviter.invite()), secret: Buffer.alloc(16), nowMs: 0 }
    raw.socket.write(framed(question))
    expect(await raw.answer()).toMatchObject({ ok: false, code: 'bad-token' })
  })

  test('with a token is still refused a malformed name, another mesh, and a clock that is no number', async () => {
    const inviter = await startInviter()
    const token = inviter.invite()
    for (const [change, code, reason] of [
      [{ name: '../x' }, 'join-refused', /node name/],
      [{ region: '' }, 'join-refused', /region/],
      [{ mesh: 'globex' }, 'join-refused', /mesh acme/],
      [{ nowMs: Number.NaN }, 'bad-frame', /nowMs/],
      [{ nowMs: 1e300 }, 'clock-wrong', /1e\+300 at the joiner/],
      [{ publicKey: Buffer.alloc(32, 0xff) }, 'join-refused', /did not prove/],
    ] as const) {
      const raw = await rawJoiner(inviter.address)
      raw.socket.write(framed({ ...questionFor(raw.socket, token), ...change }))
      expect(await raw.answer()).toMatchObject({ ok: false, code, reason })
    }
    expect(inviter.worth(token)).toBe('ok')
  })

  test('can send any value at all and gets an answer or a close, never a certificate', async () => {
    const inviter = await startInviter()
    const token = inviter.invite()
    const field = fc.oneof(fc.jsonValue({ maxDepth: 2 }), fc.uint8Array({ maxLength: 70 }))
    const names = ['v', 'secret', 'publicKey', 'signature', 'mesh', 'name', 'region', 'nowMs'] as const
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...names), field, fc.boolean(), async (name, value, alone) => {
        const raw = await rawJoiner(inviter.address)
        // The signature is always foreign here, so nothing that fast-check finds can be a good question by chance.
        const question = { ...questionFor(raw.socket, token), signature: Buffer.alloc(64), [name]: value }
        raw.socket.write(framed(alone ? value : question))
        expect(await raw.answer()).toMatchObject({ ok: false })
      }),
      { numRuns: 60 },
    )
    expect(inviter.logged.filter(line => line.level === 'error')).toEqual([])
    expect(inviter.worth(token)).toBe('ok')
    expect(inviter.issued()).toEqual([])
  })

  test('uses up the failures of a minute, not more, and fills no log beyond them', async () => {
    const inviter = await startInviter({ limit: new JoinLimit({ failuresPerMinuteMax: 3 }) })
    const token = inviter.invite()
    for (let i = 0; i < 3; i++) {
      const raw = await rawJoiner(inviter.address)
      raw.socket.write(Buffer.from([0, 0, 0, 1, 0xc1]))
      await raw.closed
    }
    const error = await failedJoin('euw3-a', token)
    expect(error.code).toBe('overloaded')
    expect(error.message).toMatch(/3 attempts to join failed within a minute/)
    expect(inviter.refusals()).toHaveLength(3)
    inviter.state.nowMs += 60_000
    expect((await joinAs('euw3-a', token)).mesh).toBe('acme')
  })

  test('cannot hold more attempts open than there may be', async () => {
    const inviter = await startInviter({ limit: new JoinLimit({ openMax: 2 }) })
    const held = [await rawJoiner(inviter.address), await rawJoiner(inviter.address)]
    await until(() => inviter.state.served === 2, 'both are being served')
    const third = await rawJoiner(inviter.address)
    expect(await third.answer()).toMatchObject({ ok: false, code: 'overloaded', reason: /2 nodes are joining/ })
    for (const { socket } of held) socket.destroy()
    await until(() => inviter.state.settled === 3, 'all are over')
    expect((await joinAs('euw3-a', inviter.invite())).mesh).toBe('acme')
  })
})

test('a clock that is set back does not keep the limit on failures closed', () => {
  const limit = new JoinLimit({ failuresPerMinuteMax: 1 })
  expect(limit.enter(1_000_000)).toBeUndefined()
  limit.leave(true, 1_000_000)
  expect(limit.enter(1_000_001)).toMatch(/1 attempts/)
  expect(limit.enter(10)).toBeUndefined()
})
