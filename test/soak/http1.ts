import { once } from 'node:events'
import http from 'node:http'
import net from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import { resetSocket } from '../../proxy/splice.ts'
import { type Activity, same, type Turn } from './activity.ts'
import { Pattern, WrongAnswer } from './pattern.ts'
import { write } from './services.ts'

interface Ask {
  readonly method?: string
  readonly path: string
  readonly service?: string
  readonly headers?: http.OutgoingHttpHeaders
  /** Undefined: none. */
  readonly body?: Iterable<Buffer>
  readonly trailers?: Readonly<Record<string, string>>
}

/** Sends a request, and resolves with the head of its answer; the body may be under way still. */
async function ask(turn: Turn, { method = 'GET', path, service = 'web', headers, body, trailers }: Ask) {
  const { host, port, agent } = turn.ingress
  const asked = http.request({
    ...{ host, port, method, path, agent: turn.below(10) === 0 ? false : agent },
    headers: { host: `${service}.mesh`, 'x-call': turn.id, ...headers },
  })
  letGoOf(turn, asked)
  const answered = once(asked, 'response') as Promise<[http.IncomingMessage]>
  answered.catch(() => {})
  if (headers?.expect !== undefined) {
    asked.flushHeaders()
    await once(asked, 'continue')
  }
  const sent = send(asked, body ?? [], trailers)
  const [answer] = await answered
  if (answer.statusCode !== 200) throw new Error(`status ${answer.statusCode}: ${await readText(answer)}`)
  same('x-call', answer.headers['x-call'], turn.id)
  return { answer, sent }
}

async function send(asked: http.ClientRequest, body: Iterable<Buffer>, trailers: Ask['trailers']): Promise<void> {
  for (const chunk of body) await write(asked, chunk)
  if (trailers !== undefined) asked.addTrailers(trailers)
  asked.end()
}

function letGoOf(turn: Turn, asked: http.ClientRequest): void {
  const giveUp = (): void => {
    // It is over, and its connection may be another call's by now.
    if (asked.destroyed) return
    if (turn.isRude && asked.socket !== null) resetSocket(asked.socket)
    asked.destroy()
  }
  asked.on('error', () => {})
  if (turn.signal.aborted) giveUp()
  else turn.signal.addEventListener('abort', giveUp)
}

/** Reads an answer to its end, sometimes slowly; all of it must be the pattern. */
async function readPattern(turn: Turn, answer: http.IncomingMessage, pattern: Pattern, bytes: number): Promise<void> {
  const isSlow = turn.below(8) === 0
  for await (const chunk of answer) {
    pattern.check(chunk)
    if (isSlow && turn.below(4) === 0) await wait(turn.below(10), undefined, { signal: turn.signal })
  }
  if (!answer.complete) throw new Error('the answer broke off')
  same('bytes of the answer', pattern.at, bytes)
}

async function make(turn: Turn, bytes: number, service: string): Promise<void> {
  const offset = turn.below(1_000_000)
  const { answer } = await ask(turn, {
    path: `/make/${offset}/${bytes}${turn.below(2) === 0 ? '?chunked' : ''}`,
    service,
  })
  await readPattern(turn, answer, new Pattern(offset), bytes)
}

async function echo(turn: Turn, bytes: number, service: string, isChunked: boolean): Promise<void> {
  const offset = turn.below(1_000_000)
  const { answer, sent } = await ask(turn, {
    ...{ method: 'POST', path: '/echo', service, body: new Pattern(offset).pieces(bytes, turn.below) },
    headers: {
      ...(isChunked ? { 'transfer-encoding': 'chunked', trailer: 'x-sum' } : { 'content-length': bytes }),
      ...(turn.below(8) === 0 && { expect: '100-continue' }),
    },
    ...(isChunked && { trailers: { 'x-sum': turn.id } }),
  })
  await readPattern(turn, answer, new Pattern(offset), bytes)
  await sent
  if (isChunked) same('trailer x-sum', answer.trailers['x-sum'], turn.id)
}

async function upload(turn: Turn, bytes: number): Promise<void> {
  const offset = turn.below(1_000_000)
  const body = new Pattern(offset).pieces(bytes, turn.below)
  const headers = turn.below(2) === 0 ? { 'content-length': bytes } : { 'transfer-encoding': 'chunked' }
  const { answer } = await ask(turn, { method: 'PUT', path: `/sum/${offset}`, headers, body })
  same('bytes that arrived', await readText(answer), String(bytes))
}

async function readText(answer: http.IncomingMessage): Promise<string> {
  let text = ''
  for await (const chunk of answer) text += chunk
  if (!answer.complete) throw new Error('the answer broke off')
  return text
}

async function head(turn: Turn): Promise<void> {
  const bytes = turn.below(1_000_000)
  const { answer } = await ask(turn, { method: 'HEAD', path: `/make/0/${bytes}` })
  same('content-length', answer.headers['content-length'], String(bytes))
  same('body of an answer to HEAD', await readText(answer), '')
}

async function events(turn: Turn): Promise<void> {
  const count = 1 + turn.below(30)
  const { answer } = await ask(turn, { path: `/events/${count}` })
  const expected = Array.from({ length: count }, (_, i) => `id: ${i}\ndata: ${turn.id}\n\n`).join('')
  same('events', await readText(answer), expected)
}

async function unknown(turn: Turn): Promise<void> {
  const { host, port, agent } = turn.ingress
  const asked = http.request({ host, port, agent, headers: { host: 'nobody.mesh' } })
  letGoOf(turn, asked)
  asked.end()
  const [answer] = (await once(asked, 'response')) as [http.IncomingMessage]
  await readText(answer)
  same('status for an unknown service', answer.statusCode, 404)
}

/** Several requests at once on one connection; the answers come in their order. */
async function pipelined(turn: Turn): Promise<void> {
  const sizes = Array.from({ length: 2 + turn.below(7) }, () => turn.below(turn.below(5) === 0 ? 300_000 : 3_000))
  const pattern = turn.below(500_000)
  const socket = dial(turn, turn.ingress.port)
  try {
    const lines = sizes.map(
      (bytes, i) =>
        `GET /make/${pattern + i}/${bytes} HTTP/1.1\r\nHost: web.mesh\r\nX-Call: ${turn.id}-${i}\r\n` +
        `${i === sizes.length - 1 ? 'Connection: close\r\n' : ''}\r\n`,
    )
    socket.write(lines.join(''))
    let held: Buffer = Buffer.alloc(0)
    let answers = 0
    let body: { readonly pattern: Pattern; readonly bytes: number } | undefined
    for await (const chunk of socket) {
      held = Buffer.concat([held, chunk as Buffer])
      for (;;) {
        if (body === undefined) {
          const end = held.indexOf('\r\n\r\n')
          if (end === -1) break
          const text = held.toString('latin1', 0, end)
          held = held.subarray(end + 4)
          same('status line', text.slice(0, 12), 'HTTP/1.1 200')
          same('x-call', /x-call: (.*)/i.exec(text)?.[1], `${turn.id}-${answers}`)
          const bytes = Number(/content-length: (\d+)/i.exec(text)?.[1])
          same('content-length', bytes, sizes[answers])
          body = { pattern: new Pattern(pattern + answers), bytes }
        }
        const piece = held.subarray(0, body.bytes - body.pattern.at)
        body.pattern.check(piece)
        held = held.subarray(piece.length)
        if (body.pattern.at < body.bytes) break
        body = undefined
        answers++
      }
    }
    turn.signal.throwIfAborted()
    same('answers', answers, sizes.length)
    same('bytes after the last answer', held.length, 0)
  } finally {
    socket.destroy()
  }
}

function dial(turn: Turn, port: number): net.Socket {
  const socket = net.connect({ host: turn.ingress.host, port, allowHalfOpen: true })
  letGoOfSocket(turn, socket)
  return socket
}

function letGoOfSocket(turn: Turn, socket: net.Socket): void {
  socket.on('error', () => {})
  const giveUp = (): void => (turn.isRude ? resetSocket(socket) : void socket.destroy())
  if (turn.signal.aborted) giveUp()
  else turn.signal.addEventListener('abort', giveUp)
}

/** Sends the pattern, in pieces with pauses between them, and takes it back. */
async function exchangeRaw(turn: Turn, socket: net.Socket, first: Buffer): Promise<void> {
  const offset = turn.below(1_000_000)
  const bytes = turn.below(turn.below(10) === 0 ? 2_000_000 : 20_000)
  const echoed = new Pattern(offset)
  echoed.check(first)
  const sending = (async () => {
    for (const piece of new Pattern(offset).pieces(bytes, turn.below)) {
      await write(socket, piece)
      if (turn.below(8) === 0) await wait(turn.below(5), undefined, { signal: turn.signal })
    }
    socket.end()
  })()
  sending.catch(() => {})
  for await (const chunk of socket) echoed.check(chunk as Buffer)
  turn.signal.throwIfAborted()
  same('bytes that came back', echoed.at, bytes)
  await sending
}

/** A protocol of its own behind an upgrade, as WebSocket is. */
async function upgrade(turn: Turn): Promise<void> {
  const { host, port } = turn.ingress
  const asked = http.request({
    ...{ host, port, agent: false },
    headers: { host: 'web.mesh', 'x-call': turn.id, connection: 'Upgrade', upgrade: 'websocket' },
  })
  letGoOf(turn, asked)
  asked.on('response', answer => asked.destroy(new Error(`expected another protocol, found ${answer.statusCode}`)))
  asked.end()
  const [answer, socket, first] = (await once(asked, 'upgrade')) as [http.IncomingMessage, net.Socket, Buffer]
  letGoOfSocket(turn, socket)
  try {
    same('x-call', answer.headers['x-call'], turn.id)
    await exchangeRaw(turn, socket, first)
  } finally {
    socket.destroy()
  }
}

async function tcp(turn: Turn): Promise<void> {
  const port = turn.ingress.tcp.get('raw')
  if (port === undefined) throw new WrongAnswer('no listener for plain TCP')
  const socket = dial(turn, port)
  try {
    await exchangeRaw(turn, socket, Buffer.alloc(0))
  } finally {
    socket.destroy()
  }
}

const anyWeb = (turn: Turn): string => (turn.below(4) === 0 ? 'web2' : 'web')
const MB = 1024 * 1024

export const HTTP1_ACTIVITIES: readonly Activity[] = [
  { name: 'get', weight: 30, run: turn => make(turn, turn.below(3_000), anyWeb(turn)) },
  { name: 'get-big', weight: 2, run: turn => make(turn, turn.below(8 * MB), anyWeb(turn)) },
  { name: 'post', weight: 15, run: turn => echo(turn, turn.below(100_000), anyWeb(turn), false) },
  { name: 'chunked', weight: 8, run: turn => echo(turn, turn.below(100_000), anyWeb(turn), true) },
  { name: 'put-big', weight: 2, run: turn => upload(turn, turn.below(8 * MB)) },
  { name: 'head', weight: 4, run: head },
  { name: 'pipelined', weight: 5, run: pipelined },
  { name: 'slow', weight: 5, run: async turn => void (await readSlow(turn)) },
  { name: 'events', weight: 4, run: events },
  { name: 'unknown', weight: 2, run: unknown },
  { name: 'upgrade', weight: 5, run: upgrade },
]

export const TCP_ACTIVITY: Activity = { name: 'tcp', weight: 8, run: tcp }

async function readSlow(turn: Turn): Promise<void> {
  const { answer } = await ask(turn, { path: `/slow/${turn.below(400)}` })
  same('body', await readText(answer), 'awake')
}
