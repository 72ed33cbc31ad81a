import { isMainThread, workerData } from 'node:worker_threads'
import { invariant } from '../../router/errors.ts'
import type { NodeId } from '../../router/model.ts'
import { NodeNumbers } from '../../router/node-numbers.ts'
import type { RouterOptions } from '../../router/router.ts'
import { ByteRing } from './byte-ring.ts'
import { randomFor } from './rng.ts'
import { RouterProtocol } from './router-protocol.ts'
import { SimSigning } from './signing.ts'
import { type Command, type NodeNames, type Question, StepReader, StepWriter } from './step-codec.ts'
import { Watches } from './watches.ts'

/** What the thread is given as it starts. */
export interface HostData {
  readonly orders: SharedArrayBuffer
  readonly replies: SharedArrayBuffer
  readonly seed: number
  readonly signatures: 'stub' | 'ed25519'
  readonly router: Partial<RouterOptions>
}

/** The ids of the mesh's nodes by their numbers, as they become known. */
export class NumberedNodes implements NodeNames {
  private readonly ids: NodeId[] = []
  private readonly numbers = new Map<NodeId, number>()

  add(node: number, id: NodeId): void {
    this.ids[node] = id
    this.numbers.set(id, node)
  }

  idOf(node: number): NodeId {
    const id = this.ids[node]
    invariant(id !== undefined, `node ${node} is not known in this thread`)
    return id
  }

  numberOf(id: NodeId): number {
    const node = this.numbers.get(id)
    invariant(node !== undefined, `node ${id} is not known in this thread`)
    return node
  }
}

/** Some of a mesh's routers, at work in a thread of their own: steps in, what came of them out, in the order in which they came. */
class RouterHost {
  private readonly data: HostData
  private readonly names = new NumberedNodes()
  private readonly reader: StepReader
  private readonly writer: StepWriter
  private readonly signing: SimSigning
  private readonly numbers = new NodeNumbers()
  private readonly watches = new Watches()
  private readonly hosted = new Map<number, RouterProtocol>()

  constructor(data: HostData) {
    this.data = data
    this.reader = new StepReader(new ByteRing(data.orders), this.names)
    this.writer = new StepWriter(new ByteRing(data.replies), this.names)
    this.signing = new SimSigning(data.signatures)
  }

  /** Works until it is told that it is over. */
  work(): void {
    for (;;) {
      const order = this.reader.order()
      if ('event' in order)
        this.reply(() => this.writer.outcome(this.node(order.node).begin(order.event, order.nowMs)()))
      else if (order.type === 'end') return
      else this.obey(order)
    }
  }

  /** Whoever has asked gets a reply, whatever happens. */
  private reply(run: () => void): void {
    try {
      run()
    } catch (error) {
      this.writer.threw(error)
    }
  }

  private obey(command: Exclude<Command, { type: 'end' }>): void {
    switch (command.type) {
      case 'name':
        this.names.add(command.node, command.id)
        this.numbers.take(command.id)
        return
      case 'host': {
        const self = this.names.idOf(command.node)
        const random = randomFor(this.data.seed, `protocol ${self} ${command.life}`)
        const { signing, numbers, watches } = this
        const deps = { self, incarnation: command.incarnation, random, signing, numbers, watches }
        this.hosted.set(command.node, new RouterProtocol(deps, this.data.router))
        return
      }
      case 'watch':
        this.watches.add(this.names.idOf(command.owner), command.service, command.watch)
        return
      case 'unwatch':
        this.watches.delete(this.names.idOf(command.owner), command.service)
        return
      case 'ask':
        this.reply(() => this.writer.answer(this.answer(command.question)))
    }
  }

  private answer(question: Question): unknown {
    switch (question.about) {
      case 'signatures':
        return { signed: this.signing.signed, checked: this.signing.checked }
      case 'holders': {
        const owner = this.names.idOf(question.owner)
        return [...this.hosted].filter(([, node]) => node.has(owner, question.service)).map(([number]) => number)
      }
      case 'shows':
        return this.node(question.node).shows(this.names.idOf(question.owner), question.service)
      case 'nearest':
        return [...this.node(question.node).router.table.nearest(question.count)]
    }
    const node = this.node(question.node)
    const { table } = node.router
    switch (question.about) {
      case 'hasNews':
        return node.hasNews
      case 'routes':
        return node.routes()
      case 'heldBytes':
        return node.heldBytes()
      case 'refused':
        return [...node.refused()]
      case 'versions':
        return [...node.versions()]
      case 'services':
        return [...table.nodeIds()].map(id => [id, table.servicesOf(id)])
      case 'paths':
        return [...table.nodeIds()].flatMap(id => {
          const path = table.path(id)
          return path === undefined ? [] : [[id, path.path, path.rttMs]]
        })
    }
  }

  private node(number: number): RouterProtocol {
    const node = this.hosted.get(number)
    invariant(node !== undefined, `node ${number} is not hosted in this thread`)
    return node
  }
}

if (!isMainThread) new RouterHost(workerData as HostData).work()
