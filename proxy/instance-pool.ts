import { connect, type Socket } from 'node:net'
import { CONNECT_TIMEOUT_MS, parseAddress } from './address.ts'
import { H2Pool } from './h2-pool.ts'
import type { Http1Fault } from './http1-fault.ts'
import type { ResponseHead } from './http1-head.ts'
import { ResponseReader } from './http1-reader.ts'
import { TurnWriter } from './turn-writer.ts'

/** Idle connections kept per instance. 64: HAProxy's and nginx's usual upstream keep-alive. */
const IDLE_MAX = 64
/**
 * How long an idle connection is trusted. The shortest keep-alive of common servers is Node's 5 s; one that closes while
 * a request is on its way costs that request.
 */
const IDLE_MS = 4000
/** … and for a request that must not be sent twice. */
const IDLE_NON_IDEMPOTENT_MS = 1000

/** What the user of a connection to an instance is told while it has it. */
export interface InstanceHandler {
  onAnswerHead(head: ResponseHead): void
  onAnswerData(chunk: Buffer): void
  onAnswerTrailers(trailers: Buffer): void
  onAnswerEnd(): void
  /** The answer cannot be understood. Nothing more comes of it. */
  onAnswerFault(fault: Http1Fault): void
  /** Bytes after a switch of protocols, and the end of them. */
  onRaw(chunk: Buffer): void
  onRawEnd(): void
  onInstanceDrain(): void
  /** The connection is gone. */
  onInstanceLost(reason: string): void
}

/** One HTTP/1.1 connection to an instance. */
export class InstanceConnection {
  readonly socket: Socket
  readonly out: TurnWriter
  handler: InstanceHandler | undefined
  reader: ResponseReader
  idleSinceMs = 0
  isRaw = false
  /** Whether any byte of an answer has come since the last `expect`. */
  hasAnswerBegun = false

  constructor(socket: Socket) {
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
    socket.on('data', chunk => {
      this.hasAnswerBegun = true
      if (this.isRaw) this.handler?.onRaw(chunk)
      else this.reader.push(chunk)
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

/** Connections to instances, kept warm between calls. */
export class InstancePool {
  private readonly idle = new Map<string, InstanceConnection[]>()
  private readonly open = new Set<InstanceConnection>()
  readonly nowMs: () => number
  private timer: NodeJS.Timeout | undefined
  /** Those that speak HTTP/2. */
  readonly h2: H2Pool

  constructor(deps: { nowMs: () => number }) {
    this.nowMs = deps.nowMs
    this.h2 = new H2Pool(deps)
  }

  start(): void {
    this.timer = setInterval(() => this.sweep(), 1000)
  }

  stop(): void {
    clearInterval(this.timer)
    for (const connection of this.open) connection.socket.destroy()
    this.idle.clear()
    this.h2.stop()
  }

  get size(): number {
    return this.open.size + this.h2.size
  }

  /** A connection that was used before and is still good; undefined: make a new one with `connect`. */
  take(address: string, isIdempotent: boolean): InstanceConnection | undefined {
    const list = this.idle.get(address)
    const maxMs = isIdempotent ? IDLE_MS : IDLE_NON_IDEMPOTENT_MS
    for (let connection = list?.pop(); connection !== undefined; connection = list?.pop()) {
      const isGood = connection.reader.idle && connection.socket.writable && !connection.socket.readableEnded
      if (isGood && this.nowMs() - connection.idleSinceMs < maxMs) return connection
      connection.socket.destroy()
    }
    return undefined
  }

  /** Rejects within `CONNECT_TIMEOUT_MS` when nobody answers there: nothing was sent then. */
  connect(address: string): Promise<InstanceConnection> {
    return new Promise((resolve, reject) => {
      const socket = connect({ ...parseAddress(address), noDelay: true, allowHalfOpen: true })
      const timer = setTimeout(
        () => socket.destroy(new Error(`no answer in ${CONNECT_TIMEOUT_MS} ms`)),
        CONNECT_TIMEOUT_MS,
      )
      socket.once('error', reject)
      socket.once('close', () => {
        clearTimeout(timer)
        reject(new Error('closed while connecting'))
      })
      socket.once('connect', () => {
        clearTimeout(timer)
        socket.removeListener('error', reject)
        const connection = new InstanceConnection(socket)
        this.open.add(connection)
        socket.once('close', () => this.open.delete(connection))
        resolve(connection)
      })
    })
  }

  /** Hands a connection back after a whole answer; it is closed unless it can be used again. */
  give(address: string, connection: InstanceConnection): void {
    connection.handler = undefined
    // Its last user may have paused it: a full client's answer was over before it could go on.
    connection.socket.resume()
    const list = this.idle.get(address) ?? []
    this.idle.set(address, list)
    if (!connection.reader.idle || !connection.socket.writable || list.length >= IDLE_MAX) {
      connection.socket.destroy()
      return
    }
    connection.idleSinceMs = this.nowMs()
    list.push(connection)
  }

  private sweep(): void {
    this.h2.sweep()
    const beforeMs = this.nowMs() - IDLE_MS
    for (const [address, list] of this.idle) {
      const keep = list.filter(connection => connection.idleSinceMs > beforeMs && !connection.socket.destroyed)
      for (const connection of list) if (!keep.includes(connection)) connection.socket.destroy()
      if (keep.length === 0) this.idle.delete(address)
      else this.idle.set(address, keep)
    }
  }
}
