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
  'instance-refused': [503, 'Service Unavailable'],
  'no-healthy-place': [503, 'Service Unavailable'],
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

/**
 * An answer made by the mesh itself, never to be taken for the service's: it carries `x-flatmesh-error: CODE`, which is
 * removed from everything services send, and says in JSON which node made it and why.
 */
export function meshAnswer(failure: MeshFailure, method: string, keepAlive: boolean): Buffer {
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
  let head = `HTTP/1.1 ${status} ${phrase}\r\nx-flatmesh-error: ${code}\r\nx-flatmesh-node: ${node}\r\n`
  if (status === 503) head += `Retry-After: ${RETRY_AFTER_SECONDS}\r\n`
  head += `Content-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n`
  head += keepAlive ? '\r\n' : 'Connection: close\r\n\r\n'
  return Buffer.from(method === 'HEAD' ? head : head + body)
}
