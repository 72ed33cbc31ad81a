import http from 'node:http'
import http2 from 'node:http2'
import { EchoClient } from '../../proxy/test-grpc.ts'
import { WrongAnswer } from './pattern.ts'

/** One call's surroundings: its chances, where it goes in, and when its client loses interest. */
export interface Turn {
  /** Goes with the call where the protocol has fields, and must come back. */
  readonly id: string
  /** Whole numbers below `n`. */
  below(n: number): number
  readonly ingress: Ingress
  /** The client gives up: whatever is under way is to be let go of at once. Also fired when the call hangs. */
  readonly signal: AbortSignal
  /** When it will give up, milliseconds from the start; undefined: never. */
  readonly givesUpAfterMs: number | undefined
  /** Whether it resets its connection, instead of closing it. */
  readonly isRude: boolean
}

/** One kind of call. `run` resolves when all of the answer was right, and rejects when anything else came of it. */
export interface Activity {
  readonly name: string
  /** How often, relative to the others. */
  readonly weight: number
  run(turn: Turn): Promise<void>
}

/** Before the ingress closes them itself (75 s): a request that crosses its goodbye is lost by nobody's fault. */
const IDLE_MS = 30_000
const SESSION_WINDOW_BYTES = 4 * 1024 * 1024

/** The ways into one daemon, kept open from call to call as applications do. */
export class Ingress {
  readonly host: string
  readonly port: number
  /** Ports of plain TCP, by service. */
  readonly tcp: ReadonlyMap<string, number>
  readonly agent = new http.Agent({ keepAlive: true, maxSockets: 256, timeout: IDLE_MS })
  #session: http2.ClientHttp2Session | undefined
  #grpc: EchoClient | undefined

  constructor(address: string, tcp: ReadonlyMap<string, number>) {
    const [, host = '', port = ''] = /^(.*):(\d+)$/.exec(address) ?? []
    this.host = host
    this.port = Number(port)
    this.tcp = tcp
  }

  /** One HTTP/2 connection for all calls, made anew when it is gone. */
  get session(): http2.ClientHttp2Session {
    if (this.#session === undefined || this.#session.closed || this.#session.destroyed)
      this.#session = this.newSession()
    return this.#session
  }

  newSession(): http2.ClientHttp2Session {
    const session = http2.connect(`http://${this.host}:${this.port}`)
    session.on('error', () => {})
    // Node's own 64 KiB for all streams together would make them wait for this process, not for the daemons.
    session.once('connect', () => {
      if (!session.destroyed) session.setLocalWindowSize(SESSION_WINDOW_BYTES)
    })
    return session
  }

  get grpc(): EchoClient {
    this.#grpc ??= new EchoClient(`${this.host}:${this.port}`, 'echo.mesh')
    return this.#grpc
  }

  /** Closes every connection; later calls open new ones. */
  close(): void {
    this.agent.destroy()
    this.#session?.close()
    this.#session = undefined
    this.#grpc?.close()
    this.#grpc = undefined
  }
}

/** Errors: WrongAnswer, unless `found` is what was expected. */
export function same(what: string, found: unknown, expected: unknown): void {
  if (found !== expected)
    throw new WrongAnswer(`${what}: expected ${JSON.stringify(expected)}, found ${JSON.stringify(found)}`)
}
