import { type Document, isAlias, isMap, isNode, isScalar, isSeq, LineCounter, parseDocument } from 'yaml'
import { MeshError, messageOf } from '../router/errors.ts'
import { suggest } from './nearest.ts'

/** A value somewhere in the file; `value` is undefined where the file says nothing. */
export interface Place {
  readonly path: readonly (string | number)[]
  readonly value: unknown
}

/** Enough to mend a file in one go; past it a file is not a config at all. Guess. */
const PROBLEMS_MAX = 20
/** Of a value that is shown as found, in characters. Guess: one line of a terminal holds the rest too. */
const SHOWN_CHARACTERS_MAX = 60

/**
 * Takes a YAML text apart and collects every problem with its line, so that a file is mended in one go.
 *
 * Readers never throw: they note a problem and answer the fallback or nothing; `throwProblems` at the end tells all.
 */
export class ConfigReader {
  readonly root: Place
  #problems: string[] = []
  #more = 0
  #file: string
  #document: Document
  #lines = new LineCounter()

  constructor(text: string, file: string) {
    this.#file = file
    this.#document = parseDocument(text, { lineCounter: this.#lines, prettyErrors: false, logLevel: 'error' })
    for (const error of this.#document.errors) {
      this.#note(`${file}:${this.#lines.linePos(error.pos[0]).line}: not YAML: ${error.message}`)
    }
    this.root = { path: [], value: this.#document.errors.length === 0 ? this.#toValue() : {} }
  }

  /** What stands at `place` is not what is `accepted`. */
  problem(place: Place, accepted: string, hint = ''): void {
    const { path, value } = place
    const where = path.length === 0 ? '' : `${showPath(path)}: `
    this.#note(`${this.#file}:${this.#lineOf(path)}: ${where}found ${showValue(value)}${hint}; expected ${accepted}`)
  }

  /** Errors: MeshError `bad-config` with all problems, if there are any. */
  throwProblems(): void {
    const [first] = this.#problems
    if (first === undefined) return
    const count = this.#problems.length + this.#more
    if (count === 1) throw new MeshError('bad-config', first)
    const more = this.#more === 0 ? [] : [`and ${this.#more} more`]
    const lines = [...this.#problems, ...more].map(line => `  ${line}`)
    throw new MeshError('bad-config', [`${this.#file} has ${count} problems:`, ...lines].join('\n'))
  }

  /** One value. Without a fallback it must be there; `decode` answers undefined for what is not accepted. */
  scalar<T>(
    place: Place,
    accepted: string,
    decode: (value: unknown) => T | undefined,
    fallback?: unknown,
  ): T | undefined {
    const value = place.value ?? fallback
    const decoded = decode(value)
    if (decoded === undefined) this.problem(place, accepted)
    return decoded
  }

  /** A mapping with these keys and no other; absent is empty. Answers the place of each key. */
  record<K extends string>(place: Place, keys: readonly K[]): (key: K) => Place {
    for (const entry of this.entries(place, Number.POSITIVE_INFINITY, `a mapping of ${keys.join(', ')}`)) {
      const key = String(entry.path.at(-1))
      if (keys.some(known => known === key)) continue
      const accepted = `one of ${keys.join(', ')}`
      this.problem({ path: entry.path, value: key }, accepted, ` as a key${suggest(key, keys)}`)
    }
    return key => inside(place, key)
  }

  /** A mapping with keys of the operator's choosing; absent is empty. */
  entries(place: Place, entriesMax: number, accepted = 'a mapping'): Place[] {
    const { value } = place
    if (value === undefined || value === null) return []
    if (typeof value !== 'object' || Array.isArray(value)) {
      this.problem(place, accepted)
      return []
    }
    const keys = Object.keys(value)
    if (keys.length > entriesMax) this.problem(place, `at most ${entriesMax} entries`)
    return keys.slice(0, entriesMax).map(key => inside(place, key))
  }

  /** A list; absent is empty. Items that cannot be read are left out, and noted. */
  list<T>(place: Place, itemsMax: number, read: (item: Place) => T | undefined): T[] {
    const { value } = place
    if (value === undefined || value === null) return []
    if (!Array.isArray(value)) {
      this.problem(place, 'a list, such as [ … ]')
      return []
    }
    if (value.length > itemsMax) this.problem(place, `at most ${itemsMax} items, here are ${value.length}`)
    return value
      .slice(0, itemsMax)
      .map((_, index) => read(inside(place, index)))
      .filter(item => item !== undefined)
  }

  #toValue(): unknown {
    try {
      return this.#document.toJS() ?? {}
    } catch (error) {
      // Aliases that multiply without end, or point at nothing.
      this.#note(`${this.#file}:1: not usable YAML: ${messageOf(error)}`)
      return {}
    }
  }

  #note(problem: string): void {
    if (this.#problems.length < PROBLEMS_MAX) this.#problems.push(problem)
    else this.#more++
  }

  /** The line of the deepest part of `path` that stands in the file. */
  #lineOf(path: Place['path']): number {
    let node: unknown = this.#document.contents
    let offset = 0
    for (const step of path) {
      if (isAlias(node)) node = node.resolve(this.#document)
      if (isMap(node)) {
        const pair = node.items.find(item => String(isScalar(item.key) ? item.key.value : item.key) === String(step))
        if (pair === undefined) break
        offset = startOf(pair.key) ?? offset
        node = pair.value
      } else if (isSeq(node)) {
        node = node.items[Number(step)]
        offset = startOf(node) ?? offset
      } else {
        break
      }
    }
    return this.#lines.linePos(offset).line || 1
  }
}

/** The place one step down from `place`. */
export function inside(place: Place, key: string | number): Place {
  const { value } = place
  const has = typeof value === 'object' && value !== null && Object.hasOwn(value, key)
  return { path: [...place.path, key], value: has ? Reflect.get(value, key) : undefined }
}

function startOf(node: unknown): number | undefined {
  return isNode(node) ? node.range?.[0] : undefined
}

function showPath(path: Place['path']): string {
  return path.map((step, i) => (typeof step === 'number' ? `[${step}]` : i === 0 ? step : `.${step}`)).join('')
}

function showValue(value: unknown): string {
  if (value === undefined || value === null) return 'nothing'
  const text = JSON.stringify(value) ?? String(value)
  const shown = text.length > SHOWN_CHARACTERS_MAX ? `${text.slice(0, SHOWN_CHARACTERS_MAX)}…` : text
  const wasMeantAsText = typeof value === 'number' || typeof value === 'boolean'
  return wasMeantAsText ? `${shown} (a ${typeof value})` : shown
}
