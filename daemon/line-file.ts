import { type FileHandle, open, stat } from 'node:fs/promises'
import { MeshError, messageOf } from '../router/errors.ts'
import type { Log } from '../router/log.ts'

/** Lines are gathered in pieces of this size; one is written at a time. 256 KiB: some 600 calls, for each write wakes a thread. */
const CHUNK_BYTES = 256 * 1024
/** UTF-8 of one unit of a string takes at most so much. */
const BYTES_PER_UNIT_MAX = 3
/** What waits for a disk that is slower than the calls; lines beyond are dropped. 8 MiB: a second at 20,000 calls/s. */
const WAITING_BYTES_MAX = 8 * 1024 * 1024
/** What was gathered is written at least so often, and the file's name is looked at. */
const FLUSH_MS = 1000
/** A disk that is full or gone is told of so often. */
const COMPLAINT_MS = 60_000

interface Chunk {
  readonly buffer: Buffer
  bytes: number
  lines: number
}

/**
 * A file that lines are added to without ever making the one who adds them wait.
 *
 * Lines are copied into a buffer and written in the background, in order, one write at a time. What a slow disk leaves
 * waiting is bounded; lines beyond are dropped and counted. A file that was moved or removed (rotation) is made anew
 * within a second. Errors of the disk lose lines and nothing else: they are counted and told of.
 */
export class LineFile {
  readonly counts = { written: 0, dropped: 0 }
  readonly #log: Log
  readonly #nowMs: () => number
  readonly #openFile: typeof open
  readonly #path: string
  readonly #waitingBytesMax: number
  #chunk = newChunk()
  /** One that was written, to be filled again. */
  #spare: Chunk | undefined
  readonly #waiting: Chunk[] = []
  #waitingBytes = 0
  #file: FileHandle | undefined
  #inode = 0
  /** The last write broke off inside a line. */
  #isTorn = false
  #writing: Promise<void> | undefined
  #timer: NodeJS.Timeout | undefined
  #complainedAtMs = Number.NEGATIVE_INFINITY

  constructor(
    deps: { log: Log; nowMs: () => number; open?: typeof open },
    options: { path: string; waitingBytesMax?: number },
  ) {
    this.#log = deps.log
    this.#nowMs = deps.nowMs
    this.#openFile = deps.open ?? open
    this.#path = options.path
    this.#waitingBytesMax = options.waitingBytesMax ?? WAITING_BYTES_MAX
  }

  /** Rejects with MeshError `bad-config` if the file cannot be opened. */
  async start(): Promise<void> {
    await this.#open().catch((error: unknown) => {
      const found = `log.accessFile: ${this.#path} cannot be written (${messageOf(error)})`
      throw new MeshError('bad-config', `${found}; expected a file in a folder that is there`, { cause: error })
    })
    this.#timer = setInterval(() => void this.flush(), FLUSH_MS)
    this.#timer.unref()
  }

  /** Adds one line, which brings its own end. One of more than 87,000 characters is dropped. */
  write(line: string): void {
    const bytesMax = line.length * BYTES_PER_UNIT_MAX
    if (bytesMax > CHUNK_BYTES - this.#chunk.bytes) this.#cut()
    const chunk = this.#chunk
    if (bytesMax > CHUNK_BYTES - chunk.bytes || this.#waitingBytes >= this.#waitingBytesMax) {
      this.counts.dropped++
      return
    }
    chunk.bytes += chunk.buffer.write(line, chunk.bytes)
    chunk.lines++
  }

  /** Resolves when what was added so far has been written, or is lost. */
  async flush(): Promise<void> {
    await this.#follow()
    this.#cut()
    await this.#writing
  }

  /** Writes what is left, and closes. */
  async stop(): Promise<void> {
    clearInterval(this.#timer)
    this.#cut()
    await this.#writing
    await this.#file?.close().catch(() => {})
    this.#file = undefined
  }

  #cut(): void {
    if (this.#chunk.lines === 0) return
    this.#waiting.push(this.#chunk)
    this.#waitingBytes += this.#chunk.bytes
    this.#chunk = this.#spare ?? newChunk()
    this.#spare = undefined
    this.#writing ??= this.#writeAll().finally(() => {
      this.#writing = undefined
    })
  }

  async #writeAll(): Promise<void> {
    for (let chunk = this.#waiting[0]; chunk !== undefined; chunk = this.#waiting[0]) {
      try {
        await this.#writeChunk(chunk)
        this.counts.written += chunk.lines
      } catch (error) {
        this.counts.dropped += chunk.lines
        this.#complain(error)
      }
      this.#waiting.shift()
      this.#waitingBytes -= chunk.bytes
      chunk.bytes = 0
      chunk.lines = 0
      this.#spare = chunk
    }
  }

  async #writeChunk({ buffer, bytes }: Chunk): Promise<void> {
    const file = this.#file
    if (file === undefined) throw new Error('it is not open')
    if (this.#isTorn) await file.write('\n')
    this.#isTorn = false
    for (let at = 0; at < bytes; ) {
      const { bytesWritten } = await file.write(buffer, at, bytes - at)
      at += bytesWritten
      this.#isTorn = at < bytes
    }
  }

  /** If the name leads to another file now, or to none, goes there. */
  async #follow(): Promise<void> {
    const inode = await stat(this.#path).then(
      found => found.ino,
      () => undefined,
    )
    if (inode === this.#inode && this.#file !== undefined) return
    // What came before belongs to the old file.
    this.#cut()
    await this.#writing
    const old = this.#file
    await this.#open().catch((error: unknown) => this.#complain(error))
    if (this.#file !== old) await old?.close().catch(() => {})
  }

  async #open(): Promise<void> {
    const file = await this.#openFile(this.#path, 'a', 0o640)
    this.#inode = (await file.stat()).ino
    this.#file = file
    this.#isTorn = false
  }

  #complain(error: unknown): void {
    const nowMs = this.#nowMs()
    if (nowMs - this.#complainedAtMs < COMPLAINT_MS) return
    this.#complainedAtMs = nowMs
    this.#log.warn({ file: this.#path, reason: messageOf(error) }, 'lines of the access log are lost')
  }
}

function newChunk(): Chunk {
  return { buffer: Buffer.allocUnsafeSlow(CHUNK_BYTES), bytes: 0, lines: 0 }
}
