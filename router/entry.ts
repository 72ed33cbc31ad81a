import { BoundedMap } from './bounded-map.ts'
import type { Labels, LinkInfo, NodeId, NodeInfo, Protocol, ServiceInfo, ServiceName } from './model.ts'
import { SERVICE_NAME } from './model.ts'

/**
 * The entries of a record and how they stand on the wire. Keys: `node`, `service/<name>`, `link/<tail of a node id>`.
 * Values are maps with short keys (docs/wire.md has the table). Decoding ignores keys it does not know and entries of
 * other kinds: newer nodes may say more, and what they say is passed on with their batch whether understood or not.
 */
export const NODE_KEY = 'node'
export const serviceKey = (name: ServiceName): string => `service/${name}`
export const linkKey = (to: NodeId): string => `link/${nodeTail(to)}`

/** 16 characters of base58 are 93 bits of a public key: nobody finds a second key with the same, and links are most of what is gossiped. */
export const TAIL_LENGTH = 16

/** What a link's entry says of the node it leads to: the end of its id. */
export function nodeTail(node: NodeId): string {
  return node.slice(-TAIL_LENGTH)
}

export type EntryKind = { kind: 'node' } | { kind: 'service'; name: ServiceName } | { kind: 'link'; toTail: string }

/** Keys remembered with what they mean: the same stand in the records of many, and each is taken apart once. */
const KINDS_MAX = 100_000
const kinds = new BoundedMap<string, EntryKind>(KINDS_MAX)

/** Undefined: of a kind that this version does not know. */
export function entryKind(key: string): EntryKind | undefined {
  const known = kinds.get(key)
  if (known !== undefined) return known
  const kind = readKind(key)
  if (kind !== undefined) kinds.set(key, kind)
  return kind
}

/** What an entry says. What cannot be read counts as absent. */
export type Said =
  | { kind: 'node'; info: NodeInfo | undefined }
  | { kind: 'service'; name: ServiceName; info: ServiceInfo | undefined }
  | { kind: 'link'; toTail: string; link: LinkInfo | undefined }
  | { kind: 'unknown' }

const UNKNOWN: Said = { kind: 'unknown' }
/** Different infos kept to be shared by the routes that say the same; most say "3 of 3". */
const INFOS_MAX = 4096
const infos = new BoundedMap<string, ServiceInfo>(INFOS_MAX)

/** Reads an entry, once: it stands in the entry from then on. A simulator has a thousand nodes that read the same one. */
export function saidBy(entry: { readonly key: string; readonly value: unknown; said?: Said | undefined }): Said {
  entry.said ??= readEntry(entry.key, entry.value)
  return entry.said
}

function readEntry(key: string, value: unknown): Said {
  const kind = entryKind(key)
  switch (kind?.kind) {
    case 'node':
      return { kind: 'node', info: decodeNodeInfo(value) }
    case 'service': {
      const info = decodeServiceInfo(value)
      return { kind: 'service', name: kind.name, info: info && share(info) }
    }
    case 'link':
      return { kind: 'link', toTail: kind.toTail, link: decodeLinkInfo(value) }
    default:
      return UNKNOWN
  }
}

/** One object for all routes that say the same: a million routes say few different things. */
function share(info: ServiceInfo): ServiceInfo {
  const key = infoKey(info)
  const known = infos.get(key)
  if (known !== undefined) return known
  infos.set(key, info)
  return info
}

export function isSameInfo(a: ServiceInfo, b: ServiceInfo): boolean {
  return a === b || infoKey(a) === infoKey(b)
}

/** Of infos made by `decodeServiceInfo`: plain data with their keys in one order. */
function infoKey({ protocol, instances, healthy, weight, labels }: ServiceInfo): string {
  const said = labels === NO_LABELS ? '' : JSON.stringify(labels)
  return `${protocol} ${instances} ${healthy} ${weight} ${said}`
}

function readKind(key: string): EntryKind | undefined {
  if (key === NODE_KEY) return { kind: 'node' }
  if (key.startsWith('service/')) {
    const name = key.slice(8)
    return SERVICE_NAME.test(name) ? { kind: 'service', name: interned(name) } : undefined
  }
  if (key.startsWith('link/') && key.length > 5) return { kind: 'link', toTail: interned(nodeTail(key.slice(5))) }
  return undefined
}

/** The same text as V8 keeps it for names of properties: two of those are told apart by their address, letters unread. */
export function interned(text: string): string {
  return Object.keys({ [text]: undefined })[0] as string
}

/** The labels of services that have none: one object for all of them. */
export const NO_LABELS: Labels = Object.freeze({})

const ADDRESSES_MAX = 16
const LABELS_MAX = 32
const TEXT_MAX = 256

export function encodeNodeInfo(info: NodeInfo): unknown {
  const { name, region, version, overlay, calls, state, relays } = info
  const value = { n: name, r: region, v: version, o: overlay, c: calls, d: state === 'draining' }
  return relays === false ? { ...value, x: true } : value
}

export function decodeNodeInfo(value: unknown): NodeInfo | undefined {
  if (!isMap(value)) return undefined
  const { n: name, r: region, v: version, o: overlay, c: calls, d: draining, x: noRelay } = value
  if (!isText(name) || !isText(region) || !isText(version)) return undefined
  if (!isTexts(overlay) || !isTexts(calls)) return undefined
  const info: NodeInfo = { name, region, version, overlay, calls, state: draining === true ? 'draining' : 'up' }
  return noRelay === true ? { ...info, relays: false } : info
}

export function encodeServiceInfo(info: ServiceInfo): unknown {
  const value: Record<string, unknown> = { i: info.instances, h: info.healthy, w: info.weight }
  if (info.protocol !== 'http') value.p = info.protocol
  if (Object.keys(info.labels).length > 0) value.l = info.labels
  return value
}

export function decodeServiceInfo(value: unknown): ServiceInfo | undefined {
  if (!isMap(value)) return undefined
  const { i: instances, h: healthy, w: weight, p = 'http', l: labels = NO_LABELS } = value
  if (!isCapacity(instances) || !isCapacity(healthy) || !isCapacity(weight) || healthy > instances) return undefined
  if (!isProtocol(p) || !isLabels(labels)) return undefined
  return { protocol: p, instances, healthy, weight, labels }
}

/** RTT travels in tenths of a millisecond and loss in thousandths: whole numbers are short, and finer is noise. */
export function encodeLinkInfo(info: LinkInfo): unknown {
  return { r: Math.round(info.rttMs * 10), l: Math.round(info.lossRatio * 1000) }
}

export function decodeLinkInfo(value: unknown): LinkInfo | undefined {
  if (!isMap(value)) return undefined
  const { r: rtt, l: loss } = value
  if (typeof rtt !== 'number' || !(rtt >= 0 && rtt <= 36_000_000)) return undefined
  if (typeof loss !== 'number' || !(loss >= 0 && loss <= 1000)) return undefined
  return { rttMs: rtt / 10, lossRatio: loss / 1000 }
}

function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Uint8Array)
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value.length <= TEXT_MAX
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.length <= ADDRESSES_MAX && value.every(isText)
}

function isCapacity(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 && value <= 1_000_000_000
}

function isProtocol(value: unknown): value is Protocol {
  return value === 'http' || value === 'tcp'
}

function isLabels(value: unknown): value is Labels {
  if (!isMap(value)) return false
  const pairs = Object.entries(value)
  return pairs.length <= LABELS_MAX && pairs.every(([key, text]) => key.length <= TEXT_MAX && isText(text))
}
