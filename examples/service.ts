/**
 * A service like any other: it answers HTTP, and with --register it tells the daemon of its region that it is there.
 *
 *   node examples/service.ts orders --region gcp-us-east5 --register http://127.0.0.1:4790
 *
 * flatmesh needs nothing of it: no library, no agent. Registering is one PUT, repeated before the registration expires.
 */
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { parseArgs } from 'node:util'

/** A service that dies without good-bye is offered for so long at most. */
const TTL_MS = 6_000
/** Two may get lost. */
const HEARTBEAT_MS = TTL_MS / 3

const { values, positionals: names } = parseArgs({
  options: { region: { type: 'string' }, register: { type: 'string' } },
  allowPositionals: true,
})
const { region = 'here', register } = values

const addresses: Record<string, string> = {}
for (const service of names) {
  const server = createServer((_request, answer) => {
    answer.setHeader('content-type', 'application/json')
    answer.end(`${JSON.stringify({ service, region, pid: process.pid })}\n`)
  })
  // Longer than the pool of the daemon keeps a connection, so that it is never this side that closes an idle one.
  server.keepAliveTimeout = 120_000
  await once(server.listen(0, '127.0.0.1'), 'listening')
  addresses[service] = `127.0.0.1:${(server.address() as AddressInfo).port}`
}
process.stdout.write(`${JSON.stringify(addresses)}\n`)

if (register !== undefined) {
  await heartbeat(register)
  setInterval(() => heartbeat(register), HEARTBEAT_MS)
}

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.once(signal, async () => {
    if (register !== undefined) await each(service => fetch(entry(register, service), { method: 'DELETE' }))
    process.exit(0)
  })
}

/** Registers, and says that it is still there: the same request. A daemon that restarts just now hears the next one. */
async function heartbeat(daemon: string): Promise<void> {
  await each(service =>
    fetch(entry(daemon, service), {
      method: 'PUT',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ address: addresses[service], labels: { version: 'v1' }, ttlMs: TTL_MS }),
    }),
  )
}

async function each(ask: (service: string) => Promise<Response>): Promise<void> {
  for (const service of names) {
    try {
      const answer = await ask(service)
      if (!answer.ok) process.stderr.write(`the daemon answered ${answer.status}: ${await answer.text()}`)
    } catch (error) {
      process.stderr.write(`no daemon: ${String(error)}\n`)
    }
  }
}

function entry(daemon: string, service: string): string {
  return `${daemon}/v1/registry/${service}/${process.pid}`
}
