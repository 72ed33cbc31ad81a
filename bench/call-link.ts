/**
 * One link of calls between two processes over TLS 1.3 on loopback: `node bench/call-link.ts [--json]`.
 *
 * Prints calls per second with 32 in flight and answers of 100 bytes, the CPU each side spends on a call, the latency of
 * one call at a time, and MB/s of one bulk answer.
 */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { AcceptCall, Call, CallHandler } from '../proxy/call.ts'
import { silentLog } from '../router/log.ts'
import { CallPlane } from '../tunnel/call-plane.ts'
import type { Identity } from '../tunnel/identity.ts'
import { createTestMesh } from '../tunnel/test-identities.ts'

const IN_FLIGHT = 32
const RUN_MS = 4_000
const WARM_UP_MS = 1_000
const BULK_BYTES = 1024 * 1024 * 1024
const ANSWER_HEAD = Buffer.from('HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 100\r\n\r\n')
const ANSWER_BODY = Buffer.alloc(100, 'x')
const REQUEST_HEAD = Buffer.from(
  'GET /42 HTTP/1.1\r\nhost: orders.mesh\r\nuser-agent: bench\r\naccept: */*\r\nx-forwarded-for: 127.0.0.1\r\n\r\n',
)

/** What crosses from one process to the other: an identity without its key object. */
type SentIdentity = Omit<Identity, 'key'>

async function serve(identity: Identity): Promise<void> {
  const accept: AcceptCall = (call, open) => {
    if (open.service === 'bulk') pour(call)
    else answer(call)
  }
  const plane = new CallPlane(
    { identity, log: silentLog, accept, isMember: () => true },
    { listen: { host: '127.0.0.1', port: 0 } },
  )
  const { port } = await plane.start()
  process.on('message', () => process.send?.({ cpu: process.cpuUsage(), rss: process.memoryUsage().rss }))
  process.on('disconnect', () => process.exit(0))
  process.send?.({ port })
}

class Quiet implements CallHandler {
  onHead(_head: Buffer): void {}
  onData(_chunk: Buffer): void {}
  onTrailers(_trailers: Buffer): void {}
  onEnd(): void {}
  onDrain(): void {}
  onReset(): void {}
}

class Answerer extends Quiet {
  readonly #call: Call
  constructor(call: Call) {
    super()
    this.#call = call
  }
  override onEnd(): void {
    this.#call.sendHead(ANSWER_HEAD)
    this.#call.write(ANSWER_BODY)
    this.#call.end()
  }
}

function answer(call: Call): void {
  call.handler = new Answerer(call)
}

function pour(call: Call): void {
  const chunk = Buffer.alloc(64 * 1024, 'y')
  let left = BULK_BYTES
  const handler = new Quiet()
  handler.onDrain = () => {
    while (left > 0) {
      left -= chunk.length
      if (!call.write(chunk)) return
    }
    call.end()
  }
  call.handler = handler
  handler.onDrain()
}

class Asker extends Quiet {
  readonly #onDone: () => void
  constructor(onDone: () => void) {
    super()
    this.#onDone = onDone
  }
  override onEnd(): void {
    this.#onDone()
  }
  override onReset(): void {
    throw new Error('a call of the bench was reset')
  }
}

async function measure(): Promise<void> {
  const mesh = createTestMesh('bench')
  const [here, there] = [mesh.identity('here'), mesh.identity('there')]
  const child = fork(fileURLToPath(import.meta.url), ['serve'], { execArgv: process.execArgv })
  child.send(there)
  const [{ port }] = (await once(child, 'message')) as [{ port: number }]
  const usage = async (): Promise<{ cpu: NodeJS.CpuUsage; rss: number }> => {
    child.send('usage')
    const [answered] = (await once(child, 'message')) as [{ cpu: NodeJS.CpuUsage; rss: number }]
    return answered
  }
  const up = Promise.withResolvers<void>()
  const plane = new CallPlane(
    {
      identity: here,
      log: silentLog,
      accept: call => answer(call),
      isMember: () => true,
      onLinkChange: (_peer, isUp) => isUp && up.resolve(),
    },
    { listen: { host: '127.0.0.1', port: 0 } },
  )
  await plane.start()
  plane.want(there.nodeId, [`127.0.0.1:${port}`])
  await up.promise

  let calls = 0
  const ask = (service: string, onDone: () => void): void => {
    const call = plane.open(there.nodeId, { service, kind: 'http', timeoutMs: 0, head: REQUEST_HEAD })
    if (call === undefined) throw new Error('the link of the bench is gone')
    call.handler = new Asker(onDone)
    call.end()
  }
  const load = async (inFlight: number, ms: number): Promise<number[]> => {
    const endsAtMs = performance.now() + ms
    const latenciesUs: number[] = []
    calls = 0
    await Promise.all(
      Array.from(
        { length: inFlight },
        () =>
          new Promise<void>(resolve => {
            const next = (): void => {
              const startedAtMs = performance.now()
              ask('orders', () => {
                calls += 1
                const nowMs = performance.now()
                latenciesUs.push((nowMs - startedAtMs) * 1_000)
                if (nowMs < endsAtMs) next()
                else resolve()
              })
            }
            next()
          }),
      ),
    )
    return latenciesUs.sort((a, b) => a - b)
  }
  const timed = async (work: () => Promise<unknown>) => {
    const [child0, own0, startedAtMs] = [await usage(), process.cpuUsage(), performance.now()]
    await work()
    const durationMs = performance.now() - startedAtMs
    const own = process.cpuUsage(own0)
    const child1 = await usage()
    const cpuUs = child1.cpu.user + child1.cpu.system - child0.cpu.user - child0.cpu.system
    return { durationMs, dialCpuUs: own.user + own.system, acceptCpuUs: cpuUs, rssMb: child1.rss / 1e6 }
  }

  await load(IN_FLIGHT, WARM_UP_MS)
  const many = await timed(() => load(IN_FLIGHT, RUN_MS))
  const manyCalls = calls
  let p50Us = 0
  await timed(async () => {
    const latencies = await load(1, 1_000)
    p50Us = latencies[latencies.length >> 1] ?? 0
  })
  const bulk = await timed(() => new Promise<void>(resolve => ask('bulk', resolve)))
  const result = {
    callsPerSecond: Math.round((manyCalls * 1_000) / many.durationMs),
    dialCpuUsPerCall: Number((many.dialCpuUs / manyCalls).toFixed(2)),
    acceptCpuUsPerCall: Number((many.acceptCpuUs / manyCalls).toFixed(2)),
    p50UsAtOne: Math.round(p50Us),
    bulkMBPerSecond: Math.round(BULK_BYTES / bulk.durationMs / 1_000),
    bulkReadCpuSPerGB: Number((bulk.dialCpuUs / 1e6 / (BULK_BYTES / 1e9)).toFixed(2)),
    bulkWriteCpuSPerGB: Number((bulk.acceptCpuUs / 1e6 / (BULK_BYTES / 1e9)).toFixed(2)),
    acceptRssMB: Math.round(bulk.rssMb),
  }
  if (process.argv.includes('--json')) console.log(JSON.stringify(result))
  else for (const [name, value] of Object.entries(result)) console.log(`${name.padEnd(22)} ${value}`)
  child.disconnect()
  await plane.stop()
}

if (process.argv.includes('serve')) {
  const { createPrivateKey } = await import('node:crypto')
  const [sent] = (await once(process, 'message')) as [SentIdentity]
  await serve({ ...sent, key: createPrivateKey(sent.keyPem) })
} else {
  await measure()
}
