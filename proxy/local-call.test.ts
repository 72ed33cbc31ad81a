import { afterEach, expect, test } from 'vitest'
import { CALL_WINDOW_BYTES, type Call, type CallHandler, type CallReset } from './call.ts'
import { createLocalCall } from './local-call.ts'

/** The promises of `Call` as tunnel/call-contract.ts checks them over links, for the call that has no link. */
class Witness implements CallHandler {
  readonly events: string[] = []
  readonly call: Call
  bytes = 0
  drains = 0
  isInside = false

  constructor(call: Call) {
    this.call = call
    call.handler = this
  }
  onHead(head: Buffer): void {
    this.events.push(`head ${head}`)
  }
  onData(chunk: Buffer): void {
    this.bytes += chunk.length
    if (this.events.at(-1) !== 'data') this.events.push('data')
  }
  onTrailers(trailers: Buffer): void {
    this.events.push(`trailers ${trailers}`)
  }
  onEnd(): void {
    this.events.push('end')
  }
  onDrain(): void {
    this.drains++
  }
  onReset(reset: CallReset): void {
    this.events.push(`reset ${reset.code}`)
  }
}

const CANCEL: CallReset = { code: 'cancelled', reason: 'left', node: 'a', unexecuted: false }
const bytes = (text: string): Buffer => Buffer.from(text)
/** Everything that was sent until now has been told by then. */
const turn = (): Promise<void> => new Promise(resolve => setImmediate(() => setImmediate(resolve)))

const thrown: unknown[] = []
const onThrown = (error: unknown): void => void thrown.push(error)
afterEach(() => expect(thrown.splice(0)).toEqual([]))

function pair(): [Witness, Witness] {
  const [opener, acceptor] = createLocalCall(onThrown)
  return [new Witness(opener), new Witness(acceptor)]
}

test('heads, data, trailers and ends arrive in order, both ways', async () => {
  const [opener, acceptor] = pair()
  opener.call.write(bytes('question'))
  opener.call.sendTrailers(bytes('x: 1\r\n'))
  opener.call.end()
  acceptor.call.sendHead(bytes('103'))
  acceptor.call.sendHead(bytes('200'))
  acceptor.call.write(bytes('answer'))
  acceptor.call.end()
  await turn()
  expect(acceptor.events).toEqual(['data', 'trailers x: 1\r\n', 'end'])
  expect(opener.events).toEqual(['head 103', 'head 200', 'data', 'end'])
})

test('one direction stays open after the other has ended', async () => {
  const [opener, acceptor] = pair()
  opener.call.end()
  await turn()
  acceptor.call.write(bytes('late'))
  await turn()
  expect(opener.events).toEqual(['data'])
  acceptor.call.end()
  await turn()
  expect([opener.events, acceptor.events]).toEqual([['data', 'end'], ['end']])
  acceptor.call.reset(CANCEL)
  await turn()
  expect(opener.events).toEqual(['data', 'end'])
})

test('a reset is told to the other end, with nothing after it, and the resetting end hears nothing more', async () => {
  const [opener, acceptor] = pair()
  acceptor.call.write(bytes('on its way'))
  opener.call.write(bytes('on its way'))
  opener.call.reset(CANCEL)
  acceptor.call.write(bytes('no-op'))
  acceptor.call.end()
  await turn()
  expect([opener.events, acceptor.events]).toEqual([[], ['reset cancelled']])
})

test('two resets that cross end the call at both ends, and neither end hears of the other', async () => {
  const [opener, acceptor] = pair()
  opener.call.reset(CANCEL)
  acceptor.call.reset(CANCEL)
  await turn()
  expect([opener.events, acceptor.events]).toEqual([[], []])
})

test('no event is delivered from inside a method of the call', () => {
  const [opener, acceptor] = pair()
  acceptor.call.sendHead(bytes('200'))
  acceptor.call.write(Buffer.alloc(CALL_WINDOW_BYTES + 1))
  acceptor.call.end()
  opener.call.pause()
  opener.call.resume()
  opener.call.reset(CANCEL)
  expect([opener.events, acceptor.events]).toEqual([[], []])
})

test('what comes before the handler was set is kept until the end of the turn', async () => {
  const [opener, call] = createLocalCall(onThrown)
  opener.write(bytes('first'))
  opener.end()
  const seen = await new Promise<Witness>(resolve => {
    queueMicrotask(() => queueMicrotask(() => queueMicrotask(() => resolve(new Witness(call)))))
  })
  await turn()
  expect([seen.bytes, seen.events]).toEqual([5, ['data', 'end']])
})

test('a reset that comes before the handler was set is kept as well', async () => {
  const [opener, call] = createLocalCall(onThrown)
  opener.reset(CANCEL)
  await Promise.resolve()
  await Promise.resolve()
  const seen = new Witness(call)
  await turn()
  expect(seen.events).toEqual(['reset cancelled'])
})

test('a paused reader stops its sender after a window, and the sender is told when to go on', async () => {
  const [opener, acceptor] = pair()
  acceptor.call.pause()
  let written = 0
  while (written < 10_000_000 && opener.call.write(Buffer.alloc(50_000))) written += 50_000
  expect(written).toBeLessThan(CALL_WINDOW_BYTES)
  await turn()
  expect([acceptor.bytes, opener.drains]).toEqual([0, 0])
  expect(opener.call.write(Buffer.alloc(0))).toBe(false)
  acceptor.call.resume()
  await turn()
  expect([acceptor.bytes, opener.drains]).toEqual([written + 50_000, 1])
  expect(opener.call.write(Buffer.alloc(1))).toBe(true)
})

test('a reader may pause from inside an event, and hears nothing until it resumes', async () => {
  const [opener, acceptor] = pair()
  acceptor.onData = chunk => {
    acceptor.bytes += chunk.length
    acceptor.call.pause()
  }
  for (let i = 0; i < 3; i++) opener.call.write(bytes('x'))
  opener.call.end()
  await turn()
  expect(acceptor.bytes).toBe(1)
  acceptor.call.resume()
  await turn()
  expect([acceptor.bytes, acceptor.events]).toEqual([2, []])
  acceptor.call.resume()
  acceptor.call.resume()
  await turn()
  acceptor.call.resume()
  await turn()
  expect([acceptor.bytes, acceptor.events]).toEqual([3, ['end']])
})

test('a handler that throws ends its own call at both ends instead of the process, and what it threw is told', async () => {
  const [opener, acceptor] = pair()
  const failed = new Error('handler failed')
  acceptor.onData = () => {
    throw failed
  }
  opener.call.write(bytes('x'))
  opener.call.end()
  await turn()
  expect([opener.events, acceptor.events]).toEqual([['reset internal'], ['reset internal']])
  expect(thrown.splice(0)).toEqual([failed])
})

test('what a handler throws at the reset of its call is told as well', async () => {
  const [opener, acceptor] = pair()
  const failed = new Error('handler failed')
  acceptor.onReset = () => {
    throw failed
  }
  opener.call.reset(CANCEL)
  await turn()
  expect(thrown.splice(0)).toEqual([failed])
})

test('an instance that never stops to begin its answer cannot fill the memory', async () => {
  const [opener, acceptor] = pair()
  opener.call.pause()
  for (let i = 0; i < 1000; i++) acceptor.call.sendHead(bytes('103'))
  await turn()
  expect([opener.events, acceptor.events]).toEqual([['reset bad-answer'], ['reset bad-answer']])
})
