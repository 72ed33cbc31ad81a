import type { Socket } from 'node:net'

/**
 * Calls `onLate` if `socket` has neither connected nor failed within `ms`.
 *
 * A busy process hears its timers before what else has happened meanwhile: so the time is judged one look at the
 * sockets later, or thousands of connections at once would condemn an instance that took them all.
 */
export function limitConnecting(socket: Socket, ms: number, onLate: () => void): void {
  const late = (): void => {
    if (socket.connecting) onLate()
  }
  const timer = setTimeout(() => setImmediate(late), ms).unref()
  const stop = (): void => clearTimeout(timer)
  socket.once('connect', stop)
  socket.once('close', stop)
}
