/** A connection attempt within the datacenter that takes longer has failed. Linkerd and peers use 1 s locally. */
export const CONNECT_TIMEOUT_MS = 1000

/** A `host:port` as node:net wants it. IPv6 hosts stand in brackets. The text was checked where it came in. */
export function parseAddress(address: string): { host: string; port: number } {
  const colon = address.lastIndexOf(':')
  return { host: address.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(address.slice(colon + 1)) }
}
