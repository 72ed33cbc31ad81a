import http2 from 'node:http2'
import { expect, test } from 'vitest'
import { Services } from './services.ts'

test.each([0, 1])('the echo over HTTP/2 gives trailers back after a body of %i bytes', async bytes => {
  const services = new Services()
  await services.start()
  const offers = services.offer() as { readonly name: string; readonly instances: { readonly address: string }[] }[]
  const session = http2.connect(`http://${offers.find(({ name }) => name === 'web2')?.instances[0]?.address}`)
  try {
    const stream = session.request({ ':method': 'POST', ':path': '/echo' }, { waitForTrailers: true })
    stream.on('wantTrailers', () => stream.sendTrailers({ 'x-sum': 'one' }))
    const trailed = new Promise(resolve => {
      stream.on('trailers', resolve)
      stream.on('close', () => resolve('none'))
    })
    stream.end(Buffer.alloc(bytes))
    stream.resume()
    expect(await trailed).toMatchObject({ 'x-sum': 'one' })
  } finally {
    session.destroy()
    services.stop()
  }
})
