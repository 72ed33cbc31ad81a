import type { CallFigures } from './load.ts'
import { divide, type Figures, type Part, show } from './part.ts'

/** What parts of small calls tell, whatever the protocol: `one` call at a time, and `many`, 32, in flight. */
export function figuresOfSmall(one: CallFigures, many: CallFigures): Figures {
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
}

/** How the figures of such a part are compared and shown. */
export const smallCalls: Pick<Part, 'ratio' | 'columns'> = {
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
