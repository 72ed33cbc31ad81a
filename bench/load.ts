import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { ClientOptions, DownloadResult, IdleResult, LoadResult } from './client.ts'
import { cpuSeconds, hasProgram } from './process.ts'

const run = promisify(execFile)
const CLIENT = fileURLToPath(new URL('./client.ts', import.meta.url))

/** Where calls of one kind go in. */
export interface LoadTarget {
  readonly port: number
  /** Of the field Host, or `:authority`. */
  readonly host: string
}

/** What one run of load found. Times in microseconds. */
export interface CallFigures {
  readonly callsPerSecond: number
  readonly p50Us: number
  readonly p99Us: number
  readonly errors: number
  /** CPU of each hop for one call, microseconds. */
  readonly cpuUs: readonly [first: number, second: number]
}

/** Who makes the load of HTTP/1.1: wrk where it is installed, else the bench's own client, which costs more CPU itself. */
export const HTTP_CLIENT: 'wrk' | 'own' = hasProgram('wrk') ? 'wrk' : 'own'

export interface HttpLoad {
  readonly connections: number
  readonly seconds: number
  /** Each call on a connection of its own. Default false: one after the other on the same. */
  readonly isNewEach?: boolean
}

/** Calls of 100-byte answers through two hops, one at a time on each connection. */
export async function loadHttp(target: LoadTarget, pids: readonly number[], load: HttpLoad): Promise<CallFigures> {
  const { connections, seconds, isNewEach = false } = load
  const cpu = new CpuWatch(pids)
  if (HTTP_CLIENT === 'own') {
    const command = isNewEach ? 'connects' : 'calls'
    const found = (await runClient(command, { ...target, connections, seconds })) as LoadResult
    const { calls, p50Us, p99Us, errors } = found
    return { callsPerSecond: calls / found.seconds, p50Us, p99Us, errors, cpuUs: cpu.usPer(calls) }
  }
  const fields = ['-H', `Host: ${target.host}`, ...(isNewEach ? ['-H', 'Connection: close'] : [])]
  const args = ['-t1', `-c${connections}`, `-d${seconds}s`, '--latency', ...fields, `http://127.0.0.1:${target.port}/`]
  const { stdout } = await run('wrk', args)
  const calls = Number(/(\d+) requests in/.exec(stdout)?.[1] ?? 0)
  return {
    callsPerSecond: Number(/Requests\/sec:\s+([\d.]+)/.exec(stdout)?.[1] ?? 0),
    p50Us: spanUs(/50%\s+([\d.]+\w+)/.exec(stdout)?.[1]),
    p99Us: spanUs(/99%\s+([\d.]+\w+)/.exec(stdout)?.[1]),
    errors: Number(/Non-2xx or 3xx responses: (\d+)/.exec(stdout)?.[1] ?? 0) + socketErrors(stdout),
    cpuUs: cpu.usPer(calls),
  }
}

/** Five bytes of gRPC and a hundred of its own. */
const MESSAGE = Buffer.concat([Buffer.from([0, 0, 0, 0, 100]), Buffer.alloc(100, 'x')])

export interface GrpcLoad {
  readonly connections: number
  readonly streamsEach: number
  readonly calls: number
}

/** gRPC unary calls of a 100-byte message through two hops, by h2load. */
export async function loadGrpc(target: LoadTarget, pids: readonly number[], load: GrpcLoad): Promise<CallFigures> {
  const { connections, streamsEach, calls } = load
  const message = join(tmpdir(), `flatmesh-bench-grpc-${process.pid}`)
  const log = `${message}.log`
  writeFileSync(message, MESSAGE)
  const cpu = new CpuWatch(pids)
  const args = [
    ...['-n', String(calls), '-c', String(connections), '-m', String(streamsEach), '-t', '1', `--log-file=${log}`],
    ...['-H', `:authority: ${target.host}`, '-H', 'content-type: application/grpc', '-H', 'te: trailers'],
    ...['-d', message, `http://127.0.0.1:${target.port}/bench.Echo/Unary`],
  ]
  try {
    const { stdout } = await run('h2load', args)
    const succeeded = Number(/(\d+) succeeded/.exec(stdout)?.[1] ?? 0)
    // Errors of gRPC are of status 200 too, but bring no message.
    const messages = Number(/\((\d+)\) data/.exec(stdout)?.[1] ?? 0) / MESSAGE.length
    const cpuUs = cpu.usPer(calls)
    // Start, status, microseconds: one call a line.
    const lines = readFileSync(log, 'latin1').trim().split('\n')
    const sorted = lines.map(line => Number(line.split('\t')[2])).sort((a, b) => a - b)
    return {
      callsPerSecond: Number(/finished in [\d.]+\w+, ([\d.]+) req\/s/.exec(stdout)?.[1] ?? 0),
      p50Us: sorted[Math.floor(sorted.length * 0.5)] ?? Number.NaN,
      p99Us: sorted[Math.floor(sorted.length * 0.99)] ?? Number.NaN,
      errors: calls - Math.min(succeeded, Math.floor(messages)),
      cpuUs,
    }
  } finally {
    rmSync(message, { force: true })
    rmSync(log, { force: true })
  }
}

export interface BulkFigures {
  readonly megabytesPerSecond: number
  /** CPU of each hop for one GB, seconds. */
  readonly cpuPerGb: readonly [first: number, second: number]
}

/** One download of `/bulk`, which must be `bytes` long, through two hops. */
export async function loadBulk(target: LoadTarget, pids: readonly number[], bytes: number): Promise<BulkFigures> {
  const cpu = new CpuWatch(pids)
  const found = (await runClient('download', { ...target, path: '/bulk' })) as DownloadResult
  if (found.bytes !== bytes) throw new Error(`expected ${bytes} bytes at port ${target.port}, found ${found.bytes}`)
  const [first, second] = cpu.usPer(bytes / 1e9)
  return { megabytesPerSecond: bytes / 1e6 / found.seconds, cpuPerGb: [first / 1e6, second / 1e6] }
}

/** `count` connections that have made one call each are open while `look` runs. Answers how many of them were lost. */
export async function holdIdle(target: LoadTarget, count: number, look: () => Promise<void>): Promise<number> {
  const child = spawn(process.execPath, [CLIENT, 'idle', JSON.stringify({ ...target, connections: count })], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
  try {
    const opened = JSON.parse((await lines.next()).value ?? '{}') as Partial<IdleResult>
    if (opened.open !== count) throw new Error(`expected ${count} idle connections, found ${JSON.stringify(opened)}`)
    await look()
    child.stdin.end()
    const { closed } = JSON.parse((await lines.next()).value ?? '{}') as { closed: number }
    return closed
  } finally {
    if (child.exitCode === null) {
      child.kill()
      await once(child, 'exit')
    }
  }
}

/** CPU that processes use from now on. */
class CpuWatch {
  readonly #pids: readonly number[]
  readonly #before: readonly number[]

  constructor(pids: readonly number[]) {
    this.#pids = pids
    this.#before = pids.map(cpuSeconds)
  }

  usPer(count: number): readonly [first: number, second: number] {
    const used = this.#pids.map((pid, i) => ((cpuSeconds(pid) - (this.#before[i] ?? 0)) / count) * 1e6)
    return [used[0] ?? Number.NaN, used[1] ?? Number.NaN]
  }
}

async function runClient(command: string, options: ClientOptions): Promise<unknown> {
  const { stdout } = await run(process.execPath, [CLIENT, command, JSON.stringify(options)])
  return JSON.parse(stdout)
}

function spanUs(text: string | undefined): number {
  const match = /^([\d.]+)(us|ms|s)$/.exec(text ?? '')
  const factor = { us: 1, ms: 1000, s: 1_000_000 }[match?.[2] ?? 'us'] ?? 1
  return Number(match?.[1] ?? Number.NaN) * factor
}

function socketErrors(stdout: string): number {
  const match = /Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)/.exec(stdout)
  return (match ?? []).slice(1).reduce((sum, text) => sum + Number(text), 0)
}
