import { createHash, type Hash } from 'node:crypto'

const BUFFER_BYTES = 64 * 1024

/**
 * What happened in a run, as one hash: every frame with its bytes, every link, every fault. Two runs of one seed must
 * give the same; the first line in which two transcripts differ is where chance or a clock leaked in.
 */
export class Transcript {
  lines = 0
  private readonly hash: Hash = createHash('sha256')
  private readonly buffer = Buffer.allocUnsafe(BUFFER_BYTES)
  private used = 0
  private readonly onLine: ((line: string) => void) | undefined

  /** `onLine` gets each line as text: for files to be compared. It costs a few times the run itself. */
  constructor(onLine?: (line: string) => void) {
    this.onLine = onLine
  }

  /** One event. `bytes` go into the hash whole, and into the line as their length. */
  add(atMs: number, what: string, from: string, to: string, bytes?: Uint8Array): void {
    this.lines++
    const line = `${atMs} ${what} ${from} ${to} ${bytes === undefined ? '' : bytes.length}\n`
    if (this.used + line.length * 3 > BUFFER_BYTES) this.flush()
    this.used += this.buffer.write(line, this.used)
    if (bytes !== undefined) this.addBytes(bytes)
    this.onLine?.(line)
  }

  /** Of everything so far. */
  digest(): string {
    this.flush()
    return this.hash.copy().digest('hex')
  }

  private addBytes(bytes: Uint8Array): void {
    if (this.used + bytes.length > BUFFER_BYTES) this.flush()
    if (bytes.length > BUFFER_BYTES) this.hash.update(bytes)
    else {
      this.buffer.set(bytes, this.used)
      this.used += bytes.length
    }
  }

  private flush(): void {
    this.hash.update(this.buffer.subarray(0, this.used))
    this.used = 0
  }
}
