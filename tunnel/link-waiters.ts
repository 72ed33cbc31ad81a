import type { Clock } from './carrier.ts'

/** Those who wait for a link to one node, not for calls of their own, but to reach another node through it. */
export class LinkWaiters {
  readonly #clock: Clock
  readonly #tells = new Set<(isLinked: boolean) => void>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  get size(): number {
    return this.#tells.size
  }

  /** True as soon as `tell(true)` is called; false after `tell(false)` or `waitMs`, and then `onLate` is told. */
  wait(waitMs: number, onLate: () => void): Promise<boolean> {
    return new Promise(resolve => {
      const tell = (isLinked: boolean): void => {
        cancel()
        this.#tells.delete(tell)
        resolve(isLinked)
      }
      const cancel = this.#clock.after(waitMs, () => {
        tell(false)
        onLate()
      })
      this.#tells.add(tell)
    })
  }

  /** To all who wait. */
  tell(isLinked: boolean): void {
    for (const tell of [...this.#tells]) tell(isLinked)
  }
}
