#!/usr/bin/env node
// The command `flatmesh`. Plain JavaScript of an old dialect, because its first work is to answer an old Node politely.
import { existsSync } from 'node:fs'

const NODE_MAJOR_MIN = 24

/** The one line for a Node that cannot run flatmesh, or undefined. `version` is `process.versions.node`. */
function refuseNode(version, path) {
  if (parseInt(version, 10) >= NODE_MAJOR_MIN) return undefined
  return (
    `flatmesh needs Node ${NODE_MAJOR_MIN} or newer, this is Node ${version} (${path}). ` +
    'Install it, or run through npx in a checkout, which brings its own.'
  )
}

const refusal = refuseNode(process.versions.node, process.execPath)
if (refusal !== undefined) {
  process.stderr.write(`${refusal}\n`)
  process.exitCode = 1
} else {
  // A checkout runs its TypeScript as it is. The published package holds what was built from it, since Node strips no
  // types below node_modules.
  const source = new URL('./main.ts', import.meta.url)
  const built = new URL('../dist/daemon/main.js', import.meta.url)
  import((existsSync(source) ? source : built).href).then(({ main }) => main(process))
}
