import { CALL_WINDOW_BYTES } from '../proxy/call.ts'
import { HEARTBEAT_MS, SILENCE_MS } from './heartbeat.ts'

export interface CallLinkOptions {
  /** What the peer may send of one call unasked. */
  readonly callWindowBytes: number
  /** How large the window of a call may grow whose reader is as fast as the line: 16 MiB is 1 Gbit/s over 130 ms. */
  readonly callWindowBytesMax: number
  /** What windows of calls may have grown by in sum: so much more readers hold that stop at full speed. */
  readonly grownBytesMax: number
  /** The same for a relayed stream, which carries all calls between two nodes: 1 MiB keeps 80 Mbit/s busy over 100 ms. */
  readonly relayWindowBytes: number
  /**
   * What the peer may have on the way over all calls, at first: what is more than the line holds waits in the kernels of both
   * ends, before every small call. Half of small calls beside bulk took 1.5 ms with 128 KiB, 2.1 with 256, 12 with 4 MiB; of two bulk
   * transfers at once it costs a seventh (`npm run bench -- mixed`, November 2026). 128 KiB is 1 Gbit/s over 1 ms, and more
   * than TCP begins with; where the line can do more it grows to
   * `linkWindowBytesMax`, 4 Gbit/s over 130 ms. It is given back as bytes are handed to the calls' handlers, paused or not,
   * so that no reader can stall another.
   */
  readonly linkWindowBytes: number
  readonly linkWindowBytesMax: number
  /**
   * What handlers that paused may hold in sum; the call that would pass it is reset `overloaded`. Credit bounds one call,
   * this bounds the link whatever their number: 256 MiB is 1,024 readers that stopped with a full window each.
   */
  readonly heldBytesMax: number
  /** Calls the peer may have open at once; one more is reset `overloaded`. 10,000: the design's idle clients per node. */
  readonly inboundCallsMax: number
  readonly helloTimeoutMs: number
  /** A ping each period. */
  readonly pingPeriodMs: number
  /** No byte of the peer for this long, pings notwithstanding: the link is dead. */
  readonly silenceMs: number
  /** From this id on the link asks to be replaced. Ids are u32; at 30,000 calls/s this comes after 18 hours, with 1 hour to spare. */
  readonly recycleFromId: number
}

export const CALL_LINK_DEFAULTS: CallLinkOptions = {
  callWindowBytes: CALL_WINDOW_BYTES,
  callWindowBytesMax: 16 * 1024 * 1024,
  grownBytesMax: 64 * 1024 * 1024,
  relayWindowBytes: 1024 * 1024,
  linkWindowBytes: 128 * 1024,
  linkWindowBytesMax: 64 * 1024 * 1024,
  heldBytesMax: 256 * 1024 * 1024,
  inboundCallsMax: 10_000,
  helloTimeoutMs: 5_000,
  pingPeriodMs: HEARTBEAT_MS,
  silenceMs: SILENCE_MS,
  recycleFromId: 0xf0000000,
}
