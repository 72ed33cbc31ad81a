import { MeshError, type MeshErrorCode } from '../router/errors.ts'
import type { ServiceName } from '../router/model.ts'
import type { InstanceState, Instances } from './instances.ts'

/**
 * Connects to an instance of a service: to `first`, or to the next best one when it refuses.
 *
 * One that refuses is out until it answers again (health.ts), unless `connect` says with a MeshError why. `isWanted` is asked before each further try.
 * Shape: the instance and the connection to it; or why there is none: nothing was sent to anyone.
 */
export async function connectInstance<C>(
  deps: { readonly self: { readonly name: string }; readonly instances: Instances },
  service: ServiceName,
  first: InstanceState | undefined,
  connect: (address: string) => Promise<C>,
  isWanted: () => boolean,
): Promise<{ instance: InstanceState; connection: C } | { code: MeshErrorCode; reason: string }> {
  const tried = new Set<InstanceState>()
  const here = `${service} at ${deps.self.name}`
  let reason = `no instance of ${here} is healthy`
  for (let instance = first; instance !== undefined; instance = deps.instances.choose(service, tried)) {
    tried.add(instance)
    instance.inFlight++
    const connected = await connect(instance.address).catch(toError)
    instance.inFlight--
    if (!(connected instanceof Error)) return { instance, connection: connected }
    reason = `instance ${instance.address} of ${here}: ${connected.message}`
    // It listens, so it is not down; another one need not have what keeps this one from taking the call.
    if (connected instanceof MeshError) return { code: connected.code, reason }
    deps.instances.setHealth(instance, false, connected.message)
    if (!isWanted()) break
  }
  return { code: tried.size > 0 ? 'instance-refused' : 'no-healthy-place', reason }
}

function toError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error))
}
