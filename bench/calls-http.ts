import { loadHttp } from './load.ts'
import { divide, type Part, show } from './part.ts'

/** HTTP/1.1 calls of 100-byte answers over keep-alive connections, 32 in flight and one at a time. */
export const httpPart: Part = {
  name: 'http',
  title: 'HTTP/1.1, 100-byte answers, keep-alive',
  leaveOut: () => undefined,
  async measure({ http, pids }, { seconds }) {
    const many = await loadHttp(http, pids, { connections: 32, seconds })
    const one = await loadHttp(http, pids, { connections: 1, seconds: Math.max(1, Math.round(seconds / 2)) })
    return {
      callsPerSecond: many.callsPerSecond,
      cpuUsFirst: many.cpuUs[0],
      cpuUsSecond: many.cpuUs[1],
      p50UsAt1: one.p50Us,
      p99UsAt1: one.p99Us,
      p50UsAt32: many.p50Us,
      p99UsAt32: many.p99Us,
      errors: one.errors + many.errors,
    }
  },
  ratio: (ours, peer) => ({
    cpuPerCall: divide(ours, peer, 'cpuUsFirst', 'cpuUsSecond'),
    p50: divide(ours, peer, 'p50UsAt1'),
    rps: divide(ours, peer, 'callsPerSecond'),
  }),
  columns: [
    ['calls/s at 32', show('callsPerSecond')],
    ['CPU µs/call, each hop', show('cpuUsFirst', 'cpuUsSecond')],
    ['p50/p99 µs at 1', show('p50UsAt1', 'p99UsAt1')],
    ['p50/p99 µs at 32', show('p50UsAt32', 'p99UsAt32')],
    ['errors', show('errors')],
  ],
}
