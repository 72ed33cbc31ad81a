import { connect } from 'node:net'
import type { Log } from '../router/log.ts'
import { parseAddress } from './address.ts'
import { limitConnecting } from './connect-limit.ts'
import type { InstanceState, Instances } from './instances.ts'

/** Between looks at an instance that is out. HAProxy and peers check every 2 s; 1 s so that a restart is short. */
const DOWN_MS = 1000
/** Between looks at one that is in: a call that fails to connect is the faster witness. */
const UP_MS = 5000
const TIMEOUT_MS = 1000
/** Looks under way at once. */
const CONCURRENT_MAX = 50

/**
 * Looks at instances by opening a TCP connection: those that are out come back when they answer, those that are in go
 * out when they do not. Health of an instance is known and told by its own node alone.
 */
export class HealthChecks {
  private readonly deps: { readonly instances: Instances; readonly log: Log; readonly nowMs: () => number }
  private readonly lookedAtMs = new WeakMap<InstanceState, number>()
  private timer: NodeJS.Timeout | undefined
  private underWay = 0

  constructor(deps: HealthChecks['deps']) {
    this.deps = deps
  }

  start(): void {
    this.timer = setInterval(() => this.tick(), DOWN_MS / 2)
  }

  stop(): void {
    clearInterval(this.timer)
  }

  private tick(): void {
    const nowMs = this.deps.nowMs()
    for (const instance of this.deps.instances.all()) {
      if (this.underWay >= CONCURRENT_MAX) return
      const everyMs = instance.isHealthy ? UP_MS : DOWN_MS
      const lastMs = this.lookedAtMs.get(instance)
      // A newcomer is looked at at once: a service that is down from the start should not get a first call.
      if (lastMs !== undefined && nowMs - lastMs < everyMs) continue
      this.lookedAtMs.set(instance, nowMs)
      this.look(instance)
    }
  }

  private look(instance: InstanceState): void {
    this.underWay++
    const socket = connect(parseAddress(instance.address))
    const done = (isHealthy: boolean, reason: string): void => {
      socket.removeAllListeners()
      socket.on('error', () => {})
      socket.destroy()
      this.underWay--
      if (instance.isHealthy !== isHealthy) {
        const { service, address } = instance
        this.deps.log.info({ service, address, reason }, isHealthy ? 'an instance is back' : 'an instance is out')
      }
      this.deps.instances.setHealth(instance, isHealthy, reason)
    }
    limitConnecting(socket, TIMEOUT_MS, () => done(false, `no answer in ${TIMEOUT_MS} ms`))
    socket.once('connect', () => done(true, ''))
    socket.once('error', error => done(false, error.message))
  }
}
