import { readdirSync } from 'node:fs'
import type { Exposition } from './exposition.ts'
import { Histogram } from './histogram.ts'

/** How often the event loop's lateness is looked at. 100 ms: what the ingress looks at its time-outs with. */
const LOOK_MS = 100
/** From a timer's own grain to a stall that ends links. */
const DELAY_BOUNDS_SECONDS: readonly number[] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5]

/** What the process itself is doing, under the names that all exporters use. */
export class ProcessMeter {
  private readonly nowMs: () => number
  private readonly delay = new Histogram(DELAY_BOUNDS_SECONDS)
  private timer: NodeJS.Timeout | undefined

  constructor(deps: { nowMs: () => number }) {
    this.nowMs = deps.nowMs
  }

  start(): void {
    let dueAtMs = this.nowMs() + LOOK_MS
    this.timer = setInterval(() => {
      const nowMs = this.nowMs()
      this.delay.observe(Math.max(0, nowMs - dueAtMs) / 1000)
      dueAtMs = nowMs + LOOK_MS
    }, LOOK_MS)
    this.timer.unref()
  }

  stop(): void {
    clearInterval(this.timer)
  }

  expose(text: Exposition): void {
    const { user, system } = process.cpuUsage()
    const { rss, heapUsed, heapTotal, external } = process.memoryUsage()
    const { active, idle } = performance.eventLoopUtilization()
    text.counter('process_cpu_seconds_total', 'CPU time of the daemon, of all its threads.', (user + system) / 1e6)
    text.gauge('process_resident_memory_bytes', 'Memory that the system holds for the daemon.', rss)
    text.gauge('process_start_time_seconds', 'When the process started, Unix time.', performance.timeOrigin / 1000)
    const descriptors = countDescriptors()
    if (descriptors !== undefined) text.gauge('process_open_fds', 'Open files and sockets.', descriptors)
    text.gauge('nodejs_heap_size_used_bytes', 'Memory of the heap that is in use.', heapUsed)
    text.gauge('nodejs_heap_size_total_bytes', 'Memory of the heap.', heapTotal)
    text.gauge('nodejs_external_memory_bytes', 'Memory outside the heap that objects hold, such as buffers.', external)
    text.counter('nodejs_eventloop_active_seconds_total', 'Time the event loop had something to do.', active / 1000)
    text.counter('nodejs_eventloop_idle_seconds_total', 'Time the event loop waited for something to do.', idle / 1000)
    text.histogram(
      'nodejs_eventloop_delay_seconds',
      `How late a timer came, looked at every ${LOOK_MS} ms: what calls wait for the event loop.`,
      [[{}, this.delay]],
    )
  }
}

/** Undefined where the system does not tell. */
function countDescriptors(): number | undefined {
  try {
    // One of them is the folder's own.
    return readdirSync('/proc/self/fd').length - 1
  } catch {
    return undefined
  }
}
