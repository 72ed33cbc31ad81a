import type { Duplex } from 'node:stream'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import type { NodeId } from '../router/model.ts'
import type { Overlay, OverlayHandler } from './overlay.ts'

/** What one node of the contract saw, in order, such as `up b`, `frame b hello`, `down b`. */
export interface Recorder extends OverlayHandler {
  readonly streams: { readonly node: NodeId; readonly stream: Duplex }[]
  readonly seen: string[]
}

/** How a kind of overlay is built for the contract. */
export interface OverlayWorld {
  readonly ids: readonly [NodeId, NodeId, NodeId]
  make(index: 0 | 1 | 2, handler: OverlayHandler): Overlay
  /** Multiaddrs by which a started node can be learned. */
  addresses(index: 0 | 1 | 2): readonly string[]
  close(): Promise<void>
}

const WAIT = { timeout: 15_000, interval: 20 }

/** The promises of Overlay that do not depend on what carries it. */
export function overlayContract(makeWorld: () => Promise<OverlayWorld>): void {
  let world: OverlayWorld
  let overlays: Overlay[]
  let recorders: Recorder[]

  beforeEach(async () => {
    world = await makeWorld()
    recorders = [0, 1, 2].map(() => recorder(world))
    overlays = ([0, 1, 2] as const).map(index => world.make(index, recorders[index] as Recorder))
  })
  afterEach(async () => {
    await Promise.all(overlays.map(overlay => overlay.stop()))
    await world.close()
  })

  const learn = (from: 0 | 1 | 2, to: 0 | 1 | 2): void =>
    (overlays[from] as Overlay).learn(world.ids[to], world.addresses(to))
  const seen = (index: number): string[] => (recorders[index] as Recorder).seen

  test('a link comes up at both ends when one of them learned of the other', async () => {
    await Promise.all(overlays.map(overlay => overlay.start()))
    learn(0, 1)
    await vi.waitFor(() => {
      expect(seen(0)).toContain('up 1')
      expect(seen(1)).toContain('up 0')
    }, WAIT)
    expect(overlays[0]?.links().map(link => link.node)).toEqual([world.ids[1]])
  })

  test('frames arrive whole, in order and at the right node, both ways', async () => {
    await Promise.all(overlays.map(overlay => overlay.start()))
    learn(0, 1)
    learn(0, 2)
    await vi.waitFor(() => expect(overlays[0]?.links()).toHaveLength(2), WAIT)
    await vi.waitFor(() => expect(seen(1)).toContain('up 0'), WAIT)
    const big = new Uint8Array(200_000).fill(7)
    for (let i = 0; i < 50; i++) overlays[0]?.send(world.ids[1], new TextEncoder().encode(`n${i}`))
    overlays[0]?.send(world.ids[1], big)
    overlays[1]?.send(world.ids[0], new TextEncoder().encode('back'))
    const frames = (index: number): string[] => seen(index).filter(line => line.startsWith('frame'))
    await vi.waitFor(() => expect(frames(1)).toHaveLength(51), WAIT)
    expect(frames(1).slice(0, 50)).toEqual(Array.from({ length: 50 }, (_, i) => `frame 0 n${i}`))
    expect(frames(1)[50]).toBe('frame 0 200000 bytes')
    await vi.waitFor(() => expect(frames(0)).toEqual(['frame 1 back']), WAIT)
    expect(frames(2)).toEqual([])
  })

  test('sending to a node without a link is lost in silence', async () => {
    await Promise.all(overlays.map(overlay => overlay.start()))
    overlays[0]?.send(world.ids[1], new Uint8Array([1]))
    overlays[0]?.send('nobody', new Uint8Array([1]))
    expect(overlays[0]?.links()).toEqual([])
  })

  test('both dial at once and one link comes of it; it goes down once when the other end stops', async () => {
    await Promise.all(overlays.map(overlay => overlay.start()))
    learn(0, 1)
    learn(1, 0)
    await vi.waitFor(() => {
      expect(seen(0)).toContain('up 1')
      expect(seen(1)).toContain('up 0')
    }, WAIT)
    await overlays[1]?.stop()
    await vi.waitFor(() => expect(seen(0)).toContain('down 1'), WAIT)
    expect(seen(0).filter(line => /^(up|down)/.test(line))).toEqual(['up 1', 'down 1'])
  })

  test('a stream for calls carries bytes both ways, holds its writer back, and ends with its link', async () => {
    await Promise.all(overlays.map(overlay => overlay.start()))
    learn(0, 1)
    await vi.waitFor(() => {
      expect(overlays[0]?.isLinked(world.ids[1])).toBe(true)
      expect(seen(1)).toContain('up 0')
    }, WAIT)
    expect(overlays[0]?.isLinked(world.ids[2])).toBe(false)
    await expect(overlays[0]?.openCalls(world.ids[2], 1000)).rejects.toThrow('no overlay link')
    const mine = await overlays[0]?.openCalls(world.ids[1], 10_000)
    if (mine === undefined) throw new Error('expected a stream')
    mine.write('hello')
    await vi.waitFor(() => expect(recorders[1]?.streams).toHaveLength(1), WAIT)
    const { node, stream: theirs } = recorders[1]?.streams[0] ?? { node: '', stream: mine }
    expect(node).toBe(world.ids[0])
    const heard = (stream: Duplex): Promise<string> =>
      new Promise(resolve => stream.once('data', (bytes: Buffer) => resolve(bytes.toString())))
    expect(await heard(theirs)).toBe('hello')
    theirs.write('back')
    expect(await heard(mine)).toBe('back')
    // Nobody reads: the writer is stopped long before 16 MiB.
    theirs.pause()
    let sentBytes = 0
    const chunk = Buffer.alloc(64 * 1024)
    const pour = (): void => {
      while (sentBytes < 16 * 1024 * 1024) {
        sentBytes += chunk.length
        if (!mine.write(chunk)) return
      }
      mine.end()
    }
    mine.on('drain', pour)
    pour()
    let settled = -1
    await vi.waitFor(
      () => {
        const isStill = settled === sentBytes
        settled = sentBytes
        expect(isStill).toBe(true)
      },
      { ...WAIT, interval: 100 },
    )
    expect(sentBytes).toBeLessThan(8 * 1024 * 1024)
    let readBytes = 0
    theirs.on('data', (bytes: Buffer) => {
      readBytes += bytes.length
    })
    theirs.resume()
    await vi.waitFor(() => expect(readBytes).toBe(16 * 1024 * 1024), WAIT)
    const other = await overlays[0]?.openCalls(world.ids[1], 10_000)
    await overlays[1]?.stop()
    await vi.waitFor(() => expect(other?.destroyed).toBe(true), WAIT)
  })

  test('what is not chosen is not linked; what is chosen again is linked again', async () => {
    await Promise.all(overlays.map(overlay => overlay.start()))
    overlays[0]?.choose(new Set([world.ids[1]]))
    learn(0, 1)
    learn(0, 2)
    const linked = (): string[] => (overlays[0]?.links() ?? []).map(({ node }) => node).sort()
    const ends = (): string[] => seen(1).filter(line => /^(up|down)/.test(line))
    await vi.waitFor(() => expect([linked(), ends()]).toEqual([[world.ids[1]], ['up 0']]), WAIT)
    overlays[0]?.choose(new Set([world.ids[2]]))
    await vi.waitFor(() => expect(linked()).toEqual([world.ids[1], world.ids[2]].sort()), WAIT)
    overlays[0]?.leave(world.ids[1])
    expect(linked()).toEqual([world.ids[2]])
    await vi.waitFor(() => expect(ends()).toEqual(['up 0', 'down 0']), WAIT)
    // The other end of a link may want it where this one does not.
    learn(2, 0)
    overlays[0]?.choose(undefined)
    await vi.waitFor(() => expect(linked()).toEqual([world.ids[1], world.ids[2]].sort()), WAIT)
  })

  test('a link that is left is down here at once, and what both say before it is closed still arrives', async () => {
    await Promise.all(overlays.map(overlay => overlay.start()))
    learn(0, 1)
    await vi.waitFor(() => expect([seen(0), seen(1)]).toEqual([['up 1'], ['up 0']]), WAIT)
    overlays[0]?.choose(new Set())
    overlays[0]?.leave(world.ids[1])
    overlays[0]?.leave(world.ids[1])
    expect([overlays[0]?.isLinked(world.ids[1]), overlays[0]?.links()]).toEqual([false, []])
    overlays[1]?.send(world.ids[0], new TextEncoder().encode('last words'))
    overlays[0]?.send(world.ids[1], new TextEncoder().encode('an answer'))
    await expect(overlays[0]?.openCalls(world.ids[1], 1000)).rejects.toThrow('no overlay link')
    await vi.waitFor(() => expect(seen(1)).toEqual(['up 0', 'frame 0 an answer', 'down 0']), WAIT)
    expect(seen(0)).toEqual(['up 1', 'leave 1', 'frame 1 last words'])
    // It is no end for ever.
    overlays[0]?.choose(undefined)
    await vi.waitFor(() => expect(seen(0).at(-1)).toBe('up 1'), WAIT)
  })

  test('a link that the other end dialled is not for this one to leave', async () => {
    await Promise.all(overlays.map(overlay => overlay.start()))
    learn(1, 0)
    await vi.waitFor(() => expect([seen(0), seen(1)]).toEqual([['up 1'], ['up 0']]), WAIT)
    overlays[0]?.leave(world.ids[1])
    overlays[0]?.leave(world.ids[2])
    expect([overlays[0]?.isLinked(world.ids[1]), seen(0)]).toEqual([true, ['up 1']])
  })

  test('a link that is not wanted any more stays while it carries a stream of calls', async () => {
    await Promise.all(overlays.map(overlay => overlay.start()))
    learn(0, 1)
    learn(0, 2)
    await vi.waitFor(() => expect(overlays[0]?.links()).toHaveLength(2), WAIT)
    const stream = await overlays[0]?.openCalls(world.ids[1], 10_000)
    stream?.write('hello')
    await vi.waitFor(() => expect(recorders[1]?.streams).toHaveLength(1), WAIT)
    // Neither is wanted: the one that carries nothing goes, and the other had the same time to go.
    const isLinked = (to: 1 | 2): boolean | undefined => overlays[0]?.isLinked(world.ids[to])
    const isInUse = (): boolean[] => overlays[0]?.links().map(link => link.isInUse) ?? []
    overlays[0]?.choose(new Set())
    for (const to of [1, 2] as const) overlays[0]?.leave(world.ids[to])
    await vi.waitFor(() => expect(seen(2)).toEqual(['up 0', 'down 0']), WAIT)
    expect([isLinked(1), isLinked(2), isInUse(), stream?.destroyed]).toEqual([true, false, [true], false])
    stream?.destroy()
    await vi.waitFor(() => {
      expect(isInUse()).toEqual([false])
      overlays[0]?.leave(world.ids[1])
      expect(isLinked(1)).toBe(false)
    }, WAIT)
  })

  test('a node learned before it exists is linked as soon as it does', async () => {
    await overlays[0]?.start()
    learn(0, 1)
    await overlays[1]?.start()
    learn(1, 0)
    await vi.waitFor(() => expect(seen(0)).toContain('up 1'), WAIT)
  })
}

function recorder(world: OverlayWorld): Recorder {
  const seen: string[] = []
  const streams: { node: NodeId; stream: Duplex }[] = []
  const name = (node: NodeId): number => world.ids.indexOf(node)
  return {
    seen,
    streams,
    onCallStream: (node, stream) => void streams.push({ node, stream }),
    onLinkUp: node => seen.push(`up ${name(node)}`),
    onLinkDown: (node, _reason, isPlanned) => seen.push(`${isPlanned ? 'leave' : 'down'} ${name(node)}`),
    onRtt() {},
    onFrame: (node, bytes) => {
      const text = bytes.length > 100 ? `${bytes.length} bytes` : new TextDecoder().decode(bytes)
      seen.push(`frame ${name(node)} ${text}`)
    },
  }
}
