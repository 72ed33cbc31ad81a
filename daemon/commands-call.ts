import { open } from 'node:fs/promises'
import { type IncomingMessage, type OutgoingHttpHeaders, request } from 'node:http'
import { resolve } from 'node:path'
import { Readable } from 'node:stream'
import { finished, pipeline } from 'node:stream/promises'
import { MeshError, messageOf } from '../router/errors.ts'
import { SERVICE_NAME } from '../router/model.ts'
import { decodeHostPort, isWildcard } from './address.ts'
import { toUnreachable } from './admin-client.ts'
import {
  CallError,
  type Command,
  EXIT,
  type Invocation,
  type Io,
  printJson,
  readConfig,
  toAdminClient,
  usage,
} from './command.ts'
import { PLACE_OPTIONS, readPlaceOptions } from './place-options.ts'
import { printable } from './table.ts'

/** The mesh's own errors carry this field; an ingress lets no service set it. */
const ERROR_FIELD = 'x-flatmesh-error'
/** With --json the answer is held in memory; larger ones are for the plain form, which streams. */
const JSON_BODY_BYTES_MAX = 16 * 1024 * 1024
/** The body of a mesh error is some hundred bytes. */
const ERROR_BODY_BYTES_MAX = 64 * 1024

const call: Command = {
  name: 'call',
  operands: 'SERVICE [PATH]',
  count: [1, 2],
  summary: 'call a service through the mesh',
  about:
    'Sends one HTTP request to SERVICE through the local daemon and streams the answer’s body to stdout. Needs a running\n' +
    'daemon. Exit code: 0 for an answer below 400, 22 for one of the service from 400 on, 69 if the mesh could not get\n' +
    'one (the reason is on stderr). With --json: one object {status, headers, body, encoding}.',
  example:
    "flatmesh call orders /42\nflatmesh call orders / -X POST -H 'content-type: application/json' -d @order.json",
  options: {
    ...PLACE_OPTIONS,
    method: { type: 'string', short: 'X', value: 'METHOD', help: 'default GET, or POST with a body' },
    header: { type: 'string', short: 'H', multiple: true, value: "'K: V'", help: 'a request field; may be repeated' },
    data: { type: 'string', short: 'd', value: 'DATA', help: 'the body: text, @FILE, or - for stdin' },
    include: { type: 'boolean', short: 'i', help: 'print the answer’s status and fields before its body' },
  },
  async run(invocation, io) {
    const asked = await readRequest(invocation, io)
    const { listen } = await toAdminClient(readConfig(invocation, io)).status()
    const address = decodeHostPort(listen.http)
    if (address === undefined)
      throw new MeshError('bad-answer', `the daemon named no usable http address: ${listen.http}`)
    const host = isWildcard(address.host) ? (address.host.includes(':') ? '::1' : '127.0.0.1') : address.host
    try {
      const answer = await send(asked, { host, port: address.port })
      const code = answer.headers[ERROR_FIELD]
      if (code !== undefined) return await tellMeshError(invocation, io, answer, String(code))
      await tellAnswer(invocation, io, answer)
      return (answer.statusCode ?? 0) < 400 ? EXIT.ok : EXIT.refused
    } finally {
      // A service may answer before it has read all: the rest of stdin must not keep this process waiting.
      if (asked.body instanceof Readable) asked.body.destroy()
    }
  },
}

export const CALL_COMMANDS: readonly Command[] = [call]

interface Asked {
  readonly method: string
  readonly path: string
  readonly headers: OutgoingHttpHeaders
  /** Undefined: no body. */
  readonly body: Readable | string | undefined
}

async function readRequest(invocation: Invocation, io: Io): Promise<Asked> {
  const [service = '', path = '/'] = invocation.operands
  if (!SERVICE_NAME.test(service)) throw usage(call, `${JSON.stringify(service)} cannot be the name of a service`)
  const target = path.startsWith('/') ? path : `/${path}`
  if (!/^[!-~]+$/.test(target)) throw usage(call, 'PATH takes visible ASCII only; write the rest as %XX')
  const method = invocation.text('method')?.toUpperCase()
  if (method !== undefined && !/^[A-Z0-9!#$%&'*+.^_`|~-]{1,32}$/.test(method)) {
    throw usage(call, `${JSON.stringify(method)} cannot be a method`)
  }
  const headers: Record<string, string[]> = {}
  for (const header of invocation.list('header')) {
    const [, name, value] = /^([A-Za-z0-9!#$%&'*+.^_`|~-]+):[ \t]*([ -~\t\u0080-\u00ff]*)$/.exec(header) ?? []
    if (name === undefined || value === undefined)
      throw usage(call, `-H takes 'Name: value', found ${JSON.stringify(header)}`)
    headers[name.toLowerCase()] = [...(headers[name.toLowerCase()] ?? []), value]
  }
  const filter = readPlaceOptions(call, invocation) ?? {}
  if (filter.region !== undefined) headers['x-flatmesh-region'] = [filter.region]
  const labels = Object.entries(filter.labels ?? {}).map(([key, value]) => `${key}=${encodeURIComponent(value)}`)
  if (labels.length > 0) headers['x-flatmesh-label'] = labels
  const { body, bodyBytes } = await readBody(invocation.text('data'), io)
  const verb = method ?? (body === undefined ? 'GET' : 'POST')
  const given = Object.entries(headers).map(([name, values]) => [name, values.length === 1 ? values[0] : values])
  const isFramed = headers['content-length'] !== undefined || headers['transfer-encoding'] !== undefined
  return {
    method: verb,
    path: target,
    headers: {
      host: `${service}.mesh`,
      'user-agent': 'flatmesh',
      ...(isFramed ? {} : toFraming(verb, body !== undefined, bodyBytes)),
      ...Object.fromEntries(given),
    },
    body,
  }
}

/** How the body's end is told. Methods that usually have a body say so when they have none (RFC 9110, section 8.6). */
function toFraming(method: string, hasBody: boolean, bodyBytes: number | undefined): OutgoingHttpHeaders {
  if (!hasBody) return ['POST', 'PUT', 'PATCH'].includes(method) ? { 'content-length': 0 } : {}
  return bodyBytes === undefined ? { 'transfer-encoding': 'chunked' } : { 'content-length': bodyBytes }
}

async function readBody(
  data: string | undefined,
  io: Io,
): Promise<{ body: Readable | string | undefined; bodyBytes: number | undefined }> {
  if (data === undefined) return { body: undefined, bodyBytes: undefined }
  if (data === '-') return { body: io.stdin, bodyBytes: undefined }
  if (!data.startsWith('@')) return { body: data, bodyBytes: Buffer.byteLength(data) }
  const path = resolve(io.cwd, data.slice(1))
  try {
    const file = await open(path)
    const found = await file.stat()
    if (found.isDirectory()) {
      await file.close()
      throw new Error('it is a folder')
    }
    // A pipe has no size; it goes in chunks.
    return { body: file.createReadStream(), bodyBytes: found.isFile() ? found.size : undefined }
  } catch (error) {
    throw usage(call, `-d ${data}: cannot be read: ${messageOf(error)}`)
  }
}

/** Resolves with the answer's head. The body may still be on its way up: a service may answer before it has all. */
function send(
  { method, path, headers, body }: Asked,
  address: { host: string; port: number },
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    let isConnected = false
    const asked = request({ ...address, method, path, headers, agent: false, setDefaultHeaders: false })
    asked.once('socket', socket => socket.once('connect', () => (isConnected = true)))
    asked.on('response', resolve)
    asked.on('error', error => {
      const lost = new CallError('link-lost', `the daemon closed the connection before an answer: ${error.message}`)
      reject(isConnected ? lost : toUnreachable(address, error))
    })
    asked.setHeader('connection', 'close')
    if (body === undefined || typeof body === 'string') asked.end(body)
    // Its failure shows as the request's own error, or as an answer that came early.
    else pipeline(body, asked).catch(error => asked.destroy(error))
  })
}

async function tellAnswer(invocation: Invocation, io: Io, answer: IncomingMessage): Promise<void> {
  try {
    if (invocation.json) {
      const bytes = await readAll(answer, JSON_BODY_BYTES_MAX)
      const encoding = isUtf8(bytes) ? 'utf8' : 'base64'
      const { statusCode: status, headers } = answer
      printJson(io, { status, headers, body: bytes.toString(encoding), encoding })
      return
    }
    if (invocation.flag('include')) io.stdout.write(formatHead(answer))
    answer.pipe(io.stdout, { end: false })
    await finished(answer)
  } catch (error) {
    if (error instanceof MeshError) throw error
    // What broke is between here and the service, so it counts as the mesh's.
    throw new CallError('instance-lost', 'the answer broke off before its end: what was printed is not all', {
      cause: error,
    })
  }
}

async function tellMeshError(invocation: Invocation, io: Io, answer: IncomingMessage, code: string): Promise<number> {
  const text = await readAll(answer, ERROR_BODY_BYTES_MAX).then(
    bytes => bytes.toString('utf8'),
    () => '',
  )
  const shownCode = printable(code)
  if (invocation.flag('include')) io.stdout.write(`${formatHead(answer)}${text}`)
  const reason = readReason(text) ?? `HTTP ${answer.statusCode}`
  if (invocation.json) io.stderr.write(`${JSON.stringify({ error: { code: shownCode, message: reason } })}\n`)
  else io.stderr.write(`flatmesh: ${shownCode}: ${printable(reason)}\n`)
  return EXIT.mesh
}

/** The message of a mesh error's body, whether it stands at the top or below `error`. */
function readReason(text: string): string | undefined {
  try {
    const view: unknown = JSON.parse(text)
    const inner = field(view, 'error')
    const message = field(inner, 'message') ?? field(view, 'message') ?? field(view, 'reason')
    return typeof message === 'string' ? message : undefined
  } catch {
    return undefined
  }
}

function field(view: unknown, name: string): unknown {
  return typeof view === 'object' && view !== null ? Reflect.get(view, name) : undefined
}

function formatHead(answer: IncomingMessage): string {
  const lines = [`HTTP/${answer.httpVersion} ${answer.statusCode} ${answer.statusMessage ?? ''}`.trimEnd()]
  for (let i = 0; i + 1 < answer.rawHeaders.length; i += 2)
    lines.push(`${answer.rawHeaders[i]}: ${answer.rawHeaders[i + 1]}`)
  return `${lines.join('\r\n')}\r\n\r\n`
}

async function readAll(answer: IncomingMessage, bytesMax: number): Promise<Buffer> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of answer) {
    bytes += chunk.length
    if (bytes > bytesMax)
      throw new MeshError('bad-answer', `the answer is longer than ${bytesMax} bytes: call without --json`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

function isUtf8(bytes: Buffer): boolean {
  return Buffer.from(bytes.toString('utf8'), 'utf8').equals(bytes)
}
