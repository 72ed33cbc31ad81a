import type { Socket } from 'node:net'

/** Small pieces are joined by a copy, larger ones are handed on as they are. A copy of 16 KiB costs less than a system call. */
const JOINED_BYTES_MAX = 16 * 1024

/**
 * Writes to a socket once a turn of the event loop: head, body and end of a small message leave in one system call,
 * which is the greater part of what a proxied call costs.
 */
export class TurnWriter {
  private readonly socket: Socket
  private parts: Buffer[] = []
  private bytes = 0
  private isPlanned = false

  constructor(socket: Socket) {
    this.socket = socket
  }

  /** False: stop until the socket's `drain`. The bytes must not be changed afterwards. */
  write(bytes: Buffer): boolean {
    if (this.bytes + bytes.length > JOINED_BYTES_MAX) {
      this.flush()
      if (bytes.length > JOINED_BYTES_MAX) return this.socket.write(bytes)
    }
    this.parts.push(bytes)
    this.bytes += bytes.length
    if (!this.isPlanned) {
      this.isPlanned = true
      process.nextTick(flushWriter, this)
    }
    return !this.socket.writableNeedDrain
  }

  /** Nothing more is written: sends what is left and finishes this side. */
  end(): void {
    this.flush()
    this.socket.end()
  }

  flush(): void {
    this.isPlanned = false
    const { parts } = this
    const [first] = parts
    if (first === undefined) return
    const { bytes } = this
    this.parts = []
    this.bytes = 0
    this.socket.write(parts.length === 1 ? first : Buffer.concat(parts, bytes))
  }
}

function flushWriter(writer: TurnWriter): void {
  writer.flush()
}
