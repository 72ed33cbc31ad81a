import { type IncomingMessage, request } from 'node:http'
import { MeshError } from '../router/errors.ts'
import type { RouteFilter } from '../router/route-filter.ts'
import { type AdminAddress, formatAdminAddress } from './address.ts'
import type {
  ExplainCandidate,
  ExplainView,
  LinkView,
  NodeView,
  RegistrationView,
  RouteView,
  ServiceView,
  StatusView,
} from './admin-api.ts'

/** A table of 100,000 routes is about 20 MB; more is no answer of a daemon. */
const ANSWER_BYTES_MAX = 256 * 1024 * 1024
/** A daemon on the same machine answers in milliseconds; past this it hangs. Guess. */
const ANSWER_TIMEOUT_MS = 10_000

/** What a field of an answer must be; `?` may be null. `object` and `list` are checked no deeper. */
type Kind = 'string' | 'number' | 'boolean' | 'string?' | 'number?' | 'object' | 'list'
type Shape<T> = { readonly [K in keyof T]: Kind }

const NODE: Shape<NodeView> = {
  node: 'string',
  id: 'string',
  region: 'string',
  state: 'string',
  rttMs: 'number?',
  via: 'string',
  version: 'string',
}
const LINK: Shape<LinkView> = {
  node: 'string',
  id: 'string',
  region: 'string',
  overlay: 'string',
  calls: 'string',
  carrier: 'string',
  carriers: 'number',
  rttMs: 'number?',
  lossRatio: 'number',
  address: 'string',
  sinceMs: 'number',
  inFlight: 'number',
}
const SERVICE: Shape<ServiceView> = {
  service: 'string',
  protocol: 'string',
  nodes: 'number',
  instances: 'number',
  healthy: 'number',
  closest: 'string?',
}
const ROUTE: Shape<RouteView> = {
  service: 'string',
  node: 'string',
  region: 'string',
  protocol: 'string',
  instances: 'number',
  healthy: 'number',
  costMs: 'number?',
  via: 'string',
  carrier: 'string',
  state: 'string',
  ageMs: 'number',
}
const REGISTRATION: Shape<RegistrationView> = {
  service: 'string',
  id: 'string',
  address: 'string',
  protocol: 'string',
  labels: 'object',
  weight: 'number',
  source: 'string',
  ttlMs: 'number?',
  expiresAtMs: 'number?',
}
const EXPLAIN: Shape<ExplainView> = {
  service: 'string',
  node: 'string',
  known: 'boolean',
  candidates: 'list',
  choice: 'string?',
  summary: 'string',
}
const CANDIDATE: Shape<ExplainCandidate> = {
  node: 'string',
  region: 'string',
  rank: 'number?',
  costMs: 'number?',
  parts: 'object',
  via: 'string',
  carrier: 'string',
  instances: 'number',
  healthy: 'number',
  state: 'string',
  why: 'string',
}
const STATUS: Shape<StatusView> = {
  node: 'string',
  id: 'string',
  mesh: 'string',
  region: 'string',
  version: 'string',
  state: 'string',
  startedAtMs: 'number',
  uptimeMs: 'number',
  certificateExpiresAtMs: 'number',
  listen: 'object',
  advertise: 'list',
  nodes: 'object',
  services: 'number',
  routes: 'number',
  registries: 'list',
  calls: 'object',
  memory: 'object',
  gossip: 'object',
}

/**
 * Asks the daemon of this machine, one connection per question.
 *
 * Errors of every method: MeshError `daemon-unreachable` when nobody answers at the address, `bad-answer` when what
 * answers is not a daemon this program understands.
 */
export class AdminClient {
  #address: AdminAddress

  constructor(address: AdminAddress) {
    this.#address = address
  }

  async status(): Promise<StatusView> {
    return this.#checked(await this.#get('/v1/status'), isShape(STATUS))
  }
  async nodes(): Promise<NodeView[]> {
    return this.#checked(await this.#get('/v1/nodes'), isListOf(NODE))
  }
  async links(): Promise<LinkView[]> {
    return this.#checked(await this.#get('/v1/links'), isListOf(LINK))
  }
  async services(): Promise<ServiceView[]> {
    return this.#checked(await this.#get('/v1/services'), isListOf(SERVICE))
  }
  async routes(): Promise<RouteView[]> {
    return this.#checked(await this.#get('/v1/routes'), isListOf(ROUTE))
  }
  async registrations(): Promise<RegistrationView[]> {
    return this.#checked(await this.#get('/v1/registry'), isListOf(REGISTRATION))
  }
  async explain(service: string, filter: RouteFilter = {}): Promise<ExplainView> {
    const query = new URLSearchParams()
    if (filter.region !== undefined) query.append('region', filter.region)
    for (const [key, value] of Object.entries(filter.labels ?? {})) query.append('label', `${key}=${value}`)
    const path = `/v1/explain/${encodeURIComponent(service)}${query.size > 0 ? `?${query}` : ''}`
    const view = this.#checked(await this.#get(path), isShape(EXPLAIN))
    this.#checked(view.candidates, isListOf(CANDIDATE))
    return view
  }

  async #get(path: string): Promise<unknown> {
    const { status, text } = await this.#ask(path)
    let answer: unknown
    try {
      answer = JSON.parse(text)
    } catch {
      throw this.#notUnderstood(`HTTP ${status} without JSON`)
    }
    if (status === 200) return answer
    throw this.#notUnderstood(`HTTP ${status}: ${describeError(answer)}`)
  }

  #checked<T>(answer: unknown, fits: (answer: unknown) => answer is T): T {
    if (fits(answer)) return answer
    throw this.#notUnderstood('an answer of another shape')
  }

  #notUnderstood(found: string): MeshError {
    const shown = formatAdminAddress(this.#address)
    const hint = 'is it a flatmesh daemon, and of this version (flatmesh version)?'
    return new MeshError('bad-answer', `expected the admin API of a daemon at ${shown}, found ${found}; ${hint}`)
  }

  #ask(path: string): Promise<{ status: number; text: string }> {
    const address = this.#address
    const where =
      'socketPath' in address ? { socketPath: address.socketPath } : { host: address.host, port: address.port }
    return new Promise((resolve, reject) => {
      const asked = request({ ...where, path, agent: false, headers: { host: 'localhost' } })
      // The whole answer, not the pause between two bytes: nobody waits here for longer.
      const deadline = setTimeout(() => asked.destroy(new Error('no answer in time')), ANSWER_TIMEOUT_MS)
      asked.on('error', error => reject(toUnreachable(address, error)))
      asked.on('close', () => clearTimeout(deadline))
      asked.on('response', answer => {
        readText(answer).then(
          text => resolve({ status: answer.statusCode ?? 0, text }),
          error => reject(toUnreachable(address, error)),
        )
      })
      asked.end()
    })
  }
}

/** The one answer to "nobody is there": which address was tried, and what to do. */
export function toUnreachable(address: AdminAddress, cause: unknown): MeshError {
  const reason = cause instanceof Error ? (errorCode(cause) ?? cause.message) : String(cause)
  const message = `no daemon answers at ${formatAdminAddress(address)} (${reason}): is flatmesh up running with this config?`
  return new MeshError('daemon-unreachable', message, { cause })
}

function errorCode(error: Error): string | undefined {
  return 'code' in error && typeof error.code === 'string' ? error.code : undefined
}

async function readText(answer: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of answer) {
    bytes += chunk.length
    if (bytes > ANSWER_BYTES_MAX) throw new Error(`the answer is longer than ${ANSWER_BYTES_MAX} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

function describeError(answer: unknown): string {
  if (typeof answer !== 'object' || answer === null || !('error' in answer)) return 'no reason given'
  const { error } = answer
  return typeof error === 'object' && error !== null && 'message' in error ? String(error.message) : 'no reason given'
}

function isShape<T>(shape: Shape<T>): (answer: unknown) => answer is T {
  return (answer): answer is T =>
    typeof answer === 'object' &&
    answer !== null &&
    Object.entries<Kind>(shape).every(([key, kind]) => isKind(Reflect.get(answer, key), kind))
}

function isListOf<T>(shape: Shape<T>): (answer: unknown) => answer is T[] {
  const isItem = isShape(shape)
  return (answer): answer is T[] => Array.isArray(answer) && answer.every(isItem)
}

function isKind(value: unknown, kind: Kind): boolean {
  switch (kind) {
    case 'string?':
      return value === null || typeof value === 'string'
    case 'number?':
      return value === null || typeof value === 'number'
    case 'list':
      return Array.isArray(value)
    case 'object':
      return typeof value === 'object' && value !== null
    default:
      return typeof value === kind
  }
}
