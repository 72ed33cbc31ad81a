import { once } from 'node:events'
import { type AddressInfo, createServer, type Server } from 'node:net'
import { afterEach, expect, test, vi } from 'vitest'
import { silentLog } from '../router/log.ts'
import { HealthChecks } from './health.ts'
import { type InstanceState, Instances } from './instances.ts'

const WAIT = { timeout: 10_000, interval: 10 }
const cleanups: (() => unknown)[] = []
afterEach(() => {
  for (const cleanup of cleanups.splice(0).reverse()) cleanup()
})

async function listen(port = 0): Promise<{ server: Server; port: number; visits: () => number }> {
  let visits = 0
  const server = createServer(socket => {
    visits++
    socket.on('error', () => {})
    socket.resume()
  })
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  cleanups.push(() => server.close())
  return { server, port: (server.address() as AddressInfo).port, visits: () => visits }
}

/** Health checks of one instance at `port`; time runs as fast as the test turns it. */
function check(port: number): {
  instance: InstanceState
  told: string[]
  pass: (ms: number) => void
  instances: Instances
} {
  const told: string[] = []
  const instances = new Instances({ onChange: ({ healthy }) => told.push(`${healthy} healthy`) })
  const address = `127.0.0.1:${port}`
  instances.replace([{ name: 'orders', protocol: 'http', labels: {}, instances: [{ id: 'x', address, weight: 1 }] }])
  let nowMs = 0
  const health = new HealthChecks({ instances, log: silentLog, nowMs: () => nowMs })
  health.start()
  cleanups.push(() => health.stop())
  const [instance] = instances.all()
  if (instance === undefined) throw new Error('expected an instance')
  return { instance, told, instances, pass: ms => (nowMs += ms) }
}

test('a newcomer that does not answer is out before it gets many calls, with the reason', async () => {
  const { server, port } = await listen()
  server.close()
  const { instance, told } = check(port)
  await vi.waitFor(() => expect(told).toEqual(['1 healthy', '0 healthy']), WAIT)
  expect(instance.reason).toContain('ECONNREFUSED')
})

test('an instance that is out comes back when it answers again', async () => {
  const { port, visits } = await listen()
  const { instance, instances, told, pass } = check(port)
  await vi.waitFor(() => expect(visits()).toBe(1), WAIT)
  instances.setHealth(instance, false, 'a call failed')
  expect(told.at(-1)).toBe('0 healthy')
  pass(1000)
  await vi.waitFor(() => expect(told.at(-1)).toBe('1 healthy'), WAIT)
  expect([instance.reason, visits()]).toEqual(['', 2])
})

test('an instance that is in is looked at seldom, and goes out when it stops answering', async () => {
  const { server, port, visits } = await listen()
  const { told, pass } = check(port)
  await vi.waitFor(() => expect(visits()).toBe(1), WAIT)
  pass(4999)
  await new Promise(resolve => setImmediate(resolve))
  server.close()
  pass(1)
  await vi.waitFor(() => expect(told.at(-1)).toBe('0 healthy'), WAIT)
  expect(visits()).toBe(1)
})
