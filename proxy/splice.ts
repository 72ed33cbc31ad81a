import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import type { MeshErrorCode } from '../router/errors.ts'
import type { NodeId } from '../router/model.ts'
import type { Call, CallHandler, CallReset } from './call.ts'
import { readShared } from './shared-read.ts'
import { TurnWriter } from './turn-writer.ts'

/** How often the owner of splices has them look at their time-outs. A peer that is gone is known within two of these. */
export const SPLICE_TICK_MS = 250
/** What a client may say before an instance has taken its connection: it is kept, for another place. What a socket holds. */
const KEPT_BYTES_MAX = 64 * 1024
const NOTHING: Buffer = Buffer.alloc(0)

export interface SpliceOwner {
  /** The call's other end has an instance. Only where the call was opened. */
  onHead(head: Buffer): void
  /** The call was reset. True: the owner has found it another one (`attach`); else the socket is reset too. */
  onReset(reset: CallReset): boolean
  /** The socket is closed, and the call is over. */
  onGone(): void
}

/** What a reset tells the call's other end when the socket fails. */
export interface SpliceEnd {
  readonly code: MeshErrorCode
  /** This node. */
  readonly node: NodeId
  /** The socket's other end, for people. */
  readonly who: string
}

/**
 * A TCP connection and a call, tied together: what comes from one goes to the other as it is.
 *
 * Half-close is passed on as half-close and a reset as a reset, both ways. Back-pressure is the call's: what it does not
 * take stays in the kernel. Memory: what the call's window and the socket's buffer allow, and `KEPT_BYTES_MAX` before
 * `settle`.
 */
export class Splice implements CallHandler {
  /** What the socket has said, and what the call had for it. */
  bytesIn = 0
  bytesOut = 0
  private readonly socket: Socket
  private readonly owner: SpliceOwner
  private readonly end: SpliceEnd
  private readonly out: TurnWriter
  private call: Call | undefined
  /** All that the socket has said, for the next call; undefined once there can be none. */
  private kept: Buffer[] | undefined
  private keptBytes = 0
  /** The call takes no more for now. */
  private isHeld = false
  private hasEnded = false
  private hasHeardEnd = false
  private isGone = false
  private error = 'it closed the connection'
  private hasMoved = true
  private activeAtMs = 0

  /** `isKept`: `attach` may be called again until `settle`. */
  constructor(socket: Socket, owner: SpliceOwner, end: SpliceEnd, isKept: boolean) {
    this.socket = socket
    this.owner = owner
    this.end = end
    this.out = new TurnWriter(socket)
    this.kept = isKept ? [] : undefined
  }

  /** Takes the socket over. `first`: what was read of it already. A call is attached in the same turn. */
  start(first = NOTHING): void {
    const { socket } = this
    if (first.length > 0) this.onSocketData(first)
    readShared(socket, (chunk, end) => this.onSocketData(chunk.subarray(0, end)))
    socket.on('end', () => this.onSocketEnd())
    socket.on('drain', () => this.call?.resume())
    socket.on('error', error => {
      this.error = error.message
    })
    socket.on('close', () => this.onSocketClose())
  }

  /** True once a byte of the socket may have reached the call's other end. */
  get hasSpoken(): boolean {
    return this.keptBytes > 0
  }

  /** Ties it to a call, which gets all that the socket has said. */
  attach(call: Call): void {
    this.call = call
    call.handler = this
    this.isHeld = false
    for (const chunk of this.kept ?? []) if (!call.write(chunk)) this.isHeld = true
    if (this.hasEnded) call.end()
    this.flow()
  }

  /** The present call is the one: nothing is kept any more. */
  settle(): void {
    this.kept = undefined
    this.flow()
  }

  /** Bytes for the socket that are not the call's. */
  write(bytes: Buffer): void {
    this.out.write(bytes)
  }

  /** Looked at every `SPLICE_TICK_MS`. False: nothing has moved for `idleMs` (0: any time). */
  tick(nowMs: number, idleMs: number): boolean {
    if (this.hasMoved) {
      this.hasMoved = false
      this.activeAtMs = nowMs
      return true
    }
    if (idleMs > 0 && nowMs - this.activeAtMs >= idleMs) return false
    this.probe()
    return true
  }

  /** Ends both sides with a reset, and is told of neither. */
  reset(code: MeshErrorCode, reason: string): void {
    this.resetCall(code, reason)
    resetSocket(this.socket)
  }

  /** Ends the call alone. What the socket says from now on is dropped. */
  detach(code: MeshErrorCode, reason: string): void {
    this.resetCall(code, reason)
    this.isHeld = false
    this.settle()
  }

  /** Says a last word to the socket, which has no call any more, and closes it. */
  finish(lastWord: Buffer): void {
    this.out.write(lastWord)
    this.out.end()
  }

  // The socket's side ------------------------------------------------------------------------------------------------

  private onSocketData(chunk: Buffer): void {
    this.hasMoved = true
    this.bytesIn += chunk.length
    if (this.kept !== undefined) {
      this.kept.push(Buffer.from(chunk))
      this.keptBytes += chunk.length
    }
    if (this.call?.write(chunk, true) === false) this.isHeld = true
    if (this.isHeld || this.isKeptFull) this.socket.pause()
  }

  private onSocketEnd(): void {
    this.hasMoved = true
    this.hasEnded = true
    this.call?.end()
  }

  private onSocketClose(): void {
    this.isGone = true
    const { end } = this
    // Not at 'error', which may come in the turn of the last bytes: a reset would overtake them.
    if (!this.isWhole) this.resetCall(end.code, `${end.who}: ${this.error}`)
    this.owner.onGone()
  }

  /** Both sides have ended, each in its own time, and all was passed on. */
  get isWhole(): boolean {
    return this.socket.readableEnded && this.socket.writableFinished && this.hasHeardEnd
  }

  private get isKeptFull(): boolean {
    return this.kept !== undefined && this.keptBytes >= KEPT_BYTES_MAX
  }

  private flow(): void {
    if (this.isHeld || this.isKeptFull) this.socket.pause()
    else this.socket.resume()
  }

  /**
   * Of a socket that is not read the kernel tells nothing, not even that the other end has reset it. A write of no bytes
   * sends nothing, and fails then.
   */
  private probe(): void {
    const { socket } = this
    const isRead = !this.hasEnded && !this.isHeld && !this.isKeptFull
    if (isRead || this.isGone || socket instanceof TLSSocket) return
    if (socket.writable && socket.writableLength === 0) socket.write(NOTHING)
  }

  // The call's side --------------------------------------------------------------------------------------------------

  onHead(head: Buffer): void {
    this.owner.onHead(head)
  }

  onData(chunk: Buffer): void {
    if (this.refuseEarly()) return
    this.hasMoved = true
    this.bytesOut += chunk.length
    if (!this.isGone && !this.out.write(chunk)) this.call?.pause()
  }

  onTrailers(): void {}

  onEnd(): void {
    if (this.refuseEarly()) return
    this.hasMoved = true
    this.hasHeardEnd = true
    this.out.end()
  }

  onDrain(): void {
    this.isHeld = false
    this.flow()
  }

  onReset(reset: CallReset): void {
    this.call = undefined
    if (this.isGone || this.owner.onReset(reset)) return
    this.out.flush()
    resetSocket(this.socket)
  }

  /** The other end must say that an instance has the connection before it passes on what that says. */
  private refuseEarly(): boolean {
    const { call, kept } = this
    if (kept === undefined) return false
    const reason = 'expected a head before the bytes of a TCP call, found none'
    const reset = { code: 'bad-answer', reason, node: this.end.node, unexecuted: false } as const
    call?.reset(reset)
    this.onReset(reset)
    return true
  }

  private resetCall(code: MeshErrorCode, reason: string): void {
    const { call } = this
    this.call = undefined
    call?.reset({ code, reason, node: this.end.node, unexecuted: false })
  }
}

/** Ends a connection so that the other end does not take it for a regular end, where that can be told. */
export function resetSocket(socket: Socket): void {
  if (socket instanceof TLSSocket || socket.connecting) socket.destroy()
  else if (isEnding(socket)) socket.once('finish', () => socket.resetAndDestroy())
  else socket.resetAndDestroy()
}

/**
 * It was ended, and the kernel is told so when this turn of the event loop is over. A reset until then would fail (libuv's
 * EINVAL), and Node would forget the socket without closing it: no 'close' ever comes, and the process cannot end.
 */
function isEnding(socket: Socket): boolean {
  return socket.writableEnded && socket.writableLength === 0 && !socket.writableFinished && !socket.destroyed
}
