import type { RunResult } from './run.ts'

/** The JSON of a run: what stands in the documentation first, the rest after it. */
export function reportJson(result: RunResult, against?: RunResult): string {
  return JSON.stringify(against === undefined ? result : { ...result, against }, undefined, 2)
}

/** Results as a table for people; with a second run, side by side. */
export function reportTable(result: RunResult, against?: RunResult): string {
  const runs = against === undefined ? [result] : [result, against]
  const rows: string[][] = [
    ['', ...runs.map(run => run.protocol)],
    ...ROWS.map(([label, show]) => [label, ...runs.map(show)]),
  ]
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map(row => row[column]?.length ?? 0))) ?? []
  return rows
    .map(row =>
      row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join('  '),
    )
    .join('\n')
}

const ROWS: readonly [string, (run: RunResult) => string][] = [
  ['nodes × services', run => `${run.nodes} × ${run.services}`],
  ['simulated', run => `${(run.simulatedMs / 60_000).toFixed(1)} min`],
  ['every table whole after', run => milliseconds(run.joinedMs)],
  ['changes', run => String(run.changes)],
  ['nodes lost and back', run => String(run.nodesLost)],
  ['convergence p50', run => milliseconds(run.convergenceMs.p50)],
  ['convergence p99', run => milliseconds(run.convergenceMs.p99)],
  ['convergence max', run => milliseconds(run.convergenceMs.max)],
  ['not converged at the end', run => String(run.unfinished)],
  ['silent death, p50 / max', run => `${milliseconds(run.deathMs.p50)} / ${milliseconds(run.deathMs.max)}`],
  ['gossip per node, p50', run => rate(run.bytesPerNodePerSecond.p50)],
  ['gossip per node, p99', run => rate(run.bytesPerNodePerSecond.p99)],
  ['worst second of a busy node', run => rate(run.worstSecondBytes)],
  ['heartbeats per node', run => rate(run.heartbeatBytesPerNodePerSecond)],
  ['gossip messages per node', run => `${run.framesPerNodePerSecond} /s`],
  ['signatures made / checked', run => `${run.signatures.made} / ${run.signatures.checked}`],
  ['records held, most', run => `${(run.heldBytesMax / 1e6).toFixed(1)} MB`],
  ['ghost routes at the end', run => String(run.ghostRoutes)],
  ['missing routes at the end', run => String(run.missingRoutes)],
  ['violations', run => String(run.violations.length)],
  ['wall time', run => `${(run.wallMs / 1000).toFixed(1)} s`],
  ['memory', run => `${Math.round(run.rssBytes / 1e6)} MB`],
]

function milliseconds(ms: number): string {
  return ms >= 10_000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms)} ms`
}

function rate(bytes: number): string {
  return bytes >= 1000 ? `${(bytes / 1000).toFixed(1)} kB/s` : `${Math.round(bytes)} B/s`
}
