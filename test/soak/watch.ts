import { readdirSync } from 'node:fs'
import type { DaemonProcess } from '../e2e/daemon-process.ts'

/** What a daemon holds. */
export interface Held {
  readonly rssBytes: number
  readonly descriptors: number
  readonly inFlight: number
}

export async function look(daemon: DaemonProcess): Promise<Held> {
  const { calls } = await daemon.status()
  const links = await daemon.links()
  return {
    rssBytes: daemon.rssBytes(),
    descriptors: readdirSync(`/proc/${daemon.pid}/fd`).length,
    inFlight: calls.inFlight + links.reduce((sum, { inFlight }) => sum + inFlight, 0),
  }
}

/** V8 takes and gives back memory in steps, more of them in a larger heap. */
const RSS_SHARE_MAX = 1.2
const RSS_BYTES_MAX = 20e6
/** A link that was made or given up meanwhile, and a connection to an instance. */
const DESCRIPTORS_MAX = 5

/** What is left at the end and was not there at the baseline; empty: nothing. `isRssJudged`: the warm-up was long enough to say. */
export function judgeHeld(name: string, base: Held, end: Held, isRssJudged: boolean): string[] {
  const found: string[] = []
  const rssMax = base.rssBytes * RSS_SHARE_MAX + RSS_BYTES_MAX
  if (isRssJudged && end.rssBytes > rssMax)
    found.push(`${name}: expected at most ${mb(rssMax)} of memory at the end, found ${mb(end.rssBytes)}`)
  if (end.descriptors > base.descriptors + DESCRIPTORS_MAX)
    found.push(
      `${name}: expected at most ${base.descriptors + DESCRIPTORS_MAX} descriptors at the end, found ${end.descriptors}`,
    )
  for (const [when, { inFlight }] of Object.entries({ baseline: base, end }))
    if (inFlight !== 0) found.push(`${name}: expected no call in flight at the ${when}, found ${inFlight}`)
  return found
}

export function mb(bytes: number): string {
  return `${(bytes / 1e6).toFixed(0)} MB`
}

/** Lines of a daemon's log that should not be there: errors, and whatever is not a line of the log, such as an exception's trace. */
export function badLines(log: string): string[] {
  return log.split('\n').filter(line => line !== '' && !isHarmless(line))
}

/** pino's number for `error`. */
const ERROR_LEVEL = 50

function isHarmless(line: string): boolean {
  try {
    const { level } = JSON.parse(line) as { level?: unknown }
    return typeof level === 'number' && level < ERROR_LEVEL
  } catch {
    return false
  }
}
