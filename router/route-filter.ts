import type { Labels, Protocol, ServiceInfo } from './model.ts'

/** What a caller asks of a place beside the service's name. All that is given must hold. */
export interface RouteFilter {
  /** A region's name, or the beginning of one followed by `*`. */
  readonly region?: string | undefined
  readonly protocol?: Protocol | undefined
  /** Labels the service must carry there, with these values: `version` is one. */
  readonly labels?: Labels | undefined
}

export function matchesFilter(filter: RouteFilter, region: string, info: ServiceInfo): boolean {
  if (filter.protocol !== undefined && filter.protocol !== info.protocol) return false
  if (filter.region !== undefined && !matchesRegion(filter.region, region)) return false
  return Object.entries(filter.labels ?? {}).every(([key, value]) => info.labels[key] === value)
}

/** The same text for filters that ask the same; unlike texts for all others. */
export function filterKey({ region, protocol, labels = {} }: RouteFilter): string {
  const pairs = Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1))
  return JSON.stringify([region ?? null, protocol ?? null, pairs])
}

function matchesRegion(wanted: string, region: string): boolean {
  return wanted.endsWith('*') ? region.startsWith(wanted.slice(0, -1)) : wanted === region
}
