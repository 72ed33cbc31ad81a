/**
 * A client in a process of its own, to be killed: `node leaving-client.ts KIND HOST:PORT SERVICE [COUNT]`.
 *
 * KIND is `http` (waits for an answer), `sse` (reads an endless one), `h2` (waits, over HTTP/2), `ws`, or `idle` (COUNT
 * connections that have made one call each). It says `ready` when there is something to be cancelled, and goes on for ever.
 */
import { on } from 'node:events'
import http from 'node:http'
import http2 from 'node:http2'
import net from 'node:net'
import { WebSocket } from 'ws'

/** Connections that are opened at once. */
const AT_ONCE = 50

const [, , kind = '', at = '', service = '', count = '1'] = process.argv
const ready = (): boolean => process.stdout.write('ready\n')
const headers = { host: `${service}.mesh` }

if (kind === 'ws') {
  const socket = new WebSocket(`ws://${at}/`, { headers })
  socket.on('open', () => socket.send('hello'))
  socket.on('message', ready)
} else if (kind === 'idle') {
  for (let left = Number(count); left > 0; left -= AT_ONCE) {
    await Promise.all(Array.from({ length: Math.min(AT_ONCE, left) }, () => callOnce()))
  }
  ready()
} else if (kind === 'h2') {
  const session = http2.connect(`http://${at}`)
  session.request({ ':path': '/hang', ':authority': headers.host })
  session.ping(ready)
} else {
  const path = kind === 'sse' ? '/events' : '/hang'
  const request = http.get(`http://${at}${path}`, { headers, agent: false }, response => response.once('data', ready))
  if (kind === 'http') request.on('finish', ready)
}

/** Its connection stays open. */
async function callOnce(): Promise<void> {
  const [host, port] = at.split(':')
  const socket = net.connect(Number(port), host)
  socket.on('close', () => process.exit(1))
  socket.write(`GET / HTTP/1.1\r\nHost: ${headers.host}\r\n\r\n`)
  let text = ''
  for await (const [chunk] of on(socket, 'data')) {
    text += chunk
    if (text.endsWith('\n')) break
  }
  if (!text.startsWith('HTTP/1.1 200')) process.exit(1)
}
