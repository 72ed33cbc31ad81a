import { once } from 'node:events'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { type InstanceConnection, type InstanceHandler, InstancePool } from './instance-pool.ts'

const WAIT = { timeout: 10_000, interval: 5 }
let server: Server
let address: string
let sockets: Socket[]
let pool: InstancePool
let nowMs: number

beforeEach(async () => {
  sockets = []
  nowMs = 0
  server = createServer({ allowHalfOpen: true }, socket => {
    sockets.push(socket)
    socket.on('error', () => {})
    socket.resume()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  address = `127.0.0.1:${(server.address() as AddressInfo).port}`
  pool = new InstancePool({ nowMs: () => nowMs })
})
afterEach(() => {
  pool.stop()
  for (const socket of sockets) socket.destroy()
  server.close()
})

class Witness implements InstanceHandler {
  readonly events: string[] = []
  onAnswerHead({ status }: { status: number }): void {
    this.events.push(`head ${status}`)
  }
  onAnswerData(chunk: Buffer): void {
    this.events.push(`data ${chunk}`)
  }
  onAnswerTrailers(): void {}
  onAnswerEnd(): void {
    this.events.push('end')
  }
  onAnswerFault({ reason }: { reason: string }): void {
    this.events.push(`fault ${reason}`)
  }
  onRaw(chunk: Buffer): void {
    this.events.push(`raw ${chunk}`)
  }
  onRawEnd(): void {
    this.events.push('raw end')
  }
  onInstanceDrain(): void {}
  onInstanceLost(reason: string): void {
    this.events.push(`lost ${reason}`)
  }
}

async function connected(): Promise<{ connection: InstanceConnection; far: Socket }> {
  const connection = await pool.connect(address)
  const { localPort } = connection.socket
  const far = await vi.waitFor(() => {
    const found = sockets.find(({ remotePort }) => remotePort === localPort)
    if (found === undefined) throw new Error('the server has not accepted yet')
    return found
  }, WAIT)
  return { connection, far }
}

/** A request and its whole answer, after which the connection may be used again. */
async function exchange(): Promise<{ connection: InstanceConnection; far: Socket }> {
  const ends = await connected()
  const witness = new Witness()
  ends.connection.expect(witness, 'GET', false)
  ends.far.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi')
  await vi.waitFor(() => expect(witness.events).toEqual(['head 200', 'data hi', 'end']), WAIT)
  return ends
}

describe('the pool', () => {
  test('a connection whose answer is whole is used again, the one used last first', async () => {
    const [first, second] = [await exchange(), await exchange()]
    pool.give(first.connection)
    pool.give(second.connection)
    expect(pool.take(address, true)).toBe(second.connection)
    expect(pool.take(address, true)).toBe(first.connection)
    expect(pool.take(address, true)).toBeUndefined()
    expect(pool.take('127.0.0.1:1', true)).toBeUndefined()
  })

  test('a connection that waited is not trusted: for a request that must not be sent twice, sooner', async () => {
    const { connection } = await exchange()
    pool.give(connection)
    nowMs = 1000
    expect(pool.take(address, false)).toBeUndefined()
    expect(connection.socket.destroyed).toBe(true)
    const other = await exchange()
    pool.give(other.connection)
    nowMs = 4999
    expect(pool.take(address, true)).toBe(other.connection)
    pool.give(other.connection)
    nowMs = 8999
    expect(pool.take(address, true)).toBeUndefined()
  })

  test('a connection the instance has closed meanwhile is not handed out', async () => {
    const { connection, far } = await exchange()
    pool.give(connection)
    far.end()
    await vi.waitFor(() => expect(connection.socket.readableEnded).toBe(true), WAIT)
    expect(pool.take(address, true)).toBeUndefined()
  })

  test('a connection in the middle of an answer is closed instead of kept', async () => {
    const { connection, far } = await connected()
    connection.expect(new Witness(), 'GET', false)
    far.write('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi')
    await vi.waitFor(() => expect(connection.hasAnswerBegun).toBe(true), WAIT)
    pool.give(connection)
    expect([connection.socket.destroyed, pool.take(address, true)]).toEqual([true, undefined])
  })

  test('bytes on an idle connection were asked for by nobody: it is closed', async () => {
    const { connection, far } = await exchange()
    pool.give(connection)
    far.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n')
    await vi.waitFor(() => expect(connection.socket.destroyed).toBe(true), WAIT)
    expect(pool.take(address, true)).toBeUndefined()
  })

  test('no more than 256 idle connections are kept to one instance', async () => {
    const ends = await Promise.all(Array.from({ length: 258 }, () => exchange()))
    for (const { connection } of ends) pool.give(connection)
    expect(ends.filter(({ connection }) => !connection.socket.destroyed)).toHaveLength(256)
    await vi.waitFor(() => expect(pool.size).toBe(256), WAIT)
  })

  test('idle connections that are too old are closed by themselves', async () => {
    const { connection } = await exchange()
    pool.give(connection)
    nowMs = 10_000
    pool.start()
    await vi.waitFor(() => expect(connection.socket.destroyed).toBe(true), WAIT)
    await vi.waitFor(() => expect(pool.size).toBe(0), WAIT)
  })

  test('a port nobody listens on is refused with the reason, and nothing is left open', async () => {
    server.close()
    await expect(pool.connect(address)).rejects.toThrow(/ECONNREFUSED/)
    expect(pool.size).toBe(0)
  })

  test('a burst does not overrun the instance’s queue of new connections: 100 are dialled at a time, and all come about', async () => {
    const dials = (): number => process.getActiveResourcesInfo().filter(name => name.endsWith('ConnectWrap')).length
    const others = dials()
    const connecting = Array.from({ length: 250 }, () => pool.connect(address))
    await new Promise(resolve => process.nextTick(resolve))
    expect(dials() - others).toBe(100)
    const connections = await Promise.all(connecting)
    expect(new Set(connections.map(({ socket }) => socket.localPort)).size).toBe(250)
    expect([pool.counts(address), dials()]).toEqual([{ idle: 0, busy: 250 }, others])
  })

  test('when an instance refuses, all that wait to be dialled fail with the first, and leave nothing behind', async () => {
    server.close()
    const connecting = Array.from({ length: 250 }, () => pool.connect(address))
    const last = connecting.at(-1)?.catch(() => 'has failed')
    await Promise.allSettled(connecting.slice(0, 1))
    const now = new Promise(resolve => setImmediate(resolve, 'still waits'))
    expect(await Promise.race([last, now])).toBe('has failed')
    const results = await Promise.allSettled(connecting)
    expect(results.every(({ status }) => status === 'rejected')).toBe(true)
    expect([pool.counts(address), pool.size]).toEqual([{ idle: 0, busy: 0 }, 0])
    await once(server.listen(Number(address.split(':')[1]), '127.0.0.1'), 'listening')
    expect((await pool.connect(address)).socket.writable).toBe(true)
  })

  test('stopping closes every connection, in use or not', async () => {
    const [used, idle] = [await connected(), await exchange()]
    pool.give(idle.connection)
    pool.stop()
    expect([used.connection.socket.destroyed, idle.connection.socket.destroyed]).toEqual([true, true])
  })
})

describe('the limit of connections to one instance', () => {
  let rooms: number
  beforeEach(() => {
    rooms = 0
    pool = new InstancePool({ nowMs: () => nowMs, onRoom: () => rooms++ }, { connectionsMax: 2 })
  })

  test('counts those in use and those being made, and each end of use is told as room', async () => {
    const [first, second] = [pool.connect(address), pool.connect(address)]
    expect([pool.hasRoom(address), pool.counts(address)]).toEqual([false, { idle: 0, busy: 2 }])
    pool.drop(await first)
    pool.drop(await first)
    expect([pool.hasRoom(address), pool.counts(address), rooms]).toEqual([true, { idle: 0, busy: 1 }, 1])
    pool.putBack(await second)
    expect([pool.counts(address), rooms]).toEqual([{ idle: 1, busy: 0 }, 2])
    expect(pool.take(address, true)).toBe(await second)
    expect(pool.counts(address)).toEqual({ idle: 0, busy: 1 })
  })

  test('a connection that could not be made gives its room back', async () => {
    server.close()
    await expect(pool.connect(address)).rejects.toThrow(/ECONNREFUSED/)
    expect([pool.counts(address), rooms]).toEqual([{ idle: 0, busy: 0 }, 1])
  })

  test('idle ones make way for new ones: the instance never has more than it may', async () => {
    const idle = await pool.connect(address)
    pool.putBack(idle)
    const used = await Promise.all([pool.connect(address), pool.connect(address)])
    expect([idle.socket.destroyed, pool.counts(address)]).toEqual([true, { idle: 0, busy: used.length }])
  })

  test('a call that has become a tunnel makes room, once', async () => {
    const tunnel = await pool.connect(address)
    pool.release(tunnel)
    pool.drop(tunnel)
    expect([pool.counts(address), rooms, tunnel.socket.destroyed]).toEqual([{ idle: 0, busy: 0 }, 1, true])
  })

  test('an idle connection that its instance closes is counted no longer', async () => {
    const { connection, far } = await connected()
    pool.give(connection)
    far.destroy()
    await vi.waitFor(() => expect(pool.counts(address).idle).toBe(0), WAIT)
  })
})

describe('a connection to an instance', () => {
  test('an instance that closes before it answers is lost, once', async () => {
    const { connection, far } = await connected()
    const witness = new Witness()
    connection.expect(witness, 'GET', false)
    far.end()
    await vi.waitFor(() => expect(connection.socket.destroyed).toBe(true), WAIT)
    expect(witness.events).toEqual(['lost the instance closed the connection before it answered'])
  })

  test('an answer that breaks off is a fault, one that ends with its connection is whole', async () => {
    const [cut, ended] = [await connected(), await connected()]
    const [cutWitness, endedWitness] = [new Witness(), new Witness()]
    cut.connection.expect(cutWitness, 'GET', false)
    cut.far.end('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi')
    ended.connection.expect(endedWitness, 'GET', false)
    ended.far.end('HTTP/1.1 200 OK\r\n\r\nhi')
    await vi.waitFor(() => expect(cutWitness.events.join()).toContain('fault'), WAIT)
    await vi.waitFor(() => expect(endedWitness.events.slice(0, 3)).toEqual(['head 200', 'data hi', 'end']), WAIT)
  })

  test('after a switch of protocols bytes and their end are passed on as they come', async () => {
    const { connection, far } = await connected()
    const witness = new Witness()
    connection.expect(witness, 'GET', true)
    far.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nfirst')
    await vi.waitFor(() => expect(witness.events[0]).toBe('head 101'), WAIT)
    expect(connection.goRaw().toString()).toBe('first')
    far.end('second')
    await vi.waitFor(() => expect(witness.events.slice(1, 3)).toEqual(['raw second', 'raw end']), WAIT)
    expect(connection.socket.writable).toBe(true)
  })
})
