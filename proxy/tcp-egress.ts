import { connect, type Socket } from 'node:net'
import { MeshError } from '../router/errors.ts'
import type { NodeId } from '../router/model.ts'
import { CONNECT_TIMEOUT_MS, KEEP_ALIVE_MS, parseAddress } from './address.ts'
import type { Call, CallHandler, CallOpen, CallReset } from './call.ts'
import { connectInstance } from './connect-instance.ts'
import { limitConnecting } from './connect-limit.ts'
import type { InstanceState, Instances } from './instances.ts'
import { viaLine } from './mesh-fields.ts'
import { SPLICE_TICK_MS, Splice, type SpliceOwner } from './splice.ts'

export interface TcpEgressDeps {
  readonly self: { readonly id: NodeId; readonly name: string }
  readonly instances: Instances
  nowMs(): number
}

export interface TcpEgressOptions {
  /** A connection on which nothing moves for so long is reset; 0: never. */
  readonly idleMs: number
}

/** What this machine has run out of says nothing about the instance. */
const OWN_LIMITS = new Set(['EMFILE', 'ENFILE', 'EADDRNOTAVAIL', 'ENOBUFS', 'ENOMEM', 'EAGAIN'])

/**
 * How many more times `CONNECT_TIMEOUT_MS` an instance may take for a connection while it takes others: its queue is full, it is not
 * down. 3: a client's kernel asks again after 1 and 3 s.
 */
const MORE_WAITS_MAX = 3
/** An instance that took a connection so long ago takes others. Shorter than a wait, it would not be heard until the kernel has asked again. */
const TAKES_OTHERS_MS = CONNECT_TIMEOUT_MS * (1 + MORE_WAITS_MAX)

/**
 * Where TCP calls leave the mesh: ties each to a connection of its own to an instance.
 *
 * An instance that refuses means the next one, and it is out until it answers again (health.ts). The opener is told by a head when an
 * instance has the connection. The service need not be one of protocol `tcp`: through a tunnel a client may speak what it
 * likes.
 */
export class TcpEgress {
  private readonly deps: TcpEgressDeps
  private readonly options: TcpEgressOptions
  private readonly calls = new Set<TcpEgressCall>()
  /** When each instance took a connection last, of late. */
  private readonly takenAtMs = new Map<string, number>()
  private timer: NodeJS.Timeout | undefined

  constructor(deps: TcpEgressDeps, options: TcpEgressOptions) {
    this.deps = deps
    this.options = options
  }

  get inFlight(): number {
    return this.calls.size
  }

  start(): void {
    this.timer = setInterval(() => {
      const nowMs = this.deps.nowMs()
      for (const call of this.calls) call.tick(nowMs, this.options.idleMs)
      const beforeMs = nowMs - TAKES_OTHERS_MS
      for (const [address, atMs] of this.takenAtMs) if (atMs < beforeMs) this.takenAtMs.delete(address)
    }, SPLICE_TICK_MS)
  }

  /** Resets everything. */
  stop(): void {
    clearInterval(this.timer)
    for (const call of this.calls) call.destroy()
  }

  accept(call: Call, open: CallOpen): void {
    const connect = (address: string): Promise<Socket> => this.connect(address)
    const egressCall = new TcpEgressCall(this.deps, call, open, connect, () => this.calls.delete(egressCall))
    this.calls.add(egressCall)
    egressCall.start()
  }

  private async connect(address: string): Promise<Socket> {
    const takesOthers = (): boolean =>
      this.deps.nowMs() - (this.takenAtMs.get(address) ?? Number.NEGATIVE_INFINITY) < TAKES_OTHERS_MS
    const socket = await connectTcp(address, takesOthers)
    this.takenAtMs.set(address, this.deps.nowMs())
    return socket
  }
}

/** One TCP call at its egress: until an instance has it, and then a splice. */
class TcpEgressCall implements CallHandler, SpliceOwner {
  private readonly deps: TcpEgressDeps
  private readonly call: Call
  private readonly open: CallOpen
  private readonly toInstance: (address: string) => Promise<Socket>
  private readonly onDone: () => void
  private splice: Splice | undefined
  private instance: InstanceState | undefined
  /** What came while no instance was connected yet; at most a window, the call is paused meanwhile. */
  private early: Buffer[] = []
  private hasEnded = false
  private isDone = false

  constructor(
    deps: TcpEgressDeps,
    call: Call,
    open: CallOpen,
    toInstance: (address: string) => Promise<Socket>,
    onDone: () => void,
  ) {
    this.deps = deps
    this.call = call
    this.open = open
    this.toInstance = toInstance
    this.onDone = onDone
    call.handler = this
  }

  start(): void {
    this.call.pause()
    this.connect().catch((error: unknown) => this.refuse('internal', String(error)))
  }

  tick(nowMs: number, idleMs: number): void {
    if (this.splice?.tick(nowMs, idleMs) === false) {
      this.splice.reset('deadline', `nothing moved on the connection to ${this.instance?.address} for ${idleMs} ms`)
    }
  }

  destroy(): void {
    const reason = `${this.deps.self.name} is stopping`
    if (this.splice === undefined) this.refuse('draining', reason)
    else this.splice.reset('draining', reason)
  }

  private async connect(): Promise<void> {
    const { deps, open } = this
    const { service } = open
    if (!deps.instances.has(service)) {
      this.refuse('no-healthy-place', `${deps.self.name} no longer offers ${service}`)
      return
    }
    const first = deps.instances.choose(service)
    const found = await connectInstance(deps, service, first, this.toInstance, () => !this.isDone)
    if ('code' in found) this.refuse(found.code, found.reason)
    else if (this.isDone) found.connection.resetAndDestroy()
    else this.tie(found.instance, found.connection)
  }

  private tie(instance: InstanceState, socket: Socket): void {
    const { self } = this.deps
    const { call, early } = this
    this.instance = instance
    instance.inFlight++
    const who = `instance ${instance.address} of ${instance.service} at ${self.name}`
    const splice = new Splice(socket, this, { code: 'instance-lost', node: self.id, who }, false)
    this.splice = splice
    call.sendHead(Buffer.from(`HTTP/1.1 200 OK\r\n${viaLine(self.name)}\r\n`, 'latin1'))
    splice.start()
    splice.attach(call)
    this.early = []
    for (const chunk of early) splice.onData(chunk)
    if (this.hasEnded) splice.onEnd()
    else if (socket.writableNeedDrain) call.pause()
    else call.resume()
  }

  /** Nothing was sent to any instance. */
  private refuse(code: CallReset['code'], reason: string): void {
    if (this.isDone) return
    this.call.reset({ code, reason, node: this.deps.self.id, unexecuted: true })
    this.done()
  }

  private done(): void {
    if (this.isDone) return
    this.isDone = true
    this.early = []
    if (this.instance !== undefined) this.instance.inFlight--
    this.onDone()
  }

  // What the call tells, until there is a splice -----------------------------------------------------------------------

  onHead(): void {}

  onData(chunk: Buffer): void {
    this.early.push(Buffer.from(chunk))
  }

  onTrailers(): void {}

  onEnd(): void {
    this.hasEnded = true
  }

  onDrain(): void {}

  onReset(): boolean {
    if (this.splice === undefined) this.done()
    return false
  }

  // What the splice tells ----------------------------------------------------------------------------------------------

  onGone(): void {
    this.done()
  }
}

/**
 * Errors: those of node:net, which say that the instance is down; MeshError `overloaded` if it is not: for limits of this machine, and
 * for an instance that takes others.
 */
function connectTcp(address: string, takesOthers: () => boolean): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const keepAlive = { keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS }
    const socket = connect({ ...parseAddress(address), noDelay: true, allowHalfOpen: true, ...keepAlive })
    const fail = (error: Error & { readonly code?: string }): void => {
      socket.destroy()
      const isOwn = OWN_LIMITS.has(error.code ?? '')
      reject(isOwn ? new MeshError('overloaded', error.message, { cause: error }) : error)
    }
    let waits = 0
    const late = (): void => {
      waits++
      const reason = `no answer in ${waits * CONNECT_TIMEOUT_MS} ms`
      if (!takesOthers()) fail(new Error(reason))
      else if (waits <= MORE_WAITS_MAX) limitConnecting(socket, CONNECT_TIMEOUT_MS, late)
      else fail(new MeshError('overloaded', `${reason}, though it takes others: its queue is full`))
    }
    limitConnecting(socket, CONNECT_TIMEOUT_MS, late)
    socket.once('error', fail)
    socket.once('connect', () => {
      socket.removeListener('error', fail)
      // Nothing is read before the call is tied to it, which is in a later microtask of this very turn.
      resolve(socket)
    })
  })
}
