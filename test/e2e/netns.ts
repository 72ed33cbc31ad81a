import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { AdminClient } from '../../daemon/admin-client.ts'
import { endWithThisProcess } from './daemon-process.ts'

const DOOR = join(import.meta.dirname, 'netns-door.ts')
/** Where administrators' tools are; not on every user's path. */
const PATH = `${process.env.PATH ?? ''}:/usr/sbin:/sbin`
/** For processes to end by themselves. */
const STOP_LIMIT_MS = 5_000
const ENV = { ...process.env, PATH, NO_COLOR: '1' }

/** A process that goes on; what it says is kept. */
export interface Running {
  readonly child: ChildProcess
  readonly exited: Promise<number | null>
  output(): string
}

/** One datacenter: a namespace with its own addresses and ports. */
export interface Region {
  readonly name: string
  /** What stands before a command to run it in there. */
  readonly exec: readonly string[]
  /** The region's address on the network between them. */
  readonly host: string
  /** Where its daemon takes commands: a socket, which every namespace can reach. */
  readonly adminPath: string
  readonly admin: AdminClient
  /** A unix socket that leads to a TCP address of the region; see `openDoor`. */
  readonly door: string
}

/** Why namespaces cannot be used here, in words for whoever reads the test's output; undefined: they can. */
export function whyNoNamespaces(): string | undefined {
  if (process.platform !== 'linux') return 'network namespaces are Linux’s'
  if (process.getuid?.() !== 0) return 'network namespaces need root'
  const probe = `fm${randomBytes(4).toString('hex')}`
  try {
    for (const words of [
      ['netns', 'add', probe],
      ['-n', probe, 'link', 'add', 'br0', 'type', 'bridge'],
      ['-n', probe, 'link', 'add', 'v0', 'type', 'veth', 'peer', 'name', 'v1'],
      ['netns', 'exec', probe, 'true'],
    ]) {
      const { status, stderr, error } = spawnSync('ip', words, { env: ENV, encoding: 'utf8', timeout: 10_000 })
      if (error !== undefined) return `ip cannot be run: ${error.message}`
      if (status !== 0) return `ip ${words.join(' ')}: ${stderr.trim()}`
    }
  } finally {
    spawnSync('ip', ['netns', 'del', probe], { env: ENV, timeout: 10_000 })
  }
  const nginx = spawnSync('nginx', ['-v'], { env: ENV, timeout: 10_000 })
  return nginx.status === 0 ? undefined : 'nginx is not installed'
}

/**
 * Datacenters as network namespaces: each has an interface of its own into a bridge that stands for the Internet and is
 * in a namespace of its own too, so nothing of the machine's own network is touched.
 */
export class Regions {
  readonly #id = `fm${randomBytes(3).toString('hex')}`
  /** For sockets and whatever else a test puts there; goes with `stop`. */
  readonly folder = mkdtempSync(join(tmpdir(), 'fm-netns-'))
  readonly #namespaces: string[] = []
  readonly #running = new Set<Running>()

  /** Makes the namespaces. After an error, `stop` must still be called. */
  start(names: readonly string[]): Region[] {
    process.once('exit', this.#remove)
    const middle = this.#namespace('mid')
    this.#ip('-n', middle, 'link', 'add', 'br0', 'type', 'bridge')
    this.#ip('-n', middle, 'link', 'set', 'br0', 'up')
    return names.map((name, index) => {
      const namespace = this.#namespace(name)
      const host = `10.77.0.${index + 1}`
      this.#ip('-n', namespace, 'link', 'set', 'lo', 'up')
      this.#ip('-n', namespace, 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', name, 'netns', middle)
      this.#ip('-n', middle, 'link', 'set', 'dev', name, 'master', 'br0', 'up')
      this.#ip('-n', namespace, 'addr', 'add', `${host}/24`, 'dev', 'eth0')
      this.#ip('-n', namespace, 'link', 'set', 'eth0', 'up')
      const adminPath = join(this.folder, `${name}.admin`)
      const exec = ['ip', 'netns', 'exec', namespace]
      return {
        name,
        exec,
        host,
        adminPath,
        admin: new AdminClient({ socketPath: adminPath }),
        door: this.#doorOf(name),
      }
    })
  }

  /** Ends every process in there and takes the namespaces away, with all interfaces in them. */
  async stop(): Promise<void> {
    const ends = [...this.#running].map(({ child, exited }) => {
      child.kill('SIGTERM')
      return exited
    })
    const limit = new Promise<void>(resolve => setTimeout(resolve, STOP_LIMIT_MS).unref())
    await Promise.race([Promise.all(ends), limit])
    this.#remove()
    process.off('exit', this.#remove)
  }

  /** Also when this process ends in the middle of a test. */
  readonly #remove = (): void => {
    for (const namespace of this.#namespaces.splice(0)) {
      const { stdout } = spawnSync('ip', ['netns', 'pids', namespace], { env: ENV, encoding: 'utf8', timeout: 10_000 })
      for (const pid of stdout
        .split('\n')
        .map(Number)
        .filter(found => found > 0)) {
        try {
          process.kill(pid, 'SIGKILL')
        } catch {
          // It has ended by itself.
        }
      }
      spawnSync('ip', ['netns', 'del', namespace], { env: ENV, timeout: 10_000 })
    }
    rmSync(this.folder, { recursive: true, force: true })
  }

  /** Cuts a region off, or joins it again, at the far end of its cable: nobody is told, packets just vanish. */
  cable(region: Region, state: 'up' | 'down'): void {
    this.#ip('-n', `${this.#id}-mid`, 'link', 'set', 'dev', region.name, state)
  }

  /** From now on nothing that two regions send each other arrives, and nobody is told; what they exchange with others does. */
  part(one: Region, other: Region): void {
    for (const [from, to] of [
      [one, other],
      [other, one],
    ] as const) {
      // Sent to a hardware address that nobody has.
      const nowhere = ['lladdr', '02:00:00:00:00:01', 'dev', 'eth0', 'nud', 'permanent']
      this.#ip('-n', `${this.#id}-${from.name}`, 'neigh', 'replace', to.host, ...nowhere)
    }
  }

  /** Undoes `part`. */
  unite(one: Region, other: Region): void {
    this.#ip('-n', `${this.#id}-${one.name}`, 'neigh', 'del', other.host, 'dev', 'eth0')
    this.#ip('-n', `${this.#id}-${other.name}`, 'neigh', 'del', one.host, 'dev', 'eth0')
  }

  /** Starts `file` inside the region and resolves once its output contains `sign`. */
  async spawn(region: Region, file: string, words: readonly string[], sign = ''): Promise<Running> {
    const [command = '', ...prefix] = region.exec
    const child = spawn(command, [...prefix, file, ...words], { env: ENV, stdio: ['ignore', 'pipe', 'pipe'] })
    endWithThisProcess(child)
    let output = ''
    const exited = new Promise<number | null>(resolve => child.once('exit', resolve))
    const running: Running = { child, exited, output: () => output }
    this.#running.add(running)
    void exited.then(() => this.#running.delete(running))
    await new Promise<void>((resolve, reject) => {
      const fail = (why: string): void => reject(new Error(`${file} ${words.join(' ')}: ${why}; it said: ${output}`))
      const timer = setTimeout(() => fail(`did not say "${sign}" within 20 s`), 20_000)
      const look = (chunk: Buffer | string): void => {
        output = (output + chunk.toString()).slice(-200_000)
        if (!output.includes(sign)) return
        clearTimeout(timer)
        resolve()
      }
      child.stdout.on('data', look)
      child.stderr.on('data', look)
      child.once('error', error => fail(error.message))
      void exited.then(code => {
        clearTimeout(timer)
        fail(`ended with ${code}`)
      })
      if (sign === '') look('')
    })
    return running
  }

  /** Leads `region.door` to `address`, host:port, as seen from inside the region. */
  openDoor(region: Region, address: string): Promise<Running> {
    const [host = '', port = ''] = address.split(':')
    return this.spawn(region, process.execPath, [DOOR, region.door, host, port], 'open')
  }

  #doorOf(name: string): string {
    return join(this.folder, `${name}.door`)
  }

  #namespace(name: string): string {
    const namespace = `${this.#id}-${name}`
    this.#ip('netns', 'add', namespace)
    this.#namespaces.push(namespace)
    return namespace
  }

  #ip(...words: string[]): void {
    const { status, stderr } = spawnSync('ip', words, { env: ENV, encoding: 'utf8', timeout: 10_000 })
    if (status !== 0) throw new Error(`ip ${words.join(' ')}: ${stderr}`)
  }
}
