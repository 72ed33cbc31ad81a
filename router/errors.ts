/** Every way flatmesh says no. Each code has its row in docs/errors.md; a test keeps the two in step. */
export type MeshErrorCode =
  // starting and joining
  | 'usage'
  | 'bad-config'
  | 'port-in-use'
  | 'data-dir'
  | 'clock-wrong'
  | 'no-identity'
  | 'bad-token'
  | 'token-expired'
  | 'token-used'
  | 'join-refused'
  | 'daemon-unreachable'
  // registering
  | 'bad-registry'
  | 'not-found'
  // between nodes
  | 'not-a-member'
  | 'bad-frame'
  // calls: made by the mesh, never by a service
  | 'bad-request'
  | 'head-too-large'
  | 'request-timeout'
  | 'unknown-service'
  | 'no-healthy-place'
  | 'no-matching-place'
  | 'unreachable'
  | 'relay-refused'
  | 'link-lost'
  | 'instance-refused'
  | 'instance-busy'
  | 'instance-lost'
  | 'bad-answer'
  | 'deadline'
  | 'loop'
  | 'draining'
  | 'overloaded'
  | 'cancelled'
  | 'internal'

/**
 * Weather: something outside this program went wrong, and `code` says what. Callers match `code`, never the text.
 * The message says what was expected, what was found and what to do, in the operator's words.
 */
export class MeshError extends Error {
  readonly code: MeshErrorCode
  constructor(code: MeshErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.name = 'MeshError'
    this.code = code
  }
}

/** What went wrong, in its own words: anything can be thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** A bug: the program's own rule is broken. Stays on in production, because going on would do more harm. */
export function invariant(condition: unknown, why: string): asserts condition {
  if (!condition) throw new Error(`bug: ${why}`)
}
