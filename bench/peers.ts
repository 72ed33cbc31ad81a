import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { freePort } from '../test/e2e/local-port.ts'
import type { BackendPorts, Chain } from './chain.ts'
import { descriptorsMax } from './chain.ts'
import { BenchProcess } from './process.ts'

/** Debian's place of nginx's module for plain TCP (libnginx-mod-stream); where it is built in, none is loaded. */
const STREAM_MODULE = '/usr/lib/nginx/modules/ngx_stream_module.so'
/** Idle client connections of the bench, and room for the rest. */
const CONNECTIONS_MAX = 10_500

/** HAProxy, one thread each, HTTP/2 over TLS between them; the configuration of reference figures, and its like for gRPC and TCP. */
export async function startHaproxy(folder: string, backend: BackendPorts): Promise<Chain> {
  const ports = { http: [await freePort(), await freePort()], grpc: [await freePort(), await freePort()] } as const
  const tcp = [await freePort(), await freePort()] as const
  const pem = join(folder, 'both.pem')
  makeCertificate(folder)
  const common = [
    'global',
    '  nbthread 1',
    `  maxconn ${CONNECTIONS_MAX}`,
    // It asks for two descriptors per connection; idle clients need one.
    `  ulimit-n ${descriptorsMax()}`,
    '  no strict-limits',
    'defaults',
    '  mode http',
    '  http-reuse always',
    '  timeout connect 5s',
    '  timeout client 60s',
    '  timeout server 60s',
  ]
  const proxy = (name: string, mode: 'http' | 'tcp', bind: string, server: string, rules: string[] = []): string[] => [
    ...[`frontend ${name}`, `  mode ${mode}`, `  bind 127.0.0.1:${bind}`, ...rules, `  default_backend to-${name}`],
    ...[`backend to-${name}`, `  mode ${mode}`, `  server s 127.0.0.1:${server}`],
  ]
  const second = await startOneHaproxy(folder, 'haproxy-b', ports.http[1], [
    ...common,
    ...proxy('http', 'http', `${ports.http[1]} ssl crt ${pem} alpn h2`, `${backend.http}`, [
      ...(backend.bulk === undefined ? [] : ['  use_backend to-bulk if { hdr(host) bulk.mesh }']),
    ]),
    ...(backend.bulk === undefined ? [] : ['backend to-bulk', `  server s 127.0.0.1:${backend.bulk}`]),
    ...proxy('tcp', 'tcp', `${tcp[1]} ssl crt ${pem}`, `${backend.http}`),
    ...(backend.grpc === undefined
      ? []
      : proxy('grpc', 'http', `${ports.grpc[1]} ssl crt ${pem} alpn h2`, `${backend.grpc} proto h2`)),
  ])
  const first = await startOneHaproxy(folder, 'haproxy-a', ports.http[0], [
    ...common,
    ...proxy('http', 'http', `${ports.http[0]}`, `${ports.http[1]} ssl verify none alpn h2`),
    ...proxy('tcp', 'tcp', `${tcp[0]}`, `${tcp[1]} ssl verify none`),
    ...proxy('grpc', 'http', `${ports.grpc[0]} proto h2`, `${ports.grpc[1]} ssl verify none alpn h2`),
  ])
  return {
    name: 'haproxy',
    pids: [first.pid, second.pid],
    http: { port: ports.http[0], host: 'bench.mesh' },
    ...(backend.grpc !== undefined && { grpc: { port: ports.grpc[0], host: 'grpc.mesh' } }),
    tcp: { port: tcp[0], host: 'bench.mesh' },
    ...(backend.bulk !== undefined && { bulk: { port: ports.http[0], host: 'bulk.mesh' } }),
    stop: () => stopBoth(first, second),
  }
}

/** nginx, one worker each, HTTP/1.1 with keep-alive over TLS between them; plain TCP if it has the module for it. */
export async function startNginxChain(folder: string, backend: BackendPorts): Promise<Chain> {
  const [a, b, tcpA, tcpB] = [await freePort(), await freePort(), await freePort(), await freePort()]
  makeCertificate(folder)
  const pem = join(folder, 'both.pem')
  const stream = findStreamModule()
  const proxy =
    'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering on; proxy_max_temp_file_size 0;'
  const second = await startNginx(folder, 'nginx-b', b, [
    `http { upstream n { server 127.0.0.1:${backend.http}; keepalive 64; keepalive_requests 100000000; }`,
    `server { listen 127.0.0.1:${b} ssl backlog=8192; ssl_certificate ${pem}; ssl_certificate_key ${pem};`,
    `  keepalive_requests 100000000; location / { proxy_pass http://n; ${proxy} } } }`,
    ...(stream === undefined
      ? []
      : [
          `stream { server { listen 127.0.0.1:${tcpB} ssl backlog=8192; ssl_certificate ${pem}; ssl_certificate_key ${pem};`,
          `  proxy_pass 127.0.0.1:${backend.http}; } }`,
        ]),
  ])
  const first = await startNginx(folder, 'nginx-a', a, [
    `http { upstream b { server 127.0.0.1:${b}; keepalive 64; keepalive_requests 100000000; }`,
    `server { listen 127.0.0.1:${a} backlog=8192; keepalive_requests 100000000;`,
    `  location / { proxy_pass https://b; ${proxy} } } }`,
    ...(stream === undefined
      ? []
      : [`stream { server { listen 127.0.0.1:${tcpA} backlog=8192; proxy_ssl on; proxy_pass 127.0.0.1:${tcpB}; } }`]),
  ])
  return {
    name: 'nginx',
    pids: [first.pid, second.pid],
    http: { port: a, host: 'bench.mesh' },
    ...(stream !== undefined && { tcp: { port: tcpA, host: 'bench.mesh' } }),
    stop: () => stopBoth(first, second),
  }
}

async function stopBoth(first: BenchProcess, second: BenchProcess): Promise<void> {
  await first.stop()
  await second.stop()
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

/** One nginx with one worker; `lines` are its `http` and `stream` blocks. */
export async function startNginx(
  folder: string,
  name: string,
  port: number,
  lines: readonly string[],
): Promise<BenchProcess> {
  const home = join(folder, name)
  mkdirSync(join(home, 'tmp'), { recursive: true })
  const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(kind => `${kind}_temp_path tmp;`).join(' ')
  const user = process.getuid?.() === 0 ? ['user root;'] : []
  const stream = findStreamModule()
  const text = [
    ...(stream === undefined || stream === '' ? [] : [`load_module ${stream};`]),
    ...user,
    'worker_processes 1; daemon off; pid nginx.pid; error_log error.log warn; worker_rlimit_nofile 60000;',
    'events { worker_connections 20000; }',
    ...lines.map(line => line.replace(/^http \{/, `http { access_log off; ${paths}`)),
  ]
  writeFileSync(join(home, 'nginx.conf'), `${text.join('\n')}\n`)
  const started = new BenchProcess(name, 'nginx', ['-p', home, '-c', 'nginx.conf', '-e', 'error.log'], home)
  await started.listening(port)
  return started
}

/** The path of nginx's module for plain TCP, '' where it is built in, undefined where there is none. */
export function findStreamModule(): string | undefined {
  if (existsSync(STREAM_MODULE)) return STREAM_MODULE
  const built = execFileSync('sh', ['-c', 'nginx -V 2>&1'], { encoding: 'utf8' })
  return /--with-stream(\s|$)/m.test(built) ? '' : undefined
}

function makeCertificate(folder: string): void {
  if (existsSync(join(folder, 'both.pem'))) return
  const [key, certificate] = [join(folder, 'key.pem'), join(folder, 'cert.pem')]
  const args = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2']
  execFileSync('openssl', [...args, '-subj', '/CN=bench', '-keyout', key, '-out', certificate], { stdio: 'ignore' })
  execFileSync('sh', ['-c', `cat '${certificate}' '${key}' > '${join(folder, 'both.pem')}'`])
}
