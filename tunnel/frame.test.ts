import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { CallReset } from '../proxy/call.ts'
import {
  codeOfWireNumber,
  DATA_BYTES_MAX,
  decodeGoAway,
  decodeHello,
  decodeOpen,
  decodeReset,
  encodeGoAway,
  encodeHello,
  encodeReset,
  FRAME,
  FRAME_HEADER_BYTES,
  FRAME_IGNORABLE_FROM,
  FrameDecoder,
  HEAD_BYTES_MAX,
  wireNumberOfCode,
  writeHeader,
} from './frame.ts'
import { FrameBatch } from './frame-batch.ts'

/** Each property runs on its own seed, printed on failure; bounded so that the file takes a second or two. */
const RUNS = { numRuns: 300, seed: 20_261_122 }

interface Seen {
  type: number
  callId: number
  payload: string
}

/** Decodes `bytes` cut at `cuts` and gathers DATA pieces back into frames by call. */
function decode(bytes: Buffer, cuts: readonly number[]): { seen: Seen[]; fault: string | undefined } {
  const seen: Seen[] = []
  let open: Seen | undefined
  const decoder = new FrameDecoder({
    onFrame(type, callId, payload) {
      seen.push({ type, callId, payload: payload.toString('hex') })
      open = undefined
      return undefined
    },
    onDataPiece(callId, piece) {
      if (open?.callId === callId) open.payload += piece.toString('hex')
      else {
        open = { type: FRAME.DATA, callId, payload: piece.toString('hex') }
        seen.push(open)
      }
      return undefined
    },
  })
  const bounds = [...new Set([0, ...cuts.map(cut => cut % (bytes.length + 1)), bytes.length])].sort((a, b) => a - b)
  for (let i = 1; i < bounds.length; i++) {
    const fault = decoder.push(bytes.subarray(bounds[i - 1], bounds[i]))
    if (fault !== undefined) return { seen, fault }
  }
  return { seen, fault: undefined }
}

function header(type: number, callId: number, length: number): Buffer {
  const bytes = Buffer.alloc(FRAME_HEADER_BYTES)
  writeHeader(bytes, 0, type, callId, length)
  return bytes
}

const callFrame = fc.record({
  type: fc.constantFrom(FRAME.HEAD, FRAME.DATA, FRAME.TRAILERS),
  // Neighbouring DATA frames of one call cannot be told apart once cut, so ids differ from frame to frame.
  callId: fc.integer({ min: 1, max: 0xffffffff }),
  payload: fc
    .oneof(fc.uint8Array({ minLength: 1, maxLength: 60 }), fc.uint8Array({ minLength: 4_000, maxLength: 4_200 }))
    .map(bytes => Buffer.from(bytes)),
})

describe('frames', () => {
  it('come out as they went in, wherever the network cuts the bytes', () => {
    const frames = fc.uniqueArray(callFrame, { maxLength: 12, selector: frame => frame.callId })
    fc.assert(
      fc.property(frames, fc.array(fc.nat(), { maxLength: 20 }), (sent, cuts) => {
        const batch = new FrameBatch()
        for (const { type, callId, payload } of sent) batch.add(type, callId, payload)
        const bytes = Buffer.concat(batch.take())
        const { seen, fault } = decode(bytes, cuts)
        expect(fault).toBeUndefined()
        expect(seen).toEqual(sent.map(frame => ({ ...frame, payload: frame.payload.toString('hex') })))
      }),
      RUNS,
    )
  })

  it('come out the same when every byte arrives alone', () => {
    const batch = new FrameBatch()
    batch.addOpen(1, 1, 250, 'orders', Buffer.from('GET / HTTP/1.1\r\n\r\n'))
    batch.add(FRAME.DATA, 1, Buffer.from('body'))
    batch.add(FRAME.END, 1, Buffer.alloc(0))
    const bytes = Buffer.concat(batch.take())
    const alone = decode(
      bytes,
      Array.from({ length: bytes.length }, (_, i) => i),
    )
    expect(alone).toEqual(decode(bytes, []))
    expect(alone.seen.map(({ type }) => type)).toEqual([FRAME.OPEN, FRAME.DATA, FRAME.END])
  })

  it('are never thrown over, whatever the bytes, and decode alike however they are cut', () => {
    const garbage = fc.uint8Array({ maxLength: 400 }).map(bytes => Buffer.from(bytes))
    fc.assert(
      fc.property(garbage, fc.array(fc.nat(), { maxLength: 10 }), (bytes, cuts) => {
        const [whole, cut] = [decode(bytes, []), decode(bytes, cuts)]
        expect(cut.fault).toBe(whole.fault)
        expect(cut.seen).toEqual(whole.seen)
      }),
      RUNS,
    )
  })

  it.each([
    ['DATA over 64 KiB', FRAME.DATA, 1, DATA_BYTES_MAX + 1],
    ['DATA with nothing in it', FRAME.DATA, 1, 0],
    ['a head over 128 KiB', FRAME.HEAD, 1, HEAD_BYTES_MAX + 1],
    ['an opening of 16 MiB', FRAME.OPEN, 1, 0xffffff],
    ['END with a payload', FRAME.END, 1, 1],
    ['WINDOW of 3 bytes', FRAME.WINDOW, 1, 3],
    ['PING of 9 bytes', FRAME.PING, 0, 9],
    ['PING on a call', FRAME.PING, 1, 8],
    ['DATA on the link', FRAME.DATA, 0, 1],
    ['type 0', 0, 1, 1],
    ['an unknown type that may not be ignored', FRAME_IGNORABLE_FROM - 1, 1, 1],
    ['an ignorable type over 64 KiB', FRAME_IGNORABLE_FROM, 1, 64 * 1024 + 1],
  ])('are refused by the header alone: %s', (_name, type, callId, length) => {
    expect(decode(header(type, callId, length), []).fault).toMatch(/^expected /)
  })

  it.each([
    ['DATA of 64 KiB', FRAME.DATA, 1, DATA_BYTES_MAX],
    ['a head of 128 KiB', FRAME.HEAD, 1, HEAD_BYTES_MAX],
    ['END', FRAME.END, 1, 0],
    ['an ignorable type of 64 KiB', 0xff, 7, 64 * 1024],
  ])('are accepted up to the limit: %s', (_name, type, callId, length) => {
    const bytes = Buffer.concat([header(type, callId, length), Buffer.alloc(length)])
    expect(decode(bytes, [1_000, 30_000]).fault).toBeUndefined()
  })

  it('of an unknown ignorable type are skipped, and what follows is read', () => {
    const bytes = Buffer.concat([header(0x90, 5, 3), Buffer.from('abc'), header(FRAME.END, 1, 0)])
    expect(decode(bytes, [9]).seen).toEqual([{ type: FRAME.END, callId: 1, payload: '' }])
  })

  it('give nothing for a frame that ends early', () => {
    expect(decode(Buffer.concat([header(FRAME.HEAD, 1, 100), Buffer.alloc(99)]), [])).toEqual({
      seen: [],
      fault: undefined,
    })
  })
})

describe('a batch', () => {
  it('leaves in one buffer, and in as many as it needs when it is large', () => {
    const batch = new FrameBatch()
    batch.add(FRAME.DATA, 1, Buffer.alloc(60_000, 'a'))
    batch.add(FRAME.END, 1, Buffer.alloc(0))
    expect(batch.take()).toHaveLength(1)
    expect(batch.take()).toEqual([])
    for (let i = 0; i < 5; i++) batch.add(FRAME.DATA, 1, Buffer.alloc(60_000, `${i}`))
    const parts = batch.take()
    expect(parts).toHaveLength(2)
    const bytes = Buffer.concat(parts)
    expect(bytes).toHaveLength(5 * 60_008)
    for (let i = 0; i < 5; i++) expect(bytes.toString('latin1', i * 60_008 + 8, i * 60_008 + 10)).toBe(`${i}${i}`)
  })

  it('leaves alone what it has handed over until it is written', () => {
    const batch = new FrameBatch()
    const takes = [1, 2, 3].map(number => {
      batch.add(FRAME.DATA, 1, Buffer.alloc(5_000, `${number}`))
      return batch.take()
    })
    const read = (): string[] => takes.map(([part]) => part?.toString('latin1', 8, 10) ?? '')
    for (let i = 0; i < 20; i++) batch.add(FRAME.DATA, 1, Buffer.alloc(5_000, 'z'))
    batch.take()
    expect(read()).toEqual(['11', '22', '33'])
    batch.written()
    for (let i = 0; i < 20; i++) batch.add(FRAME.DATA, 1, Buffer.alloc(5_000, 'z'))
    batch.take()
    expect(read()).toEqual(['zz', '22', '33'])
  })

  it('holds no more than its bytes when it is small', () => {
    const batch = new FrameBatch()
    batch.add(FRAME.PING, 0, Buffer.alloc(8))
    const [part] = batch.take()
    expect(part?.buffer.byteLength).toBeLessThanOrEqual(Math.max(Buffer.poolSize, 16))
  })
})

describe('payloads', () => {
  it('of OPEN come out as they went in', () => {
    const name = fc.stringMatching(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/)
    fc.assert(
      fc.property(name, fc.nat(0xffffffff), fc.uint8Array({ maxLength: 6_000 }), (service, timeoutMs, bytes) => {
        const batch = new FrameBatch()
        const head = Buffer.from(bytes)
        batch.addOpen(9, 2, timeoutMs, service, head)
        const payload = Buffer.concat(batch.take()).subarray(FRAME_HEADER_BYTES)
        expect(decodeOpen(payload)).toEqual({ kind: 2, timeoutMs, service, head })
      }),
      RUNS,
    )
  })

  it('of OPEN skip extensions of a newer node', () => {
    const payload = Buffer.concat([Buffer.from([1, 0, 0, 0, 5, 1]), Buffer.from('s\x00\x03abcHEAD', 'latin1')])
    expect(decodeOpen(payload)).toEqual({ kind: 1, timeoutMs: 5, service: 's', head: Buffer.from('HEAD') })
  })

  it.each([
    ['a name that runs past the end', '0100000000ff0000'],
    ['extensions that run past the end', '0100000000000009'],
    ['extensions over the limit', `010000000000ffff${'00'.repeat(0xffff)}`],
  ])('of OPEN are refused: %s', (_name, hex) => {
    expect(decodeOpen(Buffer.from(hex, 'hex'))).toMatch(/^expected /)
  })

  it('of every kind decode garbage to a value or a reason, and never throw', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 10, maxLength: 300 }), bytes => {
        const payload = Buffer.from(bytes)
        expect(['object', 'string']).toContain(typeof decodeOpen(payload))
        expect(['object', 'string']).toContain(typeof decodeHello(payload))
        expect(['object', 'string']).toContain(typeof decodeReset(payload, 'sender'))
        expect(decodeGoAway(payload).reason).not.toMatch(/\p{Cc}/u)
      }),
      RUNS,
    )
  })

  it('of HELLO name the versions when they differ, and refuse windows that cannot work', () => {
    const hello = { callWindowBytes: 262_144, linkWindowBytes: 1 << 24, knowsParallel: true, isParallel: false }
    expect(decodeHello(encodeHello(hello))).toEqual(hello)
    expect(decodeHello(Buffer.concat([encodeHello(hello), Buffer.from('later')]))).toEqual(hello)
    expect(decodeHello(encodeHello({ ...hello, isParallel: true }))).toEqual({ ...hello, isParallel: true })
    // That of a node that knows of no flags.
    expect(decodeHello(encodeHello(hello).subarray(0, 10))).toEqual({ ...hello, knowsParallel: false })
    const next = encodeHello(hello)
    next[0] = 2
    expect(decodeHello(next)).toBe('this node speaks version 1 of the call protocol, the peer 2')
    expect(decodeHello(encodeHello({ ...hello, callWindowBytes: 0 }))).toMatch(/^expected windows of/)
  })

  it('of RESET carry code, node and whether it was executed; a long reason is cut, control characters are taken out', () => {
    const reset: CallReset = { code: 'instance-lost', reason: 'gone', node: '12D3KooWThird', unexecuted: true }
    expect(decodeReset(encodeReset(reset, '12D3KooWMe'), '12D3KooWMe')).toEqual(reset)
    const own = encodeReset({ ...reset, node: '12D3KooWMe', reason: `\x1b[31m${'é'.repeat(2_000)}` }, '12D3KooWMe')
    expect(own.length).toBeLessThan(600)
    const decoded = decodeReset(own, '12D3KooWMe')
    expect(decoded).toMatchObject({ node: '12D3KooWMe' })
    expect(typeof decoded === 'object' && decoded.reason.startsWith(' [31mé')).toBe(true)
  })

  it('of RESET keep the numbers of the codes: they are part of the protocol', () => {
    expect(
      ['bad-request', 'link-lost', 'draining', 'cancelled', 'bad-frame'].map(code => [
        code,
        wireNumberOfCode(code as CallReset['code']),
      ]),
    ).toEqual([
      ['bad-request', 1],
      ['link-lost', 7],
      ['draining', 13],
      ['cancelled', 15],
      ['bad-frame', 18],
    ])
    for (let number = 1; number <= 18; number++) expect(wireNumberOfCode(codeOfWireNumber(number))).toBe(number)
    expect(codeOfWireNumber(200)).toBe('internal')
    expect(wireNumberOfCode('usage')).toBe(wireNumberOfCode('internal'))
  })

  it('of GOAWAY come out as they went in', () => {
    const goAway = { lastId: 0xfffffffe, code: 'draining' as const, reason: 'bye' }
    expect(decodeGoAway(encodeGoAway(goAway))).toEqual(goAway)
  })
})
