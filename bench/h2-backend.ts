import http2 from 'node:http2'

/** A gRPC service of the bench: answers every call with `grpc-status: 0` and the message it was sent. Prints its port. */
const server = http2.createServer({ settings: { maxConcurrentStreams: 1000 } })
server.on('stream', stream => {
  stream.on('error', () => {})
  const chunks: Buffer[] = []
  stream.on('data', (chunk: Buffer) => chunks.push(chunk))
  stream.on('end', () => {
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true })
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }))
    stream.end(Buffer.concat(chunks))
  })
})
const port = Number(process.argv[2] ?? 0)
server.listen(port, '127.0.0.1')
