import { once } from 'node:events'
import http2 from 'node:http2'
import { type Activity, same, type Turn } from './activity.ts'
import { Pattern } from './pattern.ts'
import { write } from './services.ts'

/** One stream: sends `bytes` of the pattern and must get them back, or asks for as many. */
async function exchange(turn: Turn, session: http2.ClientHttp2Session, bytes: number): Promise<void> {
  const offset = turn.below(1_000_000)
  const isEcho = turn.below(2) === 0
  const service = turn.below(2) === 0 ? 'web' : 'web2'
  const stream = session.request(
    {
      ':method': isEcho ? 'POST' : 'GET',
      ':path': isEcho ? '/echo' : `/make/${offset}/${bytes}`,
      ':authority': `${service}.mesh`,
      'x-call': turn.id,
    },
    { endStream: !isEcho, waitForTrailers: isEcho },
  )
  stream.on('error', () => {})
  stream.on('wantTrailers', () => stream.sendTrailers({ 'x-sum': turn.id }))
  const giveUp = (): void => stream.close(http2.constants.NGHTTP2_CANCEL)
  if (turn.signal.aborted) giveUp()
  else turn.signal.addEventListener('abort', giveUp)
  let trailers: http2.IncomingHttpHeaders = {}
  stream.on('trailers', found => {
    trailers = found
  })
  const answered = once(stream, 'response', { signal: turn.signal }) as Promise<[http2.IncomingHttpHeaders]>
  answered.catch(() => {})
  const sent = isEcho ? send(turn, stream, offset, bytes) : Promise.resolve()
  const [head] = await answered
  if (Number(head[':status']) !== 200) {
    let text = ''
    for await (const chunk of stream) text += chunk
    throw new Error(`status ${head[':status']}: ${text}`)
  }
  same('x-call', head['x-call'], turn.id)
  const pattern = new Pattern(offset)
  for await (const chunk of stream) pattern.check(chunk as Buffer)
  // A stream whose session was destroyed ends as if it were whole.
  turn.signal.throwIfAborted()
  if (stream.rstCode !== 0) throw new Error(`the stream was reset with ${stream.rstCode}`)
  same('bytes of the answer', pattern.at, bytes)
  await sent
  if (isEcho) same('trailer x-sum', trailers['x-sum'], turn.id)
}

async function send(turn: Turn, stream: http2.ClientHttp2Stream, offset: number, bytes: number): Promise<void> {
  for (const piece of new Pattern(offset).pieces(bytes, turn.below)) await write(stream, piece)
  stream.end()
}

/** A connection of its own, several streams at once; who gives up takes the whole connection with him. */
async function session(turn: Turn): Promise<void> {
  const own = turn.ingress.newSession()
  const giveUp = (): void => own.destroy()
  turn.signal.addEventListener('abort', giveUp)
  try {
    const streams = Array.from({ length: 1 + turn.below(8) }, () => exchange(turn, own, turn.below(60_000)))
    await Promise.all(streams)
  } finally {
    own.destroy()
  }
}

export const HTTP2_ACTIVITIES: readonly Activity[] = [
  { name: 'h2', weight: 15, run: turn => exchange(turn, turn.ingress.session, turn.below(60_000)) },
  { name: 'h2-big', weight: 1, run: turn => exchange(turn, turn.ingress.session, turn.below(4 * 1024 * 1024)) },
  { name: 'h2-session', weight: 3, run: session },
]
