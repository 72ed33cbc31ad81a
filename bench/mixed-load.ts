import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import { download, serveBulk, upload } from './bulk-load.ts'
import type { LoadTarget } from './load.ts'

/** The processes of `mixed.ts` that are no proxies: an instance, the client of small calls, the client of bulk. */

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

/** An instance, for small calls or for bulk; `port` is where it listens. */
export async function startInstance(
  of: 'small' | 'bulk',
): Promise<{ readonly child: ChildProcess; readonly port: number }> {
  const child = start(of === 'small' ? 'instance' : 'bulk-instance')
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

/** 100 bytes for whoever asks. */
async function runInstance(): Promise<void> {
  const answer = Buffer.alloc(100, 'x')
  const server = http.createServer((_, response) => response.end(answer))
  server.keepAliveTimeout = 60_000
  await once(server.listen(0, '127.0.0.1'), 'listening')
  process.send?.({ port: (server.address() as AddressInfo).port })
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
  const [downSeconds, upSeconds] = await Promise.all([download(port, host, bytes), upload(port, host, bytes)])
  const found: BulkRates = {
    downMbPerSecond: Math.round(bytes / downSeconds / 1e6),
    upMbPerSecond: Math.round(bytes / upSeconds / 1e6),
  }
  process.send?.(found)
  process.disconnect?.()
}

function round(value: number): number {
  return Math.round(value * 100) / 100
}

// Only where this file is the program: the bench itself imports it.
const [, , mark, role, ...words] = process.argv
if (mark === 'role') {
  if (role === 'instance') await runInstance()
  else if (role === 'bulk-instance') process.send?.({ port: await serveBulk() })
  else if (role === 'small') runSmall(Number(words[0]), words[1] ?? '', Number(words[2]))
  else await runBulk(Number(words[0]), words[1] ?? '', Number(words[2]))
}
