import { CALL_WINDOW_BYTES } from './call.ts'
import { HTTP1_LIMITS } from './http1-limits.ts'

/** How much of each thing an HTTP/2 peer may do before it is stopped. */
export interface H2Limits {
  /** Streams the peer may have open at once. */
  readonly streamsMax: number
  /** What a stream's sender may have on its way without our consent. */
  readonly streamWindowBytes: number
  readonly connectionWindowBytes: number
  /** The header list as RFC 7541 counts it: text and 32 bytes a field. A stream with more is refused, 431. */
  readonly listBytesMax: number
  /** A header block as it is sent, with all its CONTINUATION frames; more ends the connection. */
  readonly blockBytesMax: number
  /** Frames of one header block. */
  readonly blockFramesMax: number
  /** Streams that come to nothing by a reset: the peer's own, those it provokes, those refused because there are too many. */
  readonly resets: { readonly burst: number; readonly perSecond: number }
  /** Frames that cost us something and move nothing: PING, SETTINGS, PRIORITY, empty DATA, frames of unknown types. */
  readonly idleFrames: { readonly burst: number; readonly perSecond: number }
  /** Small DATA frames we send only because the peer's window holds no more. */
  readonly dribbles: { readonly burst: number; readonly perSecond: number }
  /** Bytes of answers to control frames that wait because the peer does not read. */
  readonly unreadBytesMax: number
}

/**
 * For both ends.
 *
 * Source: 256 streams: Go's 250, nginx 128, Envoy's advice 100; long-lived gRPC streams need room. Windows: that of a
 * call, so the memory behind a stopped stream is the same for all protocols; a connection's window does not wait for
 * readers (a stopped stream must not stop the others), so it only has to keep a fast sender busy: 16 MiB as on links.
 * Header list and block: those of an HTTP/1 head. 64 frames a block: 16 KiB each would be 1 MiB; senders of smaller ones
 * exist, senders of empty ones are attackers (CVE-2024-27316). Resets: nghttp2's and Node's 1000 and 33/s
 * (CVE-2023-44487). Idle frames: gRPC's bandwidth probes send a PING per round trip at most, some hundred a second
 * nearby. Dribbles: guess. 1 MiB unread: some 60,000 answers to PING (CVE-2019-9512).
 */
export const H2_LIMITS: H2Limits = {
  streamsMax: 256,
  streamWindowBytes: CALL_WINDOW_BYTES,
  connectionWindowBytes: 16 * 1024 * 1024,
  listBytesMax: HTTP1_LIMITS.headBytesMax,
  blockBytesMax: HTTP1_LIMITS.headBytesMax,
  blockFramesMax: 64,
  resets: { burst: 1000, perSecond: 33 },
  idleFrames: { burst: 1000, perSecond: 500 },
  dribbles: { burst: 1000, perSecond: 1000 },
  unreadBytesMax: 1024 * 1024,
}
