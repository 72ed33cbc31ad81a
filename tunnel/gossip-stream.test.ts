import type { Stream } from '@libp2p/interface'
import { streamPair } from '@libp2p/utils'
import fc from 'fast-check'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { GossipStream } from './gossip-stream.ts'

const WAIT = { timeout: 10_000, interval: 5 }
const open: { gossip: GossipStream; raw: Stream }[] = []
afterEach(() => {
  for (const { gossip, raw } of open.splice(0)) {
    gossip.close('the test is over')
    raw.abort(new Error('the test is over'))
  }
})

interface Heard {
  readonly frames: Buffer[]
  readonly closed: string[]
  rtts: number
}

function listen(stream: Stream): { gossip: GossipStream; heard: Heard } {
  const heard: Heard = { frames: [], closed: [], rtts: 0 }
  const handler = {
    onRtt: () => void heard.rtts++,
    onFrame: (bytes: Uint8Array) => void heard.frames.push(Buffer.from(bytes)),
    onClose: (reason: string) => void heard.closed.push(reason),
  }
  const gossip = new GossipStream(stream, handler, () => performance.now())
  gossip.start()
  return { gossip, heard }
}

/** A gossip stream, and the bare other end of it, which says what it likes. */
async function facing(): Promise<{ gossip: GossipStream; heard: Heard; raw: Stream }> {
  const [stream, raw] = await streamPair({ delay: 0 })
  const { gossip, heard } = listen(stream)
  open.push({ gossip, raw })
  return { gossip, heard, raw }
}

async function pair(): Promise<[ReturnType<typeof listen>, ReturnType<typeof listen>]> {
  const [one, other] = await streamPair({ delay: 0 })
  const ends: [ReturnType<typeof listen>, ReturnType<typeof listen>] = [listen(one), listen(other)]
  open.push({ gossip: ends[0].gossip, raw: other }, { gossip: ends[1].gossip, raw: one })
  return ends
}

function message(type: number, bytes: Uint8Array): Buffer {
  const head = Buffer.alloc(5)
  head.writeUInt32BE(1 + bytes.length, 0)
  head[4] = type
  return Buffer.concat([head, bytes])
}

describe('a gossip stream', () => {
  test('frames arrive whole, in order, both ways, whatever their size', async () => {
    const [a, b] = await pair()
    const frames = [0, 1, 70_000, 3, 256 * 1024].map((length, i) => Buffer.alloc(length, i))
    for (const frame of frames) a.gossip.send(frame)
    b.gossip.send(Buffer.from('back'))
    await vi.waitFor(() => expect([a.heard.frames.length, b.heard.frames.length]).toEqual([1, 5]), WAIT)
    for (const [i, frame] of frames.entries()) expect(b.heard.frames[i]?.equals(frame)).toBe(true)
  })

  test('both ends know the round trip soon after they began', async () => {
    const [a, b] = await pair()
    await vi.waitFor(() => expect([a.heard.rtts > 0, b.heard.rtts > 0]).toEqual([true, true]), WAIT)
    expect(a.gossip.heartbeat.rttMs).toBeGreaterThanOrEqual(0)
  })

  test('frames cut anywhere on their way are put together again', async () => {
    const { heard, raw } = await facing()
    const frames = Array.from({ length: 30 }, (_, i) => Buffer.alloc(i * 7, i))
    const bytes = Buffer.concat(frames.map(frame => message(0, frame)))
    const [cuts = []] = fc.sample(fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 300, maxLength: 300 }), {
      seed: 7,
      numRuns: 1,
    })
    for (let at = 0; at < bytes.length; ) {
      const end = at + (cuts.pop() ?? 1000)
      raw.send(bytes.subarray(at, end))
      at = end
    }
    await vi.waitFor(() => expect(heard.frames).toHaveLength(30), WAIT)
    expect(Buffer.concat(heard.frames).equals(Buffer.concat(frames))).toBe(true)
  })

  test.each([
    ['a length of 0', Buffer.from([0, 0, 0, 0, 0])],
    ['a length of 4 GiB', Buffer.from([0xff, 0xff, 0xff, 0xff, 0])],
    ['a length one past the limit', Buffer.from([0, 4, 0, 2, 0])],
    ['a heartbeat of three bytes', message(1, Buffer.alloc(3))],
    ['an answer of five bytes', message(2, Buffer.alloc(5))],
  ])('%s ends the stream once, and nothing is told after it', async (_, bytes) => {
    const { heard, raw } = await facing()
    raw.send(Buffer.concat([bytes, message(0, Buffer.from('late'))]))
    await vi.waitFor(() => expect(heard.closed).toHaveLength(1), WAIT)
    expect(heard.frames).toEqual([])
  })

  test('a seeded stream of noise never throws, and ends the stream or is waited for', async () => {
    for (const noise of fc.sample(fc.uint8Array({ minLength: 1, maxLength: 200 }), { seed: 11, numRuns: 40 })) {
      const { heard, raw } = await facing()
      const longest = noise.length >= 4 && Buffer.from(noise).readUInt32BE(0) > 262_145
      raw.send(noise)
      if (longest) await vi.waitFor(() => expect(heard.closed).toHaveLength(1), WAIT)
    }
  })

  test('an answer to a heartbeat that nobody sent is no round trip', async () => {
    const { heard, raw } = await facing()
    raw.send(Buffer.concat([message(2, Buffer.from([0, 9, 9, 9])), message(0, Buffer.from('after'))]))
    await vi.waitFor(() => expect(heard.frames).toHaveLength(1), WAIT)
    expect(heard.rtts).toBe(0)
  })

  test('a heartbeat is answered with its own number', async () => {
    const { raw } = await facing()
    const got: Buffer[] = []
    raw.addEventListener('message', ({ data }) => void got.push(Buffer.from(data.subarray())))
    raw.send(message(1, Buffer.from([1, 2, 3, 4])))
    await vi.waitFor(() => expect(Buffer.concat(got).includes(message(2, Buffer.from([1, 2, 3, 4])))).toBe(true), WAIT)
  })

  test('gossip for an end that does not read is dropped beyond the limit instead of filling the memory', async () => {
    const { gossip } = await facing()
    for (let i = 0; i < 200; i++) gossip.send(Buffer.alloc(64 * 1024))
    expect(gossip.dropped).toBeGreaterThan(100)
  })

  test.each([
    ['closes its half', (raw: Stream) => void raw.close()],
    ['breaks off', (raw: Stream) => raw.abort(new Error('gone'))],
  ])('the owner is told once when the other end %s, and sending is then lost in silence', async (_, leave) => {
    const { gossip, heard, raw } = await facing()
    leave(raw)
    await vi.waitFor(() => expect(heard.closed).toHaveLength(1), WAIT)
    gossip.send(Buffer.from('nobody'))
    gossip.close('again')
    expect(heard.closed).toHaveLength(1)
  })
})
