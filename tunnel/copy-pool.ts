/** A read of Node's. */
const ROOM_BYTES = 64 * 1024
/** Below this a copy out of Node's own pool, or one of its size, is better. */
const ROOM_BYTES_MIN = 4 * 1024
/** Rooms kept for the next copies, 4 MiB. */
const SPARE_MAX = 64

const spare: Buffer[] = []

/** Bytes that wait, copied out of a buffer that is used again. */
export interface Copy {
  readonly bytes: Buffer
  /** What `bytes` lies in, to be given back; undefined: nothing is. */
  readonly room: Buffer | undefined
}

export function copyOf(bytes: Buffer): Copy {
  const { length } = bytes
  if (length < ROOM_BYTES_MIN || length > ROOM_BYTES) return { bytes: Buffer.from(bytes), room: undefined }
  const room = spare.pop() ?? Buffer.allocUnsafeSlow(ROOM_BYTES)
  room.set(bytes)
  return { bytes: room.subarray(0, length), room }
}

/** Nobody looks at the copy any more. Without this it is garbage like any other. */
export function giveBack(room: Buffer | undefined): void {
  if (room !== undefined && spare.length < SPARE_MAX) spare.push(room)
}
