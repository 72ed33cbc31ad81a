import { Agent, request } from 'node:http'

/** A caller that waits longer than this has given up. */
const ANSWER_TIMEOUT_MS = 10_000
/** Between looks at what is due; the sending itself keeps to its own times. */
const TICK_MS = 5

/** One call and what became of it. Times are of `performance.now()`. */
export interface CallResult {
  readonly sentAtMs: number
  readonly answeredAtMs: number
  /** The region that the service itself names in its answer; undefined if the call failed. */
  readonly region: string | undefined
  /** Why it failed. */
  readonly problem: string | undefined
}

export interface SteadyCallsOptions {
  /** `host:port` of a daemon's ingress. */
  readonly ingress: string
  readonly service: string
  readonly perSecond: number
}

/**
 * A steady stream of GET calls: one is sent when its time has come, whether the earlier ones were answered or not, as
 * independent users do. So a stall shows as many slow calls, not as a single one.
 */
export class SteadyCalls {
  readonly results: CallResult[] = []
  private readonly options: SteadyCallsOptions
  private readonly agent = new Agent({ keepAlive: true, maxSockets: 256 })
  private timer: NodeJS.Timeout | undefined
  private sent = 0
  private onIdle: (() => void) | undefined

  constructor(options: SteadyCallsOptions) {
    this.options = options
  }

  get inFlight(): number {
    return this.sent - this.results.length
  }

  start(): void {
    const startedAtMs = performance.now()
    this.timer = setInterval(() => {
      const due = ((performance.now() - startedAtMs) * this.options.perSecond) / 1000
      while (this.sent < due) this.send()
    }, TICK_MS)
  }

  /** Sends no more; resolves when every call has come to its end. */
  async stop(): Promise<void> {
    clearInterval(this.timer)
    if (this.inFlight > 0) {
      await new Promise<void>(resolve => {
        this.onIdle = resolve
      })
    }
    this.agent.destroy()
  }

  private send(): void {
    const { ingress, service } = this.options
    const [host, port] = ingress.split(':')
    const headers = { host: `${service}.mesh` }
    const sentAtMs = performance.now()
    this.sent++
    let isDone = false
    const done = (region: string | undefined, problem: string | undefined): void => {
      if (isDone) return
      isDone = true
      this.results.push({ sentAtMs, answeredAtMs: performance.now(), region, problem })
      if (this.inFlight === 0) this.onIdle?.()
    }
    const asked = request({ host, port, path: '/', headers, agent: this.agent })
    const timer = setTimeout(() => asked.destroy(new Error('no answer in time')), ANSWER_TIMEOUT_MS)
    asked.on('error', error => done(undefined, error.message))
    asked.on('close', () => {
      clearTimeout(timer)
      done(undefined, 'the answer ended early')
    })
    asked.on('response', answer => {
      let body = ''
      answer.setEncoding('utf8').on('data', (text: string) => (body += text))
      answer.on('end', () => {
        const region = readRegion(body)
        const isGood = answer.statusCode === 200 && region !== undefined
        done(isGood ? region : undefined, isGood ? undefined : `${answer.statusCode} ${body.trim().slice(0, 300)}`)
      })
    })
    asked.end()
  }
}

function readRegion(body: string): string | undefined {
  try {
    const answer: unknown = JSON.parse(body)
    const region: unknown = typeof answer === 'object' && answer !== null ? Reflect.get(answer, 'region') : undefined
    return typeof region === 'string' ? region : undefined
  } catch {
    return undefined
  }
}
