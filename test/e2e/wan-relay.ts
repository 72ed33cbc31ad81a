import { type AddressInfo, createServer, connect as dial, type Server, type Socket } from 'node:net'
import type { Door } from './daemon-process.ts'

/** Bytes on their way in one direction of one connection: 4 MiB in 45 ms are 93 MB/s, more than one TCP flow gets on most WANs. */
const IN_FLIGHT_BYTES_MAX = 4 * 1024 * 1024
/** Timers of Node count whole milliseconds and never fire early: what is due within half of one goes now, so errors even out. */
const TIMER_SLACK_MS = 0.5

export interface WanRelayOptions {
  /** Round trip it adds, milliseconds: half on the way there, half on the way back. */
  readonly rttMs: number
  /** Up to so much more for each chunk and direction, evenly spread; order is kept, as TCP keeps it. Default 0. */
  readonly jitterMs?: number | undefined
  /** `host:port`; may be set, and changed for new connections, by `lead`. Without one, connections are reset. */
  readonly target?: string | undefined
  /** 0 ≤ x < 1. Default Math.random. */
  readonly random?: (() => number) | undefined
}

/**
 * A long line between whoever dials `address` and a target: TCP in, TCP out, later.
 *
 * Modelled: every byte, half-close and reset takes half a round trip each way, in order. A handshake takes a whole one:
 * the relay's kernel accepts at once, so what the client says first is held for a round trip before its way begins, and
 * the target sees the connection half a round trip after it was dialled. Back-pressure is kept: at most 4 MiB are on
 * their way in each direction. Not modelled: bandwidth, loss, slow start, and an accept that says more than "the line
 * is there": a target that refuses shows as a reset half a round trip after its refusal.
 */
export class WanRelay implements Door {
  private readonly random: () => number
  private readonly jitterMs: number
  private readonly connections = new Set<WanConnection>()
  private server: Server | undefined
  private rttMs: number
  private isBlackhole = false
  private target: string | undefined
  address = ''

  constructor(options: WanRelayOptions) {
    this.random = options.random ?? Math.random
    this.jitterMs = options.jitterMs ?? 0
    this.rttMs = options.rttMs
    this.target = options.target
  }

  /** Listens on 127.0.0.1; resolves with its address. */
  async start(): Promise<string> {
    const server = createServer({ allowHalfOpen: true, noDelay: true }, socket => this.onConnection(socket))
    this.server = server
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(0, '127.0.0.1', resolve)
    })
    this.address = `127.0.0.1:${(server.address() as AddressInfo).port}`
    return this.address
  }

  /** Connections now open, or on their way. */
  get count(): number {
    return this.connections.size
  }

  /** Bytes on their way, or held, in all connections and both directions. */
  get bytesHeld(): number {
    let bytes = 0
    for (const connection of this.connections) bytes += connection.bytesHeld
    return bytes
  }

  lead(target: string): void {
    this.target = target
  }

  /** Counts for what is sent from now on; it does not overtake what is on its way. */
  setRtt(rttMs: number): void {
    this.rttMs = rttMs
  }

  /** On: nothing arrives any more, in either direction, and new connections hang. Off: what was held arrives at once. */
  blackhole(on: boolean): void {
    this.isBlackhole = on
    if (!on) for (const connection of [...this.connections]) connection.flush()
  }

  /** Resets every connection at both ends, now. New ones may come. */
  cut(): void {
    for (const connection of [...this.connections]) connection.cut()
  }

  async stop(): Promise<void> {
    const { server } = this
    this.server = undefined
    const closed = new Promise<void>(resolve => (server === undefined ? resolve() : server.close(() => resolve())))
    this.cut()
    await closed
  }

  private onConnection(client: Socket): void {
    const connection = new WanConnection(client, {
      isHeld: () => this.isBlackhole,
      rttMs: () => this.rttMs,
      tripMs: () => this.rttMs / 2 + this.random() * this.jitterMs,
      target: () => this.target,
      onClose: () => this.connections.delete(connection),
    })
    this.connections.add(connection)
    connection.start()
  }
}

interface WanLine {
  isHeld(): boolean
  rttMs(): number
  tripMs(): number
  target(): string | undefined
  onClose(): void
}

class WanConnection {
  private readonly client: Socket
  private readonly line: WanLine
  private readonly there: Lane
  private readonly back: Lane
  private server: Socket | undefined
  private syn: NodeJS.Timeout | undefined
  private open = 1

  constructor(client: Socket, line: WanLine) {
    this.client = client
    this.line = line
    this.there = new Lane(client, line)
    this.back = new Lane(undefined, line)
  }

  get bytesHeld(): number {
    return this.there.bytes + this.back.bytes
  }

  start(): void {
    this.watch(this.client, this.there)
    const nowMs = performance.now()
    // A client speaks when the handshake has come back to it: one round trip after it dialled.
    this.there.delay.notBeforeMs = nowMs + this.line.rttMs()
    this.there.read()
    this.syn = setTimeout(() => this.onSyn(), this.line.tripMs())
  }

  /** The line works again: everything that is due goes on. */
  flush(): void {
    if (this.server === undefined && this.syn === undefined) this.onSyn()
    this.there.pump()
    this.back.pump()
  }

  cut(): void {
    clearTimeout(this.syn)
    this.there.stop()
    this.back.stop()
    this.client.resetAndDestroy()
    this.server?.resetAndDestroy()
  }

  private onSyn(): void {
    this.syn = undefined
    if (this.client.destroyed || this.line.isHeld()) return
    const target = this.line.target()
    if (target === undefined) {
      this.back.sink = this.client
      this.back.reset()
      return
    }
    const colon = target.lastIndexOf(':')
    const server = dial({
      host: target.slice(0, colon),
      port: Number(target.slice(colon + 1)),
      allowHalfOpen: true,
      noDelay: true,
    })
    this.server = server
    this.open++
    this.watch(server, this.back)
    this.back.source = server
    this.back.sink = this.client
    this.back.pump()
    server.once('connect', () => {
      this.back.read()
      this.there.sink = server
      this.there.pump()
    })
  }

  /** What happens to `socket` happens to the far end of `lane` too, later. */
  private watch(socket: Socket, lane: Lane): void {
    socket.on('error', () => lane.reset())
    socket.once('close', () => {
      if (!lane.isSourceEnded) lane.reset()
      if (--this.open === 0) this.onClosed()
    })
  }

  private onClosed(): void {
    // The client may be gone before its connection has reached the target: then there is nobody to tell.
    clearTimeout(this.syn)
    this.there.stop()
    this.back.stop()
    this.line.onClose()
  }
}

/** One direction of one connection. */
class Lane {
  readonly delay: DelayLine<Buffer | 'end'>
  source: Socket | undefined
  sink: Socket | undefined
  private readonly line: WanLine
  private timer: NodeJS.Timeout | undefined
  /** Bytes on their way. */
  bytes = 0
  isSourceEnded = false
  private isBlocked = false
  private isStopped = false
  private resetAtMs = Number.POSITIVE_INFINITY

  constructor(source: Socket | undefined, line: WanLine) {
    this.source = source
    this.line = line
    this.delay = new DelayLine()
  }

  read(): void {
    const { source } = this
    source?.on('data', (chunk: Buffer) => {
      this.bytes += chunk.length
      if (this.bytes >= IN_FLIGHT_BYTES_MAX) source.pause()
      this.push(chunk)
    })
    source?.once('end', () => {
      this.isSourceEnded = true
      this.push('end')
    })
    source?.resume()
  }

  /**
   * The near end is gone without good-bye. The far end hears so after what was sent before, or without it if it reads no
   * more. (While the line is full this end is not read, so its reset is seen only when there is room again.)
   */
  reset(): void {
    if (this.isStopped || this.resetAtMs !== Number.POSITIVE_INFINITY) return
    this.resetAtMs = this.delay.dueMs(performance.now(), this.line.tripMs())
    this.arm()
  }

  stop(): void {
    clearTimeout(this.timer)
    this.timer = undefined
    this.resetAtMs = Number.POSITIVE_INFINITY
    this.isStopped = true
    this.bytes = 0
    this.delay.clear()
  }

  /** Hands on what is due, and sets the one timer for what is not. */
  pump(): void {
    clearTimeout(this.timer)
    this.timer = undefined
    const { sink } = this
    if (sink === undefined || this.line.isHeld()) return
    const nowMs = performance.now() + TIMER_SLACK_MS
    while (!this.isBlocked) {
      const item = this.delay.take(nowMs)
      if (item === undefined) break
      this.deliver(item, sink)
    }
    if (nowMs >= this.resetAtMs) {
      this.stop()
      sink.resetAndDestroy()
    } else this.arm()
  }

  private push(item: Buffer | 'end'): void {
    if (this.isStopped) return
    this.delay.push(item, performance.now(), this.line.tripMs())
    if (this.timer === undefined) this.arm()
  }

  private deliver(item: Buffer | 'end', sink: Socket): void {
    if (item === 'end') {
      sink.end()
      return
    }
    this.bytes -= item.length
    if (this.source?.isPaused() === true && this.bytes <= IN_FLIGHT_BYTES_MAX / 2) this.source.resume()
    if (sink.write(item)) return
    this.isBlocked = true
    sink.once('drain', () => {
      this.isBlocked = false
      this.pump()
    })
  }

  private arm(): void {
    const dueMs = Math.min(this.isBlocked ? Number.POSITIVE_INFINITY : this.delay.nextDueMs, this.resetAtMs)
    if (this.sink === undefined || this.line.isHeld() || dueMs === Number.POSITIVE_INFINITY) return
    clearTimeout(this.timer)
    this.timer = setTimeout(() => this.pump(), Math.max(0, Math.floor(dueMs - performance.now())))
  }
}

/**
 * Items that leave in the order they came, each not before its time. Decides, does nothing; times are milliseconds of
 * the caller's clock.
 */
export class DelayLine<T> {
  /** Nothing starts its way before this instant. */
  notBeforeMs = Number.NEGATIVE_INFINITY
  private items: { readonly item: T; readonly dueMs: number }[] = []
  private head = 0
  private lastDueMs = Number.NEGATIVE_INFINITY

  /** When something sent now would arrive: after everything sent before it. */
  dueMs(nowMs: number, tripMs: number): number {
    return Math.max(this.lastDueMs, Math.max(nowMs, this.notBeforeMs) + tripMs)
  }

  push(item: T, nowMs: number, tripMs: number): void {
    this.lastDueMs = this.dueMs(nowMs, tripMs)
    this.items.push({ item, dueMs: this.lastDueMs })
  }

  /** The next item, if it has arrived by now. */
  take(nowMs: number): T | undefined {
    const next = this.items[this.head]
    if (next === undefined || next.dueMs > nowMs) return undefined
    this.head++
    // Amortised: the used part goes when it is half of the whole.
    if (this.head * 2 > this.items.length) {
      this.items = this.items.slice(this.head)
      this.head = 0
    }
    return next.item
  }

  /** When the next item arrives; Infinity if there is none. */
  get nextDueMs(): number {
    return this.items[this.head]?.dueMs ?? Number.POSITIVE_INFINITY
  }

  clear(): void {
    this.items = []
    this.head = 0
  }
}

// A map of lines -------------------------------------------------------------------------------------------------------

export interface WanLinkOptions {
  readonly between: readonly [string, string]
  readonly rttMs: number
  readonly jitterMs?: number | undefined
}

/**
 * The lines between the nodes of a mesh: for each pair of nodes, one relay for each direction of dialling and each port.
 * `openDoor` is what `createMesh` takes. Pairs that are not listed have no line in between.
 */
export class WanMap {
  private readonly links: readonly WanLinkOptions[]
  private readonly relays = new Map<WanLinkOptions, WanRelay[]>()

  constructor(links: readonly WanLinkOptions[]) {
    this.links = links
  }

  readonly openDoor = async (from: string, to: string): Promise<WanRelay | undefined> => {
    const link = this.find(from, to)
    if (link === undefined) return undefined
    const relay = new WanRelay({ rttMs: link.rttMs, jitterMs: link.jitterMs })
    await relay.start()
    this.relays.set(link, [...(this.relays.get(link) ?? []), relay])
    return relay
  }

  /** What is done to the line between two nodes is done to all its relays. */
  link(a: string, b: string): Pick<WanRelay, 'setRtt' | 'blackhole' | 'cut'> {
    const link = this.find(a, b)
    if (link === undefined) throw new Error(`there is no line between ${a} and ${b}`)
    const each = (act: (relay: WanRelay) => void): void => this.relays.get(link)?.forEach(act)
    return {
      setRtt: rttMs => each(relay => relay.setRtt(rttMs)),
      blackhole: on => each(relay => relay.blackhole(on)),
      cut: () => each(relay => relay.cut()),
    }
  }

  async stop(): Promise<void> {
    await Promise.all([...this.relays.values()].flat().map(relay => relay.stop()))
  }

  private find(a: string, b: string): WanLinkOptions | undefined {
    return this.links.find(({ between }) => between.includes(a) && between.includes(b))
  }
}
