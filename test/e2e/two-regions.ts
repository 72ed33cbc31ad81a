import { Backend } from './backend.ts'
import { type ConfigChanges, createMesh, type DaemonProcess, type MeshProcesses, waitUntil } from './daemon-process.ts'
import { HttpClient } from './http-client.ts'

export interface TwoRegionsOptions {
  /** Changes to flatmesh.yaml of either. */
  readonly a?: ConfigChanges
  readonly b?: ConfigChanges
  /** How many calls the client may have under way. Default: the client's. */
  readonly connectionsMax?: number
}

/** Two daemons, a and b, in regions of their own: the one instance of `orders` is at b, and a client at a calls it. */
export class TwoRegions {
  readonly backend = new Backend('orders')
  readonly #options: TwoRegionsOptions
  #mesh: MeshProcesses | undefined
  #client: HttpClient | undefined

  constructor(options: TwoRegionsOptions = {}) {
    this.#options = options
  }

  /** Resolves when calls are answered. After an error `stop` is still to be called. */
  async start(): Promise<void> {
    const { a, b, connectionsMax } = this.#options
    const address = await this.backend.start()
    this.#mesh = await createMesh({
      nodes: [
        { name: 'a', region: 'region-a', config: a },
        { name: 'b', region: 'region-b', config: b },
      ],
    })
    this.b.writeServices([{ name: 'orders', instances: [{ address }] }])
    await this.mesh.converged()
    this.#client = new HttpClient(this.a.listen.http, connectionsMax)
    await this.answered()
  }

  async stop(): Promise<void> {
    this.#client?.close()
    await this.#mesh?.stop()
    await this.backend.stop()
  }

  get mesh(): MeshProcesses {
    if (this.#mesh === undefined) throw new Error('the two regions were not started')
    return this.#mesh
  }

  get client(): HttpClient {
    if (this.#client === undefined) throw new Error('the two regions were not started')
    return this.#client
  }

  get a(): DaemonProcess {
    return this.mesh.node('a')
  }

  get b(): DaemonProcess {
    return this.mesh.node('b')
  }

  /** Waits until a call is answered. */
  async answered(): Promise<void> {
    await waitUntil('calls are answered', async () => {
      return (await this.client.call('orders')).status === 200 ? true : undefined
    })
  }
}
