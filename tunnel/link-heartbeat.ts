import type { Clock } from './carrier.ts'
import { readU32 } from './frame.ts'

/** A round trip in eight counts: RFC 6298's gain for a smoothed round trip. */
const RTT_GAIN = 1 / 8
/** Looks at the line twice a ping, so that silence is found out within half a period. */
const TICKS_PER_PING = 2

export interface LinkHeartbeatDeps {
  readonly clock: Clock
  readonly sendPing: (payload: Buffer) => void
  /** The peer has been silent for too long. */
  readonly onSilence: () => void
}

/** Pings the peer, smooths the round trip, and finds out when nothing comes back any more. */
export class LinkHeartbeat {
  /** Smoothed, milliseconds; undefined before the first pong. */
  rttMs: number | undefined
  /** Set by whatever byte arrives: bulk data is a sign of life as good as a pong. */
  heard = false
  readonly #deps: LinkHeartbeatDeps
  readonly #periodMs: number
  readonly #silentTicksMax: number
  #stop: (() => void) | undefined
  #silentTicks = 0
  #ticks = 0
  #nonce = 0
  #sentAtMs = 0
  #outstanding = false

  constructor(deps: LinkHeartbeatDeps, options: { readonly pingPeriodMs: number; readonly silenceMs: number }) {
    this.#deps = deps
    this.#periodMs = options.pingPeriodMs / TICKS_PER_PING
    this.#silentTicksMax = Math.ceil(options.silenceMs / this.#periodMs)
  }

  start(): void {
    this.#stop = this.#deps.clock.every(this.#periodMs, () => this.#tick())
    this.#ping()
  }

  stop(): void {
    this.#stop?.()
  }

  onPong(payload: Buffer): void {
    if (!this.#outstanding || readU32(payload, 0) !== this.#nonce) return
    this.#outstanding = false
    const sampleMs = this.#deps.clock.nowMs() - this.#sentAtMs
    this.rttMs = this.rttMs === undefined ? sampleMs : this.rttMs + RTT_GAIN * (sampleMs - this.rttMs)
  }

  /** Ticks are counted, not milliseconds: a process that was stopped must not blame its peers. */
  #tick(): void {
    this.#silentTicks = this.heard ? 0 : this.#silentTicks + 1
    this.heard = false
    if (this.#silentTicks >= this.#silentTicksMax) {
      this.#deps.onSilence()
      return
    }
    this.#ticks += 1
    if (this.#ticks % TICKS_PER_PING === 0) this.#ping()
  }

  #ping(): void {
    // One at a time: on a line slower than the period a newer ping would hide the answer to the older.
    if (this.#outstanding) return
    this.#nonce = (this.#nonce + 1) >>> 0
    this.#sentAtMs = this.#deps.clock.nowMs()
    this.#outstanding = true
    const payload = Buffer.alloc(8)
    payload.writeUInt32BE(this.#nonce)
    this.#deps.sendPing(payload)
  }
}
