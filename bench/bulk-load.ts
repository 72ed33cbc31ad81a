import { once } from 'node:events'
import net, { type AddressInfo, type Socket } from 'node:net'
import { readShared } from '../proxy/shared-read.ts'

/**
 * The instance and the client of bulk that `mixed.ts` measures small calls beside: HTTP/1.1 on bare sockets, read into
 * one buffer. On a machine of few cores what they cost is taken from the proxies, and an `http` that makes and collects a
 * buffer for each read costs as much as a proxy does.
 */

const CHUNK = Buffer.alloc(64 * 1024, 'x')

/** GET /down/BYTES: so many. POST: takes all, says how many. Everything else: 100 bytes. Answers the port. */
export async function serveBulk(): Promise<number> {
  const server = net.createServer(socket => {
    socket.on('error', () => {})
    readMessages(socket, (head, bodyBytes) => {
      const [, method, path = ''] = /^(\S+) (\S+)/.exec(head) ?? []
      const bytes = path.startsWith('/down/') ? Number(path.split('/')[2]) : 100
      if (method === 'POST') socket.write(`HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTaken: ${bodyBytes}\r\n\r\n`)
      else {
        socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${bytes}\r\n\r\n`)
        pour(socket, bytes)
      }
    })
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return (server.address() as AddressInfo).port
}

/** Errors: the answer is not 200, or tells of another number of bytes. Resolves to seconds. */
export function download(port: number, host: string, bytes: number): Promise<number> {
  return exchange(
    port,
    `GET /down/${bytes} HTTP/1.1\r\nHost: ${host}\r\n\r\n`,
    0,
    (_, bodyBytes) => bodyBytes === bytes,
  )
}

/** As `download`. */
export function upload(port: number, host: string, bytes: number): Promise<number> {
  const head = `POST / HTTP/1.1\r\nHost: ${host}\r\nContent-Length: ${bytes}\r\n\r\n`
  return exchange(port, head, bytes, answer => answer.toLowerCase().includes(`\r\ntaken: ${bytes}\r\n`))
}

async function exchange(
  port: number,
  head: string,
  bytes: number,
  isRight: (head: string, bodyBytes: number) => boolean,
): Promise<number> {
  const beganMs = performance.now()
  const socket = net.connect(port, '127.0.0.1')
  try {
    await once(socket, 'connect')
    const answered = new Promise<void>((resolve, reject) => {
      socket.on('close', () => reject(new Error('expected a whole answer, found the end of the connection')))
      readMessages(socket, (answer, bodyBytes) => {
        if (answer.startsWith('HTTP/1.1 200 ') && isRight(answer, bodyBytes)) resolve()
        else reject(new Error(`expected 200 and all bytes, found ${bodyBytes} of them after ${JSON.stringify(answer)}`))
      })
    })
    socket.write(head)
    pour(socket, bytes)
    await answered
    return (performance.now() - beganMs) / 1000
  } finally {
    socket.destroy()
  }
}

/** Tells of each message, all of Content-Length, when it is whole. */
function readMessages(socket: Socket, onMessage: (head: string, bodyBytes: number) => void): void {
  let head = ''
  let bodyBytes = 0
  let bytesLeft = -1
  readShared(socket, (chunk, end) => {
    for (let at = 0; at < end; ) {
      if (bytesLeft < 0) {
        const beforeBytes = head.length
        head += chunk.toString('latin1', at, end)
        const headEnd = head.indexOf('\r\n\r\n') + 4
        if (headEnd < 4) return
        at += headEnd - beforeBytes
        head = head.slice(0, headEnd)
        bodyBytes = Number(/^content-length: *(\d+)/im.exec(head)?.[1] ?? 0)
        bytesLeft = bodyBytes
      }
      const taken = Math.min(bytesLeft, end - at)
      at += taken
      bytesLeft -= taken
      if (bytesLeft > 0) continue
      const whole = head
      head = ''
      bytesLeft = -1
      onMessage(whole, bodyBytes)
    }
  })
}

/** Writes so many bytes as the other end takes them. */
function pour(socket: Socket, bytes: number): void {
  let bytesLeft = bytes
  const go = (): void => {
    while (bytesLeft > 0) {
      const chunk = bytesLeft < CHUNK.length ? CHUNK.subarray(0, bytesLeft) : CHUNK
      bytesLeft -= chunk.length
      if (!socket.write(chunk)) return
    }
    socket.removeListener('drain', go)
  }
  socket.on('drain', go)
  go()
}
