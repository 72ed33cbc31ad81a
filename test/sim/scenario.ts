import { SimMesh } from './sim-mesh.ts'

/**
 * Runs a scenario written as text and answers the transcript: what every `show` found, a line each.
 *
 * Lines before `----` are commands, lines after it what must come out. Commands: `nodes a b`, `links a-b b-c rttMs=20
 * loss=0.05`, `serve NODE SERVICE [instances=3 healthy=2]`, `withdraw NODE SERVICE`, `cut a-b`, `heal a-b`, `crash a`,
 * `restart a [clock=lost]`, `wait MS`, `settle [MS]`, `show SERVICE [at a b]`, `say TEXT`. Empty lines and `#` are skipped.
 */
export function runScenario(text: string, seed: number): { found: string[]; expected: string[] } {
  const [commands = '', expectation = ''] = text.split(/^----$/m)
  const mesh = new SimMesh(seed)
  const found: string[] = []
  for (const line of meaningful(commands)) runCommand(mesh, line, found)
  return { found, expected: meaningful(expectation) }
}

function meaningful(text: string): string[] {
  return text
    .split('\n')
    .map(line => line.trim())
    .filter(line => line !== '' && !line.startsWith('#'))
}

function runCommand(mesh: SimMesh, line: string, found: string[]): void {
  const words = line.split(/\s+/)
  const [command, ...rest] = words
  const args = rest.filter(word => !word.includes('='))
  const options = new Map(rest.filter(word => word.includes('=')).map(word => word.split('=') as [string, string]))
  const number = (name: string, fallback: number): number => Number(options.get(name) ?? fallback)
  const [first = '', second = ''] = args
  const pairs = args.map(pair => pair.split('-') as [string, string])
  switch (command) {
    case 'nodes':
      return args.forEach(name => mesh.addNode(name))
    case 'links':
      return pairs.forEach(([a, b]) => mesh.link(a, b, number('rttMs', 20), number('loss', 0)))
    case 'serve':
      return mesh.serve(first, second, number('instances', 1), number('healthy', number('instances', 1)))
    case 'withdraw':
      return mesh.serve(first, second, 0)
    case 'cut':
      return pairs.forEach(([a, b]) => mesh.cut(a, b))
    case 'heal':
      return pairs.forEach(([a, b]) => mesh.heal(a, b))
    case 'crash':
      return args.forEach(name => mesh.crash(name))
    case 'restart':
      return args.forEach(name => mesh.restart(name, options.get('clock') !== 'lost'))
    case 'wait':
      return mesh.run(Number(first))
    case 'settle':
      mesh.settle(first === '' ? undefined : Number(first))
      return
    case 'say':
      found.push(rest.join(' '))
      return
    case 'show': {
      const at = args[1] === 'at' ? args.slice(2) : [...mesh.nodes.keys()]
      found.push(...at.filter(name => mesh.node(name).alive).map(name => show(mesh, name, first)))
      return
    }
    default:
      throw new Error(`scenario: unknown command in "${line}"`)
  }
}

function show(mesh: SimMesh, name: string, service: string): string {
  const { table } = mesh.node(name).router
  if (!table.knows(service)) return `${name}: ${service} unknown`
  const [best] = table.candidates(service)
  if (best === undefined) return `${name}: ${service} nowhere (${table.explain(service)[0]?.state})`
  if (best.path.length === 0) return `${name}: ${service} here`
  const via = best.path.length > 1 ? ` via ${best.path.slice(0, -1).join('>')}` : ''
  return `${name}: ${service} at ${best.node}${via} rttMs=${Math.round(best.rttMs)}`
}
