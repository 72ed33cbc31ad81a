import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Backend } from './backend.ts'
import { createMesh, type MeshProcesses, waitUntil } from './daemon-process.ts'
import { type Answer, HttpClient } from './http-client.ts'

describe('an instance in another region that takes one call at a time', () => {
  const backend = new Backend('orders')
  let mesh: MeshProcesses
  let client: HttpClient

  beforeAll(async () => {
    await backend.start()
    mesh = await createMesh({
      nodes: [
        { name: 'a', region: 'region-a' },
        {
          ...{ name: 'b', region: 'region-b' },
          config: { proxy: { instanceConnectionsMax: 1, queueMax: 2, queueTimeoutMs: 1000 } },
        },
      ],
    })
    mesh.node('b').writeServices([{ name: 'orders', instances: [{ address: backend.address }] }])
    await mesh.converged()
    client = new HttpClient(mesh.node('a').listen.http)
    await waitUntil('calls are answered', async () => ((await client.call('orders')).status === 200 ? true : undefined))
  })

  afterAll(async () => {
    client?.close()
    await mesh?.stop()
    await backend.stop()
  })

  it('has the others wait, and those that waited in vain are told that nothing was sent', async () => {
    const { asked } = backend
    const long = await client.open('orders', { path: '/bytes/1000000000' })
    const answers = await Promise.all(Array.from({ length: 3 }, () => client.call('orders')))
    for (const answer of answers) {
      expect([answer.status, answer.headers['retry-after']]).toEqual([503, '3'])
      expect(told(answer)).toMatchObject({ code: 'instance-busy', attempts: [{ node: 'b', code: 'instance-busy' }] })
    }
    const reasons = answers.map(answer => told(answer).message.replace(/^.*(within|wait already)/, '$1')).sort()
    expect(reasons).toEqual(['wait already', 'within 1000 ms', 'within 1000 ms'])
    expect(backend.asked).toBe(asked + 1)
    long.destroy()
    await waitUntil('calls are answered', async () => ((await client.call('orders')).status === 200 ? true : undefined))
  })
})

function told(answer: Answer): { code: string; message: string } {
  return (JSON.parse(answer.body.toString()) as { error: { code: string; message: string } }).error
}
