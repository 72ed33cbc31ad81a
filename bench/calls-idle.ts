import { setTimeout as wait } from 'node:timers/promises'
import { descriptorsMax } from './chain.ts'
import { holdIdle, loadHttp } from './load.ts'
import { divide, type Part, show } from './part.ts'
import { rssBytes } from './process.ts'

/** Of the goal; fewer where the system allows fewer descriptors. */
const CONNECTIONS = Math.min(10_000, descriptorsMax() - 2_000)
const WARM_UP_SECONDS = 2
/** Until buffers of the opening are given back, and a Node process has had its small collections. */
const SETTLE_MS = 3_000

/** Idle client connections: each made one call, and waits. In processes started anew, for memory once taken is seldom given back. */
export const idlePart: Part = {
  name: 'idle',
  title: `Idle clients, ${CONNECTIONS} keep-alive connections after one call each`,
  startsFresh: true,
  leaveOut: () => undefined,
  async measure({ name }, { startFresh }) {
    const chain = await startFresh(name)
    const [first, second] = chain.pids
    try {
      await loadHttp(chain.http, chain.pids, { connections: 32, seconds: WARM_UP_SECONDS })
      await wait(SETTLE_MS)
      const before = [rssBytes(first), rssBytes(second)] as const
      const grown = [0, 0]
      const closed = await holdIdle(chain.http, CONNECTIONS, async () => {
        await wait(SETTLE_MS)
        grown[0] = rssBytes(first) - before[0]
        grown[1] = rssBytes(second) - before[1]
      })
      return {
        bytesPerConnection: (grown[0] ?? 0) / CONNECTIONS,
        megabytesPer10000First: ((grown[0] ?? 0) / CONNECTIONS) * 0.01,
        megabytesPer10000Second: ((grown[1] ?? 0) / CONNECTIONS) * 0.01,
        megabytesBefore: before[0] / 1e6,
        errors: closed,
      }
    } finally {
      await chain.stop()
    }
  },
  ratio: (ours, peer) => ({ bytesPerConnection: divide(ours, peer, 'bytesPerConnection') }),
  columns: [
    ['bytes each', show('bytesPerConnection')],
    ['MB per 10,000, each hop', show('megabytesPer10000First', 'megabytesPer10000Second')],
    ['MB before', show('megabytesBefore')],
    ['closed meanwhile', show('errors')],
  ],
}
