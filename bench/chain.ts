import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { createMesh } from '../test/e2e/daemon-process.ts'
import { freePort } from '../test/e2e/local-port.ts'
import type { LoadTarget } from './load.ts'
import { startNginx } from './peers.ts'
import { BenchProcess } from './process.ts'
import { whenAnswered } from './ready.ts'

export type ChainName = 'ours' | 'haproxy' | 'nginx'

/** Two hops in a row that a benchmark sends calls through: client → first → (TLS) → second → backend. */
export interface Chain {
  readonly name: ChainName
  readonly pids: readonly [first: number, second: number]
  readonly http: LoadTarget
  /** HTTP/2 in clear text in and out; undefined: not asked for, or this chain cannot. */
  readonly grpc?: LoadTarget
  /** Plain bytes to the same backend as `http`; undefined: this chain cannot. */
  readonly tcp?: LoadTarget
  /** HTTP to the backend for bulk; the same port and link as `http`. */
  readonly bulk?: LoadTarget
  stop(): Promise<void>
}

/** Where the second hop sends what comes. */
export interface BackendPorts {
  readonly http: number
  readonly grpc?: number
  /** Of a service of its own, so that what its instance does for bulk is not taken from that of `http`. */
  readonly bulk?: number
}

export interface Backend {
  readonly port: number
  stop(): Promise<void>
}

/** 1 GiB for bulk: long enough that starting does not count. */
export const BULK_BYTES = 1024 ** 3

/** nginx answering 100 bytes at /, and a sparse file of `BULK_BYTES` at /bulk. */
export async function startBackend(folder: string): Promise<Backend> {
  const port = await freePort()
  const www = join(folder, 'www')
  mkdirSync(www, { recursive: true })
  execFileSync('truncate', ['-s', String(BULK_BYTES), join(www, 'bulk')])
  const process = await startNginx(folder, 'backend', port, [
    `http { server { listen 127.0.0.1:${port} reuseport backlog=8192; root ${www}; sendfile on; keepalive_requests 100000000;`,
    `  location = / { return 200 "${'x'.repeat(100)}"; } } }`,
  ])
  return { port, stop: () => process.stop() }
}

/** A gRPC service in Node: the slower it is, the longer a run; its CPU is not counted. */
export async function startGrpcBackend(folder: string): Promise<Backend> {
  const port = await freePort()
  const program = fileURLToPath(new URL('./h2-backend.ts', import.meta.url))
  const server = new BenchProcess('grpc backend', process.execPath, [program, String(port)], folder)
  await server.listening(port)
  return { port, stop: () => server.stop() }
}

/**
 * Our two daemons: the services `bench`, `grpc` and `bulk` if there are ports for them, and `raw` with a listener; calls of
 * all but `grpc` are answered. `config`: of the first.
 */
export async function startOurs(backend: BackendPorts, config: Record<string, unknown> = {}): Promise<Chain> {
  const tcpPort = await freePort()
  const listeners = [{ tcp: `127.0.0.1:${tcpPort}`, service: 'raw' }]
  const mesh = await createMesh({
    nodes: [
      { name: 'first', region: 'bench-1', config: { listeners, ...config } },
      { name: 'second', region: 'bench-2' },
    ],
  })
  const [first, second] = [mesh.node('first'), mesh.node('second')]
  const add = (name: string, port: number, ...more: string[]): Promise<unknown> =>
    second.mustRun('service', 'add', name, `127.0.0.1:${port}`, ...more)
  await add('bench', backend.http)
  if (backend.grpc !== undefined) await add('grpc', backend.grpc)
  if (backend.bulk !== undefined) await add('bulk', backend.bulk)
  await add('raw', backend.http, '--protocol', 'tcp')
  await mesh.converged()
  const port = Number(new URL(first.httpUrl).port)
  const chain: Chain = {
    name: 'ours',
    pids: [first.pid, second.pid],
    http: { port, host: 'bench.mesh' },
    ...(backend.grpc !== undefined && { grpc: { port, host: 'grpc.mesh' } }),
    tcp: { port: tcpPort, host: 'bench.mesh' },
    ...(backend.bulk !== undefined && { bulk: { port, host: 'bulk.mesh' } }),
    stop: () => mesh.stop(),
  }
  for (const target of [chain.http, chain.tcp, chain.bulk]) {
    if (target !== undefined) await whenAnswered(`http://127.0.0.1:${target.port}/`, target.host)
  }
  return chain
}

/** Descriptors one process may have. The daemons and their peers get as many as this one. */
export function descriptorsMax(): number {
  const [, soft, hard] = /^Max open files\s+(\S+)\s+(\S+)/m.exec(readFileSync('/proc/self/limits', 'utf8')) ?? []
  return Number(hard === 'unlimited' ? soft : hard)
}
