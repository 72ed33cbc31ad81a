import type { MeshErrorCode } from '../router/errors.ts'
import type { MeshFailure } from './mesh-answer.ts'

/** Status codes of gRPC that the mesh makes. Source: grpc/grpc, doc/statuscodes.md. */
export const GRPC_STATUS = {
  CANCELLED: 1,
  DEADLINE_EXCEEDED: 4,
  RESOURCE_EXHAUSTED: 8,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
} as const

/** UNAVAILABLE invites the client to try again: only where another try can help. docs/errors.md has the same. */
const STATUS: Partial<Record<MeshErrorCode, number>> = {
  'head-too-large': GRPC_STATUS.RESOURCE_EXHAUSTED,
  'request-timeout': GRPC_STATUS.DEADLINE_EXCEEDED,
  'unknown-service': GRPC_STATUS.UNIMPLEMENTED,
  'no-healthy-place': GRPC_STATUS.UNAVAILABLE,
  'no-matching-place': GRPC_STATUS.UNAVAILABLE,
  unreachable: GRPC_STATUS.UNAVAILABLE,
  'link-lost': GRPC_STATUS.UNAVAILABLE,
  'relay-refused': GRPC_STATUS.UNAVAILABLE,
  'instance-refused': GRPC_STATUS.UNAVAILABLE,
  'instance-busy': GRPC_STATUS.UNAVAILABLE,
  'instance-lost': GRPC_STATUS.UNAVAILABLE,
  deadline: GRPC_STATUS.DEADLINE_EXCEEDED,
  draining: GRPC_STATUS.UNAVAILABLE,
  overloaded: GRPC_STATUS.UNAVAILABLE,
  cancelled: GRPC_STATUS.CANCELLED,
}

export function grpcStatus(code: MeshErrorCode): number {
  return STATUS[code] ?? GRPC_STATUS.INTERNAL
}

/** Fields that end a gRPC call with an error of the mesh: its trailers, or with `:status` and `content-type` the whole answer. */
export function grpcFailure(failure: MeshFailure): string[] {
  const { code, reason, node } = failure
  return [
    ...['grpc-status', String(grpcStatus(code)), 'grpc-message', escapeMessage(`flatmesh: ${reason}`)],
    ...['x-flatmesh-error', code, 'x-flatmesh-node', node],
  ]
}

/** Characters of a message: enough for any of ours, and a head stays small. */
const MESSAGE_CHARS_MAX = 1000

/** Printable ASCII but `%`; everything else as `%XX` of its UTF-8 (grpc/grpc, doc/PROTOCOL-HTTP2.md). */
function escapeMessage(text: string): string {
  return [...Buffer.from(text.slice(0, MESSAGE_CHARS_MAX))]
    .map(byte =>
      byte >= 0x20 && byte < 0x7f && byte !== 0x25
        ? String.fromCharCode(byte)
        : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`,
    )
    .join('')
}

const UNIT_MS: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1000, m: 1, u: 1e-3, n: 1e-6 }
/** Eight digits are all the field has room for. */
const DIGITS_MAX = 99_999_999

/** Milliseconds of a `grpc-timeout` such as `1500m` or `2S`; undefined: it cannot be read. */
export function parseGrpcTimeoutMs(field: string): number | undefined {
  const match = /^(\d{1,8})([HMSmun])$/.exec(field)
  const unitMs = UNIT_MS[match?.[2] ?? '']
  return match === null || unitMs === undefined ? undefined : Number(match[1]) * unitMs
}

/** A span as `grpc-timeout` has it: in the finest unit that has room for it. What is over is 1n, since 0 is refused by some. */
export function formatGrpcTimeout(ms: number): string {
  if (ms * 1e6 <= DIGITS_MAX) return `${Math.max(1, Math.floor(ms * 1e6))}n`
  if (ms * 1e3 <= DIGITS_MAX) return `${Math.floor(ms * 1e3)}u`
  if (ms <= DIGITS_MAX) return `${Math.floor(ms)}m`
  return ms / 1000 <= DIGITS_MAX ? `${Math.floor(ms / 1000)}S` : `${Math.min(DIGITS_MAX, Math.floor(ms / 3_600_000))}H`
}
