import { setTimeout as wait } from 'node:timers/promises'
import { randomFor } from '../sim/rng.ts'
import type { Activity, Ingress, Turn } from './activity.ts'
import { WrongAnswer } from './pattern.ts'

/** A call that takes longer hangs; the largest take a second or two on a machine with nothing else to do. */
const HUNG_MS = 60_000
/** A client that gave up has its own resources back by then; if not, the fault is its own. */
const LET_GO_MS = 10_000
/** One call in so many is given up. */
const GIVEN_UP_ONE_IN = 10
/** Giving up comes at a time between 1 and 2^11 ms, as often in each doubling: heads, bodies and waits are all met. */
const GIVE_UP_DOUBLINGS = 11
/** A deadline that travels with the call may be met so much sooner than this process's own clock says. */
const DEADLINE_SLACK_MS = 20
/** Calls at once; more are due when the daemons are slower than the rate, and then the rate falls. */
const IN_FLIGHT_MAX = 64
/** Failures that are told in full; a mesh that is broken breaks everything. */
const FAILURES_MAX = 30

export interface LoadOptions {
  readonly seed: number
  readonly callsPerSecond: number
}

export interface Count {
  done: number
  givenUp: number
  failed: number
}

/** Calls of all kinds at random, at a rate. What is called, where it goes in and when it is given up comes from the seed. */
export class SoakLoad {
  readonly counts: ReadonlyMap<string, Count>
  readonly failures: string[] = []
  inFlight = 0
  readonly #activities: readonly Activity[]
  readonly #ingresses: readonly Ingress[]
  readonly #options: LoadOptions
  #number = 0

  constructor(deps: { activities: readonly Activity[]; ingresses: readonly Ingress[] }, options: LoadOptions) {
    this.#activities = deps.activities
    this.#ingresses = deps.ingresses
    this.#options = options
    this.counts = new Map(deps.activities.map(({ name }) => [name, { done: 0, givenUp: 0, failed: 0 }]))
  }

  get total(): Count {
    const sum: Count = { done: 0, givenUp: 0, failed: 0 }
    for (const { done, givenUp, failed } of this.counts.values()) {
      sum.done += done
      sum.givenUp += givenUp
      sum.failed += failed
    }
    return sum
  }

  /** Begins calls until `ms` are over, and waits for the last of them. */
  async run(ms: number): Promise<void> {
    const endsAtMs = performance.now() + ms
    const running = new Set<Promise<void>>()
    const pause = randomFor(this.#options.seed, `pauses ${this.#number}`)
    for (let dueAtMs = performance.now(); dueAtMs < endsAtMs && this.failures.length < FAILURES_MAX; ) {
      if (running.size >= IN_FLIGHT_MAX) await Promise.race(running)
      const nowMs = performance.now()
      if (dueAtMs > nowMs + 1) await wait(dueAtMs - nowMs)
      const call = this.#call(this.#number++).finally(() => running.delete(call))
      running.add(call)
      // Arrivals of many callers who know nothing of each other; what could not begin in time is not made up for.
      dueAtMs = Math.max(dueAtMs, nowMs - 100) - (Math.log(1 - pause()) * 1000) / this.#options.callsPerSecond
    }
    await Promise.all(running)
  }

  async #call(number: number): Promise<void> {
    const { seed } = this.#options
    const random = randomFor(seed, `call ${number}`)
    const below = (n: number): number => Math.floor(random() * n)
    const activity = this.#choose(random())
    const ingress = this.#ingresses[below(this.#ingresses.length)]
    const count = this.counts.get(activity.name)
    if (ingress === undefined || count === undefined) throw new Error('a load needs an ingress')
    const givesUpAfterMs = below(GIVEN_UP_ONE_IN) === 0 ? 2 ** (random() * GIVE_UP_DOUBLINGS) : undefined
    const abort = new AbortController()
    const turn: Turn = {
      ...{ id: `${seed}-${number}`, below, ingress, signal: abort.signal, givesUpAfterMs },
      isRude: below(2) === 0,
    }
    const stuck = Promise.withResolvers<never>()
    const timers = [setTimeout(() => abort.abort(), givesUpAfterMs ?? HUNG_MS)]
    abort.signal.addEventListener('abort', () => {
      timers.push(setTimeout(() => stuck.reject(new WrongAnswer('it did not end when it was given up')), LET_GO_MS))
    })
    const startedAtMs = performance.now()
    this.inFlight++
    try {
      await Promise.race([activity.run(turn), stuck.promise])
      count.done++
    } catch (error) {
      const tookMs = performance.now() - startedAtMs
      // A timer counts from the beginning of its turn of the event loop, which is long over when there is much to do.
      const isGivenUp = abort.signal.aborted || tookMs >= (givesUpAfterMs ?? 0) - DEADLINE_SLACK_MS
      const mayFail = givesUpAfterMs !== undefined && isGivenUp
      if (mayFail && !(error instanceof WrongAnswer)) count.givenUp++
      else {
        count.failed++
        const after = `after ${Math.round(tookMs)} ms${tookMs >= HUNG_MS ? ' (it hung)' : ''}`
        const reason = error instanceof Error ? `${error.name}: ${error.message}` : String(error)
        const failure = `${activity.name} ${turn.id} at port ${ingress.port} ${after}: ${reason}`
        process.stderr.write(`${failure}\n`)
        if (this.failures.length < FAILURES_MAX) this.failures.push(failure)
      }
    } finally {
      for (const timer of timers) clearTimeout(timer)
      this.inFlight--
    }
  }

  #choose(random: number): Activity {
    let left = random * this.#activities.reduce((sum, { weight }) => sum + weight, 0)
    for (const activity of this.#activities) {
      left -= activity.weight
      if (left < 0) return activity
    }
    throw new Error('a load needs activities')
  }
}
