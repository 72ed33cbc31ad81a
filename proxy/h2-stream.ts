import type { HpackField } from './hpack-table.ts'

/** Why a stream ended before both sides had finished. */
export interface H2Reset {
  readonly code: number
  /** `peer` has reset it; `here`: the peer broke a rule of the stream; `connection`: that is over. */
  readonly by: 'peer' | 'here' | 'connection'
  /** The peer promises not to have acted on it. */
  readonly unexecuted: boolean
  /** For people. */
  readonly reason: string
}

/** What the owner of a stream is told. Nothing follows `onReset`, or the end of both directions. */
export interface H2StreamHandler {
  /** A head, or trailers if one has come before. `ended`: nothing follows. */
  onFields(fields: readonly HpackField[], ended: boolean): void
  /** Body bytes; still at most one window of them after `pause`. The buffer they lie in is used again. */
  onData(chunk: Buffer): void
  onEnd(): void
  /** `write` may go on after it answered false. */
  onDrain(): void
  onReset(reset: H2Reset): void
}

/** One stream of a connection. The connection and its outbox read and write the fields; owners only hold it. */
export class H2Stream {
  readonly id: number
  handler: H2StreamHandler

  // sending
  sendWindowBytes: number
  readonly queue: Buffer[] = []
  queuedBytes = 0
  /** `onDrain` is owed. */
  owesDrain = false
  /** Trailers that wait for the data before them. */
  trailers: readonly string[] | undefined
  /** The owner has finished; END_STREAM may still wait for the data before it. */
  hasEnded = false
  hasSentEnd = false
  /** Once END_STREAM has left, the rest of the other direction is refused: it is not wanted any more. */
  stopsPeerAtEnd = false

  // receiving
  receiveWindowBytes: number
  /** Taken by the owner, credit not given back yet. */
  uncreditedBytes = 0
  isPaused = false
  hasPeerEnded = false
  isOver = false

  constructor(id: number, handler: H2StreamHandler, sendWindowBytes: number, receiveWindowBytes: number) {
    this.id = id
    this.handler = handler
    this.sendWindowBytes = sendWindowBytes
    this.receiveWindowBytes = receiveWindowBytes
  }
}
