import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { CallStream } from './call-stream.ts'
import { createMesh, type MeshProcesses, waitUntil } from './daemon-process.ts'
import { HttpClient, printFigure } from './http-client.ts'
import { type Region, Regions, whyNoNamespaces } from './netns.ts'

const why = whyNoNamespaces()
if (why !== undefined) process.stdout.write(`network namespaces: not run, ${why}\n`)

const SERVICE = `
  const [host] = process.argv.slice(1)
  require('node:http')
    .createServer((request, response) => response.setHeader('x-instance', 'c').end('hello from c\\n'))
    .listen(8080, host, () => console.log('listening'))`

/** What a firewall between two regions swallows without a word: dials do not fail there, they hang. */
describe.runIf(why === undefined)('two regions between which every packet vanishes, and two that reach both', () => {
  const regions = new Regions()
  let byName: ReadonlyMap<string, Region> = new Map()
  let mesh: MeshProcesses
  let client: HttpClient

  const region = (name: string): Region => {
    const found = byName.get(name)
    if (found === undefined) throw new Error(`there is no region ${name}`)
    return found
  }
  const carrier = async (): Promise<string> =>
    (await region('a').admin.routes()).find(({ service }) => service === 'web')?.carrier ?? ''
  const linksTo = async (name: string) => (await region('a').admin.links()).find(({ node }) => node === name)

  beforeAll(async () => {
    const all = regions.start(['b', 'a', 'c', 'd'])
    byName = new Map(all.map(each => [each.name, each]))
    regions.part(region('a'), region('c'))
    mesh = await createMesh({
      folder: join(regions.folder, 'mesh'),
      nodes: all.map(({ name, exec, host, adminPath }) => ({
        ...{ name, region: `region-${name}`, exec, host },
        config: { listen: { admin: `unix:${adminPath}` } },
      })),
    })
    await regions.spawn(region('c'), process.execPath, ['-e', SERVICE, region('c').host], 'listening')
    mesh.node('c').writeServices([{ name: 'web', instances: [{ address: `${region('c').host}:8080` }] }])
    await regions.openDoor(region('a'), mesh.node('a').listen.http)
    client = new HttpClient(region('a').door)
    await waitUntil('a has the route to c, and links to b and d', async () => {
      const isLinked = await Promise.all(['b', 'd'].map(async name => (await linksTo(name))?.calls === 'up'))
      const isKnown = (await region('a').admin.routes()).some(({ state }) => state === 'ready')
      return isKnown && isLinked.every(Boolean) ? true : undefined
    })
  })

  afterAll(async () => {
    client?.close()
    try {
      await mesh?.stop()
    } finally {
      await regions.stop()
    }
  })

  it('answers the first call through a relay while the direct dial still hangs', async () => {
    const answer = await client.call('web')
    expect([answer.status, answer.body.toString()]).toEqual([200, 'hello from c\n'])
    printFigure('netns.relay.firstCall', answer.tookMs, 'ms')
    expect(await carrier()).toMatch(/^relayed via [bd]/)
    expect(await linksTo('c')).toMatchObject({ overlay: 'down', calls: 'up' })
  })

  it('loses no call when the relay falls silent: they go the other way', async () => {
    const first = await waitUntil('one relay is in use', async () => {
      await client.call('web')
      return /^relayed via ([bd])$/.exec(await carrier())?.[1]
    })
    const stream = new CallStream(client, 'web')
    await waitUntil('calls flow', () => (stream.calls.length > 100 ? true : undefined))
    regions.cable(region(first), 'down')
    const cutAtMs = performance.now()
    try {
      await waitUntil('calls are answered the other way', async () => {
        const now = await carrier()
        const isOther = /^relayed via [bd]$/.test(now) && now !== `relayed via ${first}`
        const answered = stream.calls.filter(call => call.startedAtMs > cutAtMs && call.outcome === '200')
        return isOther && answered.length > 100 ? true : undefined
      })
    } finally {
      regions.cable(region(first), 'up')
    }
    await stream.stop()
    const slowestMs = Math.max(...stream.calls.map(call => call.endedAtMs - call.startedAtMs))
    printFigure('netns.relay.silent.slowestCall', slowestMs, 'ms')
    expect(stream.failed()).toEqual([])
  })

  it('heals to direct when the packets pass again, and loses no call', async () => {
    const stream = new CallStream(client, 'web', { method: 'POST', body: 'once' })
    await waitUntil('calls flow', () => (stream.calls.length > 100 ? true : undefined))
    regions.unite(region('a'), region('c'))
    const unitedAtMs = performance.now()
    await waitUntil('calls go directly', async () => ((await carrier()) === 'direct' ? true : undefined), 60_000)
    printFigure('netns.relay.heal', performance.now() - unitedAtMs, 'ms')
    const seen = stream.calls.length
    await waitUntil('calls go on', () => (stream.calls.length > seen + 100 ? true : undefined))
    await stream.stop()
    expect(stream.failed()).toEqual([])
  })
})
