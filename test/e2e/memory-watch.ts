import type { MeshProcesses } from './daemon-process.ts'

/** Between two looks at the memory of the daemons: 40 of them while a fast machine makes 100,000 calls. */
const SAMPLE_MS = 50

/** Looks at the memory of all daemons until stopped, first now. */
export class MemoryWatch {
  /** RSS by the name of the node, bytes. */
  readonly samples = new Map<string, number[]>()
  readonly #timer: NodeJS.Timeout

  constructor(mesh: MeshProcesses) {
    const look = (): void => {
      for (const [name, node] of mesh.nodes) {
        if (!node.isRunning) continue
        const its = this.samples.get(name) ?? []
        its.push(node.rssBytes())
        this.samples.set(name, its)
      }
    }
    look()
    this.#timer = setInterval(look, SAMPLE_MS)
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  /** By how much each was at most larger than at the first look. */
  grownBytes(): [node: string, bytes: number][] {
    return [...this.samples].map(([node, samples]) => [node, Math.max(...samples) - (samples[0] ?? 0)])
  }
}
