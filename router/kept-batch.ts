import type { Batch } from './batch.ts'
import type { SignedBatch } from './frame.ts'

/** A batch as it is kept: what is needed to pass it on, and of which keys it speaks. What they mean stands in the table. */
export interface KeptBatch extends SignedBatch {
  readonly seq: number
  readonly base: number
  readonly keys: readonly string[]
}

/**
 * Keeps copies of the bytes, in one piece of memory: the frame they came in may be used for the next, and is larger.
 * `share` gives one string for all keys that are equal.
 */
export function keepCopy({ seq, base, entries, payload, signature }: Batch, share: (key: string) => string): KeptBatch {
  const bytes = new Uint8Array(payload.length + signature.length)
  bytes.set(payload)
  bytes.set(signature, payload.length)
  return {
    seq,
    base,
    keys: entries.map(({ key }) => share(key)),
    payload: bytes.subarray(0, payload.length),
    signature: bytes.subarray(payload.length),
  }
}

export function sizeOf({ payload, signature }: SignedBatch): number {
  return payload.length + signature.length
}
