import { readFileSync } from 'node:fs'

/** This program's version, from its package.json: one folder up in a checkout, two in the published package. */
export function flatmeshVersion(): string {
  for (const path of ['../package.json', '../../package.json']) {
    try {
      const read: unknown = JSON.parse(readFileSync(new URL(path, import.meta.url), 'utf8'))
      if (typeof read !== 'object' || read === null || !('name' in read) || read.name !== 'flatmesh') continue
      if ('version' in read && typeof read.version === 'string') return read.version
    } catch {
      // Not there: the other place.
    }
  }
  return 'unknown'
}
