import { loadGrpc } from './load.ts'
import { divide, type Part, show } from './part.ts'
import { hasProgram } from './process.ts'

/** Calls with 32 in flight for each second asked for: what the slowest chain makes in it. */
const CALLS_PER_SECOND = 7_500
const CALLS_PER_SECOND_AT_1 = 1_000
const CAN_LOAD = hasProgram('h2load')

/** gRPC unary calls of a 100-byte message: HTTP/2 in clear text into the first hop, and from the second to the service. */
export const grpcPart: Part = {
  name: 'grpc',
  title: 'gRPC unary, 100-byte messages, 4 connections of 8 streams',
  leaveOut({ grpc }) {
    if (!CAN_LOAD) return 'h2load is not installed (apt-get install nghttp2-client)'
    return grpc === undefined ? 'it speaks no HTTP/2 to services' : undefined
  },
  async measure({ grpc, pids }, { seconds }) {
    if (grpc === undefined) return {}
    const calls = CALLS_PER_SECOND * seconds
    const many = await loadGrpc(grpc, pids, { connections: 4, streamsEach: 8, calls })
    const one = await loadGrpc(grpc, pids, { connections: 1, streamsEach: 1, calls: CALLS_PER_SECOND_AT_1 * seconds })
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
