import type { IncomingMessage } from 'node:http'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Backend } from './backend.ts'
import { createMesh, type DaemonProcess, type MeshProcesses, waitUntil } from './daemon-process.ts'
import { HttpClient } from './http-client.ts'

/** More than passes before the test is over. */
const ENDLESS_BYTES = 100e9

describe('bulk and small calls between two daemons', () => {
  const backend = new Backend('b')
  let mesh: MeshProcesses
  let client: HttpClient
  const ends = (): DaemonProcess[] => [mesh.node('first'), mesh.node('second')]

  beforeAll(async () => {
    mesh = await createMesh({
      nodes: [
        { name: 'first', region: 'carriers-1' },
        { name: 'second', region: 'carriers-2' },
      ],
    })
    await mesh.node('second').mustRun('service', 'add', 'both', await backend.start())
    await mesh.converged()
    client = new HttpClient(mesh.node('first').listen.http)
    await waitUntil('the service answers', async () => ((await client.call('both')).status === 200 ? true : undefined))
  })
  afterAll(async () => {
    client?.close()
    await mesh?.stop()
    await backend.stop()
  })

  const carriers = async (node: DaemonProcess): Promise<number> => (await node.links())[0]?.carriers ?? 0
  const have = (what: string, isSo: (carriers: number) => boolean): Promise<unknown> =>
    waitUntil(what, async () => ((await Promise.all(ends().map(carriers))).every(isSo) ? true : undefined), 60_000)

  async function download(): Promise<IncomingMessage> {
    const answer = await client.open('both', { path: `/bytes/${ENDLESS_BYTES}` })
    answer.on('error', () => {}).resume()
    return answer
  }

  it('go over different connections while the bulk lasts, and no call is lost when it is one again', async () => {
    // At the start both ends dial.
    await have('of two connections one is left', count => count === 1)
    const bulk = [await download(), await download()]
    let isOver = false
    const small = (async () => {
      const found: number[] = []
      while (!isOver) found.push((await client.call('both')).status)
      return found
    })()
    await have('there is more than one connection', count => count > 1)
    const { stdout } = await mesh.node('first').mustRun('links')
    expect(stdout).toMatch(/direct ×[2-4] /)
    // It shares the second one with small calls, which get a third.
    bulk.push(await download())
    await have('there are more than two connections', count => count > 2)
    for (const answer of bulk) answer.destroy()
    await have('one connection is left', count => count === 1)
    isOver = true
    expect(new Set(await small)).toEqual(new Set([200]))
    // By the end that dialled them, which may be either.
    const logs = ends().map(end => end.log())
    expect(logs.join('')).toContain('retired: the links beside it suffice')
  })
})
