import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { createMesh } from '../test/e2e/daemon-process.ts'
import { BenchProcess, freePort } from './process.ts'

/** Two hops in a row that a benchmark sends calls through: client → first → (TLS) → second → backend. */
export interface Chain {
  readonly name: 'ours' | 'haproxy' | 'nginx'
  readonly url: string
  readonly host: string
  readonly pids: readonly [first: number, second: number]
  stop(): Promise<void>
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
    `server { listen 127.0.0.1:${port} reuseport backlog=8192; root ${www}; sendfile on; keepalive_requests 100000000;`,
    `  location = / { return 200 "${'x'.repeat(100)}"; } }`,
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

/** The same two daemons with a second service, `grpc`, if there is a port for it. */
export async function startOurs(backendPort: number, grpcPort?: number): Promise<Chain> {
  const mesh = await createMesh({
    nodes: [
      { name: 'first', region: 'bench-1' },
      { name: 'second', region: 'bench-2' },
    ],
  })
  const [first, second] = [mesh.node('first'), mesh.node('second')]
  await second.mustRun('service', 'add', 'bench', `127.0.0.1:${backendPort}`)
  if (grpcPort !== undefined) await second.mustRun('service', 'add', 'grpc', `127.0.0.1:${grpcPort}`)
  await mesh.converged()
  return {
    name: 'ours',
    url: `http://${first.listen.http}`,
    host: 'bench.mesh',
    pids: [first.pid, second.pid],
    stop: () => mesh.stop(),
  }
}

/** HAProxy, one thread each, HTTP/2 over TLS between them; the configuration of reference figures. */
export async function startHaproxy(folder: string, backendPort: number): Promise<Chain> {
  const [a, b] = [await freePort(), await freePort()]
  const pem = join(folder, 'both.pem')
  makeCertificate(folder)
  const common = [
    'global',
    '  nbthread 1',
    '  maxconn 9000',
    'defaults',
    '  mode http',
    '  http-reuse always',
    '  timeout connect 5s',
    '  timeout client 60s',
    '  timeout server 60s',
  ]
  const second = await startOneHaproxy(folder, 'haproxy-b', b, [
    ...common,
    'frontend b',
    `  bind 127.0.0.1:${b} ssl crt ${pem} alpn h2`,
    '  default_backend n',
    'backend n',
    `  server n 127.0.0.1:${backendPort}`,
  ])
  const first = await startOneHaproxy(folder, 'haproxy-a', a, [
    ...common,
    'frontend a',
    `  bind 127.0.0.1:${a}`,
    '  default_backend b',
    'backend b',
    `  server b 127.0.0.1:${b} ssl verify none alpn h2`,
  ])
  return chain('haproxy', a, first, second)
}

/** nginx, one worker each, HTTP/1.1 with keep-alive over TLS between them. */
export async function startNginxChain(folder: string, backendPort: number): Promise<Chain> {
  const [a, b] = [await freePort(), await freePort()]
  makeCertificate(folder)
  const proxy =
    'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering on; proxy_max_temp_file_size 0;'
  const second = await startNginx(folder, 'nginx-b', b, [
    `upstream n { server 127.0.0.1:${backendPort}; keepalive 64; keepalive_requests 100000000; }`,
    `server { listen 127.0.0.1:${b} ssl backlog=8192; ssl_certificate both.pem; ssl_certificate_key both.pem;`,
    `  keepalive_requests 100000000; location / { proxy_pass http://n; ${proxy} } }`,
  ])
  const first = await startNginx(folder, 'nginx-a', a, [
    `upstream b { server 127.0.0.1:${b}; keepalive 64; keepalive_requests 100000000; }`,
    `server { listen 127.0.0.1:${a} backlog=8192; keepalive_requests 100000000;`,
    `  location / { proxy_pass https://b; ${proxy} } }`,
  ])
  return chain('nginx', a, first, second)
}

function chain(name: Chain['name'], port: number, first: BenchProcess, second: BenchProcess): Chain {
  return {
    name,
    url: `http://127.0.0.1:${port}`,
    host: 'bench.mesh',
    pids: [first.pid, second.pid],
    async stop() {
      await first.stop()
      await second.stop()
    },
  }
}

async function startOneHaproxy(
  folder: string,
  name: string,
  port: number,
  lines: readonly string[],
): Promise<BenchProcess> {
  const file = join(folder, `${name}.cfg`)
  writeFileSync(file, `${lines.join('\n')}\n`)
  const process = new BenchProcess(name, 'haproxy', ['-db', '-f', file], folder)
  await process.listening(port)
  return process
}

async function startNginx(folder: string, name: string, port: number, lines: readonly string[]): Promise<BenchProcess> {
  const home = join(folder, name)
  mkdirSync(join(home, 'tmp'), { recursive: true })
  const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(kind => `${kind}_temp_path tmp;`).join(' ')
  const user = process.getuid?.() === 0 ? ['user root;'] : []
  const text = [
    ...user,
    'worker_processes 1; daemon off; pid nginx.pid; error_log error.log warn; worker_rlimit_nofile 60000;',
    'events { worker_connections 20000; }',
    `http { access_log off; ${paths}`,
    ...lines.map(line => line.replaceAll('both.pem', join(folder, 'both.pem'))),
    '}',
  ]
  writeFileSync(join(home, 'nginx.conf'), `${text.join('\n')}\n`)
  const started = new BenchProcess(name, 'nginx', ['-p', home, '-c', 'nginx.conf', '-e', 'error.log'], home)
  await started.listening(port)
  return started
}

function makeCertificate(folder: string): void {
  const [key, certificate] = [join(folder, 'key.pem'), join(folder, 'cert.pem')]
  const args = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2']
  execFileSync('openssl', [...args, '-subj', '/CN=bench', '-keyout', key, '-out', certificate], { stdio: 'ignore' })
  execFileSync('sh', ['-c', `cat '${certificate}' '${key}' > '${join(folder, 'both.pem')}'`])
}
