import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, createServer, connect as dial, type Server, type Socket } from 'node:net'
import fc from 'fast-check'
import { afterEach, expect, test } from 'vitest'
import { waitUntil } from './daemon-process.ts'
import { DelayLine, WanMap, WanRelay, type WanRelayOptions } from './wan-relay.ts'

const MIB = 1024 * 1024
const DEADLINE_MS = 20_000

const cleanups: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

/** A server whose connections are handed to `onSocket`. Resolves with its address. */
async function listen(onSocket: (socket: Socket) => void): Promise<string> {
  const sockets = new Set<Socket>()
  const server: Server = createServer({ allowHalfOpen: true, noDelay: true }, socket => {
    sockets.add(socket)
    socket.on('error', () => undefined)
    onSocket(socket)
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  cleanups.push(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return `127.0.0.1:${(server.address() as AddressInfo).port}`
}

const listenEcho = (): Promise<string> => listen(socket => socket.pipe(socket))

async function startRelay(options: WanRelayOptions): Promise<WanRelay> {
  const relay = new WanRelay(options)
  await relay.start()
  cleanups.push(() => relay.stop())
  return relay
}

function connect({ address }: { address: string }): Socket {
  const [host = '', port] = address.split(':')
  const socket = dial({ host, port: Number(port), allowHalfOpen: true, noDelay: true })
  socket.on('error', () => undefined)
  cleanups.push(() => socket.destroy())
  return socket
}

/** What a socket has received so far. */
function collect(socket: Socket): { text: () => string } {
  let text = ''
  socket.setEncoding('latin1').on('data', (chunk: string) => (text += chunk))
  return { text: () => text }
}

/** The code of the error that a socket ends with; '' if it ends in order. */
function ending(socket: Socket): Promise<string> {
  return new Promise(resolve => {
    let code = ''
    socket.once('error', (error: NodeJS.ErrnoException) => (code = error.code ?? error.message))
    socket.once('close', () => resolve(code))
  })
}

/** Sends a word and waits until it has come back. */
async function echo(socket: Socket, received: { text: () => string }, word: string): Promise<void> {
  socket.write(word)
  await waitUntil(`${word} has come back`, () => (received.text().endsWith(word) ? true : undefined), DEADLINE_MS)
}

/** Waits until nothing moves on the line any more: ten looks in a row see the same. */
async function settled(relay: WanRelay): Promise<void> {
  let [before, sameCount] = [-1, 0]
  await waitUntil(
    'nothing moves any more',
    () => {
      sameCount = relay.bytesHeld === before ? sameCount + 1 : 0
      before = relay.bytesHeld
      return sameCount === 10 ? true : undefined
    },
    DEADLINE_MS,
  )
}

test('a delay line keeps the order and lets nothing arrive before its time, whatever the jitter', () => {
  const sends = fc.array(fc.tuple(fc.nat(50), fc.nat(100)), { maxLength: 60 })
  fc.assert(
    fc.property(sends, fc.nat(200), (gaps, notBeforeMs) => {
      const line = new DelayLine<number>()
      line.notBeforeMs = notBeforeMs
      const earliest: number[] = []
      let nowMs = 0
      for (const [i, [gapMs, tripMs]] of gaps.entries()) {
        nowMs += gapMs
        line.push(i, nowMs, tripMs)
        earliest.push(Math.max(nowMs, notBeforeMs) + tripMs)
      }
      const arrived: number[] = []
      while (line.nextDueMs !== Number.POSITIVE_INFINITY) {
        const atMs = line.nextDueMs
        expect(line.take(atMs - 0.001)).toBeUndefined()
        const item = line.take(atMs)
        expect(atMs).toBeGreaterThanOrEqual(earliest[item ?? -1] ?? Number.POSITIVE_INFINITY)
        arrived.push(item ?? -1)
      }
      expect(arrived).toEqual(gaps.map((_, i) => i))
    }),
  )
})

test('a delay line delivers each item exactly its trip after it was sent, and no later one before it', () => {
  const line = new DelayLine<string>()
  for (const nowMs of [0, 1, 5]) line.push(`sent at ${nowMs}`, nowMs, 20)
  expect(line.nextDueMs).toBe(20)
  expect(line.take(20)).toBe('sent at 0')
  expect(line.nextDueMs).toBe(21)
  expect([line.take(30), line.take(30), line.take(30)]).toEqual(['sent at 1', 'sent at 5', undefined])
  expect(line.dueMs(6, 1)).toBe(25)
})

test('eight megabytes each way arrive unharmed over a line with jitter', async () => {
  const relay = await startRelay({ rttMs: 4, jitterMs: 2, target: await listenEcho() })
  const sent = randomBytes(8 * MIB)
  const socket = connect(relay)
  const hash = createHash('sha256')
  socket.on('data', chunk => hash.update(chunk))
  socket.end(sent)
  await once(socket, 'end')
  expect(hash.digest('hex')).toBe(createHash('sha256').update(sent).digest('hex'))
})

test('no answer is faster than the line: the first one takes the handshake and a round trip, the next a round trip', async () => {
  const rttMs = 30
  const relay = await startRelay({ rttMs, target: await listenEcho() })
  const startedAtMs = performance.now()
  const socket = connect(relay)
  const received = collect(socket)
  await echo(socket, received, 'first')
  const firstAtMs = performance.now()
  await echo(socket, received, 'second')
  // Half a millisecond each way is what the relay allows itself, see TIMER_SLACK_MS.
  expect(firstAtMs - startedAtMs).toBeGreaterThanOrEqual(2 * rttMs - 2)
  expect(performance.now() - firstAtMs).toBeGreaterThanOrEqual(rttMs - 2)
})

test('a half-close arrives after everything that was sent before it, and the other direction goes on', async () => {
  let heard = ''
  const target = await listen(socket => {
    const received = collect(socket)
    socket.once('end', () => {
      heard = received.text()
      socket.end('the answer comes after the end')
    })
  })
  const socket = connect(await startRelay({ rttMs: 10, target }))
  const received = collect(socket)
  const ended = ending(socket)
  socket.end('all of it')
  expect(await ended).toBe('')
  expect([heard, received.text()]).toEqual(['all of it', 'the answer comes after the end'])
})

test('a reset at either end reaches the other end as a reset', async () => {
  const accepted: Socket[] = []
  const target = await listen(socket => {
    accepted.push(socket)
    socket.pipe(socket)
  })
  const relay = await startRelay({ rttMs: 6, target })
  for (const end of ['near', 'far']) {
    const near = connect(relay)
    await echo(near, collect(near), 'hello')
    const far = accepted.at(-1)
    if (far === undefined) throw new Error('the target has no connection')
    const [resetter, other] = end === 'near' ? [near, far] : [far, near]
    const ended = ending(other)
    resetter.resetAndDestroy()
    expect([end, await ended]).toEqual([end, 'ECONNRESET'])
  }
  await waitUntil('the relay has forgotten both', () => (relay.count === 0 ? true : undefined), DEADLINE_MS)
})

test('a reset gets through to an end that has stopped reading', async () => {
  const accepted: Socket[] = []
  const relay = await startRelay({ rttMs: 6, target: await listen(socket => accepted.push(socket.pause())) })
  const near = connect(relay)
  // More than the kernel takes for the target, less than the line takes.
  while (relay.bytesHeld < MIB) {
    await new Promise(resolve => near.write(Buffer.alloc(MIB), resolve))
    await settled(relay)
  }
  const far = await waitUntil('the target has the connection', () => accepted[0], DEADLINE_MS)
  near.resetAndDestroy()
  await waitUntil('the relay has forgotten it', () => (relay.count === 0 ? true : undefined), DEADLINE_MS)
  const ended = ending(far)
  far.resume()
  expect(await ended).toBe('ECONNRESET')
})

test('a reader that stops makes the sender stop, with at most one chunk above 4 MiB on the line', async () => {
  const accepted: Socket[] = []
  const relay = await startRelay({ rttMs: 2, target: await listen(socket => accepted.push(socket.pause())) })
  const near = connect(relay)
  const bytes = 64 * MIB
  near.end(Buffer.alloc(bytes))
  await waitUntil('the line fills', () => (relay.bytesHeld > 2 * MIB ? true : undefined), DEADLINE_MS)
  await settled(relay)
  // Below the half of it the relay would read again.
  expect(relay.bytesHeld).toBeGreaterThan(2 * MIB)
  expect(relay.bytesHeld).toBeLessThanOrEqual(4 * MIB + 64 * 1024)
  const far = await waitUntil('the target has the connection', () => accepted[0], DEADLINE_MS)
  let received = 0
  far.on('data', chunk => (received += chunk.length)).resume()
  await once(far, 'end')
  expect(received).toBe(bytes)
})

test('a black hole delivers nothing and loses nothing: bytes, ends and new connections wait until it is gone', async () => {
  let accepted = 0
  const target = await listen(socket => {
    accepted++
    socket.pipe(socket)
  })
  // So long that a word on its way is seen there by whoever looks now and then, also on a machine that stalls.
  const relay = await startRelay({ rttMs: 1000, target })
  const clock = await startRelay({ rttMs: 2000, target: await listenEcho() })
  const [old, ticker] = [connect(relay), connect(clock)]
  const [fromOld, ticks] = [collect(old), collect(ticker)]
  await echo(old, fromOld, 'before ')
  old.write('flying ')
  await waitUntil('a word is on its way', () => (relay.bytesHeld > 0 ? true : undefined), DEADLINE_MS)
  relay.blackhole(true)
  old.end('held')
  const young = connect(relay)
  const fromYoung = collect(young)
  young.write('new')
  // When a word has come back twice over a line twice as long, these would have been back for long.
  await echo(ticker, ticks, 'tick')
  await echo(ticker, ticks, 'tock')
  expect([fromOld.text(), fromYoung.text(), accepted]).toEqual(['before ', '', 1])
  expect(relay.bytesHeld).toBe('flying held'.length + 'new'.length)
  relay.blackhole(false)
  await once(old, 'end')
  expect(fromOld.text()).toBe('before flying held')
  await waitUntil('the new connection works', () => (fromYoung.text() === 'new' ? true : undefined), DEADLINE_MS)
})

test('cut resets every connection at both ends, and new ones work', async () => {
  const endings: Promise<string>[] = []
  const target = await listen(socket => {
    endings.push(ending(socket))
    socket.pipe(socket)
  })
  const relay = await startRelay({ rttMs: 4, target })
  const first = connect(relay)
  await echo(first, collect(first), 'hello')
  const ended = ending(first)
  relay.cut()
  expect([await ended, await endings[0]]).toEqual(['ECONNRESET', 'ECONNRESET'])
  const second = connect(relay)
  await echo(second, collect(second), 'again')
})

test('a target that refuses, and no target at all, show as a reset instead of a hanging connection', async () => {
  const gone = createServer()
  await once(gone.listen(0, '127.0.0.1'), 'listening')
  const refusing = `127.0.0.1:${(gone.address() as AddressInfo).port}`
  await new Promise(resolve => gone.close(resolve))
  for (const target of [refusing, undefined]) {
    const relay = await startRelay({ rttMs: 4, target })
    const socket = connect(relay)
    expect([target, await ending(socket.resume())]).toEqual([target, 'ECONNRESET'])
  }
})

test('a shorter round trip does not let bytes overtake those on their way', async () => {
  const relay = await startRelay({ rttMs: 1000, target: await listenEcho() })
  const socket = connect(relay)
  const received = collect(socket)
  await echo(socket, received, 'a')
  socket.write('slow ')
  await waitUntil('it is on its way', () => (relay.bytesHeld > 0 ? true : undefined), DEADLINE_MS)
  relay.setRtt(0)
  await echo(socket, received, 'fast')
  expect(received.text()).toBe('aslow fast')
})

test('a map of lines joins the listed pairs in both directions, and leaves the others alone', async () => {
  const map = new WanMap([{ between: ['a', 'b'], rttMs: 2 }])
  cleanups.push(() => map.stop())
  expect(await map.openDoor('a', 'c')).toBeUndefined()
  expect(() => map.link('a', 'c')).toThrow('there is no line between a and c')
  const target = await listenEcho()
  const doors = [await map.openDoor('a', 'b'), await map.openDoor('b', 'a')]
  const sockets: Socket[] = []
  for (const door of doors) {
    if (door === undefined) throw new Error('expected a line between a and b')
    door.lead(target)
    const socket = connect(door)
    sockets.push(socket)
    await echo(socket, collect(socket), 'hello')
  }
  const endings = sockets.map(ending)
  map.link('b', 'a').cut()
  expect(await Promise.all(endings)).toEqual(['ECONNRESET', 'ECONNRESET'])
})
