import { isNamed } from './http1-fields.ts'
import type { ResponseHead } from './http1-head.ts'

/** The field by which an egress tells the ingress about the instance. It never leaves the mesh, and instances cannot set it. */
export const EGRESS_NOTE = 'x-flatmesh-egress'

/** Which instance answered, and how long it took there. */
export interface EgressNote {
  readonly address: string
  /** From the call's arrival until a connection to the instance was there for it, milliseconds. */
  readonly queueMs: number
  /** From then to the first byte of the answer. */
  readonly instanceMs: number
}

/** The field line an egress adds to an answer's final head. Whole microseconds: they cost less to write than fractions. */
export function egressNoteLine(address: string, queueMs: number, instanceMs: number): string {
  return `X-Flatmesh-Egress: ${address} ${Math.round(queueMs * 1000)} ${Math.round(instanceMs * 1000)}\r\n`
}

/** Undefined: another node wrote something else there. */
export function decodeEgressNote(note: string): EgressNote | undefined {
  const [, address, queueUs, instanceUs] = /^([!-~]{1,300}) (\d{1,12}) (\d{1,12})$/.exec(note) ?? []
  if (address === undefined) return undefined
  return { address, queueMs: Number(queueUs) / 1000, instanceMs: Number(instanceUs) / 1000 }
}

/** Takes the note out of a head: what the client gets is without it, however often it stands there. */
export function splitEgressNote(head: ResponseHead): {
  readonly head: ResponseHead
  readonly note: string | undefined
} {
  const { fields } = head
  // The egress writes it after the instance's fields: the search is over at once.
  for (let i = fields.length - 2; i >= 0; i -= 2) {
    if (isNamed(fields[i] ?? '', EGRESS_NOTE))
      return { head: { ...head, fields: without(fields) }, note: fields[i + 1] }
  }
  return { head, note: undefined }
}

function without(fields: readonly string[]): string[] {
  const kept: string[] = []
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] ?? ''
    if (!isNamed(name, EGRESS_NOTE)) kept.push(name, fields[i + 1] ?? '')
  }
  return kept
}
