import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import { createMesh } from '../test/e2e/daemon-process.ts'
import { cpuSeconds, rssBytes } from './process.ts'
import { whenAnswered } from './ready.ts'

/**
 * Small calls beside bulk on one link: `npm run bench -- mixed [--gigabytes 2] [--rate 500] [--seconds 10] [--json]`.
 *
 * `rate` calls a second at fixed times, whether the last one is back or not; first alone for `seconds`, then beside one
 * download and one upload of `gigabytes` each. A call's time counts from when it was due. Clients and backend are
 * processes of their own; on a machine with few cores they take time from the daemons, which the figures include.
 */
const option = (name: string, fallback: number): number => {
  const at = process.argv.indexOf(`--${name}`)
  return at === -1 ? fallback : Number(process.argv[at + 1])
}
const CHUNK = Buffer.alloc(64 * 1024, 'x')

// Roles ---------------------------------------------------------------------------------------------------------------

/** /small: 100 bytes. /down/BYTES: so many. POST /up: takes all, says how many. */
async function runBackend(): Promise<void> {
  const server = http.createServer((request, response) => {
    if (request.method === 'POST') {
      let bytes = 0
      request.on('data', (chunk: Buffer) => {
        bytes += chunk.length
      })
      request.on('end', () => response.end(String(bytes)))
    } else if (request.url === '/small') response.end(CHUNK.subarray(0, 100))
    else pour(response, Number(request.url?.split('/')[2]))
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

interface Latencies {
  readonly calls: number
  readonly failed: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly maxMs: number
}

/** Small calls from `start` to `stop`; answers how long they took. */
function runSmall(url: string, rate: number): void {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 256 })
  let tookMs: number[] = []
  let failed = 0
  let timer: NodeJS.Timeout | undefined
  const call = (dueMs: number): void => {
    const request = http.get(`${url}/small`, { agent, headers: { host: 'mixed.mesh' } }, response => {
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
      process.send?.({
        calls: sorted.length,
        failed,
        p50Ms: at(0.5),
        p99Ms: at(0.99),
        maxMs: round(sorted.at(-1) ?? 0),
      })
    }
  })
  process.send?.('ready')
}

/** One download and one upload at once; answers MB/s of each. */
async function runBulk(url: string, bytes: number): Promise<void> {
  const down = timed(done => {
    http.get(`${url}/down/${bytes}`, { agent: false, headers: { host: 'mixed.mesh' } }, response => {
      let got = 0
      response.on('data', (chunk: Buffer) => {
        got += chunk.length
      })
      response.on('end', () => done(got))
    })
  })
  const up = timed(done => {
    const headers = { host: 'mixed.mesh', 'content-length': bytes }
    const request = http.request(`${url}/up`, { agent: false, method: 'POST', headers }, response => {
      response.setEncoding('utf8')
      response.on('data', (text: string) => done(Number(text)))
    })
    pour(request, bytes)
  })
  const [downMs, upMs] = await Promise.all([down, up])
  process.send?.({ downMbPerSecond: Math.round(bytes / downMs / 1000), upMbPerSecond: Math.round(bytes / upMs / 1000) })

  async function timed(work: (done: (bytes: number) => void) => void): Promise<number> {
    const beganMs = performance.now()
    const moved = await new Promise<number>(work)
    if (moved !== bytes) throw new Error(`expected ${bytes} bytes, found ${moved}`)
    return performance.now() - beganMs
  }
}

// The run -------------------------------------------------------------------------------------------------------------

function start(...words: (string | number)[]): ChildProcess {
  return fork(fileURLToPath(import.meta.url), ['role', ...words.map(String)])
}

async function answerOf<T>(child: ChildProcess): Promise<T> {
  const ended = new AbortController()
  child.once('exit', () => ended.abort())
  const [answer] = await once(child, 'message', { signal: ended.signal })
  return answer as T
}

async function measure(): Promise<void> {
  const bytes = option('gigabytes', 2) * 1e9
  const backend = start('backend')
  const { port } = await answerOf<{ port: number }>(backend)
  const mesh = await createMesh({
    nodes: [
      { name: 'first', region: 'bench-1' },
      { name: 'second', region: 'bench-2' },
    ],
  })
  const children = [backend]
  try {
    const [first, second] = [mesh.node('first'), mesh.node('second')]
    await second.mustRun('service', 'add', 'mixed', `127.0.0.1:${port}`)
    await mesh.converged()
    const url = `http://${first.listen.http}`
    await whenAnswered(`${url}/small`, 'mixed.mesh')
    const small = start('small', url, option('rate', 500))
    children.push(small)
    await answerOf(small)
    const tell = async (): Promise<Latencies> => {
      small.send('stop')
      return answerOf<Latencies>(small)
    }
    const pause = (seconds: number): Promise<void> => new Promise(resolve => setTimeout(resolve, seconds * 1000))
    small.send('start')
    await pause(3)
    await tell()
    small.send('start')
    await pause(option('seconds', 10))
    const alone = await tell()

    const pids = [first.pid, second.pid]
    const cpuBefore = pids.map(cpuSeconds)
    const rssMb: number[][] = []
    const watch = setInterval(() => rssMb.push(pids.map(pid => Math.round(rssBytes(pid) / 1e6))), 500)
    small.send('start')
    const bulk = start('bulk', url, bytes)
    children.push(bulk)
    const rates = await answerOf<{ downMbPerSecond: number; upMbPerSecond: number }>(bulk)
    const beside = await tell()
    clearInterval(watch)
    const cpuPerGb = pids.map((pid, i) => round((cpuSeconds(pid) - (cpuBefore[i] ?? 0)) / ((2 * bytes) / 1e9)))
    const half = rssMb.slice(Math.floor(rssMb.length / 2))
    const most = (rows: number[][]): number[] => [0, 1].map(i => Math.max(...rows.map(row => row[i] ?? 0)))
    const result = {
      ...{ alone, beside, p99Ratio: round(beside.p99Ms / alone.p99Ms), ...rates, cpuPerGb },
      rssMb: { firstHalfMax: most(rssMb.slice(0, Math.floor(rssMb.length / 2))), secondHalfMax: most(half) },
    }
    if (process.argv.includes('--json')) console.log(JSON.stringify(result))
    else {
      const line = (l: Latencies): string =>
        `p50 ${l.p50Ms} ms, p99 ${l.p99Ms} ms, max ${l.maxMs} ms, failed ${l.failed}`
      console.log(`small calls alone:   ${line(alone)}`)
      console.log(`small calls beside:  ${line(beside)} (p99 ${result.p99Ratio} times)`)
      console.log(
        `bulk: down ${rates.downMbPerSecond} MB/s, up ${rates.upMbPerSecond} MB/s, CPU s/GB ${cpuPerGb.join(' / ')}`,
      )
      const { firstHalfMax, secondHalfMax } = result.rssMb
      console.log(`RSS MB at most: first half ${firstHalfMax.join(' / ')}, second half ${secondHalfMax.join(' / ')}`)
    }
  } finally {
    for (const child of children) child.kill()
    await mesh.stop()
  }
}

function round(value: number): number {
  return Math.round(value * 100) / 100
}

const [role, ...words] = process.argv.slice(process.argv.indexOf('role') + 1)
if (!process.argv.includes('role')) await measure()
else if (role === 'backend') await runBackend()
else if (role === 'small') runSmall(words[0] ?? '', Number(words[1]))
else await runBulk(words[0] ?? '', Number(words[1]))
