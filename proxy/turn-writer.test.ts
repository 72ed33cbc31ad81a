import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { seededBelow } from './http1-generate.ts'
import { TurnWriter } from './turn-writer.ts'

const cleanups: (() => void)[] = []
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup()
})

async function pair(): Promise<{ near: Socket; far: Socket }> {
  const server = createServer()
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const near = connect((server.address() as AddressInfo).port, '127.0.0.1')
  const [far] = (await once(server, 'connection')) as [Socket]
  cleanups.push(() => {
    near.destroy()
    far.destroy()
    server.close()
  })
  return { near, far }
}

describe('a writer that gathers the pieces of a turn', () => {
  it('keeps their order and their bytes, whatever their sizes, for a reader that falls behind', async () => {
    const { near, far } = await pair()
    const below = seededBelow(7)
    const writer = new TurnWriter(near)
    const sent: Buffer[] = []
    const shared = Buffer.alloc(32 * 1024)
    for (let turn = 0; turn < 200; turn++) {
      for (let i = below(6); i >= 0; i--) {
        const length = [1, 100, 4_096, 5_000, 32 * 1024, 40_000, 70_000][below(7)] ?? 1
        const piece = length <= shared.length ? shared.subarray(0, length) : Buffer.alloc(length)
        piece.fill(below(256))
        sent.push(Buffer.from(piece))
        writer.write(piece)
        // What was small enough to be copied may be used again at once.
        shared.fill(0)
      }
      if (below(3) === 0) await new Promise(resolve => setImmediate(resolve))
    }
    writer.end()
    const chunks: Buffer[] = []
    for await (const chunk of far) chunks.push(chunk as Buffer)
    expect(Buffer.concat(chunks).equals(Buffer.concat(sent))).toBe(true)
  })

  it('makes one write of what comes in one turn', async () => {
    const { near, far } = await pair()
    const writer = new TurnWriter(near)
    const chunks: Buffer[] = []
    far.on('data', chunk => chunks.push(chunk))
    for (let i = 0; i < 50; i++) writer.write(Buffer.from(`${i % 10}`))
    expect(near.bytesWritten).toBe(0)
    await once(far, 'data')
    expect(chunks.map(String)).toEqual(['0123456789'.repeat(5)])
  })

  // What is small passes the socket's stream by, and waits below it.
  it.each([4, 32])('holds no more than its bytes for a reader that stopped after writes of %i KiB', async kibibytes => {
    const { near } = await pair()
    const writer = new TurnWriter(near)
    const { _handle: handle } = near as unknown as { _handle: { writeQueueSize: number } }
    while (handle.writeQueueSize === 0) {
      writer.write(Buffer.alloc(kibibytes * 1024))
      await new Promise(resolve => setImmediate(resolve))
    }
    const before = process.memoryUsage().arrayBuffers
    for (let i = 0; i < 500; i++) {
      writer.write(Buffer.from('tick'))
      await new Promise(resolve => setImmediate(resolve))
    }
    // 500 rooms of 64 KiB would be 32 MB.
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(4 * 1024 * 1024)
  })
})
