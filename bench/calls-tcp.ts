import type { Chain } from './chain.ts'
import { loadHttp } from './load.ts'
import { divide, type Part, show } from './part.ts'

/** Connections at a time: enough that no hop waits, few enough that none queues for long. */
const CONNECTIONS = 16

/** A new connection for each call: to the HTTP port, and where a chain can, to one that passes on plain bytes. */
export const tcpPart: Part = {
  name: 'tcp',
  title: 'New connections, one call of 100 bytes on each',
  leaveOut: () => undefined,
  async measure(chain, { seconds }) {
    const http = await loadHttp(chain.http, chain.pids, { connections: CONNECTIONS, seconds, isNewEach: true })
    const figures = {
      httpConnectionsPerSecond: http.callsPerSecond,
      httpCpuUsFirst: http.cpuUs[0],
      httpCpuUsSecond: http.cpuUs[1],
      httpP50Us: http.p50Us,
      httpP99Us: http.p99Us,
      errors: http.errors,
    }
    if (chain.tcp === undefined) return figures
    const raw = await loadHttp(chain.tcp, chain.pids, { connections: CONNECTIONS, seconds, isNewEach: true })
    return {
      ...figures,
      rawConnectionsPerSecond: raw.callsPerSecond,
      rawCpuUsFirst: raw.cpuUs[0],
      rawCpuUsSecond: raw.cpuUs[1],
      rawP50Us: raw.p50Us,
      rawP99Us: raw.p99Us,
      errors: http.errors + raw.errors,
    }
  },
  ratio: (ours, peer) => ({
    http: divide(ours, peer, 'httpConnectionsPerSecond'),
    ...(ours.rawConnectionsPerSecond !== undefined &&
      peer.rawConnectionsPerSecond !== undefined && { raw: divide(ours, peer, 'rawConnectionsPerSecond') }),
  }),
  columns: [
    ['HTTP/s', show('httpConnectionsPerSecond')],
    ['CPU µs, each hop', show('httpCpuUsFirst', 'httpCpuUsSecond')],
    ['p50/p99 µs', show('httpP50Us', 'httpP99Us')],
    ['raw TCP/s', show('rawConnectionsPerSecond')],
    ['CPU µs, each hop', show('rawCpuUsFirst', 'rawCpuUsSecond')],
    ['p50/p99 µs', show('rawP50Us', 'rawP99Us')],
    ['errors', show('errors')],
  ],
}

/** Why the column of plain TCP is empty for a chain; undefined: it is not. */
export function whyNoRawTcp({ name, tcp }: Chain): string | undefined {
  if (tcp !== undefined) return undefined
  if (name === 'nginx') return 'its module for plain TCP is not installed (apt-get install libnginx-mod-stream)'
  return 'it has no way in for plain TCP'
}
