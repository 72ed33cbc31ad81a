import http from 'node:http'
import { waitUntil } from '../test/e2e/daemon-process.ts'

/** Of one try: on a port of plain bytes nothing may come back for as long as nobody is behind it. */
const TRY_MS = 2_000

/**
 * Waits until a GET for `host` is answered with 200: word of a service takes a moment to reach the other daemon.
 * Errors: those of `waitUntil`.
 */
export async function whenAnswered(url: string, host: string): Promise<void> {
  await waitUntil(`${url} answers for ${host}`, async () => ((await isAnswered(url, host)) ? true : undefined))
}

function isAnswered(url: string, host: string): Promise<boolean> {
  return new Promise(resolve => {
    const request = http.get(url, { headers: { host }, agent: false, timeout: TRY_MS }, response => {
      resolve(response.statusCode === 200)
      response.destroy()
    })
    request.on('timeout', () => request.destroy())
    request.on('error', () => resolve(false))
  })
}
