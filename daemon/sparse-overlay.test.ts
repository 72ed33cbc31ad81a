import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { silentLog } from '../router/log.ts'
import { createTestMesh } from '../tunnel/test-identities.ts'
import { decodeAdminAddress } from './address.ts'
import type { ListenView } from './admin-api.ts'
import { AdminClient } from './admin-client.ts'
import { parseConfig } from './config.ts'
import { Daemon } from './daemon.ts'

const NODES = 12
const WAIT = { timeout: 60_000, interval: 100 }
/** What a node chooses: its own choices are at most five links, and those of others come on top. */
const LINKS = {
  ...{ fullMeshMax: 4, nearest: 2, random: 2, called: 1, periodMs: 200, soonMs: 50, soonSparseMs: 100 },
  // What takes a link's place is told within a second; it is given up later than that, as in the defaults.
  ...{ growingMs: 100, unwantedMs: 1500, leaveMs: 100 },
}

describe('twelve daemons of a mesh that keeps links to a few alone', () => {
  const folder = mkdtempSync(join(tmpdir(), 'flatmesh-sparse-'))
  const mesh = createTestMesh('sparse')
  const names = Array.from({ length: NODES }, (_, i) => `n${i}`)
  const nodes: { daemon: Daemon; listen: ListenView; admin: AdminClient }[] = []
  let backend: Server

  beforeAll(async () => {
    backend = createServer((request, response) => response.end(`${request.headers.host}\n`))
    await new Promise<void>(resolve => backend.listen(0, '127.0.0.1', resolve))
    const { port } = backend.address() as AddressInfo
    let join_: string[] = []
    for (const name of names) {
      const dataDir = join(folder, name)
      const services = [{ name: `s-${name}`, instances: [{ address: `127.0.0.1:${port}` }] }]
      writeFileSync(join(folder, `${name}.services.yaml`), JSON.stringify({ services }))
      const text = JSON.stringify({
        ...{ mesh: 'sparse', node: name, region: `r-${name}`, dataDir, join: join_ },
        listen: { overlay: '127.0.0.1:0', calls: '127.0.0.1:0', http: '127.0.0.1:0', admin: '127.0.0.1:0' },
        registries: [{ type: 'file', path: `${name}.services.yaml` }],
        overlay: { fullMeshMax: 4 },
      })
      const daemon = new Daemon(parseConfig(text, join(folder, `${name}.yaml`)), mesh.identity(name), silentLog, {
        links: LINKS,
      })
      const listen = await daemon.start()
      const address = decodeAdminAddress(listen.admin)
      if (address === undefined) throw new Error('expected an admin address')
      const admin = new AdminClient(address)
      nodes.push({ daemon, listen, admin })
      const [host, overlayPort] = listen.overlay.split(':')
      if (join_.length === 0) join_ = [`/ip4/${host}/tcp/${overlayPort}`]
    }
  }, WAIT.timeout)

  afterAll(async () => {
    await Promise.all(nodes.map(({ daemon }) => daemon.stop()))
    backend.closeAllConnections()
    backend.close()
    rmSync(folder, { recursive: true, force: true })
  })

  const linkCounts = (): Promise<number[]> =>
    Promise.all(nodes.map(async ({ admin }) => (await admin.links()).filter(({ overlay }) => overlay === 'up').length))

  it('keeps all of them connected, over far fewer links than a full mesh has', async () => {
    await vi.waitFor(async () => {
      for (const { admin } of nodes) {
        const reached = (await admin.nodes()).filter(({ state }) => state !== 'unreachable')
        expect(reached).toHaveLength(NODES)
        expect((await admin.routes()).filter(({ state }) => state === 'ready')).toHaveLength(NODES)
      }
      const counts = await linkCounts()
      const links = counts.reduce((sum, count) => sum + count, 0) / 2
      // Each chooses four of eleven, and some choose each other; a full mesh has 66.
      expect(links).toBeLessThanOrEqual(NODES * 4)
      expect(Math.min(...counts)).toBeGreaterThanOrEqual(2)
      // The first was everybody's door: who came in by it has found others.
      expect(counts[0]).toBeLessThan(NODES - 1)
    }, WAIT)
  })

  it('lets every node call every service', async () => {
    const answers = await Promise.all(
      nodes.flatMap(({ listen }) =>
        names.map(async name => {
          const answer = await fetch(`http://${listen.http}/`, { headers: { 'x-flatmesh-service': `s-${name}` } })
          return `${answer.status} ${answer.headers.get('x-flatmesh-error') ?? 'ok'}`
        }),
      ),
    )
    expect(answers).toHaveLength(NODES * NODES)
    expect(new Set(answers)).toEqual(new Set(['200 ok']))
  })

  it('finds together again when the node that everybody came in by is gone', async () => {
    const [first, ...rest] = nodes.splice(0)
    await first?.daemon.stop()
    nodes.push(...rest)
    await vi.waitFor(async () => {
      for (const { admin } of nodes) {
        const reached = (await admin.nodes()).filter(({ state }) => state !== 'unreachable')
        expect(reached).toHaveLength(NODES - 1)
      }
    }, WAIT)
  })
})
