import type { Call, CallHandler, CallReset } from '../proxy/call.ts'
import type { MeshErrorCode } from '../router/errors.ts'
import type { Log } from '../router/log.ts'
import type { NodeId } from '../router/model.ts'
import { CallDuplex } from './call-duplex.ts'
import { decodeRoute, encodeRoute, type Route, routeFault } from './route.ts'

export interface RelayOptions {
  /** False: passes nothing on for others. Its own calls may still be relayed by them. */
  readonly isOn: boolean
  /** Streams passed on at a time for one neighbour. One carries all calls between two nodes: 64 pairs. */
  readonly perPeerMax: number
  /** The same for all neighbours. Each holds at most a window each way (`relayWindowBytes`), so 256 are 512 MiB at the very worst. */
  readonly streamsMax: number
}

export const RELAY_DEFAULTS: RelayOptions = { isOn: true, perPeerMax: 64, streamsMax: 256 }

export interface RelayDeps {
  readonly self: NodeId
  readonly log: Log
  /** Opens the next piece of the way on a link to `next` that is not itself relayed; undefined: there is none. */
  openNext(next: NodeId, payload: Buffer): Call | undefined
  /** The stream is for this node. `route` was checked; that its first node is the one that speaks, TLS has yet to prove. */
  onArrived(stream: CallDuplex, route: Route, from: NodeId): void
}

/** What a node passes on for others, and has passed on. */
export interface RelayCounts {
  /** Open now. */
  streams: number
  total: number
  refused: number
  bytes: number
}

/**
 * Passes streams between two other nodes. The streams are TLS sessions whose ends prove themselves to each other, so
 * what passes here can be neither read nor altered; it can only be delayed or cut.
 *
 * Memory: each direction holds what its sender may send unasked, and is not credited further until it has left.
 */
export class Relay {
  readonly counts: RelayCounts = { streams: 0, total: 0, refused: 0, bytes: 0 }
  readonly #deps: RelayDeps
  readonly #options: RelayOptions
  readonly #byPeer = new Map<NodeId, number>()
  #isDraining = false

  constructor(deps: RelayDeps, options: RelayOptions) {
    this.#deps = deps
    this.#options = options
  }

  /** Passes on what it has, takes nothing new. */
  drain(): void {
    this.#isDraining = true
  }

  /** A neighbour opened a stream with a route. */
  accept(call: Call, payload: Buffer, from: NodeId): void {
    const { self } = this.#deps
    const route = decodeRoute(payload)
    const fault = typeof route === 'string' ? route : routeFault(route, self, from)
    if (typeof route === 'string' || fault !== undefined) {
      this.#refuse(call, 'bad-request', fault ?? '')
      return
    }
    if (route.at === route.nodes.length - 1) {
      this.#deps.onArrived(new CallDuplex(call, self), route, from)
      return
    }
    const refusal = this.#refusal(from)
    if (refusal !== undefined) {
      this.#refuse(call, refusal[0], refusal[1])
      return
    }
    const next = route.nodes[route.at + 1] ?? ''
    const onward = this.#deps.openNext(next, encodeRoute({ ...route, at: route.at + 1 }))
    if (onward === undefined) {
      this.#refuse(call, 'unreachable', `expected a link of its own to ${next}, found none`)
      return
    }
    this.#splice(call, onward, from)
  }

  #refusal(from: NodeId): [MeshErrorCode, string] | undefined {
    const { isOn, perPeerMax, streamsMax } = this.#options
    if (!isOn) return ['relay-refused', 'this node passes no calls on for others']
    if (this.#isDraining) return ['draining', 'this node is stopping']
    if (this.counts.streams >= streamsMax) {
      return ['relay-refused', `this node passes on at most ${streamsMax} streams at a time`]
    }
    return (this.#byPeer.get(from) ?? 0) >= perPeerMax
      ? ['relay-refused', `this node passes on at most ${perPeerMax} streams at a time for one neighbour`]
      : undefined
  }

  #splice(call: Call, onward: Call, from: NodeId): void {
    const { counts } = this
    counts.streams += 1
    counts.total += 1
    this.#byPeer.set(from, (this.#byPeer.get(from) ?? 0) + 1)
    let endsLeft = 2
    const onOver = (): void => {
      if (endsLeft <= 0) return
      endsLeft = 0
      counts.streams -= 1
      const left = (this.#byPeer.get(from) ?? 1) - 1
      if (left > 0) this.#byPeer.set(from, left)
      else this.#byPeer.delete(from)
    }
    const onEnd = (): void => {
      if (endsLeft === 1) onOver()
      else endsLeft -= 1
    }
    call.handler = new Splice(call, onward, counts, onEnd, onOver)
    onward.handler = new Splice(onward, call, counts, onEnd, onOver)
  }

  #refuse(call: Call, code: MeshErrorCode, reason: string): void {
    this.counts.refused += 1
    this.#deps.log.debug({ code, reason }, 'a stream was not passed on')
    call.reset({ code, reason, node: this.#deps.self, unexecuted: true })
  }
}

/** One end of a stream that is passed on: whatever it is told, the other end is told too. */
class Splice implements CallHandler {
  readonly #call: Call
  readonly #other: Call
  readonly #counts: RelayCounts
  readonly #onEnd: () => void
  readonly #onOver: () => void

  constructor(call: Call, other: Call, counts: RelayCounts, onEnd: () => void, onOver: () => void) {
    this.#call = call
    this.#other = other
    this.#counts = counts
    this.#onEnd = onEnd
    this.#onOver = onOver
  }

  onData(chunk: Buffer): void {
    this.#counts.bytes += chunk.length
    if (!this.#other.write(chunk, true)) this.#call.pause()
  }

  /** The other end may be written to again: it has room for what was held back here. */
  onDrain(): void {
    this.#other.resume()
  }

  onEnd(): void {
    this.#other.end()
    this.#onEnd()
  }

  onReset(reset: CallReset): void {
    this.#other.reset(reset)
    this.#onOver()
  }

  /** Neither belongs on a stream of bytes: the ends speak TLS alone. */
  onHead(): void {
    this.#onWrong()
  }

  onTrailers(): void {
    this.#onWrong()
  }

  #onWrong(): void {
    const reset: CallReset = {
      ...{ code: 'bad-frame', reason: 'expected bytes on a relayed stream, found something else' },
      ...{ node: '', unexecuted: false },
    }
    this.#call.reset(reset)
    this.#other.reset(reset)
    this.#onOver()
  }
}
