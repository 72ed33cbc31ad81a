import { type DecodedFilter, decodeRouteFilter } from '../router/route-filter.ts'
import { headValue, isNamed, listElements } from './http1-fields.ts'
import type { RequestHead } from './http1-head.ts'

const REGION_FIELD = 'x-flatmesh-region'
const LABEL_FIELD = 'x-flatmesh-label'
export const PLACE_FIELDS = [REGION_FIELD, LABEL_FIELD] as const

const NOTHING_ASKED: DecodedFilter = { ok: true, filter: undefined }

/**
 * Which places a request wants to be answered at: `x-flatmesh-region: aws-us-east-1` (or `aws-*`), and any number of
 * labels, as lists or in several fields: `x-flatmesh-label: version=v2, tier=gold`. All must hold.
 *
 * What cannot stand in a field (a comma, letters beyond ASCII) is written as in URLs: `name=M%C3%BCller%2C Inc`.
 */
export function readPlaceFilter(head: Pick<RequestHead, 'fields' | 'lines'>): DecodedFilter {
  // Nearly no request asks: that is seen without taking its fields apart.
  const isAsked = headValue(head, REGION_FIELD) !== undefined || headValue(head, LABEL_FIELD) !== undefined
  return isAsked ? readFields(head.fields) : NOTHING_ASKED
}

function readFields(fields: readonly string[]): DecodedFilter {
  let region: string | undefined
  let labels: string[] | undefined
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] ?? ''
    if (isNamed(name, REGION_FIELD)) {
      if (region !== undefined) return { ok: false, problem: `${REGION_FIELD}: expected one region, found two fields` }
      region = fields[i + 1] ?? ''
    } else if (isNamed(name, LABEL_FIELD)) {
      labels ??= []
      const elements = listElements(fields[i + 1] ?? '')
      // An empty field is a mistake of whoever fills in a template: answering from anywhere would hide it.
      for (const label of elements.length === 0 ? [''] : elements) labels.push(decodePercent(label))
    }
  }
  const decoded = decodeRouteFilter(region, labels ?? [])
  return decoded.ok ? decoded : { ok: false, problem: `${[REGION_FIELD, LABEL_FIELD].join(', ')}: ${decoded.problem}` }
}

/** What is not percent-encoded as it should be stays as it is, and is no label then. */
function decodePercent(text: string): string {
  if (!text.includes('%')) return text
  try {
    return decodeURIComponent(text)
  } catch {
    return ''
  }
}
