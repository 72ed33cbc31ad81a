import { Socket } from 'node:net'

/**
 * What sockets say is read into this one buffer, and handed on or copied before the next read. A new one for each read,
 * Node's own way, costs 1.5 µs of CPU of the 10 that answering a small request takes (November 2026), and makes V8 collect
 * the whole heap every few dozen megabytes.
 */
export const READ = Buffer.allocUnsafeSlow(64 * 1024)

/** Where a socket keeps the two halves of its option `onread`. */
export interface OnreadKeys {
  readonly buffer: symbol
  readonly callback: symbol
}

interface UserBufferHandle {
  useUserBuffer(buffer: Uint8Array): void
}

/** The bytes of `chunk` before `end`. It is used again afterwards. */
export type OnBytes = (chunk: Buffer, end: number) => void

/**
 * Hands what `socket` says to `onBytes`, read into `buffer`. The answer gives the
 * socket back: what comes from then on are `data` events like those of any other, and the bytes their listener's to keep.
 *
 * Node offers this as the option `onread` of sockets that dial; to those that were accepted nobody can give options. So the
 * same is done to them that Node does for the option: buffer and callback are put where the option would have put them, and
 * the handle is told the buffer. That rests on how Node is made, not on its documents, and is therefore found out and not
 * assumed (`findOnreadKeys`); where it is not so, bytes come by `data` events, and so do those that were read before.
 *
 * As with `onread`, a socket that is paused reads nothing at all, so of one that is also closed it hears when it goes on.
 */
export function readShared(
  socket: Socket,
  onBytes: OnBytes,
  buffer: Buffer = READ,
  keys: OnreadKeys | 'none' = KEYS,
): () => void {
  const handle = handleOf(socket)
  const onData = (chunk: Buffer): void => onBytes(chunk, chunk.length)
  if (keys === 'none' || handle === undefined) {
    socket.on('data', onData)
    return () => void socket.removeListener('data', onData)
  }
  const fields = socket as unknown as Record<symbol, unknown>
  fields[keys.callback] = (bytes: number): boolean => {
    onBytes(buffer, bytes)
    return true
  }
  if (fields[keys.buffer] !== buffer) handle.useUserBuffer(buffer)
  fields[keys.buffer] = buffer
  // It flows before the next turn reads anything.
  if (socket.readableLength > 0) socket.on('data', onData)
  socket.resume()
  return () => {
    socket.removeListener('data', onData)
    // There is no way back to buffers of the handle's own; a copy is the same to who reads.
    fields[keys.callback] = (bytes: number): boolean => socket.push(Buffer.from(buffer.subarray(0, bytes)))
  }
}

function handleOf(socket: Socket): UserBufferHandle | undefined {
  const { _handle: handle } = socket as unknown as { _handle?: Partial<UserBufferHandle> | null }
  return typeof handle?.useUserBuffer === 'function' ? (handle as UserBufferHandle) : undefined
}

/**
 * Where this version of Node keeps the option `onread`; `none`: not in fields of the socket, or the handle is
 * not told the buffer. Found out with a socket that has a handle of ours, so nothing is opened.
 */
export function findOnreadKeys(): OnreadKeys | 'none' {
  const buffer = new Uint8Array(1)
  const callback = (): boolean => true
  const told: unknown[] = []
  const handle = { useUserBuffer: (used: unknown) => void told.push(used) }
  try {
    const made = new Socket({ handle, manualStart: true, onread: { buffer, callback } } as object)
    const symbols = Object.getOwnPropertySymbols(made)
    const holds = (value: unknown): symbol[] =>
      symbols.filter(symbol => (made as unknown as Record<symbol, unknown>)[symbol] === value)
    const [buffers, callbacks] = [holds(buffer), holds(callback)]
    const plain = new Socket() as unknown as Record<symbol, unknown>
    const isSo =
      told.length === 1 &&
      told[0] === buffer &&
      buffers.length === 1 &&
      callbacks.length === 1 &&
      plain[buffers[0] as symbol] === null &&
      plain[callbacks[0] as symbol] === null
    return isSo ? { buffer: buffers[0] as symbol, callback: callbacks[0] as symbol } : 'none'
  } catch {
    return 'none'
  }
}

const KEYS = findOnreadKeys()
