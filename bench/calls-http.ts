import { figuresOfSmall, smallCalls } from './calls-small.ts'
import { loadHttp } from './load.ts'
import { LEAD_IN_SECONDS, type Part } from './part.ts'

/** HTTP/1.1 calls of 100-byte answers over keep-alive connections, 32 in flight and one at a time. */
export const httpPart: Part = {
  name: 'http',
  title: 'HTTP/1.1, 100-byte answers, keep-alive',
  leaveOut: () => undefined,
  async measure({ http, pids }, { seconds }) {
    await loadHttp(http, pids, { connections: 32, seconds: LEAD_IN_SECONDS })
    const many = await loadHttp(http, pids, { connections: 32, seconds })
    const one = await loadHttp(http, pids, { connections: 1, seconds: Math.max(1, Math.round(seconds / 2)) })
    return figuresOfSmall(one, many)
  },
  ...smallCalls,
}
