export type Tone = 'good' | 'bad' | 'warn' | 'dim' | 'strong'

/** A cell; the bare text is the usual one. */
export type Cell = string | { readonly text: string; readonly tone: Tone }

export interface Column {
  readonly title: string
  /** Numbers stand right-aligned, so that their digits line up. */
  readonly align?: 'left' | 'right'
  /** May be cut short, with an ellipsis, where the terminal is too narrow. */
  readonly shrinks?: boolean
}

export interface TableOptions {
  readonly color: boolean
  /** Display columns to fit into; undefined: as wide as it is (a file or a pipe). */
  readonly width: number | undefined
}

const TONES: Record<Tone, string> = { good: '32', bad: '31', warn: '33', dim: '2', strong: '1' }
const GAP = '  '
/** A shrunk column keeps at least this, so that a name can still be told from its neighbours. Guess. */
const SHRUNK_COLUMNS_MIN = 6

const graphemes = new Intl.Segmenter('en', { granularity: 'grapheme' })
/** East Asian Wide and Fullwidth blocks (Unicode UAX #11, the large ranges) and characters shown as emoji. */
const WIDE =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{20000}-\u{3fffd}]|\p{Emoji_Presentation}/u

/**
 * Rows as aligned text, the titles first, each line ending in a newline.
 *
 * Cells may come from other nodes: characters that steer a terminal are shown as a replacement mark.
 */
export function formatTable(
  columns: readonly Column[],
  rows: readonly (readonly Cell[])[],
  options: TableOptions,
): string {
  const titles: Cell[] = columns.map(({ title }) => ({ text: title, tone: 'strong' }))
  const lines = [titles, ...rows].map(cells => columns.map((_, i) => toPrintable(cells[i] ?? '')))
  // No Math.max(...): a table may have more rows than a call may have arguments.
  const widths = columns.map((_, i) =>
    lines.reduce((most, line) => Math.max(most, displayWidth(line[i]?.text ?? '')), 0),
  )
  if (options.width !== undefined) shrink(columns, widths, options.width)
  return lines.map(line => `${formatLine(columns, widths, line, options.color)}\n`).join('')
}

/** Name and value pairs below each other, the values aligned. */
export function formatPairs(pairs: readonly (readonly [string, Cell])[], options: { color: boolean }): string {
  const width = Math.max(0, ...pairs.map(([name]) => displayWidth(name)))
  return pairs
    .map(([name, value]) => {
      const cell = toPrintable(value)
      return `${paint(name, 'dim', options.color)}${' '.repeat(width - displayWidth(name))}${GAP}${paint(cell.text, cell.tone, options.color)}\n`
    })
    .join('')
}

/** Text of others made harmless: control, format and half characters (terminal escapes, reversed text) become U+FFFD. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/gu, '\ufffd')
}

/** How many columns of a terminal the text takes. */
export function displayWidth(text: string): number {
  // Nearly every cell, and a hundred times cheaper than asking for graphemes.
  if (/^[ -~]*$/.test(text)) return text.length
  let width = 0
  for (const { segment } of graphemes.segment(text)) width += graphemeWidth(segment)
  return width
}

export function paint(text: string, tone: Tone | undefined, color: boolean): string {
  return color && tone !== undefined && text !== '' ? `\u001b[${TONES[tone]}m${text}\u001b[0m` : text
}

function graphemeWidth(segment: string): number {
  if (/^[\p{M}\u200b-\u200d]+$/u.test(segment)) return 0
  return WIDE.test(segment) ? 2 : 1
}

function toPrintable(cell: Cell): { text: string; tone: Tone | undefined } {
  return typeof cell === 'string' ? { text: printable(cell), tone: undefined } : { ...cell, text: printable(cell.text) }
}

/** Takes from the widest column that may shrink, one by one, until the line fits or none may shrink further. */
function shrink(columns: readonly Column[], widths: number[], width: number): void {
  let excess = widths.reduce((sum, each) => sum + each, 0) + GAP.length * (columns.length - 1) - width
  while (excess > 0) {
    let widest = -1
    let widestWidth = SHRUNK_COLUMNS_MIN
    for (const [i, column] of columns.entries()) {
      const each = widths[i] ?? 0
      if (column.shrinks === true && each > widestWidth) {
        widest = i
        widestWidth = each
      }
    }
    if (widest === -1) return
    widths[widest] = widestWidth - 1
    excess--
  }
}

function formatLine(
  columns: readonly Column[],
  widths: readonly number[],
  line: readonly { text: string; tone: Tone | undefined }[],
  color: boolean,
): string {
  const cells = line.map((cell, i) => {
    const width = widths[i] ?? 0
    const text = cut(cell.text, width)
    const pad = ' '.repeat(width - displayWidth(text))
    const painted = paint(text, cell.tone, color)
    if (columns[i]?.align === 'right') return pad + painted
    return i === line.length - 1 ? painted : painted + pad
  })
  return cells.join(GAP).trimEnd()
}

function cut(text: string, width: number): string {
  if (displayWidth(text) <= width) return text
  let kept = ''
  let keptWidth = 0
  for (const { segment } of graphemes.segment(text)) {
    const next = graphemeWidth(segment)
    if (keptWidth + next > width - 1) break
    kept += segment
    keptWidth += next
  }
  return `${kept}…`
}
