import { describe, expect, test, vi } from 'vitest'
import { MemoryNetwork, MemoryOverlay } from './memory-overlay.ts'
import { overlayContract } from './overlay-contract.ts'

describe('the overlay in memory', () => {
  overlayContract(async () => {
    const network = new MemoryNetwork()
    const ids = ['a', 'b', 'c'] as const
    return {
      ids,
      make: (index, handler) => new MemoryOverlay({ node: ids[index], network, handler }),
      addresses: index => [`/memory/${ids[index]}`],
      close: async () => {},
    }
  })

  test('a cut takes the link down at both ends and a heal brings it back unasked', async () => {
    const network = new MemoryNetwork()
    const seen: string[] = []
    const handler = (me: string) => ({
      onLinkUp: (node: string) => seen.push(`${me} up ${node}`),
      onLinkDown: (node: string) => seen.push(`${me} down ${node}`),
      onRtt() {},
      onFrame() {},
    })
    const a = new MemoryOverlay({ node: 'a', network, handler: handler('a') })
    const b = new MemoryOverlay({ node: 'b', network, handler: handler('b') })
    await a.start()
    await b.start()
    a.learn('b')
    network.cut('a', 'b')
    network.heal('a', 'b')
    await vi.waitFor(() => expect(seen).toHaveLength(6))
    expect(seen.sort()).toEqual(['a down b', 'a up b', 'a up b', 'b down a', 'b up a', 'b up a'])
  })
})
