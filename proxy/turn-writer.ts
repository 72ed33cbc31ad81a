import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import { REUSED_BYTES_MAX } from './call.ts'
import { writeDirectly } from './direct-write.ts'

/** What a writer gathers before it writes. 64 KiB: a read of Node's, so that a body leaves in as many system calls as it came in. */
const ROOM_BYTES = 64 * 1024
/** Larger pieces are handed on as they are: from here on a copy costs more than the system call it saves. Guess. */
const COPIED_BYTES_MAX = REUSED_BYTES_MAX
/** Up to here what cannot leave at once is copied into a buffer of its size, out of Node's own pool. */
const LENT_BYTES_MIN = 4 * 1024
/** Buffers kept for the next turn, 4 MiB: writers that a turn of the event loop has bytes for, seldom more. */
const SPARE_MAX = 64

/**
 * Buffers that were written and can be filled again. What is allocated for each write instead is not what it costs to
 * allocate: V8 collects the whole heap, not the young part alone, each time buffers of a few dozen megabytes have come
 * together, which was a third of the CPU of a bulk transfer (`npm run bench -- calls`, November 2026).
 */
const spare: Buffer[] = []
let planned: TurnWriter[] = []

/**
 * Writes to a socket once a turn of the event loop: head, body and end of a small message leave in one system call,
 * which is the greater part of what a proxied call costs, and so do the pieces of a large one.
 */
export class TurnWriter {
  private readonly socket: Socket
  private room: Buffer | undefined
  private bytes = 0
  private isPlanned = false
  /** Since the first buffer of ours that the socket still has, what it was given, in order; undefined stands for what is not ours. */
  private readonly lent: (Buffer | undefined)[] = []
  /** TLS tells later that it has taken what it was given. */
  private readonly isTls: boolean

  constructor(socket: Socket) {
    this.socket = socket
    this.isTls = socket instanceof TLSSocket
  }

  /** False: stop until the socket's `drain`. Bytes up to 32 KiB may be changed afterwards, more must not. */
  write(bytes: Buffer): boolean {
    const { length } = bytes
    if (this.bytes + length > ROOM_BYTES || length > COPIED_BYTES_MAX) {
      this.flush()
      if (length > COPIED_BYTES_MAX) {
        if (this.lent.length === 0) return this.socket.write(bytes)
        this.lent.push(undefined)
        return this.socket.write(bytes, this.onWritten)
      }
    }
    this.roomNow().set(bytes, this.bytes)
    this.bytes += length
    return !this.socket.writableNeedDrain
  }

  /** The same for text of latin1 characters, such as a head. */
  writeText(text: string): boolean {
    const { length } = text
    if (length > COPIED_BYTES_MAX) return this.write(Buffer.from(text, 'latin1'))
    if (this.bytes + length > ROOM_BYTES) this.flush()
    this.roomNow().write(text, this.bytes, 'latin1')
    this.bytes += length
    return !this.socket.writableNeedDrain
  }

  /** Where bytes are gathered, to be written when the turn is over. */
  private roomNow(): Buffer {
    this.room ??= spare.pop() ?? Buffer.allocUnsafeSlow(ROOM_BYTES)
    if (!this.isPlanned) {
      this.isPlanned = true
      if (planned.length === 0) setImmediate(flushPlanned)
      planned.push(this)
    }
    return this.room
  }

  /** Nothing more is written: sends what is left and finishes this side. */
  end(): void {
    this.flush()
    this.socket.end()
  }

  /** Before the turn is over, for who knows that nothing of the message is to come: its reader goes on while others are served. */
  flush(): void {
    const { room, bytes, socket } = this
    if (room === undefined) return
    this.room = undefined
    this.bytes = 0
    const isBehind = socket.writableLength > 0
    if (bytes <= LENT_BYTES_MIN && !isBehind && !this.isTls && this.lent.length === 0) this.writeSmall(room, bytes)
    else if (bytes <= LENT_BYTES_MIN || isBehind) {
      // What may wait long must not hold more than its bytes: a reader that stopped may have many small writes before it.
      const own = Buffer.allocUnsafe(bytes)
      room.copy(own, 0, 0, bytes)
      keep(room)
      if (this.lent.length === 0) socket.write(own)
      else {
        this.lent.push(undefined)
        socket.write(own, this.onWritten)
      }
    } else {
      this.lent.push(room)
      socket.write(room.subarray(0, bytes), this.onWritten)
    }
  }

  private writeSmall(room: Buffer, bytes: number): void {
    const { socket } = this
    const small = room.subarray(0, bytes)
    const done = writeDirectly(socket, small, this.onWritten)
    if (done === 'no') socket.write(small)
    // The kernel has it, as nearly always. Else the socket keeps the room: only one, what follows is behind it.
    if (done === 'waiting') this.lent.push(room)
    else if (socket.writableLength === 0) keep(room)
  }

  /** Told for each write in turn, also when the socket is gone. */
  private readonly onWritten = (): void => {
    const written = this.lent.shift()
    if (written !== undefined) keep(written)
  }

  /** The turn is over. */
  onTurnEnd(): void {
    this.isPlanned = false
    this.flush()
  }
}

function keep(room: Buffer): void {
  if (spare.length < SPARE_MAX) spare.push(room)
}

function flushPlanned(): void {
  const writers = planned
  planned = []
  for (const writer of writers) writer.onTurnEnd()
}
