import type { MeshErrorCode } from '../router/errors.ts'
import type { ServiceName } from '../router/model.ts'
import { formatFilter, type RouteFilter } from '../router/route-filter.ts'
import type { IngressDeps } from './ingress.ts'

/** Why nobody could be asked: nobody offers it, nobody with what the call asks for, or nobody in good health. */
export function noPlace(
  deps: Pick<IngressDeps, 'knows'>,
  service: ServiceName,
  filter: RouteFilter | undefined,
): { code: MeshErrorCode; reason: string } {
  if (!deps.knows(service))
    return { code: 'unknown-service', reason: `no node of the mesh offers a service named ${service}` }
  const where = filter === undefined ? '' : ` with ${formatFilter(filter)}`
  if (filter !== undefined && !deps.knows(service, filter)) {
    const reason = `${service} is offered, but nowhere${where}, which the call asks for`
    return { code: 'no-matching-place', reason }
  }
  return { code: 'no-healthy-place', reason: `no reachable node${where} has a healthy instance of ${service} now` }
}
