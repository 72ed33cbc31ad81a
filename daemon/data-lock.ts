import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { MeshError, messageOf } from '../router/errors.ts'

/**
 * Holds a data folder for one daemon: two with one identity would outbid each other for ever.
 * A lock left by a process that is no more is taken over. Errors: MeshError `data-dir`.
 */
export function lockDataDir(dataDir: string): () => void {
  const path = join(dataDir, 'daemon.pid')
  for (let attempt = 0; attempt < 2; attempt++) {
    try {
      writeFileSync(path, `${process.pid}\n`, { flag: 'wx' })
      return () => rmSync(path, { force: true })
    } catch (error) {
      if (!isNodeError(error) || error.code !== 'EEXIST') {
        const reason = messageOf(error)
        throw new MeshError('data-dir', `dataDir ${dataDir} cannot be written: ${reason}`, { cause: error })
      }
      const pid = holder(path)
      if (pid !== undefined && pid !== process.pid && isAlive(pid)) {
        throw new MeshError('data-dir', `dataDir ${dataDir} is in use by another daemon (process ${pid})`)
      }
      rmSync(path, { force: true })
    }
  }
  throw new MeshError('data-dir', `dataDir ${dataDir} is in use by another daemon that is starting now`)
}

function holder(path: string): number | undefined {
  try {
    const pid = Number(readFileSync(path, 'utf8'))
    return Number.isSafeInteger(pid) && pid > 0 ? pid : undefined
  } catch {
    return undefined
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return isNodeError(error) && error.code === 'EPERM'
  }
}

function isNodeError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'code' in error
}
