import { execFile } from 'node:child_process'
import { rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Chain } from './chain.ts'
import { cpuSeconds } from './process.ts'

const run = promisify(execFile)

export interface CallFigures {
  readonly callsPerSecond: number
  readonly p50Us: number
  readonly p99Us: number
  readonly errors: number
  /** CPU of each hop for one call, microseconds. */
  readonly cpuUs: readonly [first: number, second: number]
}

/** Calls of 100-byte answers over keep-alive connections, by wrk with one thread. */
export async function measureCalls(chain: Chain, connections: number, seconds: number): Promise<CallFigures> {
  const before = chain.pids.map(cpuSeconds)
  const args = ['-t1', `-c${connections}`, `-d${seconds}s`, '--latency', '-H', `Host: ${chain.host}`, `${chain.url}/`]
  const { stdout } = await run('wrk', args)
  const used = chain.pids.map((pid, i) => cpuSeconds(pid) - (before[i] ?? 0))
  const calls = Number(/(\d+) requests in/.exec(stdout)?.[1] ?? 0)
  const per = (i: number): number => ((used[i] ?? 0) / calls) * 1e6
  return {
    callsPerSecond: Number(/Requests\/sec:\s+([\d.]+)/.exec(stdout)?.[1] ?? 0),
    p50Us: span(/50%\s+([\d.]+\w+)/.exec(stdout)?.[1]),
    p99Us: span(/99%\s+([\d.]+\w+)/.exec(stdout)?.[1]),
    errors: Number(/Non-2xx or 3xx responses: (\d+)/.exec(stdout)?.[1] ?? 0) + socketErrors(stdout),
    cpuUs: [per(0), per(1)],
  }
}

/** Five bytes of gRPC and a hundred of its own. */
const MESSAGE_BYTES = 105

/** gRPC unary calls of a 100-byte message on `connections` connections with 32 streams in sum, by h2load. */
export async function measureGrpc(chain: Chain, connections: number, calls: number): Promise<CallFigures> {
  const message = join(tmpdir(), `flatmesh-bench-grpc-${process.pid}`)
  writeFileSync(message, Buffer.concat([Buffer.from([0, 0, 0, 0, 100]), Buffer.alloc(100, 'x')]))
  const before = chain.pids.map(cpuSeconds)
  const args = [
    ...['-n', String(calls), '-c', String(connections), '-m', String(Math.ceil(32 / connections)), '-t', '1'],
    ...['-H', `:authority: ${chain.host}`, '-H', 'content-type: application/grpc', '-H', 'te: trailers'],
    ...['-d', message, `${chain.url}/bench.Echo/Unary`],
  ]
  const { stdout } = await run('h2load', args).finally(() => rmSync(message))
  const used = chain.pids.map((pid, i) => cpuSeconds(pid) - (before[i] ?? 0))
  const succeeded = Number(/(\d+) succeeded/.exec(stdout)?.[1] ?? 0)
  // Errors of gRPC are of status 200 too, but bring no message.
  const messages = Number(/\((\d+)\) data/.exec(stdout)?.[1] ?? 0) / MESSAGE_BYTES
  const per = (i: number): number => ((used[i] ?? 0) / calls) * 1e6
  // h2load tells min, max, mean and deviation of a request's time, no percentiles.
  return {
    callsPerSecond: Number(/finished in [\d.]+\w+, ([\d.]+) req\/s/.exec(stdout)?.[1] ?? 0),
    p50Us: span(/time for request:\s+\S+\s+\S+\s+([\d.]+\w+)/.exec(stdout)?.[1]),
    p99Us: span(/time for request:\s+\S+\s+([\d.]+\w+)/.exec(stdout)?.[1]),
    errors: calls - Math.min(succeeded, Math.floor(messages)),
    cpuUs: [per(0), per(1)],
  }
}

export interface BulkFigures {
  readonly megabytesPerSecond: number
  /** CPU of each hop for one GB, seconds. */
  readonly cpuPerGb: readonly [first: number, second: number]
}

/** One download of `bytes` through the chain. */
export async function measureBulk(chain: Chain, bytes: number): Promise<BulkFigures> {
  const before = chain.pids.map(cpuSeconds)
  const startedAtMs = performance.now()
  const received = await download(chain)
  const seconds = (performance.now() - startedAtMs) / 1000
  if (received !== bytes) throw new Error(`${chain.name}: ${received} bytes of ${bytes} arrived`)
  const per = (i: number): number => (cpuSeconds(chain.pids[i] ?? 0) - (before[i] ?? 0)) / (bytes / 1e9)
  return { megabytesPerSecond: bytes / 1e6 / seconds, cpuPerGb: [per(0), per(1)] }
}

function download(chain: Chain): Promise<number> {
  return new Promise((resolve, reject) => {
    const request = http.get(`${chain.url}/bulk`, { headers: { host: chain.host }, agent: false }, response => {
      let bytes = 0
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length
      })
      response.on('end', () => resolve(bytes))
      response.on('error', reject)
    })
    request.on('error', reject)
  })
}

function span(text: string | undefined): number {
  const match = /^([\d.]+)(us|ms|s)$/.exec(text ?? '')
  const factor = { us: 1, ms: 1000, s: 1_000_000 }[match?.[2] ?? 'us'] ?? 1
  return Number(match?.[1] ?? Number.NaN) * factor
}

function socketErrors(stdout: string): number {
  const match = /Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)/.exec(stdout)
  return (match ?? []).slice(1).reduce((sum, text) => sum + Number(text), 0)
}
