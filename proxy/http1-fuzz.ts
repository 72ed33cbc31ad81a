import { createRequire } from 'node:module'
import { Http1Fault } from './http1-fault.ts'
import { fieldValue } from './http1-fields.ts'
import { chooseAnswerFraming, forwardRequestHead, forwardResponseHead } from './http1-forward.ts'
import { generateRequest, generateResponse, mutate, seededBelow } from './http1-generate.ts'
import { decodeRequestHead, decodeResponseHead, type RequestHead, type ResponseHead } from './http1-head.ts'
import { type MessageHandler, RequestReader, ResponseReader } from './http1-reader.ts'

/** One message as a parser understood it; bytes as latin1. */
export interface ReadMessage {
  /** `METHOD target` or the status. */
  start: string
  version: number
  fields: readonly string[]
  body: string
  trailers: string
  complete: boolean
}

export interface FuzzReport {
  /** Byte strings tried; each holds one to three messages. */
  readonly tried: number
  /** Messages ours read to the end, and those of them that had a body. */
  readonly accepted: number
  readonly withBody: number
  readonly refused: number
  /** The first few cases in which the parsers did not agree: the case's seed, the bytes, and what each read. */
  readonly disagreements: readonly string[]
}

/** What we use of Node's own binding to llhttp. Not a public interface: tests only. */
interface NodeParser {
  [callback: number]: unknown
  initialize(type: number, resource: object, headBytesMax: number, lenientFlags: number): void
  execute(bytes: Buffer): unknown
  finish(): unknown
}
interface NodeParserClass {
  new (): NodeParser
  readonly REQUEST: number
  readonly RESPONSE: number
  readonly kOnHeaders: number
  readonly kOnHeadersComplete: number
  readonly kOnBody: number
  readonly kOnMessageComplete: number
}

const { HTTPParser, methods } = createRequire(import.meta.url)('_http_common') as {
  HTTPParser: NodeParserClass
  methods: readonly string[]
}

const DISAGREEMENTS_MAX = 5
const HEAD_BYTES_MAX = 64 * 1024

/**
 * Feeds our parsers and Node's the same generated messages for `durationMs` and reports where they part.
 *
 * The rule: what ours accepts, Node's accepts with the same start line, fields, body and trailers; and what we pass on
 * for it means the same to Node's. Ours may refuse more. The same seed tries the same cases in the same order.
 */
export function differentialFuzz(seed: number, durationMs: number): FuzzReport {
  const disagreements: string[] = []
  let tried = 0
  let accepted = 0
  let withBody = 0
  let refused = 0
  const endMs = performance.now() + durationMs
  while (performance.now() < endMs && disagreements.length < DISAGREEMENTS_MAX) {
    const caseSeed = (seed + tried) >>> 0
    const result = differentialCase(caseSeed)
    tried++
    for (const message of result.messages) {
      if (!message.complete) continue
      accepted++
      if (message.body !== '') withBody++
    }
    if (result.fault !== undefined) refused++
    if (result.problem !== undefined) disagreements.push(`seed ${caseSeed}: ${result.problem}`)
  }
  return { tried, accepted, withBody, refused, disagreements }
}

interface CaseResult {
  readonly messages: readonly ReadMessage[]
  readonly fault: Http1Fault | undefined
  readonly problem: string | undefined
}

/** One case by its seed: the way to look at a disagreement again. */
export function differentialCase(caseSeed: number): CaseResult {
  const below = seededBelow(caseSeed)
  return below(2) === 0 ? compareRequests(below) : compareResponses(below)
}

function compareRequests(below: (n: number) => number): CaseResult {
  let raw = ''
  const chance = { below, evil: below(2) === 0 }
  for (let i = below(2); i >= 0; i--) raw += generateRequest(chance)
  const bytes = mutate(Buffer.from(raw, 'latin1'), chance)
  const forwarded: string[] = []
  const ours = readRequests(bytes, below, head => {
    const text = forwardRequestHead(head, { add: '' })
    const problem = forwardedRequestProblem(head, text)
    if (problem !== undefined) forwarded.push(problem)
  })
  const theirs = readByNode(bytes, HTTPParser.REQUEST, '')
  return {
    messages: ours.messages,
    fault: ours.fault,
    problem: difference(bytes, ours.messages, theirs) ?? forwarded[0],
  }
}

function compareResponses(below: (n: number) => number): CaseResult {
  const method = below(6) === 0 ? 'HEAD' : 'GET'
  const chance = { below, evil: below(2) === 0 }
  const bytes = mutate(Buffer.from(generateResponse(chance), 'latin1'), chance)
  const forwarded: string[] = []
  const ours = readResponse(bytes, method, below, head => {
    const problem = forwardedResponseProblem(head, method)
    if (problem !== undefined) forwarded.push(problem)
  })
  const theirs = readByNode(bytes, HTTPParser.RESPONSE, method)
  return {
    messages: ours.messages,
    fault: ours.fault,
    problem: difference(bytes, ours.messages, theirs) ?? forwarded[0],
  }
}

/** Pushes `bytes` in random pieces; every request is answered at once. */
export function readRequests(
  bytes: Buffer,
  below: (n: number) => number,
  onHead: (head: RequestHead) => void = () => {},
): { messages: ReadMessage[]; fault: Http1Fault | undefined } {
  const log = new MessageLog<RequestHead>(head => {
    onHead(head)
    return `${head.method} ${head.target}`
  })
  const reader: RequestReader = new RequestReader(log)
  log.onOver = () => {
    // What follows such a head is no request of this protocol if the answer says so; Node's parser stops there too.
    const { head } = log
    // It also stops after an offer of h2c, which we ignore as RFC 9110 section 7.8 allows.
    const offered = head !== undefined && fieldValue(head.fields, 'upgrade') !== undefined
    if (head === undefined || head.method === 'CONNECT' || offered) reader.takeRest()
    else if (head.keepAlive) reader.next()
    else reader.destroy()
  }
  pushInPieces(bytes, below, (chunk, end) => reader.push(chunk, end))
  return log
}

export function readResponse(
  bytes: Buffer,
  method: string,
  below: (n: number) => number,
  onHead: (head: ResponseHead) => void = () => {},
): { messages: ReadMessage[]; fault: Http1Fault | undefined } {
  const log = new MessageLog<ResponseHead>(head => {
    onHead(head)
    return `${head.status}`
  })
  const reader = new ResponseReader(log)
  reader.expect(method)
  pushInPieces(bytes, below, (chunk, end) => reader.push(chunk, end))
  reader.finish()
  return log
}

/** Random pieces, sometimes all at once: `below(8) === 0` cuts finely. They lie in one buffer, before what was there earlier. */
function pushInPieces(bytes: Buffer, below: (n: number) => number, push: (chunk: Buffer, end: number) => void): void {
  const style = below(4)
  const used = Buffer.alloc(bytes.length + 16, 'GET / HTTP/1.1\r\n\r\n')
  for (let at = 0; at < bytes.length; ) {
    const to = style < 2 ? bytes.length : Math.min(bytes.length, at + 1 + below(style === 2 ? 4 : 200))
    push(used, bytes.copy(used, 0, at, to))
    at = to
  }
}

/** Writes down what a reader tells. */
class MessageLog<H extends RequestHead | ResponseHead> implements MessageHandler<H> {
  readonly messages: ReadMessage[] = []
  fault: Http1Fault | undefined
  head: H | undefined
  onOver: () => void = () => {}
  readonly #startOf: (head: H) => string

  constructor(startOf: (head: H) => string) {
    this.#startOf = startOf
  }

  onHead(head: H): void {
    this.head = head
    const interim = 'status' in head && head.status < 200
    const start = this.#startOf(head)
    this.messages.push({ start, version: head.version, fields: head.fields, body: '', trailers: '', complete: interim })
  }

  onData(chunk: Buffer): void {
    const message = this.messages.at(-1)
    if (message !== undefined) message.body += chunk.toString('latin1')
  }

  onTrailers(text: Buffer): void {
    const message = this.messages.at(-1)
    const fields = text
      .toString('latin1')
      .split('\r\n')
      .filter(line => line !== '')
      .map(line => line.replace(/:[ \t]*/, '\n').replace(/[ \t]*$/, ''))
    if (message !== undefined) message.trailers = fields.join('\n')
  }

  onEnd(): void {
    const message = this.messages.at(-1)
    if (message !== undefined) message.complete = true
    this.onOver()
  }

  onError(fault: Http1Fault): void {
    this.fault = fault
  }
}

/** What Node's parser makes of the same bytes, pushed at once, in its strict mode. */
export function readByNode(bytes: Buffer, type: number, requestMethod: string): ReadMessage[] {
  const messages: ReadMessage[] = []
  const parser = new HTTPParser()
  parser.initialize(type, {}, HEAD_BYTES_MAX, 0)
  let pending: string[] = []
  let pendingUrl = ''
  let inBody = false
  // More than a few fields come in portions, before the head is complete; trailers come the same way after it.
  parser[HTTPParser.kOnHeaders] = (fields: string[], url: string) => {
    const message = messages.at(-1)
    if (inBody && message !== undefined) message.trailers += (message.trailers === '' ? '' : '\n') + fields.join('\n')
    else {
      pending = pending.concat(fields)
      pendingUrl += url
    }
  }
  parser[HTTPParser.kOnHeadersComplete] = (
    major: number,
    minor: number,
    fields: string[] | undefined,
    method: number | undefined,
    url: string | undefined,
    status: number | undefined,
    _reason: string,
    upgrade: boolean,
  ) => {
    const start = type === HTTPParser.REQUEST ? `${methods[method ?? -1]} ${url ?? pendingUrl}` : `${status}`
    const all = fields ?? pending
    messages.push({ start, version: major * 10 + minor, fields: all, body: '', trailers: '', complete: false })
    pending = []
    pendingUrl = ''
    inBody = true
    // 1: no body (the answer to HEAD); 2: none and another protocol follows; 0: as the fields say.
    if (type === HTTPParser.RESPONSE && requestMethod === 'HEAD' && (status ?? 0) >= 200) return 1
    if (
      type === HTTPParser.REQUEST &&
      upgrade &&
      all.some((text, i) => i % 2 === 0 && text.toLowerCase() === 'upgrade')
    ) {
      const offered = all[all.findIndex((text, i) => i % 2 === 0 && text.toLowerCase() === 'upgrade') + 1] ?? ''
      return /(?:^|,)[ \t]*h2c?[ \t]*(?:,|$)/i.test(offered) ? 0 : 2
    }
    return 0
  }
  parser[HTTPParser.kOnBody] = (chunk: Buffer) => {
    const message = messages.at(-1)
    if (message !== undefined) message.body += chunk.toString('latin1')
  }
  parser[HTTPParser.kOnMessageComplete] = () => {
    const message = messages.at(-1)
    if (message !== undefined) message.complete = true
    inBody = false
  }
  const result = parser.execute(bytes)
  if (!(result instanceof Error) && type === HTTPParser.RESPONSE) parser.finish()
  return messages
}

/** Shape: undefined when everything ours read is what Node's read, as far as ours came. */
function difference(bytes: Buffer, ours: readonly ReadMessage[], theirs: readonly ReadMessage[]): string | undefined {
  for (const [i, mine] of ours.entries()) {
    const its = theirs[i]
    const same =
      its !== undefined &&
      its.start === mine.start &&
      its.version === mine.version &&
      its.fields.length === mine.fields.length &&
      its.fields.every((text, j) => text === mine.fields[j]) &&
      (mine.complete
        ? its.complete && its.body === mine.body && its.trailers === mine.trailers
        : its.body.startsWith(mine.body))
    if (same) continue
    // llhttp knows registered methods only; ours passes any on, as RFC 9110 section 16.1 wants.
    const method = mine.start.split(' ')[0] ?? ''
    if (its === undefined && mine.start.includes(' ') && !methods.includes(method)) return undefined
    const raw = JSON.stringify(bytes.toString('latin1'))
    return `message ${i} of ${raw}\n  ours   ${JSON.stringify(mine)}\n  node's ${JSON.stringify(its)}`
  }
  return undefined
}

/** What we pass on must mean the same as what we got: to ourselves, to Node's parser, and passed on once more. */
function forwardedRequestProblem(head: RequestHead, text: Buffer): string | undefined {
  const again = decodeRequestHead(text)
  const shownText = JSON.stringify(text.toString('latin1'))
  if (again instanceof Http1Fault) return `forwarded head is refused (${again.reason}): ${shownText}`
  const sameFraming =
    again.method === head.method &&
    again.contentLength === head.contentLength &&
    again.chunked === head.chunked &&
    again.upgrade === head.upgrade &&
    again.host === head.host &&
    again.trailersWanted === head.trailersWanted
  if (!sameFraming) return `forwarded head means something else: ${shownText}`
  if (!forwardRequestHead(again, { add: '' }).equals(text))
    return `forwarding twice is not forwarding once: ${shownText}`
  if (!methods.includes(again.method)) return undefined
  const its = readByNode(text, HTTPParser.REQUEST, '')[0]
  if (its === undefined || its.start !== `${again.method} ${again.target}`)
    return `Node refuses the forwarded head ${shownText}`
  return undefined
}

function forwardedResponseProblem(head: ResponseHead, method: string): string | undefined {
  for (const version of [10, 11] as const) {
    const framing = chooseAnswerFraming(head, method, version, head.keepAlive)
    const text = forwardResponseHead(head, version, framing, { add: '' })
    const shownText = JSON.stringify(text.toString('latin1'))
    const again = decodeResponseHead(text)
    if (again instanceof Http1Fault) return `forwarded answer is refused (${again.reason}): ${shownText}`
    if (again.status !== head.status || again.reason !== head.reason) return `forwarded answer differs: ${shownText}`
    if (framing.body === 'length' && again.contentLength !== head.contentLength) return `length lost: ${shownText}`
    if (framing.body === 'chunked' && !again.chunked) return `chunked lost: ${shownText}`
    if (version === 10 && again.chunked) return `chunked to an HTTP/1.0 reader: ${shownText}`
    if (head.status >= 200 && again.keepAlive !== framing.keepAlive) return `keep-alive differs: ${shownText}`
    if (readByNode(text, HTTPParser.RESPONSE, method).length !== 1)
      return `Node refuses the forwarded answer ${shownText}`
  }
  return undefined
}
