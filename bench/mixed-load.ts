import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import type { LoadTarget } from './load.ts'

/** The processes of `mixed.ts` that are no proxies: an instance, the client of small calls, the client of bulk. */

const CHUNK = Buffer.alloc(64 * 1024, 'x')

/** What small calls took, counted from when they were due. */
export interface Latencies {
  readonly calls: number
  readonly failed: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly maxMs: number
}

export interface BulkRates {
  readonly downMbPerSecond: number
  readonly upMbPerSecond: number
}

// What the bench asks of them ------------------------------------------------------------------------------------------

/** An instance; `port` is where it listens. */
export async function startInstance(): Promise<{ readonly child: ChildProcess; readonly port: number }> {
  const child = start('instance')
  return { child, port: (await answerOf<{ port: number }>(child)).port }
}

/** A client that makes `rate` small calls a second while it is told to. */
export async function startSmallCalls(
  target: LoadTarget,
  rate: number,
): Promise<{ readonly child: ChildProcess; begin(): void; end(): Promise<Latencies> }> {
  const child = start('small', target.port, target.host, rate)
  await answerOf(child)
  return {
    child,
    begin: () => void child.send('start'),
    end: () => {
      child.send('stop')
      return answerOf<Latencies>(child)
    },
  }
}

/** One download and one upload of so many bytes at once, to their ends. */
export function moveBulk(target: LoadTarget, bytes: number): Promise<BulkRates> {
  return answerOf<BulkRates>(start('bulk', target.port, target.host, bytes))
}

function start(...words: (string | number)[]): ChildProcess {
  return fork(fileURLToPath(import.meta.url), ['role', ...words.map(String)])
}

async function answerOf<T>(child: ChildProcess): Promise<T> {
  const ended = new AbortController()
  child.once('exit', () => ended.abort())
  const [answer] = await once(child, 'message', { signal: ended.signal })
  return answer as T
}

// What they do ---------------------------------------------------------------------------------------------------------

/** /down/BYTES: so many. POST: takes all, says how many. Everything else: 100 bytes. */
async function runInstance(): Promise<void> {
  const server = http.createServer((request, response) => {
    if (request.method === 'POST') {
      let bytes = 0
      request.on('data', (chunk: Buffer) => {
        bytes += chunk.length
      })
      request.on('end', () => response.end(String(bytes)))
    } else if (request.url?.startsWith('/down/')) pour(response, Number(request.url.split('/')[2]))
    else response.end(CHUNK.subarray(0, 100))
  })
  server.keepAliveTimeout = 60_000
  await once(server.listen(0, '127.0.0.1'), 'listening')
  process.send?.({ port: (server.address() as AddressInfo).port })
}

/** Writes so many bytes as the other end takes them, and ends. */
function pour(to: NodeJS.WritableStream, bytes: number): void {
  let left = bytes
  const go = (): void => {
    while (left > 0) {
      const chunk = left < CHUNK.length ? CHUNK.subarray(0, left) : CHUNK
      left -= chunk.length
      if (!to.write(chunk)) return
    }
    to.removeListener('drain', go)
    to.end()
  }
  to.on('drain', go)
  go()
}

/** Calls at fixed times, whether the last one is back or not, from `start` to `stop`. */
function runSmall(port: number, host: string, rate: number): void {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 256 })
  let tookMs: number[] = []
  let failed = 0
  let timer: NodeJS.Timeout | undefined
  const call = (dueMs: number): void => {
    const request = http.get({ port, host: '127.0.0.1', agent, headers: { host } }, response => {
      if (response.statusCode !== 200) failed++
      response.resume()
      response.on('end', () => tookMs.push(performance.now() - dueMs))
      response.on('error', () => failed++)
    })
    request.on('error', () => failed++)
  }
  process.on('message', message => {
    if (message === 'start') {
      tookMs = []
      failed = 0
      const beganMs = performance.now()
      let made = 0
      timer = setInterval(() => {
        for (; made < ((performance.now() - beganMs) / 1000) * rate; made++) call(beganMs + (made * 1000) / rate)
      }, 1)
    } else {
      clearInterval(timer)
      const sorted = [...tookMs].sort((a, b) => a - b)
      const at = (part: number): number => round(sorted[Math.floor(sorted.length * part)] ?? Number.NaN)
      const found: Latencies = {
        ...{ calls: sorted.length, failed, p50Ms: at(0.5), p99Ms: at(0.99) },
        maxMs: round(sorted.at(-1) ?? 0),
      }
      process.send?.(found)
    }
  })
  process.send?.('ready')
}

async function runBulk(port: number, host: string, bytes: number): Promise<void> {
  const where = { port, host: '127.0.0.1', agent: false } as const
  const down = timed(done => {
    http.get({ ...where, path: `/down/${bytes}`, headers: { host } }, response => {
      let got = 0
      response.on('data', (chunk: Buffer) => {
        got += chunk.length
      })
      response.on('end', () => done(got))
    })
  })
  const up = timed(done => {
    const headers = { host, 'content-length': bytes }
    const request = http.request({ ...where, method: 'POST', headers }, response => {
      let text = ''
      response.setEncoding('utf8').on('data', (piece: string) => {
        text += piece
      })
      response.on('end', () => done(Number(text)))
    })
    pour(request, bytes)
  })
  const [downMs, upMs] = await Promise.all([down, up])
  const found: BulkRates = {
    downMbPerSecond: Math.round(bytes / downMs / 1000),
    upMbPerSecond: Math.round(bytes / upMs / 1000),
  }
  process.send?.(found)
  process.disconnect?.()

  async function timed(work: (done: (bytes: number) => void) => void): Promise<number> {
    const beganMs = performance.now()
    const moved = await new Promise<number>(work)
    if (moved !== bytes) throw new Error(`expected ${bytes} bytes, found ${moved}`)
    return performance.now() - beganMs
  }
}

function round(value: number): number {
  return Math.round(value * 100) / 100
}

// Only where this file is the program: the bench itself imports it.
const [, , mark, role, ...words] = process.argv
if (mark === 'role') {
  if (role === 'instance') await runInstance()
  else if (role === 'small') runSmall(Number(words[0]), words[1] ?? '', Number(words[2]))
  else await runBulk(Number(words[0]), words[1] ?? '', Number(words[2]))
}
