import { resolve } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { type ParseArgsOptionsConfig, parseArgs } from 'node:util'
import { MeshError, messageOf } from '../router/errors.ts'
import { decodeAdminAddress } from './address.ts'
import { AdminClient, toUnreachable } from './admin-client.ts'
import { type Config, loadConfig, showFile } from './config.ts'
import { listenFile, readListenFile } from './listen-file.ts'
import { suggest } from './nearest.ts'
import type { Rooms } from './rooms.ts'
import { type Cell, type Column, formatTable } from './table.ts'

/** What scripts can tell apart by a command's exit code. */
export const EXIT = {
  ok: 0,
  error: 1,
  usage: 2,
  /** No daemon answers. */
  unreachable: 3,
  /** No service, or instance, of that name. */
  notFound: 4,
  /** `call`: the service answered 400 or above. curl's code for the same (--fail). */
  refused: 22,
  /** `call`: the mesh, not the service, made the error. EX_UNAVAILABLE of BSD's sysexits.h. */
  mesh: 69,
} as const

/** What a command may touch of the process it runs in. */
export interface Io {
  readonly stdin: Readable
  readonly stdout: Writable
  readonly stderr: Writable
  readonly cwd: string
  readonly color: boolean
  /** Display columns of the terminal; undefined when stdout is none. */
  readonly columns: number | undefined
  readonly rooms: Rooms
  /** Host addresses of this machine's interfaces that are neither loopback nor link-local. */
  machineHosts(): readonly string[]
  /** Unix milliseconds. */
  nowMs(): number
  /** Aborted once the user or the system asks the process to stop; from then on it is the command's to end in order. */
  stopSignal(): AbortSignal
}

export interface Option {
  readonly type: 'string' | 'boolean'
  readonly short?: string
  readonly multiple?: boolean
  /** The word that stands for the value in help, such as `HOST:PORT`. */
  readonly value?: string
  readonly help: string
}

export interface Command {
  /** One word, or two: `service add`. */
  readonly name: string
  /** What stands behind the name: `SERVICE [PATH]`. */
  readonly operands: string
  /** How many of them there may be. */
  readonly count: readonly [min: number, max: number]
  /** One line, for the list of commands. */
  readonly summary: string
  /** More, for its own help: what it does, and what it needs. */
  readonly about: string
  readonly example: string
  readonly options?: Readonly<Record<string, Option>>
  run(invocation: Invocation, io: Io): Promise<number>
}

/** A command line, taken apart. */
export interface Invocation {
  readonly operands: readonly string[]
  readonly json: boolean
  /** Absolute. */
  readonly configFile: string
  text(option: string): string | undefined
  list(option: string): readonly string[]
  flag(option: string): boolean
}

export const COMMON_OPTIONS: Readonly<Record<string, Option>> = {
  config: { type: 'string', value: 'FILE', help: 'the config file (default ./flatmesh.yaml)' },
  json: { type: 'boolean', help: 'print JSON, for scripts' },
  help: { type: 'boolean', short: 'h', help: 'print this help' },
}

/** Takes the words behind a command's name apart. Errors: MeshError `usage`. `'help'`: it was asked for. */
export function parseInvocation(command: Command, words: readonly string[], cwd: string): Invocation | 'help' {
  const options: Record<string, Option> = { ...COMMON_OPTIONS, ...command.options }
  const { values, positionals } = parseWords(command, options, words)
  if (values.help === true) return 'help'
  const [min, max] = command.count
  if (positionals.length < min || positionals.length > max) {
    const expected = command.operands === '' ? 'nothing behind its name' : command.operands
    const found = positionals.length === 0 ? 'nothing' : positionals.join(' ')
    throw usage(command, `${command.name} takes ${expected}, found ${found}`)
  }
  const text = (option: string) => {
    const value = values[option]
    return typeof value === 'string' ? value : undefined
  }
  return {
    operands: positionals,
    json: values.json === true,
    configFile: resolve(cwd, text('config') ?? 'flatmesh.yaml'),
    text,
    list: option => {
      const value = values[option]
      return Array.isArray(value) ? value.filter(item => typeof item === 'string') : []
    },
    flag: option => values[option] === true,
  }
}

type Values = Readonly<Record<string, string | boolean | (string | boolean)[] | undefined>>

function parseWords(
  command: Command,
  options: Readonly<Record<string, Option>>,
  words: readonly string[],
): { values: Values; positionals: string[] } {
  const specs: ParseArgsOptionsConfig = {}
  for (const [name, { type, short, multiple }] of Object.entries(options)) {
    specs[name] = { type, ...(short !== undefined && { short }), ...(multiple !== undefined && { multiple }) }
  }
  try {
    return parseArgs({ args: [...words], options: specs, allowPositionals: true, strict: true })
  } catch (error) {
    const reason = messageOf(error)
    const unknown = /^Unknown option '-?-?([^']*)'/.exec(reason)?.[1]
    if (unknown === undefined) throw usage(command, `${command.name}: ${reason.split('\n', 1)[0]}`)
    const dashed = Object.keys(options).map(name => `--${name}`)
    const shown = words.find(word => word === `-${unknown}`) ?? `--${unknown}`
    throw usage(command, `${command.name} has no option ${shown}${suggest(`--${unknown}`, dashed)}`)
  }
}

/** The command line itself is wrong; where to look follows. */
export function usage(command: Command, problem: string): MeshError {
  return new MeshError('usage', `${problem}; see flatmesh ${command.name} --help`)
}

/** A command's own help: usage, what it is, options, example. */
export function formatHelp(command: Command): string {
  const { name, operands, about, example } = command
  return [
    `usage: flatmesh ${[name, operands, '[options]'].filter(part => part !== '').join(' ')}\n\n${about}\n\noptions:\n`,
    formatOptions({ ...command.options, ...COMMON_OPTIONS }),
    `\nexample:\n${example.replace(/^/gm, '  ')}\n`,
  ].join('')
}

function formatOptions(options: Readonly<Record<string, Option>>): string {
  const rows = Object.entries(options).map(([name, { short, value, help }]) => {
    const names = short === undefined ? `    --${name}` : `-${short}, --${name}`
    return [value === undefined ? names : `${names} ${value}`, help] as const
  })
  const width = Math.max(...rows.map(([names]) => names.length))
  return rows.map(([names, help]) => `  ${names.padEnd(width)}  ${help}\n`).join('')
}

/** A failed call whose answer had begun, or never came: the mesh's error, whatever its code. */
export class CallError extends MeshError {}

/** The exit code a command ends with when it throws this. */
export function exitCodeOf(error: unknown): number {
  if (error instanceof CallError) return EXIT.mesh
  switch (error instanceof MeshError ? error.code : 'internal') {
    case 'usage':
      return EXIT.usage
    case 'daemon-unreachable':
      return EXIT.unreachable
    case 'not-found':
    case 'unknown-service':
      return EXIT.notFound
    default:
      return EXIT.error
  }
}

/** The config of this command. Errors: MeshError `bad-config`. */
export function readConfig({ configFile }: Invocation, io: Io): Config {
  return loadConfig(configFile, showFile(configFile, io.cwd))
}

/** The client of the daemon this config is for. Where the config leaves the port open, the daemon's own note tells it. */
export function toAdminClient(config: Config): AdminClient {
  const { admin } = config.listen
  if ('socketPath' in admin || admin.port !== 0) return new AdminClient(admin)
  const noted = readListenFile(config.dataDir)
  const address = noted === undefined ? undefined : decodeAdminAddress(noted.admin)
  if (address !== undefined) return new AdminClient(address)
  throw toUnreachable(admin, new Error(`listen.admin has port 0 and there is no ${listenFile(config.dataDir)}`))
}

export function printJson(io: Io, value: unknown): void {
  io.stdout.write(`${JSON.stringify(value, null, 2)}\n`)
}

/** A table, or the words for an empty one. */
export function printTable(
  io: Io,
  columns: readonly Column[],
  rows: readonly (readonly Cell[])[],
  whenEmpty: string,
): void {
  if (rows.length === 0) io.stdout.write(`${whenEmpty}\n`)
  else io.stdout.write(formatTable(columns, rows, { color: io.color, width: io.columns }))
}
