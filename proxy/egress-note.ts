import { headValue } from './http1-fields.ts'
import type { ResponseHead } from './http1-head.ts'

/** The field by which an egress tells the ingress about the instance. It never leaves the mesh, and instances cannot set it. */
export const EGRESS_NOTE = 'x-flatmesh-egress'

/** What an ingress takes out of every answer, however often it stands there. */
export const NOTE_FIELDS = [EGRESS_NOTE] as const

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

/** The note on an answer's head; the client gets the head without it (`NOTE_FIELDS`). */
export function egressNoteOf(head: ResponseHead): string | undefined {
  return headValue(head, EGRESS_NOTE)
}
