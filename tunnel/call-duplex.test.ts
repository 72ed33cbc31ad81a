import { afterEach, expect, test, vi } from 'vitest'
import type { Call, CallHandler, CallReset } from '../proxy/call.ts'
import { createLocalCall } from '../proxy/local-call.ts'
import { rethrow } from '../proxy/rethrow-fixture.ts'
import { CallDuplex } from './call-duplex.ts'

/** What the other end of a stream's call is told. */
class Far implements CallHandler {
  readonly told: string[] = []
  readonly call: Call

  constructor(call: Call) {
    this.call = call
    call.handler = this
  }
  onHead(): void {}
  onTrailers(): void {}
  onDrain(): void {}
  onData(bytes: Buffer): void {
    this.told.push(bytes.toString())
  }
  onEnd(): void {
    this.told.push('end')
  }
  onReset({ code }: CallReset): void {
    this.told.push(`reset ${code}`)
  }
}

/** The turns of the event loop go on. */
const TIMERS = { toFake: ['setTimeout', 'clearTimeout'] } satisfies Parameters<typeof vi.useFakeTimers>[0]
afterEach(() => vi.useRealTimers())

const turn = (): Promise<void> => new Promise(resolve => setImmediate(() => setImmediate(resolve)))

function streamTo(): { stream: CallDuplex; far: Far } {
  const [mine, theirs] = createLocalCall(rethrow)
  return { stream: new CallDuplex(mine, 'a'), far: new Far(theirs) }
}

test('what was written before a stream was closed in order arrives whole: no reset overtakes it', async () => {
  const { stream, far } = streamTo()
  stream.once('finish', () => stream.destroy())
  stream.write('last words')
  stream.end()
  await turn()
  expect([stream.destroyed, far.told]).toEqual([true, ['last words', 'end']])
  far.call.end()
  await turn()
  expect(far.told).toEqual(['last words', 'end'])
})

test('who reads the end of a stream and closes its own is heard: nothing lingers', async () => {
  vi.useFakeTimers(TIMERS)
  const { stream, far } = streamTo()
  stream.once('finish', () => stream.destroy())
  stream.end('bye')
  await turn()
  expect(vi.getTimerCount()).toBe(1)
  far.call.reset({ code: 'cancelled', reason: 'closed', node: 'b', unexecuted: false })
  await turn()
  expect(stream.resetBy?.code).toBe('cancelled')
  expect(vi.getTimerCount()).toBe(0)
})

test('an end that says nothing after the last word is reset in the end', async () => {
  vi.useFakeTimers(TIMERS)
  const { stream, far } = streamTo()
  stream.once('finish', () => stream.destroy())
  stream.end('bye')
  await turn()
  vi.advanceTimersByTime(1999)
  await turn()
  expect(far.told).toEqual(['bye', 'end'])
  vi.advanceTimersByTime(1)
  await turn()
  expect(far.told).toEqual(['bye', 'end', 'reset cancelled'])
})

test('a stream that is given up before its end resets its call at once', async () => {
  const { stream, far } = streamTo()
  stream.destroy()
  await turn()
  expect(far.told).toEqual(['reset cancelled'])
})
