/** A connection attempt within the datacenter that takes longer has failed. Linkerd and peers use 1 s locally. */
export const CONNECT_TIMEOUT_MS = 1000

/**
 * Before the first probe of a connection on which nothing moves (ten more follow, a second apart): a machine that is
 * gone without a word is noticed within 70 s, so that quiet WebSockets and event streams need no time limit. nginx and
 * Go probe after 15 s; a minute keeps the radio of a telephone asleep longer, and is below the 350 s after which NATs of
 * the big clouds forget a connection. Guess.
 */
export const KEEP_ALIVE_MS = 60_000

/** A `host:port` as node:net wants it. IPv6 hosts stand in brackets. The text was checked where it came in. */
export function parseAddress(address: string): { host: string; port: number } {
  const colon = address.lastIndexOf(':')
  return { host: address.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(address.slice(colon + 1)) }
}
