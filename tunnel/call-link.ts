import type { AcceptCall, Call, CallReset } from '../proxy/call.ts'
import { invariant, type MeshErrorCode } from '../router/errors.ts'
import { IdMap } from '../router/id-map.ts'
import type { Log } from '../router/log.ts'
import { isServiceName, type NodeId } from '../router/model.ts'
import type { CallLinkOptions } from './call-link-options.ts'
import type { Carrier, Clock } from './carrier.ts'
import {
  decodeGoAway,
  decodeHello,
  decodeOpen,
  decodeReset,
  encodeGoAway,
  encodeHello,
  encodeReset,
  encodeU32,
  FRAME,
  FrameDecoder,
  type FrameSink,
  HEAD_BYTES_MAX,
  LAST_ID_ANY,
  NO_BYTES,
  OPEN_KIND,
  readU32,
  WINDOW_BYTES_MAX,
} from './frame.ts'
import type { FrameBatch } from './frame-batch.ts'
import { LinkCall, type LinkOpen } from './link-call.ts'
import { createLinkCounts, type LinkCounts } from './link-counts.ts'
import { LinkHeartbeat } from './link-heartbeat.ts'
import { LinkLoad } from './link-load.ts'
import { LinkOutbox } from './link-outbox.ts'
import { LinkTeller } from './link-teller.ts'
import { ReceiveWindow } from './receive-window.ts'

/** Interim answers of one call (1xx); a service that says "processing" every ten seconds gets 40 minutes. */
const HEADS_MAX = 256
export interface CallLinkDeps {
  readonly carrier: Carrier
  readonly clock: Clock
  readonly log: Log
  readonly self: NodeId
  /** The proven identity of the other end. */
  readonly peer: NodeId
  /** Where what goes over the link is counted. Default: nowhere. */
  readonly counts?: LinkCounts
  /** Of a link this end dialled: it is to stay beside others. Default: it is not. */
  readonly isParallel?: boolean
  readonly accept: AcceptCall
  /** Takes streams that are to be passed on, or have arrived; `route` is not yet read. Default: all are refused. */
  readonly acceptRelay?: (call: Call, route: Buffer, from: NodeId) => void
  /** The peer said HELLO, stopped taking calls, or is about to run out of ids: look at `state` again. */
  readonly onState: () => void
  /** Once, after every open call was reset. `fault`: the peer broke the protocol. */
  readonly onClosed: (reason: string, fault: boolean) => void
}

/** `hello`: not proven alive yet. `up`: takes calls. `retiring`: finishes those it has. */
export type CallLinkState = 'hello' | 'up' | 'retiring' | 'closed'

/**
 * Many calls on one carrier, in both directions, each with its own window.
 *
 * Sending: frames of one turn of the event loop leave together at its end. What cannot leave (carrier full, window
 * used up) waits in its call's queue, and the calls take turns. Control frames do not wait for data.
 * Receiving: DATA is handed on as it arrives and nothing is kept here. A paused call gets no credit, so its peer stops after
 * one window; the link's own window is credited on receipt, so the others go on.
 * Errors: what the peer does wrong closes the carrier (`fault`); what a handler throws resets its call alone.
 */
export class CallLink {
  readonly dialled: boolean
  readonly load = new LinkLoad()
  readonly #deps: CallLinkDeps
  readonly #options: CallLinkOptions
  readonly #decoder: FrameDecoder
  readonly #counts: LinkCounts
  readonly #tell: LinkTeller
  readonly #calls = new IdMap<LinkCall>()
  #state: CallLinkState = 'hello'
  #helloReceived = false

  // ids
  #nextId: number
  #peerLastId = 0
  #unsentOpens = 0
  #inboundCalls = 0

  // going away
  #goAwaySent = false
  /** Calls of the peer's beyond this are refused: set by `goAway`. */
  #acceptUpToId = LAST_ID_ANY
  #goAwayReceived = false
  #owesGoAway = false
  #closeWhenIdle = false
  readonly #idleWaiters: (() => void)[] = []

  // receiving
  readonly #window: ReceiveWindow
  #grownBytes = 0
  #heldBytes = 0

  readonly #heartbeat: LinkHeartbeat
  readonly #outbox: LinkOutbox
  #stopHelloTimer: (() => void) | undefined
  #peerCallWindowBytes = 0
  #peerKnowsParallel = false
  #isParallel: boolean
  #retireReason = ''

  constructor(deps: CallLinkDeps, dialled: boolean, options: CallLinkOptions) {
    this.#deps = deps
    this.dialled = dialled
    this.#options = options
    this.#isParallel = deps.isParallel === true
    this.#nextId = dialled ? 1 : 2
    this.#window = new ReceiveWindow(options.linkWindowBytes)
    const sink: FrameSink = {
      onFrame: (type, callId, payload) => this.#onFrame(type, callId, payload),
      onDataPiece: (callId, piece) => this.#onData(callId, piece),
    }
    this.#decoder = new FrameDecoder(sink)
    this.#counts = deps.counts ?? createLinkCounts()
    this.#tell = new LinkTeller(deps)
    this.#outbox = new LinkOutbox({
      carrier: deps.carrier,
      counts: this.#counts,
      load: this.load,
      emit: (call, type, payload, batch) => this.#emit(call, type, payload, batch),
      onFlushed: drained => this.#onFlushed(drained),
      onStuck: () =>
        this.#violation('expected the peer to read, found it taking nothing while it makes this node answer'),
    })
    this.#heartbeat = new LinkHeartbeat(
      {
        clock: deps.clock,
        sendPing: payload => this.#outbox.control(FRAME.PING, 0, payload),
        onSilence: () => {
          deps.carrier.destroy()
          this.#finish(`no byte for ${options.silenceMs} ms`, false)
        },
      },
      options,
    )
  }

  get state(): CallLinkState {
    return this.#state
  }

  /** Calls open in either direction. */
  get inFlight(): number {
    return this.#calls.size + this.#unsentOpens
  }

  /** Smoothed round trip, milliseconds; undefined before the first pong. It includes what queues on the way: so do calls. */
  get rttMs(): number | undefined {
    return this.#heartbeat.rttMs
  }

  /** True when its ids are running out: open new calls on a fresh link. */
  get wornOut(): boolean {
    return this.#nextId > this.#options.recycleFromId
  }

  /** Grows with every call that is opened, by either end. */
  get callsSeen(): number {
    return this.#nextId + this.#peerLastId
  }

  /** Meant to stay beside others; at the end that did not dial it known from HELLO on. */
  get isParallel(): boolean {
    return this.#isParallel
  }

  /** The peer would know another link for a parallel one. */
  get takesParallel(): boolean {
    return this.#peerKnowsParallel
  }

  /** Judges how busy the link is, since the last time; to be called every `TICK_MS`. */
  look(): void {
    this.load.look(this.#outbox.isHeldUp)
    if (this.load.isSendingCrowded && this.#peerKnowsParallel) this.#outbox.control(FRAME.CROWDED, 0, NO_BYTES)
  }

  /** Bytes paused handlers hold. */
  get heldBytes(): number {
    return this.#heldBytes
  }

  start(): void {
    const { carrier, clock } = this.#deps
    const { callWindowBytes, linkWindowBytes, helloTimeoutMs } = this.#options
    carrier.start({
      onBytes: chunk => this.#onBytes(chunk),
      onDrain: () => this.#outbox.onCarrierDrain(),
      onClose: reason => this.#finish(reason, false),
    })
    const hello = { callWindowBytes, linkWindowBytes, knowsParallel: true, isParallel: this.#isParallel }
    this.#outbox.control(FRAME.HELLO, 0, encodeHello(hello))
    this.#heartbeat.start()
    this.#stopHelloTimer = clock.after(helloTimeoutMs, () => {
      if (!this.#helloReceived) this.#violation(`expected HELLO within ${helloTimeoutMs} ms, found none`)
    })
  }

  /**
   * Opens a call. Undefined: this link takes none (not up yet, retiring or closed); nothing was sent.
   * A head that is too large is refused by `onReset`, like everything else that goes wrong later.
   */
  open(open: LinkOpen): Call | undefined {
    if (this.#state === 'closed' || this.#state === 'retiring' || this.#nextId >= LAST_ID_ANY - 2) return undefined
    const isNamed = open.kind === 'relay' || isServiceName(open.service)
    if (!isNamed) invariant(false, `a call was opened for the service name ${JSON.stringify(open.service)}`)
    const call = new LinkCall(this, 0, open, this.#options.callWindowBytes)
    this.#unsentOpens += 1
    if (open.head.length > HEAD_BYTES_MAX) this.#refuseHead(call, open.head.length)
    else this.sendFrame(call, FRAME.OPEN, open.head, false)
    return call
  }

  /**
   * Takes no new call from now on: those of the peer that cross this word are reset `draining`, unexecuted.
   * Resolves when no call is left, or the carrier is gone.
   */
  goAway(reason: string): Promise<void> {
    if (this.#state !== 'closed' && this.#acceptUpToId === LAST_ID_ANY) {
      this.#acceptUpToId = this.#peerLastId
      this.#goAwaySent = true
      this.#outbox.control(FRAME.GOAWAY, 0, encodeGoAway({ lastId: this.#peerLastId, code: 'draining', reason }))
      this.#setState('retiring')
    }
    return this.#idle()
  }

  /**
   * Steps back for a better link to the same peer: both ends stop opening calls here, those already on their way are
   * answered, then the carrier closes. No call is lost.
   */
  retire(reason: string): void {
    if (this.#state === 'closed' || this.#goAwaySent || this.#owesGoAway) return
    this.#closeWhenIdle = true
    this.#owesGoAway = true
    this.#retireReason = reason
    this.#setState('retiring')
    this.#sendOwedGoAway()
  }

  /** Closes at once; open calls are reset `link-lost`. */
  close(reason: string): void {
    this.#deps.carrier.close()
    this.#finish(reason, false)
  }

  // ---- what calls ask for (CallOwner) ----

  sendFrame(call: LinkCall, type: number, payload: Buffer, isShared: boolean): void {
    if (type !== FRAME.DATA && payload.length > HEAD_BYTES_MAX) {
      this.#refuseHead(call, payload.length)
      return
    }
    this.#outbox.send(call, type, payload, isShared)
  }

  resetByOwner(call: LinkCall, reset: CallReset): void {
    const id = call.id
    this.#forget(call)
    if (id !== 0) this.#outbox.control(FRAME.RESET, id, encodeReset(reset, this.#deps.self))
  }

  onResume(call: LinkCall): void {
    this.#heldBytes -= call.heldBytes
    call.heldBytes = 0
    this.#creditCall(call)
  }

  // ---- sending ----

  #onFlushed(drained: readonly LinkCall[]): void {
    this.#sendOwedGoAway()
    for (const call of drained) {
      if (!call.over) this.#tell.drain(call)
    }
  }

  #emit(call: LinkCall, type: number, payload: Buffer, batch: FrameBatch): void {
    if (type === FRAME.OPEN) {
      this.#emitOpen(call, batch)
      return
    }
    batch.add(type, call.id, payload)
    if (type !== FRAME.END) return
    call.endSent = true
    if (call.peerEnded) this.#forget(call)
  }

  /** Ids are given as OPEN leaves, so they rise on the wire, and id 0 means that the peer cannot know of the call. */
  #emitOpen(call: LinkCall, batch: FrameBatch): void {
    const open = call.opening
    invariant(open !== undefined, 'an accepted call sent OPEN')
    call.id = this.#nextId
    this.#nextId += 2
    this.#unsentOpens -= 1
    call.sendWindowBytes = this.#peerCallWindowBytes
    this.#calls.set(call.id, call)
    batch.addOpen(call.id, OPEN_KIND[open.kind], open.timeoutMs, open.service, open.head)
    if (open.kind === 'relay') this.#widen(call, batch)
    if (call.id === this.#options.recycleFromId || call.id === this.#options.recycleFromId + 1) {
      setImmediate(this.#deps.onState)
    }
  }

  /** Lets the peer send more of a relayed stream at once than of a call. */
  #widen(call: LinkCall, batch: FrameBatch | undefined): void {
    const moreBytes = this.#options.relayWindowBytes - this.#options.callWindowBytes
    if (moreBytes <= 0) return
    call.window.widen(moreBytes)
    if (batch === undefined) this.#outbox.control(FRAME.WINDOW, call.id, encodeU32(moreBytes))
    else batch.add(FRAME.WINDOW, call.id, encodeU32(moreBytes))
  }

  #refuseHead(call: LinkCall, bytes: number): void {
    const reason = `expected a head of at most ${HEAD_BYTES_MAX} bytes, found ${bytes}: send less in header fields`
    call.ended = true
    setImmediate(() => this.#failCall(call, 'head-too-large', reason, call.opening !== undefined && call.id === 0))
  }

  // ---- receiving ----

  #onBytes(chunk: Buffer): void {
    if (this.#state === 'closed') return
    this.#heartbeat.onHeard()
    const { frames } = this.#decoder
    const fault = this.#decoder.push(chunk)
    this.#counts.framesIn += this.#decoder.frames - frames
    this.#counts.bytesIn += chunk.length
    this.load.passedBytes += chunk.length
    if (fault !== undefined) this.#violation(fault)
  }

  #onFrame(type: number, callId: number, payload: Buffer): string | undefined {
    if (this.#state === 'closed') return undefined
    if (!this.#helloReceived && type !== FRAME.HELLO) return `expected HELLO first, found a frame of type ${type}`
    switch (type) {
      case FRAME.HELLO:
        return this.#onHello(payload)
      case FRAME.OPEN:
        return this.#onOpen(callId, payload)
      case FRAME.WINDOW:
        return this.#onWindow(callId, readU32(payload, 0))
      case FRAME.PING:
        this.#outbox.answerPing(payload)
        return undefined
      case FRAME.PONG:
        this.#heartbeat.onPong(payload)
        return undefined
      case FRAME.GOAWAY:
        this.#onGoAway(payload)
        return undefined
      case FRAME.CROWDED:
        this.load.onPeerWord()
        return undefined
      default:
        return this.#onCallFrame(type, callId, payload)
    }
  }

  #onHello(payload: Buffer): string | undefined {
    if (this.#helloReceived) return 'expected one HELLO, found another'
    const hello = decodeHello(payload)
    if (typeof hello === 'string') return hello
    this.#helloReceived = true
    this.#peerCallWindowBytes = hello.callWindowBytes
    this.#peerKnowsParallel = hello.knowsParallel
    if (!this.dialled) this.#isParallel = hello.isParallel
    this.#outbox.open(hello.linkWindowBytes)
    if (this.#state === 'hello') this.#setState('up')
    return undefined
  }

  #onOpen(callId: number, payload: Buffer): string | undefined {
    if ((callId & 1) === (this.dialled ? 1 : 0)) return `expected a call id of the peer's, found ${callId}`
    if (callId <= this.#peerLastId) return `expected a call id above ${this.#peerLastId}, found ${callId}`
    const open = decodeOpen(payload)
    if (typeof open === 'string') return open
    if (callId > this.#acceptUpToId) {
      this.#refuse(callId, 'draining', 'this node takes no new calls')
      return undefined
    }
    this.#peerLastId = callId
    if (this.#inboundCalls >= this.#options.inboundCallsMax) {
      this.#refuse(
        callId,
        'overloaded',
        `this node answers at most ${this.#options.inboundCallsMax} calls of a link at once`,
      )
      return undefined
    }
    const kind = open.kind === OPEN_KIND.http ? 'http' : open.kind === OPEN_KIND.tcp ? 'tcp' : undefined
    const isRelay = open.kind === OPEN_KIND.relay && this.#deps.acceptRelay !== undefined
    if (!isRelay && (kind === undefined || !isServiceName(open.service))) {
      this.#refuse(callId, 'bad-request', kind ? 'expected the name of a service' : `unknown kind of call ${open.kind}`)
      return undefined
    }
    const call = new LinkCall(this, callId, undefined, this.#options.callWindowBytes)
    call.sendWindowBytes = this.#peerCallWindowBytes
    this.#calls.set(callId, call)
    this.#inboundCalls += 1
    const { accept, acceptRelay, peer } = this.#deps
    try {
      if (kind !== undefined) {
        accept(call, { service: open.service, kind, timeoutMs: open.timeoutMs, head: Buffer.from(open.head) }, peer)
      } else {
        this.#widen(call, undefined)
        acceptRelay?.(call, open.head, peer)
      }
    } catch (error) {
      this.#tell.onThrown(call, error)
    }
    return undefined
  }

  #onData(callId: number, piece: Buffer): string | undefined {
    if (this.#state === 'closed') return undefined
    if (!this.#helloReceived) return 'expected HELLO first, found DATA'
    const length = piece.length
    this.#window.take(length)
    if (this.#window.leftBytes < 0) return 'expected at most a link window of data, found more'
    if (this.#window.isDue) {
      const growBytesMax = this.#options.linkWindowBytesMax - this.#window.sizeBytes
      const bytes = this.#window.credit(this.#deps.clock.nowMs(), this.#heartbeat.rttMinMs, growBytesMax)
      this.#outbox.control(FRAME.WINDOW, 0, encodeU32(bytes))
    }
    const call = this.#calls.get(callId)
    if (call === undefined) return this.#lateFault(callId)
    if (call.peerEnded || call.trailersReceived) return `expected no DATA after the end of call ${callId}`
    call.window.take(length)
    if (call.window.leftBytes < 0) return `expected at most a window of data on call ${callId}, found more`
    call.dataReceived = true
    if (call.paused) {
      call.heldBytes += length
      this.#heldBytes += length
      if (this.#heldBytes > this.#options.heldBytesMax) {
        this.#failCall(call, 'overloaded', 'too many readers on this link have stopped reading', false)
        return undefined
      }
    }
    this.#tell.data(call, piece)
    if (!call.over) this.#creditCall(call)
    return undefined
  }

  #onCallFrame(type: number, callId: number, payload: Buffer): string | undefined {
    const call = this.#calls.get(callId)
    if (call === undefined) return this.#lateFault(callId)
    if (type === FRAME.RESET) {
      const reset = decodeReset(payload, this.#deps.peer)
      if (typeof reset === 'string') return reset
      this.#forget(call)
      this.#tell.reset(call, reset)
      return undefined
    }
    if (call.peerEnded || (call.trailersReceived && type !== FRAME.END)) {
      return `expected nothing after the end of call ${callId}, found a frame of type ${type}`
    }
    if (type === FRAME.HEAD) {
      if (call.opening === undefined) return `expected no HEAD from the opener of call ${callId}`
      if (call.dataReceived) return `expected HEAD before the data of call ${callId}`
      call.headsReceived += 1
      if (call.headsReceived > HEADS_MAX) {
        this.#failCall(call, 'bad-answer', `expected at most ${HEADS_MAX} interim answers, found more`, false)
      } else this.#tell.head(call, payload)
    } else if (type === FRAME.TRAILERS) {
      call.trailersReceived = true
      this.#tell.trailers(call, payload)
    } else {
      call.peerEnded = true
      if (call.endSent) this.#forget(call)
      this.#tell.end(call)
    }
    return undefined
  }

  /** Frames of a call this node has reset or finished still arrive for a round trip; anything else is a peer gone wrong. */
  #lateFault(callId: number): string | undefined {
    const own = (callId & 1) === (this.dialled ? 1 : 0)
    const known = own ? callId < this.#nextId : callId <= this.#peerLastId || callId > this.#acceptUpToId
    return known ? undefined : `expected a frame of a call that was opened, found call ${callId}`
  }

  #onWindow(callId: number, bytes: number): string | undefined {
    if (bytes === 0) return 'expected a window of more than 0 bytes'
    if (callId === 0) {
      const granted = this.#outbox.grantLink(bytes)
      return granted > WINDOW_BYTES_MAX ? 'expected a link window below 2 GiB, found more' : undefined
    }
    const call = this.#calls.get(callId)
    if (call === undefined) return this.#lateFault(callId)
    const granted = this.#outbox.grantCall(call, bytes)
    return granted > WINDOW_BYTES_MAX ? `expected a window below 2 GiB on call ${callId}, found more` : undefined
  }

  /** Lazily: half a window at a time, so that credit costs a frame per 128 KiB. */
  #creditCall(call: LinkCall): void {
    const { window } = call
    if (call.paused || call.peerEnded || !window.isDue) return
    const { callWindowBytesMax, grownBytesMax } = this.#options
    const beforeBytes = window.sizeBytes
    const growBytesMax = Math.min(callWindowBytesMax - beforeBytes, grownBytesMax - this.#grownBytes)
    const bytes = window.credit(this.#deps.clock.nowMs(), this.#heartbeat.rttMinMs, growBytesMax)
    call.grownBytes += window.sizeBytes - beforeBytes
    this.#grownBytes += window.sizeBytes - beforeBytes
    this.#outbox.control(FRAME.WINDOW, call.id, encodeU32(bytes))
  }

  /** Ends a call from here: both ends are told. */
  #failCall(call: LinkCall, code: MeshErrorCode, reason: string, unexecuted: boolean): void {
    if (call.over) return
    const reset: CallReset = { code, reason, node: this.#deps.self, unexecuted }
    this.resetByOwner(call, reset)
    this.#tell.reset(call, reset)
  }

  #refuse(callId: number, code: MeshErrorCode, reason: string): void {
    const { self } = this.#deps
    this.#outbox.control(FRAME.RESET, callId, encodeReset({ code, reason, node: self, unexecuted: true }, self))
  }

  #forget(call: LinkCall): void {
    if (call.over) return
    call.over = true
    call.queue.length = 0
    call.queuedBytes = 0
    this.#heldBytes -= call.heldBytes
    call.heldBytes = 0
    this.#grownBytes -= call.grownBytes
    if (call.id === 0) {
      this.#unsentOpens -= 1
    } else {
      this.#calls.delete(call.id)
      if (call.opening === undefined) this.#inboundCalls -= 1
    }
    if (this.inFlight === 0 && this.#state !== 'up') this.#onIdle()
  }

  // ---- going away ----

  #onGoAway(payload: Buffer): void {
    const { lastId, code, reason } = decodeGoAway(payload)
    const { log, peer } = this.#deps
    log.debug({ link: peer, code, reason }, 'the peer takes no new calls on this link')
    this.#goAwayReceived = true
    this.#setState('retiring')
    if (lastId === LAST_ID_ANY) {
      if (!this.#goAwaySent) this.#owesGoAway = true
      this.#closeWhenIdle = true
      this.#sendOwedGoAway()
    } else {
      for (const call of [...this.#outbox.unsent(), ...this.#calls.all()]) {
        if (call.opening === undefined || (call.id !== 0 && call.id <= lastId)) continue
        this.#forget(call)
        this.#tell.reset(call, { code, reason, node: peer, unexecuted: true })
      }
    }
    if (this.inFlight === 0) this.#onIdle()
  }

  /** The word that no OPEN follows may leave only after every OPEN that still waits. */
  #sendOwedGoAway(): void {
    if (!this.#owesGoAway || this.#goAwaySent || this.#unsentOpens > 0) return
    this.#goAwaySent = true
    const goAway = encodeGoAway({ lastId: LAST_ID_ANY, code: 'draining', reason: this.#retireReason || 'agreed' })
    this.#outbox.control(FRAME.GOAWAY, 0, goAway)
    if (this.inFlight === 0) this.#onIdle()
  }

  #idle(): Promise<void> {
    if (this.inFlight === 0 || this.#state === 'closed') return Promise.resolve()
    return new Promise(resolve => this.#idleWaiters.push(resolve))
  }

  #onIdle(): void {
    for (const resolve of this.#idleWaiters.splice(0)) resolve()
    // Both have said that no OPEN follows, and nothing is open: no call can be lost by closing.
    if (!this.#closeWhenIdle || !this.#goAwaySent || !this.#goAwayReceived) return
    this.#closeWhenIdle = false
    setImmediate(() => {
      this.#outbox.flush()
      this.close(`retired: ${this.#retireReason || 'as the peer asked'}`)
    })
  }

  // ---- the end ----

  #violation(reason: string): void {
    if (this.#state === 'closed') return
    const goAway = encodeGoAway({ lastId: this.#peerLastId, code: 'bad-frame', reason })
    this.#outbox.lastWord(FRAME.GOAWAY, goAway)
    this.#deps.carrier.close()
    this.#finish(reason, true)
  }

  #finish(reason: string, fault: boolean): void {
    if (this.#state === 'closed') return
    this.#stopHelloTimer?.()
    this.#heartbeat.stop()
    const calls = [...this.#outbox.unsent(), ...this.#calls.all()]
    this.#state = 'closed'
    this.#outbox.close()
    const { self } = this.#deps
    for (const call of calls) {
      const unexecuted = call.opening !== undefined && call.id === 0
      this.#forget(call)
      this.#tell.reset(call, { code: 'link-lost', reason: `the link was lost: ${reason}`, node: self, unexecuted })
    }
    this.#onIdle()
    this.#deps.onClosed(reason, fault)
  }

  #setState(state: CallLinkState): void {
    if (this.#state === state || this.#state === 'closed') return
    this.#state = state
    this.#deps.onState()
  }
}
