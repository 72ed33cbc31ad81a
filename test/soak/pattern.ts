/** What came is not what was sent: a failure of the mesh, also of a call that was given up meanwhile. */
export class WrongAnswer extends Error {}

const BLOCK_BYTES = 1024 * 1024
/** Longest piece that is taken at once. */
export const PIECE_BYTES_MAX = 256 * 1024

/** mulberry32: bytes that look like nothing, the same in every run. */
function makeBlock(): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES + PIECE_BYTES_MAX)
  let state = 20_261_122
  for (let at = 0; at < BLOCK_BYTES; at += 4) {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    block.writeUInt32LE((t ^ (t >>> 14)) >>> 0, at)
  }
  block.copy(block, BLOCK_BYTES, 0, PIECE_BYTES_MAX)
  return block
}

const BLOCK = makeBlock()

/** An endless text of bytes that begins somewhere else for each call: what is lost, doubled or another call's is seen. */
export class Pattern {
  readonly offset: number
  /** Bytes given or checked so far. */
  at = 0

  constructor(offset: number) {
    this.offset = offset % BLOCK_BYTES
  }

  /** The next bytes; not a copy. */
  take(bytes: number): Buffer {
    const from = (this.offset + this.at) % BLOCK_BYTES
    this.at += bytes
    return BLOCK.subarray(from, from + bytes)
  }

  /** Errors: WrongAnswer, if the chunk is not what comes next. */
  check(chunk: Buffer): void {
    for (let from = 0; from < chunk.length; ) {
      const bytes = Math.min(PIECE_BYTES_MAX, chunk.length - from)
      const at = this.at
      if (!this.take(bytes).equals(chunk.subarray(from, from + bytes)))
        throw new WrongAnswer(`the bytes from ${at} to ${at + bytes} are not those that were sent`)
      from += bytes
    }
  }

  /** Pieces of random sizes, `bytes` in all. */
  *pieces(bytes: number, below: (n: number) => number): Generator<Buffer> {
    for (let left = bytes; left > 0; ) {
      const piece = Math.min(left, 1 + below(below(4) === 0 ? 200 : 64 * 1024))
      left -= piece
      yield this.take(piece)
    }
  }
}
