import type { MeshErrorCode } from '../router/errors.ts'
import type { NodeId, ServiceName } from '../router/model.ts'
import type { Attempt } from './mesh-answer.ts'

/**
 * How a call ended: `ok` (the whole answer was passed on, whatever its status), `client-gone` (the client left before
 * that), or the code of the mesh's error, before an answer or in the middle of one.
 */
export type CallOutcome = 'ok' | 'client-gone' | MeshErrorCode

/** What the ingress knows of one call when it is over; told once for each, also for requests that were refused. */
export interface CallReport {
  readonly kind: 'http' | 'tcp'
  /** As the client spoke it: `HTTP/1.0`, `HTTP/1.1`, `HTTP/2`, `gRPC`, or `TCP`. */
  readonly protocol: string
  /** '' if the request named none. */
  readonly service: ServiceName
  /** '' where there is none. */
  readonly method: string
  /** As the client sent it, its query included; '' where there is none. */
  readonly target: string
  /** The client's address; undefined if it was gone too soon to be asked. */
  readonly client: string | undefined
  /** Of the answer; of an error of the mesh, what docs/errors.md has for it, also where gRPC puts it otherwise; 0: none. */
  readonly status: number
  /** Of gRPC, as the service gave it; undefined: it gave none. */
  readonly grpcStatus: string | undefined
  readonly outcome: CallOutcome
  /** The mesh's own words; '' unless `outcome` is an error of the mesh. */
  readonly reason: string
  /** Where it was sent last; undefined: nowhere. */
  readonly egress: { readonly node: NodeId; readonly name: string } | undefined
  /** What the egress noted on the answer (`decodeEgressNote`); undefined: it said nothing. */
  readonly egressNote: string | undefined
  /** Tries that came to nothing, in order. */
  readonly attempts: readonly Attempt[]
  /** Monotonic milliseconds: when the request's head had come, … */
  readonly beganAtMs: number
  /** … when the last try was opened, … */
  readonly openedAtMs: number
  /** … when the final head of its answer came back, NaN if none did, … */
  readonly answeredAtMs: number
  /** … and when all was over. */
  readonly endedAtMs: number
  /** Of bodies and tunnels, without heads and framing. */
  readonly bytesIn: number
  readonly bytesOut: number
}

/** What is known of a request that never became an exchange. */
export type RefusedCall = Pick<CallReport, 'protocol' | 'client' | 'status' | 'reason'> &
  Partial<Pick<CallReport, 'service' | 'method' | 'target'>> & { readonly outcome: MeshErrorCode }

export function reportRefused(call: RefusedCall, nowMs: number): CallReport {
  return {
    ...{ kind: 'http', service: '', method: '', target: '', ...call },
    ...{ grpcStatus: undefined, egress: undefined, egressNote: undefined, attempts: [], bytesIn: 0, bytesOut: 0 },
    ...{ beganAtMs: nowMs, openedAtMs: nowMs, answeredAtMs: Number.NaN, endedAtMs: nowMs },
  }
}
