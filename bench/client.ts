import { connect, type Socket } from 'node:net'

/**
 * The bench's own client, a process of its own: `node bench/client.ts COMMAND JSON`. Prints one line of JSON at its end.
 *
 * `calls`: keep-alive connections, one call at a time on each. `connects`: a new connection for each call. `download`: one
 * answer, counted. `idle`: connections that made one call each and then wait, until stdin ends.
 */
export interface ClientOptions {
  readonly port: number
  /** Of the field Host. */
  readonly host: string
  readonly path?: string
  readonly connections?: number
  readonly seconds?: number
}

/** What `calls` and `connects` print. */
export interface LoadResult {
  readonly calls: number
  readonly errors: number
  readonly seconds: number
  readonly p50Us: number
  readonly p99Us: number
}

/** What `download` prints. */
export interface DownloadResult {
  readonly bytes: number
  readonly seconds: number
}

/** What `idle` prints first, when all connections are open; at its end it prints how many of them were closed meanwhile. */
export interface IdleResult {
  readonly open: number
  readonly errors: number
}

/** Connections that are opened at a time: below the backlog of every peer. */
const OPENING = 100
const END_OF_HEAD = '\r\n\r\n'

/** One connection and the answer it waits for; bodies are counted, not kept. */
class Connection {
  readonly #socket: Socket
  readonly #request: string
  #head = ''
  #left = -1
  #answered: ((bytes: number) => void) | undefined
  #failed: ((error: Error) => void) | undefined
  #bodyBytes = 0
  isOpen = true

  constructor(options: ClientOptions, close: boolean) {
    const { port, host, path = '/' } = options
    this.#request = `GET ${path} HTTP/1.1\r\nHost: ${host}\r\n${close ? 'Connection: close\r\n' : ''}\r\n`
    const buffer = Buffer.allocUnsafe(256 * 1024)
    this.#socket = connect({
      ...{ port, host: '127.0.0.1', noDelay: true },
      onread: { buffer, callback: (length, bytes) => this.#read(bytes as Buffer, length) },
    })
    this.#socket.on('error', error => this.#lose(error))
    this.#socket.on('close', () => this.#lose(new Error('closed')))
  }

  /** One call. Resolves with the bytes of its answer's body; rejects when it is not a 200, or does not come whole. */
  call(): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#answered = resolve
      this.#failed = reject
      if (this.isOpen) this.#socket.write(this.#request)
      else reject(new Error('closed'))
    })
  }

  close(): void {
    this.#socket.end()
  }

  #read(bytes: Buffer, length: number): boolean {
    let from = 0
    if (this.#left < 0) {
      const held = this.#head.length
      this.#head += bytes.toString('latin1', 0, length)
      const end = this.#head.indexOf(END_OF_HEAD)
      if (end === -1) return true
      const head = this.#head.slice(0, end)
      const size = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1]
      if (!head.startsWith('HTTP/1.1 200 ') || size === undefined)
        return this.#lose(new Error(`expected 200 and a length, found ${head.slice(0, 100)}`))
      this.#left = Number(size)
      this.#bodyBytes = this.#left
      this.#head = ''
      from = end + END_OF_HEAD.length - held
    }
    this.#left -= length - from
    if (this.#left > 0) return true
    this.#left = -1
    this.#answered?.(this.#bodyBytes)
    return true
  }

  #lose(error: Error): true {
    this.isOpen = false
    this.#failed?.(error)
    this.#socket.destroy()
    return true
  }
}

/** Runs `work` in `connections` workers for `seconds`. */
async function load(options: ClientOptions, work: () => () => Promise<unknown>): Promise<LoadResult> {
  const { connections = 1, seconds = 1 } = options
  const latenciesUs: number[] = []
  let errors = 0
  const startedAtMs = performance.now()
  const endsAtMs = startedAtMs + seconds * 1000
  const worker = async (): Promise<void> => {
    let call = work()
    for (let nowMs = performance.now(); nowMs < endsAtMs; ) {
      const isDone = await call().then(
        () => true,
        () => false,
      )
      const doneAtMs = performance.now()
      if (isDone) latenciesUs.push((doneAtMs - nowMs) * 1000)
      else {
        errors++
        call = work()
        // A chain that refuses everything must not make this a busy loop.
        await new Promise(resolve => setTimeout(resolve, 1))
      }
      nowMs = doneAtMs
    }
  }
  await Promise.all(Array.from({ length: connections }, worker))
  const sorted = Float64Array.from(latenciesUs).sort()
  const at = (share: number): number => sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN
  const tookSeconds = (performance.now() - startedAtMs) / 1000
  return { calls: sorted.length, errors, seconds: tookSeconds, p50Us: at(0.5), p99Us: at(0.99) }
}

async function idle(options: ClientOptions): Promise<void> {
  const { connections = 1 } = options
  const open: Connection[] = []
  let errors = 0
  let left = connections
  const opener = async (): Promise<void> => {
    while (left-- > 0) {
      const connection = new Connection(options, false)
      await connection.call().then(
        () => open.push(connection),
        () => errors++,
      )
    }
  }
  await Promise.all(Array.from({ length: OPENING }, opener))
  console.log(JSON.stringify({ open: open.length, errors } satisfies IdleResult))
  for await (const _ of process.stdin);
  console.log(JSON.stringify({ closed: open.filter(({ isOpen }) => !isOpen).length }))
  process.exit(0)
}

const [command, text = ''] = process.argv.slice(2)
const options = JSON.parse(text) as ClientOptions
const print = (value: unknown): void => {
  process.stdout.write(`${JSON.stringify(value)}\n`, () => process.exit(0))
}

if (command === 'idle') await idle(options)
else if (command === 'download') {
  const startedAtMs = performance.now()
  const bytes = await new Connection(options, true).call()
  print({ bytes, seconds: (performance.now() - startedAtMs) / 1000 } satisfies DownloadResult)
} else if (command === 'connects') {
  print(
    await load(options, () => async () => {
      const connection = new Connection(options, true)
      await connection.call()
      connection.close()
    }),
  )
} else {
  print(
    await load(options, () => {
      const connection = new Connection(options, false)
      return () => connection.call()
    }),
  )
}
