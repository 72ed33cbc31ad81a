import { describe, expect, it } from 'vitest'
import { LinkLoad } from './link-load.ts'

const MIB = 1024 * 1024

/** A load after so many looks, before each of which frames of `frameBytes` came to `bytes` in all. */
function looked(load: LinkLoad, times: number, bytes: number, frameBytes = 64 * 1024): LinkLoad {
  for (let i = 0; i < times; i++) {
    for (let sent = 0; sent < bytes; sent += frameBytes) load.onDataSent(frameBytes)
    load.look(false)
  }
  return load
}

describe('the load of a link', () => {
  it('is crowded when bulk has gone over it for most of the last second, until it has not for more than that', () => {
    const load = new LinkLoad()
    expect(looked(load, 2, MIB).isCrowded).toBe(false)
    expect(looked(load, 1, MIB).isCrowded).toBe(true)
    expect(looked(load, 20, MIB).isCrowded).toBe(true)
    expect(looked(load, 4, 0).isCrowded).toBe(true)
    expect(looked(load, 1, 0).isCrowded).toBe(false)
  })

  it('is crowded when what is to be sent waits for the link, however little it is', () => {
    const load = new LinkLoad()
    for (let i = 0; i < 3; i++) load.look(true)
    expect(load.isCrowded).toBe(true)
  })

  it('is not crowded by small calls, however many there are', () => {
    expect(looked(new LinkLoad(), 20, 8 * MIB, 4096).isCrowded).toBe(false)
  })

  it('believes the peer for about a second', () => {
    const load = new LinkLoad()
    load.onPeerWord()
    expect([looked(load, 3, 0).isCrowded, load.isSendingCrowded]).toEqual([true, false])
    expect(looked(load, 1, 0).isCrowded).toBe(false)
  })

  it('remembers what passed between the last two looks', () => {
    const load = new LinkLoad()
    load.passedBytes += 300
    load.look(false)
    load.passedBytes += 5
    expect(load.recentBytes).toBe(300)
    load.look(false)
    expect(load.recentBytes).toBe(5)
  })
})
