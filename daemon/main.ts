import { networkInterfaces } from 'node:os'
import { MeshError } from '../router/errors.ts'
import { type Command, EXIT, exitCodeOf, formatHelp, type Io, parseInvocation } from './command.ts'
import { CALL_COMMANDS } from './commands-call.ts'
import { DAEMON_COMMANDS } from './commands-daemon.ts'
import { MEMBERSHIP_COMMANDS } from './commands-membership.ts'
import { MESH_COMMANDS } from './commands-mesh.ts'
import { SERVICE_COMMANDS } from './commands-service.ts'
import { suggest } from './nearest.ts'
import { rooms } from './rooms.ts'
import { printable } from './table.ts'

/** Every command, in the order of the overview: what a newcomer needs first comes first. */
export const COMMANDS: readonly Command[] = [
  ...MEMBERSHIP_COMMANDS,
  ...DAEMON_COMMANDS,
  ...MESH_COMMANDS,
  ...CALL_COMMANDS,
  ...SERVICE_COMMANDS,
]

/** The program: runs the command line of `process` and leaves its exit code there. */
export async function main(process: NodeJS.Process): Promise<void> {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      // The reader has seen enough (`| head`): that is their right, not our error.
      if (error.code === 'EPIPE') process.exit(process.exitCode ?? EXIT.ok)
      throw error
    })
  }
  process.exitCode = await runCommandLine(process.argv.slice(2), toIo(process))
}

/** Runs one command line and resolves with its exit code. Never rejects: errors are told on `io.stderr`. */
export async function runCommandLine(words: readonly string[], io: Io): Promise<number> {
  try {
    return await dispatch(words, io)
  } catch (error) {
    return tellError(error, words, io)
  }
}

async function dispatch(words: readonly string[], io: Io): Promise<number> {
  const [first, second] = words
  if (first === undefined) {
    io.stderr.write(formatOverview())
    return EXIT.usage
  }
  if (first === '--help' || first === '-h') return printHelp([], io)
  if (first === 'help') return printHelp(words.slice(1), io)
  if (first === '--version') return dispatch(['version', ...words.slice(1)], io)
  const found = findCommand(words)
  if (found === undefined) {
    // `flatmesh service --help` names a group, not a command.
    const asksHelp = second === '--help' || second === '-h'
    if (asksHelp && isGroup(first)) return printHelp([first], io)
    throw unknownCommand(words)
  }
  const { command, rest } = found
  const invocation = parseInvocation(command, rest, io.cwd)
  if (invocation !== 'help') return command.run(invocation, io)
  io.stdout.write(formatHelp(command))
  return EXIT.ok
}

/** Two words first, since `service` alone is none. */
function findCommand(words: readonly string[]): { command: Command; rest: readonly string[] } | undefined {
  for (const count of [2, 1]) {
    const name = words.slice(0, count).join(' ')
    const command = words.length < count ? undefined : COMMANDS.find(each => each.name === name)
    if (command !== undefined) return { command, rest: words.slice(count) }
  }
  return undefined
}

function isGroup(word: string): boolean {
  return COMMANDS.some(each => each.name.startsWith(`${word} `))
}

function unknownCommand([first = '', second]: readonly string[]): MeshError {
  if (isGroup(first)) {
    const inner = COMMANDS.filter(each => each.name.startsWith(`${first} `)).map(each =>
      each.name.slice(first.length + 1),
    )
    const found = second === undefined ? 'found nothing' : `found ${second}${suggest(second, inner)}`
    return new MeshError('usage', `${first} takes one of ${inner.join(', ')}, ${found}`)
  }
  const firsts = [...new Set([...COMMANDS.map(({ name }) => name.split(' ', 1)[0] ?? name), 'help'])]
  return new MeshError('usage', `there is no command ${first}${suggest(first, firsts)}; flatmesh --help lists them`)
}

function printHelp(words: readonly string[], io: Io): number {
  const [first] = words
  if (first === undefined) {
    io.stdout.write(formatOverview())
    return EXIT.ok
  }
  const found = findCommand(words)
  if (found === undefined && !isGroup(first)) throw unknownCommand(words)
  const commands = found === undefined ? COMMANDS.filter(each => each.name.startsWith(`${first} `)) : [found.command]
  io.stdout.write(commands.map(formatHelp).join('\n'))
  return EXIT.ok
}

function formatOverview(): string {
  const rows = COMMANDS.map(({ name, operands, summary }) => [`${name} ${operands}`.trim(), summary] as const)
  const width = Math.max(...rows.map(([usage]) => usage.length))
  return [
    'usage: flatmesh COMMAND [options]\n\n',
    'Joins the services of many datacenters into one flat network: one daemon per region.\n\ncommands:\n',
    ...rows.map(([usage, summary]) => `  ${usage.padEnd(width)}  ${summary}\n`),
    '\nEvery command takes --config FILE, --json and --help.\n',
    'exit codes: 0 ok, 1 error, 2 wrong usage, 3 no daemon answers, 4 not found; call: 22 and 69, see its --help\n',
  ].join('')
}

function tellError(error: unknown, words: readonly string[], io: Io): number {
  const isWeather = error instanceof MeshError
  const code = isWeather ? error.code : 'internal'
  const message = isWeather ? error.message : describeBug(error)
  if (words.includes('--json')) io.stderr.write(`${JSON.stringify({ error: { code, message } })}\n`)
  else io.stderr.write(`flatmesh: ${message.split('\n').map(printable).join('\n')}\n`)
  return exitCodeOf(error)
}

/** With its stack: whoever reports it needs that. */
function describeBug(error: unknown): string {
  const details = error instanceof Error ? (error.stack ?? error.message) : String(error)
  return `this is a bug in flatmesh, please report it: ${details}`
}

function toIo(process: NodeJS.Process): Io {
  const { stdout, env } = process
  return {
    stdin: process.stdin,
    stdout,
    stderr: process.stderr,
    cwd: process.cwd(),
    // https://no-color.org: present and not empty.
    color: stdout.isTTY === true && (env.NO_COLOR ?? '') === '' && env.TERM !== 'dumb',
    columns: stdout.isTTY === true ? stdout.columns : undefined,
    rooms,
    machineHosts,
    nowMs: Date.now,
    stopSignal: () => onStopSignal(process),
  }
}

function machineHosts(): string[] {
  return Object.values(networkInterfaces())
    .flatMap(addresses => addresses ?? [])
    .filter(({ internal, address }) => !internal && !/^fe[89ab]/i.test(address))
    .map(({ address }) => address)
}

/** The first SIGTERM or SIGINT asks for an orderly end; the second one gets its way at once. */
function onStopSignal(process: NodeJS.Process): AbortSignal {
  const controller = new AbortController()
  const onSignal = (_name: NodeJS.Signals, number: number) => {
    // A shell's code for a process that a signal ended.
    if (controller.signal.aborted) process.exit(128 + number)
    controller.abort()
  }
  process.on('SIGTERM', onSignal)
  process.on('SIGINT', onSignal)
  return controller.signal
}
