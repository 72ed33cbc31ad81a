const SPAN = /^(\d{1,9})(ms|s|m)?$/
const FACTOR = { ms: 1, s: 1000, m: 60_000 }
/** A day: what waits longer is not a call. */
const TIMEOUT_MS_MAX = 86_400_000

/**
 * How long an answer may take to begin: what the request's `x-flatmesh-timeout` says (`1500ms`, `2s`, `1m`; a bare
 * number is milliseconds), else the default. Undefined: the field cannot be read.
 */
export function chooseTimeoutMs(field: string | undefined, defaultMs: number): number | undefined {
  if (field === undefined) return defaultMs
  const match = SPAN.exec(field)
  if (match === null) return undefined
  const unit = (match[2] ?? 'ms') as keyof typeof FACTOR
  const ms = Number(match[1]) * FACTOR[unit]
  return ms >= 1 && ms <= TIMEOUT_MS_MAX ? ms : undefined
}
