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
  // The published package holds main.js, since Node strips no types below node_modules; a checkout holds main.ts only.
  const built = new URL('./main.js', import.meta.url)
  import(existsSync(built) ? built.href : new URL('./main.ts', import.meta.url).href).then(({ main }) => main(process))
}
