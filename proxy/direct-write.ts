import { Socket } from 'node:net'

/** What Node's handles of sockets have below the streams. */
interface WritableHandle {
  /** 0, or a negative error number; then nothing was taken. */
  writeBuffer(request: WriteRequest, bytes: Uint8Array): number
  /** Bytes that wait for the kernel. */
  readonly writeQueueSize: number
}

/** Node's own bookkeeping of one write that waits. */
interface WriteRequest {
  oncomplete?: (status: number) => void
  buffer?: Uint8Array
}

type WriteRequestClass = new () => WriteRequest

/** `written`: the kernel has it all. `waiting`: the bytes are in use until `onWritten`. `no`: nothing is done, write as usual. */
export type DirectWrite = 'written' | 'waiting' | 'no'

/** Never given to a write that waits, so it can be used again. */
let spare: WriteRequest | undefined

/**
 * Gives a small message to the kernel without passing Node's writable stream, which takes longer for it than the system call
 * does: 3 to 4 % of the CPU of a small call (November 2026). Only for a socket of which nothing waits. What the kernel does
 * not take at once waits in the handle, before all that is written to the socket later.
 *
 * That rests on how Node is made, not on its documents, and is therefore found out and not assumed (`findWriteRequest`);
 * where it is not so, the answer is `no`. So it is when the kernel refuses: the socket's own write meets the same and tells.
 */
export function writeDirectly(
  socket: Socket,
  bytes: Uint8Array,
  onWritten: () => void,
  request: WriteRequestClass | 'none' = REQUEST,
): DirectWrite {
  const { _handle: handle } = socket as unknown as { _handle?: Partial<WritableHandle> | null }
  const isReady = request !== 'none' && socket.writable && !socket.connecting && socket.writableLength === 0
  if (!isReady || typeof handle?.writeBuffer !== 'function' || !('writeQueueSize' in handle)) return 'no'
  const used = spare ?? new request()
  spare = used
  if (handle.writeBuffer(used, bytes) !== 0) return 'no'
  if (handle.writeQueueSize === 0) return 'written'
  spare = undefined
  used.buffer = bytes
  used.oncomplete = status => {
    onWritten()
    if (status < 0) socket.destroy(new Error(`the connection broke while written to (error ${status})`))
  }
  return 'waiting'
}

/**
 * What this version of Node makes for each write; `none`: not as expected. Found out with a socket that has a handle of
 * ours, so nothing is opened.
 */
export function findWriteRequest(): WriteRequestClass | 'none' {
  const made: unknown[] = []
  const handle = {
    writeQueueSize: 0,
    writeBuffer(request: unknown): number {
      made.push(request)
      return 0
    },
  }
  try {
    const socket = new Socket({ handle, manualStart: true } as object)
    socket.write(Buffer.of(0))
    const [request] = made as object[]
    const isSo = request !== undefined && 'oncomplete' in request && request.constructor !== Object
    return isSo ? (request.constructor as WriteRequestClass) : 'none'
  } catch {
    return 'none'
  }
}

const REQUEST = findWriteRequest()
