import { encodeGossipFrame, FRAME_BYTES_TARGET, FRAME_PROOFS_MAX, type SignedBatch } from './frame.ts'

/** Frames that carry all the proofs and then all the batches, each about `FRAME_BYTES_TARGET` at most. */
export function packBatches(
  proofs: readonly Uint8Array[],
  batches: readonly SignedBatch[],
  isAnswer = false,
): Uint8Array[] {
  const frames: Uint8Array[] = []
  let frame: { proofs: Uint8Array[]; batches: SignedBatch[] } = { proofs: [], batches: [] }
  let bytes = 0
  const flush = (): void => {
    if (bytes > 0) frames.push(encodeGossipFrame({ type: 'batches', ...frame, isAnswer }))
    frame = { proofs: [], batches: [] }
    bytes = 0
  }
  for (const proof of proofs) {
    if (bytes + proof.length > FRAME_BYTES_TARGET || frame.proofs.length >= FRAME_PROOFS_MAX) flush()
    frame.proofs.push(proof)
    bytes += proof.length + 8
  }
  for (const { payload, signature } of batches) {
    if (bytes + payload.length > FRAME_BYTES_TARGET) flush()
    frame.batches.push({ payload, signature })
    bytes += payload.length + signature.length + 8
  }
  flush()
  return frames
}
