import { HpackField, HpackTable, STATIC_COUNT, STATIC_FIELDS } from './hpack-table.ts'

/** Names remembered beside those of the tables. More are sent without a thought of repeating. Guess. */
const NAMES_MAX = 256
/** A field that would take more than this share of the table would drive out all that is small and frequent. */
const FIELD_SHARE_MAX = 4
/**
 * Never put into a table, by us or by those behind the peer (RFC 7541 section 7.1.3): secrets whose presence somebody
 * who can add fields to the same connection could test, guess by guess.
 */
const SECRET = new Set(['authorization', 'proxy-authorization', 'cookie', 'set-cookie'])

interface Name {
  /** In the static table; 0: not there. */
  readonly staticIndex: number
  readonly isSecret: boolean
  /** Value to index in the static table. */
  readonly staticValues: Map<string, number>
  /** Value to its ordinal in the dynamic table. */
  readonly values: Map<string, number>
  /** What it was when it was last sent whole: only what comes twice is worth a place in the table. */
  last: string | undefined
}

const STATIC_NAMES = staticNames()

/**
 * The sending end of HPACK (RFC 7541): fields to header blocks.
 *
 * A field goes into the table when it is sent the second time in a row with the same value, so what differs in every
 * message (ids, lengths, dates) never drives out what does not. Text is sent as it is: the peer is near, and Huffman
 * coding costs more time than bytes.
 */
export class HpackEncoder {
  private readonly table: HpackTable
  private readonly names = new Map<string, Name>()
  private tableBytesMax: number
  /** Sizes to be told at the beginning of the next block: the smallest since the last one, and the present one. */
  private smallestBytes: number | undefined
  private out = Buffer.allocUnsafe(1024)
  private length = 0

  constructor(tableBytesMax: number) {
    this.tableBytesMax = tableBytesMax
    this.table = new HpackTable(tableBytesMax, (field, ordinal) => {
      const name = this.names.get(field.name)
      if (name?.values.get(field.value) === ordinal) name.values.delete(field.value)
    })
  }

  get tableBytes(): number {
    return this.table.bytes
  }

  /** The peer's table has this size from now on. */
  resize(bytes: number): void {
    if (bytes === this.tableBytesMax) return
    this.tableBytesMax = bytes
    this.smallestBytes = Math.min(this.smallestBytes ?? bytes, bytes)
    this.table.resize(bytes)
  }

  /**
   * A header block of `fields`: name, value, name, value …; names in lower case, latin1.
   *
   * Shape: a slice of a work area that the next `encode` overwrites.
   */
  encode(fields: readonly string[]): Buffer {
    this.length = 0
    if (this.smallestBytes !== undefined) {
      if (this.smallestBytes < this.tableBytesMax) this.writeInteger(0x20, 5, this.smallestBytes)
      this.writeInteger(0x20, 5, this.tableBytesMax)
      this.smallestBytes = undefined
    }
    for (let i = 0; i < fields.length; i += 2) this.writeField(fields[i] ?? '', fields[i + 1] ?? '')
    return this.out.subarray(0, this.length)
  }

  private writeField(text: string, value: string): void {
    const name = this.names.get(text) ?? this.learn(text)
    const ordinal = name?.values.get(value)
    if (ordinal !== undefined) return this.writeInteger(0x80, 7, this.indexOf(ordinal))
    const known = name?.staticValues.get(value)
    if (known !== undefined) return this.writeInteger(0x80, 7, known)
    const nameIndex = name === undefined ? 0 : name.staticIndex || this.anyIndexOf(name)
    if (name === undefined || name.isSecret) {
      this.writeLiteral(name === undefined ? 0 : 0x10, 4, nameIndex, text, value)
      return
    }
    const bytes = text.length + value.length + 32
    if (name.last !== value || bytes * FIELD_SHARE_MAX > this.tableBytesMax) {
      name.last = value
      this.writeLiteral(0, 4, nameIndex, text, value)
      return
    }
    this.writeLiteral(0x40, 6, nameIndex, text, value)
    this.table.add(new HpackField(text, value))
    name.values.set(value, this.table.added - 1)
  }

  private learn(text: string): Name | undefined {
    if (this.names.size >= NAMES_MAX) {
      // Only names without a place in the table can be forgotten; the scan is paid for by the many names before it.
      for (const [known, name] of this.names) if (name.values.size === 0) this.names.delete(known)
      if (this.names.size >= NAMES_MAX) return undefined
    }
    const known = STATIC_NAMES.get(text)
    const name: Name = {
      staticIndex: known?.index ?? 0,
      isSecret: SECRET.has(text),
      staticValues: known?.values ?? NO_VALUES,
      values: new Map(),
      last: undefined,
    }
    this.names.set(text, name)
    return name
  }

  private indexOf(ordinal: number): number {
    return STATIC_COUNT + this.table.added - ordinal
  }

  private anyIndexOf(name: Name): number {
    for (const ordinal of name.values.values()) return this.indexOf(ordinal)
    return 0
  }

  private writeLiteral(mark: number, prefixBits: number, nameIndex: number, name: string, value: string): void {
    this.writeInteger(mark, prefixBits, nameIndex)
    if (nameIndex === 0) this.writeText(name)
    this.writeText(value)
  }

  private writeInteger(mark: number, prefixBits: number, value: number): void {
    this.reserve(8)
    const most = (1 << prefixBits) - 1
    if (value < most) {
      this.out[this.length++] = mark | value
      return
    }
    this.out[this.length++] = mark | most
    let rest = value - most
    for (; rest >= 0x80; rest >>>= 7) this.out[this.length++] = 0x80 | (rest & 0x7f)
    this.out[this.length++] = rest
  }

  private writeText(text: string): void {
    this.writeInteger(0, 7, text.length)
    this.reserve(text.length)
    this.length += this.out.write(text, this.length, 'latin1')
  }

  private reserve(bytes: number): void {
    if (this.length + bytes <= this.out.length) return
    const grown = Buffer.allocUnsafe((this.length + bytes) * 2)
    this.out.copy(grown, 0, 0, this.length)
    this.out = grown
  }
}

const NO_VALUES = new Map<string, number>()

function staticNames(): Map<string, { index: number; values: Map<string, number> }> {
  const names = new Map<string, { index: number; values: Map<string, number> }>()
  for (let index = 1; index <= STATIC_COUNT; index++) {
    const { name, value } = STATIC_FIELDS[index] as HpackField
    const known = names.get(name) ?? { index, values: new Map<string, number>() }
    names.set(name, known)
    if (value !== '' || known.index === index) known.values.set(value, index)
  }
  return names
}
