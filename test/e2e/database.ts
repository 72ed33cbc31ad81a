import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { chownSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { endWithThisProcess, waitUntil } from './daemon-process.ts'
import { canConnect, freePort } from './local-port.ts'

/** Where Debian keeps what is not on the path: a folder for each version. */
const POSTGRES_FOLDER = '/usr/lib/postgresql'
const STOP_LIMIT_MS = 10_000
/** Of what a server said, for the message when it does not come up. */
const OUTPUT_CHARS_MAX = 4000

/** Why a real PostgreSQL cannot be used here, for whoever reads the test's output; undefined: it can. */
export function whyNoPostgres(): string | undefined {
  const missing = ['initdb', 'postgres', 'psql'].filter(name => postgresProgram(name) === undefined)
  if (missing.length > 0) return `not installed: ${missing.join(', ')} (Debian: postgresql)`
  return process.getuid?.() === 0 && serverUser() === undefined ? 'no user to run it as' : undefined
}

export function whyNoRedis(): string | undefined {
  const missing = ['redis-server', 'redis-cli'].filter(name => onPath(name) === undefined)
  return missing.length > 0 ? `not installed: ${missing.join(', ')} (Debian: redis-server)` : undefined
}

/** The path of one of PostgreSQL's programs, of the newest version that is installed. */
export function postgresProgram(name: string): string | undefined {
  const versions = existsSync(POSTGRES_FOLDER) ? readdirSync(POSTGRES_FOLDER) : []
  const newestFirst = versions.sort((a, b) => Number(b) - Number(a))
  const paths = newestFirst.map(version => join(POSTGRES_FOLDER, version, 'bin', name))
  return paths.find(path => existsSync(path)) ?? onPath(name)
}

function onPath(name: string): string | undefined {
  try {
    return execFileSync('which', [name], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
  } catch {
    return undefined
  }
}

interface User {
  readonly uid: number
  readonly gid: number
}

/** PostgreSQL refuses to run as root. */
function serverUser(): User | undefined {
  for (const name of ['postgres', 'nobody']) {
    try {
      const id = (flag: string): number => Number(execFileSync('id', [flag, name], { encoding: 'utf8', stdio: 'pipe' }))
      return { uid: id('-u'), gid: id('-g') }
    } catch {
      // There is no such user: the next one.
    }
  }
  return undefined
}

/** A real database server in a folder of its own, as a process of this test's. */
export class DatabaseServer {
  readonly port: number
  readonly #folder: string
  readonly #child: ChildProcess
  #output = ''

  private constructor(folder: string, port: number, command: string, args: readonly string[], user: User | undefined) {
    this.port = port
    this.#folder = folder
    this.#child = spawn(command, args, { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'], ...user })
    endWithThisProcess(this.#child)
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.#output = (this.#output + text).slice(-OUTPUT_CHARS_MAX)
      })
    }
  }

  get address(): string {
    return `127.0.0.1:${this.port}`
  }

  /** An empty cluster, whose superuser `postgres` needs no password. */
  static async startPostgres(): Promise<DatabaseServer> {
    const [initdb = '', postgres = ''] = ['initdb', 'postgres'].map(name => postgresProgram(name))
    const user = process.getuid?.() === 0 ? serverUser() : undefined
    const folder = mkdtempSync(join(tmpdir(), 'fm-pg-'))
    if (user !== undefined) chownSync(folder, user.uid, user.gid)
    const data = join(folder, 'data')
    const words = ['-D', data, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync']
    execFileSync(initdb, words, { cwd: folder, stdio: 'pipe', ...user })
    const settings = {
      listen_addresses: '127.0.0.1',
      unix_socket_directories: folder,
      // What is not asked of it here: to outlive its machine.
      fsync: 'off',
      full_page_writes: 'off',
      max_wal_size: '4GB',
      synchronize_seqscans: 'off',
      // A client that is gone is noticed in the middle of a query.
      client_connection_check_interval: '100ms',
    }
    const flags = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])
    const port = await freePort()
    const server = new DatabaseServer(folder, port, postgres, ['-D', data, '-p', String(port), ...flags], user)
    await server.#up('PostgreSQL')
    return server
  }

  static async startRedis(): Promise<DatabaseServer> {
    const folder = mkdtempSync(join(tmpdir(), 'fm-redis-'))
    const port = await freePort()
    const words = ['--bind', '127.0.0.1', '--port', String(port), '--dir', folder, '--save', '', '--appendonly', 'no']
    const server = new DatabaseServer(folder, port, 'redis-server', words, undefined)
    await server.#up('Redis')
    return server
  }

  async stop(): Promise<void> {
    const child = this.#child
    if (child.exitCode === null && child.signalCode === null) {
      const ended = new Promise(resolve => child.once('exit', resolve))
      // PostgreSQL's fast shutdown: it does not wait for its clients. Redis takes it like SIGTERM.
      child.kill('SIGINT')
      const timer = setTimeout(() => child.kill('SIGKILL'), STOP_LIMIT_MS)
      await ended
      clearTimeout(timer)
    }
    rmSync(this.#folder, { recursive: true, force: true })
  }

  async #up(name: string): Promise<void> {
    await waitUntil(`${name} takes connections`, async () => {
      if (this.#child.exitCode !== null) throw new Error(`${name} ended: ${this.#output}`)
      return (await canConnect(this.port)) ? true : undefined
    })
  }
}
