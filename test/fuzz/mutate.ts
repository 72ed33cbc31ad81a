/** Chance of one case: whole numbers below `n`, the same for the same seed. */
export type Below = (n: number) => number

/** Bytes and values that decoders trip over: bounds of lengths, signs, tags of msgpack, DER and frames. */
const SHARP_BYTES = [0x00, 0x01, 0x7f, 0x80, 0x81, 0x90, 0x9f, 0xbf, 0xc0, 0xc4, 0xc6, 0xd9, 0xdd, 0xdf, 0xfe, 0xff]
const LENGTH_MAX = 300_000

/** One to eight changes of a good example: bytes set, cut, doubled, swapped, lengths made huge, another example spliced in. */
export function mutate(example: Uint8Array, others: readonly Uint8Array[], below: Below): Uint8Array {
  let bytes = Buffer.from(example)
  for (let i = below(8); i >= 0; i--) bytes = Buffer.from(change(bytes, others, below).subarray(0, LENGTH_MAX))
  return bytes
}

function change(bytes: Buffer, others: readonly Uint8Array[], below: Below): Buffer {
  const at = below(bytes.length + 1)
  const length = below(Math.min(64, bytes.length - at + 1))
  switch (below(8)) {
    case 0:
      return withByte(bytes, at, below(256))
    case 1:
      return withByte(bytes, at, SHARP_BYTES[below(SHARP_BYTES.length)] ?? 0)
    case 2:
      return withByte(bytes, at, (bytes[at] ?? 0) ^ (1 << below(8)))
    case 3:
      return bytes.subarray(0, at)
    case 4:
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + length)])
    case 5:
      return Buffer.concat([bytes.subarray(0, at + length), bytes.subarray(at)])
    case 6:
      return Buffer.concat([bytes.subarray(0, at), Buffer.from([0xff, 0xff, 0xff, 0xff]), bytes.subarray(at + 4)])
    default: {
      const other = others[below(others.length)] ?? bytes
      const from = below(other.length + 1)
      return Buffer.concat([bytes.subarray(0, at), other.subarray(from, from + below(200)), bytes.subarray(at)])
    }
  }
}

function withByte(bytes: Buffer, at: number, value: number): Buffer {
  const changed = Buffer.from(bytes)
  if (at < changed.length) changed[at] = value
  return changed
}
