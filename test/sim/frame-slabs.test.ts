import { expect, test } from 'vitest'
import { FrameSlabs } from './frame-slabs.ts'

const frame = (length: number, fill: number): Uint8Array => new Uint8Array(length).fill(fill)

test('a frame is as it was sent until it has arrived as often as it will, whatever was sent meanwhile', () => {
  const slabs = new FrameSlabs()
  const underWay: { held: ReturnType<FrameSlabs['hold']>; due: number; fill: number; length: number }[] = []
  for (let i = 0; i < 400; i++) {
    const [length, fill, due] = [1 + ((i * 7919) % 50_000), i % 256, 1 + (i % 3)]
    underWay.push({ held: slabs.hold(frame(length, fill), due), due, fill, length })
    if (i % 4 === 3) {
      const [arrived] = underWay.splice((i * 31) % underWay.length, 1)
      for (let time = 0; time < (arrived?.due ?? 0); time++) {
        expect(arrived?.held.bytes).toEqual(frame(arrived?.length ?? 0, arrived?.fill ?? 0))
        arrived?.held.release()
      }
    }
  }
  for (const { held, fill, length } of underWay) expect(held.bytes).toEqual(frame(length, fill))
})

test('memory is used again once all in it have arrived', () => {
  const slabs = new FrameSlabs()
  const buffers = new Set<ArrayBufferLike>()
  for (let i = 0; i < 1000; i++) {
    const held = slabs.hold(frame(10_000, i % 256), 1)
    buffers.add(held.bytes.buffer)
    held.release()
  }
  expect(buffers.size).toBeLessThanOrEqual(2)
})
