import { describe, expect, it } from 'vitest'
import type { Call, CallHandler, CallReset } from '../proxy/call.ts'
import { until, Witness } from './call-contract.ts'
import { NO_HANDLER } from './link-call.ts'
import { PendingCall } from './pending-call.ts'

const OPEN = { service: 'orders', kind: 'http', timeoutMs: 1_000, head: Buffer.from('GET / HTTP/1.1\r\n\r\n') } as const
const GONE: CallReset = { code: 'unreachable', reason: 'no link', node: 'here', unexecuted: true }

/** Notes what is asked of it; `room` false: every write is one too many. */
class FakeCall implements Call {
  handler: CallHandler = NO_HANDLER
  readonly asked: string[] = []
  room = true
  sendHead(head: Buffer): void {
    this.asked.push(`head ${head}`)
  }
  write(chunk: Buffer): boolean {
    this.asked.push(`data ${chunk.length}`)
    return this.room
  }
  sendTrailers(trailers: Buffer): void {
    this.asked.push(`trailers ${trailers}`)
  }
  end(): void {
    this.asked.push('end')
  }
  reset(reset: CallReset): void {
    this.asked.push(`reset ${reset.code}`)
  }
  pause(): void {
    this.asked.push('pause')
  }
  resume(): void {
    this.asked.push('resume')
  }
}

function pending(): { call: PendingCall; left: () => number } {
  let left = 0
  const call = new PendingCall(OPEN, 0, () => {
    left += 1
  })
  return { call, left: () => left }
}

describe('a call that waits for its link', () => {
  it('hands over what was sent meanwhile, in order, and passes everything on from then', () => {
    const { call } = pending()
    const witness = new Witness(call)
    call.write(Buffer.alloc(10))
    call.pause()
    call.sendTrailers(Buffer.from('a: b'))
    call.end()
    call.write(Buffer.alloc(20))
    const real = new FakeCall()
    call.attach(real)
    expect(real.asked).toEqual(['data 10', 'trailers a: b', 'end', 'pause'])
    expect(real.handler).toBe(witness)
    call.resume()
    call.sendHead(Buffer.from('x'))
    call.reset(GONE)
    expect(real.asked.slice(4)).toEqual(['resume', 'head x', 'reset unreachable'])
    const other = new Witness(call)
    expect(real.handler).toBe(other)
  })

  it('takes 64 KiB, and says when there is room for more', async () => {
    const { call } = pending()
    const witness = new Witness(call)
    expect([call.write(Buffer.alloc(65_535)), call.write(Buffer.alloc(1))]).toEqual([true, false])
    call.attach(new FakeCall())
    expect(witness.drains).toBe(0)
    await until(() => witness.drains === 1, 'it says so, in a later turn')
    const full = pending()
    const other = new Witness(full.call)
    full.call.write(Buffer.alloc(70_000))
    const real = new FakeCall()
    real.room = false
    full.call.attach(real)
    await new Promise(resolve => setImmediate(resolve))
    expect(other.drains).toBe(0)
  })

  it('takes the time it waited off the time it has', () => {
    const { call } = pending()
    expect(call.openNow(400).timeoutMs).toBe(600)
    expect(call.openNow(4_000).timeoutMs).toBe(1)
    expect(new PendingCall({ ...OPEN, timeoutMs: 0 }, 0, () => {}).openNow(4_000).timeoutMs).toBe(0)
  })

  it('is over once: reset by its holder it hears nothing more, failed it does nothing more', () => {
    const given = pending()
    const witness = new Witness(given.call)
    given.call.reset(GONE)
    given.call.reset(GONE)
    given.call.fail(GONE)
    const real = new FakeCall()
    given.call.attach(real)
    expect([given.left(), witness.events, real.asked]).toEqual([1, [], []])
    const failed = pending()
    const told = new Witness(failed.call)
    failed.call.fail(GONE)
    failed.call.fail(GONE)
    failed.call.reset(GONE)
    expect(failed.call.write(Buffer.alloc(100_000))).toBe(true)
    expect([told.resets, failed.left()]).toEqual([[GONE], 0])
  })
})
