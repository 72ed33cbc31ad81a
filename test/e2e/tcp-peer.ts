/**
 * The ends of many TCP connections, as a process of its own, so that what they cost is not counted to anyone else.
 *
 *   serve                   an echo; says `at HOST:PORT`, and `open N` whenever the number of its connections has changed
 *   hold HOST:PORT COUNT    opens so many, echoes a byte on each, says `held COUNT`, echoes a byte on each again for every
 *                           line of its input and says `echoed COUNT`
 *   rate HOST:PORT COUNT N  opens so many, N at a time, echoes a byte on each and closes it; says `rate {…}` and ends
 */
import { createServer, type Server, Socket } from 'node:net'
import { createInterface } from 'node:readline'

const [, , mode, at = '', count = '0', width = '64'] = process.argv
const [, host = '', port = ''] = /^(.*):(\d+)$/.exec(at) ?? []

function say(text: string): void {
  process.stdout.write(`${text}\n`)
}

function fail(error: Error): never {
  process.stderr.write(`${error.message}\n`)
  process.exit(1)
}

function dial(): Socket {
  const socket = new Socket()
  socket.setNoDelay(true)
  socket.connect({ host, port: Number(port) })
  return socket
}

function serve(): Server {
  let open = 0
  let told = 0
  setInterval(() => {
    if (open === told) return
    told = open
    say(`open ${open}`)
  }, 10)
  const server = createServer({ noDelay: true }, socket => {
    open++
    socket.on('error', () => {})
    socket.on('data', chunk => socket.write(chunk))
    socket.on('close', () => {
      open--
    })
  })
  return server.listen({ host: '127.0.0.1', port: 0, backlog: 4096 }, () => {
    const address = server.address()
    if (typeof address === 'object' && address !== null) say(`at ${address.address}:${address.port}`)
  })
}

/** Resolves when one more byte has come back. */
function echo(socket: Socket): Promise<void> {
  return new Promise(resolve => {
    socket.once('data', () => resolve())
    socket.write('x')
  })
}

async function hold(): Promise<void> {
  const sockets: Socket[] = []
  for (let i = 0; i < Number(count); i++) {
    const socket = dial()
    socket.on('error', fail)
    socket.on('end', () => fail(new Error(`connection ${i} was ended`)))
    sockets.push(socket)
  }
  await Promise.all(sockets.map(echo))
  say(`held ${sockets.length}`)
  for await (const _line of createInterface(process.stdin)) {
    await Promise.all(sockets.map(echo))
    say(`echoed ${sockets.length}`)
  }
}

async function rate(): Promise<void> {
  let left = Number(count)
  let failed = 0
  const startedAtMs = performance.now()
  const worker = async (): Promise<void> => {
    while (left-- > 0) {
      await new Promise<void>(resolve => {
        const socket = dial()
        socket.write('x')
        socket.once('data', () => socket.end())
        socket.once('error', () => {
          failed++
        })
        socket.once('close', () => resolve())
      })
    }
  }
  await Promise.all(Array.from({ length: Number(width) }, worker))
  const tookMs = performance.now() - startedAtMs
  say(`rate ${JSON.stringify({ perSecond: Math.round(Number(count) / (tookMs / 1000)), failed })}`)
}

if (mode === 'serve') serve()
else if (mode === 'hold') await hold()
else if (mode === 'rate') await rate()
else fail(new Error('expected serve, hold or rate'))
