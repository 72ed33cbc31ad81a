import { invariant, messageOf } from '../router/errors.ts'
import type { Log } from '../router/log.ts'
import type { ServiceName } from '../router/model.ts'
import { isSameService, sharedLabels } from './service-schema.ts'
import type { Instance, RegistrySource, ServiceDefinition } from './source.ts'

export interface CatalogDeps {
  /** In order of precedence: where two contradict each other, the earlier one holds. */
  readonly sources: readonly RegistrySource[]
  readonly log: Log
}

/** `services` is the whole content; `changed` names what differs from the time before, including what is gone. */
export type OnCatalogChange = (services: readonly ServiceDefinition[], changed: readonly ServiceName[]) => void

/** A source and what is wrong with it, or with what it says; undefined: nothing. */
export interface SourceState {
  readonly name: string
  readonly problem: string | undefined
}

/** Contradictions of one source named in its problem. */
const CONFLICTS_SHOWN_MAX = 5

interface Feed {
  readonly source: RegistrySource
  services: ReadonlyMap<ServiceName, ServiceDefinition>
  /** Why it did not start. */
  failure: string | undefined
  /** Services of this source that an earlier one contradicts, and how. */
  readonly conflicts: Map<ServiceName, string>
}

/** All registries of this node as one. A source that fails takes nothing with it but what it has not told yet. */
export class Catalog {
  readonly #log: Log
  readonly #feeds: readonly Feed[]
  readonly #merged = new Map<ServiceName, ServiceDefinition>()
  #state: 'new' | 'running' | 'stopped' = 'new'
  #onChange: OnCatalogChange | undefined

  constructor({ sources, log }: CatalogDeps) {
    this.#log = log
    this.#feeds = sources.map(source => ({ source, services: new Map(), failure: undefined, conflicts: new Map() }))
  }

  /**
   * Starts all sources at once. Resolves when each has told its first content or failed; never rejects.
   * `onChange` is called only for real differences, so not at all while everything is empty.
   */
  async start(onChange: OnCatalogChange): Promise<void> {
    invariant(this.#state === 'new', 'a catalog is started once')
    this.#state = 'running'
    this.#onChange = onChange
    await Promise.all(this.#feeds.map(feed => this.#startFeed(feed)))
  }

  /** Nothing is told once this was called. Never rejects. */
  async stop(): Promise<void> {
    this.#state = 'stopped'
    this.#onChange = undefined
    await Promise.all(
      this.#feeds.map(async ({ source }) => {
        try {
          await source.stop()
        } catch (error) {
          this.#log.warn({ registry: source.name, reason: String(error) }, 'a registry did not stop cleanly')
        }
      }),
    )
  }

  services(): readonly ServiceDefinition[] {
    return [...this.#merged.values()]
  }

  sources(): readonly SourceState[] {
    return this.#feeds.map(feed => ({ name: feed.source.name, problem: problemOf(feed) }))
  }

  async #startFeed(feed: Feed): Promise<void> {
    try {
      await feed.source.start(services => this.#onTold(feed, services))
    } catch (error) {
      feed.failure = `did not start: ${messageOf(error)}`
      this.#log.error(
        { registry: feed.source.name, code: 'bad-registry', reason: feed.failure },
        'a registry did not start',
      )
    }
  }

  #onTold(feed: Feed, services: readonly ServiceDefinition[]): void {
    if (this.#state !== 'running') return
    const before = feed.services
    const after = new Map(services.map(service => [service.name, service]))
    feed.services = after
    const touched = new Set<ServiceName>()
    for (const [name, service] of after) if (before.get(name) !== service) touched.add(name)
    for (const name of before.keys()) if (!after.has(name)) touched.add(name)
    const changed = [...touched].filter(name => this.#merge(name))
    if (changed.length > 0) this.#onChange?.(this.services(), changed)
  }

  /** Brings one service up to date; true if that made a difference. */
  #merge(name: ServiceName): boolean {
    const old = this.#merged.get(name)
    const agreeing: ServiceDefinition[] = []
    let holder: Feed | undefined
    for (const feed of this.#feeds) {
      const told = feed.conflicts.get(name)
      feed.conflicts.delete(name)
      const service = feed.services.get(name)
      if (service === undefined) continue
      holder ??= feed
      const protocol = agreeing[0]?.protocol ?? service.protocol
      if (service.protocol === protocol) agreeing.push(service)
      else {
        const what = `${name} is ${service.protocol} here but ${protocol} in ${holder.source.name}, which holds`
        const text = `${what}; rename one, or give both the same protocol`
        feed.conflicts.set(name, text)
        if (text !== told) this.#logConflict(feed, name, text)
      }
    }
    const merged = mergeServices(agreeing)
    if (merged === undefined) return this.#merged.delete(name)
    if (old !== undefined && isSameService(old, merged)) return false
    this.#merged.set(name, merged)
    return true
  }

  #logConflict(feed: Feed, service: ServiceName, reason: string): void {
    const fields = { registry: feed.source.name, service, code: 'bad-registry', reason }
    this.#log.warn(fields, 'two registries contradict each other about a service')
  }
}

/**
 * Definitions of one service, with one protocol, as one: instances united by address (the earlier definition's is
 * taken), labels that all agree on. A definition without instances says nothing about labels. Undefined for none.
 */
function mergeServices(all: readonly ServiceDefinition[]): ServiceDefinition | undefined {
  const [first] = all
  if (first === undefined || all.length === 1) return first
  const serving = all.filter(({ instances }) => instances.length > 0)
  const byAddress = new Map<string, Instance>()
  const ids = new Set<string>()
  for (const instance of serving.flatMap(({ instances }) => instances)) {
    if (byAddress.has(instance.address)) continue
    // Ids are unique in one source only; with the address they are unique here, and stay the same over re-reads.
    const id = ids.has(instance.id) ? `${instance.id}@${instance.address}` : instance.id
    ids.add(id)
    byAddress.set(instance.address, id === instance.id ? instance : { ...instance, id })
  }
  const labels = sharedLabels((serving.length > 0 ? serving : all).map(service => service.labels))
  return { name: first.name, protocol: first.protocol, labels, instances: [...byAddress.values()] }
}

function problemOf({ source, failure, conflicts }: Feed): string | undefined {
  const named = [...conflicts.values()].slice(0, CONFLICTS_SHOWN_MAX)
  const rest = conflicts.size - named.length
  const own = failure ?? source.problem()
  const all = [...(own === undefined ? [] : [own]), ...named, ...(rest > 0 ? [`and ${rest} more contradictions`] : [])]
  return all.length === 0 ? undefined : all.join('\n')
}
