import type { AcceptCall, Call } from '../proxy/call.ts'
import { silentLog } from '../router/log.ts'
import type { NodeId } from '../router/model.ts'
import { openOf, Witness } from './call-contract.ts'
import { CallPlane, type CallPlaneDeps, type CallPlaneOptions } from './call-plane.ts'
import type { Identity } from './identity.ts'
import { RELAY_DEFAULTS, type RelayOptions } from './relay.ts'

export const echo: AcceptCall = call => {
  const witness = new Witness(call)
  witness.keep = undefined
  witness.onData = chunk => {
    if (!call.write(chunk, true)) call.pause()
  }
  witness.onDrain = () => call.resume()
  witness.onEnd = () => call.end()
}

export interface TestPlane {
  readonly plane: CallPlane
  readonly peer: NodeId
  readonly address: string
  /** Callers of accepted calls, as they were proven. */
  readonly callers: NodeId[]
  /** Links up and down, in order: `up ID`, `down ID`. */
  readonly changes: string[]
}

/** A call plane on a free port of the loopback that answers every call with its own bytes. */
export async function startPlane(
  identity: Identity,
  deps: Partial<CallPlaneDeps> = {},
  { relay, ...options }: Partial<Omit<CallPlaneOptions, 'relay'>> & { relay?: Partial<RelayOptions> } = {},
): Promise<TestPlane> {
  const [callers, changes]: [NodeId[], string[]] = [[], []]
  const plane = new CallPlane(
    {
      identity,
      log: silentLog,
      accept: (call, open, caller) => {
        callers.push(caller)
        echo(call, open, caller)
      },
      isMember: () => true,
      onLinkChange: (peer, up) => changes.push(`${up ? 'up' : 'down'} ${peer}`),
      ...deps,
    },
    {
      ...{ listen: { host: '127.0.0.1', port: 0 }, backoffMinMs: 5, backoffMaxMs: 40, duplicateGraceMs: 50 },
      ...{ improveMinMs: 10, improveMaxMs: 40, quietHeadStartMs: 50, headStartMs: 20 },
      // A loaded machine may need long for a handshake; a test says so itself where the wait is what it is about.
      waitMs: 10_000,
      ...options,
      relay: { ...RELAY_DEFAULTS, ...relay },
    },
  )
  const { port } = await plane.start()
  return { plane, peer: identity.nodeId, address: `127.0.0.1:${port}`, callers, changes }
}

/** Sends `body` and expects it back. */
export function askPlane(plane: CallPlane, peer: NodeId, body: string | Buffer = 'hello', waitMs?: number): Witness {
  const call: Call | undefined = plane.open(peer, { ...openOf('orders'), timeoutMs: 0 }, waitMs)
  if (call === undefined) throw new Error('expected a link, or one on its way')
  const witness = new Witness(call)
  call.write(Buffer.from(body))
  call.end()
  return witness
}
