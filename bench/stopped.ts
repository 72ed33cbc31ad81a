import { mkdtempSync, rmSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startBackend, startOurs } from './chain.ts'
import { hasOption, numberOption } from './options.ts'
import { rssBytes } from './process.ts'

/**
 * Readers that stop: `npm run bench -- stopped [--minutes 10] [--readers 20] [--json]`.
 *
 * Each asks for a gigabyte, reads 8 MiB at full speed, so that windows may grow, and then never reads again. The memory of
 * both daemons is told every ten seconds; afterwards it must not grow. Exit code 1 if it grew by more than 10 %.
 */
const READ_BYTES = 8 * 1024 * 1024
const PERIOD_MS = 10_000
const GROWTH_MAX = 1.1

const folder = mkdtempSync(join(tmpdir(), 'flatmesh-bench-'))
const backend = await startBackend(folder)
const chain = await startOurs({ http: backend.port })
const rssMb = (): number[] => chain.pids.map(pid => Math.round(rssBytes(pid) / 1e6))
const rows: { seconds: number; rssMb: number[] }[] = []
const sockets: Socket[] = []
try {
  const before = rssMb()
  await Promise.all(Array.from({ length: numberOption('readers', 20) }, stopReading))
  const beganMs = performance.now()
  const untilMs = beganMs + numberOption('minutes', 10) * 60_000
  do {
    rows.push({ seconds: Math.round((performance.now() - beganMs) / 1000), rssMb: rssMb() })
    if (!hasOption('json')) console.log(`${rows.at(-1)?.seconds} s: ${rows.at(-1)?.rssMb.join(' / ')} MB`)
    await new Promise(resolve => setTimeout(resolve, PERIOD_MS))
  } while (performance.now() < untilMs)
  const settled = rows[Math.min(2, rows.length - 1)]?.rssMb ?? []
  const last = rows.at(-1)?.rssMb ?? []
  const growth = Math.max(...last.map((mb, i) => mb / (settled[i] ?? mb)))
  if (hasOption('json')) console.log(JSON.stringify({ beforeMb: before, rows, growth }))
  else console.log(`before: ${before.join(' / ')} MB; growth since the third look: ${growth.toFixed(2)} times`)
  if (growth > GROWTH_MAX) process.exitCode = 1
} finally {
  for (const socket of sockets) socket.destroy()
  await chain.stop()
  await backend.stop()
  rmSync(folder, { recursive: true, force: true })
}

function stopReading(): Promise<void> {
  return new Promise((resolve, reject) => {
    const { port, host } = chain.http
    const socket = connect(port, '127.0.0.1')
    sockets.push(socket)
    let bytes = 0
    let first = ''
    socket.on('error', reject)
    socket.on('close', () => reject(new Error(`a reader was cut off after ${bytes} bytes: ${first}`)))
    socket.on('data', chunk => {
      if (bytes === 0) first = chunk.toString('latin1', 0, 500)
      bytes += chunk.length
      if (bytes < READ_BYTES) return
      socket.pause()
      resolve()
    })
    socket.write(`GET /bulk HTTP/1.1\r\nHost: ${host}\r\n\r\n`)
  })
}
