import { isServiceName, type ServiceName } from '../router/model.ts'
import { headValue } from './http1-fields.ts'
import type { RequestHead } from './http1-head.ts'

/** Hosts of the mesh end in this, so that they cannot be taken for names of the public DNS. */
const SUFFIX = '.mesh'

/**
 * The service a request is for: the field `x-flatmesh-service`, else the host: `orders.mesh` or `orders`, any port.
 * Undefined: neither names a service.
 */
export function serviceOf(head: RequestHead): ServiceName | undefined {
  const name = headValue(head, 'x-flatmesh-service') ?? hostName(head.host)
  return isServiceName(name) ? name : undefined
}

function hostName(host: string): string {
  const colon = host.lastIndexOf(':')
  const name = (colon === -1 ? host : host.slice(0, colon)).toLowerCase()
  return name.endsWith(SUFFIX) ? name.slice(0, -SUFFIX.length) : name
}
