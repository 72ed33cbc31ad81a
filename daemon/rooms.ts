import type { ServiceDefinition } from '../registry/source.ts'
import { MeshError } from '../router/errors.ts'
import type { Log } from '../router/log.ts'
import type { Identity } from '../tunnel/identity.ts'
import type { Config } from './config.ts'

/** What the running daemon gets of its process. */
export interface DaemonIo {
  readonly log: Log
  readonly stdout: NodeJS.WritableStream
  /** Aborted by SIGTERM or SIGINT: drain, then resolve. A second signal ends the process at once. */
  readonly stop: AbortSignal
}

/** Runs until it is told to stop. Resolves with the exit code. Errors: MeshError, before anything was opened. */
export type RunDaemon = (config: Config, io: DaemonIo) => Promise<number>

export interface NewInstance {
  readonly service: string
  readonly address: string
  readonly protocol?: 'http' | 'h2' | 'tcp'
  readonly labels?: Readonly<Record<string, string>>
  readonly weight?: number
}

/** What commands need of the other rooms; tests give their own. */
export interface Rooms {
  runDaemon: RunDaemon
  /** Makes a mesh with this node as its first. Errors: MeshError `data-dir`; then nothing is written. */
  createMesh(dataDir: string, member: { mesh: string; name: string; region: string; nowMs: number }): Promise<Identity>
  /** One-use and expiring. Addresses are what a new node will try, best first. Errors: MeshError `data-dir`. */
  issueToken(
    dataDir: string,
    token: { ttlMs: number; calls: string[]; overlay: string[]; nowMs: number },
  ): Promise<string>
  /** Errors: MeshError `bad-token`, `token-…`, `join-refused`, `data-dir`; then nothing is written. `overlay`: the inviter's multiaddrs. */
  joinMesh(request: {
    token: string
    dataDir: string
    name: string
    region: string
    nowMs: number
    signal: AbortSignal
  }): Promise<{ identity: Identity; mesh: string; overlay: readonly string[] }>
  /** False: it was there already. Errors: MeshError `bad-registry`. */
  addInstance(path: string, instance: NewInstance): Promise<boolean>
  /** All of the service's instances without an address. False: there was none. Errors: MeshError `bad-registry`. */
  removeInstance(path: string, which: { service: string; address?: string }): Promise<boolean>
  /** Errors: MeshError `bad-registry`. */
  readServices(text: string, file: string): Promise<readonly ServiceDefinition[]>
}

/**
 * The real ones, each loaded when it is needed: `flatmesh status` must not wait half a second for libp2p to load.
 */
export const rooms: Rooms = {
  async runDaemon(config, io) {
    const { runDaemon } = await import('./run-daemon.ts')
    return runDaemon(config, io)
  },
  async createMesh(dataDir, member) {
    const { createMesh } = await import('../tunnel/identity.ts')
    return createMesh(dataDir, member)
  },
  async issueToken(dataDir, token) {
    const { issueToken } = await import('../tunnel/join-token.ts')
    return issueToken(dataDir, token)
  },
  async joinMesh(request) {
    const { joinMesh } = await import('../tunnel/join-client.ts')
    return joinMesh(request)
  },
  async addInstance(path, instance) {
    const { addInstance } = await import('../registry/services-edit.ts')
    return addInstance(path, instance)
  },
  async removeInstance(path, which) {
    const { removeInstance } = await import('../registry/services-edit.ts')
    return removeInstance(path, which)
  },
  async readServices(text, file) {
    const { decodeServices } = await import('../registry/service-schema.ts')
    const decoded = await decodeServices(text, file)
    if (decoded.services !== undefined) return decoded.services
    throw new MeshError('bad-registry', decoded.problem)
  },
}
