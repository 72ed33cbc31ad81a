import { invariant } from '../../router/errors.ts'

/** Of the numbers in front of the bytes: how much was read and written so far, modulo 2^32, and who waits for more of it. */
const READ = 0
const WRITTEN = 1
const READER_WAITS = 2
const WRITER_WAITS = 3
const HEAD_BYTES = 64
/** In place of a record's length: the rest up to the end of the ring is left out. */
const LEFT_OUT = 0xffff_ffff
const LENGTH_BYTES = 4
/** Looks at the other side before this one goes to sleep: waking up costs more than a step of a router. */
const LOOKS = 2000

/**
 * Records of bytes from one thread to another, in the order in which they were written, in memory that both have.
 *
 * One side writes, the other reads. Whoever has nothing to do sleeps until the other side wakes it, without an event loop:
 * both may be in the middle of a synchronous run. A record lies in one piece and is read where it lies.
 */
export class ByteRing {
  readonly memory: SharedArrayBuffer
  readonly bytes: Buffer
  readonly view: DataView
  private readonly counts: Int32Array
  private readonly size: number
  private readonly goneMs: number
  /** Where the next record is read or written, and, of the reader, where the one that lies open ends. */
  private at = 0
  private openEnd = 0

  /**
   * `from`: bytes of records under way, a power of two, of which a record may take half; or the memory of one that the other side
   * has made. `goneMs`: who waits for longer than this throws, for the other side is gone. Default: it waits for ever.
   */
  constructor(from: number | SharedArrayBuffer, goneMs = Number.POSITIVE_INFINITY) {
    this.goneMs = goneMs
    this.memory = typeof from === 'number' ? new SharedArrayBuffer(HEAD_BYTES + from) : from
    this.size = this.memory.byteLength - HEAD_BYTES
    invariant((this.size & (this.size - 1)) === 0, 'a ring is a power of two long')
    this.counts = new Int32Array(this.memory, 0, HEAD_BYTES / 4)
    this.bytes = Buffer.from(this.memory, HEAD_BYTES)
    this.view = new DataView(this.memory, HEAD_BYTES)
  }

  /**
   * Where to write a record of up to `max` bytes; `commit` sends it off. While there is no room, `onFull` is called, which
   * may make the other side go on; answering false it waits for that.
   */
  reserve(max: number, onFull: () => boolean = () => false): number {
    const needed = max + LENGTH_BYTES
    invariant(needed <= this.size / 2, `a record of ${max} bytes is more than half a ring of ${this.size}`)
    const offset = this.at & (this.size - 1)
    const toEnd = this.size - offset
    const isSplit = toEnd < needed
    const taken = isSplit ? toEnd + needed : needed
    for (;;) {
      const read = Atomics.load(this.counts, READ) >>> 0
      if (this.size - ((this.at - read) >>> 0) >= taken) break
      if (!onFull()) this.sleep(READ, read, WRITER_WAITS)
    }
    if (isSplit) {
      if (toEnd >= LENGTH_BYTES) this.view.setUint32(offset, LEFT_OUT)
      this.at = (this.at + toEnd) >>> 0
    }
    return (this.at & (this.size - 1)) + LENGTH_BYTES
  }

  commit(length: number): void {
    this.view.setUint32(this.at & (this.size - 1), length)
    this.at = (this.at + LENGTH_BYTES + length) >>> 0
    Atomics.store(this.counts, WRITTEN, this.at | 0)
    this.wake(WRITTEN, READER_WAITS)
  }

  /** Where the next record begins and ends, once there is one. What lay open before may be written over. */
  read(): { from: number; end: number } {
    this.release()
    for (;;) {
      const written = Atomics.load(this.counts, WRITTEN) >>> 0
      if (written === this.at) {
        this.sleep(WRITTEN, written, READER_WAITS)
        continue
      }
      const offset = this.at & (this.size - 1)
      const toEnd = this.size - offset
      const length = toEnd < LENGTH_BYTES ? LEFT_OUT : this.view.getUint32(offset)
      if (length === LEFT_OUT) {
        this.at = (this.at + toEnd) >>> 0
        continue
      }
      const from = offset + LENGTH_BYTES
      this.openEnd = (this.at + LENGTH_BYTES + length) >>> 0
      return { from, end: from + length }
    }
  }

  private release(): void {
    if (this.openEnd === this.at) return
    this.at = this.openEnd
    Atomics.store(this.counts, READ, this.at | 0)
    this.wake(READ, WRITER_WAITS)
  }

  private sleep(what: number, seen: number, waits: number): void {
    for (let i = 0; i < LOOKS; i++) if (Atomics.load(this.counts, what) >>> 0 !== seen) return
    Atomics.store(this.counts, waits, 1)
    const woken = Atomics.wait(this.counts, what, seen | 0, this.goneMs)
    Atomics.store(this.counts, waits, 0)
    if (woken === 'timed-out') throw new Error(`simulation: a thread has not answered for ${this.goneMs / 1000} s`)
  }

  private wake(what: number, waits: number): void {
    if (Atomics.load(this.counts, waits) === 1) Atomics.notify(this.counts, what)
  }
}
