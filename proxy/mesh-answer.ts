import type { MeshErrorCode } from '../router/errors.ts'

/** One try to have a call answered, and why it came to nothing. */
export interface Attempt {
  /** Name of the node that was asked. */
  readonly node: string
  readonly code: MeshErrorCode
  readonly reason: string
}

export interface MeshFailure {
  readonly code: MeshErrorCode
  readonly reason: string
  /** Name of the node that makes the answer. */
  readonly node: string
  readonly service?: string
  readonly attempts?: readonly Attempt[]
}

/** What status a mesh error is told with. docs/errors.md explains each; a test keeps the two in step. */
const STATUS: Partial<Record<MeshErrorCode, readonly [number, string]>> = {
  'bad-request': [400, 'Bad Request'],
  'unknown-service': [404, 'Not Found'],
  'request-timeout': [408, 'Request Timeout'],
  'head-too-large': [431, 'Request Header Fields Too Large'],
  'bad-answer': [502, 'Bad Gateway'],
  'instance-lost': [502, 'Bad Gateway'],
  'link-lost': [502, 'Bad Gateway'],
  unreachable: [502, 'Bad Gateway'],
  'relay-refused': [502, 'Bad Gateway'],
  'instance-refused': [503, 'Service Unavailable'],
  'instance-busy': [503, 'Service Unavailable'],
  'no-healthy-place': [503, 'Service Unavailable'],
  'no-matching-place': [503, 'Service Unavailable'],
  draining: [503, 'Service Unavailable'],
  overloaded: [503, 'Service Unavailable'],
  deadline: [504, 'Gateway Timeout'],
  loop: [508, 'Loop Detected'],
}

/** Seconds after which a 503 is worth another try: a node is routed around within 3 s. */
const RETRY_AFTER_SECONDS = 3

export function meshStatus(code: MeshErrorCode): readonly [status: number, reason: string] {
  return STATUS[code] ?? [500, 'Internal Server Error']
}

/** What the mesh says in place of a service, in no protocol yet: fields as name, value, name, value …. */
interface MeshMessage {
  readonly status: number
  readonly phrase: string
  readonly fields: readonly string[]
  readonly body: string
}

function meshMessage(failure: MeshFailure): MeshMessage {
  const [status, phrase] = meshStatus(failure.code)
  const { code, reason: message, node, service, attempts } = failure
  const error = {
    code,
    message,
    node,
    ...(service !== undefined && { service }),
    ...(attempts?.length && { attempts }),
  }
  const body = `${JSON.stringify({ error })}\n`
  const fields = ['x-flatmesh-error', code, 'x-flatmesh-node', node]
  if (status === 503) fields.push('Retry-After', String(RETRY_AFTER_SECONDS))
  fields.push('Content-Type', 'application/json', 'Content-Length', String(Buffer.byteLength(body)))
  return { status, phrase, fields, body }
}

/**
 * An answer made by the mesh itself, never to be taken for the service's: it carries `x-flatmesh-error: CODE`, which is
 * removed from everything services send, and says in JSON which node made it and why.
 */
export function meshAnswer(failure: MeshFailure, method: string, keepAlive: boolean): Buffer {
  const { status, phrase, fields, body } = meshMessage(failure)
  let head = `HTTP/1.1 ${status} ${phrase}\r\n`
  for (let i = 0; i < fields.length; i += 2) head += `${fields[i]}: ${fields[i + 1]}\r\n`
  head += keepAlive ? '\r\n' : 'Connection: close\r\n\r\n'
  return Buffer.from(method === 'HEAD' ? head : head + body)
}

/** The same for HTTP/2. Shape: the fields of the head, pseudo-field first, and the body, '' to HEAD. */
export function meshAnswerH2(failure: MeshFailure, method: string): { fields: string[]; body: string } {
  const { status, fields, body } = meshMessage(failure)
  const lower = fields.map((text, i) => (i % 2 === 0 ? text.toLowerCase() : text))
  return { fields: [':status', String(status), ...lower], body: method === 'HEAD' ? '' : body }
}
