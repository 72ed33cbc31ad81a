import type { Socket } from 'node:net'
import { Duplex } from 'node:stream'
import { describe, expect, test } from 'vitest'
import { H2Connection } from './h2-connection.ts'
import { encodeFrame, encodeNumbersFrame, encodeSettings, FLAG, FRAME, PREFACE } from './h2-frame.ts'
import { readH2Request, readH2Response, readH2Trailers } from './h2-head.ts'
import type { H2Stream } from './h2-stream.ts'
import { HpackDecoder } from './hpack-decoder.ts'
import { HpackField } from './hpack-table.ts'
import { Http1Fault } from './http1-fault.ts'
import { forwardRequestHead, forwardResponseHead } from './http1-forward.ts'
import { decodeRequestHead, decodeResponseHead } from './http1-head.ts'
import { GET, POST, rawBlock } from './test-h2.ts'

/** A second each; FLATMESH_FUZZ_SECONDS asks for more. */
const SECONDS = Number(process.env.FLATMESH_FUZZ_SECONDS ?? 1)
const SEED = Number(process.env.FLATMESH_FUZZ_SEED ?? 20_261_122)

/** mulberry32: small, and the same everywhere. */
class Dice {
  private state: number

  constructor(seed: number) {
    this.state = seed >>> 0
  }

  below(limit: number): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0
    let t = this.state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * limit)
  }

  of<T>(list: readonly T[]): T {
    return list[this.below(list.length)] as T
  }

  bytes(lengthMax: number): Buffer {
    return Buffer.from(Array.from({ length: this.below(lengthMax + 1) }, () => this.below(256)))
  }
}

/** Runs cases by seed until the time is over; at least 200 of them. A failure names its seed. */
function forSeconds(run: (dice: Dice) => void): number {
  const endAtMs = performance.now() + SECONDS * 1000
  let cases = 0
  for (; cases < 200 || performance.now() < endAtMs; cases++) {
    try {
      run(new Dice(SEED + cases))
    } catch (error) {
      throw new Error(`FLATMESH_FUZZ_SEED=${SEED + cases}: ${error instanceof Error ? error.stack : String(error)}`)
    }
  }
  return cases
}

/** What is written goes nowhere, or is never taken. */
function sink(isStuck: boolean): Socket {
  const socket = new Duplex({ read() {}, write: (_chunk, _encoding, done) => void (isStuck || done()) })
  socket.on('error', () => {})
  return socket as unknown as Socket
}

/** Half of them new streams as they should be, so that a connection lives for a while. `next`: its next stream. */
function randomFrame(dice: Dice, next: number): Buffer {
  if (dice.below(2) === 0) {
    const ended = dice.of([0, FLAG.END_STREAM])
    return encodeFrame(FRAME.HEADERS, FLAG.END_HEADERS | ended, next, rawBlock(ended === 0 ? POST : GET))
  }
  const stream = dice.of([next - 2, next - 2, next - 4, next, 0, 1, 2].map(id => Math.max(id, 0)))
  const fields = [
    ...dice.of([GET, POST, [':status', '200'], []]),
    ...dice.of([[], ['x-a', 'b'], ['content-length', '3'], ['Bad', '']]),
  ]
  const flags = dice.of([
    0,
    FLAG.END_STREAM,
    FLAG.END_HEADERS,
    FLAG.END_HEADERS | FLAG.END_STREAM,
    0xff,
    FLAG.PADDED | FLAG.END_HEADERS,
  ])
  switch (dice.below(10)) {
    case 0:
      return encodeFrame(dice.below(12), dice.below(256), stream, dice.bytes(40))
    case 1:
      return encodeFrame(FRAME.CONTINUATION, flags, stream, rawBlock(fields))
    case 2:
      return encodeFrame(FRAME.HEADERS, flags, stream, dice.bytes(60))
    case 3:
      return encodeNumbersFrame(FRAME.WINDOW_UPDATE, stream, dice.of([0, 1, 70_000, 0x7fff_ffff]))
    case 4:
      return encodeNumbersFrame(dice.of([FRAME.RST_STREAM, FRAME.GOAWAY]), stream, dice.below(20))
    case 5:
      return encodeSettings([[dice.below(8), dice.of([0, 1, 100, 16_384, 0x7fff_ffff, 0xffff_ffff])]])
    case 6:
    case 7:
      return encodeFrame(FRAME.DATA, flags & ~FLAG.PADDED, stream, Buffer.alloc(dice.of([0, 1, 1000, 16_384])))
    default:
      return encodeFrame(FRAME.HEADERS, flags & ~(FLAG.PADDED | FLAG.PRIORITY), stream, rawBlock(fields))
  }
}

/** A connection of either role whose owner answers at random, and what it did. */
function fuzzConnection(dice: Dice): { streams: number; gone: number; over: number } {
  const seen = { streams: 0, gone: 0, over: 0 }
  const role = dice.of(['server', 'client'] as const)
  let nowMs = 0
  const open = new Set<H2Stream>()
  const owner = (get: () => H2Stream | undefined) => ({
    onFields() {
      const stream = get()
      if (stream === undefined || role === 'client' || dice.below(2) === 0) return
      connection.outbox.sendHead(stream, [':status', '200'], dice.below(4) === 0)
      connection.outbox.write(stream, Buffer.alloc(dice.of([0, 10, 100_000])))
      if (dice.below(2) === 0) connection.outbox.end(stream, dice.of([undefined, ['x-t', '1']]))
    },
    onData() {
      const stream = get()
      if (stream === undefined) return
      const act = dice.below(8)
      if (act === 0) connection.pause(stream)
      else if (act === 1) connection.reset(stream, 8)
      else if (act === 2) connection.stopPeerAtEnd(stream)
      else if (act === 3) connection.outbox.abort(stream, ['x-t', '1'])
    },
    onEnd() {},
    onDrain() {},
    onReset() {},
  })
  const connection: H2Connection = new H2Connection(
    {
      socket: sink(dice.below(4) === 0),
      nowMs: () => nowMs,
      handler: {
        onStream(stream) {
          seen.streams++
          open.add(stream)
          return owner(() => stream)
        },
        onReady() {},
        onGoaway() {},
        onStreamOver: () => void seen.over++,
        onGone: () => void seen.gone++,
      },
    },
    { role },
  )
  connection.start()
  const parts: Buffer[] = role === 'server' ? [PREFACE] : []
  if (dice.below(20) > 0) parts.push(encodeSettings([]))
  for (let i = dice.below(40); i >= 0; i--) parts.push(randomFrame(dice, 2 * parts.length + 1))
  const bytes = Buffer.concat(parts)
  for (let flips = dice.below(3) === 0 ? dice.below(4) : 0; flips > 0; flips--)
    bytes[dice.below(bytes.length)] = dice.below(256)
  for (let at = 0; at < bytes.length; ) {
    const length = dice.of([1, 7, 100, 20_000])
    if (role === 'client' && dice.below(4) === 0 && connection.room > 0) {
      let stream: H2Stream | undefined
      stream = connection.openStream(
        owner(() => stream),
        [...GET],
        dice.below(2) === 0,
      )
      if (dice.below(2) === 0) connection.outbox.write(stream, Buffer.alloc(70_000))
      open.add(stream)
    }
    connection.push(bytes.subarray(at, at + length))
    at += length
    nowMs += dice.below(3)
    if (dice.below(20) === 0) for (const stream of open) connection.resume(stream)
    if (dice.below(50) === 0) connection.drain()
  }
  expect(connection.streamCount).toBeLessThanOrEqual(256)
  connection.lost('the end')
  expect(seen.gone).toBe(1)
  expect(connection.streamCount).toBe(0)
  for (const stream of open) expect([stream.isOver, stream.queue.length]).toEqual([true, 0])
  return seen
}

describe('whatever a peer sends', () => {
  test('a connection neither throws, nor hangs, nor keeps a stream past its end', () => {
    let streams = 0
    const cases = forSeconds(dice => {
      streams += fuzzConnection(dice).streams
    })
    // Were every connection refused at once, nothing would be tried.
    expect(streams).toBeGreaterThan(cases / 4)
  })

  test('a header block is read or refused, within its limits', () => {
    let read = 0
    forSeconds(dice => {
      const decoder = new HpackDecoder({ tableBytesMax: 4096, listBytesMax: 2000 })
      for (let i = 0; i < 5; i++) {
        const block = dice.below(2) === 0 ? dice.bytes(200) : rawBlock([...GET, 'x', 'y'.repeat(dice.below(300))])
        if (dice.below(2) === 0) block[dice.below(block.length)] = dice.below(256)
        const fields = decoder.decode(block, 0, block.length)
        expect(decoder.tableBytes).toBeLessThanOrEqual(4096)
        if (typeof fields === 'string') return
        read++
        expect(fields.reduce((sum, { bytes }) => sum + bytes, 0)).toBeLessThanOrEqual(2000)
      }
    })
    expect(read).toBeGreaterThan(100)
  })
})

describe('translation into HTTP/1', () => {
  const PIECES = [
    ...[
      '',
      'a',
      'GET',
      '/',
      '/a?b=c',
      'orders',
      'orders.mesh:80',
      'http',
      '*',
      'trailers',
      '5',
      '0',
      ' ',
      '\t',
      '\r\n',
      '\n',
      '\0',
    ],
    ...[
      '\x7f',
      '\xe9',
      ':',
      'chunked',
      'x-a: 1',
      'HTTP/1.1',
      '#',
      '@',
      '%0d%0a',
      '"',
      ',',
      ';',
      '[::1]',
      'a\r\nHost: b',
      '200',
      '2x',
    ],
  ]
  const NAMES = [
    ...[
      ':method',
      ':path',
      ':authority',
      ':scheme',
      ':status',
      ':x',
      'host',
      'cookie',
      'te',
      'content-length',
      'expect',
    ],
    ...['transfer-encoding', 'connection', 'upgrade', 'x-a', 'X-A', 'x a', '', 'x-a\r\nb', 'via', 'content-type'],
  ]
  const fieldsOf = (dice: Dice, first: readonly string[]): HpackField[] => {
    const fields: HpackField[] = []
    const begin = dice.below(10) < 8 ? first : []
    for (let i = 0; i < begin.length; i += 2) {
      const value = dice.below(8) === 0 ? dice.of(PIECES) + dice.of(PIECES) : (begin[i + 1] ?? '')
      fields.push(new HpackField(begin[i] ?? '', value))
    }
    for (let i = dice.below(4); i > 0; i--)
      fields.push(new HpackField(dice.of(NAMES), dice.of(PIECES) + dice.of(PIECES)))
    return fields
  }

  test('a request that is taken is the same request to the strict parser of HTTP/1', () => {
    let taken = 0
    let refused = 0
    forSeconds(dice => {
      const head = readH2Request(fieldsOf(dice, GET), dice.below(2) === 0)
      if (head instanceof Http1Fault) {
        refused++
        expect(head.reason).toMatch(/^[\x20-\x7e]{5,400}$/)
        return
      }
      if (head.method === 'CONNECT') return
      taken++
      const again = decodeRequestHead(forwardRequestHead(head, { add: '' }))
      if (again instanceof Http1Fault) throw new Error(`${again.reason}: ${JSON.stringify(head)}`)
      const { method, target, host, contentLength, chunked } = head
      expect(again).toMatchObject({ method, target, host, contentLength, chunked })
      const own = (fields: readonly string[]): number =>
        fields.filter((name, i) => i % 2 === 0 && /^(x-a|via|cookie)$/.test(name)).length
      expect(own(again.fields)).toBe(own(head.fields))
    })
    expect(taken).toBeGreaterThan(100)
    expect(refused).toBeGreaterThan(100)
  })

  test('so are an answer, and trailers', () => {
    let taken = 0
    forSeconds(dice => {
      const head = readH2Response(fieldsOf(dice, [':status', '200']), dice.of(['GET', 'HEAD']), dice.below(2) === 0)
      const trailers = readH2Trailers(fieldsOf(dice, []), 'bad-answer')
      if (!(trailers instanceof Http1Fault))
        expect(trailers.toString('latin1')).toMatch(/^(?:[^\s:]+: [^\r\n\0]*\r\n)*$/)
      if (head instanceof Http1Fault) return
      taken++
      const framing = { body: 'none', keepAlive: true } as const
      const again = decodeResponseHead(forwardResponseHead(head, 11, framing, { add: '' }))
      if (again instanceof Http1Fault) throw new Error(`${again.reason}: ${JSON.stringify(head)}`)
      expect(again).toMatchObject({ status: head.status, contentLength: head.status === 204 ? -1 : head.contentLength })
    })
    expect(taken).toBeGreaterThan(100)
  })
})
