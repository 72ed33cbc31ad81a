import { once } from 'node:events'
import http2 from 'node:http2'
import net from 'node:net'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { Call } from './call.ts'
import { createLocalCall } from './local-call.ts'
import { rethrow } from './rethrow-fixture.ts'
import { TestPlaces, waitUntil } from './test-places.ts'

let mesh: TestPlaces
beforeEach(() => {
  mesh = new TestPlaces()
})
afterEach(() => mesh.stop())

const HEAD = Buffer.from('POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\n')
const CHUNK = Buffer.alloc(16 * 1024)

/** A call at place `a` whose caller has said all at once, and reads. */
class Caller {
  readonly told: string[] = []
  isHeld = false
  private resumes = 0

  constructor(chunks: number) {
    const [mine, theirs] = createLocalCall(rethrow)
    this.watch(theirs)
    const tell = (what: string) => (): void => void this.told.push(what)
    mine.handler = {
      ...{ onHead: tell('head'), onData() {}, onTrailers() {}, onDrain() {} },
      ...{ onEnd: tell('end'), onReset: tell('reset') },
    }
    mesh.places.get('a')?.egress.accept(theirs, { service: 'orders', kind: 'http', timeoutMs: 0, head: HEAD })
    for (let i = 0; i < chunks; i++) mine.write(CHUNK)
    mine.end()
  }

  /** The egress waits for the instance, and nothing has moved since the look before. */
  async held(): Promise<void> {
    let before = -1
    await waitUntil('the instance takes no more', () => {
      const isStill = this.isHeld && this.resumes === before
      before = this.resumes
      return isStill
    })
  }

  private watch(call: Call): void {
    const pause = call.pause.bind(call)
    const resume = call.resume.bind(call)
    call.pause = () => {
      this.isHeld = true
      pause()
    }
    call.resume = () => {
      this.resumes++
      this.isHeld = false
      resume()
    }
  }
}

const nothingIsLeft = (): Promise<void> =>
  waitUntil('nothing is under way any more', () => {
    const place = mesh.places.get('a')
    return place?.egress.inFlight === 0 && place.instances.choose('orders')?.inFlight === 0
  })

describe('a request whose answer is over while the instance takes no more of it is over when its caller has said all', () => {
  test('over HTTP/1', async () => {
    let instance: net.Socket | undefined
    const server = net.createServer(socket => {
      socket.pause()
      instance = socket
    })
    mesh.place('a', { orders: [await mesh.listen(server)] })
    // More than the kernel's buffers of a connection hold.
    const caller = new Caller(2048)
    await waitUntil('the instance has a connection', () => instance !== undefined)
    await caller.held()
    instance?.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
    await nothingIsLeft()
    expect(caller.told).toEqual(['head', 'end'])
  })

  test.each(['resets the stream', 'leaves the stream as it is'])('over HTTP/2, and it %s', async how => {
    let stream: http2.ServerHttp2Stream | undefined
    const server = http2.createServer()
    server.on('stream', one => {
      one.on('error', () => {})
      stream = one
    })
    mesh.place('a', { orders: [await mesh.listen(server)] }, 'h2')
    // More than the window of the stream and what waits for it.
    const caller = new Caller(20)
    await waitUntil('the instance has the call', () => stream !== undefined)
    await caller.held()
    // Node resets a stream that nobody has begun to read.
    if (how !== 'resets the stream') stream?.on('readable', () => {})
    stream?.respond({ ':status': 200 })
    stream?.end('ok')
    await nothingIsLeft()
    expect(caller.told).toEqual(['head', 'end'])
  })
})

describe('a tunnel that its instance has ended for its part', () => {
  test('still carries what the client says, and its end', async () => {
    let heard = 0
    let hasEnded = false
    const server = net.createServer({ allowHalfOpen: true }, socket => {
      socket.once('data', () => {
        socket.end('HTTP/1.1 101 Switching Protocols\r\nUpgrade: own\r\nConnection: upgrade\r\n\r\n')
        socket.on('data', chunk => {
          heard += chunk.length
        })
        socket.on('end', () => {
          hasEnded = true
        })
      })
    })
    await mesh.place('a', { orders: [await mesh.listen(server)] }).start()
    const client = net.connect({ port: mesh.port, host: '127.0.0.1', allowHalfOpen: true })
    mesh.onStop(() => client.destroy())
    client.write('GET / HTTP/1.1\r\nHost: orders\r\nUpgrade: own\r\nConnection: upgrade\r\n\r\n')
    client.resume()
    await once(client, 'end')
    const bytes = 4 * 1024 * 1024
    client.end(Buffer.alloc(bytes))
    await waitUntil('the instance has heard the end', () => hasEnded)
    expect(heard).toBe(bytes)
    await waitUntil('nothing is left', () => mesh.ingress.inFlight + (mesh.places.get('a')?.egress.inFlight ?? 0) === 0)
  })
})
