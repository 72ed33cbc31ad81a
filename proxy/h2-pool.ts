import { connect, type Socket } from 'node:net'
import { MeshError, type MeshErrorCode } from '../router/errors.ts'
import { CONNECT_TIMEOUT_MS, KEEP_ALIVE_MS, parseAddress } from './address.ts'
import { type Connections, NoRoom } from './dispatcher.ts'
import { H2Connection, type H2ConnectionHandler } from './h2-connection.ts'
import { H2_ERROR } from './h2-frame.ts'
import type { H2Stream, H2StreamHandler } from './h2-stream.ts'
import { readShared } from './shared-read.ts'

/**
 * How long a connection without a stream is kept. Shorter than what servers keep them for (nginx 75 s, grpc-go for ever);
 * one that a server closes just then costs nothing but another try, since it says which streams it has not seen.
 */
const IDLE_MS = 60_000
/** Connections to one instance: with 100 streams each, more calls than one process answers at once. Guess. */
const CONNECTIONS_MAX = 32
/** What an answer in HTTP/1 begins with, where frames were expected. */
const NOT_H2 = 'it answers in HTTP/1.1; gRPC, and services of protocol h2, need HTTP/2 without TLS'
const HTTP1 = Buffer.from('HTTP/1.', 'latin1')

interface H2InstanceEvents {
  onReady(): void
  /** One more stream may have room. */
  onRoom(): void
  /** Once, when it takes no more streams; before `onReady` it says why it never will. */
  onClosed(error: MeshError): void
}

/** One HTTP/2 connection to an instance, shared by many calls. */
export class H2InstanceConnection implements H2ConnectionHandler {
  readonly connection: H2Connection
  private readonly socket: Socket
  private readonly nowMs: () => number
  private readonly events: H2InstanceEvents
  private hasRead = false
  private isClosed = false
  /** Streams that were promised and not opened yet. */
  private reserved = 0
  idleSinceMs: number

  constructor(socket: Socket, nowMs: () => number, events: H2InstanceEvents) {
    this.socket = socket
    this.nowMs = nowMs
    this.events = events
    this.idleSinceMs = nowMs()
    this.connection = new H2Connection({ socket, nowMs, handler: this }, { role: 'client' })
  }

  start(): void {
    const { socket, connection } = this
    readShared(socket, (chunk, end) => this.onBytes(chunk.subarray(0, end)))
    socket.on('drain', () => connection.onSocketDrain())
    socket.on('end', () => socket.destroy())
    socket.on('error', error => connection.lost(error.message))
    socket.on('close', () => connection.lost('the instance closed the connection'))
    connection.start()
  }

  get hasRoom(): boolean {
    return this.connection.room > this.reserved
  }

  get isBusy(): boolean {
    return this.connection.streamCount + this.reserved > 0
  }

  /** Keeps room for one stream, if there is any; `openStream` or `release` must follow. */
  reserve(): boolean {
    if (!this.hasRoom) return false
    this.reserved++
    return true
  }

  release(): void {
    this.reserved--
    this.events.onRoom()
  }

  openStream(handler: H2StreamHandler, fields: readonly string[], ended: boolean): H2Stream {
    this.reserved--
    return this.connection.openStream(handler, fields, ended)
  }

  private onBytes(chunk: Buffer): void {
    if (!this.hasRead) {
      this.hasRead = true
      const bytes = Math.min(HTTP1.length, chunk.length)
      if (chunk.compare(HTTP1, 0, bytes, 0, bytes) === 0) {
        this.connection.lost(NOT_H2, H2_ERROR.HTTP_1_1_REQUIRED)
        return
      }
    }
    this.connection.push(chunk)
  }

  // What the connection tells ----------------------------------------------------------------------------------------

  /** A server begins no streams: the connection refuses them. */
  onStream(): H2StreamHandler {
    return NO_HANDLER
  }

  onReady(): void {
    this.events.onReady()
  }

  onGoaway(reason: string): void {
    this.close('instance-refused', reason)
  }

  onStreamOver(): void {
    this.idleSinceMs = this.nowMs()
    this.events.onRoom()
  }

  onGone(reason: string): void {
    this.close(reason === NOT_H2 ? 'bad-answer' : 'instance-refused', reason)
    // What is left is a goodbye: whoever does not take it is not waited for.
    this.socket.destroySoon()
  }

  private close(code: MeshErrorCode, reason: string): void {
    if (this.isClosed) return
    this.isClosed = true
    this.events.onClosed(new MeshError(code, reason))
  }
}

const NO_HANDLER: H2StreamHandler = { onFields() {}, onData() {}, onEnd() {}, onDrain() {}, onReset() {} }

/** HTTP/2 connections to instances, without TLS and with prior knowledge. Calls share them; a full one brings another. */
export class H2Pool implements Connections<H2InstanceConnection> {
  private readonly nowMs: () => number
  private readonly onRoom: () => void
  private readonly connectionsMax: number
  private readonly byAddress = new Map<string, Set<H2InstanceConnection>>()
  private readonly connecting = new Map<string, Promise<void>>()
  /** Also those that take no new calls any more. */
  private readonly sockets = new Set<Socket>()

  constructor(
    deps: { readonly nowMs: () => number; readonly onRoom: () => void },
    options: { readonly connectionsMax: number },
  ) {
    this.nowMs = deps.nowMs
    this.onRoom = deps.onRoom
    this.connectionsMax = Math.min(CONNECTIONS_MAX, options.connectionsMax)
  }

  get size(): number {
    return this.sockets.size
  }

  stop(): void {
    for (const socket of this.sockets) socket.destroy()
  }

  /** Connections without a stream, and with. */
  counts(address: string): { idle: number; busy: number } {
    const counts = { idle: 0, busy: 0 }
    for (const { isBusy } of this.byAddress.get(address) ?? []) counts[isBusy ? 'busy' : 'idle']++
    return counts
  }

  hasRoom(address: string): boolean {
    const connections = this.byAddress.get(address)
    if (connections === undefined) return true
    for (const { hasRoom } of connections) if (hasRoom) return true
    return connections.size < this.connectionsMax
  }

  putBack(connection: H2InstanceConnection): void {
    connection.release()
  }

  /** A connection with room reserved for one call; undefined: make one with `connect`. */
  take(address: string): H2InstanceConnection | undefined {
    const connections = this.byAddress.get(address)
    if (connections !== undefined) for (const one of connections) if (one.reserve()) return one
    return undefined
  }

  /**
   * A connection with room reserved for one call; those who ask at the same time wait for the same one.
   *
   * Errors: rejects with Error when nobody listens there; with MeshError when somebody does: `bad-answer` if that does
   * not speak HTTP/2, `instance-refused` if it goes away or says nothing; with NoRoom when all connections it may have are
   * full. Nothing was sent in any case.
   */
  async connect(address: string): Promise<H2InstanceConnection> {
    for (;;) {
      const ready = this.take(address)
      if (ready !== undefined) return ready
      if ((this.byAddress.get(address)?.size ?? 0) >= this.connectionsMax) throw new NoRoom()
      await (this.connecting.get(address) ?? this.begin(address))
    }
  }

  /** Closes connections nobody has used for long. */
  sweep(): void {
    const beforeMs = this.nowMs() - IDLE_MS
    for (const connections of this.byAddress.values()) {
      for (const { connection, idleSinceMs } of connections) {
        if (connection.streamCount === 0 && idleSinceMs < beforeMs) connection.close()
      }
    }
  }

  private begin(address: string): Promise<void> {
    const connecting = this.open(address).finally(() => this.connecting.delete(address))
    this.connecting.set(address, connecting)
    return connecting
  }

  private open(address: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const socket = connect({
        ...{ ...parseAddress(address), noDelay: true, allowHalfOpen: true },
        ...{ keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS },
      })
      this.sockets.add(socket)
      const reason = `no answer in ${CONNECT_TIMEOUT_MS} ms`
      const late = (): Error => (socket.connecting ? new Error(reason) : new MeshError('instance-refused', reason))
      const timer = setTimeout(() => socket.destroy(late()), CONNECT_TIMEOUT_MS)
      socket.once('error', reject)
      socket.once('close', () => {
        clearTimeout(timer)
        this.sockets.delete(socket)
        reject(new Error('closed while connecting'))
      })
      socket.once('connect', () => {
        const connection: H2InstanceConnection = new H2InstanceConnection(socket, this.nowMs, {
          onReady: () => {
            clearTimeout(timer)
            this.add(address, connection)
            resolve()
          },
          onRoom: this.onRoom,
          onClosed: error => {
            this.remove(address, connection)
            reject(error)
            this.onRoom()
          },
        })
        connection.start()
      })
    })
  }

  private add(address: string, connection: H2InstanceConnection): void {
    const connections = this.byAddress.get(address) ?? new Set()
    connections.add(connection)
    this.byAddress.set(address, connections)
  }

  private remove(address: string, connection: H2InstanceConnection): void {
    const connections = this.byAddress.get(address)
    connections?.delete(connection)
    if (connections?.size === 0) this.byAddress.delete(address)
  }
}
