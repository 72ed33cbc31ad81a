import { decodeRouteFilter, type RouteFilter } from '../router/route-filter.ts'
import { type Command, type Invocation, type Option, usage } from './command.ts'

/** Options of commands that ask for a place, as calls do with the fields of these names. */
export const PLACE_OPTIONS: Readonly<Record<string, Option>> = {
  region: { type: 'string', value: 'REGION', help: 'only places in this region; aws-* for all that begin so' },
  label: { type: 'string', multiple: true, value: 'K=V', help: 'only places with this label; may be repeated' },
}

/** Errors: MeshError `usage`. */
export function readPlaceOptions(command: Command, invocation: Invocation): RouteFilter | undefined {
  const decoded = decodeRouteFilter(invocation.text('region'), invocation.list('label'))
  if (decoded.ok) return decoded.filter
  throw usage(command, `${command.name}: ${decoded.problem}`)
}
