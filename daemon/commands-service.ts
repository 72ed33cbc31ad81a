import { readFile } from 'node:fs/promises'
import { MeshError } from '../router/errors.ts'
import { SERVICE_NAME } from '../router/model.ts'
import { decodeHostPort } from './address.ts'
import type { RegistrationView } from './admin-api.ts'
import {
  type Command,
  EXIT,
  type Invocation,
  type Io,
  printJson,
  printTable,
  readConfig,
  toAdminClient,
  usage,
} from './command.ts'
import { type Config, showFile } from './config.ts'
import { formatSpan } from './quantity.ts'
import type { Cell } from './table.ts'

const WEIGHT_MAX = 1000

const add: Command = {
  name: 'service add',
  operands: 'NAME ADDRESS',
  count: [2, 2],
  summary: 'offer a service of this region to the mesh',
  about:
    'Writes an instance, ADDRESS (host:port as this node dials it), of the service NAME into the services file, the first\n' +
    'registry of type file in the config. A running daemon watches the file; it need not run.',
  example: 'flatmesh service add orders 127.0.0.1:9000 --label version=v1',
  options: {
    protocol: { type: 'string', value: 'http|h2|tcp', help: 'what the service speaks (default http)' },
    label: { type: 'string', multiple: true, value: 'KEY=VALUE', help: 'a label of the service; may be repeated' },
    weight: {
      type: 'string',
      value: 'N',
      help: `its share of calls relative to its siblings, 1 to ${WEIGHT_MAX} (default 1)`,
    },
  },
  async run(invocation, io) {
    const [service = '', address = ''] = invocation.operands
    checkName(add, service)
    checkAddress(add, address)
    const protocol = readProtocol(invocation)
    const labels = readLabels(invocation)
    const weight = readWeight(invocation)
    const file = servicesFile(readConfig(invocation, io))
    const changed = await io.rooms.addInstance(file, {
      service,
      address,
      ...(protocol !== undefined && { protocol }),
      ...(labels !== undefined && { labels }),
      ...(weight !== undefined && { weight }),
    })
    const shown = showFile(file, io.cwd)
    if (invocation.json) printJson(io, { service, address, file, changed })
    else io.stdout.write(`${service} at ${address} ${changed ? 'added to' : 'was already in'} ${shown}\n`)
    return EXIT.ok
  },
}

const remove: Command = {
  name: 'service remove',
  operands: 'NAME [ADDRESS]',
  count: [1, 2],
  summary: 'take a service, or one instance, out again',
  about:
    'Takes one instance, or without ADDRESS the whole service, out of the services file. Exits 4 if it is not there.',
  example: 'flatmesh service remove orders 127.0.0.1:9000',
  async run(invocation, io) {
    const [service = '', address] = invocation.operands
    checkName(remove, service)
    if (address !== undefined) checkAddress(remove, address)
    const file = servicesFile(readConfig(invocation, io))
    const changed = await io.rooms.removeInstance(file, { service, ...(address !== undefined && { address }) })
    const what = address === undefined ? service : `${service} at ${address}`
    const shown = showFile(file, io.cwd)
    if (!changed) {
      throw new MeshError('not-found', `${what} is not in ${shown}: flatmesh service list shows what is offered`)
    }
    if (invocation.json) printJson(io, { service, address: address ?? null, file, changed })
    else io.stdout.write(`${what} removed from ${shown}\n`)
    return EXIT.ok
  },
}

const list: Command = {
  name: 'service list',
  operands: '',
  count: [0, 0],
  summary: 'what this node offers',
  about:
    'Lists the instances this node offers, of all its registries, as the daemon knows them; if it is not running, those\n' +
    'of the services files. (The whole mesh’s services: flatmesh services.)',
  example: 'flatmesh service list',
  async run(invocation, io) {
    const config = readConfig(invocation, io)
    const views = await readRegistrations(config, io)
    if (invocation.json) printJson(io, views)
    else
      printTable(
        io,
        COLUMNS,
        views.map(view => toRow(view, io.nowMs())),
        'no services yet: flatmesh service add NAME ADDRESS',
      )
    return EXIT.ok
  },
}

export const SERVICE_COMMANDS: readonly Command[] = [add, remove, list]

const COLUMNS = [
  { title: 'SERVICE', shrinks: true },
  { title: 'ADDRESS', shrinks: true },
  { title: 'PROTOCOL' },
  { title: 'WEIGHT', align: 'right' },
  { title: 'LABELS', shrinks: true },
  { title: 'FROM', shrinks: true },
  { title: 'EXPIRES', align: 'right' },
] as const

async function readRegistrations(config: Config, io: Io): Promise<RegistrationView[]> {
  try {
    return await toAdminClient(config).registrations()
  } catch (error) {
    if (!(error instanceof MeshError) || error.code !== 'daemon-unreachable') throw error
    io.stderr.write('flatmesh: the daemon is not running; this is what the services files say\n')
    return await readFiles(config, io)
  }
}

/** What the files of the config say, in the shape the daemon would answer in. */
async function readFiles(config: Config, io: Io): Promise<RegistrationView[]> {
  const views: RegistrationView[] = []
  for (const registry of config.registries) {
    if (registry.type !== 'file') continue
    const shown = showFile(registry.path, io.cwd)
    const text = await readFile(registry.path, 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return ''
      throw new MeshError('bad-registry', `${shown} cannot be read: ${error.message}`, { cause: error })
    })
    if (text.trim() === '') continue
    for (const { name, protocol, labels, instances } of await io.rooms.readServices(text, shown)) {
      for (const { id, address, weight } of instances) {
        const source = `file ${shown}`
        views.push({ service: name, id, address, protocol, labels, weight, source, ttlMs: null, expiresAtMs: null })
      }
    }
  }
  return views
}

function toRow(view: RegistrationView, nowMs: number): Cell[] {
  const labels = Object.entries(view.labels).map(([key, value]) => `${key}=${value}`)
  const expires = view.expiresAtMs === null ? 'never' : `in ${formatSpan(view.expiresAtMs - nowMs)}`
  return [view.service, view.address, view.protocol, String(view.weight), labels.join(' ') || '-', view.source, expires]
}

function servicesFile(config: Config): string {
  for (const registry of config.registries) if (registry.type === 'file') return registry.path
  const hint = 'add { type: file, path: services.yaml } to registries, or register over the admin API'
  throw new MeshError('bad-config', `the config has no registry of type file to write to: ${hint}`)
}

function checkName(command: Command, service: string): void {
  if (SERVICE_NAME.test(service)) return
  const accepted = '1 to 63 characters of a-z, 0-9 and -, beginning and ending with a letter or digit'
  throw usage(command, `NAME takes ${accepted}, found ${JSON.stringify(service)}`)
}

function checkAddress(command: Command, address: string): void {
  const decoded = decodeHostPort(address)
  if (decoded !== undefined && decoded.port > 0) return
  throw usage(command, `ADDRESS takes host:port, such as 127.0.0.1:9000, found ${JSON.stringify(address)}`)
}

function readProtocol(invocation: Invocation): 'http' | 'h2' | 'tcp' | undefined {
  const protocol = invocation.text('protocol')
  if (protocol === undefined || protocol === 'http' || protocol === 'h2' || protocol === 'tcp') return protocol
  throw usage(add, `--protocol takes http, h2 or tcp, found ${JSON.stringify(protocol)}`)
}

function readLabels(invocation: Invocation): Readonly<Record<string, string>> | undefined {
  const labels = invocation.list('label').map(label => {
    const at = label.indexOf('=')
    if (at < 1) throw usage(add, `--label takes KEY=VALUE, found ${JSON.stringify(label)}`)
    return [label.slice(0, at), label.slice(at + 1)] as const
  })
  return labels.length === 0 ? undefined : Object.fromEntries(labels)
}

function readWeight(invocation: Invocation): number | undefined {
  const text = invocation.text('weight')
  if (text === undefined) return undefined
  const weight = /^\d{1,4}$/.test(text) ? Number(text) : 0
  if (weight >= 1 && weight <= WEIGHT_MAX) return weight
  throw usage(add, `--weight takes a whole number from 1 to ${WEIGHT_MAX}, found ${JSON.stringify(text)}`)
}
