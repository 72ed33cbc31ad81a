import type { Log } from '../router/log.ts'
import type { NodeId, NodeInfo } from '../router/model.ts'
import { Router, type RouterDeps, type RouterEffect, type RouterEvent, type RouterOptions } from '../router/router.ts'

export interface RouterHostDeps {
  readonly router: RouterDeps
  readonly log: Log
  /** Monotonic milliseconds. */
  readonly nowMs: () => number
  send(to: NodeId, bytes: Uint8Array): void
  /** `info` undefined: the node was forgotten. */
  onNode(node: NodeId, info: NodeInfo | undefined): void
}

/** Gives the pure router its time and carries out what it asks for. */
export class RouterHost {
  readonly router: Router
  private readonly deps: RouterHostDeps
  private timer: NodeJS.Timeout | undefined
  private isStopped = false

  constructor(deps: RouterHostDeps, options: Partial<RouterOptions> = {}) {
    this.deps = deps
    this.router = new Router(deps.router, options)
  }

  step(event: RouterEvent): void {
    for (const effect of this.router.step(event, this.deps.nowMs())) this.perform(effect)
  }

  /** Events still change what the router knows; no timer is set any more, so the process can end. */
  stop(): void {
    this.isStopped = true
    clearTimeout(this.timer)
  }

  private perform(effect: RouterEffect): void {
    switch (effect.type) {
      case 'send':
        return this.deps.send(effect.to, effect.bytes)
      case 'wake-at':
        clearTimeout(this.timer)
        if (this.isStopped) return
        // Whole milliseconds, rounded up: a timer's fraction is cut off, and too early is once more for nothing.
        this.timer = setTimeout(
          () => this.step({ type: 'wake' }),
          Math.max(0, Math.ceil(effect.atMs - this.deps.nowMs())),
        )
        return
      case 'node-changed':
        return this.deps.onNode(effect.node, effect.info)
      case 'note':
        return this.deps.log.warn(effect.fields, `router: ${effect.event}`)
      case 'routes-changed':
        return this.deps.log.debug({ service: effect.service }, 'routes changed')
    }
  }
}
