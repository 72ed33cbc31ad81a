import { invariant } from '../router/errors.ts'

/**
 * Bits of each symbol's code, symbols 0..255 and then the end of string (RFC 7541 appendix B).
 *
 * The code is canonical: codes grow with their length and, among equals, with the symbol. So the lengths are the code.
 */
// biome-ignore format: sixteen symbols a line
export const HUFFMAN_BITS: readonly number[] = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
  28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
  6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
  5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
  13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
  7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
  15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
  6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
  20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
  24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
  22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
  21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
  26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
  19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
  20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
  26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
  30,
]
const EOS = 256

/** Code of each symbol, right-aligned. */
export const HUFFMAN_CODES: readonly number[] = canonicalCodes(HUFFMAN_BITS)

/**
 * The decoder's steps: state and four bits → next state, and what became of it. No code is shorter than five bits, so
 * four never end two symbols. Built once; 256 states of 16 steps each.
 */
const EMITS = 1
const FAILS = 2
const NEXT = new Uint8Array(256 * 16)
const SYMBOL = new Uint8Array(256 * 16)
const MARK = new Uint8Array(256 * 16)
/** States in which a string may end: fewer than eight bits, all ones, since the last symbol (RFC 7541 section 5.2). */
const MAY_END = new Uint8Array(256)
buildSteps()

/** Shortest code: no string grows by more than 8/5. */
const BITS_MIN = 5
let scratch = Buffer.allocUnsafe(4096)

/** Decodes `bytes[from, to)` as latin1 text; undefined if it is not a string of this code with proper padding. */
export function decodeHuffman(bytes: Buffer, from: number, to: number): string | undefined {
  const bytesMax = Math.ceil(((to - from) * 8) / BITS_MIN)
  if (scratch.length < bytesMax) scratch = Buffer.allocUnsafe(bytesMax * 2)
  const out = scratch
  let length = 0
  let state = 0
  for (let at = from; at < to; at++) {
    const byte = bytes[at] ?? 0
    let step = (state << 4) | (byte >> 4)
    let mark = MARK[step] ?? FAILS
    if (mark !== 0) {
      if (mark === FAILS) return undefined
      out[length++] = SYMBOL[step] ?? 0
    }
    step = ((NEXT[step] ?? 0) << 4) | (byte & 15)
    mark = MARK[step] ?? FAILS
    if (mark !== 0) {
      if (mark === FAILS) return undefined
      out[length++] = SYMBOL[step] ?? 0
    }
    state = NEXT[step] ?? 0
  }
  return MAY_END[state] === 1 ? out.toString('latin1', 0, length) : undefined
}

function canonicalCodes(bits: readonly number[]): number[] {
  const order = bits.map((length, symbol) => ({ length, symbol }))
  order.sort((a, b) => a.length - b.length || a.symbol - b.symbol)
  const codes = new Array<number>(bits.length).fill(0)
  let code = 0
  let length = order[0]?.length ?? 0
  for (const next of order) {
    code *= 2 ** (next.length - length)
    length = next.length
    codes[next.symbol] = code
    code++
  }
  invariant(code === 2 ** length, 'the code uses every sequence of bits exactly once')
  return codes
}

function buildSteps(): void {
  // The tree: two numbers a node, ≥ 0 an inner node, < 0 the complement of a symbol.
  const tree: number[] = [0, 0]
  for (let symbol = 0; symbol <= EOS; symbol++) {
    const length = HUFFMAN_BITS[symbol] ?? 0
    let node = 0
    for (let i = length - 1; i >= 0; i--) {
      const slot = node * 2 + (Math.floor((HUFFMAN_CODES[symbol] ?? 0) / 2 ** i) & 1)
      if (i === 0) tree[slot] = ~symbol
      else {
        if (tree[slot] === 0) tree[slot] = tree.push(0, 0) / 2 - 1
        node = tree[slot] ?? 0
      }
    }
  }
  invariant(tree.length / 2 === 256, 'a code of 257 symbols has 256 inner nodes')
  for (let state = 0; state < 256; state++) for (let nibble = 0; nibble < 16; nibble++) buildStep(tree, state, nibble)
  for (let node = 0, ones = 0; ones < 8; ones++) {
    MAY_END[node] = 1
    node = tree[node * 2 + 1] ?? 0
  }
}

function buildStep(tree: readonly number[], state: number, nibble: number): void {
  const step = (state << 4) | nibble
  let node = state
  for (let i = 3; i >= 0; i--) {
    const next = tree[node * 2 + ((nibble >> i) & 1)] ?? 0
    if (next >= 0) node = next
    else if (~next === EOS) {
      // The end of string stands in no string: it is padding alone.
      MARK[step] = FAILS
      return
    } else {
      MARK[step] = EMITS
      SYMBOL[step] = ~next
      node = 0
    }
  }
  NEXT[step] = node
}
