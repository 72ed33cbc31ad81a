import { once } from 'node:events'
import http2 from 'node:http2'
import net from 'node:net'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { Call } from './call.ts'
import { encodeFrame, encodeNumbersFrame, encodeSettings, FLAG, FRAME, H2_ERROR, PREFACE, SETTING } from './h2-frame.ts'
import { H2_VECTORS } from './h2-vectors.ts'
import { GET, headers, POST, RawClient, rawBlock } from './test-h2.ts'
import { TestPlaces, waitUntil } from './test-places.ts'

let mesh = new TestPlaces()
/** Calls that were opened and that nobody answers. */
let held: Call[] = []
beforeEach(() => {
  held = []
})
afterEach(async () => {
  await mesh.stop()
  mesh = new TestPlaces()
})

/** A mesh whose calls are opened and never answered: what a client can do to a connection shows without a service. */
async function silent(options: Parameters<TestPlaces['start']>[0] = {}): Promise<void> {
  await mesh.place('b', { orders: ['127.0.0.1:1'] }).start(options)
  mesh.onOpen = (_place, call) => {
    held.push(call)
    call.handler = { onHead() {}, onData() {}, onTrailers() {}, onEnd() {}, onDrain() {}, onReset() {} }
    return true
  }
}

function client(): RawClient {
  const one = RawClient.greeted(mesh.port)
  mesh.onStop(() => one.socket.destroy())
  return one
}

const { END_HEADERS, END_STREAM, ACK } = FLAG
const PING = encodeFrame(FRAME.PING, 0, 0, Buffer.alloc(8))
const times = (count: number, one: (i: number) => Buffer): Buffer =>
  Buffer.concat(Array.from({ length: count }, (_, i) => one(i)))

describe('requests that must not be forwarded', () => {
  test.each(H2_VECTORS)('$title', async ({ send, outcome }) => {
    await silent()
    const one = client()
    one.send(...send)
    const id = 1
    expect(await one.outcome(id)).toBe(outcome)
    expect(mesh.ingress.counters.failed + held.length).toBeGreaterThanOrEqual(outcome.startsWith('GOAWAY') ? 0 : 1)
  })

  test('a good one is forwarded, so the table above tells something', async () => {
    await silent()
    const one = client()
    one.send(headers(1, [...GET, 'x-own', 'yes']))
    await waitUntil('it is opened', () => held.length === 1)
    expect(mesh.lastHead).toBe(
      'GET / HTTP/1.1\r\nHost: orders\r\nx-own: yes\r\nVia: 1.1 flatmesh-here (orders)\r\n' +
        'X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Host: orders\r\nX-Forwarded-Proto: http\r\n\r\n',
    )
  })

  test('a wrong preface, or another first frame than SETTINGS, ends the connection', async () => {
    await silent()
    const torn = new RawClient(mesh.port)
    torn.send(Buffer.from('PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n'))
    expect((await torn.goaway()).code).toBe('PROTOCOL_ERROR')
    const rude = new RawClient(mesh.port)
    rude.send(PREFACE, headers(1, GET))
    expect((await rude.goaway()).reason).toBe('the first frame is not SETTINGS')
  })

  test('what is refused on one stream leaves the others alone', async () => {
    await silent()
    const one = client()
    one.send(headers(1, GET), headers(3, [...GET, 'Bad', 'x']), headers(5, GET))
    expect(await one.outcome(3)).toBe('PROTOCOL_ERROR')
    await waitUntil('both are opened', () => held.length === 2)
    expect(mesh.ingress.inFlight).toBe(2)
  })
})

describe('a peer that means harm', () => {
  const rest = async (one: RawClient): Promise<void> => {
    await waitUntil('the connection is over', () => one.isClosed)
    await waitUntil('nothing of it is left', () => mesh.ingress.inFlight === 0)
  }

  test('rapid reset: a thousand streams opened and reset, and the connection ends (CVE-2023-44487)', async () => {
    await silent()
    const one = client()
    one.send(
      times(2000, i =>
        Buffer.concat([headers(2 * i + 1, GET), encodeNumbersFrame(FRAME.RST_STREAM, 2 * i + 1, H2_ERROR.CANCEL)]),
      ),
    )
    expect(await one.goaway()).toEqual({ code: 'ENHANCE_YOUR_CALM', reason: 'it resets too many of its streams' })
    // A thousand, and as many as the time of sending them allows.
    expect(held.length).toBeLessThan(1500)
    await rest(one)
  })

  test('resets that it provokes count as well (CVE-2025-8671)', async () => {
    await silent()
    const one = client()
    one.send(
      times(2000, i => Buffer.concat([headers(2 * i + 1, GET), encodeNumbersFrame(FRAME.WINDOW_UPDATE, 2 * i + 1, 0)])),
    )
    expect((await one.goaway()).code).toBe('ENHANCE_YOUR_CALM')
    await rest(one)
  })

  test('a client that cancels now and then is not mistaken for it', async () => {
    await silent()
    const one = client()
    one.send(
      times(500, i =>
        Buffer.concat([headers(2 * i + 1, GET), encodeNumbersFrame(FRAME.RST_STREAM, 2 * i + 1, H2_ERROR.CANCEL)]),
      ),
    )
    one.send(headers(1001, GET))
    await waitUntil('the last one is opened', () => held.length === 501)
    expect(one.of(FRAME.GOAWAY)).toHaveLength(0)
  })

  test('more streams than were offered are refused, each by itself', async () => {
    await silent()
    const one = client()
    one.send(times(300, i => headers(2 * i + 1, GET)))
    await waitUntil('the rest is refused', () => one.of(FRAME.RST_STREAM).length === 300 - 256)
    expect(held).toHaveLength(256)
    expect(one.of(FRAME.RST_STREAM)[0]?.payload.readUInt32BE(0)).toBe(H2_ERROR.REFUSED_STREAM)
    expect(one.of(FRAME.RST_STREAM)[0]?.stream).toBe(513)
  })

  test('a head that goes on for ever in CONTINUATION ends the connection (CVE-2024-27316)', async () => {
    await silent()
    for (const payload of [Buffer.alloc(0), rawBlock(['x-a', 'y'.repeat(4000)])]) {
      const one = client()
      one.send(
        headers(1, GET, END_STREAM),
        times(1000, () => encodeFrame(FRAME.CONTINUATION, 0, 1, payload)),
      )
      expect((await one.goaway()).code).toBe('ENHANCE_YOUR_CALM')
      await rest(one)
    }
  })

  test('a small block that grows into a large list is 431, and the connection goes on (HPACK bomb)', async () => {
    await silent()
    const one = client()
    const value = 'x'.repeat(4000)
    const block = rawBlock([...GET, 'a', value])
    // The last field goes into the table, and is then named a thousand times.
    block[block.length - value.length - 3 - 2 - 1] = 0x40
    one.send(encodeFrame(FRAME.HEADERS, END_HEADERS | END_STREAM, 1, Buffer.concat([block, Buffer.alloc(1000, 0xbe)])))
    expect(await one.outcome(1)).toBe('431')
    one.send(headers(3, GET))
    await waitUntil('the next one is opened', () => held.length === 1)
  })

  test.each([
    ['PING', PING],
    ['SETTINGS', encodeSettings([[SETTING.INITIAL_WINDOW_SIZE, 1000]])],
    ['empty DATA', encodeFrame(FRAME.DATA, 0, 1, Buffer.alloc(0))],
    ['padding alone', encodeFrame(FRAME.DATA, FLAG.PADDED, 1, Buffer.from([2, 0, 0]))],
    ['PRIORITY', encodeFrame(FRAME.PRIORITY, 0, 1, Buffer.from([0, 0, 0, 0, 9]))],
    ['frames nobody knows', encodeFrame(77, 0, 0, Buffer.alloc(3))],
    ['GOAWAY', encodeNumbersFrame(FRAME.GOAWAY, 0, 0, 0)],
  ])('a flood of %s ends the connection (CVE-2019-9512 and its kin)', async (_, frame) => {
    await silent()
    const one = client()
    one.send(
      headers(1, POST, END_HEADERS),
      times(5000, () => frame),
    )
    expect(await one.goaway()).toMatchObject({ code: 'ENHANCE_YOUR_CALM', reason: 'too many frames that move nothing' })
    await rest(one)
  })

  test('tiny windows that make a large answer many small frames end the connection (CVE-2019-9511)', async () => {
    await mesh.place('b', { orders: ['127.0.0.1:1'] }).start()
    mesh.onOpen = (_place, call) => {
      call.handler = { onHead() {}, onData() {}, onTrailers() {}, onEnd() {}, onDrain() {}, onReset() {} }
      call.sendHead(Buffer.from('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'))
      call.write(Buffer.alloc(100_000))
      return true
    }
    const one = new RawClient(mesh.port)
    one.send(PREFACE, encodeSettings([[SETTING.INITIAL_WINDOW_SIZE, 0]]), headers(1, GET))
    await waitUntil('the answer has begun', () => one.of(FRAME.HEADERS).length > 0)
    one.send(times(5000, () => encodeNumbersFrame(FRAME.WINDOW_UPDATE, 1, 1)))
    expect((await one.goaway()).code).toBe('ENHANCE_YOUR_CALM')
    await rest(one)
  })

  test('DATA beyond a window is a fault of the stream, beyond that of the connection one of all', async () => {
    await silent()
    const one = client()
    const frame = (stream: number): Buffer => encodeFrame(FRAME.DATA, 0, stream, Buffer.alloc(16_384))
    one.send(headers(1, POST, END_HEADERS))
    await waitUntil('it is opened', () => held.length === 1)
    held[0]?.pause()
    // The reader at the other end of the call stands still, so no credit comes.
    await one.sendAll(...Array.from({ length: 60 }, () => frame(1)))
    expect(await one.outcome(1)).toBe('FLOW_CONTROL_ERROR')
    one.send(headers(3, GET))
    await waitUntil('the connection goes on', () => held.length === 2)
  })

  test('a head that never ends is waited for as long as any slow client is', async () => {
    await silent({ clientTimeoutMs: 100 })
    const one = client()
    one.send(headers(1, GET, END_STREAM))
    expect((await one.goaway()).reason).toBe('no whole request head came within 100 ms')
    await rest(one)
  })

  test('a client that sends nothing is closed after the idle time, one with a stream open is not', async () => {
    await silent({ idleTimeoutMs: 200 })
    const [idle, busy] = [client(), client()]
    busy.send(headers(1, GET))
    expect((await idle.goaway()).code).toBe('NO_ERROR')
    await waitUntil('it is closed', () => idle.isClosed)
    expect(busy.of(FRAME.GOAWAY)).toHaveLength(0)
  })
})

describe('what a connection answers', () => {
  test('SETTINGS and PING are answered, each with its own', async () => {
    await silent()
    const one = client()
    const ping = encodeFrame(FRAME.PING, 0, 0, Buffer.from('12345678'))
    one.send(ping)
    await waitUntil('PING is answered', () => one.of(FRAME.PING).length === 1)
    expect(one.of(FRAME.PING)[0]).toMatchObject({ flags: ACK, payload: Buffer.from('12345678') })
    expect(one.of(FRAME.SETTINGS).map(({ flags }) => flags)).toEqual([0, ACK])
  })

  test('padding and priority are taken off, and padding is paid for in credit', async () => {
    await silent()
    const one = client()
    const block = rawBlock(POST)
    const padded = Buffer.concat([Buffer.from([4, 0, 0, 0, 0, 9]), block, Buffer.alloc(4)])
    one.send(encodeFrame(FRAME.HEADERS, END_HEADERS | FLAG.PADDED | FLAG.PRIORITY, 1, padded))
    await waitUntil('it is opened', () => held.length === 1)
    const [call] = held
    let body = ''
    if (call !== undefined) call.handler = { ...call.handler, onData: chunk => (body += chunk) }
    one.send(encodeFrame(FRAME.DATA, FLAG.PADDED, 1, Buffer.from('\x03abc\0\0\0')))
    await waitUntil('the body comes', () => body === 'abc')
    // Almost nothing but padding, four windows of it.
    const frame = encodeFrame(FRAME.DATA, FLAG.PADDED, 1, Buffer.concat([Buffer.from([255, 1]), Buffer.alloc(255)]))
    await one.sendAll(...Array.from({ length: 4 }, () => times(1024, () => frame)))
    await waitUntil('all of it comes', () => body.length === 3 + 4096)
    expect(one.of(FRAME.RST_STREAM)).toHaveLength(0)
  })

  test('DATA and HEADERS that crossed a reset of ours are late, not wrong', async () => {
    await silent()
    const one = client()
    one.send(
      headers(1, [...POST, 'content-length', '1'], END_HEADERS),
      encodeFrame(FRAME.DATA, 0, 1, Buffer.from('two')),
    )
    expect(await one.outcome(1)).toBe('PROTOCOL_ERROR')
    one.send(encodeFrame(FRAME.DATA, 0, 1, Buffer.from('late')), headers(1, ['x-late', '1']), headers(3, GET))
    await waitUntil('the next one is opened', () => held.length === 2)
  })

  test('an answer larger than a frame goes in several, a head as well', async () => {
    const server = http2.createServer({ maxHeaderListPairs: 200 }, (_request, response) => {
      response.writeHead(200, Object.fromEntries(Array.from({ length: 30 }, (_, i) => [`x-${i}`, 'y'.repeat(1500)])))
      response.end(Buffer.alloc(60_000))
    })
    await mesh.place('b', { orders: [await mesh.listen(server)] }, 'h2').start()
    const one = client()
    one.send(headers(1, GET))
    await waitUntil('it ends', () =>
      one.frames.some(({ type, flags }) => type === FRAME.DATA && (flags & END_STREAM) !== 0),
    )
    expect(one.of(FRAME.CONTINUATION).length).toBeGreaterThan(1)
    expect(Math.max(...one.frames.map(({ payload }) => payload.length))).toBeLessThanOrEqual(16_384)
  })
})

describe('draining', () => {
  test('is said twice: streams that crossed the first word are taken, those after the second are refused', async () => {
    await silent()
    const one = client()
    one.send(headers(1, GET))
    await waitUntil('it is opened', () => held.length === 1)
    const drained = mesh.ingress.drain()
    await waitUntil('it is said', () => one.of(FRAME.GOAWAY).length === 1 && one.of(FRAME.PING).length === 1)
    expect(one.of(FRAME.GOAWAY)[0]?.payload.readUInt32BE(0)).toBe(0x7fff_ffff)
    const [ping] = one.of(FRAME.PING)
    one.send(headers(3, GET), encodeFrame(FRAME.PING, ACK, 0, ping?.payload ?? Buffer.alloc(8)))
    await waitUntil('it is said again', () => one.of(FRAME.GOAWAY).length === 2)
    expect(one.of(FRAME.GOAWAY)[1]?.payload.readUInt32BE(0)).toBe(3)
    one.send(headers(5, GET))
    await waitUntil('it is refused', () => one.of(FRAME.RST_STREAM).length === 1)
    expect([one.of(FRAME.RST_STREAM)[0]?.stream, held.length]).toEqual([5, 2])
    for (const id of [1, 3]) one.send(encodeNumbersFrame(FRAME.RST_STREAM, id, H2_ERROR.CANCEL))
    await drained
    await waitUntil('it is closed', () => one.isClosed)
  })

  test('a client that never answers to the first word is not waited for', async () => {
    await silent()
    const one = client()
    one.send(headers(1, GET))
    await waitUntil('it is opened', () => held.length === 1)
    const drained = mesh.ingress.drain()
    await waitUntil('it is said twice', () => one.of(FRAME.GOAWAY).length === 2)
    one.send(encodeNumbersFrame(FRAME.RST_STREAM, 1, H2_ERROR.CANCEL))
    await drained
  })
})

describe('what instances answer is held to the same rules', () => {
  const answers: [string, string[], string][] = [
    ['no :status', ['x-a', '1'], 'bad-answer'],
    ['two :status', [':status', '200', ':status', '500'], 'bad-answer'],
    [':status of no number', [':status', '2xx'], 'bad-answer'],
    [':status of 101', [':status', '101'], 'bad-answer'],
    ['a pseudo-field of requests', [':status', '200', ':path', '/'], 'bad-answer'],
    ['a name in capital letters', [':status', '200', 'X-Own', '1'], 'bad-answer'],
    ['a value with CR LF', [':status', '200', 'x-a', '1\r\nx-b: 2'], 'bad-answer'],
    ['connection', [':status', '200', 'connection', 'close'], 'bad-answer'],
    ['transfer-encoding', [':status', '200', 'transfer-encoding', 'chunked'], 'bad-answer'],
    ['content-length and no body', [':status', '200', 'content-length', '5'], 'bad-answer'],
    ['content-length twice', [':status', '200', 'content-length', '0', 'content-length', '0'], 'bad-answer'],
    ['an interim answer that is the end', [':status', '103'], 'bad-answer'],
  ]

  test.each(answers)('%s', async (_, fields, code) => {
    const server = net.createServer(socket => {
      socket.write(encodeSettings([]))
      socket.on('data', chunk => {
        if (chunk.includes('orders')) socket.write(headers(1, fields))
      })
    })
    await mesh.place('b', { orders: [await mesh.listen(server)] }, 'h2').start()
    const session = http2.connect(`http://127.0.0.1:${mesh.port}`)
    mesh.onStop(() => session.destroy())
    const stream = session.request({ ':authority': 'orders', ':method': 'POST' })
    stream.end()
    const [answer] = await once(stream, 'response')
    stream.resume()
    expect(answer).toMatchObject({ ':status': 502, 'x-flatmesh-error': code })
  })
})
