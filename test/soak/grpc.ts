import { once } from 'node:events'
import grpc from '@grpc/grpc-js'
import { type Activity, same, type Turn } from './activity.ts'
import { Pattern } from './pattern.ts'

/** Over when the caller gives up; far beyond a hang otherwise. */
function options(turn: Turn): grpc.CallOptions {
  return { deadline: Date.now() + (turn.givesUpAfterMs ?? 60_000) }
}

async function unary(turn: Turn): Promise<void> {
  const metadata = new grpc.Metadata()
  metadata.set('x-call', turn.id)
  const offset = turn.below(1_000_000)
  const bytes = turn.below(turn.below(20) === 0 ? 200_000 : 2_000)
  const { answer, trailers } = await turn.ingress.grpc.unary(
    Buffer.from(new Pattern(offset).take(bytes)),
    options(turn),
    metadata,
  )
  const pattern = new Pattern(offset)
  pattern.check(answer)
  same('bytes of the answer', pattern.at, bytes)
  same('trailer x-call', trailers.get('x-call')[0], turn.id)
}

async function upload(turn: Turn): Promise<void> {
  const [messages, bytes] = [1 + turn.below(50), turn.below(10_000)]
  const { promise, resolve, reject } = Promise.withResolvers<Buffer | undefined>()
  const call = turn.ingress.grpc.upload((error, answer) => (error === null ? resolve(answer) : reject(error)))
  turn.signal.addEventListener('abort', () => call.cancel())
  call.on('error', () => {})
  for (let i = 0; i < messages; i++) call.write(Buffer.alloc(bytes, i))
  call.end()
  same('bytes that arrived', (await promise)?.toString(), String(messages * bytes))
}

async function download(turn: Turn): Promise<void> {
  const [offset, messages, bytes] = [turn.below(1_000_000), 1 + turn.below(100), turn.below(10_000)]
  const call = turn.ingress.grpc.download(Buffer.from(`${offset} ${messages} ${bytes}`), options(turn))
  turn.signal.addEventListener('abort', () => call.cancel())
  const over = statusOf(call)
  const pattern = new Pattern(offset)
  let wrong: unknown
  let count = 0
  call.on('data', (message: Buffer) => {
    count++
    try {
      pattern.check(message)
    } catch (error) {
      wrong ??= error
    }
  })
  const status = await over
  if (wrong !== undefined) throw wrong
  if (status.code !== grpc.status.OK) throw new Error(`status ${status.code}: ${status.details}`)
  same('messages', count, messages)
  same('bytes of the answer', pattern.at, messages * bytes)
}

async function chat(turn: Turn): Promise<void> {
  const call = turn.ingress.grpc.chat(options(turn))
  turn.signal.addEventListener('abort', () => call.cancel())
  const over = statusOf(call)
  for (let i = turn.below(20); i >= 0; i--) {
    const message = Buffer.from(`${turn.id} ${i} ${'x'.repeat(turn.below(500))}`)
    const heard = once(call, 'data', { signal: turn.signal }) as Promise<[Buffer]>
    const first = Promise.race([heard, over])
    call.write(message)
    const found = await first
    if (!Array.isArray(found)) throw new Error(`status ${found.code}: ${found.details}`)
    same('message', found[0].toString(), message.toString())
  }
  call.end()
  const status = await over
  if (status.code !== grpc.status.OK) throw new Error(`status ${status.code}: ${status.details}`)
}

function statusOf(call: grpc.ClientReadableStream<Buffer> | grpc.ClientDuplexStream<Buffer, Buffer>) {
  call.on('error', () => {})
  return new Promise<grpc.StatusObject>(resolve => call.on('status', resolve))
}

export const GRPC_ACTIVITIES: readonly Activity[] = [
  { name: 'grpc', weight: 15, run: unary },
  { name: 'grpc-upload', weight: 3, run: upload },
  { name: 'grpc-download', weight: 4, run: download },
  { name: 'grpc-chat', weight: 4, run: chat },
]
