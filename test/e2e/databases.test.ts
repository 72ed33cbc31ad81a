import { execFile, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createReadStream, createWriteStream, mkdtempSync, rmSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createMesh, endWithThisProcess, type MeshProcesses, waitUntil } from './daemon-process.ts'
import { DatabaseServer, postgresProgram, whyNoPostgres, whyNoRedis } from './database.ts'
import { printFigure } from './http-client.ts'
import { MemoryWatch } from './memory-watch.ts'

const run = promisify(execFile)

/** `FLATMESH_COPY_BYTES=1e9` for the real thing. */
const COPY_BYTES = Number(process.env.FLATMESH_COPY_BYTES ?? 20e6)
const ROW_BYTES = 1000
/** What a stream of any size may add to a daemon: windows, socket buffers, and V8's own rhythm (as test/e2e/load.test.ts). */
const BULK_RSS_BYTES_MAX = 100e6
const COMMANDS = 10_000

const noPostgres = whyNoPostgres()
const noRedis = whyNoRedis()
if (noPostgres !== undefined) process.stdout.write(`PostgreSQL through the mesh: not run, ${noPostgres}\n`)
if (noRedis !== undefined) process.stdout.write(`Redis through the mesh: not run, ${noRedis}\n`)

/** Two daemons: the service is at b, the listener at a. */
async function createTcpMesh(service: string, server: DatabaseServer): Promise<MeshProcesses> {
  const mesh = await createMesh({
    nodes: [
      { name: 'a', region: 'region-a', config: { listeners: [{ tcp: '127.0.0.1:0', service }] } },
      { name: 'b', region: 'region-b' },
    ],
  })
  mesh.node('b').writeServices([{ name: service, protocol: 'tcp', instances: [{ address: server.address }] }])
  await mesh.converged()
  await waitUntil('a knows the service', async () => {
    return (await mesh.node('a').explain(service)).choice === 'b' ? true : undefined
  })
  return mesh
}

function listenerPort(mesh: MeshProcesses): string {
  return /:(\d+)$/.exec(mesh.node('a').listen.tcp[0]?.address ?? '')?.[1] ?? ''
}

describe.runIf(noPostgres === undefined)('PostgreSQL in another region', () => {
  const folder = mkdtempSync(join(tmpdir(), 'fm-copy-'))
  let server: DatabaseServer
  let mesh: MeshProcesses

  beforeAll(async () => {
    server = await DatabaseServer.startPostgres()
    mesh = await createTcpMesh('postgres', server)
  })

  afterAll(async () => {
    await mesh?.stop()
    await server?.stop()
    rmSync(folder, { recursive: true, force: true })
  })

  const psqlWords = (port: string): string[] => [
    '-X',
    '-q',
    '-A',
    '-t',
    '-v',
    'ON_ERROR_STOP=1',
    '-h',
    '127.0.0.1',
    '-p',
    port,
    '-U',
    'postgres',
  ]

  async function psql(sql: string, port = listenerPort(mesh)): Promise<string> {
    const words = [...psqlWords(port), '-c', sql, 'postgres']
    return (await run(postgresProgram('psql') ?? 'psql', words, { timeout: 110_000 })).stdout.trim()
  }

  it('answers queries, keeps transactions, and tells its own errors', async () => {
    expect(await psql('select 6 * 7')).toBe('42')
    await psql(
      'create table notes (id int primary key, text text); insert into notes values (1, repeat($$x$$, 100000))',
    )
    expect(await psql('begin; delete from notes; rollback; select length(text) from notes')).toBe('100000')
    await expect(psql('select * from nothing_here')).rejects.toMatchObject({
      stderr: expect.stringContaining('relation "nothing_here" does not exist'),
    })
  })

  it('serves many clients at once (pgbench)', async () => {
    const pgbench = postgresProgram('pgbench')
    if (pgbench === undefined) return void console.log('pgbench is not installed: left out')
    const where = ['-h', '127.0.0.1', '-p', listenerPort(mesh), '-U', 'postgres']
    await run(pgbench, [...where, '-i', '-q', 'postgres'])
    const { stdout } = await run(pgbench, [...where, '-n', '-c', '20', '-t', '50', '-M', 'prepared', 'postgres'])
    expect(stdout).toContain('number of transactions actually processed: 1000/1000')
    expect(stdout).toContain('number of failed transactions: 0 ')
    printFigure('databases.pgbench.latency', Number(/latency average = ([\d.]+)/.exec(stdout)?.[1]), 'ms')
  })

  it(`copies ${COPY_BYTES / 1e6} MB there and back, unharmed, in constant memory`, { timeout: 900_000 }, async () => {
    const [there, back] = [join(folder, 'there'), join(folder, 'back')]
    await pipeline(Readable.from(rows(COPY_BYTES)), createWriteStream(there))
    await psql('create unlogged table bulk (id bigint, text text)')
    for (const [what, sql] of [
      ['up', `\\copy bulk from '${there}'`],
      ['down', `\\copy bulk to '${back}'`],
    ] as const) {
      const memory = new MemoryWatch(mesh)
      const startedAtMs = performance.now()
      const words = [...psqlWords(listenerPort(mesh)), '-c', sql, 'postgres']
      await run(postgresProgram('psql') ?? 'psql', words, { timeout: 800_000 })
      const tookMs = performance.now() - startedAtMs
      memory.stop()
      printFigure(`databases.copy.${what}`, COPY_BYTES / 1e6 / (tookMs / 1000), 'MB/s')
      printFigure(`databases.copy.${what}.took`, tookMs / 1000, 's')
      for (const [name, samples] of memory.samples) {
        const [first = 0] = samples
        const most = Math.max(...samples)
        printFigure(`databases.copy.${what}.rss.${name}.before`, first / 1e6, 'MB')
        printFigure(`databases.copy.${what}.rss.${name}.most`, most / 1e6, 'MB')
        printFigure(`databases.copy.${what}.rss.${name}.after`, (samples.at(-1) ?? 0) / 1e6, 'MB')
        expect(most - first).toBeLessThan(BULK_RSS_BYTES_MAX)
      }
    }
    expect(await sha1(back)).toBe(await sha1(there))
  })

  it('ends the query of a client that is killed', async () => {
    const words = [...psqlWords(listenerPort(mesh)), '-c', 'select pg_sleep(600)', 'postgres']
    const child = spawn(postgresProgram('psql') ?? 'psql', words, { stdio: 'ignore' })
    endWithThisProcess(child)
    const sleeping = async (): Promise<string> =>
      psql("select count(*) from pg_stat_activity where query = 'select pg_sleep(600)'", String(server.port))
    await waitUntil('the query runs', async () => ((await sleeping()) === '1' ? true : undefined))
    const killedAtMs = performance.now()
    child.kill('SIGKILL')
    await waitUntil('the query is over', async () => ((await sleeping()) === '0' ? true : undefined))
    printFigure('databases.killedClient.queryOver', performance.now() - killedAtMs, 'ms')
    await waitUntil('nothing is in flight', async () => {
      const [a, b] = await Promise.all([mesh.node('a').status(), mesh.node('b').status()])
      return a.calls.inFlight + b.calls.inFlight === 0 ? true : undefined
    })
  })
})

describe.runIf(noRedis === undefined)('Redis in another region', () => {
  let server: DatabaseServer
  let mesh: MeshProcesses

  beforeAll(async () => {
    server = await DatabaseServer.startRedis()
    mesh = await createTcpMesh('redis', server)
  })

  afterAll(async () => {
    await mesh?.stop()
    await server?.stop()
  })

  it(`answers a pipeline of ${COMMANDS} commands in order, and another that redis-cli makes`, async () => {
    const client = await RedisClient.through(Number(listenerPort(mesh)))
    let asked = ''
    for (let i = 0; i < COMMANDS; i++) asked += `SET key:${i} value-${i}\r\nGET key:${i}\r\n`
    client.socket.write(asked)
    let expected = ''
    for (let i = 0; i < COMMANDS; i++) expected += `+OK\r\n$${`value-${i}`.length}\r\nvalue-${i}\r\n`
    await client.heard(expected.length)
    expect(client.text === expected).toBe(true)
    client.socket.destroy()

    const child = spawn('redis-cli', ['-h', '127.0.0.1', '-p', listenerPort(mesh), '--pipe'])
    endWithThisProcess(child)
    let said = ''
    child.stdout.on('data', chunk => {
      said += chunk
    })
    child.stdin.end('INCR counter\r\n'.repeat(COMMANDS))
    await once(child, 'close')
    expect(said).toContain(`errors: 0, replies: ${COMMANDS}`)
    const counted = await run('redis-cli', ['-h', '127.0.0.1', '-p', listenerPort(mesh), 'GET', 'counter'])
    expect(counted.stdout.trim()).toBe(String(COMMANDS))
  })

  it('brings what is published to every subscriber, in order', async () => {
    const port = Number(listenerPort(mesh))
    const subscribers = await Promise.all(Array.from({ length: 20 }, () => RedisClient.through(port)))
    const subscribed = '*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n'
    for (const { socket } of subscribers) socket.write('SUBSCRIBE news\r\n')
    for (const subscriber of subscribers) await subscriber.heard(subscribed.length)
    const publisher = await RedisClient.through(port)
    let expected = subscribed
    for (let i = 0; i < 200; i++) {
      publisher.socket.write(`PUBLISH news item-${i}\r\n`)
      expected += `*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$${`item-${i}`.length}\r\nitem-${i}\r\n`
    }
    for (const subscriber of subscribers) {
      await subscriber.heard(expected.length)
      expect(subscriber.text === expected).toBe(true)
    }
    expect(publisher.text).toBe(':20\r\n'.repeat(200))
    for (const { socket } of [...subscribers, publisher]) socket.destroy()
  })

  it('is reached by CONNECT on the HTTP port too', async () => {
    const { http } = mesh.node('a').listen
    const client = await RedisClient.through(Number(/:(\d+)$/.exec(http)?.[1]))
    client.socket.write('CONNECT redis.mesh:6379 HTTP/1.1\r\nHost: redis.mesh:6379\r\n\r\n')
    const head = 'HTTP/1.1 200 Connection Established\r\nVia: 1.1 flatmesh-b\r\nVia: 1.1 flatmesh-a\r\n\r\n'
    await client.heard(head.length)
    client.socket.write('PING\r\n')
    await client.heard(head.length + 7)
    expect(client.text).toBe(`${head}+PONG\r\n`)
    client.socket.destroy()
  })
})

/** Speaks Redis's inline commands; replies are kept as they came. */
class RedisClient {
  readonly socket: Socket
  text = ''

  private constructor(socket: Socket) {
    this.socket = socket
    socket.setEncoding('latin1').on('data', (text: string) => {
      this.text += text
    })
  }

  static async through(port: number): Promise<RedisClient> {
    const socket = connect(port, '127.0.0.1')
    await once(socket, 'connect')
    return new RedisClient(socket)
  }

  async heard(bytes: number): Promise<void> {
    await waitUntil(`${bytes} bytes of replies`, () => (this.text.length >= bytes ? true : undefined))
  }
}

/** Lines for COPY: a number, and text that is not always the same. */
function* rows(bytes: number): Generator<Buffer> {
  const text = createHash('sha256')
    .update('flatmesh')
    .digest('hex')
    .repeat(ROW_BYTES / 50)
  for (let id = 0, made = 0; made < bytes; ) {
    let chunk = ''
    for (let i = 0; i < 100; i++, id++) {
      const number = String(id)
      const from = id % 64
      chunk += `${number}\t${text.slice(from, from + ROW_BYTES - number.length - 2)}\n`
    }
    made += chunk.length
    yield Buffer.from(chunk, 'latin1')
  }
}

async function sha1(file: string): Promise<string> {
  const hash = createHash('sha1')
  for await (const chunk of createReadStream(file)) hash.update(chunk)
  return hash.digest('hex')
}
