import { mkdtempSync, rmSync } from 'node:fs'
import http from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createMesh } from '../test/e2e/daemon-process.ts'
import { WanMap } from '../test/e2e/wan-relay.ts'
import { startBackend } from './chain.ts'
import { hasOption, numberOption } from './options.ts'
import { whenAnswered } from './ready.ts'

/**
 * One bulk download between two daemons with a long line between them: `npm run bench -- wan [--rtt 90] [--seconds 8] [--json]`.
 *
 * The line is emulated in this process (`test/e2e/wan-relay.ts`: 4 MiB on the way at most), so figures say what the windows
 * allow, not what the machine can do. The first second does not count: it is the time windows take to grow.
 */
const rttMs = numberOption('rtt', 90)
const seconds = numberOption('seconds', 8)

const folder = mkdtempSync(join(tmpdir(), 'flatmesh-bench-'))
const backend = await startBackend(folder)
const map = new WanMap([{ between: ['first', 'second'], rttMs }])
const mesh = await createMesh({
  nodes: [
    { name: 'first', region: 'bench-1' },
    { name: 'second', region: 'bench-2' },
  ],
  openDoor: map.openDoor,
})
try {
  await mesh.node('second').mustRun('service', 'add', 'bench', `127.0.0.1:${backend.port}`)
  await mesh.converged()
  await whenAnswered(`http://${mesh.node('first').listen.http}/`, 'bench.mesh')
  const megabytesPerSecond = await download(`http://${mesh.node('first').listen.http}/bulk`)
  const figures = { rttMs, megabytesPerSecond: Math.round(megabytesPerSecond * 10) / 10 }
  if (hasOption('json')) console.log(JSON.stringify(figures))
  else console.log(`one download over a line of ${rttMs} ms: ${figures.megabytesPerSecond} MB/s`)
} finally {
  await mesh.stop()
  await map.stop()
  await backend.stop()
  rmSync(folder, { recursive: true, force: true })
}

function download(url: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const request = http.get(url, { headers: { host: 'bench.mesh' }, agent: false }, response => {
      if (response.statusCode !== 200) {
        response.setEncoding('utf8').on('data', (text: string) => reject(new Error(`${response.statusCode}: ${text}`)))
        return
      }
      const beganMs = performance.now() + 1000
      let bytes = 0
      response.on('data', (chunk: Buffer) => {
        const sinceMs = performance.now() - beganMs
        if (sinceMs < 0) return
        bytes += chunk.length
        if (sinceMs < seconds * 1000) return
        resolve(bytes / 1000 / sinceMs)
        request.destroy()
      })
      response.on('end', () => resolve(bytes / 1000 / (performance.now() - beganMs)))
    })
    request.on('error', reject)
  })
}
