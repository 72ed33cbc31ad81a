import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import {
  type DaemonProcess,
  endChildren,
  endWithThisProcess,
  MeshProcesses,
  waitUntil,
} from '../test/e2e/daemon-process.ts'
import { WanProcess } from './wan-process.ts'

const SERVICE_PROGRAM = fileURLToPath(new URL('./service.ts', import.meta.url))
/** Ten times what it takes on two busy cores. */
const CONVERGE_DEADLINE_MS = 30_000

/** The caller's region, the nearest one that offers `orders`, and the next nearest. */
export const HOME = { name: 'virginia', region: 'aws-us-east-1' } as const
export const NEAR = { name: 'ohio', region: 'gcp-us-east5' } as const
export const FAR = { name: 'iowa', region: 'azure-centralus' } as const

/** Round trips between them, milliseconds. */
export const LINES = [
  { between: [HOME.name, NEAR.name], rttMs: 10 },
  { between: [HOME.name, FAR.name], rttMs: 40 },
  { between: [NEAR.name, FAR.name], rttMs: 90 },
] as const

export const MAP = `
${HOME.name} (${HOME.region})   the caller, and service web
   ├── 10 ms ── ${NEAR.name} (${NEAR.region})      service orders
   └── 40 ms ── ${FAR.name} (${FAR.region})   services orders and billing
(${NEAR.name} and ${FAR.name} are 90 ms apart)`

/** Service and the nodes that offer it, as every node must see it in the end. */
const ROUTES = [`web ${HOME.name}`, `orders ${NEAR.name}`, `orders ${FAR.name}`, `billing ${FAR.name}`]

/**
 * The world of the demo: three daemons with folders of their own, services in each region, and lines between them that
 * are as long as those between datacenters. Everything is a real process and goes through the real program.
 */
export class DemoMesh {
  private readonly wan = new WanProcess(LINES)
  private readonly services: ChildProcess[] = []
  private mesh: MeshProcesses | undefined
  private folder = ''

  get home(): DaemonProcess {
    return this.node(HOME.name)
  }

  get near(): DaemonProcess {
    return this.node(NEAR.name)
  }

  get far(): DaemonProcess {
    return this.node(FAR.name)
  }

  /** Makes three members of one mesh; the first of them is up then. */
  async form(): Promise<void> {
    this.folder = await mkdtemp(join(tmpdir(), 'flatmesh-demo-'))
    this.wan.start()
    const nodes = [HOME, NEAR, FAR].map(node => ({ ...node, keepPorts: true }))
    this.mesh = new MeshProcesses(this.folder, {
      nodes,
      mesh: 'demo',
      openDoor: this.wan.openDoor,
      folder: this.folder,
    })
    await this.mesh.form()
  }

  /** The services of the first and the last region: one by a line in services.yaml, the others register themselves. */
  async startFirstServices(): Promise<void> {
    const [web] = await Promise.all([this.startService(HOME.region, ['web']), this.far.up()])
    await this.home.mustRun('service', 'add', 'web', addressOf(web, 'web'))
    await this.startService(FAR.region, ['orders', 'billing'], this.far.adminUrl)
  }

  /** A service whose daemon is not up yet. */
  async startNearService(): Promise<void> {
    const orders = await this.startService(NEAR.region, ['orders'])
    await this.near.mustRun('service', 'add', 'orders', addressOf(orders, 'orders'))
  }

  /** Starts the last daemon. Resolves with the milliseconds from its start, and from its being up, until all three see all routes (and virginia the nearest as nearest). */
  async converge(): Promise<{ sinceStartMs: number; sinceUpMs: number }> {
    const startedAtMs = performance.now()
    await this.near.up()
    const upAtMs = performance.now()
    await waitUntil('all three daemons see all routes', () => this.seesAll(), CONVERGE_DEADLINE_MS)
    const nowMs = performance.now()
    return { sinceStartMs: nowMs - startedAtMs, sinceUpMs: nowMs - upAtMs }
  }

  /** And the caller's node has measured who is nearest: a first round trip over a new link may be far too long. */
  private async seesAll(): Promise<true | undefined> {
    for (const node of [this.home, this.near, this.far]) {
      const ready = new Set((await node.routes()).filter(route => route.state === 'ready').map(toKey))
      if (!ROUTES.every(route => ready.has(route))) return undefined
    }
    const { candidates } = await this.home.explain('orders')
    return candidates.find(({ rank }) => rank === 1)?.node === NEAR.name ? true : undefined
  }

  /** In order: services sign off, daemons drain and must exit with 0. */
  async stop(): Promise<void> {
    const ended = this.services.map(service => once(service, 'exit'))
    for (const service of this.services) service.kill('SIGTERM')
    await Promise.all(ended)
    await this.mesh?.stop()
    await this.abandon()
  }

  /** At once, whatever they are doing. */
  async abandon(): Promise<void> {
    endChildren()
    await this.wan.stop()
    // A child that is just ending may still put a file there.
    if (this.folder !== '') await rm(this.folder, { recursive: true, force: true, maxRetries: 5 })
  }

  private node(name: string): DaemonProcess {
    if (this.mesh === undefined) throw new Error('the mesh is not formed yet')
    return this.mesh.node(name)
  }

  /** Resolves with the addresses by service name. */
  private async startService(region: string, names: readonly string[], register?: string): Promise<unknown> {
    const words = [SERVICE_PROGRAM, ...names, '--region', region]
    if (register !== undefined) words.push('--register', register)
    const child = spawn(process.execPath, words, { stdio: ['ignore', 'pipe', 'inherit'] })
    endWithThisProcess(child)
    this.services.push(child)
    const lines = createInterface({ input: child.stdout })
    const [line] = await Promise.race([
      once(lines, 'line'),
      once(child, 'exit').then((): never => {
        throw new Error(`the service ${names.join(', ')} of ${region} ended before it listened`)
      }),
    ])
    return JSON.parse(String(line))
  }
}

function toKey({ service, node }: { service: string; node: string }): string {
  return `${service} ${node}`
}

function addressOf(addresses: unknown, service: string): string {
  const address: unknown =
    typeof addresses === 'object' && addresses !== null ? Reflect.get(addresses, service) : undefined
  if (typeof address !== 'string') throw new Error(`expected the address of ${service}, found ${String(address)}`)
  return address
}
