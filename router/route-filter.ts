import { LABEL_CHARACTERS_MAX, LABEL_KEY, LABEL_VALUE, type Labels, type Protocol, type ServiceInfo } from './model.ts'

/** What a caller asks of a place beside the service's name. All that is given must hold. */
export interface RouteFilter {
  /** A region's name, or the beginning of one followed by `*`. */
  readonly region?: string | undefined
  readonly protocol?: Protocol | undefined
  /** Labels the service must carry there, with these values: `version` is one. */
  readonly labels?: Labels | undefined
}

/** Labels one caller may ask for: half of what a service may have, and more than anyone tells versions apart by. Guess. */
export const FILTER_LABELS_MAX = 8
const REGION = /^[A-Za-z0-9._-]{0,63}\*?$/
/** Characters of somebody else's text that a message repeats. */
const SHOWN_MAX = 80

export type DecodedFilter =
  /** Undefined: nothing was asked for. */
  { readonly ok: true; readonly filter: RouteFilter | undefined } | { readonly ok: false; readonly problem: string }

/**
 * What a caller asks for, read from texts: a region (`aws-us-east-1`, or `aws-*`) and labels (`version=v2`).
 *
 * Shape: `problem` says what was expected and what was found; the caller puts before it where the text stood.
 */
export function decodeRouteFilter(region: string | undefined, labels: readonly string[]): DecodedFilter {
  if (region === undefined && labels.length === 0) return { ok: true, filter: undefined }
  if (region !== undefined && (region === '' || !REGION.test(region))) {
    return { ok: false, problem: `expected a region such as aws-us-east-1 or aws-*, found ${shown(region)}` }
  }
  if (labels.length > FILTER_LABELS_MAX) {
    return { ok: false, problem: `expected at most ${FILTER_LABELS_MAX} labels, found ${labels.length}` }
  }
  const wanted: Record<string, string> = {}
  for (const label of labels) {
    const at = label.indexOf('=')
    const [key, value] = [label.slice(0, Math.max(at, 0)), label.slice(at + 1)]
    if (!LABEL_KEY.test(key) || value.length > LABEL_CHARACTERS_MAX || !LABEL_VALUE.test(value)) {
      return { ok: false, problem: `expected a label such as version=v2, found ${shown(label)}` }
    }
    if (Object.hasOwn(wanted, key)) {
      return { ok: false, problem: `expected one value of each label, found a second one of ${key}` }
    }
    wanted[key] = value
  }
  return { ok: true, filter: { region, labels: labels.length > 0 ? wanted : undefined } }
}

export function matchesFilter(filter: RouteFilter, region: string, info: ServiceInfo): boolean {
  return explainMismatch(filter, region, info) === undefined
}

/** Why a place is not one that was asked for, such as `its region is a, not b`; undefined: it is one. */
export function explainMismatch(filter: RouteFilter, region: string, info: ServiceInfo): string | undefined {
  if (filter.region !== undefined && !matchesRegion(filter.region, region)) {
    return `its region is ${region}, not ${filter.region}`
  }
  if (filter.protocol !== undefined && filter.protocol !== info.protocol) {
    return `its protocol is ${info.protocol}, not ${filter.protocol}`
  }
  for (const [key, value] of Object.entries(filter.labels ?? {})) {
    if (!Object.hasOwn(info.labels, key)) return `it has no label ${key}`
    if (info.labels[key] !== value) return `its label ${key} is ${info.labels[key]}, not ${value}`
  }
  return undefined
}

/** In words: `region aws-*, label version=v2`. */
export function formatFilter({ region, protocol, labels = {} }: RouteFilter): string {
  const parts = [
    ...(region === undefined ? [] : [`region ${region}`]),
    ...(protocol === undefined ? [] : [`protocol ${protocol}`]),
    ...Object.entries(labels).map(([key, value]) => `label ${key}=${value}`),
  ]
  return parts.join(', ')
}

/** The same text for filters that ask the same; unlike texts for all others. */
export function filterKey({ region, protocol, labels = {} }: RouteFilter): string {
  const pairs = Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1))
  return JSON.stringify([region ?? null, protocol ?? null, pairs])
}

function matchesRegion(wanted: string, region: string): boolean {
  return wanted.endsWith('*') ? region.startsWith(wanted.slice(0, -1)) : wanted === region
}

function shown(text: string): string {
  return JSON.stringify(text.slice(0, SHOWN_MAX))
}
