/** What an entry costs beside its text (RFC 7541 section 4.1). */
export const ENTRY_OVERHEAD_BYTES = 32

/** A field of a header block. Those of a table live long, so what is found out about one is kept with it. */
export class HpackField {
  readonly name: string
  readonly value: string
  /** As RFC 7541 counts it. */
  readonly bytes: number
  /** What h2-head.ts has found it to be; 0: not looked at yet. */
  kind = 0

  constructor(name: string, value: string) {
    this.name = name
    this.value = value
    this.bytes = name.length + value.length + ENTRY_OVERHEAD_BYTES
  }
}

/** RFC 7541 appendix A; `name` or `name: value`, from index 1. */
const STATIC = [
  ...[':authority', ':method: GET', ':method: POST', ':path: /', ':path: /index.html', ':scheme: http'],
  ...[':scheme: https', ':status: 200', ':status: 204', ':status: 206', ':status: 304', ':status: 400'],
  ...[':status: 404', ':status: 500', 'accept-charset', 'accept-encoding: gzip, deflate', 'accept-language'],
  ...['accept-ranges', 'accept', 'access-control-allow-origin', 'age', 'allow', 'authorization', 'cache-control'],
  ...['content-disposition', 'content-encoding', 'content-language', 'content-length', 'content-location'],
  ...['content-range', 'content-type', 'cookie', 'date', 'etag', 'expect', 'expires', 'from', 'host', 'if-match'],
  ...['if-modified-since', 'if-none-match', 'if-range', 'if-unmodified-since', 'last-modified', 'link', 'location'],
  ...['max-forwards', 'proxy-authenticate', 'proxy-authorization', 'range', 'referer', 'refresh', 'retry-after'],
  ...['server', 'set-cookie', 'strict-transport-security', 'transfer-encoding', 'user-agent', 'vary', 'via'],
  'www-authenticate',
]

/** Index 0 is not used. */
export const STATIC_FIELDS: readonly HpackField[] = [
  new HpackField('', ''),
  ...STATIC.map(line => {
    const colon = line.indexOf(':', 1)
    return colon === -1 ? new HpackField(line, '') : new HpackField(line.slice(0, colon), line.slice(colon + 2))
  }),
]
export const STATIC_COUNT = STATIC.length

/** The dynamic table: fields in the order they came, the oldest leaving first when the sum of their sizes is too large. */
export class HpackTable {
  /** Newest last; those before `first` have left. */
  private fields: HpackField[] = []
  private first = 0
  private usedBytes = 0
  private bytesMax: number
  /** Fields added since the beginning. */
  added = 0
  private readonly onEvicted: ((field: HpackField, ordinal: number) => void) | undefined

  constructor(bytesMax: number, onEvicted?: (field: HpackField, ordinal: number) => void) {
    this.bytesMax = bytesMax
    this.onEvicted = onEvicted
  }

  get count(): number {
    return this.fields.length - this.first
  }

  get bytes(): number {
    return this.usedBytes
  }

  /** `index` counts from 0, the newest. */
  at(index: number): HpackField | undefined {
    const at = this.fields.length - 1 - index
    return at < this.first ? undefined : this.fields[at]
  }

  /** A field larger than the table empties it and is not kept (RFC 7541 section 4.4). */
  add(field: HpackField): void {
    this.shrinkTo(this.bytesMax - field.bytes)
    if (field.bytes > this.bytesMax) return
    this.fields.push(field)
    this.usedBytes += field.bytes
    this.added++
  }

  resize(bytesMax: number): void {
    this.bytesMax = bytesMax
    this.shrinkTo(bytesMax)
  }

  private shrinkTo(bytes: number): void {
    while (this.usedBytes > bytes && this.first < this.fields.length) {
      const field = this.fields[this.first] as HpackField
      this.onEvicted?.(field, this.added - this.count)
      this.usedBytes -= field.bytes
      this.first++
    }
    // What has left is cut off now and then, not each time.
    if (this.first > 64 && this.first * 2 > this.fields.length) {
      this.fields = this.fields.slice(this.first)
      this.first = 0
    }
  }
}
