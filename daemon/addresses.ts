import { networkInterfaces } from 'node:os'
import { formatHostPort, type HostPort, isWildcard, toMultiaddr } from './address.ts'

/**
 * Hosts that others can dial to reach a listener on `host`: those the operator gave, else the address listened on, else
 * (all addresses) those of the machine that are not for itself alone, else the loopback, so that meshes on one machine work.
 */
export function dialableHosts(host: string, advertise: readonly string[]): string[] {
  if (advertise.length > 0) return [...advertise]
  if (!isWildcard(host)) return [host]
  const own = Object.values(networkInterfaces())
    .flatMap(addresses => addresses ?? [])
    .filter(({ internal, address }) => !internal && !address.startsWith('fe80:'))
    .map(({ address }) => address)
  return own.length > 0 ? own : ['127.0.0.1']
}

export function overlayAddresses(at: HostPort, advertise: readonly string[]): string[] {
  return dialableHosts(at.host, advertise).map(host => toMultiaddr({ host, port: at.port }))
}

export function callAddresses(at: HostPort, advertise: readonly string[]): string[] {
  return dialableHosts(at.host, advertise).map(host => formatHostPort({ host, port: at.port }))
}
