import assert from 'node:assert/strict'
import type { Socket } from 'node:net'
import { Duplex } from 'node:stream'
import { H2Connection } from './h2-connection.ts'
import { encodeFrame, encodeNumbersFrame, encodeSettings, FLAG, FRAME, PREFACE } from './h2-frame.ts'
import { readH2Request, readH2Response, readH2Trailers } from './h2-head.ts'
import type { H2Stream } from './h2-stream.ts'
import { HpackDecoder } from './hpack-decoder.ts'
import { HpackField } from './hpack-table.ts'
import { Http1Fault } from './http1-fault.ts'
import { forwardRequestHead, forwardResponseHead } from './http1-forward.ts'
import { decodeRequestHead, decodeResponseHead, type RequestHead } from './http1-head.ts'
import { GET, POST, rawBlock } from './test-h2.ts'

/** mulberry32: small, and the same everywhere. */
export class Dice {
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
export function fuzzConnection(dice: Dice): { streams: number; gone: number; over: number } {
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
  assert.ok(connection.streamCount <= 256, 'no more streams than were granted')
  connection.lost('the end')
  assert.equal(seen.gone, 1, 'the owner hears once that the connection is gone')
  assert.equal(connection.streamCount, 0, 'no stream is kept past the end')
  for (const stream of open)
    assert.deepEqual([stream.isOver, stream.queue.length], [true, 0], 'nothing waits for the dead')
  return seen
}

/** Five header blocks one after the other, until one is refused. Answers how many were read. */
export function fuzzHeaderBlocks(dice: Dice): number {
  const decoder = new HpackDecoder({ tableBytesMax: 4096, listBytesMax: 2000 })
  for (let i = 0; i < 5; i++) {
    const block = dice.below(2) === 0 ? dice.bytes(200) : rawBlock([...GET, 'x', 'y'.repeat(dice.below(300))])
    if (dice.below(2) === 0) block[dice.below(block.length)] = dice.below(256)
    const fields = decoder.decode(block, 0, block.length)
    assert.ok(decoder.tableBytes <= 4096, 'the table stays within its limit')
    if (typeof fields === 'string') return i
    assert.ok(fields.reduce((sum, { bytes }) => sum + bytes, 0) <= 2000, 'a list stays within its limit')
  }
  return 5
}

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
  ...[':method', ':path', ':authority', ':scheme', ':status', ':x', 'host', 'cookie', 'te', 'content-length', 'expect'],
  ...['transfer-encoding', 'connection', 'upgrade', 'x-a', 'X-A', 'x a', '', 'x-a\r\nb', 'via', 'content-type'],
]
const fieldsOf = (dice: Dice, first: readonly string[]): HpackField[] => {
  const fields: HpackField[] = []
  const begin = dice.below(10) < 8 ? first : []
  for (let i = 0; i < begin.length; i += 2) {
    const value = dice.below(8) === 0 ? dice.of(PIECES) + dice.of(PIECES) : (begin[i + 1] ?? '')
    fields.push(new HpackField(begin[i] ?? '', value))
  }
  for (let i = dice.below(4); i > 0; i--) fields.push(new HpackField(dice.of(NAMES), dice.of(PIECES) + dice.of(PIECES)))
  return fields
}

/** A request of HTTP/2 that is taken must be the same request to the strict parser of HTTP/1. */
export function fuzzRequest(dice: Dice): 'taken' | 'refused' | 'other' {
  const head = readH2Request(fieldsOf(dice, GET), dice.below(2) === 0)
  if (head instanceof Http1Fault) {
    assert.match(head.reason, /^[\x20-\x7e]{5,400}$/)
    return 'refused'
  }
  if (head.method === 'CONNECT') return 'other'
  const again = decodeRequestHead(forwardRequestHead(head, { add: '' }))
  if (again instanceof Http1Fault) throw new Error(`${again.reason}: ${JSON.stringify(head)}`)
  const meaning = ({ method, target, host, contentLength, chunked }: RequestHead): unknown[] => [
    ...[method, target, host, contentLength, chunked],
  ]
  assert.deepEqual(meaning(again), meaning(head))
  const own = (fields: readonly string[]): number =>
    fields.filter((name, i) => i % 2 === 0 && /^(x-a|via|cookie)$/.test(name)).length
  assert.equal(own(again.fields), own(head.fields))
  return 'taken'
}

/** The same of an answer, and of trailers. Answers whether the answer was taken. */
export function fuzzResponse(dice: Dice): boolean {
  const head = readH2Response(fieldsOf(dice, [':status', '200']), dice.of(['GET', 'HEAD']), dice.below(2) === 0)
  const trailers = readH2Trailers(fieldsOf(dice, []), 'bad-answer')
  if (!(trailers instanceof Http1Fault)) assert.match(trailers.toString('latin1'), /^(?:[^\s:]+: [^\r\n\0]*\r\n)*$/)
  if (head instanceof Http1Fault) return false
  const framing = { body: 'none', keepAlive: true } as const
  const again = decodeResponseHead(forwardResponseHead(head, 11, framing, { add: '' }))
  if (again instanceof Http1Fault) throw new Error(`${again.reason}: ${JSON.stringify(head)}`)
  assert.deepEqual([again.status, again.contentLength], [head.status, head.status === 204 ? -1 : head.contentLength])
  return true
}

/** One case of each kind. Throws when a promise is not kept. */
export function fuzzH2(seed: number): void {
  for (const run of [fuzzConnection, fuzzHeaderBlocks, fuzzRequest, fuzzResponse]) run(new Dice(seed))
}
