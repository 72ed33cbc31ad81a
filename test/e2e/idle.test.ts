import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { waitUntil } from './daemon-process.ts'
import { printFigure } from './http-client.ts'
import { TwoRegions } from './two-regions.ts'

const CLIENT = fileURLToPath(new URL('./leaving-client.ts', import.meta.url))
const CONNECTIONS = 10_000
/** What one idle client connection may cost the ingress, young garbage of its one call included. */
const CONNECTION_BYTES_MAX = 20_000

describe('ten thousand clients that keep their connections', () => {
  const regions = new TwoRegions()
  let child: ChildProcess | undefined

  beforeAll(async () => {
    await regions.start()
    // Its connection is not one of those that are counted.
    regions.client.close()
  })

  afterAll(async () => {
    child?.kill('SIGKILL')
    await regions.stop()
  })

  it(`cost at most ${CONNECTION_BYTES_MAX} bytes each, and leave nothing open when they die`, async () => {
    const node = regions.a
    const openFiles = (): number => readdirSync(`/proc/${node.pid}/fd`).length
    const before = { rssBytes: node.rssBytes(), files: openFiles() }
    const words = ['idle', node.listen.http, 'orders', String(CONNECTIONS)]
    child = spawn(process.execPath, [CLIENT, ...words], { stdio: ['ignore', 'pipe', 'inherit'] })
    await once(child.stdout as NodeJS.ReadableStream, 'data')
    expect(openFiles()).toBeGreaterThan(CONNECTIONS)
    const eachBytes = (node.rssBytes() - before.rssBytes) / CONNECTIONS
    printFigure('idle.connection.rss', eachBytes / 1000, 'kB')
    expect(eachBytes).toBeLessThan(CONNECTION_BYTES_MAX)
    child.kill('SIGKILL')
    await waitUntil('all are closed', () => (openFiles() <= before.files + 2 ? true : undefined))
  })
})
