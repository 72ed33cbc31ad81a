import { type ChildProcess, spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import http from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import { createMesh, type MeshProcesses, waitUntil } from './daemon-process.ts'
import { HttpClient, printFigure } from './http-client.ts'
import { MemoryWatch } from './memory-watch.ts'

const CLIENT = fileURLToPath(new URL('./leaving-client.ts', import.meta.url))
const MESSAGE_BYTES = 16 * 1024 * 1024
/** What a reader that stopped may add to a daemon: its windows, socket buffers, and V8's own rhythm. */
const STOPPED_RSS_BYTES_MAX = 60e6

/** A service of WebSockets (echo), event streams and long polls, in this process. */
class StreamService {
  readonly sockets = new WebSocketServer({ noServer: true, perMessageDeflate: { threshold: 0 }, maxPayload: 2 ** 28 })
  readonly server = http.createServer((request, response) => this.#answer(request, response))
  /** Event streams and long polls that are open. */
  readonly streams: http.ServerResponse[] = []
  /** How many exchanges of whatever kind were begun, and how many of them are over. */
  begun = 0
  over = 0

  get address(): string {
    return `127.0.0.1:${(this.server.address() as AddressInfo).port}`
  }

  constructor() {
    this.server.on('upgrade', (request, socket: Socket, head) => {
      this.sockets.handleUpgrade(request, socket, head, ws => this.#accept(ws, request.url ?? ''))
    })
  }

  async start(): Promise<string> {
    this.server.listen(0, '127.0.0.1')
    await once(this.server, 'listening')
    return this.address
  }

  async stop(): Promise<void> {
    for (const ws of this.sockets.clients) ws.terminate()
    this.server.closeAllConnections()
    if (this.server.listening) await new Promise(resolve => this.server.close(resolve))
  }

  #accept(ws: WebSocket, url: string): void {
    this.begun++
    ws.on('error', () => {})
    ws.on('close', () => this.over++)
    ws.on('message', (data, isBinary) => {
      const text = isBinary ? '' : String(data)
      if (text.startsWith('close ')) ws.close(Number(text.slice(6)), 'as asked')
      else if (text === 'vanish') ws.terminate()
      else if (text === 'ping me') ws.ping('from the service')
      else if (url !== '/mute') ws.send(data, { binary: isBinary })
    })
    ws.on('pong', data => ws.send(`pong ${data}`))
  }

  #answer(request: http.IncomingMessage, response: http.ServerResponse): void {
    this.begun++
    response.on('close', () => this.over++)
    this.streams.push(response)
    if (request.url !== '/events') return
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
    response.write(': welcome\n\n')
  }
}

describe('streams between two regions', () => {
  const service = new StreamService()
  const children: ChildProcess[] = []
  let mesh: MeshProcesses
  let at: string

  beforeAll(async () => {
    const address = await service.start()
    mesh = await createMesh({
      nodes: [
        { name: 'a', region: 'region-a' },
        { name: 'b', region: 'region-b' },
      ],
    })
    mesh.node('b').writeServices([{ name: 'chat', instances: [{ address }] }])
    await mesh.converged()
    at = mesh.node('a').listen.http
    await waitUntil('calls reach the service', () =>
      open().then(
        ws => {
          ws.terminate()
          return true
        },
        () => undefined,
      ),
    )
  })

  afterAll(async () => {
    for (const child of children) child.kill('SIGKILL')
    await mesh?.stop()
    await service.stop()
  })

  async function open(options: { path?: string; perMessageDeflate?: boolean } = {}): Promise<WebSocket> {
    const { path = '/', perMessageDeflate = false } = options
    const ws = new WebSocket(`ws://${at}${path}`, { headers: { host: 'chat.mesh' }, perMessageDeflate })
    await once(ws, 'open')
    return ws
  }

  async function echo(ws: WebSocket, message: string | Buffer): Promise<Buffer> {
    const heard = once(ws, 'message')
    ws.send(message)
    return (await heard)[0] as Buffer
  }

  /** Until everything that was begun at the service is over. */
  const quiet = (): Promise<true> => waitUntil('all is over', () => (service.over === service.begun ? true : undefined))

  describe('WebSockets', () => {
    it('carry text, bytes, pings and pongs both ways', async () => {
      const ws = await open()
      expect((await echo(ws, 'grüße')).toString()).toBe('grüße')
      expect(await echo(ws, Buffer.from([0, 255, 13, 10]))).toEqual(Buffer.from([0, 255, 13, 10]))
      const pong = once(ws, 'pong')
      ws.ping('from the client')
      expect(String((await pong)[0])).toBe('from the client')
      expect((await echo(ws, 'ping me')).toString()).toBe('pong from the service')
      ws.close()
      await quiet()
    })

    it('end with the code and the reason of whoever ends them', async () => {
      const mine = await open()
      const [there] = [...service.sockets.clients]
      if (there === undefined) throw new Error('the service has no socket')
      const heardThere = once(there, 'close')
      mine.close(4001, 'bye')
      const [code, reason] = await heardThere
      expect([code, String(reason)]).toEqual([4001, 'bye'])
      const theirs = await open()
      const heardHere = once(theirs, 'close')
      theirs.send('close 4002')
      const [hereCode, hereReason] = await heardHere
      expect([hereCode, String(hereReason)]).toEqual([4002, 'as asked'])
      await quiet()
    })

    it('carry messages of 16 MB both ways, compressed or not', async () => {
      const message = Buffer.concat([randomBytes(MESSAGE_BYTES / 2), Buffer.alloc(MESSAGE_BYTES / 2)])
      for (const perMessageDeflate of [false, true]) {
        const ws = await open({ perMessageDeflate })
        expect(ws.extensions).toBe(perMessageDeflate ? 'permessage-deflate' : '')
        const heard = await echo(ws, message)
        expect([heard.length, sha1(heard)]).toEqual([message.length, sha1(message)])
        ws.close()
      }
      await quiet()
    })

    it('are many at once, and none gets what is another one’s', async () => {
      const sockets = await Promise.all(Array.from({ length: 300 }, () => open()))
      await Promise.all(
        sockets.map(async (ws, i) => {
          for (let round = 0; round < 10; round++) {
            const message = `${i} ${round} ${'x'.repeat(i)}`
            expect((await echo(ws, message)).toString()).toBe(message)
          }
        }),
      )
      for (const ws of sockets) ws.close()
      await quiet()
    })

    it('are probed on both sides while nothing moves, or a machine that is gone would be waited for for ever', async () => {
      const ws = await open()
      const port = (address: string): number => Number(address.split(':').at(-1))
      await waitUntil('both ends have a keep-alive timer', () => {
        const probed = probedConnections()
        const client = probed.some(({ local }) => local === port(at))
        return client && probed.some(({ remote }) => remote === port(service.address)) ? true : undefined
      })
      ws.close()
      await quiet()
    })

    it('end at the client when the service vanishes', async () => {
      const ws = await open()
      const closed = once(ws, 'close')
      ws.send('vanish')
      expect((await closed)[0]).toBe(1006)
      await quiet()
    })

    it('stop a sender whose reader has stopped, in constant memory', async () => {
      const ws = await open({ path: '/mute' })
      const [there] = [...service.sockets.clients]
      if (there === undefined) throw new Error('the service has no socket')
      const memory = new MemoryWatch(mesh)
      const chunk = randomBytes(1024 * 1024)
      ws.pause()
      for (let i = 0; i < 64; i++) there.send(chunk)
      let seen = -1
      let sameLooks = 0
      await waitUntil('the service can send no more', () => {
        sameLooks = there.bufferedAmount === seen ? sameLooks + 1 : 0
        seen = there.bufferedAmount
        return sameLooks >= 25 ? true : undefined
      })
      memory.stop()
      expect(seen).toBeGreaterThan(40 * chunk.length)
      for (const [node, grownBytes] of memory.grownBytes()) {
        printFigure(`streams.stoppedWebSocket.rssGrown.${node}`, grownBytes / 1e6, 'MB')
        expect(grownBytes).toBeLessThan(STOPPED_RSS_BYTES_MAX)
      }
      let bytes = 0
      ws.on('message', (data: Buffer) => {
        bytes += data.length
      })
      ws.resume()
      await waitUntil('all has come', () => (bytes === 64 * chunk.length ? true : undefined))
      ws.close()
      await quiet()
    })
  })

  describe('event streams and long polls', () => {
    it('bring every event before the next one is sent', async () => {
      const client = new HttpClient(at)
      const stream = await client.open('chat', { path: '/events' })
      expect(stream.headers['content-type']).toBe('text/event-stream')
      let text = ''
      stream.setEncoding('utf8').on('data', chunk => {
        text += chunk
      })
      const writer = service.streams.at(-1)
      for (let i = 0; i < 50; i++) {
        const event = `id: ${i}\ndata: ${'x'.repeat(i * 100)}\n\n`
        writer?.write(event)
        await waitUntil(`event ${i} has come`, () => (text.endsWith(event) ? true : undefined))
      }
      writer?.end()
      await once(stream, 'end')
      client.close()
    })

    it('are answered when the service has something to say', async () => {
      const client = new HttpClient(at)
      const begun = service.begun
      const polls = Array.from({ length: 20 }, () => client.call('chat', { path: '/poll' }))
      await waitUntil('all polls are there', () => (service.begun === begun + 20 ? true : undefined))
      for (const stream of service.streams.slice(-20)) stream.end('news')
      for (const poll of polls) expect((await poll).body.toString()).toBe('news')
      client.close()
      await quiet()
    })
  })

  it.each([
    'http',
    'h2',
    'sse',
    'ws',
  ])('a client (%s) whose process is killed has its call ended at the instance', async kind => {
    const { begun } = service
    await quiet()
    const child = spawn(process.execPath, [CLIENT, kind, at, 'chat'], { stdio: ['ignore', 'pipe', 'inherit'] })
    children.push(child)
    await once(child.stdout, 'data')
    await waitUntil('the service has the call', () => (service.begun === begun + 1 ? true : undefined))
    const killedAtMs = performance.now()
    child.kill('SIGKILL')
    await quiet()
    printFigure(`streams.killedClient.${kind}`, performance.now() - killedAtMs, 'ms')
    const nodes = [mesh.node('a'), mesh.node('b')]
    await waitUntil('nothing is in flight', async () => {
      const states = await Promise.all(nodes.map(node => node.status()))
      return states.every(({ calls }) => calls.inFlight === 0) ? true : undefined
    })
  })
})

/** Established connections over IPv4 on this machine whose system sends keep-alive probes when they are quiet. */
function probedConnections(): { local: number; remote: number }[] {
  const rows = readFileSync('/proc/net/tcp', 'utf8').split('\n').slice(1)
  return rows.flatMap(row => {
    // proc(5): the second part of the sixth column counts down; the first says what for, 2 is keep-alive.
    const [, local = '', remote = '', state, , timer = ''] = row.trim().split(/\s+/)
    const port = (text: string): number => Number.parseInt(text.slice(-4), 16)
    return state === '01' && timer.startsWith('02:') ? [{ local: port(local), remote: port(remote) }] : []
  })
}

function sha1(bytes: Buffer): string {
  return createHash('sha1').update(bytes).digest('hex')
}
