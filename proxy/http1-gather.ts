import { CR, HTAB, LF, SP } from './http1-fields.ts'

const NOTHING = Buffer.alloc(0)

/** Bytes kept for later, copied out of buffers that are not ours to keep. Grows by doubling, so drops of one byte stay linear. */
export class HeldBytes {
  #bytes: Buffer = NOTHING
  #length = 0

  get length(): number {
    return this.#length
  }

  append(chunk: Buffer, from: number, to: number): void {
    const length = this.#length + to - from
    if (length > this.#bytes.length) {
      const grown = Buffer.allocUnsafe(Math.max(length, this.#bytes.length * 2, 512))
      this.#bytes.copy(grown, 0, 0, this.#length)
      this.#bytes = grown
    }
    chunk.copy(this.#bytes, this.#length, from, to)
    this.#length = length
  }

  /** Puts back what `take` gave and was not used, without copying it; nothing may be held meanwhile. */
  restore(bytes: Buffer): void {
    this.#bytes = bytes
    this.#length = bytes.length
  }

  /** All of it; afterwards nothing is held. */
  take(): Buffer {
    const bytes = this.#bytes.subarray(0, this.#length)
    this.#bytes = NOTHING
    this.#length = 0
    return bytes
  }
}

/**
 * Collects a block of lines that arrives in pieces, up to and including its empty line, each byte looked at once.
 *
 * It refuses early what no block may hold (control characters, bare CR or LF), so that a peer that speaks something
 * else is told at once, not at a time-out. All other judgement is the decoder's, once the block is whole.
 */
export class BlockGatherer {
  readonly #held = new HeldBytes()
  /** How much of CR LF CR LF has just passed. */
  #matched: number
  /** Bytes of the first line so far, while `#firstLine`. */
  #lineBytes = 0
  #firstLine = true

  /** @param afterLine true: a line has just ended, so that an empty line ends the block at once. */
  constructor(afterLine: boolean) {
    this.#matched = afterLine ? 2 : 0
  }

  get length(): number {
    return this.#held.length
  }

  /**
   * Takes bytes from `chunk[from, to)`.
   *
   * Shape: the offset after the empty line, or -1 when more is needed (all was taken), `too-large` or `bad-byte`.
   * Units: `bytesMax` for the block, `firstLineBytesMax` for its first line.
   */
  take(
    chunk: Buffer,
    from: number,
    to: number,
    bytesMax: number,
    firstLineBytesMax: number,
  ): number | 'too-large' | 'bad-byte' {
    let matched = this.#matched
    let at = from
    const stop = Math.min(to, from + bytesMax - this.#held.length)
    for (; at < stop && matched < 4; at++) {
      const byte = chunk[at] ?? 0
      if (this.#firstLine && ++this.#lineBytes > firstLineBytesMax) return 'too-large'
      if (byte === LF) {
        if (matched !== 1 && matched !== 3) return 'bad-byte'
        matched++
        // An empty line may come before the first one; it does not count.
        this.#firstLine = this.#firstLine && this.#lineBytes === 2
        this.#lineBytes = 0
      } else if (matched === 1 || matched === 3) return 'bad-byte'
      else if (byte === CR) matched = matched === 2 ? 3 : 1
      else if (byte < SP ? byte !== HTAB : byte === 0x7f) return 'bad-byte'
      else matched = 0
    }
    this.#matched = matched
    this.#held.append(chunk, from, at)
    if (matched === 4) return at
    return at < to || this.#held.length === bytesMax ? 'too-large' : -1
  }

  bytes(): Buffer {
    return this.#held.take()
  }
}
