import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { Agent, request } from 'node:http'
import { connect } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { waitUntil } from './daemon-process.ts'
import { HttpClient, percentile, printFigure } from './http-client.ts'
import { MemoryWatch } from './memory-watch.ts'
import { TwoRegions } from './two-regions.ts'

const IN_FLIGHT = 64
const BULK_BYTES = 2 * 1024 ** 3
const CHUNK = Buffer.alloc(256 * 1024, 'flatmesh ')
/** What a stream of any size may add to a daemon: windows of the link and of the call, socket buffers, and V8's own rhythm. */
const BULK_RSS_BYTES_MAX = 100e6
/**
 * Between the second and the last quarter of the last 100,000 calls, 50,000 apart: 1.2 kB kept of each would be more. V8
 * takes its memory in steps of up to 50 MB; over 360,000 calls both processes stood still from the 120,000th on
 * (2026-11-22), so the first 100,000 are not judged.
 */
const FLAT_RSS_BYTES_MAX = 60e6

describe('two regions under load', () => {
  const regions = new TwoRegions({ connectionsMax: IN_FLIGHT })
  const { backend } = regions

  beforeAll(() => regions.start())
  afterAll(() => regions.stop())

  it('fail none of 10,000 calls at 64 in flight, and none of 200,000, and their memory stays flat', {
    timeout: 300_000,
  }, async () => {
    // The calls that only waited for the mesh to be there are not counted.
    const before = (await regions.a.status()).calls
    const first = await callMany(10_000)
    expect(first.failures).toEqual([])
    printFigure('load.calls10k', 10_000 / (first.tookMs / 1000), 'calls/s')
    printFigure('load.calls10k.p50', percentile(first.latenciesMs, 0.5), 'ms')
    printFigure('load.calls10k.p99', percentile(first.latenciesMs, 0.99), 'ms')

    expect((await callMany(90_000)).failures).toEqual([])

    const memory = new MemoryWatch(regions.mesh)
    const rest = await callMany(100_000)
    memory.stop()
    expect(rest.failures).toEqual([])
    printFigure('load.calls100k', 100_000 / (rest.tookMs / 1000), 'calls/s')
    for (const [name, samples] of memory.samples) {
      const quarter = Math.floor(samples.length / 4)
      expect(quarter).toBeGreaterThanOrEqual(5)
      const second = mean(samples.slice(quarter, 2 * quarter))
      const last = mean(samples.slice(-quarter))
      printFigure(`load.rss.${name}.secondQuarter`, second / 1e6, 'MB')
      printFigure(`load.rss.${name}.lastQuarter`, last / 1e6, 'MB')
      expect(last - second).toBeLessThan(FLAT_RSS_BYTES_MAX)
    }
    const after = (await regions.a.status()).calls
    expect(after).toMatchObject({ failed: before.failed, inFlight: 0, total: before.total + 200_000 })
  })

  it('pass a download of 2 GB in constant memory', { timeout: 300_000 }, async () => {
    const memory = new MemoryWatch(regions.mesh)
    const startedAtMs = performance.now()
    const answer = await regions.client.open('orders', { path: `/bytes/${BULK_BYTES}` })
    let bytes = 0
    const hash = createHash('sha1')
    for await (const chunk of answer) {
      bytes += chunk.length
      hash.update(chunk)
    }
    const tookMs = performance.now() - startedAtMs
    memory.stop()
    expect([bytes, hash.digest('hex')]).toEqual([BULK_BYTES, sha1OfBulk()])
    printFigure('load.download2GB', BULK_BYTES / 1e6 / (tookMs / 1000), 'MB/s')
    report('download2GB', memory)
  })

  it('pass an upload of 2 GB in constant memory', { timeout: 300_000 }, async () => {
    const memory = new MemoryWatch(regions.mesh)
    const startedAtMs = performance.now()
    const { host, port } = new URL(regions.a.httpUrl).host.match(/(?<host>.*):(?<port>\d+)/)?.groups ?? {}
    const asked = request({
      host,
      port,
      method: 'PUT',
      path: '/sink',
      headers: { host: 'orders.mesh', 'content-length': BULK_BYTES },
      agent: new Agent(),
    })
    const answered = once(asked, 'response')
    for (let sent = 0; sent < BULK_BYTES; sent += CHUNK.length) {
      if (!asked.write(CHUNK)) await Promise.race([once(asked, 'drain'), answered])
    }
    asked.end()
    const [answer] = await answered
    let text = ''
    for await (const chunk of answer) text += chunk
    const tookMs = performance.now() - startedAtMs
    memory.stop()
    expect(JSON.parse(text)).toEqual({ bytes: BULK_BYTES, sha1: sha1OfBulk() })
    printFigure('load.upload2GB', BULK_BYTES / 1e6 / (tookMs / 1000), 'MB/s')
    report('upload2GB', memory)
  })

  it('hold no more than the windows for a reader that stops, while others are served', async () => {
    const memory = new MemoryWatch(regions.mesh)
    const sentBefore = backend.sentBytes
    const stopped = await Promise.all(
      Array.from({ length: 8 }, () => regions.client.open('orders', { path: `/bytes/${BULK_BYTES}` })),
    )
    for (const answer of stopped) answer.pause()
    let seen = -1
    let sameLooks = 0
    await waitUntil('the instance can send no more', () => {
      sameLooks = backend.sentBytes === seen ? sameLooks + 1 : 0
      seen = backend.sentBytes
      return sameLooks >= 25 ? true : undefined
    })
    printFigure('load.stoppedReaders.heldEach', (seen - sentBefore) / stopped.length / 1e6, 'MB')
    const others = new HttpClient(regions.a.listen.http)
    const latenciesMs: number[] = []
    for (let count = 0; count < 500; count++) {
      const { status, tookMs } = await others.call('orders')
      expect(status).toBe(200)
      latenciesMs.push(tookMs)
    }
    memory.stop()
    others.close()
    printFigure('load.besideStoppedReaders.p99', percentile(latenciesMs, 0.99), 'ms')
    report('stoppedReaders', memory)
    const before = backend.aborted
    for (const answer of stopped) answer.destroy()
    await waitUntil('their calls are cancelled at the instance', () =>
      backend.aborted - before === 8 ? true : undefined,
    )
    await waitUntil('nothing is in flight', nothingInFlight)
  })

  it('cancel the call of a client that vanishes at the instance', async () => {
    const before = backend.aborted
    const begun = backend.asked
    const [, host = '', port = ''] = /^(.*):(\d+)$/.exec(regions.a.listen.http) ?? []
    const sockets = Array.from({ length: 20 }, () => connect({ host, port: Number(port) }))
    for (const socket of sockets) {
      socket.on('error', () => {})
      socket.write('GET /slow/60000 HTTP/1.1\r\nHost: orders.mesh\r\n\r\n')
    }
    await waitUntil('the instance has all calls', () => (backend.asked - begun === 20 ? true : undefined))
    const goneAtMs = performance.now()
    for (const socket of sockets) socket.resetAndDestroy()
    await waitUntil('all are cancelled', () => (backend.aborted - before === 20 ? true : undefined))
    printFigure('load.vanishedClients.cancelled', performance.now() - goneAtMs, 'ms')
    await waitUntil('nothing is in flight', nothingInFlight)
  })

  async function nothingInFlight(): Promise<true | undefined> {
    const [a, b] = await Promise.all([regions.a.status(), regions.b.status()])
    return a.calls.inFlight + b.calls.inFlight === 0 ? true : undefined
  }

  /** `count` calls, 64 at a time; every answer is looked at. */
  async function callMany(count: number): Promise<{ failures: string[]; latenciesMs: number[]; tookMs: number }> {
    const failures: string[] = []
    const latenciesMs: number[] = []
    const startedAtMs = performance.now()
    let left = count
    const worker = async (): Promise<void> => {
      while (left-- > 0) {
        const answer = await regions.client.call('orders').catch((error: Error) => error)
        if (answer instanceof Error) failures.push(answer.message)
        else if (answer.status !== 200 || answer.body.toString() !== 'hello from orders\n')
          failures.push(`${answer.status} ${answer.body.toString()}`)
        else latenciesMs.push(answer.tookMs)
      }
    }
    await Promise.all(Array.from({ length: IN_FLIGHT }, worker))
    return { failures: failures.slice(0, 10), latenciesMs, tookMs: performance.now() - startedAtMs }
  }

  /** Bound on what a stream added to each daemon, whatever it was before. */
  function report(name: string, memory: MemoryWatch): void {
    for (const [node, grownBytes] of memory.grownBytes()) {
      printFigure(`load.${name}.rssGrown.${node}`, grownBytes / 1e6, 'MB')
      expect(grownBytes).toBeLessThan(BULK_RSS_BYTES_MAX)
    }
  }
})

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length
}

/** Of the bytes that both the client and the service send. */
function sha1OfBulk(): string {
  const hash = createHash('sha1')
  for (let bytes = 0; bytes < BULK_BYTES; bytes += CHUNK.length) hash.update(CHUNK)
  return hash.digest('hex')
}
