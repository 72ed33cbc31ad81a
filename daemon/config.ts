import { readFileSync, statSync } from 'node:fs'
import { basename, dirname, resolve } from 'node:path'
import { DISPATCHER_DEFAULTS } from '../proxy/dispatcher.ts'
import { INGRESS_DEFAULTS } from '../proxy/ingress.ts'
import { INSTANCE_POOL_DEFAULTS } from '../proxy/instance-pool.ts'
import { TTL_MAX_MS, TTL_MIN_MS } from '../registry/service-schema.ts'
import { MeshError, messageOf } from '../router/errors.ts'
import { LINK_CHOICE_DEFAULTS } from '../router/link-choice.ts'
import { SERVICE_NAME } from '../router/model.ts'
import type { AdminAddress } from './address.ts'
import { decodeAdminAddress, decodeHostPort, type HostPort, isHost, isLoopback, isOverlayMultiaddr } from './address.ts'
import { ConfigReader, inside, type Place } from './config-reader.ts'

export type LogLevel = 'error' | 'warn' | 'info' | 'debug'
export type AccessLogCalls = 'off' | 'sampled' | 'all'

/** Where this node listens. Port 0 lets the system choose; the real one is in `status` and in `<dataDir>/listen.json`. */
export interface ListenConfig {
  /** Gossip with other nodes. Default 0.0.0.0:4700. Price: open to the network; strangers are turned away before a protocol. */
  readonly overlay: HostPort
  /** Calls from other nodes, mutual TLS. Default 0.0.0.0:4701. Price: open to the network; the handshake proves both ends. */
  readonly calls: HostPort
  /** Calls of this region's applications. Default 127.0.0.1:4780. Price: whoever reaches it may call every service of the mesh. */
  readonly http: HostPort
  /** The admin API: a loopback address or `unix:PATH`. Default 127.0.0.1:4790. Price: it has no authentication of its own. */
  readonly admin: AdminAddress
}

/** Addresses this node uses to reach one other node, in place of those the other advertises. */
export interface DialConfig {
  /** Multiaddrs of its overlay, best first. Default: what it advertises. Price: must be kept right by hand. */
  readonly overlay?: readonly string[]
  /** `host:port` of its call listener, best first. Default: what it advertises. Price: must be kept right by hand. */
  readonly calls?: readonly string[]
}

/** A registry this node reads its own datacenter's services from. */
export type RegistryConfig =
  | {
      readonly type: 'file'
      /** A watched YAML file, absolute here, relative to the config file there. Default services.yaml. Price: one watch. */
      readonly path: string
    }
  | {
      readonly type: 'http'
      /** How long a registration lives without a heartbeat, milliseconds. Default 30000. Price: how long a silent death is offered. */
      readonly ttlMs: number
    }

export interface ProxyConfig {
  /** How long a caller waits for an answer to begin, milliseconds; 0 is for ever. Default 60000. Price: a call held that long. */
  readonly timeoutMs: number
  /** How much of a request is kept so that it can be sent elsewhere, bytes. Default 65536. Price: that much memory per call. */
  readonly retryBodyBytes: number
  /** How long a stopping daemon waits for calls in flight, milliseconds. Default 30000. Price: the slowest stop. */
  readonly drainMs: number
  /** How long a TCP connection may be silent before it is reset, milliseconds; 0 is for ever. Default 3600000. Price: what is dead is held that long. */
  readonly tcpIdleMs: number
  /** Calls at a time to one HTTP/1 instance, each with its connection. Default 1024. Price: so many descriptors at the instance. */
  readonly instanceConnectionsMax: number
  /** Calls that may wait for an instance of one service with room. Default 1024. Price: up to a window of memory each. */
  readonly queueMax: number
  /** How long they wait, milliseconds. Default 5000. Price: the later a caller hears that there is no room. */
  readonly queueTimeoutMs: number
  /** Connections of clients at a time; beyond, idle ones are closed, else new ones refused. Default 32768. Price: about 8 kB and a descriptor each. */
  readonly clientConnectionsMax: number
  /** PEM files, absolute here: with them `listen.http` takes TLS too (ALPN h2, http/1.1). Default none. Price: renewed ones need a restart. */
  readonly tls?: { readonly cert: string; readonly key: string }
}

/** A port whose TCP connections go to one service. */
export interface ListenerConfig {
  /** Where applications connect. No default. Price: whoever reaches it may use the service. */
  readonly tcp: HostPort
  /** The service's name. No default. Price: none. */
  readonly service: string
  /** Connections at once; one more is reset. Default 10000. Price: about 20 kB and a descriptor each, here and where they end. */
  readonly connectionsMax: number
}

export interface OverlayConfig {
  /** Up to so many nodes, all keep links to all; beyond, each to its nearest, to a few others, and to those it calls. Default 64. Price: a heartbeat a second per link. */
  readonly fullMeshMax: number
}

/** One daemon's settings: immutable, checked whole before anything opens. Each is documented in docs/config.md. */
export interface Config {
  /** The file it was read from, absolute. Relative paths inside it start from its folder. */
  readonly file: string
  /** The mesh's name, as its root was made with. No default. Price: none; it cannot be changed later. */
  readonly mesh: string
  /** This node's name, unique in the mesh. No default. Price: none; it is part of the certificate. */
  readonly node: string
  /** The datacenter this node serves, such as `aws-us-east-1`. No default. Price: none; it is part of the certificate. */
  readonly region: string
  /** Where key, certificate and state live, absolute here. Default ./data beside the config file. Price: a private folder. */
  readonly dataDir: string
  readonly listen: ListenConfig
  /** Hosts others can dial this node at, without port, best first. Default: the machine's own. Price: each wrong one delays a first dial. */
  readonly advertise: readonly string[]
  /** Overlay multiaddrs of any members, to find the mesh with. Default none. Price: one dial each at the start. */
  readonly join: readonly string[]
  /** By node name. Default none. For port forwards, split-horizon NAT and tunnels. */
  readonly dial: ReadonlyMap<string, DialConfig>
  /** Default: the file services.yaml, and http. */
  readonly registries: readonly RegistryConfig[]
  readonly listeners: readonly ListenerConfig[]
  readonly proxy: ProxyConfig
  readonly overlay: OverlayConfig
  /** Whether this node passes calls on between others, unread. Default true. Price: their traffic, where nothing else gets through. */
  readonly relay: boolean
  readonly log: LogConfig
}

export interface LogConfig {
  /** The least grave line written: error, warn, info or debug. Default info. Price: debug writes a line per event. */
  readonly level: LogLevel
  /** Calls that get a line in the access log: none, those that failed and a share of the rest, or all. Default off. Price: 500 bytes a line. */
  readonly access: AccessLogCalls
  /** With `sampled`: the share of the calls that did not fail, 0..1. Default 0.01. Price: what a line costs. */
  readonly accessRatio: number
  /** Where those lines go, absolute here. Default ./access.log. Price: it grows until something rotates it. */
  readonly accessFile: string
}

/** The defaults as they would stand in the file. The ports are ours: four together, unassigned at IANA. The rest: guesses. */
export const CONFIG_DEFAULTS = {
  dataDir: './data',
  listen: { overlay: '0.0.0.0:4700', calls: '0.0.0.0:4701', http: '127.0.0.1:4780', admin: '127.0.0.1:4790' },
  registries: { path: 'services.yaml', ttlMs: 30_000 },
  listeners: { connectionsMax: 10_000 },
  proxy: {
    ...{ timeoutMs: 60_000, retryBodyBytes: 65_536, drainMs: 30_000, tcpIdleMs: 3_600_000 },
    ...{ instanceConnectionsMax: INSTANCE_POOL_DEFAULTS.connectionsMax, ...DISPATCHER_DEFAULTS },
    ...{ clientConnectionsMax: INGRESS_DEFAULTS.clientConnectionsMax },
  },
  overlay: { fullMeshMax: LINK_CHOICE_DEFAULTS.fullMeshMax },
  relay: true,
  log: { level: 'info', access: 'off', accessRatio: 0.01, accessFile: './access.log' },
} as const

/** Every key a config may hold, by the path of its parent; `*` stands for a name, `[]` for an item. docs/config.md has a row for each. */
export const CONFIG_KEYS = {
  '': [
    'mesh',
    'node',
    'region',
    'dataDir',
    'listen',
    'advertise',
    'join',
    'dial',
    'registries',
    'listeners',
    'proxy',
    'overlay',
    'relay',
    'log',
  ],
  listen: ['overlay', 'calls', 'http', 'admin'],
  'dial.*': ['overlay', 'calls'],
  'registries[]': ['type', 'path', 'ttlMs'],
  'listeners[]': ['tcp', 'service', 'connectionsMax'],
  proxy: [
    'timeoutMs',
    'retryBodyBytes',
    'drainMs',
    'tcpIdleMs',
    'instanceConnectionsMax',
    'queueMax',
    'queueTimeoutMs',
    'clientConnectionsMax',
    'tls',
  ],
  'proxy.tls': ['cert', 'key'],
  overlay: ['fullMeshMax'],
  log: ['level', 'access', 'accessRatio', 'accessFile'],
} as const

/** A config of a thousand dialled nodes is about 200 kB; more than this is the wrong file. */
const FILE_BYTES_MAX = 1024 * 1024
/** Guesses: far above what a person writes, low enough that a slip is seen. */
const LIST_MAX = { advertise: 16, join: 64, registries: 16, listeners: 256, dialAddresses: 16, dial: 4096 } as const
/** Linux: sun_path is 108 bytes with its ending zero; the socket is first bound under a name up to 13 longer, then moved. */
const SOCKET_PATH_BYTES_MAX = 107 - 13
const HOUR_MS = 3_600_000
const WEEK_MS = 168 * HOUR_MS
/** More than the descriptors of any process. */
const CONNECTIONS_MAX = 1_000_000

const NAME_ACCEPTED = 'a name of 1 to 63 characters of a-z, 0-9 and -, beginning and ending with a letter or digit'
const REGION_ACCEPTED = 'a name of 1 to 63 letters, digits and . _ -, beginning with a letter or digit'
const HOST_PORT_ACCEPTED = 'host:port, such as 0.0.0.0:4700 or [::1]:0 (port 0 lets the system choose)'
const MULTIADDR_ACCEPTED = 'a multiaddr over TCP, such as /ip4/198.51.100.4/tcp/4700 or /dns/a.example.com/tcp/4700'
const DIALLED_ACCEPTED = 'host:port with a port above 0, such as 198.51.100.4:4701'

/**
 * Reads and checks a config file.
 *
 * Errors: MeshError `bad-config`, naming every problem (20 at most) with file, line, path in the file, what was found
 * and what is accepted. `shownFile` is how messages call the file.
 */
export function loadConfig(file: string, shownFile = file): Config {
  let text: string
  try {
    if (statSync(file).size > FILE_BYTES_MAX) {
      throw new MeshError('bad-config', `${shownFile} is larger than ${FILE_BYTES_MAX} bytes: is it a flatmesh config?`)
    }
    text = readFileSync(file, 'utf8')
  } catch (error) {
    if (error instanceof MeshError) throw error
    if (isNodeError(error) && error.code === 'ENOENT') {
      const hint = 'make one with flatmesh init or flatmesh join, or name yours with --config FILE'
      throw new MeshError('bad-config', `there is no config file ${shownFile}: ${hint}`, { cause: error })
    }
    const reason = messageOf(error)
    throw new MeshError('bad-config', `the config file ${shownFile} cannot be read: ${reason}`, { cause: error })
  }
  return parseConfig(text, file, shownFile)
}

/** `loadConfig` for a text at hand: `file` says where it would stand, for paths relative to it. */
export function parseConfig(text: string, file: string, shownFile = file): Config {
  const folder = dirname(resolve(file))
  const reader = new ConfigReader(text, shownFile)
  // Of a text that is not YAML, all fields would seem to be missing: only what is wrong with the YAML helps.
  reader.throwProblems()
  const top = reader.record(reader.root, CONFIG_KEYS[''])
  const config = {
    file: resolve(file),
    mesh: reader.scalar(top('mesh'), NAME_ACCEPTED, decodeName),
    node: reader.scalar(top('node'), NAME_ACCEPTED, decodeName),
    region: reader.scalar(top('region'), REGION_ACCEPTED, decodeRegion),
    dataDir: resolve(folder, reader.scalar(top('dataDir'), 'a folder', decodePath, CONFIG_DEFAULTS.dataDir) ?? ''),
    listen: readListen(reader, top('listen'), folder),
    advertise: reader.list(top('advertise'), LIST_MAX.advertise, item =>
      reader.scalar(item, 'a host without port (ports are those of listen), such as 203.0.113.7', decodeHost),
    ),
    join: reader.list(top('join'), LIST_MAX.join, item => reader.scalar(item, MULTIADDR_ACCEPTED, decodeMultiaddr)),
    dial: readDial(reader, top('dial')),
    registries: readRegistries(reader, top('registries'), folder),
    listeners: readListeners(reader, top('listeners')),
    proxy: readProxy(reader, top('proxy'), folder),
    overlay: readOverlay(reader, top('overlay')),
    relay: reader.scalar(top('relay'), 'true or false', decodeBoolean, CONFIG_DEFAULTS.relay) ?? CONFIG_DEFAULTS.relay,
    log: readLog(reader, top('log'), folder),
  }
  refuseSharedAddresses(reader, top, config)
  if (config.node !== undefined && config.dial.has(config.node)) {
    reader.problem(
      { ...inside(top('dial'), config.node), value: config.node },
      'the name of another node: this one is never dialled',
    )
  }
  reader.throwProblems()
  const { mesh, node, region } = config
  if (mesh === undefined || node === undefined || region === undefined) {
    throw new Error('bug: a missing name passed the check of the config')
  }
  return deepFreeze({ ...config, mesh, node, region })
}

function readListen(reader: ConfigReader, place: Place, folder: string): ListenConfig {
  const field = reader.record(place, CONFIG_KEYS.listen)
  const tcp = (key: 'overlay' | 'calls' | 'http') =>
    reader.scalar(field(key), HOST_PORT_ACCEPTED, decodeHostPortOf, CONFIG_DEFAULTS.listen[key]) ?? UNREAD
  return {
    overlay: tcp('overlay'),
    calls: tcp('calls'),
    http: tcp('http'),
    admin: readAdmin(reader, field('admin'), folder),
  }
}

/** Two ports on one address: the second could not open. */
function refuseSharedAddresses(
  reader: ConfigReader,
  top: (key: 'listen' | 'listeners') => Place,
  { listen, listeners }: Pick<Config, 'listen' | 'listeners'>,
): void {
  const holders = new Map<string, string>()
  const hold = (place: Place, name: string, address: AdminAddress): void => {
    if ('socketPath' in address || address.port === 0) return
    const id = `${address.host} ${address.port}`
    const holder = holders.get(id)
    if (holder !== undefined) reader.problem(place, `an address of its own: ${holder} has this one`)
    holders.set(id, name)
  }
  for (const key of CONFIG_KEYS.listen) hold(inside(top('listen'), key), `listen.${key}`, listen[key])
  listeners.forEach(({ tcp }, i) => {
    hold(inside(inside(top('listeners'), i), 'tcp'), `listeners[${i}].tcp`, tcp)
  })
}

function readListeners(reader: ConfigReader, place: Place): ListenerConfig[] {
  const { connectionsMax } = CONFIG_DEFAULTS.listeners
  return reader.list(place, LIST_MAX.listeners, item => {
    const field = reader.record(item, CONFIG_KEYS['listeners[]'])
    return {
      tcp: reader.scalar(field('tcp'), HOST_PORT_ACCEPTED, decodeHostPortOf) ?? UNREAD,
      service: reader.scalar(field('service'), NAME_ACCEPTED, decodeName) ?? '',
      connectionsMax: readWhole(reader, field('connectionsMax'), 1, CONNECTIONS_MAX, connectionsMax),
    }
  })
}

function readAdmin(reader: ConfigReader, place: Place, folder: string): AdminAddress {
  const accepted = 'host:port on a loopback address, such as 127.0.0.1:4790, or unix:PATH'
  const admin = reader.scalar(place, accepted, decodeAdmin, CONFIG_DEFAULTS.listen.admin) ?? UNREAD
  if ('socketPath' in admin) {
    const socketPath = resolve(folder, admin.socketPath)
    if (Buffer.byteLength(socketPath) > SOCKET_PATH_BYTES_MAX) {
      reader.problem(place, `a socket path of at most ${SOCKET_PATH_BYTES_MAX} bytes, the folder counted in`)
    }
    return { socketPath }
  }
  if (!isLoopback(admin.host)) {
    const reason = 'the admin API has no authentication of its own, so nobody but this machine may reach it'
    reader.problem(place, `a loopback address such as 127.0.0.1:4790, or unix:PATH: ${reason}`)
  }
  return admin
}

function readDial(reader: ConfigReader, place: Place): ReadonlyMap<string, DialConfig> {
  const dial = new Map<string, DialConfig>()
  for (const entry of reader.entries(place, LIST_MAX.dial)) {
    const name = entry.path.at(-1)
    if (typeof name !== 'string' || decodeName(name) === undefined) {
      reader.problem({ ...entry, value: name }, `a node's name as key: ${NAME_ACCEPTED}`)
      continue
    }
    const field = reader.record(entry, CONFIG_KEYS['dial.*'])
    const read = (key: 'overlay' | 'calls', accepted: string, decode: (value: unknown) => string | undefined) => {
      const list = reader.list(field(key), LIST_MAX.dialAddresses, item => reader.scalar(item, accepted, decode))
      return field(key).value === undefined ? {} : { [key]: list }
    }
    dial.set(name, {
      ...read('overlay', MULTIADDR_ACCEPTED, decodeMultiaddr),
      ...read('calls', DIALLED_ACCEPTED, decodeDialled),
    })
  }
  return dial
}

function readRegistries(reader: ConfigReader, place: Place, folder: string): RegistryConfig[] {
  const defaults = CONFIG_DEFAULTS.registries
  if (place.value === undefined || place.value === null) {
    return [
      { type: 'file', path: resolve(folder, defaults.path) },
      { type: 'http', ttlMs: defaults.ttlMs },
    ]
  }
  const seen = new Set<string>()
  return reader.list(place, LIST_MAX.registries, item => {
    const field = reader.record(item, CONFIG_KEYS['registries[]'])
    const type = reader.scalar(field('type'), 'file or http', value =>
      value === 'file' || value === 'http' ? value : undefined,
    )
    const registry: RegistryConfig =
      type === 'http'
        ? { type, ttlMs: readWhole(reader, field('ttlMs'), TTL_MIN_MS, TTL_MAX_MS, defaults.ttlMs) }
        : {
            type: 'file',
            path: resolve(folder, reader.scalar(field('path'), 'a file', decodePath, defaults.path) ?? ''),
          }
    const foreign = type === 'http' ? 'path' : 'ttlMs'
    if (type !== undefined && field(foreign).value !== undefined) {
      reader.problem(field(foreign), `no ${foreign} here: it belongs to type ${type === 'http' ? 'file' : 'http'}`)
    }
    const id = registry.type === 'file' ? registry.path : 'http'
    if (type !== undefined && seen.has(id)) reader.problem(item, 'each registry once: this one is listed above')
    seen.add(id)
    return registry
  })
}

function readProxy(reader: ConfigReader, place: Place, folder: string): ProxyConfig {
  const field = reader.record(place, CONFIG_KEYS.proxy)
  const defaults = CONFIG_DEFAULTS.proxy
  return {
    timeoutMs: readWhole(reader, field('timeoutMs'), 0, HOUR_MS, defaults.timeoutMs),
    retryBodyBytes: readWhole(reader, field('retryBodyBytes'), 0, 16 * 1024 * 1024, defaults.retryBodyBytes),
    drainMs: readWhole(reader, field('drainMs'), 0, HOUR_MS, defaults.drainMs),
    tcpIdleMs: readWhole(reader, field('tcpIdleMs'), 0, WEEK_MS, defaults.tcpIdleMs),
    instanceConnectionsMax: readWhole(
      ...([reader, field('instanceConnectionsMax'), 1, 65_535, defaults.instanceConnectionsMax] as const),
    ),
    clientConnectionsMax: readWhole(
      ...([reader, field('clientConnectionsMax'), 1, 1_000_000, defaults.clientConnectionsMax] as const),
    ),
    queueMax: readWhole(reader, field('queueMax'), 0, 65_535, defaults.queueMax),
    queueTimeoutMs: readWhole(reader, field('queueTimeoutMs'), 0, HOUR_MS, defaults.queueTimeoutMs),
    ...readTls(reader, field('tls'), folder),
  }
}

function readTls(reader: ConfigReader, place: Place, folder: string): Pick<ProxyConfig, 'tls'> {
  if (place.value === undefined || place.value === null) return {}
  const field = reader.record(place, CONFIG_KEYS['proxy.tls'])
  const file = (key: 'cert' | 'key') => resolve(folder, reader.scalar(field(key), 'a PEM file', decodePath) ?? '')
  return { tls: { cert: file('cert'), key: file('key') } }
}

function readOverlay(reader: ConfigReader, place: Place): OverlayConfig {
  const field = reader.record(place, CONFIG_KEYS.overlay)
  return { fullMeshMax: readWhole(reader, field('fullMeshMax'), 1, 1000, CONFIG_DEFAULTS.overlay.fullMeshMax) }
}

function readLog(reader: ConfigReader, place: Place, folder: string): LogConfig {
  const field = reader.record(place, CONFIG_KEYS.log)
  const defaults = CONFIG_DEFAULTS.log
  const level = reader.scalar(field('level'), 'error, warn, info or debug', decodeLogLevel, defaults.level)
  const access = reader.scalar(field('access'), 'off, sampled or all', decodeAccessLogCalls, defaults.access)
  const ratio = reader.scalar(field('accessRatio'), 'a share from 0 to 1', decodeShare, defaults.accessRatio)
  return {
    level: level ?? defaults.level,
    access: access ?? defaults.access,
    accessRatio: ratio ?? defaults.accessRatio,
    accessFile: resolve(folder, reader.scalar(field('accessFile'), 'a file', decodePath, defaults.accessFile) ?? ''),
  }
}

function readWhole(reader: ConfigReader, place: Place, min: number, max: number, fallback: number): number {
  const decode = (value: unknown) =>
    typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max ? value : undefined
  return reader.scalar(place, `a whole number from ${min} to ${max}`, decode, fallback) ?? fallback
}

/** Stands in for an address that could not be read, until the problems are thrown. */
const UNREAD: HostPort = { host: 'localhost', port: 0 }

/** Names of meshes and nodes follow the rule of service names: they appear in host names and URIs. */
function decodeName(value: unknown): string | undefined {
  return typeof value === 'string' && SERVICE_NAME.test(value) ? value : undefined
}

/** Regions keep the spelling of their cloud, so they may have capitals, dots and underscores too. */
function decodeRegion(value: unknown): string | undefined {
  return typeof value === 'string' && /^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}$/.test(value) ? value : undefined
}

function decodePath(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' && !value.includes('\0') ? value : undefined
}

function decodeBoolean(value: unknown): boolean | undefined {
  return typeof value === 'boolean' ? value : undefined
}

function decodeHost(value: unknown): string | undefined {
  return typeof value === 'string' && isHost(value) ? value : undefined
}

function decodeHostPortOf(value: unknown): HostPort | undefined {
  return typeof value === 'string' ? decodeHostPort(value) : undefined
}

function decodeAdmin(value: unknown): AdminAddress | undefined {
  return typeof value === 'string' ? decodeAdminAddress(value) : undefined
}

function decodeDialled(value: unknown): string | undefined {
  const address = decodeHostPortOf(value)
  return typeof value === 'string' && address !== undefined && address.port > 0 ? value : undefined
}

function decodeMultiaddr(value: unknown): string | undefined {
  return typeof value === 'string' && isOverlayMultiaddr(value) ? value : undefined
}

function decodeLogLevel(value: unknown): LogLevel | undefined {
  return value === 'error' || value === 'warn' || value === 'info' || value === 'debug' ? value : undefined
}

/** Older YAML reads `off` as false. */
function decodeAccessLogCalls(value: unknown): AccessLogCalls | undefined {
  if (value === false) return 'off'
  return value === 'off' || value === 'sampled' || value === 'all' ? value : undefined
}

function decodeShare(value: unknown): number | undefined {
  return typeof value === 'number' && value >= 0 && value <= 1 ? value : undefined
}

function isNodeError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'code' in error
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value)
    for (const inner of Object.values(value)) deepFreeze(inner)
  }
  return value
}

/** How messages call a config file: its name, when it stands where the command runs. */
export function showFile(file: string, cwd: string): string {
  return dirname(resolve(file)) === resolve(cwd) ? basename(file) : file
}
