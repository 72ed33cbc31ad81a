import type { Labels, Protocol, ServiceName } from '../router/model.ts'

/** One process that offers a service. */
export interface Instance {
  /** Unique within the service and the source, stable over re-reads. */
  readonly id: string
  /** `host:port`, as this node can dial it. */
  readonly address: string
  /** Share of the service's calls relative to its siblings, 1..1000. */
  readonly weight: number
}

/** A service as one registry knows it. */
export interface ServiceDefinition {
  readonly name: ServiceName
  readonly protocol: Protocol
  readonly labels: Labels
  readonly instances: readonly Instance[]
}

/**
 * A registry of this datacenter. It tells its whole content on every change: idempotent, so a lost or doubled
 * change can do no harm.
 */
export interface RegistrySource {
  /** For logs and `status`, such as `file services.yaml`. */
  readonly name: string
  /** Resolves once the first content was told, or is known to be empty. Rejects with MeshError `bad-registry` if it can never work. */
  start(onChange: (services: readonly ServiceDefinition[]) => void): Promise<void>
  stop(): Promise<void>
  /** What is wrong with it now, in the operator's words, or undefined. The last good content stays in force meanwhile. */
  problem(): string | undefined
}
