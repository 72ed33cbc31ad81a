import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Document, isMap, parseDocument } from 'yaml'
import { decodeAdminAddress } from '../../daemon/address.ts'
import type { ExplainView, LinkView, ListenView, NodeView, RouteView, StatusView } from '../../daemon/admin-api.ts'
import { AdminClient } from '../../daemon/admin-client.ts'
import { readListenFile } from '../../daemon/listen-file.ts'
import { messageOf } from '../../router/errors.ts'

const PROGRAM = fileURLToPath(new URL('../../daemon/flatmesh.js', import.meta.url))

/** A start takes about 0.5 s alone; many at once on one loaded core may take many times that. */
const UP_DEADLINE_MS = 30_000
/** A command takes about 0.3 s; see above. */
const CLI_DEADLINE_MS = 30_000
/** More than `proxy.drainMs` of the default config, so that the daemon's own limit is met first. */
const STOP_DEADLINE_MS = 45_000
/** Between two looks at a condition. */
const POLL_MS = 20
/** Of a log that an error quotes: enough for the last few lines. */
const LOG_TAIL_CHARS = 3_000

export interface DaemonProcessOptions {
  readonly name: string
  readonly region: string
  /** Holds flatmesh.yaml, services.yaml, data/ and daemon.log; made if it is not there. */
  readonly folder: string
  /** What stands before every command of this node, such as `['ip', 'netns', 'exec', 'r1']`. Must exec, not fork. */
  readonly exec?: readonly string[] | undefined
  /** Where overlay, calls and http listen. Default 127.0.0.1. The admin API stays on 127.0.0.1. */
  readonly host?: string | undefined
  /** Ports are 0 at the first start; true: a later start gets those of the first again. Default false. */
  readonly keepPorts?: boolean | undefined
  /** Told the real addresses after every start, before `up` resolves. */
  readonly onUp?: ((listen: ListenView) => Promise<void>) | undefined
}

export interface CliResult {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
  /** stdout parsed; undefined if it is not JSON. */
  readonly json: unknown
}

/** Changes to flatmesh.yaml: maps are merged, everything else is replaced, undefined deletes. */
export interface ConfigChanges {
  readonly [key: string]: unknown
}

/**
 * One real daemon: its folder, its commands and its process. All through the program, nothing through its code.
 *
 * Errors: Error with the end of the daemon's log, when it does not do what was asked within the deadline.
 */
export class DaemonProcess {
  readonly name: string
  readonly region: string
  readonly folder: string
  readonly configFile: string
  readonly logFile: string
  private readonly options: DaemonProcessOptions
  private child: ChildProcess | undefined
  private ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }> | undefined
  private listening: ListenView | undefined
  private stdout = ''

  constructor(options: DaemonProcessOptions) {
    this.options = options
    this.name = options.name
    this.region = options.region
    this.folder = options.folder
    this.configFile = join(options.folder, 'flatmesh.yaml')
    this.logFile = join(options.folder, 'daemon.log')
  }

  // Membership -------------------------------------------------------------------------------------------------------

  /** Creates a mesh with this node as its first. */
  async init(mesh: string): Promise<void> {
    await mkdir(this.folder, { recursive: true })
    await this.mustRun('init', '--mesh', mesh, ...this.newNodeFlags())
  }

  /** A token for one other node; this one must be up. */
  async invite(): Promise<string> {
    return (await this.mustRun('invite')).stdout.trim()
  }

  async join(token: string): Promise<void> {
    await mkdir(this.folder, { recursive: true })
    await this.mustRun('join', token, ...this.newNodeFlags())
  }

  private newNodeFlags(): string[] {
    const { name, region, host = '127.0.0.1' } = this.options
    const listen = ['--overlay', '--calls', '--http'].flatMap(flag => [flag, `${host}:0`])
    return ['--node', name, '--region', region, ...listen, '--admin', '127.0.0.1:0']
  }

  /** Changes flatmesh.yaml; counts from the next start. */
  configure(changes: ConfigChanges): void {
    const document = parseDocument(readFileSync(this.configFile, 'utf8'))
    merge(document, [], changes)
    writeFileSync(this.configFile, document.toString())
  }

  /** Replaces services.yaml, which a running daemon watches. */
  writeServices(services: readonly unknown[]): void {
    writeFileSync(join(this.folder, 'services.yaml'), `${JSON.stringify({ services })}\n`)
  }

  // The process ------------------------------------------------------------------------------------------------------

  get isRunning(): boolean {
    return this.child !== undefined
  }

  get pid(): number {
    const pid = this.child?.pid
    if (pid === undefined) throw new Error(`expected ${this.name} to run, but it does not`)
    return pid
  }

  /** The real addresses, since the last start. */
  get listen(): ListenView {
    if (this.listening === undefined) throw new Error(`${this.name} was never up, so its ports are not known`)
    return this.listening
  }

  /** Where applications of this region send their calls: `http://127.0.0.1:PORT`. */
  get httpUrl(): string {
    return `http://${this.listen.http}`
  }

  get adminUrl(): string {
    return `http://${this.listen.admin}`
  }

  /** Starts `flatmesh up` and waits until it says that it is up. */
  async up(): Promise<void> {
    if (this.child !== undefined) throw new Error(`${this.name} is up already`)
    const log = openSync(this.logFile, 'a')
    const [command, ...words] = this.commandLine(['up', '--config', this.configFile])
    const child = spawn(command, words, { cwd: this.folder, stdio: ['ignore', 'pipe', log] })
    closeSync(log)
    endWithThisProcess(child)
    this.child = child
    this.stdout = ''
    this.ended = new Promise(resolve => {
      child.once('exit', (code, signal) => {
        if (this.child === child) this.child = undefined
        resolve({ code, signal })
      })
      child.once('error', () => {
        if (this.child === child) this.child = undefined
        resolve({ code: null, signal: null })
      })
    })
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.stdout = (this.stdout + text).slice(-LOG_TAIL_CHARS)
    })
    try {
      await waitUntil(
        `${this.name} is up`,
        () => {
          if (this.child !== child) throw new Error(`${this.name} ended before it was up`)
          return / is up[;\n]/.test(this.stdout) ? true : undefined
        },
        UP_DEADLINE_MS,
      )
    } catch (error) {
      child.kill('SIGKILL')
      throw this.failure(error)
    }
    this.listening = readListenFile(join(this.folder, 'data'))
    if (this.listening === undefined) throw this.failure(new Error(`${this.name} is up, but wrote no listen.json`))
    if (this.options.keepPorts === true) {
      const { overlay, calls, http, admin } = this.listening
      this.configure({ listen: { overlay, calls, http, admin } })
    }
    await this.options.onUp?.(this.listening)
  }

  /** Sends a signal and waits for the end. Nothing is said about the exit code. */
  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<{ code: number | null; signal: NodeJS.Signals | null }> {
    const { child, ended } = this
    if (child === undefined || ended === undefined) return { code: null, signal: null }
    child.kill(signal)
    return before(STOP_DEADLINE_MS, ended, `${this.name} ends after ${signal}`).catch((error: unknown) => {
      child.kill('SIGKILL')
      throw this.failure(error)
    })
  }

  /** An orderly end: SIGTERM, then exit code 0. */
  async stop(): Promise<void> {
    if (!this.isRunning) return
    const { code, signal } = await this.kill('SIGTERM')
    if (code === 0) return
    throw this.failure(new Error(`expected ${this.name} to exit with 0 after SIGTERM, found ${signal ?? code}`))
  }

  async restart(): Promise<void> {
    await this.stop()
    await this.up()
  }

  /** Memory of the process that the system holds, bytes. */
  rssBytes(): number {
    const status = readFileSync(`/proc/${this.pid}/status`, 'utf8')
    const kilobytes = /^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]
    if (kilobytes === undefined) throw new Error(`/proc/${this.pid}/status has no VmRSS`)
    return Number(kilobytes) * 1024
  }

  // Talking to it ----------------------------------------------------------------------------------------------------

  /** Runs `flatmesh ...words --config <this node's>` and waits for its end. Any exit code is an answer. */
  cli(...words: string[]): Promise<CliResult> {
    const [command, ...rest] = this.commandLine([...words, '--config', this.configFile])
    return new Promise((resolve, reject) => {
      const child = spawn(command, rest, { cwd: this.folder, stdio: ['ignore', 'pipe', 'pipe'] })
      endWithThisProcess(child)
      let stdout = ''
      let stderr = ''
      const timer = setTimeout(() => {
        child.kill('SIGKILL')
        reject(this.failure(new Error(`flatmesh ${words.join(' ')} did not end in ${CLI_DEADLINE_MS} ms`)))
      }, CLI_DEADLINE_MS)
      child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
      child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
      child.once('error', reject)
      child.once('close', code => {
        clearTimeout(timer)
        resolve({ code, stdout, stderr, json: parseJson(stdout) })
      })
    })
  }

  /** `cli` for what must work: exit code 0, or an Error with what it said. */
  async mustRun(...words: string[]): Promise<CliResult> {
    const result = await this.cli(...words)
    if (result.code === 0) return result
    throw this.failure(new Error(`flatmesh ${words[0]} of ${this.name} exited with ${result.code}: ${result.stderr}`))
  }

  status(): Promise<StatusView> {
    return this.ask('status', client => client.status())
  }

  nodes(): Promise<NodeView[]> {
    return this.ask('nodes', client => client.nodes())
  }

  links(): Promise<LinkView[]> {
    return this.ask('links', client => client.links())
  }

  routes(): Promise<RouteView[]> {
    return this.ask('routes', client => client.routes())
  }

  explain(service: string): Promise<ExplainView> {
    return this.ask(`explain ${service}`, client => client.explain(service))
  }

  /** Straight from the admin API where this process can reach it, else through the command line. */
  private async ask<T>(words: string, ask: (client: AdminClient) => Promise<T>): Promise<T> {
    const address = decodeAdminAddress(this.listen.admin)
    if (this.options.exec === undefined && address !== undefined) return ask(new AdminClient(address))
    // The program's own output, in the shape its API declares.
    return (await this.mustRun(...words.split(' '), '--json')).json as T
  }

  /** The log so far, JSON lines of all starts. */
  log(): string {
    try {
      return readFileSync(this.logFile, 'utf8')
    } catch {
      return ''
    }
  }

  private commandLine(words: readonly string[]): [string, ...string[]] {
    const [first, ...rest] = [...(this.options.exec ?? []), process.execPath, PROGRAM, ...words]
    return [first ?? process.execPath, ...rest]
  }

  private failure(error: unknown): Error {
    const reason = messageOf(error)
    const tail = this.log().slice(-LOG_TAIL_CHARS)
    return new Error(`${reason}\nthe end of ${this.logFile}:\n${tail || '(nothing)'}`, { cause: error })
  }
}

// A mesh of them -----------------------------------------------------------------------------------------------------

export interface MeshNode {
  readonly name: string
  readonly region: string
  readonly exec?: readonly string[] | undefined
  readonly host?: string | undefined
  readonly keepPorts?: boolean | undefined
  /** Changes to this node's flatmesh.yaml before its first start. */
  readonly config?: ConfigChanges | undefined
}

/** An address that stands for another one, such as a relay's. */
export interface Door {
  /** `host:port` to dial. */
  readonly address: string
  /** From now on what is dialled at `address` reaches `target`, `host:port`. */
  lead(target: string): void | Promise<void>
}

/** Opens the door that node `from` shall dial to reach a port of node `to`; undefined: it dials it directly. */
export type OpenDoor = (from: string, to: string, port: 'overlay' | 'calls') => Promise<Door | undefined>

export interface CreateMeshOptions {
  /** The first one creates the mesh. */
  readonly nodes: readonly MeshNode[]
  readonly mesh?: string
  /** Puts something between the nodes: asked once for each ordered pair and port. Default: nothing. */
  readonly openDoor?: OpenDoor | undefined
  /** Where the folders of the nodes are made; default: a new one in the system's folder for temporary files. */
  readonly folder?: string | undefined
}

/**
 * Brings up daemons on this machine that are members of one mesh. Resolves when all are up, which is not yet when all
 * have heard of each other: see `converged`. After an error nothing runs any more, and the folder stays for a look.
 */
export async function createMesh(options: CreateMeshOptions): Promise<MeshProcesses> {
  const folder = options.folder ?? (await mkdtemp(join(tmpdir(), 'flatmesh-')))
  const mesh = new MeshProcesses(folder, options)
  try {
    await mesh.start()
    return mesh
  } catch (error) {
    mesh.keepFolder()
    await mesh.stop().catch(() => undefined)
    throw error
  }
}

/** The daemons of one mesh, by name. Made by `createMesh`. */
export class MeshProcesses {
  readonly folder: string
  readonly nodes: ReadonlyMap<string, DaemonProcess>
  private readonly options: CreateMeshOptions
  private readonly doors: { readonly to: string; readonly port: 'overlay' | 'calls'; readonly door: Door }[] = []
  private isKept = false

  constructor(folder: string, options: CreateMeshOptions) {
    this.folder = folder
    this.options = options
    this.nodes = new Map(
      options.nodes.map(({ name, region, exec, host, keepPorts }) => {
        const onUp = (listen: ListenView) => this.lead(name, listen)
        return [name, new DaemonProcess({ name, region, folder: join(folder, name), exec, host, keepPorts, onUp })]
      }),
    )
  }

  node(name: string): DaemonProcess {
    const node = this.nodes.get(name)
    if (node === undefined)
      throw new Error(`there is no node ${name} in this mesh: ${[...this.nodes.keys()].join(', ')}`)
    return node
  }

  /** Makes all of them members and brings all of them up. */
  async start(): Promise<void> {
    await this.form()
    await Promise.all([...this.nodes.values()].filter(node => !node.isRunning).map(node => node.up()))
  }

  /** Makes all of them members. Only the first one, which founded the mesh, is up then. */
  async form(): Promise<void> {
    const [founder, ...others] = this.options.nodes
    if (founder === undefined) throw new Error('a mesh has at least one node')
    const first = this.node(founder.name)
    await first.init(this.options.mesh ?? 'test')
    await this.prepare(founder, undefined)
    await first.up()
    await Promise.all(
      others.map(async other => {
        await this.node(other.name).join(await first.invite())
        await this.prepare(other, founder.name)
      }),
    )
  }

  up(name: string): Promise<void> {
    return this.node(name).up()
  }

  /** Resolves with the milliseconds it took until every running node reaches every other running one. */
  async converged(deadlineMs = 30_000): Promise<number> {
    const startedAtMs = performance.now()
    const running = [...this.nodes.values()].filter(node => node.isRunning)
    for (const node of running) {
      await waitUntil(
        `${node.name} reaches ${running.length - 1} others`,
        async () => {
          const up = new Set((await node.nodes()).filter(({ state }) => state === 'up').map(view => view.node))
          return running.every(other => other === node || up.has(other.name)) ? true : undefined
        },
        deadlineMs,
      )
    }
    return performance.now() - startedAtMs
  }

  /** For a look at the logs afterwards: `stop` will not remove the folder, and says where it is. */
  keepFolder(): void {
    this.isKept = true
  }

  /** Stops every node in order; removes the folder, unless one of them did not end well or it shall be kept. */
  async stop(): Promise<void> {
    const results = await Promise.allSettled([...this.nodes.values()].map(node => node.stop()))
    const failed = results.find(result => result.status === 'rejected')
    if (failed !== undefined) throw failed.reason
    if (this.isKept) process.stderr.write(`the folder of this mesh is kept: ${this.folder}\n`)
    else await rm(this.folder, { recursive: true, force: true })
  }

  /** The doors to a node lead to its ports, which may be new at each start. */
  private async lead(name: string, listen: ListenView): Promise<void> {
    for (const { to, port, door } of this.doors) if (to === name) await door.lead(listen[port])
  }

  private async prepare(node: MeshNode, founder: string | undefined): Promise<void> {
    const dial: Record<string, { overlay?: string[]; calls?: string[] }> = {}
    for (const { name: to } of this.options.nodes) {
      if (to === node.name) continue
      for (const port of ['overlay', 'calls'] as const) {
        const door = await this.options.openDoor?.(node.name, to, port)
        if (door === undefined) continue
        this.doors.push({ to, port, door })
        const at = this.node(to)
        if (at.isRunning) await door.lead(at.listen[port])
        const address = port === 'overlay' ? toMultiaddr(door.address) : door.address
        dial[to] = { ...dial[to], [port]: [address] }
      }
    }
    const through = founder === undefined ? undefined : dial[founder]?.overlay
    const changes = {
      ...(Object.keys(dial).length > 0 && { dial }),
      ...(through !== undefined && { join: through }),
    }
    this.node(node.name).configure(changes)
    if (node.config !== undefined) this.node(node.name).configure(node.config)
  }
}

/**
 * Looks until `look` answers something other than undefined, and resolves with it.
 *
 * Errors: what `look` throws, at once; Error naming `what` at the deadline.
 */
export async function waitUntil<T>(
  what: string,
  look: () => T | undefined | Promise<T | undefined>,
  deadlineMs = 30_000,
): Promise<T> {
  const endAtMs = performance.now() + deadlineMs
  for (;;) {
    const found = await look()
    if (found !== undefined) return found
    if (performance.now() >= endAtMs) throw new Error(`waited ${deadlineMs} ms in vain until: ${what}`)
    await new Promise(resolve => setTimeout(resolve, POLL_MS))
  }
}

// Children end with this process -------------------------------------------------------------------------------------

const children = new Set<ChildProcess>()

/** Whatever happens to this process short of SIGKILL, what it started does not outlive it. */
export function endWithThisProcess(child: ChildProcess): void {
  if (children.size === 0) process.once('exit', endChildren)
  children.add(child)
  const forget = (): void => {
    children.delete(child)
    if (children.size === 0) process.off('exit', endChildren)
  }
  child.once('exit', forget)
  child.once('error', forget)
}

/** Ends at once everything that was started with `endWithThisProcess`, and nothing else. */
export function endChildren(): void {
  for (const child of children) child.kill('SIGKILL')
}

// Small parts --------------------------------------------------------------------------------------------------------

function merge(document: Document, path: readonly string[], changes: ConfigChanges): void {
  for (const [key, value] of Object.entries(changes)) {
    const inner = [...path, key]
    if (value === undefined) document.deleteIn(inner)
    else if (isRecord(value) && isMap(document.getIn(inner))) merge(document, inner, value)
    else document.setIn(inner, document.createNode(value))
  }
}

function isRecord(value: unknown): value is ConfigChanges {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function toMultiaddr(address: string): string {
  const colon = address.lastIndexOf(':')
  return `/ip4/${address.slice(0, colon)}/tcp/${address.slice(colon + 1)}`
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

async function before<T>(deadlineMs: number, promise: Promise<T>, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${deadlineMs} ms in vain until: ${what}`)), deadlineMs)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}
