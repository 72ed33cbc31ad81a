import { BoundedMap } from './bounded-map.ts'

/** Units at the end of a text that its hash is made of: ids of nodes differ there. */
const HASHED = 8

/** Finds the string for some ASCII bytes without making a new one: the ids of a few thousand nodes come again and again. */
export class TextPool {
  private readonly texts: BoundedMap<number, string>

  constructor(max: number) {
    this.texts = new BoundedMap(max)
  }

  /** The text of `bytes` from `from` up to `end`, each byte a unit. */
  read(bytes: Uint8Array, from: number, end: number): string {
    let hash = 0
    for (let i = Math.max(from, end - HASHED); i < end; i++) hash = (Math.imul(hash, 31) + (bytes[i] as number)) | 0
    const known = this.texts.get(hash)
    if (known !== undefined && isText(known, bytes, from, end)) return known
    const text = String.fromCharCode(...bytes.subarray(from, end))
    this.texts.set(hash, text)
    return text
  }
}

function isText(text: string, bytes: Uint8Array, from: number, end: number): boolean {
  if (text.length !== end - from) return false
  for (let i = from; i < end; i++) if (bytes[i] !== text.charCodeAt(i - from)) return false
  return true
}
