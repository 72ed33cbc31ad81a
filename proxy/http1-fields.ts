import { Http1Fault, type Http1FaultCode, shown } from './http1-fault.ts'
import type { Http1Limits } from './http1-limits.ts'

export const CR = 0x0d
export const LF = 0x0a
export const SP = 0x20
export const HTAB = 0x09
const COLON = 0x3a
/** Set in small letters, not in capitals. */
const CASE_BIT = 0x20

/** tchar of RFC 9110 section 5.6.2: what names, methods and connection options are made of. */
export const TOKEN = byteTable(byte => /[!#$%&'*+\-.^_`|~0-9A-Za-z]/.test(String.fromCharCode(byte)))
/** What a field value and a reason phrase may hold (RFC 9110 section 5.5): HTAB, SP, VCHAR and obs-text. */
export const VALUE = byteTable(byte => byte === HTAB || (byte >= SP && byte !== 0x7f))

export function byteTable(has: (byte: number) => boolean): Uint8Array {
  return Uint8Array.from({ length: 256 }, (_, byte) => (has(byte) ? 1 : 0))
}

export function isToken(text: string): boolean {
  for (let i = 0; i < text.length; i++) if (TOKEN[text.charCodeAt(i)] !== 1) return false
  return text.length > 0
}

/**
 * Where the fields of the block read last lie: four offsets each (name from, to, value from, to).
 *
 * One work area for the process: it is filled and emptied within one synchronous read, and a head per connection would
 * cost more memory than the connection itself.
 */
export class FieldSpans {
  #offsets = new Int32Array(4 * 128)
  count = 0

  add(nameFrom: number, nameTo: number, valueFrom: number, valueTo: number): void {
    const at = this.count * 4
    if (at === this.#offsets.length) {
      const grown = new Int32Array(at * 2)
      grown.set(this.#offsets)
      this.#offsets = grown
    }
    const offsets = this.#offsets
    offsets[at] = nameFrom
    offsets[at + 1] = nameTo
    offsets[at + 2] = valueFrom
    offsets[at + 3] = valueTo
    this.count++
  }

  /** `text` is the whole head, the bytes from offset `base` on. */
  lines(text: string, base: number): FieldLines {
    // Of the right size at once: one that grows leaves as much again behind for the garbage collector.
    const offsets = new Array<number>(this.count * 4)
    for (let at = 0; at < offsets.length; at++) offsets[at] = (this.#offsets[at] as number) - base
    return new FieldLines(text, offsets)
  }
}

/**
 * The field lines of a head as they came, taken apart only when somebody asks: most heads are passed on, and most of
 * their lines are passed on as they are.
 */
export class FieldLines {
  /** The whole head, its empty line included, latin1. */
  readonly text: string
  /** Name from, to, value from, to, of each line in turn. */
  private readonly offsets: readonly number[]
  private fields: readonly string[] | undefined

  constructor(text: string, offsets: readonly number[]) {
    this.text = text
    this.offsets = offsets
  }

  get count(): number {
    return this.offsets.length / 4
  }

  /** Shape: name, value, name, value …. */
  get strings(): readonly string[] {
    if (this.fields === undefined) {
      const { text, offsets } = this
      const fields: string[] = []
      for (let at = 0; at < offsets.length; at += 2) fields.push(text.substring(offsets[at] ?? 0, offsets[at + 1] ?? 0))
      this.fields = fields
    }
    return this.fields
  }

  nameLength(line: number): number {
    return (this.offsets[line * 4 + 1] ?? 0) - (this.offsets[line * 4] ?? 0)
  }

  /** The first letter of the name, a capital told as the small one; other characters come out as something. */
  initial(line: number): number {
    return this.text.charCodeAt(this.offsets[line * 4] ?? 0) | CASE_BIT
  }

  name(line: number): string {
    return this.text.substring(this.offsets[line * 4] ?? 0, this.offsets[line * 4 + 1] ?? 0)
  }

  value(line: number): string {
    return this.text.substring(this.offsets[line * 4 + 2] ?? 0, this.offsets[line * 4 + 3] ?? 0)
  }

  /** Letter by letter: to take the name out and fold it would make two strings. */
  is(line: number, lowerName: string): boolean {
    const { text } = this
    const from = this.offsets[line * 4] ?? 0
    if (this.nameLength(line) !== lowerName.length) return false
    for (let i = 0; i < lowerName.length; i++) {
      const code = text.charCodeAt(from + i)
      const isCapital = code >= 0x41 && code <= 0x5a
      if ((isCapital ? code | CASE_BIT : code) !== lowerName.charCodeAt(i)) return false
    }
    return true
  }

  /** The first value of field `lowerName`, or undefined. */
  first(lowerName: string): string | undefined {
    for (let line = 0; line < this.count; line++) if (this.is(line, lowerName)) return this.value(line)
    return undefined
  }

  /**
   * Lines for which `isDropped` does not hold, each as `name: value` and its end. Runs of usual ones are one piece of
   * the text. `rule` is what `isDropped` goes by, so that it need not be a closure.
   */
  kept<R>(isDropped: (lines: FieldLines, line: number, rule: R) => boolean, rule: R): string {
    const { text, offsets } = this
    let kept = ''
    let runFrom = -1
    let runTo = -1
    for (let line = 0; line < this.count; line++) {
      const at = line * 4
      const from = offsets[at] ?? 0
      if (isDropped(this, line, rule)) continue
      const to = (offsets[at + 3] ?? 0) + 2
      const lineTo = offsets[at + 4] ?? text.length - 2
      const colon = offsets[at + 1] ?? 0
      const isUsual = offsets[at + 2] === colon + 2 && text.charCodeAt(colon + 1) === SP && lineTo === to
      if (isUsual && from === runTo) runTo = to
      else {
        if (runFrom >= 0) kept += text.substring(runFrom, runTo)
        runFrom = isUsual ? from : -1
        runTo = isUsual ? to : -1
        if (!isUsual) kept += `${this.name(line)}: ${this.value(line)}\r\n`
      }
    }
    return runFrom >= 0 ? kept + text.substring(runFrom, runTo) : kept
  }
}

/** No complete block yet: more bytes are needed. */
export const INCOMPLETE = -1

/**
 * Finds the fields from offset `from` up to and including the empty line, and leaves them in `spans`.
 *
 * Shape: the offset after the empty line, INCOMPLETE, or a fault.
 * Source: RFC 9112 section 5; obs-fold, bare CR or LF and whitespace before the colon are refused, never repaired.
 */
export function scanFields(
  bytes: Buffer,
  from: number,
  to: number,
  limits: Http1Limits,
  spans: FieldSpans,
  code: Http1FaultCode,
): number | Http1Fault {
  spans.count = 0
  let at = from
  for (;;) {
    const nameFrom = at
    while (at < to && TOKEN[bytes[at] ?? 0] === 1) at++
    if (at === to) return INCOMPLETE
    if (at === nameFrom && bytes[at] === CR) {
      if (at + 1 === to) return INCOMPLETE
      return bytes[at + 1] === LF ? at + 2 : new Http1Fault(code, 'a carriage return stands alone in the head')
    }
    const nameTo = at
    if (bytes[at] !== COLON || at === nameFrom) return nameFault(bytes, nameFrom, at, code)
    if (nameTo - nameFrom > limits.nameBytesMax) {
      return tooLarge(code, `a field name is longer than ${limits.nameBytesMax} bytes`)
    }
    at++
    while (at < to && (bytes[at] === SP || bytes[at] === HTAB)) at++
    const valueFrom = at
    while (at < to && VALUE[bytes[at] ?? 0] === 1) at++
    if (at === to) return INCOMPLETE
    if (bytes[at] !== CR) return valueFault(bytes, nameFrom, nameTo, at, code)
    if (at + 1 === to) return INCOMPLETE
    if (bytes[at + 1] !== LF) return valueFault(bytes, nameFrom, nameTo, at, code)
    let valueTo = at
    while (valueTo > valueFrom && (bytes[valueTo - 1] === SP || bytes[valueTo - 1] === HTAB)) valueTo--
    // Plain is one space before the value, or none, and none after it: then there is nothing more to look at.
    const plain = valueTo === at && valueFrom - nameTo <= 2 && bytes[nameTo + 1] !== HTAB
    if (!plain && hasFramingTab(bytes, nameFrom, nameTo, at)) {
      const name = shown(bytes.toString('latin1', nameFrom, nameTo))
      return new Http1Fault(code, `a tab stands in ${name}; some would not take it for whitespace, so use a space`)
    }
    if (spans.count === limits.fieldsMax) return tooLarge(code, `there are more than ${limits.fieldsMax} fields`)
    spans.add(nameFrom, nameTo, valueFrom, valueTo)
    at += 2
  }
}

/** Fields whose value decides where a message ends, where it goes or what follows it. */
const FRAMING = /^(?:content-length|transfer-encoding|host|connection|proxy-connection|upgrade|expect)$/i

/** Tabs are whitespace to RFC 9110, but not to every parser: llhttp does not see `chunked` before one. */
function hasFramingTab(bytes: Buffer, nameFrom: number, nameTo: number, lineTo: number): boolean {
  return bytes.subarray(nameTo, lineTo).includes(HTAB) && FRAMING.test(bytes.toString('latin1', nameFrom, nameTo))
}

/** The sizes are a caller's fault of their own code; an instance's are just a bad answer. */
export function tooLarge(code: Http1FaultCode, reason: string): Http1Fault {
  return new Http1Fault(code === 'bad-request' ? 'head-too-large' : code, reason)
}

function nameFault(bytes: Buffer, from: number, at: number, code: Http1FaultCode): Http1Fault {
  const byte = bytes[at] ?? 0
  const name = shown(bytes.toString('latin1', from, Math.min(at, from + 64)))
  if (at === from && (byte === SP || byte === HTAB)) {
    return new Http1Fault(code, 'a field line begins with whitespace; folded lines are not accepted')
  }
  if (byte === LF)
    return new Http1Fault(code, 'a line ends in a bare line feed; expected carriage return and line feed')
  if (byte === COLON) return new Http1Fault(code, 'a field has an empty name')
  if (byte === SP || byte === HTAB)
    return new Http1Fault(code, `whitespace stands between field name ${name} and its colon`)
  if (byte === CR) return new Http1Fault(code, `field line ${name} has no colon`)
  return new Http1Fault(code, `field name ${name} is followed by ${shown(String.fromCharCode(byte))}; expected a colon`)
}

function valueFault(bytes: Buffer, from: number, nameTo: number, at: number, code: Http1FaultCode): Http1Fault {
  const name = shown(bytes.toString('latin1', from, nameTo))
  const byte = bytes[at] ?? 0
  if (byte === LF) return new Http1Fault(code, `the value of ${name} ends in a bare line feed`)
  if (byte === CR) return new Http1Fault(code, `the value of ${name} holds a bare carriage return`)
  return new Http1Fault(code, `the value of ${name} holds the control character ${shown(String.fromCharCode(byte))}`)
}

/** The first value of field `lowerName`, or undefined. `fields`: name, value, name, value …. */
export function fieldValue(fields: readonly string[], lowerName: string): string | undefined {
  for (let i = 0; i < fields.length; i += 2) if (isNamed(fields[i] ?? '', lowerName)) return fields[i + 1]
  return undefined
}

/** As `fieldValue`, without taking all fields apart where that can be helped. */
export function headValue(
  head: { readonly fields: readonly string[]; readonly lines?: FieldLines },
  lowerName: string,
): string | undefined {
  return head.lines === undefined ? fieldValue(head.fields, lowerName) : head.lines.first(lowerName)
}

export function isNamed(name: string, lowerName: string): boolean {
  return name.length === lowerName.length && (name === lowerName || name.toLowerCase() === lowerName)
}

/** The elements of a comma-separated list, trimmed; empty elements are left out (RFC 9110 section 5.6.1). */
export function listElements(value: string): string[] {
  const elements: string[] = []
  for (const part of value.split(',')) {
    const element = trimOws(part)
    if (element !== '') elements.push(element)
  }
  return elements
}

/** Without SP and HTAB around it; `trim()` would also take characters that are part of the value, such as NBSP. */
function trimOws(text: string): string {
  let from = 0
  let to = text.length
  while (from < to && isOws(text.charCodeAt(from))) from++
  while (to > from && isOws(text.charCodeAt(to - 1))) to--
  return text.substring(from, to)
}

function isOws(code: number): boolean {
  return code === SP || code === HTAB
}
