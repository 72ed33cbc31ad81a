/** How much of each thing a peer may send before it is refused. */
export interface Http1Limits {
  /** A whole head, start line and empty line included, bytes. */
  readonly headBytesMax: number
  /** Request line or status line, bytes. */
  readonly startLineBytesMax: number
  /** Field lines of one head, and of one trailer section. */
  readonly fieldsMax: number
  readonly nameBytesMax: number
  /** A trailer section, its empty line included, bytes. */
  readonly trailerBytesMax: number
  /** One chunk-size line with its extensions, bytes. */
  readonly chunkLineBytesMax: number
  /** Chunk extensions of one message together, bytes: they carry nothing, so they may not cost much. */
  readonly chunkExtensionBytesMax: number
  /** Bytes kept for later while a message waits for `next()` or `takeRest()`. */
  readonly heldBytesMax: number
  /** Interim (1xx) answers before the final one. */
  readonly interimHeadsMax: number
}

/**
 * For the ports that face applications.
 *
 * Source: 64 KiB heads: four times Node's 16 KiB default, because large cookies and tokens are common between services.
 * 16 KiB lines: twice nginx's and Apache's 8 KiB. 128 fields: Apache and Envoy take 100, HAProxy 101; ours leaves room
 * for tracing. 256-byte names: guess, the longest registered name has 45. 16 KiB trailers: Node's head limit. 4 KiB
 * chunk lines and 16 KiB of extensions: no known sender uses them, Node stops at 16 KiB per chunk. 256 KiB held: four
 * socket reads of 64 KiB that were under way when the owner paused the socket. 1000 interim answers: a progress report
 * (102) every 4 s for an hour.
 */
export const HTTP1_LIMITS: Http1Limits = {
  headBytesMax: 64 * 1024,
  startLineBytesMax: 16 * 1024,
  fieldsMax: 128,
  nameBytesMax: 256,
  trailerBytesMax: 16 * 1024,
  chunkLineBytesMax: 4096,
  chunkExtensionBytesMax: 16 * 1024,
  heldBytesMax: 256 * 1024,
  interimHeadsMax: 1000,
}

/** For heads another node has accepted and added its own fields to: what it accepted must not fail here for its size. */
export const FORWARDED_HTTP1_LIMITS: Http1Limits = {
  ...HTTP1_LIMITS,
  headBytesMax: HTTP1_LIMITS.headBytesMax + 8 * 1024,
  fieldsMax: HTTP1_LIMITS.fieldsMax + 32,
}
