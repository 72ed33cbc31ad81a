/** Frames under way are kept in pieces of memory of this size; the largest frame is a quarter of it. */
const SLAB_BYTES = 1024 * 1024

interface Slab {
  readonly bytes: Uint8Array
  used: number
  /** Frames in it that have not arrived. */
  underWay: number
}

/**
 * Keeps frames while they are under way, in memory that is used again and again. A buffer of its own for each would
 * outlive the collections that are cheap, and V8 marks its whole heap whenever some dozen megabytes of such have gathered.
 */
export class FrameSlabs {
  private readonly spare: Slab[] = []
  private slab: Slab | undefined

  /** A copy of the frame, to be released once for each of the `due` times that it arrives. */
  hold(frame: Uint8Array, due: number): { bytes: Uint8Array; release: () => void } {
    const slab = this.room(frame.length)
    const bytes = slab.bytes.subarray(slab.used, slab.used + frame.length)
    bytes.set(frame)
    slab.used += frame.length
    slab.underWay += due
    return {
      bytes,
      release: () => {
        slab.underWay--
        if (slab !== this.slab) this.free(slab)
      },
    }
  }

  private room(bytes: number): Slab {
    const { slab } = this
    if (slab !== undefined && slab.used + bytes <= SLAB_BYTES) return slab
    this.slab = (bytes <= SLAB_BYTES && this.spare.pop()) || {
      bytes: new Uint8Array(Math.max(SLAB_BYTES, bytes)),
      used: 0,
      underWay: 0,
    }
    if (slab !== undefined) this.free(slab)
    return this.slab
  }

  private free(slab: Slab): void {
    if (slab.underWay > 0) return
    slab.used = 0
    if (slab.bytes.length === SLAB_BYTES) this.spare.push(slab)
  }
}
