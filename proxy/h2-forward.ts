import { EGRESS_NOTE } from './egress-note.ts'
import { Http1Fault } from './http1-fault.ts'
import { type FieldLines, headValue } from './http1-fields.ts'
import { isHopByHop } from './http1-forward.ts'
import { decodeTrailers, type RequestHead, type ResponseHead } from './http1-head.ts'
import { FORWARDED_HTTP1_LIMITS } from './http1-limits.ts'
import { originForm } from './http1-target.ts'

const CRLF = Buffer.from('\r\n')

/**
 * The head of a request as an HTTP/2 instance gets it: name, value, name, value ….
 *
 * Shape: pseudo-fields first, names in lower case, without what belongs to one hop or to HTTP/1 alone. `grpcTimeout`
 * takes the place of the field of that name.
 * Source: RFC 9113 section 8.3.1; Host becomes :authority.
 */
export function h2RequestFields(head: RequestHead, grpcTimeout: string | undefined): string[] {
  const { method, host, contentLength } = head
  const fields = [':method', method, ':scheme', 'http', ':path', originForm(method, head.target)]
  if (host !== '') fields.push(':authority', host)
  for (let i = 0; i < head.fields.length; i += 2) {
    const name = (head.fields[i] ?? '').toLowerCase()
    if (name === 'host' || isHopByHop(name) || head.connection.includes(name)) continue
    if (grpcTimeout !== undefined && name === 'grpc-timeout') continue
    fields.push(name, head.fields[i + 1] ?? '')
  }
  if (grpcTimeout !== undefined) fields.push('grpc-timeout', grpcTimeout)
  if (contentLength >= 0) fields.push('content-length', String(contentLength))
  if (head.trailersWanted) fields.push('te', 'trailers')
  return fields
}

/** The head of an answer as an HTTP/2 client gets it, without the egress's note; `via` is put after the other fields, '' for none. */
export function h2ResponseFields(head: ResponseHead, via: string): string[] {
  const { status, contentLength } = head
  const fields = [':status', String(status)]
  for (let i = 0; i < head.fields.length; i += 2) {
    const name = (head.fields[i] ?? '').toLowerCase()
    if (isHopByHop(name) || name === EGRESS_NOTE || head.connection.includes(name)) continue
    fields.push(name, head.fields[i + 1] ?? '')
  }
  if (via !== '') fields.push('via', via)
  if (contentLength >= 0 && status >= 200 && status !== 204) fields.push('content-length', String(contentLength))
  return fields
}

/** Trailers that came through the mesh as HTTP/1 lines, as HTTP/2 has them; or a fault with `bad-answer`. */
export function h2TrailerFields(trailers: Buffer): string[] | Http1Fault {
  const decoded = decodeTrailers(Buffer.concat([trailers, CRLF]), 'bad-answer', FORWARDED_HTTP1_LIMITS)
  if (decoded instanceof Http1Fault) return decoded
  return decoded.map((text, i) => (i % 2 === 0 ? text.toLowerCase() : text))
}

/** Whether a message is of gRPC: `application/grpc`, alone or with `+proto`, `;…` and the like after it. */
export function isGrpc(head: { readonly fields: readonly string[]; readonly lines?: FieldLines }): boolean {
  const type = headValue(head, 'content-type')
  return type !== undefined && /^application\/grpc(?:$|[+; ])/i.test(type)
}
