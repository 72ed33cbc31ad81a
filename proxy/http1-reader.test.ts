import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Http1Fault } from './http1-fault.ts'
import type { RequestHead, ResponseHead } from './http1-head.ts'
import { HTTP1_LIMITS } from './http1-limits.ts'
import { type MessageHandler, RequestReader, ResponseReader } from './http1-reader.ts'
import { REQUEST_VECTORS, RESPONSE_VECTORS } from './http1-vectors.ts'

/** Writes events down as text; data that arrives in pieces is one event, so that cutting the input changes nothing. */
class Transcript<H extends RequestHead | ResponseHead> implements MessageHandler<H> {
  readonly events: string[] = []
  readonly data: Buffer[] = []
  fault: Http1Fault | undefined
  head: H | undefined
  afterHead: () => void = () => {}
  afterData: () => void = () => {}
  afterEnd: () => void = () => {}

  onHead(head: H): void {
    this.head = head
    this.events.push(
      `head ${'status' in head ? head.status : `${head.method} ${head.target}`} ${head.fields.join('|')}`,
    )
    this.afterHead()
  }

  onData(chunk: Buffer): void {
    this.data.push(chunk)
    const last = this.events.at(-1) ?? ''
    if (last.startsWith('data ')) this.events[this.events.length - 1] = last + chunk.toString('latin1')
    else this.events.push(`data ${chunk.toString('latin1')}`)
    this.afterData()
  }

  onTrailers(text: Buffer): void {
    this.events.push(`trailers ${text.toString('latin1')}`)
  }

  onEnd(): void {
    this.events.push('end')
    this.afterEnd()
  }

  onError(fault: Http1Fault): void {
    this.fault = fault
    this.events.push(`error ${fault.code}`)
  }
}

type Cut = (bytes: Buffer) => Buffer[]
const whole: Cut = bytes => [bytes]
const byteByByte: Cut = bytes => Array.from(bytes, (_, i) => bytes.subarray(i, i + 1))
const inTwo =
  (at: number): Cut =>
  bytes => [bytes.subarray(0, at), bytes.subarray(at)]

function readRequests(raw: string, cut: Cut): Transcript<RequestHead> {
  const log = new Transcript<RequestHead>()
  const reader = new RequestReader(log)
  log.afterEnd = () => {
    if (log.head?.keepAlive === true && log.head.upgrade === '' && log.head.method !== 'CONNECT') reader.next()
  }
  for (const piece of cut(Buffer.from(raw, 'latin1'))) reader.push(piece)
  reader.finish()
  return log
}

function readAnswer(raw: string, method: string, cut: Cut): Transcript<ResponseHead> {
  const log = new Transcript<ResponseHead>()
  const reader = new ResponseReader(log)
  reader.expect(method)
  for (const piece of cut(Buffer.from(raw, 'latin1'))) reader.push(piece)
  reader.finish()
  return log
}

const GET = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'
const UPGRADE = 'GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n'
const POST = 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc'
const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc'

describe('request vectors', () => {
  it('are at least sixty', () => {
    expect(REQUEST_VECTORS.length).toBeGreaterThanOrEqual(60)
  })

  it.each(REQUEST_VECTORS)('$verdict: $why', ({ raw, verdict }) => {
    const log = readRequests(raw, whole)
    expect(log.fault?.code ?? 'accepted', log.fault?.reason).toBe(verdict)
    if (verdict === 'accepted') expect(log.events.at(-1)).toBe('end')
  })

  it.each(REQUEST_VECTORS)('reads the same byte by byte: $why', ({ raw }) => {
    expect(readRequests(raw, byteByByte).events).toEqual(readRequests(raw, whole).events)
  })
})

describe('response vectors', () => {
  it('are at least thirty', () => {
    expect(RESPONSE_VECTORS.length).toBeGreaterThanOrEqual(30)
  })

  it.each(RESPONSE_VECTORS)('$verdict: $why', ({ raw, method, verdict }) => {
    const log = readAnswer(raw, method, whole)
    expect(log.fault?.code ?? 'accepted', log.fault?.reason).toBe(verdict)
    if (verdict === 'accepted') expect(log.events.at(-1)).toBe('end')
  })
})

describe('cutting the input anywhere changes nothing', () => {
  const short = REQUEST_VECTORS.filter(({ raw }) => raw.length < 300)

  it.each(short)('in a request in two: $why', ({ raw }) => {
    const { events } = readRequests(raw, whole)
    for (let at = 1; at < raw.length; at++) expect(readRequests(raw, inTwo(at)).events).toEqual(events)
  })

  // An answer ends before what follows it came, so only answers that are alone are the same however they are cut.
  const alone = RESPONSE_VECTORS.filter(
    ({ raw, verdict }) => raw.length < 300 && (verdict === 'accepted' || !/\r\n\r\n/.test(raw)),
  )

  it.each(alone)('in an answer in two: $why', ({ raw, method }) => {
    const { events } = readAnswer(raw, method, whole)
    for (let at = 1; at < raw.length; at++) expect(readAnswer(raw, method, inTwo(at)).events).toEqual(events)
  })

  it('for any chunk sizes and any cuts, the body is the body', () => {
    const body = fc.array(fc.string({ minLength: 1, maxLength: 40, unit: 'binary-ascii' }), { maxLength: 8 })
    fc.assert(
      fc.property(body, fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1 }), (chunks, sizes) => {
        const raw = `${chunks.map(chunk => `${chunk.length.toString(16)}\r\n${chunk}\r\n`).join('')}0\r\nX: y\r\n\r\n`
        const log = readRequests(
          `POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n${raw}${GET}`,
          bytes => {
            const pieces: Buffer[] = []
            for (let at = 0, i = 0; at < bytes.length; i++) {
              const to = at + (sizes[i % sizes.length] ?? 1)
              pieces.push(bytes.subarray(at, to))
              at = to
            }
            return pieces
          },
        )
        expect(Buffer.concat(log.data).toString('latin1')).toBe(chunks.join(''))
        expect(log.events.slice(-4)).toEqual(['trailers X: y\r\n', 'end', 'head GET / Host|a', 'end'])
      }),
      { numRuns: 300 },
    )
  })

  it('does not throw, hang or go on after an error for any bytes', () => {
    const chunked = 'Transfer-Encoding: chunked\r\n\r\n'
    const starts = [
      '',
      'POST / HTTP/1.1\r\nHost: a\r\n',
      `POST / HTTP/1.1\r\nHost: a\r\n${chunked}`,
      `HTTP/1.1 200 OK\r\n${chunked}`,
    ]
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ maxLength: 60 }), { maxLength: 5 }),
        fc.constantFrom(...starts),
        (pieces, start) => {
          const bytes = [Buffer.from(start), ...pieces.map(piece => Buffer.from(piece))]
          const raw = Buffer.concat(bytes).toString('latin1')
          for (const { events } of [readRequests(raw, () => bytes), readAnswer(raw, 'GET', () => bytes)]) {
            const errors = events.filter(event => event.startsWith('error'))
            expect(errors.length).toBeLessThanOrEqual(1)
            if (errors.length === 1) expect(events.at(-1)).toBe(errors[0])
          }
        },
      ),
      { numRuns: 500 },
    )
  })
})

describe('RequestReader', () => {
  it('tells a pipelined request only after next()', () => {
    const log = new Transcript<RequestHead>()
    const reader = new RequestReader(log)
    reader.push(Buffer.from(POST + GET))
    expect(log.events).toEqual(['head POST / Host|a|Content-Length|3', 'data abc', 'end'])
    expect(reader.buffered).toBe(GET.length)
    expect(reader.idle).toBe(false)
    reader.next()
    expect(log.events.slice(3)).toEqual(['head GET / Host|a', 'end'])
    expect(reader.buffered).toBe(0)
    reader.next()
    expect(reader.idle).toBe(true)
  })

  it('copies what it keeps, so the owner may use its read buffer again', () => {
    const log = new Transcript<RequestHead>()
    const reader = new RequestReader(log)
    const buffer = Buffer.from(GET + GET.slice(0, 10))
    reader.push(buffer)
    buffer.fill(0x78)
    reader.next()
    const rest = Buffer.from(GET.slice(10))
    reader.push(rest.subarray(0, 5))
    rest.fill(0x78, 0, 5)
    reader.push(rest.subarray(5))
    expect(log.events).toEqual(['head GET / Host|a', 'end', 'head GET / Host|a', 'end'])
  })

  it('hands body bytes on without copying them', () => {
    const log = new Transcript<RequestHead>()
    const reader = new RequestReader(log)
    reader.push(Buffer.from('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n'))
    const chunk = Buffer.from('abcdef')
    reader.push(chunk)
    expect(log.data[0]).toBe(chunk)
  })

  it('reads ten thousand pipelined requests without deepening the stack', () => {
    const log = new Transcript<RequestHead>()
    const reader = new RequestReader(log, { ...HTTP1_LIMITS, heldBytesMax: 1024 * 1024 })
    reader.push(Buffer.from(GET))
    reader.push(Buffer.from(GET.repeat(10_000)))
    log.afterEnd = () => reader.next()
    reader.next()
    expect(log.events.filter(event => event === 'end').length).toBe(10_001)
  })

  it('refuses more bytes ahead of their turn than it may hold', () => {
    const log = new Transcript<RequestHead>()
    const reader = new RequestReader(log, { ...HTTP1_LIMITS, heldBytesMax: 100 })
    reader.push(Buffer.from(GET))
    reader.push(Buffer.alloc(100, 0x78))
    expect(reader.buffered).toBe(100)
    expect(log.fault).toBeUndefined()
    reader.push(Buffer.from('x'))
    expect(log.fault?.code).toBe('bad-request')
    expect(reader.buffered).toBe(0)
  })

  it('hands over the bytes after an upgrade, or reads them as the next request', () => {
    const upgraded = new Transcript<RequestHead>()
    const reader = new RequestReader(upgraded)
    reader.push(Buffer.from(`${UPGRADE}raw`))
    reader.push(Buffer.from(' bytes'))
    expect(upgraded.events.at(-1)).toBe('end')
    expect(reader.takeRest().toString()).toBe('raw bytes')
    reader.push(Buffer.from('ignored'))
    reader.finish()
    expect(upgraded.events.length).toBe(2)

    const refused = new Transcript<RequestHead>()
    const other = new RequestReader(refused)
    other.push(Buffer.from(UPGRADE + GET))
    other.next()
    expect(refused.events.slice(2)).toEqual(['head GET / Host|a', 'end'])
  })

  it('hands over what is left of the very chunk when asked inside onEnd', () => {
    const log = new Transcript<RequestHead>()
    const reader = new RequestReader(log)
    let rest = ''
    log.afterEnd = () => {
      rest = reader.takeRest().toString()
    }
    reader.push(Buffer.from('CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\nraw'))
    expect(rest).toBe('raw')
    expect(log.events.length).toBe(2)
  })

  it.each(['afterHead', 'afterData', 'afterEnd'] as const)('tells nothing more once destroyed in %s', moment => {
    const log = new Transcript<RequestHead>()
    const reader = new RequestReader(log)
    let eventsThen = 0
    log[moment] = () => {
      reader.destroy()
      eventsThen = log.events.length
    }
    reader.push(
      Buffer.from(
        `POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\nabc\r\n0\r\n\r\n${GET}`,
      ),
    )
    reader.push(Buffer.from(GET))
    reader.next()
    reader.finish()
    expect(eventsThen).toBeGreaterThan(0)
    expect(log.events.length).toBe(eventsThen)
  })

  it('reads what its owner pushes from inside a handler after what came before it', () => {
    const log = new Transcript<RequestHead>()
    const reader = new RequestReader(log)
    let nested = false
    log.afterHead = () => {
      if (!nested) reader.push(Buffer.from('def'))
      nested = true
    }
    reader.push(Buffer.from('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc'))
    expect(log.events.slice(1)).toEqual(['data abcdef', 'end'])
  })

  it('says so when the client leaves in the middle, and nothing when it leaves between requests', () => {
    const end = (raw: string) => {
      const log = new Transcript<RequestHead>()
      const reader = new RequestReader(log)
      log.afterEnd = () => reader.next()
      reader.push(Buffer.from(raw))
      reader.finish()
      return log.fault?.code
    }
    expect(end('')).toBeUndefined()
    expect(end(GET)).toBeUndefined()
    expect(end('G')).toBe('bad-request')
    expect(end(POST.slice(0, -1))).toBe('bad-request')
    expect(end(`${GET}GET /`)).toBe('bad-request')
  })

  it('still answers requests that came before the client closed its side', () => {
    const log = new Transcript<RequestHead>()
    const reader = new RequestReader(log)
    reader.push(Buffer.from(GET + POST))
    reader.finish()
    expect(log.events.length).toBe(2)
    reader.next()
    expect(log.events.slice(2)).toEqual(['head POST / Host|a|Content-Length|3', 'data abc', 'end'])
    reader.next()
    expect(log.fault).toBeUndefined()
  })

  it('refuses what is not HTTP at the first byte that shows it, not at a time-out', () => {
    const garbage = [
      '\x16\x03\x01',
      '\0',
      'GET / HTTP/1.1\r\nX: \0',
      'hello\n',
      'GET / HTTP/1.1\r\nX: y\rz',
      'SSH-2.0-x\n',
    ]
    for (const raw of garbage) {
      for (const cut of [whole, byteByByte]) {
        const log = new Transcript<RequestHead>()
        const reader = new RequestReader(log)
        for (const piece of cut(Buffer.from(raw, 'latin1'))) reader.push(piece)
        expect(log.fault?.code, raw).toBe('bad-request')
      }
    }
  })

  it('keeps bytes in order when its owner pushes more from inside onEnd', () => {
    const log = new Transcript<RequestHead>()
    const reader = new RequestReader(log)
    let nested = false
    log.afterEnd = () => {
      if (!nested) reader.push(Buffer.from(POST))
      nested = true
    }
    reader.push(Buffer.from(GET + UPGRADE))
    expect(reader.buffered).toBe(UPGRADE.length + POST.length)
    reader.next()
    reader.next()
    const heads = log.events.filter(event => event.startsWith('head')).map(event => event.split(' ')[2])
    expect(heads).toEqual(['/', '/ws', '/'])
    expect(log.events.at(-2)).toBe('data abc')
  })

  it('reads pipelined requests one next() at a time, with more coming in between', () => {
    const log = new Transcript<RequestHead>()
    const reader = new RequestReader(log)
    reader.push(Buffer.from(POST.repeat(3) + GET.slice(0, 7)))
    reader.next()
    reader.push(Buffer.from(GET.slice(7) + POST))
    for (let i = 0; i < 3; i++) reader.next()
    expect(log.events.filter(event => event.startsWith('data'))).toEqual(Array(4).fill('data abc'))
    expect(log.events.filter(event => event === 'end').length).toBe(5)
    expect(reader.idle).toBe(false)
    reader.next()
    expect(reader.idle).toBe(true)
  })

  it('refuses an endless head that comes in pieces, at its limit', () => {
    const log = new Transcript<RequestHead>()
    const reader = new RequestReader(log)
    reader.push(Buffer.from('GET / HTTP/1.1\r\n'))
    let pushed = 16
    while (log.fault === undefined && pushed < 10 * HTTP1_LIMITS.headBytesMax) {
      reader.push(Buffer.from(`X: ${'y'.repeat(95)}\r\n`))
      pushed += 100
    }
    expect(log.fault?.code).toBe('head-too-large')
    expect(pushed).toBeLessThanOrEqual(HTTP1_LIMITS.headBytesMax + 100)
  })

  it('refuses an endless request line that comes in pieces, at its limit', () => {
    const log = new Transcript<RequestHead>()
    const reader = new RequestReader(log)
    reader.push(Buffer.from('GET /'))
    let pushed = 5
    while (log.fault === undefined && pushed < HTTP1_LIMITS.headBytesMax) {
      reader.push(Buffer.alloc(100, 0x61))
      pushed += 100
    }
    expect(log.fault?.code).toBe('head-too-large')
    expect(pushed).toBeLessThanOrEqual(HTTP1_LIMITS.startLineBytesMax + 105)
  })
})

describe('ResponseReader', () => {
  it('is idle between answers and can be used again', () => {
    const log = new Transcript<ResponseHead>()
    const reader = new ResponseReader(log)
    for (let i = 0; i < 3; i++) {
      expect(reader.idle).toBe(true)
      reader.expect('GET')
      expect(reader.idle).toBe(false)
      reader.push(Buffer.from(OK))
    }
    expect(log.events.filter(event => event === 'end').length).toBe(3)
    expect(reader.idle).toBe(true)
  })

  it('takes any byte on an idle connection for an error', () => {
    const log = new Transcript<ResponseHead>()
    const reader = new ResponseReader(log)
    reader.push(Buffer.from('H'))
    expect(log.events).toEqual(['error bad-answer'])
    expect(reader.idle).toBe(false)
  })

  it('never gives surplus bytes to the next request, even if that is sent from inside onEnd', () => {
    const log = new Transcript<ResponseHead>()
    const reader = new ResponseReader(log)
    let idleAtEnd: boolean | undefined
    log.afterEnd = () => {
      idleAtEnd = reader.idle
      reader.expect('GET')
    }
    reader.expect('GET')
    reader.push(Buffer.from(OK + OK))
    expect(log.events).toEqual(['head 200 Content-Length|3', 'data abc', 'end', 'error bad-answer'])
    expect(idleAtEnd).toBe(false)
  })

  it('tells interim answers and goes on to the final one', () => {
    const log = readAnswer(`HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 H\r\nLink: x\r\n\r\n${OK}`, 'GET', byteByByte)
    expect(log.events).toEqual(['head 100 ', 'head 103 Link|x', 'head 200 Content-Length|3', 'data abc', 'end'])
  })

  it('hands over what follows 101 when an upgrade was asked for', () => {
    const log = new Transcript<ResponseHead>()
    const reader = new ResponseReader(log)
    reader.expect('GET', true)
    reader.push(Buffer.from('HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nraw'))
    expect(log.events).toEqual(['head 101 Connection|upgrade|Upgrade|websocket'])
    expect(reader.idle).toBe(false)
    expect(reader.takeRest().toString()).toBe('raw')
  })

  it('hands over what follows a good answer to CONNECT, and reads a bad one as an answer', () => {
    const log = new Transcript<ResponseHead>()
    const reader = new ResponseReader(log)
    reader.expect('CONNECT')
    log.afterHead = () => expect(reader.takeRest().toString()).toBe('raw')
    reader.push(Buffer.from('HTTP/1.1 200 OK\r\n\r\nraw'))
    expect(log.events).toEqual(['head 200 '])
    expect(readAnswer('HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\nabc', 'CONNECT', whole).events.at(-1)).toBe('end')
  })

  it('is done with the answer to HEAD, 204 and 304 at the head', () => {
    for (const [method, raw] of [
      ['HEAD', 'HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n'],
      ['GET', 'HTTP/1.1 204 No\r\n\r\n'],
      ['GET', 'HTTP/1.1 304 No\r\nTransfer-Encoding: chunked\r\n\r\n'],
    ] as const) {
      const log = new Transcript<ResponseHead>()
      const reader = new ResponseReader(log)
      reader.expect(method)
      reader.push(Buffer.from(raw))
      expect(log.events.at(-1), raw).toBe('end')
      expect(reader.idle).toBe(true)
    }
  })

  it('ends a body without length only when the connection ends, and is never idle again', () => {
    const log = new Transcript<ResponseHead>()
    const reader = new ResponseReader(log)
    reader.expect('GET')
    reader.push(Buffer.from('HTTP/1.1 200 OK\r\n\r\nabc'))
    reader.push(Buffer.from('def'))
    expect(log.events).toEqual(['head 200 ', 'data abcdef'])
    reader.finish()
    expect(log.events.at(-1)).toBe('end')
    expect(reader.idle).toBe(false)
  })

  it('calls an answer cut short what it is', () => {
    for (let cut = 0; cut < OK.length; cut++) {
      expect(readAnswer(OK.slice(0, cut), 'GET', whole).events.at(-1), `${cut}`).toBe('error bad-answer')
    }
  })
})
