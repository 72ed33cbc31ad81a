import type { Server } from 'node:net'
import { MeshError } from '../router/errors.ts'

/** Where a server listens, and what it is called in the config. */
export interface ListenAt {
  readonly host: string
  readonly port: number
  /** Connections the kernel keeps until they are taken. Default: Node's, 511. */
  readonly backlog?: number
  /** The field of the config. */
  readonly field: string
  /** What else helps to tell it from others, such as ` for orders`. */
  readonly what?: string
}

/** Listens; answers the port, which is the real one if it was 0. Rejects with MeshError `port-in-use`. */
export async function listen(server: Server, { host, port, backlog, field, what = '' }: ListenAt): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    const fail = (error: Error): void => {
      const where = `${field}: cannot listen on ${host}:${port}${what} (${error.message})`
      reject(new MeshError('port-in-use', `${where}; stop what holds it or choose another port`, { cause: error }))
    }
    server.once('error', fail)
    server.listen({ host, port, ...(backlog !== undefined && { backlog }) }, () => {
      server.removeListener('error', fail)
      resolve()
    })
  })
  const address = server.address()
  return typeof address === 'object' && address !== null ? address.port : port
}
