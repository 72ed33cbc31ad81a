/** What a carrier tells the link on it. Called from the event loop, never from inside one of the carrier's methods. */
export interface CarrierHandler {
  /** `chunk` is used again when this returns, unless it is longer than `REUSED_BYTES_MAX`. */
  onBytes(chunk: Buffer): void
  /** `write` may go on after it answered false. */
  onDrain(): void
  /** At most once, and nothing after it. `reason` in an operator's words. */
  onClose(reason: string): void
}

/**
 * How the bytes of a link get to the other node. `direct`: a TCP connection between the two. `relayed`: a stream that
 * other nodes pass on. `overlay`: a stream of the overlay's connection. `memory`: tests.
 */
export type CarrierKind = 'direct' | 'relayed' | 'overlay' | 'memory'

/**
 * Carries the bytes of one link: reliable, in order, both ends already proven to each other.
 *
 * Implementations: a TLS session over any of these (`tls-carrier.ts`) and, for tests, memory (`memory-carrier.ts`);
 * `call-contract.ts` runs over each.
 */
export interface Carrier {
  readonly kind: CarrierKind
  /** The other end, for logs and `flatmesh links`: `host:port`, or what stands for it. */
  readonly address: string
  /** Begins to deliver. Called once. Bytes that came before are delivered then. */
  start(handler: CarrierHandler): void
  /**
   * Sends the parts as one run of bytes. False: hold back until `onDrain`. None may be changed before `onWritten`, which
   * is told once for each write, in order, also when the line is gone; never from inside this method.
   */
  write(parts: readonly Buffer[], onWritten?: () => void): boolean
  /** Sends what was written, then closes; cuts off after a short while if the peer does not read. `onClose` follows. */
  close(): void
  /** Closes at once. `onClose` follows. */
  destroy(): void
}

/** Time, so that tests can turn it by hand. */
export interface Clock {
  /** Monotonic milliseconds. */
  nowMs(): number
  /** Runs `task` once after `delayMs`; the answer cancels it. */
  after(delayMs: number, task: () => void): () => void
  /** Runs `task` every `periodMs`; a stall of the process skips runs instead of catching up. The answer ends it. */
  every(periodMs: number, task: () => void): () => void
}

export const systemClock: Clock = {
  nowMs: () => performance.now(),
  after(delayMs, task) {
    const timer = setTimeout(task, delayMs)
    return () => clearTimeout(timer)
  },
  every(periodMs, task) {
    const timer = setInterval(task, periodMs)
    return () => clearInterval(timer)
  },
}
