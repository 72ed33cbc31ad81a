import { readFileSync } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { type Document, isMap, isScalar, isSeq, type Node, type YAMLMap, type YAMLSeq } from 'yaml'
import { MeshError } from '../router/errors.ts'
import type { Labels, ServiceName } from '../router/model.ts'
import { replaceFile } from './atomic-file.ts'
import { codeOf, decodeText, kindOf, sizeProblem } from './file-registry.ts'
import {
  decodeAddress,
  decodeServices,
  isSameLabels,
  isSameService,
  readWrittenProtocol,
  SERVICES_FILE_BYTES_MAX,
  type WrittenProtocol,
} from './service-schema.ts'
import type { ServiceDefinition } from './source.ts'

/** An instance to be written into a services file. What is left out is not written: the file's defaults hold. */
export interface AddInstance {
  readonly service: ServiceName
  readonly address: string
  readonly protocol?: WrittenProtocol
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
        { name: add.service, ...readWrittenProtocol(protocol ?? 'http', labels ?? {}), instances: [instance] },
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
  const is = service.labels.protocol === 'h2' ? 'h2' : service.protocol
  if (add.protocol !== undefined && add.protocol !== is) {
    throw refusal(`expected ${is}, found ${add.protocol}: ${service.name} is ${is} ${by}`)
  }
  if (add.labels === undefined) return
  const { labels } = readWrittenProtocol(is, add.labels)
  if (!isSameLabels(labels, service.labels)) {
    const held = JSON.stringify(service.labels)
    throw refusal(`expected the labels ${held}, found ${JSON.stringify(labels)}: those of ${service.name} ${by}`)
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
