import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import type { MeshErrorCode } from '../router/errors.ts'
import type { ServiceName } from '../router/model.ts'
import type { RouteFilter } from '../router/route-filter.ts'
import { headValue, isNamed } from './http1-fields.ts'
import type { RequestHead } from './http1-head.ts'
import { PLACE_FIELDS, readPlaceFilter } from './place-filter.ts'
import { serviceOf } from './service-name.ts'
import { chooseTimeoutMs } from './timeout.ts'

/** Fields that steer the mesh and end at the ingress, and the one that is written anew. */
export const INGRESS_FIELDS = [
  ...['x-flatmesh-service', 'x-flatmesh-timeout', 'x-forwarded-for'],
  ...PLACE_FIELDS,
] as const

/** Why a request never becomes an exchange. */
export interface Refusal {
  readonly code: MeshErrorCode
  readonly reason: string
  readonly service?: ServiceName
}

export interface Wishes {
  readonly service: ServiceName
  /** As `chooseTimeoutMs` has it. */
  readonly timeoutMs: number
  /** Which places may answer; undefined: any. */
  readonly filter: RouteFilter | undefined
}

/** What a request asks the mesh for, whatever protocol it came by. */
export function readWishes(head: RequestHead, self: { readonly name: string }, timeoutMs: number): Wishes | Refusal {
  const service = serviceOf(head)
  if (service === undefined) {
    const found = headValue(head, 'x-flatmesh-service') ?? head.host
    const reason = `"${found}" names no service; expected a host such as orders.mesh, or the field x-flatmesh-service`
    return { code: 'unknown-service', reason }
  }
  if (hasPassed(head, self.name, service)) {
    return { code: 'loop', reason: `the call has passed ${self.name} before, as a call for ${service}`, service }
  }
  const chosenMs = chooseTimeoutMs(headValue(head, 'x-flatmesh-timeout'), timeoutMs)
  if (chosenMs === undefined) {
    return { code: 'bad-request', reason: 'x-flatmesh-timeout: expected a span such as 1500ms or 2s', service }
  }
  const asked = readPlaceFilter(head)
  if (!asked.ok) return { code: 'bad-request', reason: asked.problem, service }
  return { service, timeoutMs: chosenMs, filter: asked.filter }
}

/** Whether a Via of this node's own stands in the head, for the same service. */
function hasPassed(head: RequestHead, node: string, service: ServiceName): boolean {
  const { lines } = head
  if (lines === undefined) {
    const own = `flatmesh-${node} (${service})`
    return head.fields.some(
      (text, i) => i % 2 === 0 && isNamed(text, 'via') && (head.fields[i + 1] ?? '').includes(own),
    )
  }
  for (let line = 0; line < lines.count; line++) {
    if (lines.is(line, 'via') && lines.value(line).includes(`flatmesh-${node} (${service})`)) return true
  }
  return false
}

export function schemeOf(socket: Socket): 'http' | 'https' {
  return socket instanceof TLSSocket ? 'https' : 'http'
}

/** The node and the client connection that requests come through. */
export interface Through {
  readonly node: string
  readonly address: string | undefined
  readonly scheme: 'http' | 'https'
}

/** Field lines that tell the instance who asked, for what, and through whom: of the requests of one client connection. */
export class ForwardedLines {
  private readonly through: Through
  /** Of the last request without such lines of its own: the next is often for the same service. */
  private last = { service: '', host: '', lines: '' }

  constructor(through: Through) {
    this.through = through
  }

  of(head: RequestHead, service: ServiceName): string {
    const address = this.through.address ?? 'unknown'
    const earlier = headValue(head, 'x-forwarded-for')
    const hasHost = headValue(head, 'x-forwarded-host') !== undefined
    const hasProto = headValue(head, 'x-forwarded-proto') !== undefined
    const isPlain = earlier === undefined && !hasHost && !hasProto
    if (isPlain && this.last.service === service && this.last.host === head.host) return this.last.lines
    let lines = `Via: 1.1 flatmesh-${this.through.node} (${service})\r\n`
    lines += `X-Forwarded-For: ${earlier === undefined ? address : `${earlier}, ${address}`}\r\n`
    if (!hasHost) lines += `X-Forwarded-Host: ${head.host}\r\n`
    if (!hasProto) lines += `X-Forwarded-Proto: ${this.through.scheme}\r\n`
    if (isPlain) this.last = { service, host: head.host, lines }
    return lines
  }
}
