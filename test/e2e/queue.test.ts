import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Answer } from './http-client.ts'
import { TwoRegions } from './two-regions.ts'

describe('an instance in another region that takes one call at a time', () => {
  const regions = new TwoRegions({
    b: { proxy: { instanceConnectionsMax: 1, queueMax: 2, queueTimeoutMs: 1000 } },
  })
  const { backend } = regions

  beforeAll(() => regions.start())
  afterAll(() => regions.stop())

  it('has the others wait, and those that waited in vain are told that nothing was sent', async () => {
    const { asked } = backend
    const long = await regions.client.open('orders', { path: '/bytes/1000000000' })
    const answers = await Promise.all(Array.from({ length: 3 }, () => regions.client.call('orders')))
    for (const answer of answers) {
      expect([answer.status, answer.headers['retry-after']]).toEqual([503, '3'])
      expect(told(answer)).toMatchObject({ code: 'instance-busy', attempts: [{ node: 'b', code: 'instance-busy' }] })
    }
    const reasons = answers.map(answer => told(answer).message.replace(/^.*(within|wait already)/, '$1')).sort()
    expect(reasons).toEqual(['wait already', 'within 1000 ms', 'within 1000 ms'])
    expect(backend.asked).toBe(asked + 1)
    long.destroy()
    await regions.answered()
  })
})

function told(answer: Answer): { code: string; message: string } {
  return (JSON.parse(answer.body.toString()) as { error: { code: string; message: string } }).error
}
