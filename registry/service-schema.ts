import { isIPv4, isIPv6 } from 'node:net'
import { setImmediate as nextTurn } from 'node:timers/promises'
import {
  Composer,
  type Document,
  isAlias,
  isMap,
  isNode,
  isPair,
  isScalar,
  isSeq,
  Lexer,
  LineCounter,
  type Node,
  Parser,
  visit,
} from 'yaml'
import { MeshError } from '../router/errors.ts'
import {
  LABEL_CHARACTERS_MAX,
  LABEL_KEY,
  LABEL_VALUE,
  type Labels,
  type Protocol,
  SERVICE_NAME,
  type ServiceName,
} from '../router/model.ts'
import type { Instance, ServiceDefinition } from './source.ts'

/** Services one source may hold. Ten times the largest estate we design for (1,000 services in one region). */
export const SERVICES_MAX = 10_000
/** Instances one service may have in one source: Kubernetes' own limit for an EndpointSlice. */
export const INSTANCES_PER_SERVICE_MAX = 1_000
/** Bytes of one services file: SERVICES_MAX entries of about 400 bytes. */
export const SERVICES_FILE_BYTES_MAX = 4 * 1024 * 1024
/** Labels of one service. They travel in every node's table, so they must stay small. Guess. */
export const LABELS_MAX = 16
/** Relative weights: the range of `Instance.weight`. */
export const WEIGHT_MAX = 1_000
/** Shortest life of a registration without a heartbeat: below it, one garbage collection of the service withdraws it. */
export const TTL_MIN_MS = 1_000
/** Longest: a day. What should live longer belongs in the services file. */
export const TTL_MAX_MS = 24 * 60 * 60 * 1_000
/** Problems told at once; more would scroll the first one, often the cause of the rest, off the screen. */
const PROBLEMS_MAX = 20
/** Characters of a value shown in a message. */
const SHOWN_MAX = 60
/** Characters of what the yaml package says: it quotes the text it stumbled over. */
const YAML_MESSAGE_MAX = 200
/** Lexemes read before the event loop gets its turn: about 15 ms (measured: 2 MB of YAML is 1.4 s of reading). */
const LEXEMES_PER_TURN = 5_000
/** Aliases one file may unfold to; the yaml package's own default, which stops the "billion laughs". */
const ALIASES_MAX = 100

/** Fits an address (259 characters) and stays one segment of a URL's path. No `@`: the catalog makes ids unique with it. */
const INSTANCE_ID = /^[A-Za-z0-9._:[\]~+-]{1,260}$/
const HOST_LABEL = /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/

type Path = readonly (string | number)[]

/** What may be written as a service's protocol. `h2`: HTTP/2 without TLS; gRPC services may say so too, and need not. */
export type WrittenProtocol = Protocol | 'h2'

/**
 * A protocol as the mesh knows it. That instances speak HTTP/2 concerns their own node alone, so it is kept as a label:
 * `protocol: h2` is the same as `labels: { protocol: h2 }`.
 */
export function readWrittenProtocol(
  protocol: WrittenProtocol,
  labels: Labels,
): { readonly protocol: Protocol; readonly labels: Labels } {
  return protocol === 'h2' ? { protocol: 'http', labels: { ...labels, protocol } } : { protocol, labels }
}

/** One thing wrong with data from outside: where in it, and what was expected and found. */
interface SchemaProblem {
  readonly path: Path
  readonly text: string
  /** Where in the text, when there is no path to it: syntax errors. */
  readonly offset?: number
}

/** Collects problems up to a limit and counts the rest. */
class Findings {
  readonly kept: SchemaProblem[] = []
  total = 0

  add(path: Path, text: string): void {
    this.total++
    if (this.kept.length < PROBLEMS_MAX) this.kept.push({ path, text })
  }

  addAt(offset: number, text: string): void {
    this.total++
    if (this.kept.length < PROBLEMS_MAX) this.kept.push({ path: [], text, offset })
  }

  expected(path: Path, accepted: string, found: unknown): void {
    this.add(path, `expected ${accepted}, found ${show(found)}`)
  }
}

/** What a services file holds, or everything that is wrong with it, one problem a line. */
export type DecodedServices =
  | { readonly services: readonly ServiceDefinition[]; readonly document: Document; readonly problem?: undefined }
  | { readonly problem: string; readonly services?: undefined }

/**
 * Reads the text of a services file.
 *
 * Shape: services in the order of the file, with at least the keys of the docs filled in; or the problems, at most
 * 20 lines of `file:line path: expected …, found …`.
 * Errors: none are thrown for any text. The caller limits its length to SERVICES_FILE_BYTES_MAX.
 * Takes several turns of the event loop for a long text, so that calls go on meanwhile.
 */
export async function decodeServices(text: string, file: string): Promise<DecodedServices> {
  const lines = new LineCounter()
  try {
    const document = await readDocument(text, lines)
    if (typeof document === 'string') return { problem: `${file}:1 ${document}` }
    const findings = new Findings()
    checkSyntax(document, findings)
    const services = findings.total === 0 ? checkServices(toData(document), findings) : []
    if (findings.total === 0) return { services, document }
    return { problem: describeProblems(findings, p => `${file}:${lineOf(document, p, lines)} `) }
  } catch (cause) {
    // The yaml package throws for nesting deeper than the stack and for aliases that unfold without end.
    return { problem: `${file}:1 cannot be read as YAML: ${escapeControls(String(cause).slice(0, YAML_MESSAGE_MAX))}` }
  }
}

/** The text as one YAML document, or what is wrong. The steps are those of the yaml package, with pauses between them. */
async function readDocument(text: string, lines: LineCounter): Promise<Document | string> {
  const parser = new Parser(lines.addNewLine)
  lines.addNewLine(0)
  const tokens = []
  let lexemes = 0
  for (const lexeme of new Lexer().lex(text)) {
    for (const token of parser.next(lexeme)) tokens.push(token)
    if (++lexemes % LEXEMES_PER_TURN === 0) await nextTurn()
  }
  for (const token of parser.end()) tokens.push(token)
  // Doubled keys are looked for in checkSyntax: the package compares each key with each other one.
  const composer = new Composer({ uniqueKeys: false, prettyErrors: false })
  const [document, second] = [...composer.compose(tokens, true, text.length)]
  if (document === undefined) return 'is empty; write "services: []" to offer none'
  if (second !== undefined) return 'holds more than one document ("---"); keep one'
  return document
}

function checkSyntax(document: Document, findings: Findings): void {
  for (const error of document.errors)
    findings.addAt(error.pos[0], `not YAML: ${escapeControls(error.message.slice(0, YAML_MESSAGE_MAX))}`)
  if (findings.total > 0) return
  visit(document, {
    Map(_, map) {
      const seen = new Set<string>()
      for (const { key } of map.items) {
        const name = isScalar(key) ? String(key.value) : undefined
        if (name === undefined) continue
        if (seen.has(name)) findings.addAt(offsetOf(key) ?? 0, `the key ${show(name)} is written twice here`)
        seen.add(name)
      }
    },
  })
}

function toData(document: Document): unknown {
  return document.toJS({ maxAliasCount: ALIASES_MAX })
}

function checkServices(data: unknown, findings: Findings): ServiceDefinition[] {
  if (data === null || data === undefined) {
    findings.add([], 'is empty; write "services: []" to offer none')
    return []
  }
  const fields = checkMap(data, [], ['services'], ['services'], findings)
  if (fields === undefined) return []
  const list = checkList(fields.services, ['services'], SERVICES_MAX, 'services', findings)
  const services: ServiceDefinition[] = []
  const firstAt = new Map<ServiceName, number>()
  for (const [i, item] of list.entries()) {
    const service = checkService(item, ['services', i], findings)
    if (service === undefined) continue
    const first = firstAt.get(service.name)
    if (first === undefined) firstAt.set(service.name, i)
    else findings.add(['services', i, 'name'], `${show(service.name)} is already services[${first}]; join the two`)
    services.push(service)
  }
  return services
}

function checkService(data: unknown, path: Path, findings: Findings): ServiceDefinition | undefined {
  const fields = checkMap(data, path, ['name', 'protocol', 'labels', 'instances'], ['name', 'instances'], findings)
  if (fields === undefined) return undefined
  const name = checkServiceName(fields.name, [...path, 'name'], findings)
  const { protocol, labels } = checkProtocol(fields, path, findings)
  const at = [...path, 'instances']
  const list =
    fields.instances === undefined
      ? []
      : checkList(fields.instances, at, INSTANCES_PER_SERVICE_MAX, 'instances', findings)
  const instances: Instance[] = []
  const firstAt = new Map<string, number>()
  for (const [i, item] of list.entries()) {
    const instance = checkInstance(item, [...at, i], findings)
    if (instance === undefined) continue
    const first = firstAt.get(instance.address)
    if (first === undefined) firstAt.set(instance.address, i)
    else findings.add([...at, i], `${show(instance.address)} is already instances[${first}]; remove one`)
    instances.push(instance)
  }
  return name === undefined ? undefined : { name, protocol, labels, instances }
}

function checkInstance(data: unknown, path: Path, findings: Findings): Instance | undefined {
  if (typeof data === 'string') {
    const address = checkAddress(data, path, findings)
    return address === undefined ? undefined : { id: address, address, weight: 1 }
  }
  if (!isRecord(data)) {
    findings.expected(path, 'an address such as 127.0.0.1:9000, or { address, weight }', data)
    return undefined
  }
  const fields = checkMap(data, path, ['address', 'weight'], ['address'], findings)
  if (fields === undefined) return undefined
  const weight = checkWhole(fields.weight, [...path, 'weight'], 1, WEIGHT_MAX, 1, findings)
  if (fields.address === undefined) return undefined
  const address = checkAddress(fields.address, [...path, 'address'], findings)
  return address === undefined ? undefined : { id: address, address, weight }
}

/** What a service says when it registers itself. */
export interface RegistrationRequest {
  readonly service: ServiceName
  readonly id: string
  readonly address: string
  readonly protocol: Protocol
  readonly labels: Labels
  readonly weight: number
  readonly ttlMs: number
}

/**
 * Reads the body of a registration: `{ service, address, id?, protocol?, labels?, weight?, ttlMs? }`.
 *
 * Shape: all fields filled in; `id` is the address when none was given.
 * Errors: MeshError `bad-registry` that names every wrong field, what was found and what is accepted.
 */
export function parseRegistration(body: unknown, defaultTtlMs: number): RegistrationRequest {
  const findings = new Findings()
  const known = ['service', 'address', 'id', 'protocol', 'labels', 'weight', 'ttlMs']
  const fields = checkMap(body, [], known, ['service', 'address'], findings) ?? {}
  const service = fields.service === undefined ? '' : checkServiceName(fields.service, ['service'], findings)
  const address = fields.address === undefined ? '' : checkAddress(fields.address, ['address'], findings)
  const { protocol, labels } = checkProtocol(fields, [], findings)
  const weight = checkWhole(fields.weight, ['weight'], 1, WEIGHT_MAX, 1, findings)
  const ttlMs = checkWhole(fields.ttlMs, ['ttlMs'], TTL_MIN_MS, TTL_MAX_MS, defaultTtlMs, findings)
  const id = fields.id === undefined ? address : checkId(fields.id, findings)
  if (findings.total > 0 || service === undefined || address === undefined || id === undefined) {
    throw new MeshError('bad-registry', `this registration is not understood: ${describeProblems(findings, () => '')}`)
  }
  return { service, id, address, protocol, labels, weight, ttlMs }
}

/** True if nobody who reads the two could tell them apart: same fields, same instances in the same order. */
export function isSameService(a: ServiceDefinition, b: ServiceDefinition): boolean {
  if (a === b) return true
  if (a.name !== b.name || a.protocol !== b.protocol || a.instances.length !== b.instances.length) return false
  return isSameLabels(a.labels, b.labels) && a.instances.every((one, i) => isSameInstance(one, b.instances[i]))
}

function isSameInstance(a: Instance, b: Instance | undefined): boolean {
  return a.id === b?.id && a.address === b.address && a.weight === b.weight
}

export function isSameLabels(a: Labels, b: Labels): boolean {
  const keys = Object.keys(a)
  return keys.length === Object.keys(b).length && keys.every(key => Object.hasOwn(b, key) && a[key] === b[key])
}

/** The labels that every one of `all` has with the same value. */
export function sharedLabels(all: readonly Labels[]): Labels {
  const [first, ...rest] = all
  if (first === undefined || rest.length === 0) return first ?? {}
  const shared = Object.entries(first).filter(([key, value]) =>
    rest.every(labels => Object.hasOwn(labels, key) && labels[key] === value),
  )
  return Object.fromEntries(shared)
}

/** `host:port` in the one form in which equal addresses are equal strings, or why it is none. */
export function decodeAddress(text: string): { readonly address: string } | { readonly reason: string } {
  const accepted = 'expected host:port, such as 127.0.0.1:9000, db.internal:5432 or "[::1]:9000"'
  const [, bracketed, plain, portText] = /^(?:\[([^\]]{1,45})\]|([^:[\]]{1,253})):([0-9]{1,5})$/.exec(text) ?? []
  const port = Number(portText)
  if (portText === undefined) {
    if (isIPv6(text)) return { reason: `${accepted}, found ${show(text)} (an IPv6 address without brackets and port)` }
    return { reason: `${accepted}, found ${show(text)}` }
  }
  if (port < 1 || port > 65_535 || portText.startsWith('0')) {
    return { reason: `expected a port from 1 to 65535, found ${show(text)}` }
  }
  const host = bracketed === undefined ? canonicalName(plain ?? '') : canonicalIPv6(bracketed)
  if (host === undefined) return { reason: `${accepted}, found ${show(text)}` }
  if (host === '0.0.0.0' || host === '[::]') {
    return {
      reason: `expected an address that can be dialled, such as 127.0.0.1:${port}, found ${show(text)} (all interfaces)`,
    }
  }
  return { address: `${host}:${port}` }
}

function canonicalIPv6(host: string): string | undefined {
  // A zone (`%eth0`) means something on one machine only, and the URL rules have no place for it.
  return isIPv6(host) && !host.includes('%') ? new URL(`http://[${host}]`).hostname : undefined
}

function canonicalName(host: string): string | undefined {
  const name = host.toLowerCase()
  if (isIPv4(name)) return name
  const labels = (name.endsWith('.') ? name.slice(0, -1) : name).split('.')
  // A last label that reads as a number makes an IPv4 address of odd form (127.1, 0x7f.1): resolvers differ on those.
  if (/^(0x[0-9a-f]*|[0-9]+)$/.test(labels.at(-1) ?? '')) return undefined
  return labels.every(label => HOST_LABEL.test(label)) ? name : undefined
}

function checkMap(
  data: unknown,
  path: Path,
  known: readonly string[],
  required: readonly string[],
  findings: Findings,
): Readonly<Record<string, unknown>> | undefined {
  if (!isRecord(data)) {
    findings.expected(path, `a map with the keys ${known.join(', ')}`, data)
    return undefined
  }
  for (const key of Object.keys(data)) {
    if (known.includes(key)) continue
    const meant = closestWord(key, known)
    const hint = meant === undefined ? '' : `did you mean ${show(meant)}? `
    findings.add([...path, key], `unknown key; ${hint}accepted here: ${known.join(', ')}`)
  }
  for (const key of required) {
    if (!Object.hasOwn(data, key)) findings.add(path, `the key ${show(key)} is missing`)
  }
  // Only own, known keys: whatever else came along is not handed on.
  return Object.fromEntries(known.filter(key => Object.hasOwn(data, key)).map(key => [key, data[key]]))
}

function checkList(data: unknown, path: Path, most: number, noun: string, findings: Findings): readonly unknown[] {
  if (data === undefined) return []
  if (!Array.isArray(data)) {
    findings.expected(path, `a list of ${noun} ([] for none)`, data)
    return []
  }
  if (data.length <= most) return data
  findings.add(path, `expected at most ${most} ${noun}, found ${data.length}`)
  return []
}

function checkServiceName(data: unknown, path: Path, findings: Findings): ServiceName | undefined {
  if (data === undefined) return undefined
  if (typeof data === 'string' && SERVICE_NAME.test(data)) return data
  findings.expected(path, 'a service name (1 to 63 of a-z, 0-9 and -, not - at either end)', data)
  return undefined
}

function checkProtocol(
  fields: Readonly<Record<string, unknown>>,
  path: Path,
  findings: Findings,
): { readonly protocol: Protocol; readonly labels: Labels } {
  const labels = checkLabels(fields.labels, [...path, 'labels'], findings)
  const written = fields.protocol === undefined ? 'http' : fields.protocol
  if (written !== 'http' && written !== 'h2' && written !== 'tcp') {
    findings.expected([...path, 'protocol'], 'http, h2 or tcp', written)
    return { protocol: 'http', labels }
  }
  const label = labels.protocol
  if (written === 'h2' && label !== undefined && label !== 'h2') {
    findings.expected([...path, 'labels', 'protocol'], 'no such label, or h2, beside protocol: h2', label)
  }
  return readWrittenProtocol(written, labels)
}

function checkLabels(data: unknown, path: Path, findings: Findings): Labels {
  if (data === undefined) return {}
  if (!isRecord(data)) {
    findings.expected(path, 'a map of labels such as { version: v1 } ({} for none)', data)
    return {}
  }
  const entries = Object.entries(data)
  if (entries.length > LABELS_MAX) {
    findings.add(path, `expected at most ${LABELS_MAX} labels, found ${entries.length}`)
    return {}
  }
  const labels: [string, string][] = []
  for (const [key, value] of entries) {
    const at = [...path, key]
    if (!LABEL_KEY.test(key)) {
      findings.add(
        at,
        'expected a label key of 1 to 63 letters, digits and . _ / -, with a letter or digit at each end',
      )
    } else if (typeof value !== 'string') {
      const hint = typeof value === 'number' || typeof value === 'boolean' ? ` (put it in quotes: "${value}")` : ''
      findings.add(at, `expected a text, found ${show(value)}${hint}`)
    } else if (value.length > LABEL_CHARACTERS_MAX || !LABEL_VALUE.test(value)) {
      findings.expected(at, `at most ${LABEL_CHARACTERS_MAX} printable characters`, value)
    } else labels.push([key, value])
  }
  return Object.fromEntries(labels)
}

function checkAddress(data: unknown, path: Path, findings: Findings): string | undefined {
  const decoded = typeof data === 'string' ? decodeAddress(data) : undefined
  if (decoded !== undefined && 'address' in decoded) return decoded.address
  if (decoded !== undefined) findings.add(path, decoded.reason)
  else findings.expected(path, 'host:port in quotes, such as "127.0.0.1:9000" or "[::1]:9000"', data)
  return undefined
}

function checkWhole(
  data: unknown,
  path: Path,
  low: number,
  high: number,
  otherwise: number,
  findings: Findings,
): number {
  if (data === undefined) return otherwise
  if (typeof data === 'number' && Number.isInteger(data) && data >= low && data <= high) return data
  findings.expected(path, `a whole number from ${low} to ${high}`, data)
  return otherwise
}

function checkId(data: unknown, findings: Findings): string | undefined {
  if (typeof data === 'string' && INSTANCE_ID.test(data)) return data
  findings.expected(['id'], 'an id of 1 to 260 letters, digits and . _ : [ ] ~ + -', data)
  return undefined
}

function isRecord(data: unknown): data is Readonly<Record<string, unknown>> {
  return typeof data === 'object' && data !== null && !Array.isArray(data)
}

/** A value from outside as it may stand in a message: short, on one line, without terminal controls. */
function show(value: unknown): string {
  if (value === undefined || value === null) return 'nothing'
  if (Array.isArray(value)) return `a list of ${value.length}`
  if (typeof value === 'object') return `a map of ${Object.keys(value).length}`
  if (typeof value !== 'string') return String(value)
  return escapeControls(JSON.stringify(value.length > SHOWN_MAX ? `${value.slice(0, SHOWN_MAX)}…` : value))
}

/** The text on one line, without what could move a terminal's cursor or turn the reading direction. */
function escapeControls(text: string): string {
  return text.replace(
    /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu,
    character => `\\u${(character.codePointAt(0) ?? 0).toString(16).padStart(4, '0')}`,
  )
}

function showPath(path: Path): string {
  const text = path.map((step, i) => {
    if (typeof step === 'number') return `[${step}]`
    const word = /^[A-Za-z0-9_-]{1,63}$/.test(step) ? step : show(step)
    return i === 0 ? word : `.${word}`
  })
  return text.length === 0 ? '' : `${text.join('')}: `
}

function describeProblems(findings: Findings, prefix: (problem: SchemaProblem) => string): string {
  const told = findings.kept.map(problem => `${prefix(problem)}${showPath(problem.path)}${problem.text}`)
  const rest = findings.total - findings.kept.length
  return [...told, ...(rest > 0 ? [`and ${rest} more`] : [])].join('\n')
}

/** The line, from 1, of what the problem is about, or of the nearest thing around it that is in the file. */
function lineOf(document: Document, { path, offset }: SchemaProblem, lines: LineCounter): number {
  return Math.max(1, lines.linePos(offset ?? offsetAt(document, path)).line)
}

function offsetAt(document: Document, path: Path): number {
  let node: unknown = document.contents
  let offset = 0
  for (const step of path) {
    offset = offsetOf(node) ?? offset
    if (isAlias(node)) node = node.resolve(document)
    if (isSeq(node) && typeof step === 'number') node = node.items[step]
    else if (isMap(node)) {
      const pair = node.items.find(({ key }) => isScalar(key) && String(key.value) === step)
      offset = offsetOf(pair?.key) ?? offset
      node = pair?.value
    } else break
  }
  return offsetOf(node) ?? offset
}

function offsetOf(node: unknown): number | undefined {
  if (isPair(node)) return offsetOf(node.key)
  return isNode(node) ? (node as Node).range?.[0] : undefined
}

/** The word of `words` at most two letters (changed, added, left out) away from `word`. */
function closestWord(word: string, words: readonly string[]): string | undefined {
  if (word.length > 30) return undefined
  const near = words.map(candidate => ({
    candidate,
    distance: editDistance(word.toLowerCase(), candidate.toLowerCase()),
  }))
  near.sort((a, b) => a.distance - b.distance)
  const [best] = near
  return best !== undefined && best.distance <= 2 ? best.candidate : undefined
}

/** Levenshtein's distance, one row at a time. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const change = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(change, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1))
    }
    row = next
  }
  return row[b.length] ?? 0
}
