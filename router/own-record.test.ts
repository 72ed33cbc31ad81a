import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { BATCH_BYTES_MAX, BATCH_ENTRIES_MAX, type Batch, decodeBatch, signedBytes } from './batch.ts'
import { type Changes, OriginLog } from './origin-log.ts'
import { OwnRecord } from './own-record.ts'

const SIGNATURE = new Uint8Array(64)
const create = (): OwnRecord => new OwnRecord('me', 1, () => SIGNATURE)

type Values = Map<string, unknown>

const live = (values: Values): Record<string, unknown> =>
  Object.fromEntries([...values].sort(([a], [b]) => (a < b ? -1 : 1)))

function take(values: Values, changed: Changes): void {
  for (const { key, value } of changed) {
    if (value === undefined) values.delete(key)
    else values.set(key, value)
  }
}

/** Entries in the batches that others hold of this record. */
function windowEntries(log: OriginLog): number {
  return log.batchesAfter(0).reduce((sum, { payload, signature }) => {
    const decoded = decodeBatch(payload, signature)
    return sum + (decoded.ok ? decoded.batch.entries.length : Number.NaN)
  }, 0)
}

/** What a peer makes of it: reads each batch as it came over the wire. */
function follow(follower: OriginLog, values: Values, batches: readonly Batch[]): void {
  for (const { payload, signature } of batches) {
    const decoded = decodeBatch(payload, signature)
    if (!decoded.ok) throw new Error(`a peer refuses this batch: ${decoded.reason}`)
    const applied = follower.apply(decoded.batch)
    if (applied.outcome !== 'new') throw new Error(`a peer finds this batch ${applied.outcome}`)
    take(values, applied.changed)
  }
}

describe('the own record', () => {
  test('a follower that reads every batch holds what the origin holds, at every step', () => {
    const key = fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h')
    const change = fc.tuple(key, fc.option(fc.nat(3), { nil: undefined }), fc.boolean())
    fc.assert(
      fc.property(fc.array(change, { minLength: 50, maxLength: 400, size: 'max' }), changes => {
        const record = create()
        const follower = new OriginLog('me')
        const values: Values = new Map()
        const own: Values = new Map()
        const model = new Map<string, number>()
        for (const [name, value, isPublished] of changes) {
          if (value === undefined) {
            record.remove(name)
            model.delete(name)
          } else {
            record.set(name, value)
            model.set(name, value)
          }
          if (!isPublished) continue
          const { batches, changed } = record.publish()
          take(own, changed)
          follow(follower, values, batches)
          expect(live(values)).toEqual(Object.fromEntries([...model].sort(([a], [b]) => (a < b ? -1 : 1))))
          expect(live(own)).toEqual(live(values))
          expect(follower.base).toBe(record.log.base)
        }
      }),
      { numRuns: 40 },
    )
  })

  test('a record that changes for ever holds at most about twice what is live', () => {
    const record = create()
    for (let i = 0; i < 40; i++) record.set(`still/${i}`, { i, text: 'stays as it is' })
    record.publish()
    let entriesMax = 0
    for (let i = 0; i < 60_000; i++) {
      record.set(`busy/${i % 5}`, i)
      record.publish()
      if (i % 997 === 0) entriesMax = Math.max(entriesMax, windowEntries(record.log))
    }
    expect(entriesMax).toBeLessThanOrEqual(2 * 45 + 64 + 2)
    expect(record.log.bytes).toBeLessThan(64 * 1024)
    expect(windowEntries(record.log)).toBeGreaterThanOrEqual(45)
  })

  test.each([
    ['thousands of small entries', 3000, 0, 6000],
    ['entries that fill more than one batch', 1200, 150, 3000],
  ])('one key that flaps beside %s never makes a batch that others refuse', (_, count, padding, changes) => {
    const record = create()
    const follower = new OriginLog('me')
    const values: Values = new Map()
    const l = { note: 'x'.repeat(padding) }
    for (let i = 0; i < count; i++) record.set(`service/s${i}`, { i: 1, h: 1, w: 1, l })
    follow(follower, values, record.publish().batches)
    let bytesMax = 0
    let batchesMax = 0
    for (let i = 0; i < changes; i++) {
      record.set('link/x', { r: i, l: 0 })
      const { batches } = record.publish()
      follow(follower, values, batches)
      for (const { payload, entries } of batches) {
        bytesMax = Math.max(bytesMax, payload.length)
        expect(entries.length).toBeLessThan(BATCH_ENTRIES_MAX)
      }
      if (i % 500 === 0) batchesMax = Math.max(batchesMax, follower.batchesAfter(0).length)
    }
    expect(bytesMax).toBeLessThanOrEqual(BATCH_BYTES_MAX / 2 + 1024)
    expect([...values.keys()]).toHaveLength(count + 1)
    expect(windowEntries(follower)).toBeLessThanOrEqual(2 * (count + 1) + 64 + 2000)
    expect(follower.base).toBeGreaterThan(1)
    // Others keep 8,192 batches of one origin.
    expect(batchesMax).toBeLessThanOrEqual(2048 + 64)
  })

  test('a large record is cut into batches that fit, in order', () => {
    const record = create()
    for (let i = 0; i < 3000; i++) record.set(`service/s${i}`, { i: 1, h: 1, w: 1, l: { note: 'x'.repeat(20) } })
    const { batches, changed } = record.publish()
    expect(batches.length).toBeGreaterThan(5)
    expect(batches.map(({ seq }) => seq)).toEqual(batches.map((_, i) => i + 1))
    for (const { payload } of batches) expect(payload.length).toBeLessThanOrEqual(17 * 1024)
    expect(changed.length).toBe(3000)
  })

  test('a change and its undoing before it was published cost nothing', () => {
    const record = create()
    record.set('a', { x: 1 })
    record.publish()
    record.set('a', { x: 2 })
    record.set('a', { x: 1 })
    record.set('b', 1)
    record.remove('b')
    expect(record.dirty).toBe(false)
    expect(record.publish().batches).toEqual([])
  })

  test('a value that is pending is what is read, and a removed one is gone', () => {
    const record = create()
    record.set('a', 1)
    expect(record.get('a')).toBe(1)
    record.publish()
    record.remove('a')
    expect(record.get('a')).toBeUndefined()
    expect(record.publish().changed).toEqual([{ key: 'a', value: undefined }])
  })

  test('a new incarnation says everything again under a number higher than any heard of', () => {
    const record = new OwnRecord('me', 10, () => SIGNATURE)
    const follower = new OriginLog('me')
    const values: Values = new Map()
    record.set('a', 1)
    record.set('b', 1)
    follow(follower, values, record.publish().batches)
    record.set('c', 1)
    record.remove('b')
    record.reincarnate(500)
    expect([record.get('a'), record.get('b'), record.get('c')]).toEqual([1, undefined, 1])
    // Set to what the former incarnation said: others will have forgotten that, so it is said again.
    record.set('a', 1)
    const { batches } = record.publish()
    expect(batches.map(({ incarnation, seq, base }) => [incarnation, seq, base])).toEqual([[501, 1, 1]])
    follow(follower, values, batches)
    expect(live(values)).toEqual({ a: 1, c: 1 })
    record.reincarnate(3)
    expect(record.publish().batches[0]?.incarnation).toBe(502)
  })

  test('each batch is signed over its own payload, with the context of batches', () => {
    const signed: Uint8Array[] = []
    const record = new OwnRecord('me', 1, bytes => {
      signed.push(bytes)
      return SIGNATURE
    })
    record.set('a', 1)
    const [batch] = record.publish().batches
    expect(signed).toEqual([signedBytes(batch?.payload ?? new Uint8Array())])
  })
})
