import { decodeHuffman } from './hpack-huffman.ts'
import { HpackField, HpackTable, STATIC_COUNT, STATIC_FIELDS } from './hpack-table.ts'

/** Bytes that continue an integer: four give 2^28, and nothing here may be larger. */
const INTEGER_BYTES_MAX = 4
/** Changes of the table's size one block may begin with: the smallest in between, and the last (RFC 7541 section 4.2). */
const SIZE_UPDATES_MAX = 2

/**
 * The receiving end of HPACK (RFC 7541): header blocks to fields.
 *
 * Whatever a block holds, its cost is bounded: the table by what we announced, the list by `listBytesMax`. A list that is
 * longer is still read to its end, because the table depends on it, but its fields are not kept.
 */
export class HpackDecoder {
  private readonly table: HpackTable
  private readonly tableBytesMax: number
  private readonly listBytesMax: number
  /** Where `integer` and `text` stopped reading; -1: the block is broken. */
  private at = 0
  /** What was decoded last had more than `listBytesMax` bytes; the fields beyond are missing. */
  isTooLarge = false

  constructor(options: { readonly tableBytesMax: number; readonly listBytesMax: number }) {
    this.tableBytesMax = options.tableBytesMax
    this.listBytesMax = options.listBytesMax
    this.table = new HpackTable(options.tableBytesMax)
  }

  /** Shape: the fields in order, or why the block cannot be read. After that the connection cannot go on. */
  decode(bytes: Buffer, from: number, to: number): HpackField[] | string {
    const fields: HpackField[] = []
    let listBytes = 0
    let sizeUpdates = 0
    this.isTooLarge = false
    this.at = from
    while (this.at < to) {
      const byte = bytes[this.at] ?? 0
      let field: HpackField | undefined
      if (byte >= 0x80) {
        const index = this.integer(bytes, to, 7)
        field = this.lookUp(index)
        if (field === undefined) return `there is no field of index ${index}`
      } else if (byte >= 0x40) {
        field = this.literal(bytes, to, 6)
        if (field !== undefined) this.table.add(field)
      } else if (byte >= 0x20) {
        if (fields.length > 0 || this.isTooLarge || ++sizeUpdates > SIZE_UPDATES_MAX) {
          return 'the table changes its size elsewhere than at the beginning of a block'
        }
        const size = this.integer(bytes, to, 5)
        if (size < 0 || size > this.tableBytesMax) {
          return `the table is to have ${size} bytes; at most ${this.tableBytesMax} were offered`
        }
        this.table.resize(size)
        continue
      } else field = this.literal(bytes, to, 4)
      if (field === undefined) return 'a field breaks off, or its text is not of the code'
      listBytes += field.bytes
      if (listBytes > this.listBytesMax) this.isTooLarge = true
      else fields.push(field)
    }
    return this.at === to ? fields : 'a number is too large or breaks off'
  }

  get tableBytes(): number {
    return this.table.bytes
  }

  private lookUp(index: number): HpackField | undefined {
    if (index <= 0) return undefined
    return index <= STATIC_COUNT ? STATIC_FIELDS[index] : this.table.at(index - STATIC_COUNT - 1)
  }

  private literal(bytes: Buffer, to: number, prefixBits: number): HpackField | undefined {
    const index = this.integer(bytes, to, prefixBits)
    const name = index === 0 ? this.text(bytes, to) : this.lookUp(index)?.name
    if (name === undefined) return undefined
    const value = this.text(bytes, to)
    return value === undefined ? undefined : new HpackField(name, value)
  }

  /** Shape: at least 0, or -1 when it breaks off or is too large; then nothing more can be read. */
  private integer(bytes: Buffer, to: number, prefixBits: number): number {
    const at = this.at
    if (at >= to) return this.broken()
    const most = (1 << prefixBits) - 1
    let value = (bytes[at] ?? 0) & most
    if (value < most) {
      this.at = at + 1
      return value
    }
    for (let i = 0; i < INTEGER_BYTES_MAX; i++) {
      const next = at + 1 + i
      if (next >= to) return this.broken()
      const byte = bytes[next] ?? 0
      value += (byte & 0x7f) << (7 * i)
      if (byte < 0x80) {
        this.at = next + 1
        return value
      }
    }
    return this.broken()
  }

  private text(bytes: Buffer, to: number): string | undefined {
    const isCoded = this.at < to && ((bytes[this.at] ?? 0) & 0x80) !== 0
    const length = this.integer(bytes, to, 7)
    const from = this.at
    if (length < 0 || from + length > to) return undefined
    this.at = from + length
    return isCoded ? decodeHuffman(bytes, from, this.at) : bytes.toString('latin1', from, this.at)
  }

  private broken(): number {
    this.at = Number.POSITIVE_INFINITY
    return -1
  }
}
