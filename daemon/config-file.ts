import { link, mkdir, readdir, rm, rmdir, writeFile } from 'node:fs/promises'
import { basename, dirname, isAbsolute, join, relative, resolve } from 'node:path'
import { stringify } from 'yaml'
import { MeshError, messageOf } from '../router/errors.ts'
import { CONFIG_DEFAULTS, type Config, parseConfig } from './config.ts'

type ListenKey = keyof typeof CONFIG_DEFAULTS.listen

/** What a new node is told on the command line. Everything else has a default. */
export interface NewNode {
  readonly mesh: string
  readonly node: string
  readonly region: string
  /** As it shall stand in the file: absolute, or relative to the file's folder. */
  readonly dataDir: string
  /** Only those that were given. */
  readonly listen: Readonly<Partial<Record<ListenKey, string>>>
  readonly advertise: readonly string[]
  readonly join: readonly string[]
}

const SERVICES_TEXT = `# The services of this region. The running daemon watches this file; a mistake in it keeps the last good state.
# An entry looks like this (flatmesh service add orders 127.0.0.1:9000 writes one):
#   - name: orders
#     protocol: http                 # or h2 (HTTP/2 without TLS), or tcp
#     labels: { version: v1 }
#     instances:
#       - { address: 127.0.0.1:9000, weight: 1 }
services: []
`

/** The text of a new config: what was told is set, what was not stands as a comment with its default. */
export function renderConfig(node: NewNode): string {
  const { dataDir, listen, advertise, join: members } = node
  const listenLines = Object.entries(CONFIG_DEFAULTS.listen).map(([key, fallback]) => {
    const told = key in listen ? Object.entries(listen).find(([name]) => name === key)?.[1] : undefined
    const isDefault = told === undefined || told === fallback
    return `${isDefault ? '  # ' : '  '}${field(key, isDefault ? fallback : told)}${LISTEN_NOTES[key] ?? ''}\n`
  })
  const hasListen = listenLines.some(line => !line.startsWith('  #'))
  return [
    '# A flatmesh node. docs/config.md explains every field; flatmesh up checks this file before it opens a port.\n',
    `${field('mesh', node.mesh)}\n${field('node', node.node)}\n${field('region', node.region)}\n`,
    '\n# Keys, certificate and state. Private: whoever can read it can be this node.\n',
    `${isDefaultDataDir(dataDir) ? '# ' : ''}${field('dataDir', dataDir)}\n`,
    '\n# Where this node listens. Open the first two to the other nodes; keep the last two to this machine or region.\n',
    `${hasListen ? '' : '# '}listen:\n`,
    ...listenLines.map(line => (hasListen ? line : line.replace(/^ {2}# /, '#   '))),
    '\n# Hosts (without port) other nodes can dial this one at, if they differ from the machine’s own addresses.\n',
    advertise.length > 0 ? list('advertise', advertise) : '# advertise: [203.0.113.7]\n',
    '\n# Any members of the mesh, to find the others with.\n',
    members.length > 0 ? list('join', members) : '# join: [/ip4/198.51.100.4/tcp/4700]\n',
    '\n# Where this node learns which services run in its region.\n',
    `# registries:\n#   - { type: file, path: ${CONFIG_DEFAULTS.registries.path} }\n#   - { type: http }\n`,
    '\n# Ports of services that do not speak HTTP: what connects here reaches the nearest node that has the service.\n',
    '# listeners:\n#   - { tcp: 127.0.0.1:15432, service: postgres }\n',
  ].join('')
}

const LISTEN_NOTES: Readonly<Record<string, string>> = {
  overlay: '      # gossip with other nodes',
  calls: '        # calls from other nodes',
  http: '       # calls of this region’s applications',
  admin: '      # this command line and scripts; loopback or unix:PATH only',
}

/**
 * A folder given on the command line as it shall stand in the config: relative to the file where it lies below it, so
 * that the whole can be moved, else absolute.
 */
export function dataDirFor(configFile: string, given: string | undefined, cwd: string): string {
  if (given === undefined) return CONFIG_DEFAULTS.dataDir
  if (isAbsolute(given)) return given
  const inner = relative(dirname(configFile), resolve(cwd, given))
  if (inner === '') return '.'
  return inner.startsWith('..') || isAbsolute(inner) ? resolve(cwd, given) : `./${inner}`
}

/**
 * Makes a node of a folder: checks what would be written, asks `become` for the identity, and only then puts
 * flatmesh.yaml in place (and an empty services.yaml, where there is none).
 *
 * `become` gets the checked config and answers what only it can know: the mesh's name, and the members to join.
 * Errors: MeshError `bad-config` for a config that exists or values that are not accepted, `data-dir` for a folder that
 * cannot be written; and those of `become`. After an error nothing is left behind.
 */
export async function writeNewNode(
  file: string,
  node: NewNode,
  become: (config: Config) => Promise<Pick<NewNode, 'mesh' | 'join'>>,
): Promise<{ config: Config; servicesFile: string | undefined }> {
  const config = parseConfig(renderConfig(node), file, `the new ${basename(file)}`)
  const folder = dirname(file)
  const staged = join(folder, `.${basename(file)}.${process.pid}.new`)
  await refuseExisting(file)
  const made = await attempt(`make ${folder}`, () => mkdir(folder, { recursive: true }))
  const before = await readdir(config.dataDir).catch(() => undefined)
  let became = false
  let servicesFile: string | undefined
  try {
    // Written before the identity is made: a folder that cannot be written must not cost a token.
    await attempt(`write in ${folder}`, () => writeFile(staged, '', { flag: 'wx' }))
    const known = await become(config)
    became = true
    const text = renderConfig({ ...node, ...known })
    const written = parseConfig(text, file)
    await attempt(`write in ${folder}`, () => writeFile(staged, text))
    servicesFile = await writeEmptyServices(written)
    // A link, not a rename: it fails where another has put a config meanwhile.
    await attempt(`write ${file}`, () => link(staged, file))
    return { config: written, servicesFile }
  } catch (error) {
    if (became) await removeNew(config.dataDir, before)
    if (servicesFile !== undefined) await rm(servicesFile, { force: true })
    await rm(staged, { force: true })
    if (made !== undefined) await removeEmpty(folder, made)
    throw error
  } finally {
    await rm(staged, { force: true })
  }
}

async function writeEmptyServices(config: Config): Promise<string | undefined> {
  const registry = config.registries.find(each => each.type === 'file')
  if (registry === undefined || (await exists(registry.path))) return undefined
  await attempt(`write ${registry.path}`, () => writeFile(registry.path, SERVICES_TEXT, { flag: 'wx' }))
  return registry.path
}

async function refuseExisting(file: string): Promise<void> {
  if (!(await exists(file))) return
  const hint = 'it is not overwritten; move it away, or name another with --config FILE'
  throw new MeshError('bad-config', `there is a config already, ${file}: ${hint}`)
}

/** Asks the folder, not the file: a link that points nowhere counts too. */
async function exists(path: string): Promise<boolean> {
  const names: string[] = await readdir(dirname(path)).catch(() => [])
  return names.includes(basename(path))
}

/** Takes out of a folder what was not in it before; and the folder, if it was not there. */
async function removeNew(folder: string, before: readonly string[] | undefined): Promise<void> {
  const now = await readdir(folder).catch(() => [])
  for (const name of now) {
    if (before?.includes(name) !== true) await rm(join(folder, name), { recursive: true, force: true })
  }
  if (before === undefined) await removeEmpty(folder, folder)
}

/** Removes `from` and its parents up to `until`, as long as they are empty. */
async function removeEmpty(from: string, until: string): Promise<void> {
  try {
    for (let folder = from; ; folder = dirname(folder)) {
      await rmdir(folder)
      if (folder === until) return
    }
  } catch {
    // Somebody has put something there meanwhile: it stays.
  }
}

async function attempt<T>(what: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action()
  } catch (error) {
    const reason = messageOf(error)
    throw new MeshError('data-dir', `cannot ${what}: ${reason}`, { cause: error })
  }
}

function isDefaultDataDir(dataDir: string): boolean {
  return dataDir === CONFIG_DEFAULTS.dataDir
}

/** One field as YAML, quoted where YAML needs it. */
function field(key: string, value: string): string {
  return stringify({ [key]: value }, { lineWidth: 0 }).trimEnd()
}

function list(key: string, items: readonly string[]): string {
  return stringify({ [key]: items }, { lineWidth: 0 })
}
