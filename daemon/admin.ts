import { chmod, lstat, mkdtemp, rename, rm, rmdir } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { connect, type ListenOptions } from 'node:net'
import { dirname, join } from 'node:path'
import type { Duplex } from 'node:stream'
import { MeshError, messageOf } from '../router/errors.ts'
import type { Log } from '../router/log.ts'
import { decodeRouteFilter, type RouteFilter } from '../router/route-filter.ts'
import { type AdminAddress, formatAdminAddress } from './address.ts'
import type { AdminBackend, ErrorView } from './admin-api.ts'
import { CONTENT_TYPE as METRICS_TYPE } from './exposition.ts'

/** A registration is some hundred bytes; room for many labels, none for an accident. */
const BODY_BYTES_MAX = 64 * 1024
const HEAD_BYTES_MAX = 16 * 1024
/** People, scripts and one scraper; a leak in one of them must not take the daemon's descriptors. Guess. */
const CONNECTIONS_MAX = 256
/** Loopback answers in milliseconds: a client this slow is stuck. Guess. */
const REQUEST_TIMEOUT_MS = 10_000
/** Longer than a scraper's or a heartbeat's pause would keep sockets for nothing. Node's own default. */
const IDLE_TIMEOUT_MS = 5_000

interface Request {
  /** The path's variable parts, decoded, in order. */
  readonly names: readonly string[]
  readonly query: URLSearchParams
  readonly body: unknown
}
interface Answer {
  readonly status: number
  /** Undefined: no body. */
  readonly body?: unknown
  /** In place of the body: text that is not JSON, and what it is. */
  readonly text?: { readonly type: string; readonly text: string }
}
interface Endpoint {
  /** `:` stands for one variable part. */
  readonly path: readonly string[]
  readonly method: 'GET' | 'PUT' | 'POST' | 'DELETE'
  readonly answer: (backend: AdminBackend, request: Request) => Answer
}

const ENDPOINTS: readonly Endpoint[] = [
  get('healthz', backend => answerHealth(backend.status().state)),
  get('metrics', backend => ({ status: 200, text: { type: METRICS_TYPE, text: backend.metrics() } })),
  get('v1/status', backend => ok(backend.status())),
  get('v1/nodes', backend => ok(backend.nodes())),
  get('v1/links', backend => ok(backend.links())),
  get('v1/services', backend => ok(backend.services())),
  get('v1/routes', backend => ok(backend.routes())),
  get('v1/explain/:', (backend, { names: [service = ''], query }) => ok(backend.explain(service, readFilter(query)))),
  get('v1/registry', backend => ok(backend.registrations())),
  {
    path: ['v1', 'registry'],
    method: 'POST',
    answer: (backend, { body }) => {
      const { service, id, rest } = splitRegistration(body)
      return { status: 201, body: backend.register(service, id, rest) }
    },
  },
  {
    path: ['v1', 'registry', ':', ':'],
    method: 'PUT',
    answer: (backend, { names: [service = '', id = ''], body }) => ok(backend.register(service, id, body)),
  },
  {
    path: ['v1', 'registry', ':', ':', 'heartbeat'],
    method: 'PUT',
    answer: (backend, { names: [service = '', id = ''] }) => ok(backend.heartbeat(service, id)),
  },
  {
    path: ['v1', 'registry', ':', ':'],
    method: 'DELETE',
    answer: (backend, { names: [service = '', id = ''] }) => {
      if (backend.deregister(service, id)) return { status: 204 }
      throw new MeshError('not-found', `no instance ${id} of ${service} is registered here over HTTP`)
    },
  },
]

/**
 * The admin API: JSON, and metrics for Prometheus, over HTTP/1.1 on a loopback port or a unix socket.
 *
 * It has no authentication of its own. What keeps others out: the address (loopback, or a socket of mode 0600), and
 * for web pages open on this machine, the refusal of foreign `Host` names (DNS rebinding) and of any `Origin`.
 */
export class AdminServer {
  #backend: AdminBackend
  #log: Log
  #address: AdminAddress
  #server: Server

  constructor(deps: { backend: AdminBackend; log: Log }, options: { address: AdminAddress }) {
    this.#backend = deps.backend
    this.#log = deps.log
    this.#address = options.address
    this.#server = createServer({
      maxHeaderSize: HEAD_BYTES_MAX,
      headersTimeout: REQUEST_TIMEOUT_MS,
      requestTimeout: REQUEST_TIMEOUT_MS,
      keepAliveTimeout: IDLE_TIMEOUT_MS,
      connectionsCheckingInterval: 1_000,
    })
    this.#server.maxConnections = CONNECTIONS_MAX
    // A client that reads nothing of its answer is cut off too.
    this.#server.timeout = REQUEST_TIMEOUT_MS
    this.#server.on('request', (request, response) => this.#onRequest(request, response))
    this.#server.on('clientError', (error, socket) => onClientError(error, socket))
  }

  /** Resolves with the address, its port the real one. Errors: MeshError `port-in-use` or `bad-config`. */
  async start(): Promise<AdminAddress> {
    const address = this.#address
    if ('socketPath' in address) {
      await this.#listenUnix(address.socketPath)
      return address
    }
    await this.#listen({ host: address.host, port: address.port })
    const bound = this.#server.address()
    return { host: address.host, port: typeof bound === 'object' && bound !== null ? bound.port : address.port }
  }

  /** Finishes the answers in flight, at most for `REQUEST_TIMEOUT_MS`, and closes. */
  async stop(): Promise<void> {
    if (!this.#server.listening) return
    const closed = new Promise<void>(resolve => this.#server.close(() => resolve()))
    this.#server.closeIdleConnections()
    const cutOff = setTimeout(() => this.#server.closeAllConnections(), REQUEST_TIMEOUT_MS)
    await closed
    clearTimeout(cutOff)
    if ('socketPath' in this.#address) await rm(this.#address.socketPath, { force: true })
  }

  #listen(where: ListenOptions): Promise<void> {
    return new Promise((resolve, reject) => {
      const onError = (error: NodeJS.ErrnoException) => reject(toListenError(error, this.#address))
      this.#server.once('error', onError)
      this.#server.listen(where, () => {
        this.#server.off('error', onError)
        this.#server.on('error', error => this.#log.error({ reason: error.message }, 'the admin API has a problem'))
        resolve()
      })
    })
  }

  /**
   * Binds in a private folder and moves the finished socket into place: it is never open to others, not even between
   * bind and chmod, and one left behind by a crash is replaced in the same step.
   */
  async #listenUnix(path: string): Promise<void> {
    if (await isAnswered(path)) throw toListenError(Object.assign(new Error(), { code: 'EADDRINUSE' }), this.#address)
    const found = await lstat(path).catch(() => undefined)
    if (found?.isSocket() === false)
      throw toListenError(new Error('there is something else at that path'), this.#address)
    let folder: string | undefined
    try {
      folder = await mkdtemp(join(dirname(path), '.fm-'))
      const own = join(folder, 's')
      await this.#listen({ path: own })
      await chmod(own, 0o600)
      await rename(own, path)
    } catch (error) {
      if (error instanceof MeshError) throw error
      throw toListenError(error, this.#address)
    } finally {
      if (folder !== undefined) await rmdir(folder).catch(() => {})
    }
  }

  async #onRequest(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      this.#refuseStrangers(request)
      const { endpoint, names, query } = findEndpoint(request)
      const body = endpoint.method === 'PUT' || endpoint.method === 'POST' ? await readJson(request) : undefined
      const answer = endpoint.answer(this.#backend, { names, query, body })
      if (answer.text === undefined) send(request, response, answer.status, answer.body)
      else sendText(request, response, answer.status, answer.text.type, answer.text.text)
    } catch (error) {
      this.#refuse(request, response, error)
    }
  }

  #refuse(request: IncomingMessage, response: ServerResponse, error: unknown): void {
    if (response.destroyed || response.headersSent) return
    if (error instanceof Refusal) {
      for (const [name, value] of Object.entries(error.headers)) response.setHeader(name, value)
      send(request, response, error.status, toErrorView(error.code, error.message))
    } else if (error instanceof MeshError) {
      const status = error.code === 'not-found' ? 404 : error.code === 'internal' ? 500 : 400
      send(request, response, status, toErrorView(error.code, error.message))
    } else {
      const reason = error instanceof Error ? (error.stack ?? error.message) : String(error)
      this.#log.error({ reason, code: 'internal' }, 'the admin API met a bug')
      send(request, response, 500, toErrorView('internal', 'a bug in flatmesh; the daemon’s log has the details'))
    }
  }

  #refuseStrangers(request: IncomingMessage): void {
    if (request.headers.origin !== undefined) {
      throw new Refusal(403, 'forbidden', 'requests of web pages (with an Origin header) are not answered')
    }
    // Web pages cannot reach a unix socket, and clients put what they like into Host there.
    if ('socketPath' in this.#address) return
    const hosts = request.headersDistinct.host ?? []
    const name = /^(\[[^\]]*\]|[^:]*)(?::\d{1,5})?$/.exec(hosts[0] ?? '')?.[1]?.toLowerCase() ?? ''
    const own = this.#address.host.includes(':') ? `[${this.#address.host}]` : this.#address.host.toLowerCase()
    if (hosts.length === 1 && ['localhost', '127.0.0.1', '[::1]', own].includes(name)) return
    throw new Refusal(403, 'forbidden', 'the Host header must be localhost, 127.0.0.1 or [::1]')
  }
}

/** An answer that is decided before the backend is asked; its code is the API's own, not one of the mesh's. */
class Refusal extends Error {
  readonly status: number
  readonly code: string
  readonly headers: Readonly<Record<string, string>>
  constructor(status: number, code: string, message: string, headers: Readonly<Record<string, string>> = {}) {
    super(message)
    this.status = status
    this.code = code
    this.headers = headers
  }
}

function get(path: string, answer: Endpoint['answer']): Endpoint {
  return { path: path.split('/'), method: 'GET', answer }
}

function ok(body: unknown): Answer {
  return { status: 200, body }
}

/** 200 only while calls should come here: a daemon that starts or drains answers 503 to a load balancer's check. */
function answerHealth(state: string): Answer {
  return { status: state === 'up' ? 200 : 503, body: { status: state } }
}

/** `?region=aws-*&label=version%3Dv2`, as a call asks with the fields of these names. */
function readFilter(query: URLSearchParams): RouteFilter | undefined {
  const [region, ...more] = query.getAll('region')
  if (more.length > 0) throw new Refusal(400, 'bad-request', 'expected one region, found two')
  const decoded = decodeRouteFilter(region, query.getAll('label'))
  if (decoded.ok) return decoded.filter
  throw new Refusal(400, 'bad-request', decoded.problem)
}

function findEndpoint(request: IncomingMessage): { endpoint: Endpoint; names: string[]; query: URLSearchParams } {
  const target = request.url ?? ''
  const path = target.split('?', 1)[0] ?? ''
  const query = new URLSearchParams(target.slice(path.length))
  const parts = path.startsWith('/') ? decodeParts(path.slice(1).split('/')) : undefined
  const found = parts === undefined ? [] : ENDPOINTS.filter(endpoint => fits(endpoint.path, parts))
  const shown = path.slice(0, 100)
  if (parts === undefined || found.length === 0) {
    throw new Refusal(
      404,
      'not-found',
      `there is nothing at ${JSON.stringify(shown)}; GET /v1/status is a place to begin`,
    )
  }
  const method = request.method === 'HEAD' ? 'GET' : request.method
  const endpoint = found.find(each => each.method === method)
  if (endpoint === undefined) {
    const allow = found.map(each => each.method).join(', ')
    throw new Refusal(405, 'bad-method', `${JSON.stringify(shown)} takes ${allow}, not ${request.method}`, { allow })
  }
  return { endpoint, names: parts.filter((_, i) => endpoint.path[i] === ':'), query }
}

function fits(pattern: readonly string[], parts: readonly string[]): boolean {
  return (
    pattern.length === parts.length && pattern.every((step, i) => (step === ':' ? parts[i] !== '' : step === parts[i]))
  )
}

function decodeParts(parts: readonly string[]): string[] | undefined {
  try {
    return parts.map(decodeURIComponent)
  } catch {
    return undefined
  }
}

/** The body as JSON; none at all is `{}`, so that a heartbeat needs no body. */
function readJson(request: IncomingMessage): Promise<unknown> {
  const tooLarge = () =>
    new Refusal(413, 'too-large', `a body has at most ${BODY_BYTES_MAX} bytes`, { connection: 'close' })
  return new Promise((resolve, reject) => {
    if (Number(request.headers['content-length'] ?? 0) > BODY_BYTES_MAX) return reject(tooLarge())
    const chunks: Buffer[] = []
    let bytes = 0
    request.on('data', (chunk: Buffer) => {
      bytes += chunk.length
      if (bytes <= BODY_BYTES_MAX) chunks.push(chunk)
      else {
        // What still comes is not kept; the closing answer ends it.
        chunks.length = 0
        reject(tooLarge())
      }
    })
    request.on('error', reject)
    request.on('end', () => {
      const text = Buffer.concat(chunks).toString('utf8')
      try {
        resolve(text.trim() === '' ? {} : JSON.parse(text))
      } catch {
        reject(new Refusal(400, 'bad-request', 'the body must be JSON, such as {"address": "127.0.0.1:9000"}'))
      }
    })
  })
}

/** `{service, id?, …}` as POSTed: the names go where the PUT has them, in the path. */
function splitRegistration(body: unknown): { service: string; id: string | undefined; rest: unknown } {
  const fields = typeof body === 'object' && body !== null && !Array.isArray(body) ? body : {}
  const { service, id, ...rest }: { service?: unknown; id?: unknown } = fields
  if (typeof service !== 'string' || (id !== undefined && typeof id !== 'string')) {
    const example = '{"service": "orders", "address": "127.0.0.1:9000"}, and "id" when it is not to be the address'
    throw new Refusal(400, 'bad-request', `the body must name its service: ${example}`)
  }
  return { service, id, rest }
}

function toErrorView(code: string, message: string): ErrorView {
  return { error: { code, message } }
}

function send(request: IncomingMessage, response: ServerResponse, status: number, body: unknown): void {
  sendText(request, response, status, 'application/json', body === undefined ? '' : `${JSON.stringify(body)}\n`)
}

function sendText(
  request: IncomingMessage,
  response: ServerResponse,
  status: number,
  type: string,
  text: string,
): void {
  response.statusCode = status
  if (text !== '') {
    response.setHeader('content-type', type)
    response.setHeader('content-length', Buffer.byteLength(text))
    response.setHeader('cache-control', 'no-store')
    response.setHeader('x-content-type-options', 'nosniff')
  }
  // Of a request that was not read to its end, the rest must not be taken for the next one.
  if (!request.complete && request.method !== 'GET' && request.method !== 'HEAD')
    response.setHeader('connection', 'close')
  response.end(request.method === 'HEAD' ? '' : text)
}

function onClientError(error: NodeJS.ErrnoException, socket: Duplex): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy()
    return
  }
  const [status, code] =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? ['431 Request Header Fields Too Large', 'too-large']
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? ['408 Request Timeout', 'request-timeout']
        : ['400 Bad Request', 'bad-request']
  const body = JSON.stringify(toErrorView(code ?? 'bad-request', 'this was not an HTTP/1.1 request within the limits'))
  const head = `HTTP/1.1 ${status}\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\nconnection: close`
  socket.end(`${head}\r\n\r\n${body}`, () => socket.destroy())
}

/** True if somebody answers on the socket: another daemon, not a file left behind. */
function isAnswered(path: string): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect({ path })
    socket.on('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.on('error', () => resolve(false))
  })
}

function toListenError(error: unknown, address: AdminAddress): MeshError {
  const shown = formatAdminAddress(address)
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  if (code === 'EADDRINUSE') {
    const hint = 'another daemon may be running; otherwise give listen.admin another address, or port 0'
    return new MeshError('port-in-use', `listen.admin: ${shown} is taken by another program: ${hint}`, { cause: error })
  }
  const reason = messageOf(error)
  return new MeshError('bad-config', `listen.admin: cannot listen on ${shown}: ${reason}`, { cause: error })
}
