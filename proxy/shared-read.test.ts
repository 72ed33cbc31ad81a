import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { afterEach, describe, expect, test } from 'vitest'
import { findOnreadKeys, READ, readShared } from './shared-read.ts'

const open: { destroy(): void }[] = []
afterEach(() => {
  for (const one of open.splice(0)) one.destroy()
})

/** Both ends of a connection: who dialled, and who accepted. */
async function pair(): Promise<[dialled: Socket, accepted: Socket]> {
  const server = createServer({ allowHalfOpen: true })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const dialled = connect((server.address() as AddressInfo).port, '127.0.0.1')
  const [accepted] = (await once(server, 'connection')) as [Socket]
  server.close()
  open.push(dialled, accepted)
  return [dialled, accepted]
}

/** What differs from byte to byte and from read to read. */
function pattern(bytes: number): Buffer {
  return Buffer.from(Uint32Array.from({ length: bytes / 4 }, (_, i) => i).buffer)
}

test('this version of Node keeps `onread` where it can be given to accepted sockets', () => {
  expect(findOnreadKeys()).not.toBe('none')
})

test('bytes come in the one buffer', async () => {
  const [dialled, accepted] = await pair()
  const heard: [isShared: boolean, text: string][] = []
  readShared(accepted, (chunk, end) => heard.push([chunk === READ, chunk.toString('latin1', 0, end)]))
  dialled.end('hello')
  await once(accepted, 'end')
  expect(heard).toEqual([[true, 'hello']])
})

test('what was read before comes too, as an event, and before the rest', async () => {
  const [dialled, accepted] = await pair()
  dialled.write('early')
  while (accepted.readableLength === 0) await new Promise(setImmediate)
  const heard: [isShared: boolean, text: string][] = []
  readShared(accepted, (chunk, end) => heard.push([chunk === READ, chunk.toString('latin1', 0, end)]))
  dialled.end(' and late')
  await once(accepted, 'end')
  expect(heard).toEqual([
    [false, 'early'],
    [true, ' and late'],
  ])
})

test('what was read before is left to who comes after, if that is at once', async () => {
  const [dialled, accepted] = await pair()
  dialled.write('early')
  while (accepted.readableLength === 0) await new Promise(setImmediate)
  const heard: string[] = []
  const giveBack = readShared(accepted, () => heard.push('not for this one'))
  giveBack()
  accepted.on('data', chunk => heard.push(String(chunk)))
  dialled.end(' and late')
  await once(accepted, 'end')
  expect(heard.join('')).toBe('early and late')
})

test('who comes after can have it read into the same buffer', async () => {
  const [dialled, accepted] = await pair()
  const heard: [isShared: boolean, text: string][] = []
  const giveBack = readShared(accepted, (_, end) => {
    heard.push([false, String(end)])
    giveBack()
    readShared(accepted, (chunk, to) => heard.push([chunk === READ, chunk.toString('latin1', 0, to)]))
    dialled.end('two')
  })
  dialled.write('one')
  await once(accepted, 'end')
  expect(heard).toEqual([
    [false, '3'],
    [true, 'two'],
  ])
})

describe.each([
  { way: 'one buffer', keys: findOnreadKeys() },
  { way: 'data events', keys: 'none' as const },
])('by $way', ({ keys }) => {
  test('all comes in order, nothing while the reader has paused, and then the end', async () => {
    const [dialled, accepted] = await pair()
    const sent = pattern(4 * 1024 * 1024)
    const chunks: Buffer[] = []
    let isPaused = false
    const onBytes = (chunk: Buffer, end: number): void => {
      expect(isPaused).toBe(false)
      chunks.push(Buffer.from(chunk.subarray(0, end)))
      isPaused = true
      accepted.pause()
      // Two turns: between them the event loop would read.
      setImmediate(() => {
        setImmediate(() => {
          isPaused = false
          accepted.resume()
        })
      })
    }
    readShared(accepted, onBytes, READ, keys)
    dialled.end(sent)
    await once(accepted, 'end')
    expect(Buffer.concat(chunks).equals(sent)).toBe(true)
  })

  test('who comes after gets `data` events, in buffers of its own', async () => {
    const [dialled, accepted] = await pair()
    const first: string[] = []
    const second: Buffer[] = []
    const onBytes = (chunk: Buffer, end: number): void => {
      first.push(chunk.toString('latin1', 0, end))
      giveBack()
      accepted.on('data', (later: Buffer) => {
        second.push(later)
        if (second.length === 1) dialled.end('three')
      })
      dialled.write('two')
    }
    const giveBack = readShared(accepted, onBytes, READ, keys)
    dialled.write('one')
    await once(accepted, 'end')
    expect([first, second.map(String)]).toEqual([['one'], ['two', 'three']])
  })

  test('who comes after can wait before it reads, and loses nothing', async () => {
    const [dialled, accepted] = await pair()
    const sent = pattern(1024 * 1024)
    const chunks: Buffer[] = []
    const taken = new Promise<void>(resolve => {
      const onBytes = (chunk: Buffer, end: number): void => {
        chunks.push(Buffer.from(chunk.subarray(0, end)))
        giveBack()
        accepted.pause()
        resolve()
      }
      const giveBack = readShared(accepted, onBytes, READ, keys)
    })
    dialled.end(sent)
    await taken
    await new Promise(setImmediate)
    accepted.on('data', (chunk: Buffer) => chunks.push(chunk))
    accepted.resume()
    await once(accepted, 'end')
    expect(Buffer.concat(chunks).equals(sent)).toBe(true)
  })
})
