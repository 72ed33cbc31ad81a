import { createHash } from 'node:crypto'
import { type BigIntStats, type FSWatcher, readFileSync, watch } from 'node:fs'
import { open, readFile, stat } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import { type Document, isMap, isScalar, isSeq, type Node, type YAMLMap, type YAMLSeq } from 'yaml'
import { invariant, MeshError } from '../router/errors.ts'
import type { Log } from '../router/log.ts'
import type { Labels, Protocol, ServiceName } from '../router/model.ts'
import { replaceFile } from './atomic-file.ts'
import type { RegistryClock } from './http-registry.ts'
import {
  decodeAddress,
  decodeServices,
  isSameLabels,
  isSameService,
  SERVICES_FILE_BYTES_MAX,
} from './service-schema.ts'
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

function sizeProblem(path: string, size: bigint): string | undefined {
  if (size <= BigInt(SERVICES_FILE_BYTES_MAX)) return undefined
  return `${path}: expected at most ${SERVICES_FILE_BYTES_MAX} bytes, found ${size}; split it into several files`
}

function stampOf(found: BigIntStats): string {
  return `${found.dev}:${found.ino}:${found.size}:${found.mtimeNs}:${found.ctimeNs}`
}

function kindOf(found: BigIntStats): string {
  return found.isDirectory() ? 'a folder' : 'something that is neither a file nor a folder'
}

function decodeText(bytes: Buffer, path: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new MeshError('bad-registry', `${path}: expected UTF-8 text, found other bytes; save it as UTF-8`, { cause })
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : String(error)
}

/** An instance to be written into a services file. What is left out is not written: the file's defaults hold. */
export interface AddInstance {
  readonly service: ServiceName
  readonly address: string
  readonly protocol?: Protocol
  readonly labels?: Labels
  readonly weight?: number
}

export interface RemoveInstance {
  readonly service: ServiceName
  /** Left out: the service with all its instances. */
  readonly address?: string
}

/** Edits that found the file changed under their hands begin anew; more than this many times in a row is no accident. */
const EDIT_TRIES_MAX = 10

/**
 * Writes an instance into the services file, which is created if it does not exist. Comments and the rest stay.
 *
 * Shape: true if the file changed; false if the instance was there already, with that weight.
 * Errors: MeshError `bad-registry` if the file cannot be read, parsed or written, if the instance is not acceptable, or
 * if it contradicts the service's protocol or labels in the file. The file is then as it was.
 */
export function addInstance(path: string, add: AddInstance): Promise<boolean> {
  return editServices(path, (services, document) => {
    const address = canonicalAddress(add.address)
    const index = services.findIndex(service => service.name === add.service)
    const service = services[index]
    if (service === undefined) {
      const { protocol, labels, weight } = add
      const described = {
        name: add.service,
        ...(protocol === undefined ? {} : { protocol }),
        ...(labels === undefined || Object.keys(labels).length === 0 ? {} : { labels }),
        instances: [{ address, ...(weight === undefined ? {} : { weight }) }],
      }
      append(listAt(document, ['services']), document.createNode(described))
      const instance = { id: address, address, weight: weight ?? 1 }
      return [
        ...services,
        { name: add.service, protocol: protocol ?? 'http', labels: labels ?? {}, instances: [instance] },
      ]
    }
    refuseContradiction(path, service, add)
    const at = service.instances.findIndex(instance => instance.address === address)
    const old = service.instances[at]
    const weight = add.weight ?? old?.weight ?? 1
    if (old !== undefined && old.weight === weight) return undefined
    const list = listAt(document, ['services', index, 'instances'])
    if (old === undefined) append(list, document.createNode(like(list, address, add.weight)))
    else setWeight(document, list, at, address, weight)
    const instance = { id: address, address, weight }
    const instances = old === undefined ? [...service.instances, instance] : service.instances.with(at, instance)
    return services.with(index, { ...service, instances })
  })
}

/**
 * Takes an instance, or a whole service, out of the services file. A service goes with its last instance.
 *
 * Shape: true if the file changed; false if there was no such instance, service or file.
 * Errors: MeshError `bad-registry` if the file cannot be read, parsed or written; it is then as it was.
 */
export function removeInstance(path: string, remove: RemoveInstance): Promise<boolean> {
  return editServices(path, (services, document) => {
    const index = services.findIndex(service => service.name === remove.service)
    const service = services[index]
    if (service === undefined) return undefined
    const address = remove.address === undefined ? undefined : canonicalAddress(remove.address)
    const at = service.instances.findIndex(instance => instance.address === address)
    if (address !== undefined && at < 0) return undefined
    if (address === undefined || service.instances.length === 1) {
      listAt(document, ['services']).delete(index)
      return services.toSpliced(index, 1)
    }
    listAt(document, ['services', index, 'instances']).delete(at)
    return services.with(index, { ...service, instances: service.instances.toSpliced(at, 1) })
  })
}

/** Changes the document in place and answers with the services it must then hold, or undefined if nothing is to change. */
type Edit = (services: readonly ServiceDefinition[], document: Document) => readonly ServiceDefinition[] | undefined

async function editServices(path: string, edit: Edit): Promise<boolean> {
  for (let i = 0; i < EDIT_TRIES_MAX; i++) {
    const old = await readText(path)
    const decoded = await decodeServices(isBlank(old) ? `${old ?? ''}\nservices: []\n` : (old ?? ''), path)
    if (decoded.services === undefined)
      throw refusal(`the services file must be mended before it is edited:\n${decoded.problem}`)
    const wanted = edit(decoded.services, decoded.document)
    if (wanted === undefined) return false
    const text = await render(path, old ?? '', decoded.document, wanted)
    try {
      if (await replaceFile(path, text, { onlyIf: () => readTextNow(path) === old })) return true
    } catch (cause) {
      throw refusal(`${path}: cannot be written (${codeOf(cause)}); its folder must exist and be writable`, cause)
    }
  }
  throw refusal(`${path}: someone else keeps changing this file; try again when they have finished`)
}

/** The document as text that reads back as `wanted`. Aliases, anchors and limits are caught here, whatever the edit was. */
async function render(
  path: string,
  old: string,
  document: Document,
  wanted: readonly ServiceDefinition[],
): Promise<string> {
  let text: string
  try {
    text = document.toString(await layoutOf(old, path))
  } catch (cause) {
    throw refusal(`${path}: cannot be edited safely (${String(cause)}); edit it by hand`, cause)
  }
  if (old.includes('\r\n')) text = text.replaceAll(/\r?\n/g, '\r\n')
  if (Buffer.byteLength(text) > SERVICES_FILE_BYTES_MAX) {
    throw refusal(`${path}: would grow past ${SERVICES_FILE_BYTES_MAX} bytes; split it into several files`)
  }
  const decoded = await decodeServices(text, path)
  if (decoded.services === undefined) throw refusal(`this would make the services file unusable:\n${decoded.problem}`)
  const same = decoded.services.length === wanted.length && decoded.services.every((one, i) => isWanted(one, wanted[i]))
  if (!same) throw refusal(`${path}: anchors or aliases make this change touch other services; edit it by hand`)
  return text
}

function isWanted(service: ServiceDefinition, wanted: ServiceDefinition | undefined): boolean {
  return wanted !== undefined && isSameService(service, wanted)
}

type Layout = { lineWidth: 0; indent: number; indentSeq: boolean; flowCollectionPadding: boolean }

/** The layout in which the file was written, as far as it is one the yaml package can write. */
async function layoutOf(old: string, path: string): Promise<Layout> {
  const usual: Layout = { lineWidth: 0, indent: 2, indentSeq: true, flowCollectionPadding: true }
  const decoded = await decodeServices(old, path)
  if (decoded.services === undefined) return usual
  const text = old.replaceAll('\r\n', '\n').trim()
  for (const indent of [2, 4]) {
    for (const indentSeq of [true, false]) {
      for (const flowCollectionPadding of [true, false]) {
        const layout: Layout = { lineWidth: 0, indent, indentSeq, flowCollectionPadding }
        if (decoded.document.toString(layout).trim() === text) return layout
      }
    }
  }
  return usual
}

function listAt(document: Document, path: readonly (string | number)[]): YAMLSeq {
  const node = document.getIn(path, true)
  if (isSeq(node)) return node
  throw refusal('this part of the services file is written with YAML anchors or aliases; edit it by hand')
}

/** Adds to a list; one that was empty was written `[]` and would otherwise stay on that line. */
function append(list: YAMLSeq, node: Node): void {
  if (list.items.length === 0) list.flow = false
  list.items.push(node)
}

/** An instance written the way its siblings are. */
function like(list: YAMLSeq, address: string, weight: number | undefined): unknown {
  const plain = list.items.length > 0 && list.items.every(item => isScalar(item))
  if (plain && weight === undefined) return address
  return { address, ...(weight === undefined ? {} : { weight }) }
}

function setWeight(document: Document, list: YAMLSeq, at: number, address: string, weight: number): void {
  const item: unknown = list.items[at]
  if (isMap(item)) (item as YAMLMap).set('weight', weight)
  else list.set(at, document.createNode({ address, weight }))
}

function refuseContradiction(path: string, service: ServiceDefinition, add: AddInstance): void {
  const by = `in ${path}, where it has ${service.instances.length} instances; edit the file to change them all`
  if (add.protocol !== undefined && add.protocol !== service.protocol) {
    throw refusal(`expected ${service.protocol}, found ${add.protocol}: ${service.name} is ${service.protocol} ${by}`)
  }
  if (add.labels !== undefined && !isSameLabels(add.labels, service.labels)) {
    const held = JSON.stringify(service.labels)
    throw refusal(`expected the labels ${held}, found ${JSON.stringify(add.labels)}: those of ${service.name} ${by}`)
  }
}

function canonicalAddress(text: string): string {
  const decoded = decodeAddress(text)
  if ('reason' in decoded) throw refusal(decoded.reason)
  return decoded.address
}

/** No content but comments: a file someone has prepared, not a broken one. */
function isBlank(text: string | undefined): boolean {
  return text === undefined || text.split('\n').every(line => /^\s*(#|$)/.test(line))
}

async function readText(path: string): Promise<string | undefined> {
  try {
    const found = await stat(path, { bigint: true })
    if (!found.isFile()) throw refusal(`${path}: expected a file, found ${kindOf(found)}`)
    const tooBig = sizeProblem(path, found.size)
    if (tooBig !== undefined) throw refusal(tooBig)
    return decodeText(await readFile(path), path)
  } catch (error) {
    if (error instanceof MeshError) throw error
    if (codeOf(error) === 'ENOENT') return undefined
    throw refusal(`${path}: cannot be read (${codeOf(error)})`, error)
  }
}

function readTextNow(path: string): string | undefined {
  try {
    return decodeText(readFileSync(path), path)
  } catch {
    return undefined
  }
}

function refusal(message: string, cause?: unknown): MeshError {
  return new MeshError('bad-registry', message, { cause })
}
