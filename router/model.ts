/** The words of the mesh as types: what a node says about itself, and what a table says about everyone. */

/** A node's id: its libp2p peer id (base58 of an Ed25519 public key), such as `12D3KooW…`. */
export type NodeId = string
/** A service's name: 1..63 characters of a-z, 0-9 and `-`, beginning and ending with a letter or digit. */
export type ServiceName = string

export type Protocol = 'http' | 'tcp'
export type Labels = Readonly<Record<string, string>>

export const SERVICE_NAME = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/

let lastNamed: string | undefined

/** Whether `text` can name a service. Calls come for the same ones again and again: the last name is not judged anew. */
export function isServiceName(text: string): boolean {
  if (text === lastNamed) return true
  if (!SERVICE_NAME.test(text)) return false
  lastNamed = text
  return true
}
/** A key or a value of a label: Kubernetes' limit, so that its labels fit. */
export const LABEL_CHARACTERS_MAX = 63
export const LABEL_KEY = /^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$/
/** Of at most `LABEL_CHARACTERS_MAX` characters, none of which is invisible. */
export const LABEL_VALUE = /^[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]*$/u

/** A node about itself. */
export interface NodeInfo {
  readonly name: string
  readonly region: string
  readonly version: string
  /** Multiaddrs of the overlay that others can dial, best first, without the `/p2p/` part. */
  readonly overlay: readonly string[]
  /** `host:port` of the call listener that others can dial, best first. */
  readonly calls: readonly string[]
  readonly state: 'up' | 'draining'
  /** It passes no calls on between others: no path leads through it. Absent: it does, which is what nodes are for. */
  readonly relays?: false
}

/** A node about one service it can answer for: counts, never single instances, so losing one of three withdraws nothing. */
export interface ServiceInfo {
  readonly protocol: Protocol
  readonly instances: number
  readonly healthy: number
  /** Sum of the weights of the healthy instances: the capacity offered. */
  readonly weight: number
  readonly labels: Labels
}

/** A node about one of its live links. */
export interface LinkInfo {
  /** Smoothed round trip, milliseconds. */
  readonly rttMs: number
  /** Smoothed share of heartbeats lost, 0..1. */
  readonly lossRatio: number
}

/** What this node's registries offer of one service. `instances: 0` withdraws it. */
export interface LocalService extends ServiceInfo {
  readonly name: ServiceName
}

/** One node that can answer calls for a service, as this node sees it now. */
export interface Candidate {
  readonly service: ServiceName
  readonly node: NodeId
  readonly name: string
  readonly region: string
  readonly protocol: Protocol
  readonly instances: number
  readonly healthy: number
  readonly weight: number
  readonly labels: Labels
  /** The nodes a call passes, the owner last. Empty: this node itself. */
  readonly path: readonly NodeId[]
  /** Smoothed round trip along the path, milliseconds; 0 for this node itself. */
  readonly rttMs: number
  /** What the choice is made by: the round trip plus a base cost for each hop, milliseconds. */
  readonly costMs: number
}
