import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { type Door, endWithThisProcess } from '../test/e2e/daemon-process.ts'
import { type WanLinkOptions, WanMap, type WanRelay } from '../test/e2e/wan-relay.ts'

type Order = { readonly id: number } & (
  | { readonly type: 'open'; readonly from: string; readonly to: string }
  | { readonly type: 'lead'; readonly address: string; readonly target: string }
)
interface Done {
  readonly id: number
  /** Empty: no line between these two. */
  readonly address: string
}

/** The lines of a WanMap in a process of their own, so that whoever measures calls over them does not slow them down. */
export class WanProcess {
  private readonly links: readonly WanLinkOptions[]
  private readonly waiting = new Map<number, (address: string) => void>()
  private child: ChildProcess | undefined
  private nextId = 1

  constructor(links: readonly WanLinkOptions[]) {
    this.links = links
  }

  start(): void {
    const child = fork(fileURLToPath(import.meta.url), [JSON.stringify(this.links)])
    endWithThisProcess(child)
    child.on('message', (done: Done) => {
      this.waiting.get(done.id)?.(done.address)
      this.waiting.delete(done.id)
    })
    this.child = child
  }

  readonly openDoor = async (from: string, to: string): Promise<Door | undefined> => {
    const address = await this.order(id => ({ id, type: 'open', from, to }))
    if (address === '') return undefined
    const lead = async (target: string): Promise<void> => {
      await this.order(id => ({ id, type: 'lead', address, target }))
    }
    return { address, lead }
  }

  async stop(): Promise<void> {
    const { child } = this
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, 'exit')
    if (child.connected) child.disconnect()
    await ended
  }

  private order(make: (id: number) => Order): Promise<string> {
    const { child } = this
    if (child === undefined) throw new Error('the lines are not started yet')
    const order = make(this.nextId++)
    return new Promise((resolve, reject) => {
      this.waiting.set(order.id, resolve)
      child.send(order, error => {
        if (error !== null) reject(error)
      })
    })
  }
}

/** The child: does what it is told, until whoever told it is gone. */
function serve(links: readonly WanLinkOptions[]): void {
  const map = new WanMap(links)
  const relays = new Map<string, WanRelay>()
  process.on('message', async (order: Order) => {
    let address = ''
    if (order.type === 'lead') relays.get(order.address)?.lead(order.target)
    else {
      const relay = await map.openDoor(order.from, order.to)
      address = relay?.address ?? ''
      if (relay !== undefined) relays.set(address, relay)
    }
    const done: Done = { id: order.id, address }
    process.send?.(done)
  })
  process.once('disconnect', () => process.exit(0))
  // The terminal's Ctrl-C reaches everybody; the lines stay until the demo is done with them.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => undefined)
}

if (process.argv[1] === fileURLToPath(import.meta.url) && process.send !== undefined) {
  serve(JSON.parse(process.argv[2] ?? '[]'))
}
