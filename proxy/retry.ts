import type { CallReset } from './call.ts'

/** Of a body, kept at the egress until an answer begins, in case the instance is lost: what the ingress keeps by default. */
export const SENT_BYTES_MAX = 64 * 1024

/** RFC 9110 §9.2.2: to do them twice is to do them once. */
const IDEMPOTENT = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE'])

export function isIdempotent(method: string): boolean {
  return IDEMPOTENT.has(method)
}

/** Failures that say nothing about another place: the caller's own doing, or the time is up. */
const FINAL = new Set(['bad-request', 'head-too-large', 'deadline', 'cancelled', 'loop', 'request-timeout'])

/**
 * Whether a call that came to nothing may be tried at another place.
 *
 * Only while no byte of an answer has been passed on, only if what was sent of the body can be sent again, and only if
 * the first try cannot have been executed, or executing twice does no harm.
 */
export function mayRetry(
  method: string,
  reset: Pick<CallReset, 'code' | 'unexecuted'>,
  state: { answered: boolean; bodyReplayable: boolean },
): boolean {
  if (state.answered || !state.bodyReplayable || FINAL.has(reset.code)) return false
  return reset.unexecuted || isIdempotent(method)
}
