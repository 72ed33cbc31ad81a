import type { CallReport } from '../proxy/call-report.ts'
import { decodeEgressNote } from '../proxy/egress-note.ts'
import type { NodeId } from '../router/model.ts'
import type { AccessLogCalls } from './config.ts'

export interface AccessLogOptions {
  /** Which calls get a line: none, those that failed and a share of the others, or every one. */
  readonly calls: AccessLogCalls
  /** Share of the calls that did not fail, 0..1, when `calls` is `sampled`. */
  readonly ratio: number
}

export interface AccessLogDeps {
  /** The name of this node: the calls were taken here. */
  readonly node: string
  /** Takes a line, its end included, without waiting. */
  readonly write: (line: string) => void
  /** How calls get to a node now; see `carrier` in admin-api.ts. */
  readonly carrier: (node: NodeId) => string
  /** Unix milliseconds. */
  readonly clock: () => number
  /** 0 ≤ x < 1. */
  readonly random: () => number
}

/** Of a target that is shown, in characters. Guess: longer paths are data, not names. */
const PATH_CHARS_MAX = 512
/** pino's number of `info`: the lines read like those of the daemon's log. */
const LEVEL_INFO = 30

/**
 * One line of JSON per call, in the shape of the daemon's own log.
 *
 * To make it costs 1 µs, by pino 3.5 µs, which is more than a tenth of what a call costs (2026-11-22; all that a line
 * costs: `npm run bench -- access-log`).
 * Queries are left out: they hold what must not lie about in files.
 */
export class AccessLog {
  private readonly deps: AccessLogDeps
  private readonly options: AccessLogOptions
  private second = Number.NaN
  private secondText = ''

  constructor(deps: AccessLogDeps, options: AccessLogOptions) {
    this.deps = deps
    this.options = options
  }

  onCallOver(report: CallReport): void {
    const { calls, ratio } = this.options
    if (calls === 'off') return
    if (calls === 'sampled' && !isFailed(report) && this.deps.random() >= ratio) return
    this.deps.write(this.lineOf(report))
  }

  /** What there was none of is left out. Built by hand: JSON.stringify of an object takes three times as long. */
  private lineOf(report: CallReport): string {
    const { service, kind, protocol, method, target, client, status, grpcStatus, egress, egressNote, attempts } = report
    const { outcome, reason, beganAtMs, openedAtMs, answeredAtMs, endedAtMs, bytesIn, bytesOut } = report
    let line = `{"level":${LEVEL_INFO},"time":"${this.now()}","service":"${service}","kind":"${kind}","protocol":"${protocol}"`
    if (method !== '') line += `,"method":"${method}"`
    if (target !== '') line += `,"path":${quote(pathOf(target))}`
    if (status !== 0) line += `,"status":${status}`
    if (grpcStatus !== undefined) line += `,"grpcStatus":${quote(grpcStatus)}`
    line += `,"outcome":"${outcome}"`
    if (reason !== '') line += `,"reason":${quote(reason)}`
    if (client !== undefined) line += `,"client":${quote(client)}`
    line += `,"ingress":"${this.deps.node}"`
    if (egress !== undefined) {
      line += `,"egress":${quote(egress.name)},"carrier":${quote(this.deps.carrier(egress.node))}`
    }
    const tries = attempts.length === 0 ? undefined : triesOf(report)
    if (tries !== undefined) line += `,"attempts":${JSON.stringify(tries)}`
    const note = egressNote === undefined ? undefined : decodeEgressNote(egressNote)
    if (note !== undefined) {
      const { address, queueMs, instanceMs } = note
      // What the egress needed taken off: the way there and back, and the wait for a link.
      const pathMs = Math.max(0, answeredAtMs - openedAtMs - queueMs - instanceMs)
      line += `,"instance":${quote(address)},"queueMs":${hundredths(queueMs)},"pathMs":${hundredths(pathMs)}`
      line += `,"instanceMs":${hundredths(instanceMs)}`
    }
    if (!Number.isNaN(answeredAtMs)) line += `,"firstByteMs":${hundredths(answeredAtMs - beganAtMs)}`
    return `${line},"totalMs":${hundredths(endedAtMs - beganAtMs)},"bytesIn":${bytesIn},"bytesOut":${bytesOut},"msg":"call"}\n`
  }

  /** As `toISOString`; most of it is the same for a whole second. */
  private now(): string {
    const ms = this.deps.clock()
    const second = Math.floor(ms / 1000)
    if (second !== this.second) {
      this.second = second
      this.secondText = new Date(second * 1000).toISOString().slice(0, -4)
    }
    return `${this.secondText}${String(1000 + (Math.floor(ms) % 1000)).slice(1)}Z`
  }
}

/** What a sampled log never leaves out: errors of the mesh, clients that gave up, and answers that say that the service failed. */
function isFailed({ outcome, status, grpcStatus }: CallReport): boolean {
  return outcome !== 'ok' || status >= 500 || isGrpcFailure(grpcStatus)
}

/** Statuses of gRPC that speak of the service, not of the request: UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS. */
function isGrpcFailure(status: string | undefined): boolean {
  return status === '2' || status === '4' || status === '13' || status === '14' || status === '15'
}

function pathOf(target: string): string {
  const end = target.indexOf('?')
  return target.slice(0, Math.min(end < 0 ? target.length : end, PATH_CHARS_MAX))
}

/** Every try in order, the last one with how the call ended; undefined: there was one, or none. */
function triesOf(report: CallReport): { node: string; outcome: string }[] | undefined {
  const { attempts, egress, outcome, answeredAtMs } = report
  const tries = attempts.map(({ node, code }): { node: string; outcome: string } => ({ node, outcome: code }))
  // What ended the last one before an answer ended the call.
  const isTold = Number.isNaN(answeredAtMs) && attempts.at(-1)?.code === outcome
  if (!isTold && egress !== undefined) tries.push({ node: egress.name, outcome })
  return tries.length > 1 ? tries : undefined
}

/** Most texts are plain; the others are JSON's to escape. */
function quote(text: string): string {
  return PLAIN.test(text) ? `"${text}"` : JSON.stringify(text)
}

/** Printable ASCII but `"` and `\`. */
const PLAIN = /^[ !#-[\]-~]*$/

/** A number of JSON with two decimals. Whole numbers are put into text several times faster than fractions. */
function hundredths(ms: number): string {
  const count = Math.round(ms * 100)
  const rest = count % 100
  return `${(count - rest) / 100}.${rest < 10 ? '0' : ''}${rest}`
}
