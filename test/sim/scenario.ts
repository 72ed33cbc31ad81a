import { checkAtRest } from './checkers.ts'
import { randomFor } from './rng.ts'
import { RouterProtocol } from './router-protocol.ts'
import { SimMesh } from './sim-mesh.ts'
import type { WireConditions } from './wire.ts'

/**
 * Runs a scenario written as text and answers the transcript: what every `show` found, a line each.
 *
 * Lines before `----` are commands, lines after it what must come out; empty lines and `#` are skipped. `N` is a node's
 * name or a range such as `n0..n199`, `A-B` a pair. docs/simulate.md lists the commands.
 */
export function runScenario(text: string, seed: number): { found: string[]; expected: string[]; transcript: string } {
  const [commands = '', expectation = ''] = text.split(/^----$/m)
  const scenario = new Scenario(meaningful(commands), seed)
  return { ...scenario.execute(), expected: meaningful(expectation) }
}

function meaningful(text: string): string[] {
  return text
    .split('\n')
    .map(line => line.trim())
    .filter(line => line !== '' && !line.startsWith('#'))
}

interface Line {
  readonly text: string
  readonly args: readonly string[]
  readonly options: ReadonlyMap<string, string>
}

type Command = (line: Line) => void

/** One scenario under way. */
class Scenario {
  private readonly lines: readonly string[]
  private readonly seed: number
  private readonly found: string[] = []
  private readonly churnRandom: () => number
  private readonly router: Record<string, number> = {}
  private known: SimMesh | undefined
  private isTcp = false
  private isModelled = false

  constructor(lines: readonly string[], seed: number) {
    this.lines = lines
    this.seed = seed
    this.churnRandom = randomFor(seed, 'scenario churn')
  }

  execute(): { found: string[]; transcript: string } {
    for (const text of this.lines) {
      const [name = '', ...words] = text.split(/\s+/)
      const command = Object.hasOwn(this.commands, name) ? this.commands[name] : undefined
      if (command === undefined) throw new Error(`scenario: expected a command, found "${text}"`)
      command({
        text,
        args: words.filter(word => !word.includes('=')),
        options: new Map(words.filter(word => word.includes('=')).map(word => word.split('=') as [string, string])),
      })
    }
    return { found: this.found, transcript: this.mesh.transcript?.digest() ?? '' }
  }

  /** Made by the first command that needs it, so that `options` can come before. */
  private get mesh(): SimMesh {
    const heartbeats = this.isModelled ? 'modelled' : 'exact'
    this.known ??= new SimMesh({
      seed: this.seed,
      router: this.router,
      overlay: { retransmit: this.isTcp, heartbeats },
    })
    return this.known
  }

  private readonly commands: Readonly<Record<string, Command>> = {
    options: ({ options }) => {
      for (const [key, value] of options) this.router[key] = Number(value)
    },
    tcp: () => {
      this.isTcp = true
    },
    modelled: () => {
      this.isModelled = true
    },
    nodes: line => {
      for (const name of names(line.args)) this.mesh.addNode(name, { seeds: seedsOf(line) })
    },
    /** Wires from every node to every other. */
    full: line => {
      const all = names(line.args)
      for (const [i, a] of all.entries()) for (const b of all.slice(i + 1)) this.link(a, b, line)
    },
    /** Wires only: the nodes do not get each other's address, they must find each other through their seeds. */
    wires: line => {
      const all = names(line.args)
      for (const [i, a] of all.entries()) {
        for (const b of all.slice(i + 1)) {
          this.link(a, b, line)
          const [from, to] = [this.mesh.node(a), this.mesh.node(b)]
          if (!from.seeds.has(to.id)) from.known.delete(to.id)
          if (!to.seeds.has(from.id)) to.known.delete(from.id)
        }
      }
    },
    links: line => {
      for (const [a, b] of pairs(line)) this.link(a, b, line)
    },
    serve: ({ args, options }) => {
      const instances = Number(options.get('instances') ?? 1)
      const healthy = Number(options.get('healthy') ?? instances)
      const [who = '', ...services] = args
      for (const node of names([who])) for (const name of services) this.mesh.serve(node, { name, instances, healthy })
    },
    withdraw: ({ args: [who = '', ...services] }) => {
      for (const node of names([who])) for (const name of services) this.mesh.withdraw(node, name)
    },
    cut: line => {
      for (const [a, b] of pairs(line)) this.mesh.cut(a, b)
    },
    heal: line => {
      for (const [a, b] of pairs(line)) this.mesh.heal(a, b)
    },
    /** `oneway a-b`: nothing gets from a to b any more; the other way is open. */
    oneway: line => {
      for (const [a, b] of pairs(line)) this.mesh.cut(a, b, true)
    },
    change: line => {
      for (const [a, b] of pairs(line)) this.mesh.change(a, b, conditionsOf(line))
    },
    /** `split a b | c d`: everything between the two sides is cut. */
    split: ({ text }) => this.mesh.split(groupsOf(text)),
    unsplit: ({ text }) => this.mesh.healSplit(groupsOf(text)),
    flap: line => {
      const everyMs = Number(line.options.get('everyMs') ?? 1000)
      const times = Number(line.options.get('times') ?? 10)
      for (const [a, b] of pairs(line)) {
        for (let i = 0; i < times; i++) {
          this.mesh.queue.after(2 * i * everyMs, () => this.mesh.cut(a, b))
          this.mesh.queue.after((2 * i + 1) * everyMs, () => this.mesh.heal(a, b))
        }
      }
      this.mesh.run(2 * times * everyMs)
    },
    /** `flutter a orders everyMs=300 times=20`: the service goes and comes back. */
    flutter: ({ args: [node = '', service = ''], options }) => {
      const everyMs = Number(options.get('everyMs') ?? 300)
      for (let i = 0; i < Number(options.get('times') ?? 10); i++) {
        this.mesh.withdraw(node, service)
        this.mesh.run(everyMs)
        this.mesh.serve(node, { name: service })
        this.mesh.run(everyMs)
      }
    },
    /** `churn a b times=50 overMs=10000`: services x0..x9 come and go at random nodes of these. */
    churn: ({ args, options }) => {
      const [all, times] = [names(args), Number(options.get('times') ?? 50)]
      for (let i = 0; i < times; i++) {
        const [who, which, isGone] = [this.churnRandom(), this.churnRandom(), this.churnRandom() < 0.5]
        const node = all[Math.floor(who * all.length)] as string
        const name = `x${Math.floor(which * 10)}`
        if (isGone) this.mesh.withdraw(node, name)
        else this.mesh.serve(node, { name, instances: 1 + Math.floor(which * 3) })
        this.mesh.run(Number(options.get('overMs') ?? 10_000) / times)
      }
    },
    crash: ({ args }) => {
      for (const name of names(args)) this.mesh.crash(name)
    },
    stop: ({ args }) => {
      for (const name of names(args)) this.mesh.stop(name)
    },
    freeze: ({ args }) => {
      for (const name of names(args)) this.mesh.freeze(name)
    },
    thaw: ({ args }) => {
      for (const name of names(args)) this.mesh.thaw(name)
    },
    restart: ({ args, options }) => {
      for (const name of names(args)) {
        this.mesh.restart(name, {
          services: options.get('services') === 'kept',
          state: options.get('state') !== 'lost',
          clock: options.get('clock') === 'lost' ? 'lost' : 'kept',
        })
      }
    },
    drain: ({ args }) => {
      for (const name of names(args)) this.mesh.drain(name)
    },
    wait: ({ args: [ms = '0'] }) => this.mesh.run(Number(ms)),
    settle: ({ args: [ms] }) => {
      this.mesh.settle(ms === undefined ? undefined : Number(ms))
    },
    /** Fails unless the checkers find all well within that time. */
    check: ({ args: [ms = '10000'] }) => {
      const violations = checkAtRest(this.mesh, Number(ms))
      for (const { check, node, what } of violations) this.found.push(`violated: ${check} ${node} ${what}`)
      if (violations.length === 0) this.found.push('all well')
    },
    say: ({ text }) => {
      this.found.push(text.replace(/^say\s+/, ''))
    },
    show: ({ args: [service = '', , ...at] }) => {
      const all = at.length > 0 ? names(at) : [...this.mesh.nodes.keys()]
      this.found.push(...all.filter(name => this.mesh.node(name).alive).map(name => this.show(name, service)))
    },
    /** How many living nodes hold a route of the service that calls may take, and how many know of one that they may not. */
    count: ({ args: [service = ''] }) => {
      const tables = this.mesh.living().map(({ name }) => this.table(name))
      const ready = tables.filter(table => table.candidates(service).length > 0).length
      const known = tables.filter(table => table.knows(service)).length
      this.found.push(`${service}: ${ready} of ${tables.length} can call it, ${known} know it`)
    },
  }

  private link(a: string, b: string, line: Line): void {
    this.mesh.link(a, b, conditionsOf(line, 20))
  }

  private table(name: string): RouterProtocol['router']['table'] {
    const { protocol } = this.mesh.node(name)
    if (!(protocol instanceof RouterProtocol)) throw new Error('scenario: only the router has a table to show')
    return protocol.router.table
  }

  private show(name: string, service: string): string {
    const table = this.table(name)
    if (!table.knows(service)) return `${name}: ${service} unknown`
    const [best] = table.candidates(service)
    if (best === undefined) return `${name}: ${service} nowhere (${table.explain(service)[0]?.state})`
    if (best.path.length === 0) return `${name}: ${service} here`
    const relays = best.path.slice(0, -1).map(id => this.mesh.nameOf(id))
    const via = relays.length > 0 ? ` via ${relays.join('>')}` : ''
    return `${name}: ${service} at ${best.name}${via} rttMs=${Math.round(best.rttMs)}`
  }
}

/** `n0..n3` stands for n0 n1 n2 n3. */
function names(args: readonly string[]): string[] {
  return args.flatMap(arg => {
    const [, prefix = '', first, last] = /^([a-z-]+)(\d+)\.\.[a-z-]+(\d+)$/.exec(arg) ?? []
    if (first === undefined || last === undefined) return [arg]
    return Array.from({ length: Number(last) - Number(first) + 1 }, (_, i) => `${prefix}${Number(first) + i}`)
  })
}

function pairs({ args, text }: Line): [string, string][] {
  return args.map(arg => {
    const [a, b] = arg.split('-')
    if (a === undefined || b === undefined) throw new Error(`scenario: expected pairs such as a-b, found "${text}"`)
    return [a, b]
  })
}

function groupsOf(text: string): string[][] {
  const [, sides = ''] = /^\S+\s+(.*)$/.exec(text) ?? []
  return sides.split('|').map(side => names(side.trim().split(/\s+/)))
}

function seedsOf({ options }: Line): string[] {
  return options.get('seeds')?.split(',') ?? []
}

function conditionsOf({ options }: Line, rttMs?: number): Partial<WireConditions> {
  const conditions: Partial<WireConditions> = {}
  const given = options.get('rttMs') ?? rttMs
  if (given !== undefined) conditions.latencyMs = Number(given) / 2
  for (const key of ['jitterMs', 'loss', 'duplicate', 'reorder', 'bytesPerSecond'] as const) {
    const value = options.get(key)
    if (value !== undefined) conditions[key] = Number(value)
  }
  return conditions
}
