import type { LocalService, NodeId, NodeInfo, ServiceName } from '../../router/model.ts'
import type { RouterEffect, RouterEvent } from '../../router/router.ts'
import type { ByteRing } from './byte-ring.ts'
import type { Outcome } from './sim-protocol.ts'
import type { Sight, Sights } from './watches.ts'

/**
 * How steps and what came of them stand in a ring between two threads. Nodes go by the numbers they have in the mesh; what is
 * rare, and of many shapes, travels as JSON.
 */
const FRAME = 1
const RTT = 2
const WAKE = 3
const OTHER_EVENT = 4
const COMMAND = 5

const OUTCOME = 1
const THREW = 2
const ANSWER = 3

const SEND = 1
const SEND_SAME = 2
const WAKE_AT = 3
const ROUTES_CHANGED = 4
const NODE_CHANGED = 5
const NOTE = 6

const HAS = 1
const SHOWS = 2

/** Of an event or an effect, beside its bytes and texts. */
const PART_BYTES_MAX = 32
/** Of one sight. */
const SIGHT_BYTES = 7
const UTF8_BYTES_MAX = 3

/** What the other thread is asked or told beside steps. */
export type Command =
  | { type: 'name'; node: number; id: NodeId }
  | { type: 'host'; node: number; incarnation: number; life: number }
  | { type: 'watch'; owner: number; service: LocalService; watch: number }
  | { type: 'unwatch'; owner: number; service: ServiceName }
  | { type: 'ask'; question: Question }
  | { type: 'end' }

/** What can be asked of one router, as it is. */
export type Aspect = 'hasNews' | 'routes' | 'heldBytes' | 'versions' | 'refused' | 'services' | 'paths'

/** Answered in its turn, after the steps that were begun before. Maps come as their entries. */
export type Question =
  | { about: Aspect; node: number }
  /** Round trips to the nearest. */
  | { about: 'nearest'; node: number; count: number }
  | { about: 'shows'; node: number; owner: number; service: LocalService }
  /** Numbers of the nodes hosted there that hold the route. */
  | { about: 'holders'; owner: number; service: ServiceName }
  | { about: 'signatures' }

/** What the other side reads: an event, or a command. */
export type Order = { node: number; nowMs: number; event: RouterEvent } | Command

/** Nodes by number and the other way round, the same on both sides. */
export interface NodeNames {
  idOf(node: number): NodeId
  numberOf(id: NodeId): number
}

export class StepWriter {
  private readonly ring: ByteRing
  private readonly names: NodeNames
  private readonly onFull: () => boolean
  private at = 0

  constructor(ring: ByteRing, names: NodeNames, onFull: () => boolean = () => false) {
    this.ring = ring
    this.names = names
    this.onFull = onFull
  }

  event(node: number, nowMs: number, event: RouterEvent): void {
    const { type } = event
    if (type === 'frame') {
      this.begin(FRAME, event.bytes.length)
      this.u16(node)
      this.f64(nowMs)
      this.u16(this.names.numberOf(event.from))
      this.data(event.bytes)
    } else if (type === 'rtt') {
      this.begin(RTT)
      this.u16(node)
      this.f64(nowMs)
      this.u16(this.names.numberOf(event.to))
      this.f64(event.rttMs)
      this.f64(event.lossRatio)
    } else if (type === 'wake') {
      this.begin(WAKE)
      this.u16(node)
      this.f64(nowMs)
    } else {
      const text = JSON.stringify(event)
      this.begin(OTHER_EVENT, UTF8_BYTES_MAX * text.length)
      this.u16(node)
      this.f64(nowMs)
      this.text(text)
    }
    this.end()
  }

  command(command: Command): void {
    this.json(COMMAND, command)
  }

  outcome({ effects, sights }: Outcome): void {
    let bytes = 0
    for (const effect of effects) bytes += PART_BYTES_MAX + sizeOf(effect)
    for (const owners of sights.values()) bytes += SIGHT_BYTES * owners.size
    this.begin(OUTCOME, bytes)
    this.u16(effects.length)
    let last: Uint8Array | undefined
    for (const effect of effects) {
      this.effect(effect, last, sights)
      if (effect.type === 'send') last = effect.bytes
    }
    this.end()
  }

  threw(error: unknown): void {
    this.json(THREW, error instanceof Error ? (error.stack ?? error.message) : String(error))
  }

  answer(value: unknown): void {
    this.json(ANSWER, value)
  }

  private effect(effect: RouterEffect, last: Uint8Array | undefined, sights: Outcome['sights']): void {
    switch (effect.type) {
      case 'send':
        // A fresh batch goes to all neighbours in the same bytes.
        this.u8(effect.bytes === last ? SEND_SAME : SEND)
        this.u16(this.names.numberOf(effect.to))
        if (effect.bytes !== last) this.data(effect.bytes)
        return
      case 'wake-at':
        this.u8(WAKE_AT)
        this.f64(effect.atMs)
        return
      case 'routes-changed': {
        const owners = sights.get(effect.service)
        this.u8(ROUTES_CHANGED)
        this.text(effect.service)
        this.u16(owners?.size ?? 0)
        for (const [owner, { watch, has, shows }] of owners ?? []) {
          this.u16(this.names.numberOf(owner))
          this.u32(watch)
          this.u8((has ? HAS : 0) | (shows ? SHOWS : 0))
        }
        return
      }
      case 'node-changed':
        this.u8(NODE_CHANGED)
        this.u16(this.names.numberOf(effect.node))
        this.u8(effect.info === undefined ? 0 : 1)
        return
      case 'note':
        this.u8(NOTE)
        this.text(JSON.stringify(effect))
    }
  }

  private json(type: number, value: unknown): void {
    const text = JSON.stringify(value)
    this.begin(type, UTF8_BYTES_MAX * text.length)
    this.text(text)
    this.end()
  }

  private begin(type: number, bytes = 0): void {
    this.from = this.ring.reserve(bytes + PART_BYTES_MAX, this.onFull)
    this.at = this.from
    this.u8(type)
  }

  private from = 0

  private end(): void {
    this.ring.commit(this.at - this.from)
  }

  private u8(value: number): void {
    this.ring.view.setUint8(this.at, value)
    this.at += 1
  }

  private u16(value: number): void {
    this.ring.view.setUint16(this.at, value)
    this.at += 2
  }

  private u32(value: number): void {
    this.ring.view.setUint32(this.at, value)
    this.at += 4
  }

  private f64(value: number): void {
    this.ring.view.setFloat64(this.at, value)
    this.at += 8
  }

  private data(bytes: Uint8Array): void {
    this.u32(bytes.length)
    this.ring.bytes.set(bytes, this.at)
    this.at += bytes.length
  }

  private text(text: string): void {
    const length = this.ring.bytes.write(text, this.at + 4)
    this.u32(length)
    this.at += length
  }
}

function sizeOf(effect: RouterEffect): number {
  if (effect.type === 'send') return effect.bytes.length
  if (effect.type === 'routes-changed') return UTF8_BYTES_MAX * effect.service.length
  return effect.type === 'note' ? UTF8_BYTES_MAX * JSON.stringify(effect).length : 0
}

/** Reads what a `StepWriter` wrote. Bytes that it gives lie in the ring, and are good until the next record is read. */
export class StepReader {
  private readonly ring: ByteRing
  private readonly names: NodeNames
  private at = 0

  constructor(ring: ByteRing, names: NodeNames) {
    this.ring = ring
    this.names = names
  }

  /** The next of what `event` and `command` wrote. */
  order(): Order {
    this.at = this.ring.read().from
    const type = this.u8()
    if (type === COMMAND) return JSON.parse(this.text()) as Command
    const node = this.u16()
    const nowMs = this.f64()
    return { node, nowMs, event: this.event(type) }
  }

  /** The next of what `outcome`, `threw` and `answer` wrote. */
  reply(): { outcome: Outcome } | { threw: string } | { answer: unknown } {
    this.at = this.ring.read().from
    const type = this.u8()
    if (type === OUTCOME) return { outcome: this.outcome() }
    const value: unknown = JSON.parse(this.text())
    return type === ANSWER ? { answer: value } : { threw: String(value) }
  }

  private event(type: number): RouterEvent {
    if (type === FRAME) return { type: 'frame', from: this.names.idOf(this.u16()), bytes: this.data() }
    if (type === WAKE) return { type: 'wake' }
    if (type === RTT) {
      return { type: 'rtt', to: this.names.idOf(this.u16()), rttMs: this.f64(), lossRatio: this.f64() }
    }
    return JSON.parse(this.text()) as RouterEvent
  }

  private outcome(): Outcome {
    const effects: RouterEffect[] = []
    const sights = new Map<ServiceName, Sights>()
    let last: Uint8Array = NO_BYTES
    for (let left = this.u16(); left > 0; left--) {
      const type = this.u8()
      if (type === SEND || type === SEND_SAME) {
        const to = this.names.idOf(this.u16())
        if (type === SEND) last = this.data()
        effects.push({ type: 'send', to, bytes: last })
      } else if (type === WAKE_AT) {
        effects.push({ type: 'wake-at', atMs: this.f64() })
      } else if (type === ROUTES_CHANGED) {
        const service = this.text()
        effects.push({ type: 'routes-changed', service })
        const owners = this.sights()
        if (owners.size > 0) sights.set(service, owners)
      } else if (type === NODE_CHANGED) {
        const node = this.names.idOf(this.u16())
        effects.push({ type: 'node-changed', node, info: this.u8() === 0 ? undefined : SOME_INFO })
      } else {
        effects.push(JSON.parse(this.text()) as RouterEffect)
      }
    }
    return { effects, sights }
  }

  private sights(): Sights {
    const sights = new Map<NodeId, Sight>()
    for (let left = this.u16(); left > 0; left--) {
      const owner = this.names.idOf(this.u16())
      const watch = this.u32()
      const bits = this.u8()
      sights.set(owner, { watch, has: (bits & HAS) !== 0, shows: (bits & SHOWS) !== 0 })
    }
    return sights
  }

  private u8(): number {
    return this.ring.view.getUint8(this.at++)
  }

  private u16(): number {
    this.at += 2
    return this.ring.view.getUint16(this.at - 2)
  }

  private u32(): number {
    this.at += 4
    return this.ring.view.getUint32(this.at - 4)
  }

  private f64(): number {
    this.at += 8
    return this.ring.view.getFloat64(this.at - 8)
  }

  private data(): Uint8Array {
    const length = this.u32()
    this.at += length
    return this.ring.bytes.subarray(this.at - length, this.at)
  }

  private text(): string {
    const length = this.u32()
    this.at += length
    return this.ring.bytes.toString('utf8', this.at - length, this.at)
  }
}

const NO_BYTES = new Uint8Array(0)

/** What a node says of itself does not travel between threads: that it says something is all the mesh wants to know. */
const SOME_INFO: NodeInfo = { name: '', region: '', version: '', overlay: [], calls: [], state: 'up' }
