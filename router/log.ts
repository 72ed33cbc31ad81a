/** The facts a log line may carry: one list, so that lines can be searched by the same keys everywhere. */
export interface LogFields {
  node?: string
  region?: string
  service?: string
  call?: string | number
  link?: string
  reason?: string
  code?: string
  durationMs?: number
  [detail: string]: unknown
}

/**
 * Where log lines go. error = the operator must act, warn = may, info = a rare change of state, debug = the rest.
 * The message is constant; facts are fields. pino fits this shape.
 */
export interface Log {
  error(fields: LogFields, message: string): void
  warn(fields: LogFields, message: string): void
  info(fields: LogFields, message: string): void
  debug(fields: LogFields, message: string): void
}

export const silentLog: Log = { error() {}, warn() {}, info() {}, debug() {} }
