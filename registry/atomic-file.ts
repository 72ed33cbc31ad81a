import { randomBytes } from 'node:crypto'
import { renameSync } from 'node:fs'
import { open, realpath, stat, unlink } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'

export interface ReplaceFileOptions {
  /** Permissions of a file that did not exist; an existing one keeps its own. Default 0o644. */
  readonly mode?: number
  /** Asked right before the new content takes its place; false leaves the file alone. Must be synchronous and quick. */
  readonly onlyIf?: () => boolean
}

/**
 * Gives a file new content in one step: whoever opens it reads the old or the new, never half, also after a power cut.
 *
 * Shape: true, or false if `onlyIf` said no. A symbolic link is followed: its target is replaced, the link stays.
 * Errors: those of the file system (the folder must exist and be writable); the file is then as it was.
 * Source: temp file beside it, fsync, rename, fsync of the folder: what POSIX promises and ext4, xfs and zfs keep.
 */
export async function replaceFile(
  path: string,
  bytes: string | Buffer,
  options: ReplaceFileOptions = {},
): Promise<boolean> {
  const target = await realpath(path).catch(() => path)
  const old = await stat(target).catch(() => undefined)
  const temporary = join(dirname(target), `.${basename(target)}.${randomBytes(6).toString('hex')}.tmp`)
  try {
    const file = await open(temporary, 'wx', options.mode ?? 0o644)
    try {
      await file.writeFile(bytes)
      if (old !== undefined) {
        await file.chmod(old.mode & 0o7777)
        // Only root may give a file away; for everyone else old and new owner are the same already.
        await file.chown(old.uid, old.gid).catch(() => undefined)
      }
      await file.sync()
    } finally {
      await file.close()
    }
    const wanted = options.onlyIf?.() ?? true
    // In the same turn as the question, so that nothing in this process comes between.
    if (wanted) renameSync(temporary, target)
    else await unlink(temporary)
    if (wanted) await syncFolder(dirname(target))
    return wanted
  } catch (error) {
    await unlink(temporary).catch(() => undefined)
    throw error
  }
}

/** Makes the rename durable. Some file systems refuse to sync a folder; the content is safe there all the same. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r').catch(() => undefined)
  await handle?.sync().catch(() => undefined)
  await handle?.close()
}
