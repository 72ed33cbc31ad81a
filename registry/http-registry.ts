import { readFile, rename, stat } from 'node:fs/promises'
import { invariant, MeshError } from '../router/errors.ts'
import type { Log } from '../router/log.ts'
import type { ServiceName } from '../router/model.ts'
import { replaceFile } from './atomic-file.ts'
import {
  INSTANCES_PER_SERVICE_MAX,
  isSameService,
  parseRegistration,
  type RegistrationRequest,
  sharedLabels,
  TTL_MAX_MS,
  TTL_MIN_MS,
} from './service-schema.ts'
import type { Instance, RegistrySource, ServiceDefinition } from './source.ts'

/** Wall time and timers, as arguments. */
export interface RegistryClock {
  /** Unix milliseconds: expiries are kept across restarts, which a monotonic clock does not survive. */
  nowMs(): number
  /** Calls `run` once after `ms`; the answer cancels it. */
  setTimer(ms: number, run: () => void): () => void
}

export interface HttpRegistryDeps {
  readonly log: Log
  readonly clock: RegistryClock
}

export interface HttpRegistryOptions {
  /** The state file; its folder must exist. */
  readonly path: string
  /** Life of a registration that does not say its own, TTL_MIN_MS..TTL_MAX_MS. Default DEFAULT_TTL_MS. */
  readonly ttlMs?: number
}

/** One instance that registered itself. */
export interface Registration extends RegistrationRequest {
  /** Gone at this instant unless a heartbeat comes before, Unix milliseconds. */
  readonly expiresAtMs: number
}

/** Three heartbeats of ten seconds, the interval of most registry clients (Eureka's is 30 s and 90 s). */
const DEFAULT_TTL_MS = 30_000
/** Registrations at one node: ten for each of a thousand services. */
export const REGISTRATIONS_MAX = 10_000
/** A burst of changes makes one write: at most ten writes a second. */
const SAVE_WITHIN_MS = 100
/** Heartbeats are less urgent; see `#onRenewed`. */
const SAVE_HEARTBEATS_WITHIN_MAX_MS = 5_000
/** After a write that failed. A full disk is not emptied sooner. Guess. */
const SAVE_AGAIN_MS = 5_000
/** REGISTRATIONS_MAX entries with every field at its limit stay below this. */
const STATE_FILE_BYTES_MAX = 64 * 1024 * 1024
const STATE_VERSION = 1
/** Instances named in one log line. */
const NAMED_MAX = 5

interface Entry {
  registration: Registration
  /** What the state file says about it; -Infinity: nothing yet. */
  storedExpiresAtMs: number
}

/**
 * The embedded registry: what services said about themselves over the local API, until they stop saying so.
 *
 * It is state and rules only; HTTP is the admin API's. Every change is told in the same turn. The state file makes a
 * daemon restart invisible: whoever has not expired meanwhile is there again at once.
 */
export class HttpRegistry implements RegistrySource {
  readonly name = 'http'
  readonly #log: Log
  readonly #clock: RegistryClock
  readonly #path: string
  readonly #ttlMs: number
  #state: 'new' | 'starting' | 'running' | 'stopped' = 'new'
  #tell: ((services: readonly ServiceDefinition[]) => void) | undefined
  readonly #entries = new Map<ServiceName, Map<string, Entry>>()
  /** What the entries amount to, kept so that one change costs one service. */
  readonly #definitions = new Map<ServiceName, ServiceDefinition>()
  #count = 0
  /** No entry expires before this instant. */
  #nextExpiryMs = Number.POSITIVE_INFINITY
  #cancelExpiry: (() => void) | undefined
  #dirty = false
  #saveAtMs = Number.POSITIVE_INFINITY
  #cancelSave: (() => void) | undefined
  #saving: Promise<void> | undefined
  #problem: string | undefined

  constructor(deps: HttpRegistryDeps, options: HttpRegistryOptions) {
    this.#log = deps.log
    this.#clock = deps.clock
    this.#path = options.path
    this.#ttlMs = options.ttlMs ?? DEFAULT_TTL_MS
  }

  /** Rejects with MeshError `bad-config` for a ttl out of bounds; a lost or broken state file is only logged. */
  async start(onChange: (services: readonly ServiceDefinition[]) => void): Promise<void> {
    invariant(this.#state === 'new', 'an http registry is started once')
    if (!(this.#ttlMs >= TTL_MIN_MS && this.#ttlMs <= TTL_MAX_MS)) {
      throw new MeshError('bad-config', `ttlMs: expected ${TTL_MIN_MS} to ${TTL_MAX_MS}, found ${this.#ttlMs}`)
    }
    this.#state = 'starting'
    const stored = await this.#load()
    if (this.#state !== 'starting') return
    this.#state = 'running'
    this.#tell = onChange
    for (const registration of stored) {
      this.#put({ registration, storedExpiresAtMs: registration.expiresAtMs })
      this.#expireBy(registration.expiresAtMs)
    }
    for (const service of this.#entries.keys()) this.#define(service)
    onChange([...this.#definitions.values()])
  }

  /** Writes what is not written yet. Nothing is told afterwards. */
  async stop(): Promise<void> {
    this.#state = 'stopped'
    this.#tell = undefined
    this.#cancelExpiry?.()
    this.#cancelSave?.()
    await this.#saving
    if (this.#dirty) await this.#save()
  }

  problem(): string | undefined {
    return this.#problem
  }

  /**
   * Takes a registration, or renews and replaces the one with the same service and id.
   *
   * Errors: MeshError `bad-registry` if the input is not understood, if the service is registered with another
   * protocol, or if it has INSTANCES_PER_SERVICE_MAX instances; `overloaded` past REGISTRATIONS_MAX; `draining` after stop.
   */
  register(input: unknown): Registration {
    const nowMs = this.#enter()
    const request = parseRegistration(input, this.#ttlMs)
    this.#refuseConflict(request)
    const registration = { ...request, expiresAtMs: nowMs + request.ttlMs }
    this.#put({ registration, storedExpiresAtMs: Number.NEGATIVE_INFINITY })
    this.#expireBy(registration.expiresAtMs)
    this.#saveWithin(SAVE_WITHIN_MS)
    if (this.#define(request.service)) this.#tellAll()
    return registration
  }

  /** Renews a registration. Errors: MeshError `not-found` if there is none (any more): the service must register again. */
  heartbeat(service: string, id: string): Registration {
    const nowMs = this.#enter()
    const entry = this.#entries.get(service)?.get(id)
    if (entry === undefined) {
      const named = `${JSON.stringify(service.slice(0, 63))} ${JSON.stringify(id.slice(0, 260))}`
      throw new MeshError('not-found', `no registration of ${named} here: it expired or was never made; register again`)
    }
    entry.registration = { ...entry.registration, expiresAtMs: nowMs + entry.registration.ttlMs }
    this.#onRenewed(entry)
    return entry.registration
  }

  /** Takes a registration away; false if there was none. */
  deregister(service: string, id: string): boolean {
    this.#enter()
    const gone = this.#remove(service, id)
    if (!gone) return false
    this.#saveWithin(SAVE_WITHIN_MS)
    if (this.#define(service)) this.#tellAll()
    return true
  }

  /** All live registrations, by service in the order of arrival. */
  list(): readonly Registration[] {
    if (this.#state === 'running') this.#enter()
    return [...this.#all()].map(entry => entry.registration)
  }

  *#all(): Iterable<Entry> {
    for (const entries of this.#entries.values()) yield* entries.values()
  }

  /** What every request begins with: the time, and nobody in the books whose time is over. */
  #enter(): number {
    invariant(this.#state !== 'new' && this.#state !== 'starting', 'the http registry is used after start')
    if (this.#state === 'stopped') {
      throw new MeshError(
        'draining',
        'this daemon is stopping and takes no registrations; register once it is up again',
      )
    }
    const nowMs = this.#clock.nowMs()
    if (nowMs >= this.#nextExpiryMs) this.#expire(nowMs)
    return nowMs
  }

  #refuseConflict(request: RegistrationRequest): void {
    const { service, id, protocol } = request
    const siblings = this.#entries.get(service)
    for (const { registration: other } of siblings?.values() ?? []) {
      if (other.id === id || other.protocol === protocol) continue
      const holder = `${other.id} (${other.address})`
      throw new MeshError(
        'bad-registry',
        `expected protocol ${other.protocol}, found ${protocol}: ${service} is registered as ${other.protocol} by ${holder}; ` +
          'use that protocol, or another service name, or deregister the holder',
      )
    }
    if (siblings?.has(id)) return
    if ((siblings?.size ?? 0) >= INSTANCES_PER_SERVICE_MAX) {
      const text = `expected at most ${INSTANCES_PER_SERVICE_MAX} instances of ${service}, and so many are registered`
      throw new MeshError('bad-registry', `${text}; deregister some, or let them expire`)
    }
    if (this.#count >= REGISTRATIONS_MAX) {
      const text = `expected at most ${REGISTRATIONS_MAX} registrations at one node, and so many there are`
      throw new MeshError('overloaded', `${text}; deregister some, or register at another node`)
    }
  }

  #put(entry: Entry): void {
    const { service, id } = entry.registration
    const siblings = this.#entries.get(service) ?? new Map<string, Entry>()
    this.#entries.set(service, siblings)
    if (!siblings.has(id)) this.#count++
    siblings.set(id, entry)
  }

  #remove(service: ServiceName, id: string): boolean {
    const siblings = this.#entries.get(service)
    if (!siblings?.delete(id)) return false
    if (siblings.size === 0) this.#entries.delete(service)
    this.#count--
    return true
  }

  /** Brings the definition of one service up to date; true if that changed what others see. */
  #define(service: ServiceName): boolean {
    const old = this.#definitions.get(service)
    const registrations = [...(this.#entries.get(service)?.values() ?? [])].map(entry => entry.registration)
    const [first] = registrations
    if (first === undefined) return this.#definitions.delete(service)
    const definition: ServiceDefinition = {
      name: service,
      protocol: first.protocol,
      labels: sharedLabels(registrations.map(one => one.labels)),
      instances: instancesOf(registrations),
    }
    if (old !== undefined && isSameService(old, definition)) return false
    this.#definitions.set(service, definition)
    return true
  }

  #tellAll(): void {
    this.#tell?.([...this.#definitions.values()])
  }

  /** Sees to it that somebody looks at `atMs`. Renewals only push expiries back, so one timer for the earliest is enough. */
  #expireBy(atMs: number): void {
    if (atMs >= this.#nextExpiryMs) return
    this.#nextExpiryMs = atMs
    this.#cancelExpiry?.()
    const waitMs = Math.max(1, atMs - this.#clock.nowMs())
    this.#cancelExpiry = this.#clock.setTimer(waitMs, () => this.#expire(this.#clock.nowMs()))
  }

  #expire(nowMs: number): void {
    const gone: Registration[] = []
    let nextMs = Number.POSITIVE_INFINITY
    for (const entry of this.#all()) {
      const { registration } = entry
      if (registration.expiresAtMs <= nowMs) {
        gone.push(registration)
        continue
      }
      // The wall clock may have been set back: nobody lives longer than one ttl from now.
      const latestMs = nowMs + registration.ttlMs
      if (registration.expiresAtMs > latestMs) entry.registration = { ...registration, expiresAtMs: latestMs }
      nextMs = Math.min(nextMs, entry.registration.expiresAtMs)
    }
    for (const { service, id } of gone) this.#remove(service, id)
    this.#cancelExpiry?.()
    this.#nextExpiryMs = Number.POSITIVE_INFINITY
    if (nextMs < Number.POSITIVE_INFINITY) this.#expireBy(nextMs)
    if (gone.length === 0) return
    this.#saveWithin(SAVE_WITHIN_MS)
    const named = gone.slice(0, NAMED_MAX).map(({ service, id }) => `${service} ${id}`)
    this.#log.info(
      { registry: this.name, count: gone.length, instances: named },
      'registrations expired without a heartbeat',
    )
    const changed = [...new Set(gone.map(({ service }) => service))].filter(service => this.#define(service))
    if (changed.length > 0) this.#tellAll()
  }

  /**
   * A heartbeat changes nothing but an expiry, so it is written only when the file would be off by more than an eighth
   * of the ttl, and within another eighth: after a crash nobody is forgotten more than a quarter of their ttl too early.
   */
  #onRenewed(entry: Entry): void {
    const { expiresAtMs, ttlMs } = entry.registration
    this.#dirty = true
    if (expiresAtMs - entry.storedExpiresAtMs <= ttlMs / 8) return
    this.#saveWithin(Math.max(SAVE_WITHIN_MS, Math.min(ttlMs / 8, SAVE_HEARTBEATS_WITHIN_MAX_MS)))
  }

  #saveWithin(ms: number): void {
    this.#dirty = true
    if (this.#state !== 'running') return
    const atMs = this.#clock.nowMs() + ms
    if (atMs >= this.#saveAtMs) return
    this.#saveAtMs = atMs
    this.#cancelSave?.()
    this.#cancelSave = this.#clock.setTimer(ms, () => {
      this.#saveAtMs = Number.POSITIVE_INFINITY
      // One write at a time: what came during this one waits its own 100 ms.
      if (this.#saving !== undefined) this.#saveWithin(SAVE_WITHIN_MS)
      else void this.#save()
    })
  }

  #save(): Promise<void> {
    this.#saving = this.#write().finally(() => {
      this.#saving = undefined
    })
    return this.#saving
  }

  async #write(): Promise<void> {
    const written = [...this.#all()].map(entry => ({ entry, registration: entry.registration }))
    const state = { version: STATE_VERSION, registrations: written.map(({ registration }) => registration) }
    this.#dirty = false
    try {
      await replaceFile(this.#path, `${JSON.stringify(state)}\n`, { mode: 0o600 })
      for (const { entry, registration } of written) entry.storedExpiresAtMs = registration.expiresAtMs
      if (this.#problem !== undefined) this.#log.info({ registry: this.name }, 'registrations are saved again')
      this.#problem = undefined
    } catch (error) {
      const reason = `${this.#path}: cannot be written (${reasonOf(error)}); registrations would not survive a restart`
      if (this.#problem === undefined)
        this.#log.warn({ registry: this.name, code: 'bad-registry', reason }, 'registrations are not saved')
      this.#problem = reason
      this.#saveWithin(SAVE_AGAIN_MS)
    }
  }

  /** The registrations of the last run that are still alive. A file that makes no sense is moved aside. */
  async #load(): Promise<readonly Registration[]> {
    let text: string
    try {
      const { size } = await stat(this.#path)
      if (size > STATE_FILE_BYTES_MAX)
        throw new MeshError('bad-registry', `${size} bytes, expected at most ${STATE_FILE_BYTES_MAX}`)
      text = await readFile(this.#path, 'utf8')
    } catch (error) {
      if (reasonOf(error) === 'ENOENT') return []
      return this.#moveAside(error)
    }
    try {
      return parseState(text, this.#clock.nowMs())
    } catch (error) {
      return this.#moveAside(error)
    }
  }

  async #moveAside(error: unknown): Promise<readonly Registration[]> {
    const aside = `${this.#path}.corrupt`
    const moved = await rename(this.#path, aside).then(
      () => `moved to ${aside}`,
      cause => `could not be moved aside (${reasonOf(cause)})`,
    )
    const fields = { registry: this.name, code: 'bad-registry', reason: `${this.#path}: ${reasonOf(error)}; ${moved}` }
    this.#log.warn(fields, 'the registrations of the last run cannot be read; services must register again')
    return []
  }
}

/** One instance for each address: of two ids with the same one, a restarted process most likely, the newer holds. */
function instancesOf(registrations: readonly Registration[]): readonly Instance[] {
  const byAddress = new Map<string, Instance>()
  for (const { id, address, weight } of registrations) byAddress.set(address, { id, address, weight })
  return [...byAddress.values()]
}

/**
 * Reads a state file: `{ version: 1, registrations: [Registration, …] }`. Expired ones are left out.
 * Errors: any Error, whose message says what is wrong with the file.
 */
function parseState(text: string, nowMs: number): readonly Registration[] {
  const state: unknown = JSON.parse(text)
  const version = typeof state === 'object' && state !== null && 'version' in state ? state.version : undefined
  if (version !== STATE_VERSION) {
    throw new MeshError(
      'bad-registry',
      `expected version ${STATE_VERSION}, found ${JSON.stringify(version)?.slice(0, 60)}`,
    )
  }
  const list = typeof state === 'object' && state !== null && 'registrations' in state ? state.registrations : undefined
  if (!Array.isArray(list) || list.length > REGISTRATIONS_MAX) {
    throw new MeshError('bad-registry', `expected registrations: a list of at most ${REGISTRATIONS_MAX}`)
  }
  const protocols = new Map<ServiceName, string>()
  const live: Registration[] = []
  for (const item of list as readonly unknown[]) {
    if (typeof item !== 'object' || item === null || !('expiresAtMs' in item) || !Number.isFinite(item.expiresAtMs)) {
      throw new MeshError('bad-registry', 'a registration without expiresAtMs')
    }
    const { expiresAtMs, ...request } = item
    const registration = parseRegistration(request, TTL_MIN_MS)
    const protocol = protocols.get(registration.service) ?? registration.protocol
    protocols.set(registration.service, protocol)
    if (protocol !== registration.protocol) {
      throw new MeshError('bad-registry', `${registration.service} is ${protocol} and ${registration.protocol}`)
    }
    // A clock set back during the restart must not make anyone live longer than their ttl.
    const latestMs = Math.min(Number(expiresAtMs), nowMs + registration.ttlMs)
    if (latestMs > nowMs) live.push({ ...registration, expiresAtMs: latestMs })
  }
  return live
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  if (error instanceof MeshError) return error.message
  return 'code' in error && typeof error.code === 'string' ? error.code : error.message.slice(0, 200)
}
