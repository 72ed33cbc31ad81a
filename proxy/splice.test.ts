import net from 'node:net'
import { afterEach, expect, test } from 'vitest'
import { createLocalCall } from './local-call.ts'
import { rethrow } from './rethrow-fixture.ts'
import { resetSocket, Splice } from './splice.ts'
import { TestPlaces, waitUntil } from './test-places.ts'

const mesh = new TestPlaces()
afterEach(() => mesh.stop())

/** A splice of a real connection and a call, and what is at their other ends. */
async function createSplice() {
  const sockets: net.Socket[] = []
  const server = net.createServer({ allowHalfOpen: true }, socket => void sockets.push(socket))
  const [host = '', port] = (await mesh.listen(server)).split(':')
  const peer = net.connect({ host, port: Number(port), allowHalfOpen: true })
  mesh.onStop(() => peer.destroy())
  await waitUntil('the connection is there', () => sockets.length === 1)
  const [socket] = sockets
  if (socket === undefined) throw new Error('expected a connection')
  const [mine, theirs] = createLocalCall(rethrow)
  let heardBytes = 0
  theirs.handler = {
    ...{ onHead() {}, onTrailers() {}, onEnd() {}, onDrain() {}, onReset() {} },
    onData: chunk => {
      heardBytes += chunk.length
    },
  }
  let isGone = false
  const onGone = (): void => {
    isGone = true
  }
  const owner = { onHead() {}, onReset: () => false, onGone }
  const splice = new Splice(socket, owner, { code: 'cancelled', node: '', who: '' }, false)
  splice.start()
  splice.attach(mine)
  return { splice, peer, theirs, heard: () => heardBytes, isGone: () => isGone }
}

test('is silent when nothing has moved in either direction for the time given, and not before', async () => {
  const { splice, peer, theirs, heard } = await createSplice()
  expect([0, 999].map(nowMs => splice.tick(nowMs, 1000))).toEqual([true, true])
  peer.write('up')
  await waitUntil('it moved up', () => heard() === 2)
  expect([1500, 2499].map(nowMs => splice.tick(nowMs, 1000))).toEqual([true, true])
  let down = ''
  peer.on('data', chunk => {
    down += chunk
  })
  theirs.write(Buffer.from('down'))
  await waitUntil('it moved down', () => down === 'down')
  expect([3000, 3999, 4000].map(nowMs => splice.tick(nowMs, 1000))).toEqual([true, true, false])
  peer.end()
  await waitUntil('an end is a movement', () => splice.tick(5000, 1000))
  expect(splice.tick(6000, 1000)).toBe(false)
})

test('lets what the socket said last leave before it resets the call', async () => {
  const { peer, splice } = await createSplice()
  const log: string[] = []
  const [call] = createLocalCall(rethrow)
  splice.attach({
    ...{ handler: call.handler, sendHead() {}, sendTrailers() {}, end() {}, pause() {}, resume() {} },
    // As a link does: what is written leaves at the end of the turn.
    write: chunk => {
      setImmediate(() => log.push(`left ${chunk.length}`))
      return true
    },
    reset: ({ code }) => void log.push(code),
  })
  peer.write(Buffer.alloc(65_536))
  peer.resetAndDestroy()
  await waitUntil('both were told', () => log.length === 2)
  expect(log).toEqual(['left 65536', 'cancelled'])
})

test('is over when a reset follows the end of the call in the same turn, and so is the connection', async () => {
  const { peer, theirs, isGone } = await createSplice()
  let error = ''
  peer.on('error', ({ message }) => {
    error = message
  })
  peer.resume()
  theirs.end()
  queueMicrotask(() => theirs.reset({ code: 'cancelled', reason: 'left', node: '', unexecuted: false }))
  await waitUntil('the socket is closed', isGone)
  await waitUntil('its other end hears of it', () => {
    peer.write('still there?')
    return error !== ''
  })
  expect(error).toMatch(/ECONNRESET|EPIPE/)
})

test('a connection that is reset while it is being made, after all was said on it, is closed', async () => {
  const [host = '', port] = (await mesh.listen(net.createServer())).split(':')
  const socket = net.connect({ host, port: Number(port) })
  let isClosed = false
  socket.on('error', () => {})
  socket.on('close', () => {
    isClosed = true
  })
  socket.end('all')
  resetSocket(socket)
  await waitUntil('it is closed', () => isClosed)
})

test('is never silent when the time is 0', async () => {
  const { splice } = await createSplice()
  expect([0, 1e12].map(nowMs => splice.tick(nowMs, 0))).toEqual([true, true])
})
