import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { cpuSeconds } from '../../bench/process.ts'
import { createMesh, endWithThisProcess, type MeshProcesses, waitUntil } from './daemon-process.ts'
import { printFigure } from './http-client.ts'
import { MemoryWatch } from './memory-watch.ts'

const PEER = join(import.meta.dirname, 'tcp-peer.ts')
const HELD = 5_000
/** So many new connections, so many at a time. */
const OPENED = Number(process.env.FLATMESH_TCP_CONNECTIONS ?? 10_000)
const WIDTH = 64
/** What a stopping daemon waits here. */
const DRAIN_MS = 1_500

/** One end of many connections, in a process of its own. */
class Peer {
  readonly child: ChildProcess
  private output = ''

  constructor(...words: string[]) {
    this.child = spawn(process.execPath, [PEER, ...words], { stdio: ['pipe', 'pipe', 'inherit'] })
    endWithThisProcess(this.child)
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.output += text
    })
  }

  /** What it said last in a line that begins with `word`. */
  last(word: string): string | undefined {
    return this.output
      .split('\n')
      .findLast(line => line.startsWith(`${word} `))
      ?.slice(word.length + 1)
  }

  heard(word: string, text?: string): Promise<string> {
    return waitUntil(`a peer says ${word} ${text ?? '…'}`, () => {
      if (this.child.exitCode !== null && this.child.exitCode !== 0) throw new Error('the peer has failed')
      const last = this.last(word)
      return text === undefined || last === text ? last : undefined
    })
  }
}

describe('TCP between two regions', () => {
  let instance: Peer
  let mesh: MeshProcesses
  let listener = ''

  beforeAll(async () => {
    instance = new Peer('serve')
    const address = await instance.heard('at')
    mesh = await createMesh({
      nodes: [
        {
          ...{ name: 'a', region: 'region-a' },
          config: { listeners: [{ tcp: '127.0.0.1:0', service: 'echo' }], proxy: { drainMs: DRAIN_MS } },
        },
        { name: 'b', region: 'region-b' },
      ],
    })
    mesh.node('b').writeServices([{ name: 'echo', protocol: 'tcp', instances: [{ address }] }])
    await mesh.converged()
    await waitUntil('a knows the service', async () => {
      return (await mesh.node('a').explain('echo')).choice === 'b' ? true : undefined
    })
    listener = mesh.node('a').listen.tcp[0]?.address ?? ''
  })

  afterAll(async () => {
    await mesh?.stop()
    instance?.child.kill()
  })

  async function nothingLeft(): Promise<true | undefined> {
    const views = await Promise.all([...mesh.nodes.values()].map(node => node.status()))
    return views.every(({ calls }) => calls.inFlight === 0) ? true : undefined
  }

  async function dial(): Promise<{ socket: Socket; error: () => string }> {
    const [, host = '', port = ''] = /^(.*):(\d+)$/.exec(listener) ?? []
    const socket = connect({ host, port: Number(port), allowHalfOpen: true })
    let error = ''
    socket.on('error', (reason: NodeJS.ErrnoException) => {
      error = reason.code ?? reason.message
    })
    const heard = once(socket, 'data')
    socket.write('x')
    await heard
    return { socket, error: () => error }
  }

  it('tells the real ports in status, listen.json and to people', async () => {
    const tcp = [{ service: 'echo', address: expect.stringMatching(/^127\.0\.0\.1:[1-9]\d*$/) }]
    expect((await mesh.node('a').mustRun('status', '--json')).json).toMatchObject({ listen: { tcp } })
    expect(JSON.parse(readFileSync(join(mesh.node('a').folder, 'data/listen.json'), 'utf8'))).toMatchObject({ tcp })
    expect((await mesh.node('a').mustRun('status')).stdout).toContain(`${listener} for echo`)
  })

  it(`holds ${HELD} connections at once, and lets go of all of them when their client is killed`, async () => {
    const memory = new MemoryWatch(mesh)
    const client = new Peer('hold', listener, String(HELD))
    await client.heard('held', String(HELD))
    await instance.heard('open', String(HELD))
    client.child.stdin?.write('again\n')
    await client.heard('echoed', String(HELD))
    memory.stop()
    for (const [name, samples] of memory.samples) {
      const grownBytes = (samples.at(-1) ?? 0) - (samples[0] ?? 0)
      printFigure(`tcp.held.rssEach.${name}`, grownBytes / HELD / 1000, 'kB')
    }
    const [a, b] = await Promise.all([mesh.node('a').status(), mesh.node('b').status()])
    expect([a.calls.inFlight, b.calls.inFlight]).toEqual([HELD, HELD])
    const killedAtMs = performance.now()
    client.child.kill('SIGKILL')
    await instance.heard('open', '0')
    printFigure('tcp.killedClient.instanceFree', performance.now() - killedAtMs, 'ms')
    await waitUntil('nothing is in flight', nothingLeft)
  })

  it('resets the connection of a client that vanished at the instance, also while it is not read', async () => {
    const [, host = '', port = ''] = /^(.*):(\d+)$/.exec(listener) ?? []
    const before = Number(instance.last('open'))
    const quiet = await dial()
    const stuck = connect({ host, port: Number(port) })
    stuck.on('error', () => {})
    // The echo comes back and is not read: soon nobody on the way reads any more.
    stuck.pause()
    for (let i = 0; i < 500; i++) stuck.write(Buffer.alloc(100_000))
    await instance.heard('open', String(before + 2))
    let last = -1
    let same = 0
    await waitUntil('no more gets through', () => {
      same = stuck.writableLength === last ? same + 1 : 0
      last = stuck.writableLength
      return same > 20 ? true : undefined
    })
    const goneAtMs = performance.now()
    quiet.socket.resetAndDestroy()
    stuck.resetAndDestroy()
    await instance.heard('open', String(before))
    printFigure('tcp.vanishedClients.instanceFree', performance.now() - goneAtMs, 'ms')
    await waitUntil('nothing is in flight', nothingLeft)
  })

  it(`takes ${OPENED} new connections as fast as they come, and fails none`, async () => {
    const names = ['a', 'b']
    const cpuBefore = names.map(name => cpuSeconds(mesh.node(name).pid))
    const client = new Peer('rate', listener, String(OPENED), String(WIDTH))
    const { perSecond, failed } = JSON.parse(await client.heard('rate'))
    printFigure('tcp.newConnections', perSecond, '/s')
    names.forEach((name, i) => {
      const spent = cpuSeconds(mesh.node(name).pid) - (cpuBefore[i] ?? 0)
      printFigure(`tcp.newConnections.cpu.${name}`, (spent * 1e6) / OPENED, 'µs each')
    })
    expect(failed).toBe(0)
    await instance.heard('open', '0')
    await waitUntil('nothing is in flight', nothingLeft)
  })

  it('a stopping daemon takes no new connection, lets those it has go on for drainMs, and then resets them', async () => {
    const { socket, error } = await dial()
    const stopped = mesh.node('a').kill('SIGTERM')
    const [, host = '', port = ''] = /^(.*):(\d+)$/.exec(listener) ?? []
    await waitUntil(
      'a new connection is refused',
      () =>
        new Promise<true | undefined>(resolve => {
          const late = connect({ host, port: Number(port) })
          late.once('error', (reason: NodeJS.ErrnoException) =>
            resolve(reason.code === 'ECONNREFUSED' ? true : undefined),
          )
          late.once('connect', () => {
            late.destroy()
            resolve(undefined)
          })
        }),
    )
    const heard = once(socket, 'data')
    socket.write('y')
    expect(String((await heard)[0])).toBe('y')
    expect(await stopped).toEqual({ code: 0, signal: null })
    await waitUntil('it is reset', () => (error() === 'ECONNRESET' ? true : undefined))
    await instance.heard('open', '0')
  })
})
