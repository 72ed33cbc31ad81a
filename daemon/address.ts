import { BlockList, isIP } from 'node:net'

/** Where TCP is listened on or dialled. `host` is an IP address (IPv6 without brackets) or a DNS name. */
export interface HostPort {
  readonly host: string
  readonly port: number
}

/** Where the admin API listens: loopback TCP, or a unix socket's absolute path. */
export type AdminAddress = HostPort | { readonly socketPath: string }

/** RFC 1123: labels of 1..63 characters, 253 in all. The underscore is Docker Compose's and Kubernetes' own habit. */
const DNS_NAME = /^(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\.?$/i

const loopback = new BlockList()
loopback.addSubnet('127.0.0.0', 8, 'ipv4')
loopback.addAddress('::1', 'ipv6')

/** True for an IPv4 or IPv6 address without brackets or zone, or a DNS name. `1.2.3` and `1.2.3.400` are neither. */
export function isHost(text: string): boolean {
  if (isIP(text) !== 0) return !text.includes('%')
  return DNS_NAME.test(text) && !/^[0-9.]+$/.test(text)
}

/** True only where nobody but this machine can connect. `localhost` counts: every resolver keeps it there (RFC 6761). */
export function isLoopback(host: string): boolean {
  const version = isIP(host)
  if (version === 0) return /^localhost\.?$/i.test(host)
  return loopback.check(host, version === 6 ? 'ipv6' : 'ipv4')
}

/** True for `0.0.0.0` and every spelling of `::`: "all addresses of this machine", which nobody can dial. */
export function isWildcard(host: string): boolean {
  return host === '0.0.0.0' || (isIP(host) === 6 && /^[0:]+$/.test(host))
}

/** `host:port` or `[ipv6]:port`, port 0..65535; anything else is undefined. */
export function decodeHostPort(text: string): HostPort | undefined {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text)
  if (match === null) return undefined
  const [, bracketed, plain, digits] = match
  const host = bracketed ?? plain ?? ''
  const port = Number(digits)
  if (bracketed !== undefined && isIP(bracketed) !== 6) return undefined
  return isHost(host) && port <= 65535 ? { host, port } : undefined
}

export function formatHostPort({ host, port }: HostPort): string {
  return isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`
}

/** `unix:PATH` or `host:port`; whether the path is absolute and the host loopback is the caller's to check. */
export function decodeAdminAddress(text: string): AdminAddress | undefined {
  if (!text.startsWith('unix:')) return decodeHostPort(text)
  const socketPath = text.slice('unix:'.length)
  return socketPath === '' || socketPath.includes('\0') ? undefined : { socketPath }
}

export function formatAdminAddress(address: AdminAddress): string {
  return 'socketPath' in address ? `unix:${address.socketPath}` : formatHostPort(address)
}

/** `/ip4/…/tcp/N`, `/ip6/…/tcp/N` or `/dns/…/tcp/N`: the only transport of the overlay is TCP. */
export function toMultiaddr({ host, port }: HostPort): string {
  const version = isIP(host)
  return `/${version === 0 ? 'dns' : `ip${version}`}/${host}/tcp/${port}`
}

/** True for a multiaddr the overlay can dial: IP or DNS over TCP, with or without the `/p2p/` part. */
export function isOverlayMultiaddr(text: string): boolean {
  const match = /^\/(ip4|ip6|dns|dns4|dns6)\/([^/]+)\/tcp\/(\d{1,5})(?:\/p2p\/[1-9A-HJ-NP-Za-km-z]{40,64})?$/.exec(text)
  if (match === null) return false
  const [, kind, host = '', digits] = match
  const port = Number(digits)
  const hostFits = kind === 'ip4' ? isIP(host) === 4 : kind === 'ip6' ? isIP(host) === 6 && isHost(host) : isHost(host)
  return hostFits && port >= 1 && port <= 65535
}
