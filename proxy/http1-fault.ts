import type { MeshErrorCode } from '../router/errors.ts'

/** What can be wrong with a message: the caller's doing (`bad-request`, `head-too-large`) or an instance's (`bad-answer`). */
export type Http1FaultCode = Extract<MeshErrorCode, 'bad-request' | 'head-too-large' | 'bad-answer'>

/**
 * Why a message was refused: a value, never thrown.
 *
 * A class only so that `instanceof` tells it from a head without an allocation around either.
 */
export class Http1Fault {
  readonly code: Http1FaultCode
  /** For people; may be shown to the peer. Printable ASCII, at most a few hundred characters. */
  readonly reason: string
  constructor(code: Http1FaultCode, reason: string) {
    this.code = code
    this.reason = reason
  }
}

/** What a peer sent, fit to stand in a message: at most 40 characters, everything but printable ASCII as `\xNN`. */
export function shown(text: string): string {
  const short = text.length > 40 ? `${text.slice(0, 40)}...` : text
  let out = ''
  for (const char of short) {
    const code = char.charCodeAt(0)
    out += code >= 0x20 && code < 0x7f && char !== '"' ? char : `\\x${code.toString(16).padStart(2, '0')}`
  }
  return `"${out}"`
}
