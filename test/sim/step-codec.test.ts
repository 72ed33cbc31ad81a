import { expect, test } from 'vitest'
import type { LocalService, NodeInfo } from '../../router/model.ts'
import type { RouterEffect, RouterEvent } from '../../router/router.ts'
import { ByteRing } from './byte-ring.ts'
import { type Command, StepReader, StepWriter } from './step-codec.ts'
import type { Sights } from './watches.ts'

const IDS = ['id-a', 'id-b', 'id-ü']
const names = { idOf: (node: number) => IDS[node] as string, numberOf: (id: string) => IDS.indexOf(id) }

function pair(): { writer: StepWriter; reader: StepReader } {
  const ring = new ByteRing(64 * 1024)
  return { writer: new StepWriter(ring, names), reader: new StepReader(new ByteRing(ring.memory), names) }
}

const INFO: NodeInfo = { name: 'ä', region: 'r', version: '1', overlay: ['/ip4/10.0.0.1'], calls: [], state: 'up' }
const ORDERS: LocalService = {
  name: 'orders',
  protocol: 'http',
  instances: 2,
  healthy: 1,
  weight: 1,
  labels: { v: '2' },
}

test.each<RouterEvent>([
  { type: 'self', info: INFO },
  { type: 'local', service: ORDERS },
  { type: 'link-up', to: 'id-b', rttMs: 12.5 },
  { type: 'link-down', to: 'id-b', isPlanned: true },
  { type: 'rtt', to: 'id-ü', rttMs: 1 / 3, lossRatio: 0.05 },
  { type: 'frame', from: 'id-a', bytes: Uint8Array.of(1, 2, 255) },
  { type: 'wake' },
])('an event of type $type arrives as it was', event => {
  const { writer, reader } = pair()
  writer.event(2, 0.1 + 0.2, event)
  const order = reader.order()
  const found =
    'event' in order && order.event.type === 'frame' ? { ...order.event, bytes: bytesOf(order.event) } : null
  expect(found === null ? order : { ...order, event: found }).toEqual({ node: 2, nowMs: 0.1 + 0.2, event })
})

test.each<Command>([
  { type: 'name', node: 1, id: 'id-b' },
  { type: 'host', node: 1, incarnation: 1_800_000_000_000 * 1024 + 7, life: 3 },
  { type: 'watch', owner: 0, service: ORDERS, watch: 9 },
  { type: 'unwatch', owner: 0, service: 'orders' },
  { type: 'ask', question: { about: 'nearest', node: 2, count: 30 } },
  { type: 'end' },
])('a command of type $type arrives as it was', command => {
  const { writer, reader } = pair()
  writer.command(command)
  expect(reader.order()).toEqual(command)
})

test('what came of a step arrives as it was, bytes that go to many in one piece', () => {
  const { writer, reader } = pair()
  const same = Uint8Array.of(9, 8, 7)
  const effects: RouterEffect[] = [
    { type: 'send', to: 'id-a', bytes: same },
    { type: 'send', to: 'id-b', bytes: same },
    { type: 'send', to: 'id-ü', bytes: Uint8Array.of(9, 8) },
    { type: 'wake-at', atMs: Number.POSITIVE_INFINITY },
    { type: 'routes-changed', service: 'orders' },
    { type: 'routes-changed', service: 'billing' },
    { type: 'node-changed', node: 'id-b', info: undefined },
    { type: 'note', event: 'refused', fields: { reason: 'größer als erlaubt' } },
  ]
  const sights: Sights = new Map([['id-a', { watch: 70_000, has: true, shows: false }]])
  writer.outcome({ effects, sights: new Map([['orders', sights]]) })
  const reply = reader.reply()
  const outcome = 'outcome' in reply ? reply.outcome : undefined
  const sent = outcome?.effects.flatMap(effect => (effect.type === 'send' ? [effect.bytes] : []))
  expect(
    outcome?.effects.map(effect => (effect.type === 'send' ? { ...effect, bytes: bytesOf(effect) } : effect)),
  ).toEqual(effects)
  expect(sent?.[0]).toBe(sent?.[1])
  expect(outcome?.sights).toEqual(new Map([['orders', sights]]))
})

test('of what a node says of itself only that it says something goes back', () => {
  const { writer, reader } = pair()
  writer.outcome({ effects: [{ type: 'node-changed', node: 'id-a', info: INFO }], sights: new Map() })
  const reply = reader.reply()
  const [effect] = 'outcome' in reply ? reply.outcome.effects : []
  expect(effect).toMatchObject({ type: 'node-changed', node: 'id-a', info: { name: '' } })
})

test('an error and an answer are told apart', () => {
  const { writer, reader } = pair()
  writer.threw(new Error('no such thing'))
  writer.answer([['id-a', 1.5]])
  expect(reader.reply()).toMatchObject({ threw: expect.stringContaining('no such thing') })
  expect(reader.reply()).toEqual({ answer: [['id-a', 1.5]] })
})

function bytesOf({ bytes }: { bytes: Uint8Array }): Uint8Array {
  return Uint8Array.from(bytes)
}
