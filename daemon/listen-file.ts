import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { decodeAdminAddress } from './address.ts'
import type { ListenView } from './admin-api.ts'

/** Where the daemon of a data folder listens, with the real ports: what other commands and scripts find it by. */
export function listenFile(dataDir: string): string {
  return join(dataDir, 'listen.json')
}

/** Replaces the file in one step, so that a reader never meets half of it. Errors: those of node:fs. */
export function writeListenFile(dataDir: string, listen: ListenView): void {
  const { overlay, calls, http, admin, tcp } = listen
  const file = listenFile(dataDir)
  writeFileSync(`${file}.new`, `${JSON.stringify({ overlay, calls, http, admin, tcp })}\n`)
  renameSync(`${file}.new`, file)
}

/** Undefined where there is none, or none that can be understood: then the config is all that is known. */
export function readListenFile(dataDir: string): ListenView | undefined {
  try {
    return decodeListen(JSON.parse(readFileSync(listenFile(dataDir), 'utf8')))
  } catch {
    return undefined
  }
}

function decodeListen(value: unknown): ListenView | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const text = (key: string, from: object = value): string => {
    const address: unknown = Reflect.get(from, key)
    return typeof address === 'string' && decodeAdminAddress(address) !== undefined ? address : ''
  }
  const listen = { overlay: text('overlay'), calls: text('calls'), http: text('http'), admin: text('admin') }
  if (Object.values(listen).includes('')) return undefined
  const tcp = 'tcp' in value && Array.isArray(value.tcp) ? value.tcp.map(item => decodeTcp(item, text)) : [undefined]
  return tcp.every(item => item !== undefined) ? { ...listen, tcp } : undefined
}

function decodeTcp(item: unknown, text: (key: string, from: object) => string): ListenView['tcp'][number] | undefined {
  if (typeof item !== 'object' || item === null || !('service' in item)) return undefined
  const { service } = item
  const address = text('address', item)
  return typeof service === 'string' && address !== '' ? { service, address } : undefined
}
