import { createHash, randomBytes } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { NodeView, RouteView } from '../../daemon/admin-api.ts'
import { CallStream } from './call-stream.ts'
import { createMesh, type MeshProcesses, waitUntil } from './daemon-process.ts'
import { HttpClient, percentile, printFigure } from './http-client.ts'
import { type Region, Regions, whyNoNamespaces } from './netns.ts'

/** Promises of the product: see the numbers in ARCHITECTURE.md. */
const ROUTE_AROUND_MS = 3_500
const HEAL_MS = 10_000

const FILE_BYTES = 10 * 1024 * 1024

const why = whyNoNamespaces()
if (why !== undefined) process.stdout.write(`network namespaces: not run, ${why}\n`)

describe.runIf(why === undefined)('three regions in network namespaces of their own', () => {
  const regions = new Regions()
  const file = randomBytes(FILE_BYTES)
  let byName: ReadonlyMap<string, Region> = new Map()
  let mesh: MeshProcesses
  let client: HttpClient

  const region = (name: string): Region => {
    const found = byName.get(name)
    if (found === undefined) throw new Error(`there is no region ${name}`)
    return found
  }

  beforeAll(async () => {
    const all = regions.start(['a', 'b', 'c'])
    byName = new Map(all.map(each => [each.name, each]))
    mesh = await createMesh({
      folder: join(regions.folder, 'mesh'),
      nodes: all.map(({ name, exec, host, adminPath }) => ({
        ...{ name, region: `region-${name}`, exec, host },
        config: { listen: { admin: `unix:${adminPath}` } },
      })),
    })
    for (const name of ['b', 'c']) {
      const { host } = region(name)
      await startNginx(region(name), file)
      mesh.node(name).writeServices([
        { name: 'web', instances: [{ address: `${host}:8080` }] },
        { name: `web-${name}`, instances: [{ address: `${host}:8080` }] },
      ])
    }
    await regions.openDoor(region('a'), mesh.node('a').listen.http)
    client = new HttpClient(region('a').door)
    await waitUntil('a has the routes of b and c', async () => {
      const ready = readyRoutes(await region('a').admin.routes())
      return ['web@b', 'web@c', 'web-b@b', 'web-c@c'].every(route => ready.includes(route)) ? true : undefined
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

  async function startNginx(where: Region, content: Buffer): Promise<void> {
    const folder = join(regions.folder, `nginx-${where.name}`)
    mkdirSync(join(folder, 'www'), { recursive: true })
    writeFileSync(join(folder, 'www/file.bin'), content)
    writeFileSync(join(folder, 'www/index.html'), `hello from ${where.name}\n`)
    writeFileSync(join(folder, 'nginx.conf'), nginxConf(folder, where))
    const words = ['-e', join(folder, 'error.log'), '-p', folder, '-c', join(folder, 'nginx.conf')]
    await regions.spawn(where, 'nginx', words)
    await waitUntil(`nginx in ${where.name} listens`, async () => {
      const probe = await regions.spawn(where, 'curl', ['-s', '-o', '/dev/null', `http://${where.host}:8080/`])
      return (await probe.exited) === 0 ? true : undefined
    })
  }

  it('answers a call made in one region by the nginx of another', async () => {
    for (const name of ['b', 'c']) {
      const answer = await client.call(`web-${name}`)
      expect([answer.status, answer.body.toString()]).toEqual([200, `hello from ${name}\n`])
      expect(answer.headers.server).toMatch(/^nginx/)
      expect(answer.headers['x-instance']).toBe(name)
    }
  })

  it('passes a 10 MB file of sendfile, whole and in ranges, byte for byte', async () => {
    const whole = await client.call('web-b', { path: '/file.bin' })
    expect(whole.status).toBe(200)
    expect(sha256(whole.body)).toBe(sha256(file))
    printFigure('netns.file10MB', FILE_BYTES / 1e6 / (whole.tookMs / 1000), 'MB/s')
    for (const [from, to] of [
      [0, 0],
      [1_000_000, 6_999_999],
      [FILE_BYTES - 5, FILE_BYTES - 1],
    ] as const) {
      const part = await client.call('web-b', { path: '/file.bin', headers: { range: `bytes=${from}-${to}` } })
      expect([part.status, part.headers['content-range']]).toEqual([206, `bytes ${from}-${to}/${FILE_BYTES}`])
      expect(sha256(part.body)).toBe(sha256(file.subarray(from, to + 1)))
    }
    const beyond = await client.call('web-b', { path: '/file.bin', headers: { range: `bytes=${FILE_BYTES}-` } })
    expect([beyond.status, beyond.headers['x-flatmesh-error']]).toEqual([416, undefined])
    const head = await client.call('web-b', { path: '/file.bin', method: 'HEAD' })
    expect([head.status, head.headers['content-length'], head.body.length]).toEqual([200, `${FILE_BYTES}`, 0])
  })

  it('routes around a region whose cable is cut without losing a call, and takes it back when it is joined again', async () => {
    const startedAtMs = (await Promise.all([...byName.values()].map(each => each.admin.status()))).map(
      status => status.startedAtMs,
    )
    const stream = new CallStream(client, 'web')
    // Both are as near as the other, so whichever it is now.
    const victim = await waitUntil('calls flow to one region', () => {
      const names = new Set(stream.calls.slice(-20).map(call => call.answeredBy))
      const [name = ''] = names
      return stream.calls.length >= 100 && names.size === 1 && name !== '' ? name : undefined
    })
    const survivor = victim === 'b' ? 'c' : 'b'

    const cutAtMs = performance.now()
    regions.cable(region(victim), 'down')
    try {
      await waitUntil('calls are answered by the survivor', () =>
        stream.answeredBy(survivor).filter(call => call.startedAtMs > cutAtMs + ROUTE_AROUND_MS).length >= 100
          ? true
          : undefined,
      )
      await waitUntil('the cut region is out of the table', async () =>
        readyRoutes(await region('a').admin.routes()).some(route => route.endsWith(`@${victim}`)) ? undefined : true,
      )
    } finally {
      regions.cable(region(victim), 'up')
    }
    const joinedAtMs = performance.now()
    const fresh = new HttpClient(region('a').door)
    await waitUntil('the region answers again', async () => {
      const answer = await fresh.call(`web-${victim}`).catch(() => undefined)
      return answer?.status === 200 ? true : undefined
    })
    await waitUntil('the region sees the others again', async () =>
      (await region(victim).admin.nodes()).every(isReachable) ? true : undefined,
    )
    const healMs = performance.now() - joinedAtMs
    await stream.stop()
    fresh.close()

    const rerouted = stream.answeredBy(survivor).filter(call => call.startedAtMs > cutAtMs)
    const rerouteMs = Math.min(...rerouted.map(call => call.endedAtMs)) - cutAtMs
    const late = stream.calls.filter(call => call.startedAtMs > cutAtMs + ROUTE_AROUND_MS)
    printFigure('netns.blackhole.reroute', rerouteMs, 'ms')
    printFigure(
      'netns.blackhole.slowestCall',
      Math.max(...stream.calls.map(call => call.endedAtMs - call.startedAtMs)),
      'ms',
    )
    printFigure('netns.blackhole.calls', stream.calls.length, 'calls')
    printFigure(
      'netns.blackhole.p99After',
      percentile(
        late.map(call => call.endedAtMs - call.startedAtMs),
        0.99,
      ),
      'ms',
    )
    printFigure('netns.heal', healMs, 'ms')
    expect(stream.failed()).toEqual([])
    expect(rerouteMs).toBeLessThanOrEqual(ROUTE_AROUND_MS)
    expect(healMs).toBeLessThanOrEqual(HEAL_MS)
    const nowStartedAtMs = (await Promise.all([...byName.values()].map(each => each.admin.status()))).map(
      status => status.startedAtMs,
    )
    expect(nowStartedAtMs).toEqual(startedAtMs)
  })

  it('knows on both sides, after a split has healed, what changed on either side of it', async () => {
    const { a, b } = { a: mesh.node('a'), b: mesh.node('b') }
    const address = `${region('b').host}:8080`
    a.writeServices([{ name: 'before', instances: [{ address: '10.77.0.1:9' }] }])
    await waitUntil('b knows what a offered before', async () =>
      routesOf(await region('b').admin.routes(), 'before').length === 1 ? true : undefined,
    )
    regions.cable(region('a'), 'down')
    try {
      await waitUntil('both sides know that they are apart', async () => {
        const [left, right] = await Promise.all([region('a').admin.nodes(), region('b').admin.nodes()])
        const isApart = !left.some(node => node.node !== 'a' && isReachable(node))
        return isApart && right.some(node => node.node === 'a' && !isReachable(node)) ? true : undefined
      })
      a.writeServices([{ name: 'from-a', instances: [{ address: '10.77.0.1:9' }] }])
      b.writeServices([
        { name: 'web', instances: [{ address }] },
        { name: 'from-b', instances: [{ address }] },
      ])
      await waitUntil('c knows what b changed, without a', async () => {
        const routes = await region('c').admin.routes()
        return routesOf(routes, 'from-b').length === 1 && routesOf(routes, 'web-b').length === 0 ? true : undefined
      })
    } finally {
      regions.cable(region('a'), 'up')
    }
    const joinedAtMs = performance.now()
    for (const name of ['a', 'b', 'c']) {
      await waitUntil(`${name} knows all changes`, async () => {
        const services = (await region(name).admin.routes()).map(route => `${route.service}@${route.node}`).sort()
        const expected = ['from-a@a', 'from-b@b', 'web-c@c', 'web@b', 'web@c']
        return services.join() === expected.join() ? true : undefined
      })
    }
    // Word of b may have come by way of c before the link to b itself was back: healed is what can be called again.
    const answer = await waitUntil('what b began to offer meanwhile is answered', async () => {
      const tried = await client.call('from-b')
      return tried.status === 200 ? tried : undefined
    })
    const healMs = performance.now() - joinedAtMs
    printFigure('netns.split.heal', healMs, 'ms')
    expect(answer.body.toString()).toBe('hello from b\n')
    expect(healMs).toBeLessThanOrEqual(HEAL_MS)
  })
})

/** In the foreground, as whoever runs the test, with everything it writes in its own folder. */
function nginxConf(folder: string, { name, host }: Region): string {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    kind => `${kind}_temp_path ${folder}/${kind};`,
  )
  return `
    user ${userInfo().username};
    daemon off;
    worker_processes 1;
    pid ${folder}/nginx.pid;
    error_log ${folder}/error.log;
    events { worker_connections 512; }
    http {
      ${temporary.join('\n      ')}
      access_log off;
      sendfile on;
      tcp_nopush on;
      keepalive_timeout 60s;
      server {
        listen ${host}:8080;
        root ${folder}/www;
        add_header x-instance ${name} always;
      }
    }`
}

function readyRoutes(routes: readonly RouteView[]): string[] {
  return routes.filter(route => route.state === 'ready').map(route => `${route.service}@${route.node}`)
}

function routesOf(routes: readonly RouteView[], service: string): RouteView[] {
  return routes.filter(route => route.service === service)
}

function isReachable(node: NodeView): boolean {
  return node.state !== 'unreachable'
}

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex')
}
