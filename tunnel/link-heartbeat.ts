import type { Clock } from './carrier.ts'
import { readU32 } from './frame.ts'
import { Heartbeat, TICK_MS } from './heartbeat.ts'

export interface LinkHeartbeatDeps {
  readonly clock: Clock
  readonly sendPing: (payload: Buffer) => void
  /** The peer has been silent for too long. */
  readonly onSilence: () => void
}

/** Runs the heartbeat of a call link: pings the peer, and finds out when nothing comes back any more. */
export class LinkHeartbeat {
  readonly #deps: LinkHeartbeatDeps
  readonly #beat: Heartbeat
  #stop: (() => void) | undefined

  constructor(deps: LinkHeartbeatDeps, options: { readonly pingPeriodMs: number; readonly silenceMs: number }) {
    this.#deps = deps
    this.#beat = new Heartbeat({
      ticksPerPing: Math.ceil(options.pingPeriodMs / TICK_MS),
      silentTicksMax: Math.ceil(options.silenceMs / TICK_MS),
    })
  }

  /** Smoothed, milliseconds; undefined before the first pong. */
  get rttMs(): number | undefined {
    return this.#beat.rttMs
  }

  get rttMinMs(): number | undefined {
    return this.#beat.rttMinMs
  }

  start(): void {
    this.#stop = this.#deps.clock.every(TICK_MS, () => this.#tick())
    this.#tick()
  }

  stop(): void {
    this.#stop?.()
  }

  /** Any byte came. */
  onHeard(): void {
    this.#beat.heard = true
  }

  onPong(payload: Buffer): void {
    this.#beat.onPong(readU32(payload, 0), this.#deps.clock.nowMs())
  }

  #tick(): void {
    const verdict = this.#beat.tick(this.#deps.clock.nowMs())
    if (verdict === 'dead') this.#deps.onSilence()
    else if (verdict !== 'none') {
      const payload = Buffer.alloc(8)
      payload.writeUInt32BE(verdict)
      this.#deps.sendPing(payload)
    }
  }
}
