import { BULK_BYTES } from './chain.ts'
import { loadBulk } from './load.ts'
import { divide, type Part, show } from './part.ts'

/** One download of 1 GiB. */
export const bulkPart: Part = {
  name: 'bulk',
  title: 'Bulk, one download of 1 GiB',
  leaveOut: () => undefined,
  async measure({ http, pids }) {
    // The lead-in: a window begins small, and a daemon's buffers are made once.
    await loadBulk(http, pids, BULK_BYTES)
    const { megabytesPerSecond, cpuPerGb } = await loadBulk(http, pids, BULK_BYTES)
    return { megabytesPerSecond, cpuSecondsPerGbFirst: cpuPerGb[0], cpuSecondsPerGbSecond: cpuPerGb[1] }
  },
  ratio: (ours, peer) => ({
    megabytesPerSecond: divide(ours, peer, 'megabytesPerSecond'),
    cpuPerGb: divide(ours, peer, 'cpuSecondsPerGbFirst', 'cpuSecondsPerGbSecond'),
  }),
  columns: [
    ['MB/s', show('megabytesPerSecond')],
    ['CPU s/GB, each hop', show('cpuSecondsPerGbFirst', 'cpuSecondsPerGbSecond')],
  ],
}
