import { beforeEach, describe, expect, test } from 'vitest'
import type { Candidate } from '../router/model.ts'
import type { Call, CallOpen } from './call.ts'
import { Exchange, type ExchangeDeps, type ExchangeRequest } from './exchange.ts'
import { createLocalCall } from './local-call.ts'
import { rethrow } from './rethrow-fixture.ts'

let nowMs = 0
let told: string[] = []
let opened: { call: Call; open: CallOpen; node: string }[] = []
beforeEach(() => {
  nowMs = 0
  told = []
  opened = []
})

const candidates = ['a', 'b'].map(name => ({ node: name, name }) as Candidate)
const deps: ExchangeDeps = {
  self: { id: 'id-here', name: 'here' },
  candidates: () => candidates,
  knows: () => true,
  open(target, open) {
    const [mine, call] = createLocalCall(rethrow)
    call.handler = {
      onHead() {},
      onTrailers() {},
      onDrain() {},
      onData: chunk => told.push(`${target.node} got ${chunk}`),
      onEnd: () => told.push(`${target.node} got the end`),
      onReset: ({ code }) => told.push(`${target.node} was reset: ${code}`),
    }
    opened.push({ call, open, node: target.node })
    return mine
  },
  nowMs: () => nowMs,
  counters: { total: 0, failed: 0, retries: 0 },
  retryBodyBytes: 10,
}

function start(request: Partial<ExchangeRequest> = {}): Exchange {
  const exchange = new Exchange(
    deps,
    {
      ...{ protocol: 'HTTP/1.1', target: '/', client: '192.0.2.1' },
      ...{
        service: 'orders',
        filter: undefined,
        method: 'GET',
        timeoutMs: 1000,
        deadlineAtMs: Number.POSITIVE_INFINITY,
      },
      ...{ clientTimeoutMs: 5000, isUpgrade: false, head: at => Buffer.from(`head at ${at}`) },
      ...request,
    },
    {
      onAnswerHead: ({ status }) => told.push(`answer ${status}`),
      onAnswerData: chunk => told.push(`answer data ${chunk}`),
      onAnswerTrailers() {},
      onAnswerEnd: () => told.push('answer end'),
      onRequestDrain: () => told.push('drain'),
      onFailed: code => told.push(`failed: ${code}`),
      onCut: code => told.push(`cut: ${code}`),
    },
  )
  exchange.start()
  return exchange
}

function tickAt(exchange: Exchange, atMs: number): void {
  nowMs = atMs
  exchange.tick(atMs)
}

const turn = (): Promise<void> => new Promise(resolve => setImmediate(resolve))
const answer = (): void =>
  opened.at(-1)?.call.sendHead(Buffer.from('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'))
const refuse = (unexecuted: boolean): void =>
  opened.at(-1)?.call.reset({ code: 'instance-lost', reason: 'gone', node: 'x', unexecuted })

describe('time', () => {
  test('an answer that does not begin in time is given up, counted from the end of the request', () => {
    const exchange = start()
    nowMs = 900
    exchange.endRequest()
    tickAt(exchange, 1899)
    expect(told).toEqual([])
    tickAt(exchange, 1900)
    expect(told).toEqual(['failed: deadline'])
  })

  test('0 is no limit, for the caller and for the node that is asked', () => {
    const exchange = start({ timeoutMs: 0 })
    exchange.endRequest()
    tickAt(exchange, 1e12)
    expect(told).toEqual([])
    expect(opened[0]?.open.timeoutMs).toBe(0)
  })

  test('a deadline holds for the whole, also after the answer has begun', async () => {
    const exchange = start({ timeoutMs: 0, deadlineAtMs: 500 })
    exchange.endRequest()
    answer()
    await turn()
    tickAt(exchange, 499)
    tickAt(exchange, 500)
    await turn()
    expect(told).toEqual(['a got the end', 'answer 200', 'cut: deadline', 'a was reset: deadline'])
  })

  test('each attempt is told the time that is left for it, and has its head written anew', async () => {
    const exchange = start({ deadlineAtMs: 800 })
    exchange.endRequest()
    nowMs = 300
    refuse(true)
    await turn()
    expect(opened.map(({ open }) => [open.timeoutMs, String(open.head)])).toEqual([
      [800, 'head at 0'],
      [500, 'head at 300'],
    ])
  })

  test('a client that owes a body is waited for as long as it may take, or for ever', () => {
    const slow = start()
    tickAt(slow, 5000)
    expect(told).toEqual(['failed: request-timeout'])
    const silent = start({ clientTimeoutMs: Number.POSITIVE_INFINITY })
    tickAt(silent, 1e12)
    expect(told).toHaveLength(1)
  })
})

describe('another place', () => {
  async function expectSentAgain(send: (exchange: Exchange) => void): Promise<void> {
    const exchange = start({ method: 'POST' })
    send(exchange)
    exchange.endRequest()
    await turn()
    refuse(true)
    await turn()
    await turn()
    expect(told).toEqual(['a got body', 'a got the end', 'b got body', 'b got the end'])
  }

  test('gets the body again while it is small, and the end of it', () =>
    expectSentAgain(exchange => exchange.write(Buffer.from('body'))))

  test('gets the body as it was, though its bytes are used again', () =>
    expectSentAgain(exchange => {
      const chunk = Buffer.from('body')
      exchange.write(chunk, true)
      chunk.fill('x')
    }))

  test('gets nothing once the body was too large to be kept, or may have been acted on', async () => {
    const large = start({ method: 'POST' })
    large.write(Buffer.from('more than ten bytes'))
    refuse(true)
    await turn()
    start({ method: 'POST' })
    refuse(false)
    await turn()
    expect(told.filter(text => text.startsWith('failed'))).toEqual(['failed: instance-lost', 'failed: instance-lost'])
    expect(opened.map(({ node }) => node)).toEqual(['a', 'a'])
  })

  test('gets nothing once an answer has begun', async () => {
    const exchange = start()
    exchange.endRequest()
    answer()
    await turn()
    refuse(true)
    await turn()
    expect(told.at(-1)).toBe('cut: instance-lost')
    expect(opened).toHaveLength(1)
  })
})

test('a client that has gone hears nothing more, and its call ends', async () => {
  const exchange = start()
  answer()
  exchange.cancel('cancelled', 'gone')
  await turn()
  expect(told).toEqual(['a was reset: cancelled'])
})
