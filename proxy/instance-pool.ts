import { connect, type Socket } from 'node:net'
import { CONNECT_TIMEOUT_MS, KEEP_ALIVE_MS, parseAddress } from './address.ts'
import { limitConnecting } from './connect-limit.ts'
import type { Connections } from './dispatcher.ts'
import { H2Pool } from './h2-pool.ts'
import type { Http1Fault } from './http1-fault.ts'
import type { ResponseHead } from './http1-head.ts'
import { ResponseReader } from './http1-reader.ts'
import { READ } from './shared-read.ts'
import { TurnWriter } from './turn-writer.ts'

/** Idle connections kept per instance. 256: as many calls at once as one usually takes; they are not kept for long anyway. Guess. */
const IDLE_MAX = 256
/**
 * How long an idle connection is trusted. The shortest keep-alive of common servers is Node's 5 s; one that closes while
 * a request is on its way costs that request.
 */
const IDLE_MS = 4000
/** … and for a request that must not be sent twice. */
const IDLE_NON_IDEMPOTENT_MS = 1000

/**
 * Connections being made to one instance at a time. More than its queue of new ones holds would be dropped by its kernel, and
 * asked for again only when the instance was already taken for down. 100: below the smallest usual queue, 128.
 */
const DIALS_MAX = 100

export interface InstancePoolOptions {
  /** Connections of HTTP/1 to one instance that are in use for calls; tunnels, which calls can become, are not counted. */
  readonly connectionsMax: number
}

/** 1,024: Envoy's max_connections. */
export const INSTANCE_POOL_DEFAULTS: InstancePoolOptions = { connectionsMax: 1024 }

/** What the user of a connection to an instance is told while it has it. */
export interface InstanceHandler {
  onAnswerHead(head: ResponseHead): void
  /** `chunk` is used again afterwards. */
  onAnswerData(chunk: Buffer): void
  onAnswerTrailers(trailers: Buffer): void
  onAnswerEnd(): void
  /** The answer cannot be understood. Nothing more comes of it. */
  onAnswerFault(fault: Http1Fault): void
  /** Bytes after a switch of protocols, in a buffer that is used again, and the end of them. */
  onRaw(chunk: Buffer): void
  onRawEnd(): void
  onInstanceDrain(): void
  /** The connection is gone. */
  onInstanceLost(reason: string): void
}

/** The connections of HTTP/1 to one instance. */
interface Host {
  readonly address: string
  /** The one used last is last. */
  readonly idle: InstanceConnection[]
  /** In use or being made. */
  busy: number
  /** Of those being made, the ones that are dialled now, and the ones that wait for that. */
  dials: number
  readonly waiting: { readonly dial: () => void; readonly fail: (reason: unknown) => void }[]
}

/** One HTTP/1.1 connection to an instance. */
export class InstanceConnection {
  readonly host: Host
  /** Whether its room is taken. */
  isBusy = true
  readonly socket: Socket
  readonly out: TurnWriter
  handler: InstanceHandler | undefined
  reader: ResponseReader
  idleSinceMs = 0
  isRaw = false
  /** Whether any byte of an answer has come since the last `expect`. */
  hasAnswerBegun = false

  constructor(host: Host, socket: Socket) {
    this.host = host
    this.socket = socket
    this.out = new TurnWriter(socket)
    this.reader = new ResponseReader({
      onHead: head => this.handler?.onAnswerHead(head),
      onData: chunk => this.handler?.onAnswerData(chunk),
      onTrailers: trailers => this.handler?.onAnswerTrailers(trailers),
      onEnd: () => this.handler?.onAnswerEnd(),
      onError: fault => {
        if (this.handler === undefined) this.socket.destroy()
        else this.handler.onAnswerFault(fault)
      },
    })
    socket.on('drain', () => this.handler?.onInstanceDrain())
    socket.on('end', () => {
      if (this.isRaw) this.handler?.onRawEnd()
      else if (!this.hasAnswerBegun) this.lost('the instance closed the connection before it answered')
      // An answer may end with the connection; one that breaks off is told by the reader.
      else this.reader.finish()
      if (!this.isRaw) this.socket.end()
    })
    socket.on('error', error => this.lost(error.message))
    socket.on('close', () => this.lost('the instance closed the connection'))
  }

  /** Bytes came, those of `chunk` before `end`; it is used again afterwards. */
  onRead(chunk: Buffer, end: number): void {
    this.hasAnswerBegun = true
    if (this.isRaw) this.handler?.onRaw(chunk.subarray(0, end))
    else this.reader.push(chunk, end)
  }

  /** A request is about to be sent. */
  expect(handler: InstanceHandler, method: string, upgradeAsked: boolean): void {
    this.handler = handler
    this.hasAnswerBegun = false
    this.reader.expect(method, upgradeAsked)
  }

  /** From now on bytes are passed on as they come. Answers those that were read already. */
  goRaw(): Buffer {
    this.isRaw = true
    return this.reader.takeRest()
  }

  private lost(reason: string): void {
    const { handler } = this
    this.handler = undefined
    handler?.onInstanceLost(reason)
  }
}

/** Connections to instances, kept warm between calls; at most so many to each. */
export class InstancePool implements Connections<InstanceConnection> {
  private readonly hosts = new Map<string, Host>()
  private readonly open = new Set<InstanceConnection>()
  private readonly options: InstancePoolOptions
  private readonly onRoom: () => void
  readonly nowMs: () => number
  private timer: NodeJS.Timeout | undefined
  /** Those that speak HTTP/2. */
  readonly h2: H2Pool

  /** `onRoom`: an instance that was full may take one more call. */
  constructor(
    deps: { readonly nowMs: () => number; readonly onRoom?: () => void },
    options: InstancePoolOptions = INSTANCE_POOL_DEFAULTS,
  ) {
    this.nowMs = deps.nowMs
    this.onRoom = deps.onRoom ?? (() => {})
    this.options = options
    this.h2 = new H2Pool({ nowMs: deps.nowMs, onRoom: this.onRoom }, options)
  }

  start(): void {
    this.timer = setInterval(() => this.sweep(), 1000)
  }

  stop(): void {
    clearInterval(this.timer)
    for (const connection of this.open) connection.socket.destroy()
    this.h2.stop()
  }

  get size(): number {
    return this.open.size + this.h2.size
  }

  /** Connections to one instance of either protocol: without a call on them, and with. Tunnels are neither. */
  counts(address: string): { idle: number; busy: number } {
    const host = this.hosts.get(address)
    const h2 = this.h2.counts(address)
    return { idle: (host?.idle.length ?? 0) + h2.idle, busy: (host?.busy ?? 0) + h2.busy }
  }

  hasRoom(address: string): boolean {
    return (this.hosts.get(address)?.busy ?? 0) < this.options.connectionsMax
  }

  /** A connection that was used before and is still good; undefined: make a new one with `connect`. */
  take(address: string, isIdempotent: boolean): InstanceConnection | undefined {
    const host = this.hosts.get(address)
    if (host === undefined) return undefined
    const maxMs = isIdempotent ? IDLE_MS : IDLE_NON_IDEMPOTENT_MS
    for (let connection = host.idle.pop(); connection !== undefined; connection = host.idle.pop()) {
      const isGood = connection.reader.idle && connection.socket.writable && !connection.socket.readableEnded
      if (isGood && this.nowMs() - connection.idleSinceMs < maxMs) {
        connection.isBusy = true
        host.busy++
        return connection
      }
      connection.socket.destroy()
    }
    return undefined
  }

  /** Rejects within `CONNECT_TIMEOUT_MS` when nobody answers there: nothing was sent then. */
  connect(address: string): Promise<InstanceConnection> {
    const host = this.hosts.get(address) ?? { address, idle: [], busy: 0, dials: 0, waiting: [] }
    this.hosts.set(address, host)
    host.busy++
    if (host.busy + host.idle.length > this.options.connectionsMax) host.idle.shift()?.socket.destroy()
    return this.dialInTurn(host).catch((error: unknown) => {
      host.busy--
      this.onRoom()
      throw error
    })
  }

  /** When one attempt fails, those that wait for theirs fail with it: the instance is down, and they have other places to go. */
  private async dialInTurn(host: Host): Promise<InstanceConnection> {
    if (host.dials < DIALS_MAX) host.dials++
    else await new Promise<void>((dial, fail) => host.waiting.push({ dial, fail }))
    try {
      return await this.dial(host)
    } catch (error) {
      for (const { fail } of host.waiting.splice(0)) fail(error)
      throw error
    } finally {
      const next = host.waiting.shift()
      if (next === undefined) host.dials--
      else next.dial()
    }
  }

  private dial(host: Host): Promise<InstanceConnection> {
    return new Promise((resolve, reject) => {
      let connection: InstanceConnection | undefined
      const onread = {
        buffer: READ,
        callback: (bytes: number): boolean => {
          connection?.onRead(READ, bytes)
          return true
        },
      }
      const socket = connect({
        ...{ ...parseAddress(host.address), noDelay: true, allowHalfOpen: true, onread },
        ...{ keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS },
      })
      limitConnecting(socket, CONNECT_TIMEOUT_MS, () => {
        socket.destroy(new Error(`no answer in ${CONNECT_TIMEOUT_MS} ms`))
      })
      socket.once('error', reject)
      socket.once('close', () => reject(new Error('closed while connecting')))
      socket.once('connect', () => {
        socket.removeListener('error', reject)
        const made = new InstanceConnection(host, socket)
        connection = made
        this.open.add(made)
        socket.once('close', () => this.closed(made))
        resolve(made)
      })
    })
  }

  /** Hands a connection back after a whole answer; it is closed unless it can be used again, a tunnel when all has left. */
  give(connection: InstanceConnection): void {
    const { host, socket, reader } = connection
    connection.handler = undefined
    if (connection.isRaw) return void socket.destroySoon()
    // Its last user may have paused it: a full client's answer was over before it could go on.
    socket.resume()
    const isGood = connection.isBusy && reader.idle && socket.writable
    if (!isGood || host.idle.length >= IDLE_MAX) {
      this.drop(connection)
      return
    }
    connection.idleSinceMs = this.nowMs()
    host.idle.push(connection)
    this.leaveRoom(connection)
  }

  putBack(connection: InstanceConnection): void {
    this.give(connection)
  }

  /** Closes a connection that must not be used again. */
  drop(connection: InstanceConnection): void {
    connection.handler = undefined
    connection.socket.destroy()
    this.leaveRoom(connection)
  }

  /** The call on it has become a tunnel: that may last for days, and the room is for calls. */
  release(connection: InstanceConnection): void {
    this.leaveRoom(connection)
  }

  private leaveRoom(connection: InstanceConnection): void {
    if (!connection.isBusy) return
    connection.isBusy = false
    connection.host.busy--
    this.onRoom()
  }

  private closed(connection: InstanceConnection): void {
    this.open.delete(connection)
    const { idle } = connection.host
    const at = connection.isBusy ? -1 : idle.indexOf(connection)
    if (at >= 0) idle.splice(at, 1)
  }

  private sweep(): void {
    this.h2.sweep()
    const beforeMs = this.nowMs() - IDLE_MS
    for (const [address, { idle, busy }] of this.hosts) {
      // The longest idle ones are first.
      while ((idle[0]?.idleSinceMs ?? Number.POSITIVE_INFINITY) <= beforeMs) idle.shift()?.socket.destroy()
      if (idle.length + busy === 0) this.hosts.delete(address)
    }
  }
}
