import { createHash } from 'node:crypto'
import { type BigIntStats, type FSWatcher, watch } from 'node:fs'
import { open, stat } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import { invariant, MeshError } from '../router/errors.ts'
import type { Log } from '../router/log.ts'
import type { RegistryClock } from './http-registry.ts'
import { decodeServices, SERVICES_FILE_BYTES_MAX } from './service-schema.ts'
import type { RegistrySource, ServiceDefinition } from './source.ts'

export interface FileRegistryDeps {
  readonly log: Log
  /** Only its timers are used. Default: the process's own. */
  readonly clock?: Pick<RegistryClock, 'setTimer'>
}

export interface FileRegistryOptions {
  /** The services file, as the operator calls it: messages repeat it. It need not exist yet. */
  readonly path: string
  /** How long the folder must have been quiet before the file is read. Default SETTLE_MS. */
  readonly settleMs?: number
  /** Between two looks at the file that no event asked for. Default POLL_MS. */
  readonly pollMs?: number
  /** How long the file must have been gone before its services go too. Default ABSENCE_MS. */
  readonly absenceMs?: number
}

/** Covers a writer that truncates and then writes in pieces; far below the 300 ms an edit may take to be seen. */
const SETTLE_MS = 25
/** A folder that is never quiet must not hide an edit: after this many settle times the file is read anyway (150 ms). */
const SETTLES_MAX = 6
/**
 * The safety net under the watch. inotify tells nothing on network and overlay file systems, when its queue
 * overflows, or when the file is a link into another folder. 2 s: one `stat` costs microseconds, and an edit that slips
 * through the watch is still seen before the operator starts to wonder.
 */
const POLL_MS = 2_000
/** Some tools replace a file by delete and rename; the gap is milliseconds. A file gone for a second was taken away. */
const ABSENCE_MS = 1_000

const processTimers: Pick<RegistryClock, 'setTimer'> = {
  setTimer(ms, run) {
    const timer = setTimeout(run, ms)
    return () => clearTimeout(timer)
  },
}

/** Whether to look at the file, and whether to read it even if it looks as before. */
type Ask = 'no' | 'look' | 'read'

/** What one look at the file found. */
type Look =
  | { readonly kind: 'missing' }
  | { readonly kind: 'trouble'; readonly text: string }
  | { readonly kind: 'unchanged' }
  /** Changed while it was read: look again soon. */
  | { readonly kind: 'moving' }
  | { readonly kind: 'read'; readonly text: string; readonly stamp: string; readonly digest: string }

/**
 * The services of a YAML file, watched.
 *
 * A broken edit, a half-written or an unreadable file keeps the last good services in force, and `problem()` says what
 * is wrong. A file that is deleted withdraws them after `absenceMs`; one that never existed is an empty registry.
 */
export class FileRegistry implements RegistrySource {
  readonly name: string
  readonly #log: Log
  readonly #clock: Pick<RegistryClock, 'setTimer'>
  readonly #path: string
  readonly #settleMs: number
  readonly #pollMs: number
  readonly #absenceMs: number
  #tell: ((services: readonly ServiceDefinition[]) => void) | undefined
  #state: 'new' | 'running' | 'stopped' = 'new'
  #problem: string | undefined
  /** Of the text last decoded, good or bad, and what was wrong with it. */
  #digest: string | undefined
  #textProblem: string | undefined
  #stamp: string | undefined
  /** Whether the services in force are those of a file. */
  #holds = false
  #watcher: { readonly handle: FSWatcher; readonly folder: string } | undefined
  #watchRefused = false
  #running: Promise<void> | undefined
  #again: Ask = 'no'
  #cancelSettle: (() => void) | undefined
  #settles = 0
  #readNext = false
  #cancelPoll: (() => void) | undefined
  #absence: { readonly cancel: () => void; over: boolean } | undefined

  constructor(deps: FileRegistryDeps, options: FileRegistryOptions) {
    this.#log = deps.log
    this.#clock = deps.clock ?? processTimers
    this.#path = options.path
    this.#settleMs = options.settleMs ?? SETTLE_MS
    this.#pollMs = options.pollMs ?? POLL_MS
    this.#absenceMs = options.absenceMs ?? ABSENCE_MS
    this.name = `file ${options.path}`
  }

  /** Never rejects: whatever is wrong with a file can be mended while the daemon runs. */
  async start(onChange: (services: readonly ServiceDefinition[]) => void): Promise<void> {
    invariant(this.#state === 'new', 'a file registry is started once')
    this.#state = 'running'
    let told = false
    this.#tell = services => {
      told = true
      onChange(services)
    }
    // Before the first look, so that no edit falls between the two.
    await this.#watch()
    await this.#look('read')
    if (!told) this.#tell?.([])
    this.#poll()
  }

  async stop(): Promise<void> {
    this.#state = 'stopped'
    this.#tell = undefined
    this.#watcher?.handle.close()
    this.#watcher = undefined
    this.#cancelSettle?.()
    this.#cancelPoll?.()
    this.#absence?.cancel()
    await this.#running
  }

  problem(): string | undefined {
    return this.#problem
  }

  #poll(): void {
    if (this.#state !== 'running') return
    this.#cancelPoll = this.#clock.setTimer(this.#pollMs, () => {
      void this.#watch()
        .then(() => this.#look('look'))
        .then(() => this.#poll())
    })
  }

  /** Watches the folder: the file itself is replaced by editors, and Kubernetes swaps a link beside it. */
  async #watch(): Promise<void> {
    const path = dirname(this.#path)
    const found = await stat(path, { bigint: true }).catch(() => undefined)
    const folder = found === undefined ? undefined : `${found.dev}:${found.ino}`
    if (this.#state !== 'running' || (folder !== undefined && this.#watcher?.folder === folder)) return
    this.#watcher?.handle.close()
    this.#watcher = undefined
    if (folder === undefined) return
    try {
      const handle = watch(path, (_, name) => this.#onEvent(name === null || name === basename(this.#path)))
      handle.on('error', error => this.#onWatchError(error))
      this.#watcher = { handle, folder }
    } catch (error) {
      this.#onWatchError(error)
    }
  }

  #onWatchError(error: unknown): void {
    this.#watcher?.handle.close()
    this.#watcher = undefined
    if (this.#watchRefused) return
    this.#watchRefused = true
    const fields = { registry: this.name, reason: String(error), pollMs: this.#pollMs }
    this.#log.warn(fields, 'the folder of the services file cannot be watched; edits are seen by looking at the file')
  }

  /** `own`: the event is about the file itself, whose times and size may not show a second change in the same tick. */
  #onEvent(own: boolean): void {
    if (this.#state !== 'running') return
    this.#readNext ||= own
    if (this.#cancelSettle !== undefined && ++this.#settles >= SETTLES_MAX) return
    this.#settle()
  }

  #settle(): void {
    this.#cancelSettle?.()
    this.#cancelSettle = this.#clock.setTimer(this.#settleMs, () => {
      const how = this.#readNext ? 'read' : 'look'
      this.#cancelSettle = undefined
      this.#settles = 0
      this.#readNext = false
      void this.#look(how)
    })
  }

  /** One look at a time; whoever asks meanwhile gets another one afterwards. `read`: even if the file looks unchanged. */
  #look(how: 'look' | 'read'): Promise<void> {
    if (this.#state !== 'running') return Promise.resolve()
    if (this.#running !== undefined) {
      if (this.#again !== 'read') this.#again = how
      return this.#running
    }
    this.#running = this.#lookUntilQuiet(how)
    return this.#running
  }

  async #lookUntilQuiet(how: 'look' | 'read'): Promise<void> {
    try {
      for (let next: Ask = how; next !== 'no'; next = this.#again) {
        this.#again = 'no'
        const found = await lookAt(this.#path, next === 'read' ? undefined : this.#stamp)
        if (this.#state === 'running') await this.#onLook(found)
      }
    } finally {
      // In the same turn as the last look at #again: whoever asks from now on gets a look of their own.
      this.#running = undefined
    }
  }

  async #onLook(found: Look): Promise<void> {
    if (found.kind === 'missing') return this.#onMissing()
    this.#absence?.cancel()
    this.#absence = undefined
    if (found.kind === 'unchanged') return
    if (found.kind === 'moving') {
      this.#readNext = true
      if (this.#cancelSettle === undefined) this.#settle()
      return
    }
    if (found.kind === 'trouble') {
      this.#stamp = undefined
      this.#setProblem(found.text)
      return
    }
    if (found.digest !== this.#digest) {
      const decoded = await decodeServices(found.text, this.#path)
      if (this.#state !== 'running') return
      this.#digest = found.digest
      this.#textProblem = decoded.problem
      if (decoded.services !== undefined) {
        this.#holds = true
        this.#tell?.(decoded.services)
      }
    }
    this.#stamp = found.stamp
    this.#setProblem(this.#textProblem)
  }

  #onMissing(): void {
    this.#stamp = undefined
    if (this.#holds && this.#absence?.over !== true) {
      if (this.#absence !== undefined) return
      const absence = {
        over: false,
        cancel: this.#clock.setTimer(this.#absenceMs, () => {
          absence.over = true
          void this.#look('look')
        }),
      }
      this.#absence = absence
      return
    }
    this.#absence = undefined
    this.#digest = undefined
    if (this.#holds) this.#tell?.([])
    this.#holds = false
    this.#setProblem(`${this.#path}: no such file; create it, or run flatmesh service add`)
  }

  #setProblem(problem: string | undefined): void {
    if (problem === this.#problem) return
    this.#problem = problem
    const fields = { registry: this.name, code: 'bad-registry', reason: problem ?? 'mended' }
    if (problem === undefined) this.#log.info(fields, 'the services file is good again')
    else this.#log.warn(fields, 'the services file cannot be used')
  }
}

/** Reads the file if its stamp (identity, size, times) is not `known`. Throws nothing. */
async function lookAt(path: string, known: string | undefined): Promise<Look> {
  try {
    const before = await stat(path, { bigint: true })
    // Before it is opened: opening a pipe would wait for a writer.
    if (!before.isFile()) return { kind: 'trouble', text: `${path}: expected a file, found ${kindOf(before)}` }
    if (stampOf(before) === known) return { kind: 'unchanged' }
    const tooBig = sizeProblem(path, before.size)
    if (tooBig !== undefined) return { kind: 'trouble', text: tooBig }
    const handle = await open(path, 'r')
    try {
      const opened = await handle.stat({ bigint: true })
      const bytes = Buffer.alloc(Math.min(Number(opened.size), SERVICES_FILE_BYTES_MAX) + 1)
      let length = 0
      for (;;) {
        const { bytesRead } = await handle.read(bytes, length, bytes.length - length)
        length += bytesRead
        if (bytesRead === 0 || length === bytes.length) break
      }
      const stamp = stampOf(opened)
      if (BigInt(length) !== opened.size || stampOf(await handle.stat({ bigint: true })) !== stamp)
        return { kind: 'moving' }
      const content = bytes.subarray(0, length)
      return {
        kind: 'read',
        text: decodeText(content, path),
        stamp,
        digest: createHash('sha256').update(content).digest('hex'),
      }
    } finally {
      await handle.close()
    }
  } catch (error) {
    if (error instanceof MeshError) return { kind: 'trouble', text: error.message }
    const code = codeOf(error)
    // ENOTDIR: something on the way to it is a file now; for this path that is as good as gone.
    if (code === 'ENOENT' || code === 'ENOTDIR') return { kind: 'missing' }
    return { kind: 'trouble', text: `${path}: cannot be read (${code}); let the daemon's user read it` }
  }
}

export function sizeProblem(path: string, size: bigint): string | undefined {
  if (size <= BigInt(SERVICES_FILE_BYTES_MAX)) return undefined
  return `${path}: expected at most ${SERVICES_FILE_BYTES_MAX} bytes, found ${size}; split it into several files`
}

function stampOf(found: BigIntStats): string {
  return `${found.dev}:${found.ino}:${found.size}:${found.mtimeNs}:${found.ctimeNs}`
}

export function kindOf(found: BigIntStats): string {
  return found.isDirectory() ? 'a folder' : 'something that is neither a file nor a folder'
}

export function decodeText(bytes: Buffer, path: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new MeshError('bad-registry', `${path}: expected UTF-8 text, found other bytes; save it as UTF-8`, { cause })
  }
}

export function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : String(error)
}
