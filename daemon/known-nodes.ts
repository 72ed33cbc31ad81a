import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import type { Log } from '../router/log.ts'
import type { NodeId } from '../router/model.ts'

/** A change of addresses is rare; a burst of them at start makes one write. */
const SAVE_AFTER_MS = 1000
const FILE_BYTES_MAX = 16 * 1024 * 1024

export interface KnownNode {
  readonly name: string
  readonly overlay: readonly string[]
  readonly calls: readonly string[]
}

/**
 * Where every node was last said to be, kept over restarts: with it, a daemon finds the mesh again when the nodes it
 * was configured to join through are gone for good. A lost or broken file costs nothing but that.
 */
export class KnownNodes {
  readonly nodes = new Map<NodeId, KnownNode>()
  private readonly path: string
  private readonly log: Log
  private timer: NodeJS.Timeout | undefined

  constructor(deps: { log: Log }, options: { path: string }) {
    this.log = deps.log
    this.path = options.path
  }

  load(): void {
    try {
      const text = readFileSync(this.path, 'utf8')
      const parsed: unknown = text.length > FILE_BYTES_MAX ? {} : JSON.parse(text)
      if (typeof parsed !== 'object' || parsed === null) return
      for (const [node, value] of Object.entries(parsed)) {
        const known = decodeKnown(value)
        if (known !== undefined) this.nodes.set(node, known)
      }
    } catch (error) {
      if (!isMissing(error)) this.log.warn({ reason: String(error) }, 'known nodes could not be read; joining anew')
    }
  }

  set(node: NodeId, known: KnownNode): void {
    if (JSON.stringify(this.nodes.get(node)) === JSON.stringify(known)) return
    this.nodes.set(node, known)
    this.planSave()
  }

  delete(node: NodeId): void {
    if (this.nodes.delete(node)) this.planSave()
  }

  /** Writes what is still to be written. */
  stop(): void {
    if (this.timer !== undefined) this.save()
  }

  private planSave(): void {
    this.timer ??= setTimeout(() => this.save(), SAVE_AFTER_MS)
  }

  private save(): void {
    clearTimeout(this.timer)
    this.timer = undefined
    try {
      mkdirSync(dirname(this.path), { recursive: true })
      writeFileSync(`${this.path}.new`, `${JSON.stringify(Object.fromEntries(this.nodes), null, 1)}\n`)
      renameSync(`${this.path}.new`, this.path)
    } catch (error) {
      this.log.warn({ reason: String(error) }, 'known nodes could not be written')
    }
  }
}

function decodeKnown(value: unknown): KnownNode | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const { name, overlay, calls } = value as Partial<Record<keyof KnownNode, unknown>>
  if (typeof name !== 'string' || !isTexts(overlay) || !isTexts(calls)) return undefined
  return { name, overlay, calls }
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every(text => typeof text === 'string')
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT'
}
