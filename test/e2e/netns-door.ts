import { rmSync } from 'node:fs'
import { connect, createServer } from 'node:net'

/**
 * A door into a network namespace: run inside it, this passes connections of a unix socket, which every namespace on
 * the machine can reach, to a TCP address that only this one can.
 *
 * Usage: node netns-door.ts SOCKET HOST PORT. Prints `open` once it takes connections.
 */
const [path = '', host = '127.0.0.1', port = ''] = process.argv.slice(2)

rmSync(path, { force: true })
const server = createServer({ allowHalfOpen: true }, outside => {
  const inside = connect({ host, port: Number(port), allowHalfOpen: true })
  outside.pipe(inside)
  inside.pipe(outside)
  outside.on('error', () => inside.destroy())
  inside.on('error', () => outside.destroy())
  outside.on('close', () => inside.destroy())
  inside.on('close', () => outside.destroy())
})
server.listen(path, () => process.stdout.write('open\n'))
