/** Quantities as people read and write them. JSON carries the plain numbers instead. */

const UNITS_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** `15m`, `90s`, `500ms`, `2h`, `7d` as milliseconds; anything else is undefined. */
export function decodeSpan(text: string): number | undefined {
  const match = /^(\d{1,9})(ms|s|m|h|d)$/.exec(text)
  const unit = UNITS_MS[match?.[2] ?? '']
  return match === null || unit === undefined ? undefined : Number(match[1]) * unit
}

/** The largest unit that still counts two or more, or one: `45s`, `3m`, `26h`, `12d`. Always rounded down. */
export function formatSpan(spanMs: number): string {
  const seconds = Math.max(0, Math.floor(spanMs / 1000))
  if (seconds < 120) return `${seconds}s`
  const minutes = Math.floor(seconds / 60)
  if (minutes < 120) return `${minutes}m`
  const hours = Math.floor(minutes / 60)
  return hours < 48 ? `${hours}h` : `${Math.floor(hours / 24)}d`
}

/** Milliseconds with as many decimals as one can use: `0.42`, `9.8`, `147`; `-` for unknown. */
export function formatMs(ms: number | null): string {
  if (ms === null) return '-'
  return ms < 1 ? ms.toFixed(2) : ms < 100 ? ms.toFixed(1) : ms.toFixed(0)
}

export function formatBytes(bytes: number): string {
  return bytes < 1_000_000 ? `${(bytes / 1000).toFixed(0)} kB` : `${(bytes / 1_000_000).toFixed(0)} MB`
}

/** A share of 0..1 as percent: `0`, `0.4`, `12`. */
export function formatPercent(ratio: number): string {
  const percent = ratio * 100
  return percent === 0 || percent >= 10 ? percent.toFixed(0) : percent.toFixed(1)
}
