import { dirname, relative } from 'node:path'
import { MeshError } from '../router/errors.ts'
import {
  decodeAdminAddress,
  decodeHostPort,
  formatHostPort,
  type HostPort,
  isHost,
  isLoopback,
  isOverlayMultiaddr,
  isWildcard,
  toMultiaddr,
} from './address.ts'
import { type Command, EXIT, type Invocation, type Io, type Option, printJson, readConfig, usage } from './command.ts'
import { CONFIG_DEFAULTS, type Config, showFile } from './config.ts'
import { dataDirFor, type NewNode, writeNewNode } from './config-file.ts'
import { listenFile, readListenFile } from './listen-file.ts'
import { decodeSpan, formatSpan } from './quantity.ts'

const LISTEN_OPTIONS = ['overlay', 'calls', 'http', 'admin'] as const

/** Long enough to carry a token to another machine, short enough that a lost one is worth nothing. Guess. */
const TTL_DEFAULT = '15m'
/** A day less than no limit at all is no limit: a token is a key to the mesh. The store of tokens has the same bounds. */
const TTL_MIN_MS = 1_000
const TTL_MAX_MS = 7 * 86_400_000
/** Tried one after the other by a new node; the token holds no more. */
const HOSTS_MAX = 8
/** Of the inviter's addresses, and of members it knows. More than one that answers is luxury. Guess. */
const MEMBERS_MAX = 32
/** A token is below 4096 characters; more on stdin is something else. */
const TOKEN_BYTES_MAX = 16 * 1024

const NODE_OPTIONS: Readonly<Record<string, Option>> = {
  node: { type: 'string', value: 'NAME', help: 'this node’s name, unique in the mesh' },
  region: { type: 'string', value: 'REGION', help: 'the datacenter it serves, such as aws-us-east-1' },
  data: { type: 'string', value: 'DIR', help: 'where keys and state live (default ./data beside the config)' },
  overlay: {
    type: 'string',
    value: 'HOST:PORT',
    help: `gossip listens here (default ${CONFIG_DEFAULTS.listen.overlay})`,
  },
  calls: { type: 'string', value: 'HOST:PORT', help: `calls of other nodes (default ${CONFIG_DEFAULTS.listen.calls})` },
  http: { type: 'string', value: 'HOST:PORT', help: `calls of applications (default ${CONFIG_DEFAULTS.listen.http})` },
  admin: { type: 'string', value: 'HOST:PORT', help: `or unix:PATH (default ${CONFIG_DEFAULTS.listen.admin})` },
  advertise: {
    type: 'string',
    multiple: true,
    value: 'HOST',
    help: 'where others can dial this node; may be repeated',
  },
}

const init: Command = {
  name: 'init',
  operands: '',
  count: [0, 0],
  summary: 'create a mesh, with this node as its first',
  about:
    'Creates a mesh: its root key, this node’s identity, flatmesh.yaml and an empty services.yaml. Overwrites nothing.\n' +
    'Keep the data folder safe: its root.key lets nodes into the mesh.',
  example: 'flatmesh init --mesh acme --node use1-a --region aws-us-east-1\nflatmesh up',
  options: { mesh: { type: 'string', value: 'NAME', help: 'the name of the new mesh' }, ...NODE_OPTIONS },
  async run(invocation, io) {
    const told = readNewNode(init, invocation, io, needed(init, invocation, 'mesh'))
    let id = ''
    const { config, servicesFile } = await writeNewNode(
      invocation.configFile,
      told,
      async ({ mesh, node, region, dataDir }) => {
        const identity = await io.rooms.createMesh(dataDir, { mesh, name: node, region, nowMs: io.nowMs() })
        id = identity.nodeId
        return { mesh, join: [] }
      },
    )
    printNewNode(invocation, io, `created mesh ${config.mesh}`, config, id, servicesFile)
    return EXIT.ok
  },
}

const join: Command = {
  name: 'join',
  operands: 'TOKEN',
  count: [1, 1],
  summary: 'join a mesh with a token of flatmesh invite',
  about:
    'Joins the mesh of the token: asks the inviting daemon, which must be running and reachable, for a certificate, and\n' +
    'writes flatmesh.yaml and an empty services.yaml. TOKEN may be -, to be read from stdin. Overwrites nothing.',
  example: 'flatmesh join TOKEN --node euw3-a --region gcp-europe-west3 && flatmesh up',
  options: NODE_OPTIONS,
  async run(invocation, io) {
    // The mesh's name is in the token; until it is known, the node's own stands in, so that the rest can be checked.
    const told = readNewNode(join, invocation, io, needed(join, invocation, 'node'))
    const token = await readToken(invocation, io)
    let id = ''
    const { config, servicesFile } = await writeNewNode(
      invocation.configFile,
      told,
      async ({ node, region, dataDir }) => {
        const request = { token, dataDir, name: node, region, nowMs: io.nowMs(), signal: io.stopSignal() }
        const { identity, mesh, overlay } = await io.rooms.joinMesh(request)
        id = identity.nodeId
        // They come from a peer: what this program would not dial must not spoil the config it is about to write.
        return { mesh, join: overlay.filter(isOverlayMultiaddr).slice(0, MEMBERS_MAX) }
      },
    )
    printNewNode(invocation, io, `joined mesh ${config.mesh}`, config, id, servicesFile)
    return EXIT.ok
  },
}

const invite: Command = {
  name: 'invite',
  operands: '',
  count: [0, 0],
  summary: 'print a token that lets one node join',
  about:
    'Prints a token that lets one other node join, once, until it expires. Works whether the daemon is up or not, but the\n' +
    'daemon must be up when the token is used. Only the node that created the mesh can invite. The token goes to stdout,\n' +
    'everything else to stderr.',
  example: 'flatmesh invite --ttl 1h',
  options: {
    ttl: { type: 'string', value: 'TIME', help: `how long it can be used: 90s, 15m, 2h, 7d (default ${TTL_DEFAULT})` },
  },
  async run(invocation, io) {
    const given = invocation.text('ttl') ?? TTL_DEFAULT
    const ttlMs = decodeSpan(given)
    if (ttlMs === undefined || ttlMs < TTL_MIN_MS || ttlMs > TTL_MAX_MS) {
      throw usage(invite, `--ttl takes a time from 1s to 7d, such as 15m, found ${JSON.stringify(given)}`)
    }
    const config = readConfig(invocation, io)
    const { calls, overlay, warnings } = chooseInviteAddresses(config, io)
    const nowMs = io.nowMs()
    const token = await io.rooms.issueToken(config.dataDir, { ttlMs, calls, overlay, nowMs })
    if (invocation.json) {
      printJson(io, { token, mesh: config.mesh, expiresAtMs: nowMs + ttlMs, calls, overlay, warnings })
      return EXIT.ok
    }
    for (const warning of warnings) io.stderr.write(`flatmesh: warning: ${warning}\n`)
    io.stdout.write(`${token}\n`)
    io.stderr.write(
      `Good once, for ${formatSpan(ttlMs)}. On the other machine: flatmesh join TOKEN --node NAME --region REGION\n`,
    )
    return EXIT.ok
  },
}

export const MEMBERSHIP_COMMANDS: readonly Command[] = [init, invite, join]

/**
 * Where a new node shall find this one, best first: what the config advertises, else where it listens.
 *
 * Errors: MeshError `bad-config` while a port is 0 in the config and no daemon has noted the real one.
 */
export function chooseInviteAddresses(
  config: Config,
  io: Pick<Io, 'machineHosts'>,
): { calls: string[]; overlay: string[]; warnings: string[] } {
  const noted = readListenFile(config.dataDir)
  const warnings = new Set<string>()
  const dialled = (key: 'calls' | 'overlay'): HostPort[] => {
    const { host } = config.listen[key]
    const { port } = decodeHostPort(noted?.[key] ?? '') ?? config.listen[key]
    if (port === 0) {
      const hint = `run flatmesh up first (${listenFile(config.dataDir)} is not there)`
      throw new MeshError(
        'bad-config',
        `listen.${key} has port 0, so the real port is known only while the daemon runs: ${hint}`,
      )
    }
    return chooseHosts(config.advertise, host, io, warnings).map(each => ({ host: each, port }))
  }
  return {
    calls: dialled('calls').map(formatHostPort),
    overlay: dialled('overlay').map(toMultiaddr),
    warnings: [...warnings],
  }
}

function chooseHosts(
  advertise: readonly string[],
  listenHost: string,
  io: Pick<Io, 'machineHosts'>,
  warnings: Set<string>,
): string[] {
  if (advertise.length > 0) return advertise.slice(0, HOSTS_MAX)
  if (isLoopback(listenHost)) {
    warnings.add(`this node listens on ${listenHost} only: the token works on this machine alone`)
    return [listenHost]
  }
  if (!isWildcard(listenHost)) return [listenHost]
  const hosts = io.machineHosts().filter(host => listenHost !== '0.0.0.0' || !host.includes(':'))
  const shown = hosts.length === 0 ? 'none but loopback' : hosts.slice(0, HOSTS_MAX - 1).join(', ')
  warnings.add(
    `the token names this machine’s own addresses (${shown}); if others reach it by another, set advertise in the config`,
  )
  return [...hosts.slice(0, HOSTS_MAX - 1), '127.0.0.1']
}

function readNewNode(command: Command, invocation: Invocation, io: Io, mesh: string): NewNode {
  const listen: Partial<Record<(typeof LISTEN_OPTIONS)[number], string>> = {}
  for (const key of LISTEN_OPTIONS) {
    const given = invocation.text(key)
    if (given === undefined) continue
    const address = key === 'admin' ? decodeAdminAddress(given) : decodeHostPort(given)
    if (address === undefined) throw usage(command, `--${key} takes HOST:PORT, found ${JSON.stringify(given)}`)
    listen[key] = given
  }
  const advertise = invocation.list('advertise')
  const wrong = advertise.find(host => !isHost(host))
  if (wrong !== undefined) {
    throw usage(command, `--advertise takes a host without port, found ${JSON.stringify(wrong)}`)
  }
  return {
    mesh,
    node: needed(command, invocation, 'node'),
    region: needed(command, invocation, 'region'),
    dataDir: dataDirFor(invocation.configFile, invocation.text('data'), io.cwd),
    listen,
    advertise,
    join: [],
  }
}

function needed(command: Command, invocation: Invocation, option: string): string {
  const value = invocation.text(option)
  if (value === undefined || value === '') throw usage(command, `${command.name} needs --${option}`)
  return value
}

async function readToken({ operands }: Invocation, io: Io): Promise<string> {
  const [given = ''] = operands
  if (given !== '-') return given
  let text = ''
  for await (const chunk of io.stdin) {
    text += chunk
    if (text.length > TOKEN_BYTES_MAX)
      throw new MeshError('bad-token', 'expected a join token on stdin, found much more')
  }
  return text.trim()
}

function printNewNode(
  invocation: Invocation,
  io: Io,
  done: string,
  config: Config,
  id: string,
  servicesFile: string | undefined,
): void {
  const { mesh, node, region, file, dataDir } = config
  if (invocation.json) {
    printJson(io, { mesh, node, region, id, config: file, dataDir, servicesFile: servicesFile ?? null })
    return
  }
  const shown = showFile(file, io.cwd)
  const data = relative(io.cwd, dataDir)
  const isDefaultFile = shown === 'flatmesh.yaml'
  io.stdout.write(
    [
      `${done}, as node ${node} in region ${region} (${id})`,
      `wrote ${shown}${servicesFile === undefined ? '' : `, ${relative(dirname(file), servicesFile)}`}`,
      `keys and state are in ${data.startsWith('..') ? dataDir : data}`,
      `next: flatmesh up${isDefaultFile ? '' : ` --config ${shown}`}`,
      '',
    ].join('\n'),
  )
}
