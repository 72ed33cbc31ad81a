import { once } from 'node:events'
import http from 'node:http'
import http2 from 'node:http2'
import net, { type AddressInfo } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import grpc from '@grpc/grpc-js'
import { startEcho } from '../../proxy/test-grpc.ts'
import { Pattern, WrongAnswer } from './pattern.ts'

type Asked = http.IncomingMessage | http2.Http2ServerRequest
type Answer = http.ServerResponse | http2.Http2ServerResponse

/** Services of one region. They run in the process of the soak: what they may do wrong themselves is seen as a failed call. */
export class Services {
  readonly #http = http.createServer((asked, answer) => this.#answer(asked, answer))
  readonly #h2 = http2.createServer((asked, answer) => this.#answer(asked, answer))
  readonly #raw = net.createServer({ allowHalfOpen: true }, socket => {
    socket.on('error', () => {})
    socket.pipe(socket)
  })
  #grpc: grpc.Server | undefined
  #grpcAddress = ''
  /** Requests that have begun and not ended. */
  inFlight = 0
  /** Bytes that came otherwise than they were sent. */
  readonly problems: string[] = []

  async start(): Promise<void> {
    this.#http.on('upgrade', (asked: http.IncomingMessage, socket: net.Socket, head: Buffer) => {
      socket.on('error', () => {})
      const fields = `Upgrade: ${asked.headers.upgrade}\r\nConnection: Upgrade\r\nX-Call: ${asked.headers['x-call']}`
      socket.write(`HTTP/1.1 101 Switching Protocols\r\n${fields}\r\n\r\n`)
      socket.write(head)
      socket.pipe(socket)
    })
    // The connections of calls that were given up.
    this.#http.on('clientError', (_error, socket) => socket.destroy())
    this.#h2.on('sessionError', () => {})
    for (const server of [this.#http, this.#h2, this.#raw]) {
      server.listen(0, '127.0.0.1')
      await once(server, 'listening')
    }
    const echo = await startEcho({
      Unary: (call, answer) => answer(null, call.request, ownOf(call)),
      Upload(call, answer) {
        let bytes = 0
        call.on('data', (message: Buffer) => {
          bytes += message.length
        })
        call.on('error', () => {})
        call.on('end', () => answer(null, Buffer.from(String(bytes)), ownOf(call)))
      },
      Download(call) {
        // The request: offset, messages, bytes of each.
        const [offset = 0, messages = 0, bytes = 0] = call.request.toString().split(' ').map(Number)
        const pattern = new Pattern(offset)
        call.on('error', () => {})
        for (let i = 0; i < messages; i++) call.write(Buffer.from(pattern.take(bytes)))
        call.end(ownOf(call))
      },
      Chat(call) {
        call.on('data', (message: Buffer) => call.write(message))
        call.on('error', () => {})
        call.on('end', () => call.end())
      },
    })
    this.#grpc = echo.server
    this.#grpcAddress = echo.address
  }

  /** As lines of services.yaml. */
  offer(): unknown[] {
    const at = (server: net.Server): string => `127.0.0.1:${(server.address() as AddressInfo).port}`
    return [
      { name: 'web', instances: [{ address: at(this.#http) }] },
      { name: 'web2', protocol: 'h2', instances: [{ address: at(this.#h2 as unknown as net.Server) }] },
      { name: 'raw', protocol: 'tcp', instances: [{ address: at(this.#raw) }] },
      { name: 'echo', instances: [{ address: this.#grpcAddress }] },
    ]
  }

  stop(): void {
    this.#http.closeAllConnections()
    for (const server of [this.#http, this.#h2, this.#raw]) server.close()
    this.#grpc?.forceShutdown()
  }

  #answer(asked: Asked, answer: Answer): void {
    this.inFlight++
    asked.on('error', () => {})
    answer.on('error', () => {})
    answer.once('close', () => {
      this.inFlight--
    })
    this.#respond(asked, answer as http.ServerResponse).catch((error: unknown) => {
      // Everything else is a caller that went away.
      if (error instanceof WrongAnswer) this.problems.push(error.message)
      answer.destroy()
    })
  }

  /**
   * `/make/OFFSET/BYTES` the pattern, with its length or (`?chunked`) without; `/echo` what was sent, trailers too;
   * `/sum/OFFSET` checks what was sent; `/slow/MS` waits; `/events/N` that many events.
   */
  async #respond(asked: Asked, answer: http.ServerResponse): Promise<void> {
    const [, verb = '', one = '0', two = '0'] = /^\/(\w+)\/?(\d*)\/?(\d*)/.exec(asked.url ?? '') ?? []
    answer.setHeader('x-call', String(asked.headers['x-call']))
    if (verb === 'echo') return this.#echo(asked, answer)
    if (verb === 'sum') {
      const pattern = new Pattern(Number(one))
      for await (const chunk of asked) pattern.check(chunk)
      answer.end(String(pattern.at))
      return
    }
    asked.resume()
    if (verb === 'make') {
      const pattern = new Pattern(Number(one))
      if (asked.url?.endsWith('?chunked') !== true) answer.setHeader('content-length', two)
      if (asked.method === 'HEAD') return void answer.end()
      for (let left = Number(two); left > 0 && !answer.destroyed; ) {
        const bytes = Math.min(left, 64 * 1024)
        left -= bytes
        await write(answer, pattern.take(bytes))
      }
      answer.end()
    } else if (verb === 'events') {
      answer.setHeader('content-type', 'text/event-stream')
      for (let i = 0; i < Number(one) && !answer.destroyed; i++) {
        await write(answer, `id: ${i}\ndata: ${asked.headers['x-call']}\n\n`)
        await wait(5)
      }
      answer.end()
    } else {
      await wait(Number(one))
      answer.end('awake')
    }
  }

  async #echo(asked: Asked, answer: http.ServerResponse): Promise<void> {
    const length = asked.headers['content-length']
    if (length !== undefined) answer.setHeader('content-length', length)
    else {
      answer.setHeader('trailer', 'x-sum')
      // Node's HTTP/2 ends an answer without a body with its head, and forgets the trailers, unless the head is on its way.
      answer.flushHeaders()
    }
    for await (const chunk of asked) await write(answer, chunk)
    if (length === undefined) answer.addTrailers({ 'x-sum': asked.trailers['x-sum'] ?? 'none' })
    answer.end()
  }
}

/** As trailers: what the caller set itself. */
function ownOf(call: { readonly metadata: grpc.Metadata }): grpc.Metadata {
  const own = new grpc.Metadata()
  for (const value of call.metadata.get('x-call')) own.set('x-call', value)
  return own
}

/** Resolves when there is room for more. */
export async function write(
  stream: NodeJS.WritableStream & { destroyed?: boolean },
  chunk: Buffer | string,
): Promise<void> {
  if (stream.destroyed === true || stream.write(chunk)) return
  await new Promise<void>(resolve => {
    const done = (): void => {
      stream.removeListener('drain', done)
      stream.removeListener('close', done)
      resolve()
    }
    stream.on('drain', done)
    stream.on('close', done)
  })
}
