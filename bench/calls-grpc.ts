import { figuresOfSmall, smallCalls } from './calls-small.ts'
import { loadGrpc } from './load.ts'
import { LEAD_IN_SECONDS, type Part } from './part.ts'
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
    const load = { connections: 4, streamsEach: 8 }
    await loadGrpc(grpc, pids, { ...load, calls: CALLS_PER_SECOND * LEAD_IN_SECONDS })
    const many = await loadGrpc(grpc, pids, { ...load, calls: CALLS_PER_SECOND * seconds })
    const one = await loadGrpc(grpc, pids, { connections: 1, streamsEach: 1, calls: CALLS_PER_SECOND_AT_1 * seconds })
    return figuresOfSmall(one, many)
  },
  ...smallCalls,
}
