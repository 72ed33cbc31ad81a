import type { MeshErrorCode } from '../router/errors.ts'
import type { NodeId, ServiceName } from '../router/model.ts'

/** What a call is for; sent once, when it is opened. */
export interface CallOpen {
  readonly service: ServiceName
  /** `http`: `head` is a request head and the answer begins with a head. `tcp`: `head` is empty, bytes follow. */
  readonly kind: 'http' | 'tcp'
  /** Milliseconds the caller is still willing to wait for the answer to begin; 0: no limit. */
  readonly timeoutMs: number
  /** The request head as HTTP/1.1 text up to and including the empty line, hop-by-hop fields already removed. Its acceptor's to keep. */
  readonly head: Buffer
}

/** Why a call ended before both sides had finished. */
export interface CallReset {
  readonly code: MeshErrorCode
  /** For people: what happened, and where. */
  readonly reason: string
  /** The node that made the error. */
  readonly node: NodeId
  /** True only if no byte of the request can have reached an instance: then it may be sent again elsewhere. */
  readonly unexecuted: boolean
}

/**
 * Bytes that a handler is told may lie in a buffer that is used again when it returns: what is to be kept is copied. Only a
 * chunk longer than this is its own.
 */
export const REUSED_BYTES_MAX = 32 * 1024

/**
 * What the holder of one end of a call is told. Nothing is called after `onReset`, or after both directions have ended. No
 * bytes are the handler's to keep (`REUSED_BYTES_MAX`).
 */
export interface CallHandler {
  /** The answer's head (only at the end that opened the call). May come more than once: interim 1xx answers come first. */
  onHead(head: Buffer): void
  /** Body bytes. May still come after `pause()`, at most one window (`CALL_WINDOW_BYTES`) of them. */
  onData(chunk: Buffer): void
  /** Trailer fields as HTTP/1.1 text; at most once, after the last data and before `onEnd`. */
  onTrailers(trailers: Buffer): void
  /** The other side has finished sending. */
  onEnd(): void
  /** `write` may go on after it answered false. */
  onDrain(): void
  onReset(reset: CallReset): void
}

/**
 * One end of a call: two byte streams with back-pressure, a head, trailers and a half-close each.
 *
 * Both ends hold the same shape. Events are never delivered from inside one of these methods.
 * After `reset`, or once the call is over, every method is a no-op: the caller need not track who was first.
 */
export interface Call {
  /** Must be set before the turn of the event loop in which the call was opened or accepted ends. */
  handler: CallHandler
  sendHead(head: Buffer): void
  /**
   * Queues body bytes. False: stop until `onDrain`. The buffer must not be changed afterwards, unless it `isShared`: then
   * what cannot leave at once is copied.
   */
  write(chunk: Buffer, isShared?: boolean): boolean
  sendTrailers(trailers: Buffer): void
  /** Finishes this direction. The other one goes on. */
  end(): void
  /** Ends both directions at once; the other end gets `onReset`. This end hears nothing more. */
  reset(reset: CallReset): void
  /** Stop granting credit: the sender stops after at most one window. */
  pause(): void
  resume(): void
}

/** Takes calls that other nodes open. `caller` is the proven identity of the node that opened it. */
export type AcceptCall = (call: Call, open: CallOpen, caller: NodeId) => void

/** Bytes one direction of one call may have in flight without the receiver's consent. 256 KiB: yamux's and HTTP/2 stacks' usual first window. */
export const CALL_WINDOW_BYTES = 256 * 1024
