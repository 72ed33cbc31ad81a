import { describe, expect, test } from 'vitest'
import { silentLog } from '../router/log.ts'
import { Catalog } from './catalog.ts'
import type { RegistrySource, ServiceDefinition } from './source.ts'
import { ListLog, service } from './source-contract.ts'

class FakeSource implements RegistrySource {
  readonly name: string
  readonly #startError: Error | undefined
  wrong: string | undefined
  stopped = false
  tell: (services: readonly ServiceDefinition[]) => void = () => undefined

  constructor(name: string, startError?: Error) {
    this.name = name
    this.#startError = startError
  }
  async start(onChange: (services: readonly ServiceDefinition[]) => void): Promise<void> {
    if (this.#startError !== undefined) throw this.#startError
    this.tell = onChange
  }
  async stop(): Promise<void> {
    this.stopped = true
    if (this.#startError !== undefined) throw this.#startError
  }
  problem(): string | undefined {
    return this.wrong
  }
}

async function started(sources: readonly RegistrySource[], log = silentLog) {
  const catalog = new Catalog({ sources, log })
  const told: { services: readonly ServiceDefinition[]; changed: readonly string[] }[] = []
  await catalog.start((services, changed) => told.push({ services, changed }))
  return { catalog, told }
}

describe('catalog', () => {
  test('names exactly the services that differ, also those that are gone', async () => {
    const file = new FakeSource('file')
    const { told } = await started([file])
    file.tell([service('a', ['h:1']), service('b', ['h:2'])])
    expect(told.at(-1)?.changed).toEqual(['a', 'b'])
    file.tell([service('a', ['h:1']), service('b', ['h:3']), service('c', [])])
    expect(told.at(-1)?.changed).toEqual(['b', 'c'])
    file.tell([service('c', [])])
    expect(told.at(-1)).toEqual({ services: [service('c', [])], changed: ['a', 'b'] })
  })

  test.each([
    ['protocol', { protocol: 'tcp' as const }],
    ['labels', { labels: { version: 'v2' } }],
    ['a weight', { instances: [{ id: 'h:1', address: 'h:1', weight: 2 }] }],
    ['an id', { instances: [{ id: 'x', address: 'h:1', weight: 1 }] }],
    ['the number of instances', { instances: [] }],
  ])('takes a difference in %s for a change', async (_, more) => {
    const file = new FakeSource('file')
    const { told } = await started([file])
    file.tell([service('a', ['h:1'])])
    file.tell([service('a', ['h:1'], more)])
    expect(told).toHaveLength(2)
  })

  test('is silent when the same content is told again', async () => {
    const file = new FakeSource('file')
    const { told } = await started([file])
    file.tell([])
    expect(told).toEqual([])
    file.tell([service('a', ['h:1'], { labels: { x: '1', y: '2' } })])
    file.tell([service('a', ['h:1'], { labels: { y: '2', x: '1' } })])
    expect(told).toHaveLength(1)
  })

  test('unites the instances of two sources by address, the first source deciding about the rest', async () => {
    const [file, http] = [new FakeSource('file'), new FakeSource('http')]
    const { catalog } = await started([file, http])
    http.tell([
      service('a', [], {
        labels: { v: '1', z: '1' },
        instances: [
          { id: 'h:1', address: 'h:9', weight: 9 },
          { id: 'pod-2', address: 'h:2', weight: 9 },
        ],
      }),
    ])
    file.tell([service('a', ['h:1', 'h:2'], { labels: { v: '1', z: '2' } })])
    expect(catalog.services()).toEqual([
      service('a', [], {
        labels: { v: '1' },
        instances: [
          { id: 'h:1', address: 'h:1', weight: 1 },
          { id: 'h:2', address: 'h:2', weight: 1 },
          { id: 'h:1@h:9', address: 'h:9', weight: 9 },
        ],
      }),
    ])
  })

  test('does not let a definition without instances take labels away', async () => {
    const [file, http] = [new FakeSource('file'), new FakeSource('http')]
    const { catalog } = await started([file, http])
    file.tell([service('a', [])])
    http.tell([service('a', ['h:1'], { labels: { v: '1' } })])
    expect(catalog.services()[0]?.labels).toEqual({ v: '1' })
  })

  test('keeps the protocol of the first source and shows the contradiction at the second until it ends', async () => {
    const log = new ListLog()
    const [file, http] = [new FakeSource('file'), new FakeSource('http')]
    const { catalog, told } = await started([file, http], log)
    http.tell([service('a', ['h:2'], { protocol: 'tcp' })])
    expect(catalog.services()[0]?.protocol).toBe('tcp')
    file.tell([service('a', ['h:1'])])
    expect(told.at(-1)?.services).toEqual([service('a', ['h:1'])])
    const contradiction = 'a is tcp here but http in file, which holds; rename one, or give both the same protocol'
    expect(catalog.sources()).toEqual([
      { name: 'file', problem: undefined },
      { name: 'http', problem: contradiction },
    ])
    file.tell([service('a', ['h:1', 'h:3'])])
    expect(log.count('warn')).toBe(1)
    http.wrong = 'cannot be written'
    expect(catalog.sources()[1]?.problem).toBe(`cannot be written\n${contradiction}`)
    http.wrong = undefined
    file.tell([])
    expect(catalog.services()[0]?.protocol).toBe('tcp')
    expect(catalog.sources()[1]?.problem).toBeUndefined()
  })

  test('names five contradictions of a source and counts the rest', async () => {
    const [file, http] = [new FakeSource('file'), new FakeSource('http')]
    const { catalog } = await started([file, http])
    const names = Array.from({ length: 8 }, (_, i) => `s${i}`)
    file.tell(names.map(name => service(name, ['h:1'])))
    http.tell(names.map(name => service(name, ['h:1'], { protocol: 'tcp' })))
    expect(catalog.sources()[1]?.problem?.split('\n')).toHaveLength(6)
    expect(catalog.sources()[1]?.problem).toContain('and 3 more contradictions')
  })

  test('goes on with the others when a source does not start or stop', async () => {
    const log = new ListLog()
    const [bad, good] = [new FakeSource('bad', new Error('no such cluster')), new FakeSource('good')]
    const { catalog, told } = await started([bad, good], log)
    good.tell([service('a', ['h:1'])])
    expect(told).toHaveLength(1)
    expect(catalog.sources()).toEqual([
      { name: 'bad', problem: 'did not start: no such cluster' },
      { name: 'good', problem: undefined },
    ])
    expect(log.count('error')).toBe(1)
    await catalog.stop()
    expect(good.stopped).toBe(true)
  })

  test('tells changes of the others while one is still starting', async () => {
    const [slow, good] = [new FakeSource('slow'), new FakeSource('good')]
    slow.start = () => new Promise(() => undefined)
    const catalog = new Catalog({ sources: [slow, good], log: silentLog })
    const told: (readonly string[])[] = []
    void catalog.start((_, changed) => told.push(changed))
    good.tell([service('a', ['h:1'])])
    expect(told).toEqual([['a']])
    await catalog.stop()
  })

  test('tells nothing after stop', async () => {
    const file = new FakeSource('file')
    const { catalog, told } = await started([file])
    await catalog.stop()
    file.tell([service('a', ['h:1'])])
    expect(told).toEqual([])
    expect(catalog.services()).toEqual([])
  })
})
