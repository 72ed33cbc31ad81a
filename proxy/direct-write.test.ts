import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { afterEach, expect, test } from 'vitest'
import { findWriteRequest, writeDirectly } from './direct-write.ts'

const cleanups: (() => void)[] = []
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup()
})

async function pair(): Promise<{ near: Socket; far: Socket }> {
  const server = createServer({ allowHalfOpen: true })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const near = connect((server.address() as AddressInfo).port, '127.0.0.1')
  const [far] = (await once(server, 'connection')) as [Socket]
  if (near.connecting) await once(near, 'connect')
  near.on('error', () => {})
  far.on('error', () => {})
  cleanups.push(() => {
    near.destroy()
    far.destroy()
    server.close()
  })
  return { near, far }
}

/** Writes pieces of text until the kernel takes no more; answers all that was given, the last piece not yet taken. */
function fill(near: Socket, onWritten: () => void): string {
  let given = ''
  for (let i = 0; i < 100_000; i++) {
    const piece = `${i} `.repeat(500)
    given += piece
    const done = writeDirectly(near, Buffer.from(piece), onWritten)
    if (done === 'waiting') return given
    expect(done).toBe('written')
  }
  throw new Error('the kernel takes everything')
}

test('this Node makes of a write what is expected: else every small message would pass the stream again', () => {
  expect(findWriteRequest()).not.toBe('none')
})

test('what is written passes the stream by, and arrives before what is written to the socket later', async () => {
  const { near, far } = await pair()
  let text = ''
  far.setEncoding('latin1').on('data', part => {
    text += part
  })
  expect(writeDirectly(near, Buffer.from('one '), () => {})).toBe('written')
  near.write('two ')
  expect(writeDirectly(near, Buffer.from('three '), () => {})).toBe('written')
  near.end('four')
  await once(far, 'end')
  expect(text).toBe('one two three four')
  expect(near.bytesWritten).toBe(18)
})

test('what the kernel does not take waits, in order, and is told of when it has left; end waits for it too', async () => {
  const { near, far } = await pair()
  let written = 0
  const given = fill(near, () => written++)
  near.write('and more')
  near.end()
  expect(written).toBe(0)
  let text = ''
  far.setEncoding('latin1').on('data', part => {
    text += part
  })
  await once(far, 'end')
  expect(text).toBe(`${given}and more`)
  expect(written).toBe(1)
})

test.each([
  'here',
  'there',
])('a connection that is torn down %s while something waits gives the bytes back', async where => {
  const { near, far } = await pair()
  const written = new Promise<void>(resolve => void fill(near, resolve))
  if (where === 'here') near.destroy()
  else far.resetAndDestroy()
  await written
  if (!near.closed) await once(near, 'close')
})

test('a socket that cannot take it now is left to the usual way, which tells what is wrong', async () => {
  const { near } = await pair()
  const waiting = (socket: Socket) => writeDirectly(socket, Buffer.from('x'), () => {})
  const early = connect((near.remotePort as number) ?? 0, '127.0.0.1')
  early.on('error', () => {})
  expect(waiting(early)).toBe('no')
  early.destroy()
  expect(writeDirectly(near, Buffer.from('x'), () => {}, 'none')).toBe('no')
  near.write(Buffer.alloc(64 * 1024 * 1024))
  expect(waiting(near)).toBe('no')
  near.destroy()
  expect(waiting(near)).toBe('no')
})
