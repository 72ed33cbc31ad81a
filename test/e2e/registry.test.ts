import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Backend } from './backend.ts'
import { createMesh, type DaemonProcess, type MeshProcesses, waitUntil } from './daemon-process.ts'
import { HttpClient, percentile, printFigure } from './http-client.ts'

/** Promises of the product: registered here, callable there; and gone there once it is gone here. */
const CALLABLE_MS = 1_000
const GONE_MS = 1_000
const ROUNDS = 30
/** Between two calls of the same question; the measured times are long by at most this. */
const ASK_AGAIN_MS = 3

describe('a service registered in one region', () => {
  const backend = new Backend('one')
  let mesh: MeshProcesses
  let home: DaemonProcess
  let client: HttpClient

  beforeAll(async () => {
    await backend.start()
    mesh = await createMesh({
      nodes: [
        { name: 'here', region: 'region-1', keepPorts: true },
        { name: 'there', region: 'region-2' },
      ],
    })
    await mesh.converged()
    home = mesh.node('here')
    client = new HttpClient(mesh.node('there').listen.http)
    await put('warm', 'a', backend.address)
    await untilStatus('warm', 200)
  })

  afterAll(async () => {
    client?.close()
    await mesh?.stop()
    await backend.stop()
  })

  it('in services.yaml is callable from another within a second, and gone within a second when taken out', async () => {
    const upMs: number[] = []
    const downMs: number[] = []
    for (let round = 0; round < ROUNDS; round++) {
      const name = `file-${round}`
      home.writeServices([{ name, instances: [{ address: backend.address }] }])
      upMs.push(await untilStatus(name, 200))
      home.writeServices([])
      downMs.push(await untilStatus(name, 404))
    }
    report('file', upMs, downMs)
  })

  it('over the HTTP API is callable from another within a second, and gone within a second after deregistering', async () => {
    const upMs: number[] = []
    const downMs: number[] = []
    for (let round = 0; round < ROUNDS; round++) {
      const name = `http-${round}`
      await put(name, 'a', backend.address)
      upMs.push(await untilStatus(name, 200))
      expect((await admin('DELETE', `${name}/a`)).status).toBe(204)
      downMs.push(await untilStatus(name, 404))
    }
    report('http', upMs, downMs)
  })

  it('keeps the service while one of two instances is left, and moves its calls there', async () => {
    const second = new Backend('two')
    await second.start()
    await put('pair', 'a', backend.address)
    await put('pair', 'b', second.address)
    await waitUntil('there knows both', async () => {
      const [route] = (await mesh.node('there').routes()).filter(({ service }) => service === 'pair')
      return route?.instances === 2 && route.healthy === 2 ? true : undefined
    })
    await admin('DELETE', 'pair/a')
    await waitUntil('calls go to the one that is left', async () => {
      const answer = await client.call('pair')
      expect(answer.status).toBe(200)
      return answer.headers['x-instance'] === 'two' ? true : undefined
    })
    await admin('DELETE', 'pair/b')
    await untilStatus('pair', 404)
    await second.stop()
  })

  it('without heartbeats goes when its time is over, and stays while they come', async () => {
    await put('mortal', 'a', backend.address, 1_500)
    await untilStatus('mortal', 200)
    const renewedUntilMs = performance.now() + 3_000
    while (performance.now() < renewedUntilMs) {
      expect((await admin('PUT', 'mortal/a/heartbeat')).status).toBe(200)
      expect((await client.call('mortal')).status).toBe(200)
      await new Promise(resolve => setTimeout(resolve, 200))
    }
    printFigure('registry.ttl.goneAfterLastHeartbeat', await untilStatus('mortal', 404), 'ms')
    expect((await admin('PUT', 'mortal/a/heartbeat')).status).toBe(404)
  })

  it('over the HTTP API is still there after a restart of the daemon within its time, and goes when it is over', async () => {
    await put('lasting', 'a', backend.address, 60_000)
    await put('fleeting', 'a', backend.address, 1_000)
    await untilStatus('lasting', 200)
    await home.restart()
    expect((await home.routes()).map(({ service }) => service)).toContain('lasting')
    printFigure('registry.restart.callableAgain', await untilStatus('lasting', 200), 'ms')
    await untilStatus('fleeting', 404)
    expect((await client.call('lasting')).status).toBe(200)
    await admin('DELETE', 'lasting/a')
    await untilStatus('lasting', 404)
  })

  it('over the HTTP API is still there after its daemon was killed', async () => {
    await put('saved', 'a', backend.address, 60_000)
    await untilStatus('saved', 200)
    await waitUntil('the registration is on disk', () =>
      readFileSync(join(home.folder, 'data/registrations.json'), 'utf8').includes('saved') ? true : undefined,
    )
    await home.kill('SIGKILL')
    await home.up()
    await untilStatus('saved', 200)
    await admin('DELETE', 'saved/a')
    await untilStatus('saved', 404)
  })

  it('stays as it last was while services.yaml is broken, which status tells until it is mended', async () => {
    const services = join(home.folder, 'services.yaml')
    home.writeServices([{ name: 'steady', instances: [{ address: backend.address }] }])
    await untilStatus('steady', 200)
    for (const broken of [
      'services: [{ name: steady, instances: [{ addr',
      'services: [{ name: Not A Name, instances: [{ address: "127.0.0.1:1" }] }]',
      'services: [{ name: steady, instances: [{ address: "127.0.0.1" }] }]',
      '42',
    ]) {
      writeFileSync(services, broken)
      const problem = await waitUntil(
        'status names the problem',
        async () => (await home.status()).registries.find(({ name }) => name.startsWith('file'))?.problem ?? undefined,
      )
      expect(problem).toContain('services.yaml')
      expect((await home.mustRun('status')).stdout).toContain('services.yaml')
      expect((await client.call('steady')).status).toBe(200)
      home.writeServices([{ name: 'steady', instances: [{ address: backend.address }] }])
      await waitUntil('status is well again', async () =>
        (await home.status()).registries.every(registry => registry.problem === null) ? true : undefined,
      )
    }
    expect((await client.call('steady')).status).toBe(200)
  })

  it('that is not understood is refused with what is wrong, and changes nothing', async () => {
    for (const body of [
      {},
      { address: 'nowhere' },
      { address: '127.0.0.1:1', weight: 0 },
      { address: '127.0.0.1:1', ttlMs: 1 },
    ]) {
      const { status, text } = await admin('PUT', 'refused/a', body)
      expect([status, JSON.parse(text).error.code]).toEqual([400, 'bad-registry'])
    }
    expect((await client.call('refused')).status).toBe(404)
    expect((await admin('DELETE', 'refused/a')).status).toBe(404)
  })

  async function put(service: string, id: string, address: string, ttlMs?: number): Promise<void> {
    const { status, text } = await admin('PUT', `${service}/${id}`, { address, ttlMs })
    if (status !== 200) throw new Error(`registering ${service}: ${status} ${text}`)
  }

  async function admin(method: string, path: string, body?: unknown): Promise<{ status: number; text: string }> {
    const init = body === undefined ? {} : { body: JSON.stringify(body) }
    const answer = await fetch(`${home.adminUrl}/v1/registry/${path}`, { method, ...init })
    return { status: answer.status, text: await answer.text() }
  }

  /** Milliseconds until a call made there is answered so; no call may hang or fail otherwise meanwhile. */
  async function untilStatus(service: string, status: number): Promise<number> {
    const startedAtMs = performance.now()
    for (;;) {
      const answer = await client.call(service)
      const tookMs = performance.now() - startedAtMs
      if (answer.status === status) return tookMs
      if (tookMs > 20_000) throw new Error(`${service}: expected ${status} within 20 s, found ${answer.status}`)
      await new Promise(resolve => setTimeout(resolve, ASK_AGAIN_MS))
    }
  }

  function report(kind: string, upMs: readonly number[], downMs: readonly number[]): void {
    for (const [what, values] of [
      ['callable', upMs],
      ['gone', downMs],
    ] as const) {
      printFigure(`registry.${kind}.${what}.p50`, percentile(values, 0.5), 'ms')
      printFigure(`registry.${kind}.${what}.max`, Math.max(...values), 'ms')
    }
    expect(Math.max(...upMs)).toBeLessThan(CALLABLE_MS)
    expect(Math.max(...downMs)).toBeLessThan(GONE_MS)
  }
})
