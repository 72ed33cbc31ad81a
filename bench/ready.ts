import http from 'node:http'

const WAIT_MS = 20_000

/** Waits until a call of the service behind `host` is answered: word of a service takes a moment to reach the other daemon. */
export async function whenAnswered(url: string, host: string): Promise<void> {
  const untilMs = performance.now() + WAIT_MS
  while ((await statusOf(url, host)) >= 400) {
    if (performance.now() > untilMs) throw new Error(`${host} was not answered within ${WAIT_MS} ms`)
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}

function statusOf(url: string, host: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const request = http.get(url, { headers: { host }, agent: false }, response => {
      resolve(response.statusCode ?? 0)
      response.destroy()
    })
    request.on('error', reject)
  })
}
