import type { CallHandler, CallReset } from '../proxy/call.ts'
import { messageOf } from '../router/errors.ts'
import type { Log } from '../router/log.ts'
import type { NodeId } from '../router/model.ts'
import { type LinkCall, NO_HANDLER } from './link-call.ts'

/**
 * Tells the handlers of a link's calls what has come for them, and ends the call of one that throws.
 *
 * What comes before a handler was set is kept until the turn of the event loop ends. The bytes of all events may lie in a
 * buffer that is used again, so what is kept is copied.
 */
export class LinkTeller {
  readonly #log: Log
  readonly #self: NodeId
  readonly #peer: NodeId

  /** `peer`: the link's other end. */
  constructor({ log, self, peer }: { readonly log: Log; readonly self: NodeId; readonly peer: NodeId }) {
    this.#log = log
    this.#self = self
    this.#peer = peer
  }

  head(call: LinkCall, head: Buffer): void {
    if (!isListening(call)) return this.#tellBytes(call, head, TELL_HEAD)
    try {
      call.handler.onHead(head)
    } catch (error) {
      this.onThrown(call, error)
    }
  }

  data(call: LinkCall, piece: Buffer): void {
    if (!isListening(call)) return this.#tellBytes(call, piece, TELL_DATA)
    try {
      call.handler.onData(piece)
    } catch (error) {
      this.onThrown(call, error)
    }
  }

  trailers(call: LinkCall, trailers: Buffer): void {
    this.#tellBytes(call, trailers, TELL_TRAILERS)
  }

  end(call: LinkCall): void {
    if (!isListening(call)) return this.#tell(call, TELL_END)
    try {
      call.handler.onEnd()
    } catch (error) {
      this.onThrown(call, error)
    }
  }

  drain(call: LinkCall): void {
    this.#tell(call, TELL_DRAIN)
  }

  reset(call: LinkCall, reset: CallReset): void {
    this.#tell(call, handler => {
      call.deaf = true
      handler.onReset(reset)
    })
  }

  onThrown(call: LinkCall, error: unknown): void {
    const reason = messageOf(error)
    const [log, self, peer] = [this.#log, this.#self, this.#peer]
    log.error({ link: peer, call: call.id, code: 'internal', reason, err: error }, 'the handler of a call failed')
    call.reset({ code: 'internal', reason: 'this node failed to handle the call', node: self, unexecuted: false })
  }

  #tellBytes(call: LinkCall, bytes: Buffer, event: (handler: CallHandler, bytes: Buffer) => void): void {
    const own = Buffer.from(bytes)
    this.#tell(call, handler => event(handler, own))
  }

  /** Runs `event` on the handler, or keeps it until the turn ends when none is set. */
  #tell(call: LinkCall, event: (handler: CallHandler) => void): void {
    if (call.deaf) return
    if (call.backlog !== undefined) {
      call.backlog.push(event)
      return
    }
    const handler = call.handler
    if (handler === NO_HANDLER) {
      call.backlog = [event]
      setImmediate(() => this.#tellBacklog(call))
      return
    }
    try {
      event(handler)
    } catch (error) {
      this.onThrown(call, error)
    }
  }

  #tellBacklog(call: LinkCall): void {
    const backlog = call.backlog
    if (backlog === undefined) return
    if (call.handler === NO_HANDLER) {
      this.onThrown(call, new Error('bug: a call was opened or accepted and no handler set in that turn'))
      return
    }
    call.backlog = undefined
    for (const event of backlog) this.#tell(call, event)
  }
}

const TELL_HEAD = (handler: CallHandler, head: Buffer): void => handler.onHead(head)
const TELL_DATA = (handler: CallHandler, piece: Buffer): void => handler.onData(piece)
const TELL_TRAILERS = (handler: CallHandler, trailers: Buffer): void => handler.onTrailers(trailers)
const TELL_END = (handler: CallHandler): void => handler.onEnd()
const TELL_DRAIN = (handler: CallHandler): void => handler.onDrain()

/** Its handler can be told at once. */
function isListening(call: LinkCall): boolean {
  return call.handler !== NO_HANDLER && call.backlog === undefined && !call.deaf
}
