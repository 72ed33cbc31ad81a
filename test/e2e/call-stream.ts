import type { Ask, HttpClient } from './http-client.ts'

/** Between two calls of one caller. */
const PAUSE_MS = 10
const CALLERS = 8

export interface StreamCall {
  readonly startedAtMs: number
  readonly endedAtMs: number
  /** The status, and the mesh's code if the answer is its own; or what the client was told. */
  readonly outcome: string
  /** The answer's `x-instance`. */
  readonly answeredBy: string
}

/** A steady load on one service: 8 callers, each about a hundred calls a second while all is well. */
export class CallStream {
  readonly calls: StreamCall[] = []
  readonly #workers: Promise<void>[]
  #isStopping = false

  constructor(client: HttpClient, service: string, ask: Ask = {}) {
    this.#workers = Array.from({ length: CALLERS }, () => this.#work(client, service, ask))
  }

  answeredBy(name: string): StreamCall[] {
    return this.calls.filter(call => call.answeredBy === name)
  }

  /** Every call that was not answered 200, and by whom. */
  failed(): StreamCall[] {
    return this.calls.filter(call => call.outcome !== '200')
  }

  async stop(): Promise<void> {
    this.#isStopping = true
    await Promise.all(this.#workers)
  }

  async #work(client: HttpClient, service: string, ask: Ask): Promise<void> {
    while (!this.#isStopping) {
      const startedAtMs = performance.now()
      const answer = await client.call(service, ask).catch((error: Error) => error)
      const told = answer instanceof Error ? [answer.message] : [answer.status, answer.headers['x-flatmesh-error']]
      const answeredBy = answer instanceof Error ? '' : String(answer.headers['x-instance'] ?? '')
      const outcome = told.filter(part => part !== undefined).join(' ')
      this.calls.push({ startedAtMs, endedAtMs: performance.now(), outcome, answeredBy })
      await new Promise(resolve => setTimeout(resolve, PAUSE_MS))
    }
  }
}
