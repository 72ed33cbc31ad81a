import { MeshError, type MeshErrorCode } from '../router/errors.ts'
import type { ServiceName } from '../router/model.ts'
import type { InstanceState, Instances } from './instances.ts'

/** Connections to instances, of one protocol. A limit of them per instance makes the room there. */
export interface Connections<C> {
  /** Whether one more call can have a connection there. */
  hasRoom(address: string): boolean
  /** One that was used before and is still good; its room is taken. Undefined: make a new one with `connect`. */
  take(address: string, isIdempotent: boolean): C | undefined
  /**
   * A new one; its room is taken at once and free again when it fails.
   *
   * Errors: rejects with NoRoom when the room was gone after all, with MeshError when somebody listens there but cannot
   * take the call, with Error when nobody does. Nothing was sent in any case.
   */
  connect(address: string): Promise<C>
  /** It was taken or made, and nothing was sent on it: others may have it. */
  putBack(connection: C): void
}

/** All connections to an instance are in use. */
export class NoRoom extends Error {}

/** Who needs a connection to an instance of a service. */
export interface Seeker<C> {
  readonly service: ServiceName
  readonly isIdempotent: boolean
  /** How long it may wait at most, milliseconds; 0: as long as the line allows. */
  readonly timeoutMs: number
  /** `isWarm`: it was used before, and the instance may have closed it in this very moment. */
  onConnection(instance: InstanceState, connection: C, isWarm: boolean): void
  /** There is none for it: nothing was sent. */
  onNone(code: MeshErrorCode, reason: string): void
}

export interface DispatcherOptions {
  /** Calls that may wait for one service; one more is refused. */
  readonly queueMax: number
  /** How long a call waits. */
  readonly queueTimeoutMs: number
}

/** 1,024 waiting: Envoy's max_pending_requests. 5 s: HAProxy's usual `timeout queue`, which is its connect timeout. */
export const DISPATCHER_DEFAULTS: DispatcherOptions = { queueMax: 1024, queueTimeoutMs: 5000 }

export interface DispatcherCounters {
  /** Calls that had to wait. */
  queued: number
  /** … that were refused because too many waited. */
  refused: number
  /** … whose turn did not come in time. */
  expired: number
}

/** How often those in line are looked at besides when room is told of: for time-outs, and for changes of health. */
const TICK_MS = 100

const NONE: ReadonlySet<InstanceState> = new Set()

/** A seeker that was not served at once: it waits in line, or for a connection that is being made. */
export class Ticket<C> {
  readonly seeker: Seeker<C>
  /** Order in line: the smallest is first. 0: it had its turn, and what it got was no good. */
  readonly turn: number
  /** Only a new connection will do. */
  readonly isFresh: boolean
  /** Instances it must not have: they were lost with it. */
  readonly tried: ReadonlySet<InstanceState>
  readonly giveUpAtMs: number
  reason = ''
  isInLine = false
  isOver = false

  constructor(seeker: Seeker<C>, turn: number, tried: ReadonlySet<InstanceState> | undefined, giveUpAtMs: number) {
    this.seeker = seeker
    this.turn = turn
    this.isFresh = tried !== undefined
    this.tried = tried ?? NONE
    this.giveUpAtMs = giveUpAtMs
  }
}

/**
 * Gives calls to instances: the least busy one with room for it gets the call, and when none has room, calls wait in
 * line, first come first served, a bounded number for a bounded time.
 *
 * One that refuses a connection is out until it answers again (health.ts), and the call goes to the next. A line moves
 * when `onRoom` is told, and is looked at ten times a second. Whoever does not want any more leaves with `leave`.
 */
export class Dispatcher<C> {
  readonly counters: DispatcherCounters = { queued: 0, refused: 0, expired: 0 }
  private readonly name: string
  private readonly instances: Instances
  private readonly connections: Connections<C>
  private readonly nowMs: () => number
  private readonly options: DispatcherOptions
  private readonly lines = new Map<ServiceName, Ticket<C>[]>()
  private readonly hasRoom = (instance: InstanceState): boolean => this.connections.hasRoom(instance.address)
  private turn = 0
  private isPlanned = false
  private timer: NodeJS.Timeout | undefined

  constructor(
    deps: {
      readonly self: { readonly name: string }
      readonly instances: Instances
      readonly connections: Connections<C>
      readonly nowMs: () => number
    },
    options: DispatcherOptions,
  ) {
    this.name = deps.self.name
    this.instances = deps.instances
    this.connections = deps.connections
    this.nowMs = deps.nowMs
    this.options = options
  }

  /** Calls in line for a service now. */
  queued(service: ServiceName): number {
    return this.lines.get(service)?.length ?? 0
  }

  /**
   * Finds a connection: told at once if a warm one is free, later otherwise. The ticket is for `leave`; undefined: it was
   * served. `tried` asks again, after what was found was no good: for another instance, over a new connection, before all
   * others in line.
   */
  seek(seeker: Seeker<C>, tried?: ReadonlySet<InstanceState>): Ticket<C> | undefined {
    const { service } = seeker
    const isBehind = tried === undefined && this.lines.has(service)
    const instance = isBehind ? undefined : this.choose(service, tried)
    if (instance !== undefined && tried === undefined) {
      const warm = this.connections.take(instance.address, seeker.isIdempotent)
      if (warm !== undefined) {
        seeker.onConnection(instance, warm, true)
        return undefined
      }
    }
    const waitMs = Math.min(this.options.queueTimeoutMs, seeker.timeoutMs || Number.POSITIVE_INFINITY)
    const turn = tried === undefined ? ++this.turn : 0
    const ticket = new Ticket(seeker, turn, tried, this.nowMs() + waitMs)
    if (instance !== undefined) this.connect(ticket, instance)
    else if (!this.isHopeless(ticket)) this.enter(ticket)
    return ticket
  }

  /** Does not want any more: hears nothing, and a connection that is being made for it goes to others. */
  leave(ticket: Ticket<C>): void {
    ticket.isOver = true
    if (ticket.isInLine) this.withdraw(ticket)
  }

  /** An instance may have room again. The line moves after whoever tells has finished with it. */
  onRoom(): void {
    if (this.isPlanned || this.lines.size === 0) return
    this.isPlanned = true
    queueMicrotask(() => {
      this.isPlanned = false
      this.move()
    })
  }

  private choose(service: ServiceName, tried: ReadonlySet<InstanceState> | undefined): InstanceState | undefined {
    const best = this.instances.choose(service, tried)
    if (best === undefined || this.hasRoom(best)) return best
    return this.instances.choose(service, tried, this.hasRoom)
  }

  private connect(ticket: Ticket<C>, instance: InstanceState): void {
    instance.inFlight++
    this.connections.connect(instance.address).then(
      connection => {
        instance.inFlight--
        if (ticket.isOver) this.connections.putBack(connection)
        else this.serve(ticket, instance, connection, false)
      },
      (error: unknown) => {
        instance.inFlight--
        this.refused(ticket, instance, error instanceof Error ? error : new Error(String(error)))
      },
    )
  }

  private refused(ticket: Ticket<C>, instance: InstanceState, error: Error): void {
    if (error instanceof NoRoom) {
      if (!ticket.isOver) this.enter(ticket)
      return
    }
    const reason = `instance ${instance.address} of ${instance.service} at ${this.name}: ${error.message}`
    // It listens, so it is not down; another one need not have what keeps this one from taking the call.
    if (error instanceof MeshError) return this.turnAway(ticket, error.code, reason)
    // It is not remembered as tried: should it be back before the call's turn comes, it may have the call.
    this.instances.setHealth(instance, false, error.message)
    ticket.reason = reason
    if (ticket.isOver) return
    if (this.nowMs() >= ticket.giveUpAtMs) return this.turnAway(ticket, 'instance-refused', reason)
    const next = this.choose(ticket.seeker.service, ticket.tried)
    if (next !== undefined) this.use(ticket, next)
    else if (!this.isHopeless(ticket)) this.enter(ticket)
  }

  private serve(ticket: Ticket<C>, instance: InstanceState, connection: C, isWarm: boolean): void {
    ticket.isOver = true
    ticket.seeker.onConnection(instance, connection, isWarm)
  }

  private turnAway(ticket: Ticket<C>, code: MeshErrorCode, reason: string): void {
    if (ticket.isOver) return
    ticket.isOver = true
    if (ticket.isInLine) this.withdraw(ticket)
    ticket.seeker.onNone(code, reason)
  }

  private use(ticket: Ticket<C>, instance: InstanceState): void {
    const { isIdempotent } = ticket.seeker
    const warm = ticket.isFresh ? undefined : this.connections.take(instance.address, isIdempotent)
    if (warm === undefined) this.connect(ticket, instance)
    else this.serve(ticket, instance, warm, true)
  }

  /** Turns it away when there is no instance left that it could wait for. */
  private isHopeless(ticket: Ticket<C>): boolean {
    const { service } = ticket.seeker
    if (this.instances.choose(service, ticket.tried) !== undefined) return false
    if (ticket.reason !== '') this.turnAway(ticket, 'instance-refused', ticket.reason)
    else this.turnAway(ticket, 'no-healthy-place', `no instance of ${service} at ${this.name} is healthy`)
    return true
  }

  // The line ---------------------------------------------------------------------------------------------------------

  private enter(ticket: Ticket<C>): void {
    const { service } = ticket.seeker
    const line = this.lines.get(service) ?? []
    const { queueMax } = this.options
    if (line.length >= queueMax && ticket.turn > 0) {
      this.counters.refused++
      const busy = `every instance of ${service} at ${this.name} has as many calls as it may`
      return this.turnAway(ticket, 'instance-busy', `${busy}, and ${queueMax} wait already`)
    }
    this.counters.queued++
    ticket.isInLine = true
    if ((line.at(-1)?.turn ?? 0) <= ticket.turn) line.push(ticket)
    else {
      line.splice(
        line.findIndex(({ turn }) => turn > ticket.turn),
        0,
        ticket,
      )
    }
    this.lines.set(service, line)
    this.timer ??= setInterval(() => this.tick(), TICK_MS).unref()
  }

  private withdraw(ticket: Ticket<C>): void {
    ticket.isInLine = false
    const { service } = ticket.seeker
    const line = this.lines.get(service)
    line?.splice(line.indexOf(ticket), 1)
    if (line?.length === 0) this.lines.delete(service)
    if (this.lines.size > 0) return
    clearInterval(this.timer)
    this.timer = undefined
  }

  private tick(): void {
    const nowMs = this.nowMs()
    for (const line of [...this.lines.values()]) {
      for (const ticket of [...line]) if (nowMs >= ticket.giveUpAtMs) this.expire(ticket)
    }
    this.move()
  }

  private expire(ticket: Ticket<C>): void {
    if (!ticket.isInLine) return
    const { service, timeoutMs } = ticket.seeker
    const { queueTimeoutMs } = this.options
    this.counters.expired++
    const reason = `no instance of ${service} at ${this.name} had room for the call within`
    const isCallers = timeoutMs > 0 && timeoutMs <= queueTimeoutMs
    if (isCallers) this.turnAway(ticket, 'deadline', `${reason} its time of ${timeoutMs} ms`)
    else this.turnAway(ticket, 'instance-busy', `${reason} ${queueTimeoutMs} ms`)
  }

  /** One from each line in turn, so that services whose instances share an address share its room. */
  private move(): void {
    let hasMoved = true
    while (hasMoved) {
      hasMoved = false
      for (const [service, line] of [...this.lines]) if (this.moveOne(service, line)) hasMoved = true
    }
  }

  private moveOne(service: ServiceName, line: Ticket<C>[]): boolean {
    for (const ticket of line) {
      const instance = this.choose(service, ticket.tried)
      if (instance !== undefined) {
        this.withdraw(ticket)
        this.use(ticket, instance)
        return true
      }
      if (this.isHopeless(ticket)) return true
      // Only one that must not go where others may can be overtaken.
      if (ticket.tried.size === 0) return false
    }
    return false
  }
}
