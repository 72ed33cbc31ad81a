import { spawn } from 'node:child_process'
import { once } from 'node:events'
import net from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { silentLog } from '../router/log.ts'
import type { Call } from './call.ts'
import { deadAddress, TestPlaces, waitUntil } from './test-places.ts'

const TEN_MB = 10_000_000

let mesh = new TestPlaces()
afterEach(async () => {
  await mesh.stop()
  mesh = new TestPlaces()
})

/** Keeps what happens at one end of a connection. */
class End {
  readonly socket: net.Socket
  text = ''
  bytes = 0
  ended = false
  closed = false
  error = ''

  constructor(socket: net.Socket) {
    this.socket = socket
    socket.on('data', chunk => {
      this.bytes += chunk.length
      if (this.bytes < 10_000) this.text += chunk.toString('latin1')
    })
    socket.on('end', () => {
      this.ended = true
    })
    socket.on('error', (error: NodeJS.ErrnoException) => {
      this.error = error.code ?? error.message
    })
    socket.on('close', () => {
      this.closed = true
    })
  }
}

/** An instance that only keeps its connections. */
async function serve(): Promise<{ address: string; ends: End[] }> {
  const ends: End[] = []
  const server = net.createServer({ allowHalfOpen: true }, socket => void ends.push(new End(socket)))
  return { address: await mesh.listen(server), ends }
}

function dial(port: number): End {
  const socket = net.connect({ host: '127.0.0.1', port, allowHalfOpen: true })
  mesh.onStop(() => socket.destroy())
  return new End(socket)
}

/** A client and the instance's end of its connection. */
async function tied(options: Parameters<TestPlaces['startTcp']>[1] = {}) {
  const { address, ends } = await serve()
  mesh.place('b', { db: [address] })
  const started = await mesh.startTcp('db', options)
  const client = dial(started.port)
  await waitUntil('the instance has the connection', () => ends.length === 1)
  const [instance] = ends
  if (instance === undefined) throw new Error('expected a connection')
  return { ...started, client, instance, place: mesh.places.get('b') }
}

describe('a TCP listener', () => {
  it('reports each connection once it is over: whole, left by the client, or cut', async () => {
    const { client, instance, port } = await tied()
    client.socket.write('hello')
    client.socket.end()
    await waitUntil('the instance has it all', () => instance.ended)
    instance.socket.end('goodbye')
    await waitUntil('the first is over', () => mesh.reports.length === 1)
    expect(mesh.reports[0]).toMatchObject({
      ...{ kind: 'tcp', service: 'db', outcome: 'ok', reason: '', bytesIn: 5, bytesOut: 7, client: '127.0.0.1' },
      egress: { name: 'b' },
    })
    const second = dial(port)
    second.socket.write('x')
    await waitUntil('the second is through', () => mesh.opened.length === 2)
    second.socket.resetAndDestroy()
    await waitUntil('the second is over', () => mesh.reports.length === 2)
    expect(mesh.reports[1]).toMatchObject({ outcome: 'client-gone' })
    for (const { instances } of mesh.places.values()) instances.replace([])
    dial(port)
    await waitUntil('the third is over', () => mesh.reports.length === 3)
    expect(mesh.reports[2]).toMatchObject({ outcome: 'unknown-service', egress: undefined, bytesOut: 0 })
  })

  it('passes bytes both ways, whoever speaks first', async () => {
    const { client, instance } = await tied()
    instance.socket.write('hello, client')
    await waitUntil('the client has the greeting', () => client.text === 'hello, client')
    client.socket.write('hello, instance')
    await waitUntil('the instance has the answer', () => instance.text === 'hello, instance')
  })

  it('sends what the client says at once, not after a round trip', async () => {
    const { address } = await serve()
    mesh.place('b', { db: [address] })
    let heard = ''
    mesh.onOpen = (_place, call) => {
      call.handler = { ...silent(), onData: chunk => (heard += chunk) }
      return true
    }
    const { port } = await mesh.startTcp('db')
    const client = dial(port)
    client.socket.write('early')
    await waitUntil('it came before the other end said that an instance was there', () => heard === 'early')
  })

  it('passes the end of one side on as the end of that side alone, both ways', async () => {
    const first = await tied()
    first.client.socket.end('question')
    await waitUntil('the instance has heard the end', () => first.instance.ended)
    expect(first.instance.text).toBe('question')
    first.instance.socket.write('late ')
    await waitUntil('the answer goes on', () => first.client.text === 'late ')
    first.instance.socket.end('answer')
    await waitUntil('both are closed', () => first.client.closed && first.instance.closed)
    expect([first.client.text, first.client.error, first.instance.error]).toEqual(['late answer', '', ''])
    await waitUntil('nothing is left', () => first.listener.inFlight === 0 && first.place?.tcp.inFlight === 0)
    expect(first.counters).toEqual({ total: 1, failed: 0, retries: 0 })
  })

  it('goes on upwards when the instance has ended its side first', async () => {
    const { client, instance } = await tied()
    instance.socket.end('bye')
    await waitUntil('the client has heard the end', () => client.ended)
    client.socket.write('still')
    await waitUntil('the instance still hears', () => instance.text === 'still')
    client.socket.end()
    await waitUntil('both are closed', () => client.closed && instance.closed)
    expect([client.text, client.error, instance.error]).toEqual(['bye', '', ''])
  })

  it('passes a reset by the client on to the instance', async () => {
    const { client, instance, listener, place } = await tied()
    client.socket.resetAndDestroy()
    await waitUntil('the instance hears of it', () => instance.closed)
    expect(instance.error).toBe('ECONNRESET')
    await waitUntil('nothing is left', () => listener.inFlight === 0 && place?.tcp.inFlight === 0)
  })

  it('passes a reset by the instance on to the client, after what the instance said before', async () => {
    const { client, instance, counters } = await tied()
    instance.socket.write('last words')
    instance.socket.resetAndDestroy()
    await waitUntil('the client hears of it', () => client.closed)
    expect([client.text, client.error]).toEqual(['last words', 'ECONNRESET'])
    expect(counters.failed).toBe(1)
  })

  it('notices a reset by a client it does not read from, because the instance takes nothing', async () => {
    const { client, instance } = await tied()
    instance.socket.pause()
    const chunk = Buffer.alloc(100_000)
    while (client.socket.write(chunk) || client.socket.writableLength < TEN_MB) if (client.socket.destroyed) break
    await waitUntil(
      'no more gets through',
      stands(() => client.socket.writableLength),
    )
    client.socket.resetAndDestroy()
    await waitUntil('nothing is left of it at the ingress', () => mesh.places.get('b')?.tcp.inFlight === 0)
  })

  it('notices a reset by an instance it does not read from, because the client takes nothing', async () => {
    const { client, instance, listener, place } = await tied()
    client.socket.pause()
    const chunk = Buffer.alloc(100_000)
    for (let i = 0; i < 100; i++) instance.socket.write(chunk)
    await waitUntil(
      'no more gets through',
      stands(() => instance.socket.writableLength),
    )
    instance.socket.resetAndDestroy()
    await waitUntil('nothing is left of it', () => listener.inFlight === 0 && place?.tcp.inFlight === 0)
  })

  it('notices that a client is gone which had ended its side', async () => {
    const { client, instance, place } = await tied()
    client.socket.end()
    await waitUntil('the instance has heard the end', () => instance.ended)
    client.socket.resetAndDestroy()
    await waitUntil('the instance hears of the reset too', () => place?.tcp.inFlight === 0)
  })

  it('moves ten megabytes each way at once, unharmed', async () => {
    const { client, instance } = await tied()
    const sent = Buffer.alloc(TEN_MB, 'flatmesh ')
    const parts: Buffer[] = []
    client.socket.on('data', chunk => parts.push(chunk))
    client.socket.end(sent)
    instance.socket.end(sent)
    await waitUntil('all has come', () => client.ended && instance.ended)
    expect([client.bytes, instance.bytes]).toEqual([TEN_MB, TEN_MB])
    expect(Buffer.concat(parts).equals(sent)).toBe(true)
  })

  it('holds no more than windows and buffers for a side that stops reading', async () => {
    const { client, instance } = await tied()
    client.socket.pause()
    const chunk = Buffer.alloc(100_000)
    let taken = 0
    const pour = (): void => {
      instance.socket.write(chunk, () => {
        taken += chunk.length
        if (taken < 10 * TEN_MB) pour()
      })
    }
    pour()
    await waitUntil(
      'no more gets through',
      stands(() => taken),
    )
    // Of a hundred: what the kernel holds at four sockets, a window, and a few buffers.
    expect(taken).toBeLessThan(3 * TEN_MB)
    client.socket.resume()
    await waitUntil('the rest comes when it reads again', () => client.bytes === 10 * TEN_MB)
  })
})

it('any mix of sizes, pauses and ends arrives as it was sent, over many connections at once', async () => {
  const seed = Number(process.env.FLATMESH_FUZZ_SEED ?? Date.now() % 1_000_000)
  const next = random(seed)
  const { address, ends } = await serve()
  mesh.place('b', { db: [address] })
  const { port, listener, counters } = await mesh.startTcp('db')
  const clients = Array.from({ length: 60 }, () => dial(port))
  await waitUntil('all are there', () => ends.length === clients.length)
  const sent = new Map<End, number>()
  for (const end of [...clients, ...ends]) {
    const chunks = Array.from({ length: Math.floor(next() * 12) }, () => Math.floor(next() ** 4 * 400_000))
    sent.set(
      end,
      chunks.reduce((sum, bytes) => sum + bytes, 0),
    )
    const pauses = next() < 0.3
    const say = (): void => {
      const bytes = chunks.pop()
      if (bytes === undefined) end.socket.end()
      else end.socket.write(Buffer.alloc(bytes), () => (next() < 0.5 ? setImmediate(say) : say()))
      if (pauses) end.socket.pause()
      setTimeout(() => end.socket.resume(), next() * 50)
    }
    say()
  }
  await waitUntil(
    `all have ended (seed ${seed})`,
    () => listener.inFlight === 0 && [...clients, ...ends].every(({ closed }) => closed),
  )
  const total = (some: End[]): number => some.reduce((sum, end) => sum + end.bytes, 0)
  const said = (some: End[]): number => some.reduce((sum, end) => sum + (sent.get(end) ?? 0), 0)
  expect([total(clients), total(ends)], `seed ${seed}`).toEqual([said(ends), said(clients)])
  expect([...clients, ...ends].map(({ error }) => error).filter(Boolean), `seed ${seed}`).toEqual([])
  expect(counters).toEqual({ total: 60, failed: 0, retries: 0 })
})

describe('places of a TCP connection', () => {
  it('are the next instance, and then the next node, when connections are refused; what was said early is not lost', async () => {
    const { address, ends } = await serve()
    mesh.place('a', { db: [await deadAddress(), await deadAddress()] })
    mesh.place('b', { db: [await deadAddress(), address] })
    const { port, counters } = await mesh.startTcp('db')
    const client = dial(port)
    client.socket.end('early')
    await waitUntil('an instance has all', () => ends[0]?.ended === true)
    expect([ends.length, ends[0]?.text, mesh.opened, counters]).toEqual([
      ...[1, 'early', ['a', 'b']],
      { total: 1, failed: 0, retries: 1 },
    ])
    const states = [...(mesh.places.get('a')?.instances.all() ?? [])]
    expect(states.map(({ isHealthy }) => isHealthy)).toEqual([false, false])
  })

  it('are not tried after bytes that may have been heard; they are, when nothing was said', async () => {
    const { address, ends } = await serve()
    mesh.place('a', {}).place('b', { db: [address] })
    const taken: Call[] = []
    mesh.onOpen = (place, call) => {
      if (place !== 'a') return false
      call.handler = silent()
      taken.push(call)
      return true
    }
    mesh.place('a', { db: [address] })
    const { port } = await mesh.startTcp('db')
    const lost = { code: 'link-lost', reason: 'cut', node: '', unexecuted: false } as const
    const talker = dial(port)
    talker.socket.write('x')
    await waitUntil('the first place has the call', () => taken.length === 1)
    const listener = dial(port)
    await waitUntil('and the other', () => taken.length === 2)
    for (const call of taken) call.reset(lost)
    await waitUntil('one goes to the next place, the other is reset', () => talker.closed && ends.length === 1)
    expect([talker.error, listener.closed]).toEqual(['ECONNRESET', false])
  })

  it('are none: the connection is reset, not closed in order, and the log says why', async () => {
    const lines: unknown[] = []
    mesh.log = { ...silentLog, warn: (fields, message) => void lines.push({ ...fields, message }) }
    mesh.place('b', { other: ['127.0.0.1:1'] })
    const { port, counters } = await mesh.startTcp('db')
    const client = dial(port)
    await waitUntil('it is reset', () => client.closed)
    expect([client.error, client.ended]).toEqual(['ECONNRESET', false])
    expect(counters).toEqual({ total: 1, failed: 1, retries: 0 })
    expect(lines).toEqual([
      {
        ...{ service: 'db', code: 'unknown-service', reason: 'no node of the mesh offers a service named db' },
        ...{ count: 1, message: 'TCP connections were reset' },
      },
    ])
  })

  it('get the call cancelled when the client vanishes before an instance has it', async () => {
    const { address } = await serve()
    mesh.place('b', { db: [address] })
    const codes: string[] = []
    mesh.onOpen = (_place, call) => {
      call.handler = { ...silent(), onReset: ({ code }) => void codes.push(code) }
      return true
    }
    const { port, listener } = await mesh.startTcp('db')
    const client = dial(port)
    await waitUntil('the call is open', () => listener.inFlight === 1)
    client.socket.resetAndDestroy()
    await waitUntil('it is cancelled', () => codes.length === 1)
    expect([codes, listener.inFlight]).toEqual([['cancelled'], 0])
  })

  it('lose the call when they pass on bytes before they have said that an instance is there', async () => {
    const { address } = await serve()
    mesh.place('b', { db: [address] })
    mesh.onOpen = (_place, call) => {
      call.handler = silent()
      call.write(Buffer.from('from nowhere'))
      return true
    }
    const { port } = await mesh.startTcp('db')
    const client = dial(port)
    await waitUntil('the client is reset', () => client.closed)
    expect([client.text, client.error]).toEqual(['', 'ECONNRESET'])
  })
})

it('a node that was too busy to see an instance take the connection in time does not take the instance for down', async () => {
  const { address, ends } = await serve()
  mesh.place('b', { db: [address] })
  mesh.onOpen = () => {
    // The connection is asked for in this turn, and nothing is seen of it for longer than it may take.
    setImmediate(() => {
      const untilMs = performance.now() + 1200
      while (performance.now() < untilMs);
    })
    return false
  }
  const { port } = await mesh.startTcp('db')
  const client = dial(port)
  client.socket.write('x')
  await waitUntil('the instance has heard it', () => ends[0]?.text === 'x')
  expect([ends.length, client.closed]).toEqual([1, false])
})

it('an instance whose queue of connections is full for a moment is waited for, and not taken for down', async () => {
  const source = `require('net').createServer(s => s.on('error', () => {}).pipe(s)).listen({ port: 0, host: '127.0.0.1', backlog: 2 }, function () {
    console.log(this.address().port) })`
  const child = spawn(process.execPath, ['-e', source], { stdio: ['ignore', 'pipe', 'inherit'] })
  mesh.onStop(() => child.kill('SIGKILL'))
  const [said] = await once(child.stdout, 'data')
  mesh.place('b', { db: [`127.0.0.1:${String(said).trim()}`] })
  const { port } = await mesh.startTcp('db')
  child.kill('SIGSTOP')
  const clients = Array.from({ length: 8 }, () => dial(port))
  for (const { socket } of clients) socket.write('x')
  // One more second passes until the kernel asks again; the first has shown who is waiting.
  const goOn = setTimeout(() => child.kill('SIGCONT'), 1200)
  mesh.onStop(() => clearTimeout(goOn))
  await waitUntil('all were answered', () => clients.every(({ text }) => text === 'x'))
  expect(clients.filter(({ closed }) => closed)).toEqual([])
})

describe('limits of TCP connections', () => {
  it('reset the one that is too many, as it comes, and take another when there is room', async () => {
    const { port, client, counters, listener } = await tied({ connectionsMax: 1 })
    const second = dial(port)
    await waitUntil('it is reset', () => second.closed)
    expect([second.error, client.closed, counters.failed]).toEqual(['ECONNRESET', false, 1])
    client.socket.resetAndDestroy()
    await waitUntil('there is room', () => listener.inFlight === 0)
    const third = dial(port)
    third.socket.write('x')
    await waitUntil('it is taken', () => listener.inFlight === 1)
    expect(third.closed).toBe(false)
  })

  it('reset a connection on which nothing moves, at the ingress', async () => {
    const { client, instance } = await tied({ idleMs: 300 })
    await waitUntil('both ends are reset', () => client.closed && instance.closed)
    expect([client.error, instance.error]).toEqual(['ECONNRESET', 'ECONNRESET'])
  })

  it('reset a connection on which nothing moves, at the egress', async () => {
    mesh.egressIdleMs = 300
    const { client, instance } = await tied()
    await waitUntil('both ends are reset', () => client.closed && instance.closed)
    expect([client.error, instance.error]).toEqual(['ECONNRESET', 'ECONNRESET'])
  })

  it('reset a connection that no instance takes in time', async () => {
    const { address } = await serve()
    mesh.place('b', { db: [address] })
    mesh.onOpen = (_place, call) => {
      call.handler = silent()
      return true
    }
    const { port } = await mesh.startTcp('db', { timeoutMs: 100 })
    const client = dial(port)
    await waitUntil('it is reset', () => client.closed)
    expect(client.error).toBe('ECONNRESET')
  })
})

describe('a stopping TCP listener', () => {
  it('takes no new connection and lets those there are end by themselves', async () => {
    const { port, client, instance, listener } = await tied()
    let isDrained = false
    const drained = listener.drain().then(() => {
      isDrained = true
    })
    const refused = new End(net.connect(port, '127.0.0.1'))
    await waitUntil('a new one is refused', () => refused.error === 'ECONNREFUSED')
    client.socket.end('last')
    await waitUntil('the old one goes on', () => instance.text === 'last')
    expect(isDrained).toBe(false)
    instance.socket.end()
    await drained
    expect([client.error, instance.error]).toEqual(['', ''])
  })

  it('resets what is left when its time is over', async () => {
    const { client, instance, listener } = await tied()
    await listener.stop()
    await waitUntil('both ends hear of it', () => client.closed && instance.closed)
    expect([client.error, instance.error]).toEqual(['ECONNRESET', 'ECONNRESET'])
  })

  it('resets what it was the egress of', async () => {
    const { client, instance, place } = await tied()
    place?.tcp.stop()
    await waitUntil('both ends hear of it', () => client.closed && instance.closed)
    expect([client.error, instance.error]).toEqual(['ECONNRESET', 'ECONNRESET'])
  })
})

it('a port that is taken is named, with the service it was for', async () => {
  const { port } = await tied()
  await expect(mesh.startTcp('db', { port })).rejects.toMatchObject({
    code: 'port-in-use',
    message: expect.stringContaining(`listeners: cannot listen on 127.0.0.1:${port} for db`),
  })
})

function silent() {
  return {
    onHead() {},
    onData(_: Buffer): unknown {
      return undefined
    },
    onTrailers() {},
    onEnd() {},
    onDrain() {},
    onReset(_: { code: string }) {},
  }
}

/** Numbers of 0..1 from a seed: mulberry32. */
function random(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** True once a number has not changed for twenty looks. */
function stands(look: () => number): () => boolean {
  let last = Number.NaN
  let same = 0
  return () => {
    const now = look()
    same = now === last ? same + 1 : 0
    last = now
    return same >= 20
  }
}

it('a request of HTTP for a service of protocol tcp is refused with what to do, and never reaches the instance', async () => {
  const { address, ends } = await serve()
  mesh.place('b', { db: [address] }, 'tcp')
  await mesh.start()
  const client = dial(mesh.port)
  client.socket.write('GET / HTTP/1.1\r\nHost: db.mesh\r\n\r\n')
  await waitUntil('it is answered', () => client.text.includes('\r\n\r\n{'))
  expect(client.text).toMatch(
    /^HTTP\/1\.1 400 .*x-flatmesh-error: bad-request\r\n.*protocol tcp, not of HTTP.*CONNECT/s,
  )
  expect(ends).toEqual([])
})
