import { isIPv6 } from 'node:net'
import { byteTable } from './http1-fields.ts'

/** Letters, digits, `-`, `.`, `_`, `~`: the unreserved part of a reg-name. Escapes and sub-delims are read differently by different parsers. */
const HOST_CHAR = byteTable(byte => /[A-Za-z0-9\-._~]/.test(String.fromCharCode(byte)))

/** Longest DNS name (RFC 1035 section 2.3.4). */
const HOST_BYTES_MAX = 255

/** An authority without userinfo, taken apart. */
export interface Authority {
  /** Lower case; an IPv6 address in its brackets. */
  readonly name: string
  /** -1: none given. */
  readonly port: number
}

/** True for `name`, `name:port`, `[ipv6]` and `[ipv6]:port`: the fast check, without taking it apart. */
export function isHost(host: string): boolean {
  let colon = host.length
  for (let i = 0; i < host.length; i++) {
    const code = host.charCodeAt(i)
    if (code < 256 && HOST_CHAR[code] === 1) continue
    colon = i
    break
  }
  if (colon === host.length) return colon > 0 && colon <= HOST_BYTES_MAX
  return decodeAuthority(host) !== undefined
}

/** Shape: undefined when it is not exactly a host with an optional, non-empty port of 0..65535. */
export function decodeAuthority(text: string): Authority | undefined {
  const nameTo = text.startsWith('[')
    ? text.indexOf(']') + 1
    : text.indexOf(':') === -1
      ? text.length
      : text.indexOf(':')
  const name = text.substring(0, nameTo).toLowerCase()
  if (name.length === 0 || name.length > HOST_BYTES_MAX) return undefined
  if (name.startsWith('[')) {
    const address = name.slice(1, -1)
    // A zone id (`%eth0`) means something on one machine only.
    if (address.includes('%') || !isIPv6(address)) return undefined
  } else {
    for (let i = 0; i < name.length; i++) {
      const code = name.charCodeAt(i)
      if (code > 255 || HOST_CHAR[code] !== 1) return undefined
    }
  }
  if (nameTo === text.length) return { name, port: -1 }
  if (text[nameTo] !== ':') return undefined
  const digits = text.substring(nameTo + 1)
  if (!/^[0-9]{1,5}$/.test(digits) || Number(digits) > 65_535) return undefined
  return { name, port: Number(digits) }
}

/** An absolute-form target, taken apart. */
export interface AbsoluteTarget {
  readonly scheme: 'http' | 'https'
  /** As sent. */
  readonly authority: string
  /** Path and query as sent; '' when there are none. */
  readonly rest: string
}

/** Shape: undefined when it is not `http://` or `https://` with something after it. The authority is not judged. */
export function splitAbsolute(target: string): AbsoluteTarget | undefined {
  const start = target.substring(0, 8).toLowerCase()
  const scheme = start === 'https://' ? 'https' : start.startsWith('http://') ? 'http' : undefined
  if (scheme === undefined) return undefined
  const from = scheme.length + 3
  let to = from
  while (to < target.length && target[to] !== '/' && target[to] !== '?') to++
  return { scheme, authority: target.substring(from, to), rest: target.substring(to) }
}

/** Whether both name the same place; a missing port is `defaultPort`. */
export function isSameAuthority(a: Authority, b: Authority, defaultPort: number): boolean {
  return a.name === b.name && (a.port === -1 ? defaultPort : a.port) === (b.port === -1 ? defaultPort : b.port)
}

/**
 * The target as an origin server gets it: `/path?query`, or `*` for OPTIONS of a whole server.
 *
 * Shape: `target` must be one the parser has accepted. CONNECT keeps its authority.
 * Source: RFC 9112 sections 3.2.1 and 3.2.4.
 */
export function originForm(method: string, target: string): string {
  if (target.startsWith('/') || target === '*' || method === 'CONNECT') return target
  const rest = splitAbsolute(target)?.rest ?? '/'
  if (rest === '') return method === 'OPTIONS' ? '*' : '/'
  return rest.startsWith('/') ? rest : `/${rest}`
}
