import { afterEach, describe, expect, it } from 'vitest'
import {
  type AcceptCall,
  CALL_WINDOW_BYTES,
  type Call,
  type CallHandler,
  type CallOpen,
  type CallReset,
} from '../proxy/call.ts'
import { silentLog } from '../router/log.ts'
import { CallLink } from './call-link.ts'
import { CALL_LINK_DEFAULTS, type CallLinkOptions } from './call-link-options.ts'
import { type Carrier, systemClock } from './carrier.ts'

/** Two ends of one line, for the suite below. */
export interface CarrierPair {
  readonly dialler: Carrier
  readonly acceptor: Carrier
  /** Cuts the line as a crash would. */
  sever(): void
}

export const DIALLER = '12D3KooWaaaa'
export const ACCEPTOR = '12D3KooWbbbb'
const WAIT_MS = 10_000

/** Waits for a condition, a turn of the event loop at a time; fails after a deadline. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  const deadlineMs = performance.now() + WAIT_MS
  while (!condition()) {
    if (performance.now() > deadlineMs) throw new Error(`waited ${WAIT_MS} ms in vain until ${what}`)
    await new Promise(resolve => setTimeout(resolve, 1))
  }
}

/** A handler that notes what it is told. */
export class Witness implements CallHandler {
  readonly events: string[] = []
  bytes = 0
  sum = 0
  ended = false
  drains = 0
  resets: CallReset[] = []
  readonly call: Call
  keep: Buffer[] | undefined = []

  constructor(call: Call) {
    this.call = call
    call.handler = this
  }
  get text(): string {
    return Buffer.concat(this.keep ?? []).toString()
  }
  onHead(head: Buffer): void {
    this.events.push(`head ${head}`)
  }
  onData(chunk: Buffer): void {
    if (this.events.at(-1) !== 'data') this.events.push('data')
    this.bytes += chunk.length
    this.keep?.push(Buffer.from(chunk))
  }
  onTrailers(trailers: Buffer): void {
    this.events.push(`trailers ${trailers}`)
  }
  onEnd(): void {
    this.ended = true
    this.events.push('end')
  }
  onDrain(): void {
    this.drains += 1
  }
  onReset(reset: CallReset): void {
    this.resets.push(reset)
    this.events.push(`reset ${reset.code}`)
  }
}

export function openOf(service: string, head = ''): CallOpen {
  return { service, kind: head === '' ? 'tcp' : 'http', timeoutMs: 1_234, head: Buffer.from(head) }
}

const CANCEL: CallReset = { code: 'cancelled', reason: 'the caller left', node: DIALLER, unexecuted: false }

/** Writes `total` bytes with respect for back-pressure, as `proxy/` does. Counts, so that order and loss would show. */
function pour(call: Call, witness: Witness, total: number, chunkBytes: number): void {
  let sent = 0
  const go = (): void => {
    while (sent < total) {
      const chunk = Buffer.alloc(Math.min(chunkBytes, total - sent))
      for (let i = (4_096 - (sent % 4_096)) % 4_096; i < chunk.length; i += 4_096) chunk[i] = ((sent + i) / 4_096) & 255
      sent += chunk.length
      if (!call.write(chunk)) return
    }
    call.end()
  }
  witness.onDrain = () => {
    witness.drains += 1
    go()
  }
  go()
}

/** Reads what `pour` wrote and notes the first byte that is not where it should be. */
function drink(call: Call): Witness & { wrongAt?: number } {
  const witness: Witness & { wrongAt?: number } = new Witness(call)
  witness.keep = undefined
  witness.onData = chunk => {
    for (let i = (4_096 - (witness.bytes % 4_096)) % 4_096; i < chunk.length; i += 4_096) {
      if (chunk[i] !== (((witness.bytes + i) / 4_096) & 255)) witness.wrongAt ??= witness.bytes + i
    }
    witness.bytes += chunk.length
  }
  return witness
}

/** What a link of calls promises, whatever carries it. `connect` makes a fresh pair of proven carriers. */
export function callContract(name: string, connect: () => Promise<CarrierPair>): void {
  const links: CallLink[] = []
  afterEach(() => {
    for (const link of links.splice(0)) link.close('the test is over')
  })

  async function linked(accept: AcceptCall, options: Partial<CallLinkOptions> = {}) {
    const carriers = await connect()
    const closed: string[] = []
    const make = (dialled: boolean): CallLink => {
      const link = new CallLink(
        {
          carrier: dialled ? carriers.dialler : carriers.acceptor,
          clock: systemClock,
          log: silentLog,
          self: dialled ? DIALLER : ACCEPTOR,
          peer: dialled ? ACCEPTOR : DIALLER,
          accept,
          onState: () => {},
          onClosed: (reason, fault) =>
            closed.push(`${dialled ? 'dialler' : 'acceptor'} ${fault ? 'fault ' : ''}${reason}`),
        },
        dialled,
        { ...CALL_LINK_DEFAULTS, ...options },
      )
      links.push(link)
      link.start()
      return link
    }
    const a = make(true)
    const b = make(false)
    await until(() => a.state === 'up' && b.state === 'up', 'both ends are up')
    return { a, b, carriers, closed }
  }

  function open(link: CallLink, open: CallOpen): Witness {
    const call = link.open(open)
    if (call === undefined) throw new Error('expected a link that takes calls')
    return new Witness(call)
  }

  const echo: AcceptCall = call => {
    const witness = new Witness(call)
    witness.onData = chunk => void call.write(chunk, true)
    witness.onEnd = () => call.end()
  }

  describe(`calls over ${name}`, () => {
    it('carries heads, data, trailers and ends in order, both ways, and names the caller', async () => {
      let accepted: { witness: Witness; open: CallOpen; caller: string } | undefined
      const { a, b } = await linked((call, open, caller) => {
        accepted = { witness: new Witness(call), open, caller }
      })
      const asked = open(a, openOf('orders', 'GET / HTTP/1.1\r\n\r\n'))
      asked.call.write(Buffer.from('ques'))
      asked.call.write(Buffer.from('tion'))
      asked.call.sendTrailers(Buffer.from('x: 1\r\n'))
      asked.call.end()
      await until(() => accepted?.witness.ended === true, 'the request arrived')
      expect(accepted?.open).toEqual({
        service: 'orders',
        kind: 'http',
        timeoutMs: 1_234,
        head: Buffer.from('GET / HTTP/1.1\r\n\r\n'),
      })
      expect(accepted?.caller).toBe(DIALLER)
      expect(accepted?.witness.text).toBe('question')
      expect(accepted?.witness.events).toEqual(['data', 'trailers x: 1\r\n', 'end'])
      const answer = accepted?.witness.call
      answer?.sendHead(Buffer.from('103'))
      answer?.sendHead(Buffer.from('200'))
      answer?.write(Buffer.from('answer'))
      answer?.sendTrailers(Buffer.from('y: 2\r\n'))
      answer?.end()
      await until(() => asked.ended, 'the answer arrived')
      expect(asked.events).toEqual(['head 103', 'head 200', 'data', 'trailers y: 2\r\n', 'end'])
      expect(asked.text).toBe('answer')
      await until(() => a.inFlight === 0 && b.inFlight === 0, 'both ends forgot the call')
    })

    it('lets the acceptor of the line open calls too', async () => {
      const { b } = await linked(echo)
      const asked = open(b, openOf('orders'))
      asked.call.write(Buffer.from('hello'))
      asked.call.end()
      await until(() => asked.ended, 'the echo ended')
      expect(asked.text).toBe('hello')
    })

    it('keeps one direction open after the other has ended', async () => {
      let answer: Witness | undefined
      const { a } = await linked(call => {
        answer = new Witness(call)
      })
      const asked = open(a, openOf('orders'))
      asked.call.end()
      await until(() => answer?.ended === true, 'the end arrived')
      answer?.call.write(Buffer.from('late'))
      await until(() => asked.text === 'late', 'data came after the other direction ended')
      expect(asked.ended).toBe(false)
      answer?.call.end()
      await until(() => asked.ended, 'the second end arrived')
    })

    it('tells the other end of a reset, and the resetting end nothing more', async () => {
      const accepted: Witness[] = []
      const { a, b } = await linked(call => void accepted.push(new Witness(call)))
      const cancelled = open(a, openOf('orders'))
      const refused = open(a, openOf('orders'))
      await until(() => accepted.length === 2, 'both calls arrived')
      cancelled.call.reset(CANCEL)
      accepted[1]?.call.reset({ code: 'instance-refused', reason: 'port closed', node: ACCEPTOR, unexecuted: true })
      accepted[1]?.call.write(Buffer.from('ignored'))
      await until(() => (accepted[0]?.resets.length ?? 0) + refused.resets.length === 2, 'both resets arrived')
      expect(accepted[0]?.resets).toEqual([CANCEL])
      expect(refused.resets).toEqual([
        { code: 'instance-refused', reason: 'port closed', node: ACCEPTOR, unexecuted: true },
      ])
      expect(cancelled.events).toEqual([])
      expect(accepted[1]?.events).toEqual([])
      expect([a.inFlight, b.inFlight]).toEqual([0, 0])
    })

    it('never delivers an event from inside a method of a call', async () => {
      let inside = 0
      let told = 0
      const watch = (call: Call): Call => {
        const guarded = new Witness(call)
        for (const event of ['onHead', 'onData', 'onTrailers', 'onEnd', 'onDrain', 'onReset'] as const) {
          guarded[event] = () => {
            told += 1
            expect(inside).toBe(0)
          }
        }
        return call
      }
      const inMethod = (method: () => void): void => {
        inside += 1
        method()
        inside -= 1
      }
      const { a, carriers } = await linked(call => void watch(call))
      const call = watch(open(a, openOf('orders')).call)
      inMethod(() => {
        while (call.write(Buffer.alloc(100_000)));
      })
      await until(() => told > 0, 'events came')
      const other = watch(open(a, openOf('orders')).call)
      inMethod(() => other.sendHead(Buffer.alloc(200_000)))
      const third = watch(open(a, openOf('orders')).call)
      carriers.sever()
      inMethod(() => third.end())
      const before = told
      await until(() => told >= before + 2, 'resets came')
    })

    it('keeps events for a handler that is set later in the same turn', async () => {
      const seen: Witness[] = []
      const { a } = await linked(call => queueMicrotask(() => void seen.push(new Witness(call))))
      const asked = open(a, openOf('orders'))
      asked.call.write(Buffer.from('first'))
      asked.call.end()
      await until(() => seen[0]?.ended === true, 'the call was handled')
      expect(seen[0]?.text).toBe('first')
    })

    it('resets only its own call when a handler throws', async () => {
      const { a } = await linked((call, open) => {
        if (open.service === 'broken') throw new Error('accept failed')
        echo(call, open, '')
        if (open.service === 'breaks')
          call.handler.onData = () => {
            throw new Error('handler failed')
          }
      })
      const calls = ['broken', 'breaks', 'orders'].map(service => open(a, openOf(service)))
      for (const { call } of calls) {
        call.write(Buffer.from('x'))
        call.end()
      }
      await until(() => calls[2]?.ended === true, 'the healthy call is answered')
      expect(calls.map(witness => witness.events.join())).toEqual(['reset internal', 'reset internal', 'data,end'])
    })

    it('stops the sender after one window when the reader pauses, and goes on when it resumes', async () => {
      let reader: Witness | undefined
      const { a, b } = await linked((call, opened) => {
        if (opened.service === 'ping') return void new Witness(call)
        call.pause()
        reader = drink(call)
      })
      const writer = open(a, openOf('orders'))
      let written = 0
      while (writer.call.write(Buffer.alloc(50_000))) written += 50_000
      expect(written).toBeLessThan(256 * 1024)
      pour(writer.call, writer, 4_000_000, 50_000)
      await until(() => reader?.bytes === CALL_WINDOW_BYTES, 'one window arrived')
      const pinged = open(a, openOf('ping'))
      await until(() => a.inFlight === 2 && b.inFlight === 2, 'another call overtook')
      pinged.call.reset(CANCEL)
      await until(() => b.inFlight === 1, 'its reset arrived')
      expect(reader?.bytes).toBe(CALL_WINDOW_BYTES)
      expect(b.heldBytes).toBe(CALL_WINDOW_BYTES)
      reader?.call.resume()
      await until(() => reader?.ended === true, 'the rest arrived')
      expect(reader?.bytes).toBe(4_000_000 + written + 50_000)
      expect(writer.drains).toBeGreaterThan(1)
      expect(b.heldBytes).toBe(0)
    })

    it('has what it needs of a shared buffer when write returns, though most of it cannot leave yet', async () => {
      let reader: Witness | undefined
      const { a } = await linked(call => {
        call.pause()
        reader = new Witness(call)
      })
      const writer = open(a, openOf('orders'))
      const shared = Buffer.alloc(60_000)
      const pieces = [...'abcdefgh']
      for (const letter of pieces) {
        shared.fill(letter)
        writer.call.write(shared, true)
        shared.fill('z')
      }
      writer.call.end()
      await until(() => reader?.bytes === CALL_WINDOW_BYTES, 'one window arrived')
      reader?.call.resume()
      await until(() => reader?.ended === true, 'the rest arrived')
      expect(reader?.text === pieces.map(letter => letter.repeat(60_000)).join('')).toBe(true)
    })

    it('lets no paused call stall the others, though together they pass the window of the link', async () => {
      const held: Witness[] = []
      const { a } = await linked(
        (call, opened) => {
          if (opened.service !== 'stuck') return echo(call, opened, '')
          call.pause()
          held.push(new Witness(call))
        },
        { linkWindowBytes: 1024 * 1024 },
      )
      for (let i = 0; i < 8; i++) {
        const stuck = open(a, openOf('stuck'))
        pour(stuck.call, stuck, 1_000_000, 64_000)
      }
      await until(
        () => held.length === 8 && held.every(({ bytes }) => bytes === CALL_WINDOW_BYTES),
        'eight readers hold a window each',
      )
      const free = open(a, openOf('orders'))
      pour(free.call, free, 3_000_000, 64_000)
      await until(() => free.ended, 'a ninth call got through')
      expect(free.bytes).toBe(3_000_000)
    })

    it('resets the stopped reader that would pass what a link may hold, and no other call', async () => {
      const { a, b } = await linked(
        (call, opened) => {
          if (opened.service !== 'stuck') return echo(call, opened, '')
          call.pause()
          new Witness(call)
        },
        { heldBytesMax: CALL_WINDOW_BYTES + 100_000 },
      )
      const stuck = [open(a, openOf('stuck')), open(a, openOf('stuck'))]
      for (const witness of stuck) pour(witness.call, witness, CALL_WINDOW_BYTES, 32_000)
      await until(() => stuck.some(({ resets }) => resets.length > 0), 'one of the two was reset')
      const free = open(a, openOf('orders'))
      free.call.write(Buffer.from('still here'))
      free.call.end()
      await until(() => free.ended, 'another call is answered')
      expect(stuck.flatMap(({ resets }) => resets.map(({ code }) => code))).toEqual(['overloaded'])
      expect(b.heldBytes).toBeLessThanOrEqual(CALL_WINDOW_BYTES + 100_000)
    })

    it('moves 64 MiB each way at once, unharmed, in any size of chunk', async () => {
      const total = 64 * 1024 * 1024
      const readers: (Witness & { wrongAt?: number })[] = []
      const { a } = await linked(call => {
        const reader = drink(call)
        readers.push(reader)
        pour(call, reader, total, 1_000_003)
      })
      const call = a.open(openOf('orders'))
      if (call === undefined) throw new Error('expected a call')
      const reader = drink(call)
      readers.push(reader)
      pour(call, reader, total, 30_011)
      await until(() => readers.length === 2 && readers.every(({ ended }) => ended), 'both directions ended')
      expect(readers.map(({ bytes, wrongAt }) => [bytes, wrongAt])).toEqual([
        [total, undefined],
        [total, undefined],
      ])
    })

    it('answers 1,000 calls at once, each with its own bytes, while a bulk transfer runs', async () => {
      const { a, b } = await linked(echo)
      const bulk = open(a, openOf('bulk'))
      bulk.keep = undefined
      pour(bulk.call, bulk, 8_000_000, 64_000)
      const calls = Array.from({ length: 1_000 }, (_, i) => {
        const witness = open(i % 2 ? a : b, openOf('orders', `GET /${i}`))
        witness.call.write(Buffer.from(`body ${i}`))
        witness.call.end()
        return witness
      })
      await until(() => calls.every(({ ended }) => ended) && bulk.ended, 'all ended')
      expect(calls.map(({ text }) => text)).toEqual(calls.map((_, i) => `body ${i}`))
      expect(bulk.bytes).toBe(8_000_000)
      expect([a.inFlight, b.inFlight]).toEqual([0, 0])
    })

    it('refuses calls beyond the limit as overloaded and unexecuted', async () => {
      const { a } = await linked(echo, { inboundCallsMax: 3 })
      const calls = Array.from({ length: 5 }, () => open(a, openOf('orders')))
      await until(() => calls.filter(({ resets }) => resets.length > 0).length === 2, 'two were refused')
      expect(calls.slice(3).flatMap(({ resets }) => resets)).toMatchObject([
        { code: 'overloaded', unexecuted: true, node: ACCEPTOR },
        { code: 'overloaded', unexecuted: true, node: ACCEPTOR },
      ])
      calls[0]?.call.reset(CANCEL)
      const next = open(a, openOf('orders'))
      next.call.end()
      await until(() => next.ended, 'there is room again')
    })

    it('refuses a head that is too large without harm to the link', async () => {
      const { a } = await linked(echo)
      const big = open(a, openOf('orders', 'x'.repeat(200_000)))
      big.call.write(Buffer.from('never sent'))
      const small = open(a, openOf('orders', 'x'.repeat(128 * 1024)))
      small.call.end()
      await until(() => small.ended && big.resets.length > 0, 'both are over')
      expect(big.resets).toMatchObject([{ code: 'head-too-large', unexecuted: true }])
    })

    it('resets every call as link-lost when the line is cut; executed, if its opening may have arrived', async () => {
      const accepted: Witness[] = []
      const { a, closed, carriers } = await linked(call => void accepted.push(new Witness(call)))
      const sent = open(a, openOf('orders'))
      await until(() => accepted.length === 1, 'the call arrived')
      carriers.sever()
      await until(() => sent.resets.length === 1 && accepted[0]?.resets.length === 1, 'both ends were told')
      expect(sent.resets).toMatchObject([{ code: 'link-lost', unexecuted: false, node: DIALLER }])
      expect(accepted[0]?.resets).toMatchObject([{ code: 'link-lost', unexecuted: false, node: ACCEPTOR }])
      await until(() => closed.length === 2, 'both links are closed')
      expect(a.open(openOf('orders'))).toBeUndefined()
      sent.call.write(Buffer.from('no-op'))
      sent.call.end()
      expect(sent.events).toEqual(['reset link-lost'])
    })

    it('drains after goAway: calls it has are finished, calls that cross it are reset unexecuted', async () => {
      const accepted: Witness[] = []
      const { a, b } = await linked(call => void accepted.push(new Witness(call)))
      const old = open(a, openOf('orders'))
      await until(() => accepted.length === 1, 'the call arrived')
      let drained = false
      const crossing = open(a, openOf('orders'))
      void b.goAway('shutting down').then(() => {
        drained = true
      })
      await until(() => crossing.resets.length === 1, 'the crossing call was reset')
      expect(crossing.resets).toMatchObject([{ code: 'draining', unexecuted: true, node: ACCEPTOR }])
      expect(accepted.length).toBe(1)
      expect(a.open(openOf('orders'))).toBeUndefined()
      expect(b.open(openOf('orders'))).toBeUndefined()
      expect(drained).toBe(false)
      old.call.end()
      accepted[0]?.call.write(Buffer.from('finished'))
      accepted[0]?.call.end()
      await until(() => drained, 'the link is idle')
      await until(() => old.ended, 'the old call was answered')
      expect(old.text).toBe('finished')
    })

    it('retires without losing a call, not even one that crosses the word', async () => {
      const { a, b, closed } = await linked(echo)
      const before = open(a, openOf('orders'))
      const crossing = open(b, openOf('orders'))
      a.retire('a better link exists')
      expect(a.open(openOf('orders'))).toBeUndefined()
      await until(() => b.state === 'retiring', 'the word arrived')
      expect(b.open(openOf('orders'))).toBeUndefined()
      for (const { call } of [before, crossing]) {
        call.write(Buffer.from('x'))
        call.end()
      }
      await until(() => closed.length === 2, 'the link closed by itself')
      expect([before.events, crossing.events]).toEqual([
        ['data', 'end'],
        ['data', 'end'],
      ])
      expect(closed.join()).not.toContain('fault')
    })

    it('measures the round trip and stays alive while only data flows', async () => {
      const { a, b } = await linked(echo, { pingPeriodMs: 20, silenceMs: 2_000 })
      await until(() => a.rttMs !== undefined && b.rttMs !== undefined, 'both know the round trip')
      const bulk = open(a, openOf('bulk'))
      bulk.keep = undefined
      pour(bulk.call, bulk, 16_000_000, 64_000)
      await until(() => bulk.ended, 'the transfer ended')
      expect([a.state, b.state]).toEqual(['up', 'up'])
    })
  })
}
