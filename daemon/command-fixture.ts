import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough, Readable, Writable } from 'node:stream'
import { silentLog } from '../router/log.ts'
import { type AdminAddress, formatAdminAddress } from './address.ts'
import { AdminServer } from './admin.ts'
import type { AdminBackend, StatusView } from './admin-api.ts'
import type { Io } from './command.ts'
import { runCommandLine } from './main.ts'
import { type Rooms, rooms } from './rooms.ts'

/** For tests only: a command line run in this process, and a daemon that answers what it was told to. */

export const NOW_MS = 1_800_000_000_000

export interface Ran {
  readonly code: number
  readonly out: string
  readonly err: string
}

/** Runs a command line as main does, with its output caught. */
export async function run(words: readonly string[], given: Partial<Io> = {}): Promise<Ran> {
  const out = new Sink()
  const err = new Sink()
  const code = await runCommandLine(words, {
    stdin: Readable.from([]),
    stdout: out,
    stderr: err,
    cwd: '/nowhere',
    color: false,
    columns: undefined,
    rooms,
    machineHosts: () => ['192.0.2.7', '2001:db8::7'],
    nowMs: () => NOW_MS,
    stopSignal: () => new AbortController().signal,
    ...given,
  })
  return { code, out: out.text, err: err.text }
}

/** Rooms of which each is a failure unless it is given: a command must not touch what its test does not know of. */
export function fakeRooms(given: Partial<Rooms>): Rooms {
  const untouched = () => Promise.reject(new Error('this room was not expected to be asked'))
  return {
    runDaemon: untouched,
    createMesh: untouched,
    issueToken: untouched,
    joinMesh: untouched,
    addInstance: untouched,
    removeInstance: untouched,
    readServices: untouched,
    ...given,
  }
}

/** What was written to it, as text. */
export class Sink extends Writable {
  text = ''
  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString('utf8')
    done()
  }
}

export function stdinOf(text: string): Readable {
  return new PassThrough().end(text)
}

/** A new folder for one test, and how to remove it. */
export function makeFolder(): { folder: string; [Symbol.dispose](): void } {
  const folder = mkdtempSync(join(tmpdir(), 'flatmesh-'))
  return { folder, [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }) }
}

export const STATUS: StatusView = {
  node: 'use1-a',
  id: '12D3KooWAzSrJrsgigeyk85NXMrg2BfczU6SJVi4JWtawmUzCm6w',
  mesh: 'acme',
  region: 'aws-us-east-1',
  version: '0.1.0',
  state: 'up',
  startedAtMs: NOW_MS - 7_260_000,
  uptimeMs: 7_260_000,
  certificateExpiresAtMs: NOW_MS + 29 * 86_400_000,
  listen: { overlay: '0.0.0.0:4700', calls: '0.0.0.0:4701', http: '127.0.0.1:4780', admin: '127.0.0.1:4790', tcp: [] },
  advertise: ['203.0.113.7'],
  nodes: { known: 3, reachable: 2 },
  services: 1,
  routes: 2,
  registries: [
    { name: 'file services.yaml', problem: null },
    { name: 'http', problem: 'the state file cannot be written' },
  ],
  calls: { inFlight: 3, total: 1024, failed: 2 },
  memory: { rssBytes: 82_400_000, heapBytes: 40_100_000 },
  gossip: { heldBytes: 120_000, heldBack: [{ service: 'flaky', forMs: 12_000 }], refused: { 'bad-signature': 3 } },
}

/** A small mesh: this node, a near one, and one that cannot be reached. */
export function fakeBackend(given: Partial<AdminBackend> = {}): AdminBackend {
  return {
    status: () => STATUS,
    metrics: () => '# TYPE flatmesh_up gauge\nflatmesh_up 1\n',
    nodes: () => [
      { node: 'use1-a', id: 'id-a', region: 'aws-us-east-1', state: 'self', rttMs: 0, via: '', version: '0.1.0' },
      { node: 'euw3-a', id: 'id-b', region: 'gcp-europe-west3', state: 'up', rttMs: 88.25, via: '', version: '0.1.0' },
      { node: 'apse-1', id: 'id-c', region: 'sg', state: 'unreachable', rttMs: null, via: '', version: '0.1.0' },
    ],
    links: () => [
      {
        node: 'euw3-a',
        id: 'id-b',
        region: 'gcp-europe-west3',
        overlay: 'up',
        calls: 'down',
        carrier: '',
        carriers: 0,
        rttMs: 88.25,
        lossRatio: 0.004,
        address: '198.51.100.4:4701',
        sinceMs: 200_000,
        inFlight: 12,
      },
    ],
    services: () => [
      { service: 'orders', protocol: 'http', nodes: 2, instances: 3, healthy: 2, closest: 'euw3-a' },
      { service: 'stock', protocol: 'tcp', nodes: 1, instances: 1, healthy: 0, closest: null },
    ],
    routes: () => [
      {
        service: 'orders',
        node: 'euw3-a',
        region: 'gcp-europe-west3',
        protocol: 'http',
        instances: 3,
        healthy: 2,
        costMs: 89.25,
        via: '',
        carrier: 'direct',
        state: 'ready',
        ageMs: 4_000,
      },
      {
        service: 'orders',
        node: 'apse-1',
        region: 'sg',
        protocol: 'http',
        instances: 1,
        healthy: 1,
        costMs: null,
        via: '',
        carrier: '',
        state: 'unreachable',
        ageMs: 600_000,
      },
    ],
    explain: service => ({
      service,
      node: 'use1-a',
      known: service === 'orders',
      candidates:
        service === 'orders'
          ? [
              {
                node: 'euw3-a',
                region: 'gcp-europe-west3',
                rank: 1,
                costMs: 89.25,
                parts: { rttMs: 88.25, hopsMs: 1 },
                via: '',
                carrier: 'direct',
                instances: 3,
                healthy: 2,
                state: 'ready',
                why: 'least cost',
              },
              {
                node: 'apse-1',
                region: 'sg',
                rank: null,
                costMs: null,
                parts: { rttMs: null, hopsMs: null },
                via: '',
                carrier: '',
                instances: 1,
                healthy: 1,
                state: 'unreachable',
                why: 'no path of live links leads there',
              },
            ]
          : [],
      choice: service === 'orders' ? 'euw3-a' : null,
      summary: `a call for ${service} from use1-a goes to euw3-a`,
    }),
    register: () => {
      throw new Error('not expected')
    },
    heartbeat: () => {
      throw new Error('not expected')
    },
    deregister: () => false,
    registrations: () => [
      {
        service: 'orders',
        id: '127.0.0.1:9000',
        address: '127.0.0.1:9000',
        protocol: 'http',
        labels: { version: 'v1' },
        weight: 10,
        source: 'http',
        ttlMs: 30_000,
        expiresAtMs: NOW_MS + 12_000,
      },
    ],
    ...given,
  }
}

/** A real admin server with a fake backend, on a port the system chose. */
export async function startAdmin(
  backend: AdminBackend = fakeBackend(),
  address: AdminAddress = { host: '127.0.0.1', port: 0 },
): Promise<{ address: AdminAddress; text: string; [Symbol.asyncDispose](): Promise<void> }> {
  const server = new AdminServer({ backend, log: silentLog }, { address })
  const bound = await server.start()
  return { address: bound, text: formatAdminAddress(bound), [Symbol.asyncDispose]: () => server.stop() }
}
