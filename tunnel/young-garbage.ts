import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

/** Between two collections. With 16 MiB major ones still came on a busy machine, where V8's own threads free buffers late. */
const PERIOD_BYTES = 6 * 1024 * 1024

let collect: (() => void) | undefined
let passedBytes = 0

/**
 * Counts bytes for which buffers are made that are garbage a moment later, and now and then has V8 collect the young part of
 * its heap.
 *
 * That is the way of Node's streams, which relayed links pass. V8 counts buffers as weight of the whole heap:
 * every few dozen megabytes of them it marks all of it, long before the young part is full and would have been collected
 * at a hundredth of the price. That was 40 % of the CPU of a bulk transfer. A young collection takes half a millisecond (November 2026).
 */
export function countPassed(bytes: number): void {
  passedBytes += bytes
  if (passedBytes < PERIOD_BYTES) return
  passedBytes = 0
  collect ??= youngCollection()
  collect()
}

/** V8's own function, which Node shows only to those who ask for it. */
function youngCollection(): () => void {
  setFlagsFromString('--expose-gc')
  const gc: unknown = runInNewContext('gc')
  if (typeof gc !== 'function') return () => {}
  return () => void gc({ type: 'minor' })
}
