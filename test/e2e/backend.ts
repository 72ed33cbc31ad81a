import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'

const CHUNK = Buffer.alloc(256 * 1024, 'flatmesh ')

/** A service's process, in this one: says who it is, and can make and take bodies of any size. */
export class Backend {
  readonly name: string
  /** Requests that were begun. */
  asked = 0
  /** Answers whose client went away before their end. */
  aborted = 0
  /** Of `/bytes` answers, handed to the connection. */
  sentBytes = 0
  readonly #server: Server

  constructor(name: string) {
    this.name = name
    this.#server = createServer((request, response) => {
      this.asked++
      response.setHeader('x-instance', this.name)
      response.once('close', () => {
        if (!response.writableFinished) this.aborted++
      })
      this.#answer(request, response).catch(() => response.destroy())
    })
  }

  /** Resolves with its `host:port`. */
  async start(): Promise<string> {
    this.#server.listen(0, '127.0.0.1')
    await once(this.#server, 'listening')
    return this.address
  }

  get address(): string {
    const { port } = this.#server.address() as AddressInfo
    return `127.0.0.1:${port}`
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections()
    if (this.#server.listening) await new Promise(resolve => this.#server.close(resolve))
  }

  *#chunks(bytes: number): Generator<Buffer> {
    for (let left = bytes; left > 0; left -= CHUNK.length) {
      const chunk = left < CHUNK.length ? CHUNK.subarray(0, left) : CHUNK
      this.sentBytes += chunk.length
      yield chunk
    }
  }

  /**
   * `/bytes/N` sends N bytes; `/sink` takes a body and tells its length and hash; `/slow/MS` answers after that time;
   * anything else says hello.
   */
  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const [, verb = '', number = ''] = /^\/(\w+)\/?(\d*)/.exec(request.url ?? '') ?? []
    if (verb === 'sink') {
      const hash = createHash('sha1')
      let bytes = 0
      for await (const chunk of request) {
        hash.update(chunk)
        bytes += chunk.length
      }
      response.end(`${JSON.stringify({ bytes, sha1: hash.digest('hex') })}\n`)
      return
    }
    request.resume()
    if (verb === 'bytes') {
      response.setHeader('content-length', number)
      await pipeline(Readable.from(this.#chunks(Number(number))), response)
      return
    }
    if (verb === 'slow') await new Promise(resolve => setTimeout(resolve, Number(number)))
    response.end(`hello from ${this.name}\n`)
  }
}
