import type { Writable } from 'node:stream'

const BAR_WIDTH = 20
/** 80 columns hold it, its indent and 39 more. */
const STRIP_WIDTH = 28

export interface DemoScreenOptions {
  /** True: one line may be written over again and again. */
  readonly isLive: boolean
  readonly color: boolean
  readonly columns: number
}

/** What the demo says, in plain words: steps, tables and the line that moves. */
export class DemoScreen {
  private readonly out: Writable
  private readonly options: DemoScreenOptions
  private readonly startedAtMs = performance.now()
  private isLineOpen = false

  constructor(out: Writable, options: DemoScreenOptions) {
    this.out = out
    this.options = options
  }

  /** True: `beat` may come often, since each takes the place of the one before. */
  get isLive(): boolean {
    return this.options.isLive
  }

  /** A new part of the story. */
  step(text: string): void {
    this.closeLine()
    const seconds = ((performance.now() - this.startedAtMs) / 1000).toFixed(1).padStart(5)
    this.write(`\n${this.paint('36', `${seconds} s`)}  ${this.paint('1', wrap(text, this.options.columns - 9, 9))}\n`)
  }

  /** Lines of a table or a list, set in a little. */
  block(text: string): void {
    this.raw(text.replace(/^(?=.)/gm, '  '))
  }

  /** What a command printed, as it is. */
  raw(text: string): void {
    this.closeLine()
    this.write(`${text.trimEnd()}\n`)
  }

  note(text: string): void {
    this.closeLine()
    this.write(`         ${wrap(text, this.options.columns - 9, 9)}\n`)
  }

  /** Who answered lately. On a terminal it takes the place of the line before. */
  beat(text: string): void {
    if (!this.options.isLive) {
      this.write(`         ${text}\n`)
      return
    }
    // No line wrap: a line that is too long would leave its first half behind.
    this.write(`\r\x1b[K         ${text}`)
    this.isLineOpen = true
  }

  closeLine(): void {
    if (this.isLineOpen) this.write('\n')
    this.isLineOpen = false
  }

  /** Who answered, as shares of one bar. */
  bar(near: number, far: number): string {
    const full = Math.round((near * BAR_WIDTH) / Math.max(1, near + far))
    const cells = near + far === 0 ? '·'.repeat(BAR_WIDTH) : '█'.repeat(full) + '▒'.repeat(BAR_WIDTH - full)
    return this.cells(cells)
  }

  /** Who answered, one cell after the other; the last ones that fit. */
  strip(cells: string): string {
    const shown = cells.slice(-STRIP_WIDTH)
    return this.cells(shown) + ' '.repeat(STRIP_WIDTH - shown.length)
  }

  private cells(cells: string): string {
    const tones: Record<string, string> = { '█': '32', '▒': '33', '!': '31', '·': '2' }
    return cells.replace(/(.)\1*/g, (run, cell: string) => this.paint(tones[cell] ?? '0', run))
  }

  good(text: string): string {
    return this.paint('32', text)
  }

  bad(text: string): string {
    return this.paint('31', text)
  }

  private paint(code: string, text: string): string {
    return this.options.color && text !== '' ? `\x1b[${code}m${text}\x1b[0m` : text
  }

  private write(text: string): void {
    this.out.write(text)
  }
}

function wrap(text: string, width: number, indent: number): string {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line)
      line = word
    } else line = line === '' ? word : `${line} ${word}`
  }
  return [...lines, line].join(`\n${' '.repeat(indent)}`)
}
