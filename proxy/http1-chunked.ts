import { Http1Fault, type Http1FaultCode, shown } from './http1-fault.ts'
import { CR, HTAB, LF, SP, TOKEN } from './http1-fields.ts'
import { BlockGatherer } from './http1-gather.ts'
import { decodeTrailers } from './http1-head.ts'
import type { Http1Limits } from './http1-limits.ts'

/** 13 hexadecimal digits are at most 2^52 - 1: exact in a double, with room for sums. */
const SIZE_DIGITS_MAX = 13
const SEMICOLON = 0x3b
const EQUALS = 0x3d
const QUOTE = 0x22
const BACKSLASH = 0x5c

/** Value of a hexadecimal digit, or 255. */
const HEX = Uint8Array.from({ length: 256 }, (_, byte) => {
  const value = '0123456789abcdef'.indexOf(String.fromCharCode(byte).toLowerCase())
  return value === -1 ? 255 : value
})

const AT_SIZE = 0
const AT_SIZE_LF = 1
const AT_DATA = 2
const AT_DATA_CR = 3
const AT_DATA_LF = 4
const AT_TRAILERS = 5
const AT_EXTENSION_NAME = 6
const AT_EXTENSION_EQUALS = 7
const AT_EXTENSION_TOKEN = 8
const AT_EXTENSION_QUOTED = 9
const AT_EXTENSION_ESCAPE = 10
const AT_EXTENSION_AFTER_QUOTED = 11

/**
 * Takes chunked coding off a body, piece by piece.
 *
 * Each `step` goes on from `chunk[at]`, below `to`, to the next thing worth telling and answers the offset it came to:
 * - `event` `data`: `chunk[dataFrom, dataTo)` is body;
 * - `event` `end`: the message is over, `trailers` holds its trailer lines (empty for none, without the closing empty line);
 * - `event` `fault`: `fault` says why; it must not be used any more;
 * - `event` `more`: the chunk is used up.
 *
 * Source: RFC 9112 section 7.1, without its "bad whitespace": nothing may stand around the size or the extensions.
 */
export class ChunkedDecoder {
  readonly #code: Http1FaultCode
  readonly #limits: Http1Limits
  #state = AT_SIZE
  #size = 0
  #digits = 0
  #lineBytes = 0
  #extensionBytes = 0
  /** The extension name or value being read has at least one character. */
  #named = false
  #gatherer: BlockGatherer | undefined
  event: 'data' | 'end' | 'fault' | 'more' = 'more'
  dataFrom = 0
  dataTo = 0
  trailers: Buffer | undefined
  fault: Http1Fault | undefined

  constructor(code: Http1FaultCode, limits: Http1Limits) {
    this.#code = code
    this.#limits = limits
  }

  step(chunk: Buffer, from: number, to: number): number {
    let at = from
    while (at < to) {
      if (this.#state === AT_DATA) return this.#data(at, to)
      if (this.#state === AT_TRAILERS) return this.#trailerBytes(chunk, at, to)
      const byte = chunk[at++] ?? 0
      switch (this.#state) {
        case AT_SIZE: {
          const digit = HEX[byte] ?? 255
          if (digit !== 255) {
            if (++this.#digits > SIZE_DIGITS_MAX) return this.#refuse(at, 'a chunk size has more than 13 digits')
            this.#size = this.#size * 16 + digit
          } else if (this.#digits === 0 || (byte !== CR && byte !== SEMICOLON)) {
            const found = shown(String.fromCharCode(byte))
            return this.#refuse(at, `a chunk size holds ${found}; expected hexadecimal digits and the line's end`)
          } else this.#state = byte === CR ? AT_SIZE_LF : this.#beginExtension()
          break
        }
        case AT_SIZE_LF:
          if (byte !== LF) return this.#refuse(at, 'a chunk size line ends in a bare carriage return')
          this.#state = this.#size === 0 ? AT_TRAILERS : AT_DATA
          this.#digits = 0
          this.#lineBytes = 0
          break
        case AT_DATA_CR:
          if (byte !== CR) return this.#refuse(at, 'a chunk is longer than its size says')
          this.#state = AT_DATA_LF
          break
        case AT_DATA_LF:
          if (byte !== LF) return this.#refuse(at, 'a chunk ends in a bare carriage return')
          this.#state = AT_SIZE
          break
        default:
          if (!this.#extension(byte)) return this.#refuse(at, 'a chunk extension is malformed; expected ";name=value"')
          if (++this.#extensionBytes > this.#limits.chunkExtensionBytesMax) {
            return this.#refuse(
              at,
              `the chunk extensions of the message exceed ${this.#limits.chunkExtensionBytesMax} bytes`,
            )
          }
          if (++this.#lineBytes > this.#limits.chunkLineBytesMax) {
            return this.#refuse(at, `a chunk size line is longer than ${this.#limits.chunkLineBytesMax} bytes`)
          }
      }
    }
    this.event = 'more'
    return at
  }

  #data(at: number, to: number): number {
    const end = this.#size <= to - at ? at + this.#size : to
    this.#size -= end - at
    if (this.#size === 0) this.#state = AT_DATA_CR
    this.event = 'data'
    this.dataFrom = at
    this.dataTo = end
    return end
  }

  #trailerBytes(chunk: Buffer, from: number, to: number): number {
    if (this.#gatherer === undefined) {
      if (from + 1 < to && chunk[from] === CR && chunk[from + 1] === LF) {
        this.event = 'end'
        return from + 2
      }
      this.#gatherer = new BlockGatherer(true)
    }
    const bytesMax = this.#limits.trailerBytesMax
    const end = this.#gatherer.take(chunk, from, to, bytesMax, bytesMax)
    if (end === 'too-large') return this.#refuse(from, `the trailers are longer than ${bytesMax} bytes`)
    if (end === 'bad-byte') return this.#refuse(from, 'the trailers hold a control character or a bare line end')
    if (end === -1) {
      this.event = 'more'
      return to
    }
    const bytes = this.#gatherer.bytes()
    if (bytes.length > 2) {
      const fields = decodeTrailers(bytes, this.#code, this.#limits)
      if (fields instanceof Http1Fault) {
        this.event = 'fault'
        this.fault = fields
        return end
      }
      this.trailers = bytes.subarray(0, bytes.length - 2)
    }
    this.event = 'end'
    return end
  }

  #beginExtension(): number {
    this.#extensionBytes++
    this.#lineBytes = this.#digits + 1
    this.#named = false
    return AT_EXTENSION_NAME
  }

  /** One byte of `*( ";" name [ "=" ( token / quoted-string ) ] ) CR`; false: it may not stand here. */
  #extension(byte: number): boolean {
    switch (this.#state) {
      case AT_EXTENSION_QUOTED:
        if (byte === QUOTE) this.#state = AT_EXTENSION_AFTER_QUOTED
        else if (byte === BACKSLASH) this.#state = AT_EXTENSION_ESCAPE
        else return isText(byte)
        return true
      case AT_EXTENSION_ESCAPE:
        this.#state = AT_EXTENSION_QUOTED
        return isText(byte)
      case AT_EXTENSION_EQUALS:
        if (byte === QUOTE) this.#state = AT_EXTENSION_QUOTED
        else if (TOKEN[byte] === 1) this.#state = AT_EXTENSION_TOKEN
        else return false
        return true
      case AT_EXTENSION_NAME:
      case AT_EXTENSION_TOKEN:
        if (TOKEN[byte] === 1) {
          this.#named = true
          return true
        }
        if (!this.#named) return false
        if (byte === EQUALS && this.#state === AT_EXTENSION_NAME) {
          this.#state = AT_EXTENSION_EQUALS
          return true
        }
        return this.#endExtension(byte)
      default:
        return this.#endExtension(byte)
    }
  }

  #endExtension(byte: number): boolean {
    if (byte === SEMICOLON) {
      this.#state = AT_EXTENSION_NAME
      this.#named = false
      return true
    }
    this.#state = AT_SIZE_LF
    return byte === CR
  }

  #refuse(at: number, reason: string): number {
    this.event = 'fault'
    this.fault = new Http1Fault(this.#code, reason)
    return at
  }
}

/** Printable ASCII and HTAB: what a quoted string may hold, obs-text left out. */
function isText(byte: number): boolean {
  return byte === HTAB || (byte >= SP && byte < 0x7f)
}
