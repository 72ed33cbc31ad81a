import { Agent, type IncomingHttpHeaders, type IncomingMessage, request } from 'node:http'

/** Past this a call counts as hung; longer than any wait that the mesh itself allows in these tests. */
const ANSWER_DEADLINE_MS = 30_000

export interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
  /** From the first byte sent until the last one read. */
  readonly tookMs: number
}

export interface Ask {
  readonly method?: string
  readonly path?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string | Buffer
}

/** An application: keeps its connections to one daemon's ingress, at `host:port` or behind a unix socket. */
export class HttpClient {
  readonly #agent: Agent
  readonly #where: { host: string; port: number } | { socketPath: string }

  constructor(where: string, connectionsMax = 64) {
    const [, host, port] = /^([^/]+):(\d+)$/.exec(where) ?? []
    this.#where = host === undefined ? { socketPath: where } : { host, port: Number(port) }
    this.#agent = new Agent({ keepAlive: true, maxSockets: connectionsMax })
  }

  /** One call to a service, to its end. Rejects when the connection broke or nothing came in time. */
  async call(service: string, ask: Ask = {}): Promise<Answer> {
    const startedAtMs = performance.now()
    const answer = await this.open(service, ask)
    const chunks: Buffer[] = []
    for await (const chunk of answer) chunks.push(chunk)
    const { statusCode: status = 0, headers } = answer
    return { status, headers, body: Buffer.concat(chunks), tookMs: performance.now() - startedAtMs }
  }

  /** One call, up to the head of its answer. */
  open(service: string, { method = 'GET', path = '/', headers = {}, body }: Ask = {}): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const asked = request({
        ...this.#where,
        method,
        path,
        headers: { host: `${service}.mesh`, ...headers },
        agent: this.#agent,
        timeout: ANSWER_DEADLINE_MS,
      })
      asked.on('timeout', () => asked.destroy(new Error(`${service}${path}: nothing for ${ANSWER_DEADLINE_MS} ms`)))
      asked.on('response', resolve)
      asked.on('error', reject)
      asked.end(body)
    })
  }

  close(): void {
    this.#agent.destroy()
  }
}

/** A figure for whoever reads the run's output: `figure: NAME VALUE UNIT`. */
export function printFigure(name: string, value: number, unit: string): void {
  process.stdout.write(`figure: ${name} ${Math.round(value * 10) / 10} ${unit}\n`)
}

/** Nearest-rank percentile of `values`; NaN for none. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN
}
