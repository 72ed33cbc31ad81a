import type { RunPictures, RunResult } from './run.ts'
import { ascending, quantile } from './traffic.ts'

const CHART = { width: 560, height: 240, left: 56, right: 12, top: 12, bottom: 34 }
const INK = { line: '#2563eb', band: '#93b4f5', second: '#d97706', grid: '#e2e8f0', text: '#475569' }

/** A run as one page: figures and pictures, with nothing to be loaded from elsewhere. */
export function reportHtml(result: RunResult, pictures: RunPictures, command: string): string {
  const { nodes, services, seed, violations } = result
  const verdict = violations.length === 0 ? 'no violation' : `${violations.length} violations`
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>flatmesh simulation, seed ${seed}</title>
<style>
:root { color-scheme: light }
body { font: 15px/1.5 system-ui, sans-serif; color: #0f172a; background: #f8fafc; margin: 0 }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 48px }
h1 { font-size: 24px; margin: 0 } h2 { font-size: 15px; margin: 0 0 8px; color: #334155 }
p.lead { margin: 4px 0 20px; color: #475569 } code { font: 13px ui-monospace, monospace; color: #334155 }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 12px; margin-bottom: 16px }
.card { background: #fff; border: 1px solid #e2e8f0; border-radius: 10px; padding: 14px 16px }
.card b { display: block; font-size: 20px; font-weight: 650 } .card span { color: #64748b; font-size: 13px }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(480px, 1fr)); gap: 16px }
.wide { grid-column: 1 / -1 } svg { width: 100%; height: auto; display: block } svg text { font: 11px system-ui, sans-serif; fill: ${INK.text} }
.good { color: #15803d } .bad { color: #b91c1c } ul { margin: 0; padding-left: 20px } .key { color: #64748b; font-size: 13px; margin: 6px 0 0 }
</style></head><body><main>
<h1>${nodes} nodes, ${services} services each: <span class="${violations.length === 0 ? 'good' : 'bad'}">${verdict}</span></h1>
<p class="lead">${(result.simulatedMs / 60_000).toFixed(1)} simulated minutes in ${(result.wallMs / 1000).toFixed(1)} s, seed ${seed} · <code>${escapeHtml(command)}</code></p>
<section class="figures">${figures(result)}</section>
<section class="pictures">
${violations.length === 0 ? '' : card('Violations', violationList(result), true)}
${card('The mesh', topologyPicture(pictures) + key('Each dot is a node, each line a link of the overlay at the end of the run.'), true)}
${card('Convergence', convergencePicture(pictures) + key('Changes by how long they took to show at every connected node.'))}
${card('Gossip sent per node', trafficPicture(pictures) + key('kB/s over time, logarithmic: median node (blue) and 99th percentile (orange).'))}
${card('Table size', tablePicture(pictures) + key('Routes in the median node’s table over time.'))}
${card('Convergence, cumulative', cumulativePicture(pictures) + key('Share of changes that showed everywhere within that time.'))}
</section></main></body></html>
`
}

function figures(result: RunResult): string {
  const { convergenceMs, bytesPerNodePerSecond, deathMs } = result
  const cards: [string, string][] = [
    [`${convergenceMs.p50} ms`, 'convergence, median'],
    [`${convergenceMs.p99} ms`, 'convergence, 99th percentile'],
    [`${(bytesPerNodePerSecond.p50 / 1000).toFixed(1)} kB/s`, 'gossip per node, median'],
    [`${(bytesPerNodePerSecond.p99 / 1000).toFixed(1)} kB/s`, 'gossip per node, 99th percentile'],
    [deathMs.max === 0 ? 'none' : `${(deathMs.max / 1000).toFixed(1)} s`, 'slowest silent death'],
    [String(result.changes), 'changes measured'],
    [String(result.nodesLost), 'nodes lost and back'],
  ]
  return cards.map(([value, label]) => `<div class="card"><b>${value}</b><span>${label}</span></div>`).join('')
}

function card(title: string, body: string, isWide = false): string {
  return `<div class="card${isWide ? ' wide' : ''}"><h2>${title}</h2>${body}</div>`
}

function key(text: string): string {
  return `<p class="key">${text}</p>`
}

function violationList(result: RunResult): string {
  const items = result.violations.map(({ check, node, atMs, what }) => {
    return `<li><b>${check}</b> ${escapeHtml(node)} at ${Math.round(atMs)} ms: ${escapeHtml(what)}</li>`
  })
  return `<ul>${items.join('')}</ul>`
}

/** Links past this number are drawn fainter still: a full mesh of 200 is 19,900 lines. */
const LINKS_DRAWN_MAX = 6000
const LINES_PER_PATH = 20

/** Least and greatest, never equal. */
function extent(values: readonly number[]): [number, number] {
  const [least, most] = [Math.min(...values), Math.max(...values)]
  return least < most ? [least, most] : [least - 0.5, most + 0.5]
}

function topologyPicture({ topology, links }: RunPictures): string {
  const [width, height] = [1120, 470]
  const [left, right] = extent(topology.nodes.map(({ x }) => x))
  const [above, below] = extent(topology.nodes.map(({ y }) => y))
  const place = (i: number): [number, number] => {
    const node = topology.nodes[i]
    const [x, y] = [((node?.x ?? 0) - left) / (right - left), ((node?.y ?? 0) - above) / (below - above)]
    return [20 + x * (width - 40), 16 + y * (height - 32)]
  }
  const stride = Math.ceil(links.length / LINKS_DRAWN_MAX)
  const opacity = Math.max(0.05, Math.min(0.45, 60 / Math.sqrt(links.length + 1) / 20)).toFixed(3)
  const lines = links
    .filter((_, i) => i % stride === 0)
    .map(({ a, b }) => {
      const [[x1, y1], [x2, y2]] = [place(a), place(b)]
      return `M${x1.toFixed(1)} ${y1.toFixed(1)}L${x2.toFixed(1)} ${y2.toFixed(1)}`
    })
  // Drawn in portions: within one path, lines that cross do not darken each other.
  const paths: string[] = []
  for (let i = 0; i < lines.length; i += LINES_PER_PATH) {
    paths.push(`<path d="${lines.slice(i, i + LINES_PER_PATH).join('')}"/>`)
  }
  const radius = topology.nodes.length > 300 ? 2.5 : 4.5
  const dots = topology.nodes.map(({ name, region }, i) => {
    const [x, y] = place(i)
    return `<circle cx="${x.toFixed(1)}" cy="${y.toFixed(1)}" r="${radius}"><title>${escapeHtml(`${name} · ${region}`)}</title></circle>`
  })
  return `<svg viewBox="0 0 ${width} ${height}"><g stroke="${INK.line}" stroke-opacity="${opacity}" fill="none">${paths.join('')}</g><g fill="#0f172a" stroke="#fff" stroke-width="1">${dots.join('')}</g></svg>`
}

const BARS = 28

function convergencePicture({ tookMs }: RunPictures): string {
  const sorted = [...tookMs].sort(ascending)
  // The slowest hundredth would squeeze all others into one bar; it shares the last.
  const top = Math.max(100, niceCeil(quantile(sorted, 0.995)))
  const counts = new Array<number>(BARS).fill(0)
  for (const ms of sorted) {
    const bar = Math.min(BARS - 1, Math.floor((ms / top) * BARS))
    counts[bar] = (counts[bar] ?? 0) + 1
  }
  const most = niceCeil(Math.max(4, ...counts))
  const { left, top: above } = CHART
  const [innerWidth, innerHeight] = inner()
  const bars = counts.map((count, i) => {
    const height = (count / most) * innerHeight
    const x = left + (i * innerWidth) / BARS
    return `<rect x="${(x + 1).toFixed(1)}" y="${(above + innerHeight - height).toFixed(1)}" width="${(innerWidth / BARS - 2).toFixed(1)}" height="${height.toFixed(1)}" rx="2" fill="${INK.line}"/>`
  })
  return chart(axis([0, top], [0, most], ms => `${Math.round(ms)} ms`, String) + bars.join(''))
}

function cumulativePicture({ tookMs }: RunPictures): string {
  const sorted = [...tookMs].sort(ascending)
  const top = Math.max(100, niceCeil(sorted.at(-1) ?? 0))
  const points = sorted.map((ms, i) => [ms, ((i + 1) / sorted.length) * 100] as const)
  const labels = axis(
    [0, top],
    [0, 100],
    ms => `${Math.round(ms)} ms`,
    share => `${Math.round(share)} %`,
  )
  return chart(labels + polyline([[0, 0], ...points], [0, top], [0, 100], INK.line))
}

function trafficPicture({ samples }: RunPictures): string {
  const end = samples.at(-1)?.atMs ?? 1
  const low = 100
  const top = Math.max(1000, ...samples.map(({ p99 }) => p99))
  const log = (bytes: number): number => Math.log10(Math.max(low, bytes))
  const range: [number, number] = [log(low), Math.ceil(log(top))]
  const labels = axis([0, end], range, minutes, power => bytesLabel(10 ** power), range[1] - range[0])
  const line = (pick: (sample: (typeof samples)[number]) => number, colour: string): string =>
    polyline(
      samples.map(sample => [sample.atMs, log(pick(sample))]),
      [0, end],
      range,
      colour,
    )
  return chart(labels + line(({ p99 }) => p99, INK.second) + line(({ p50 }) => p50, INK.line))
}

function tablePicture({ samples }: RunPictures): string {
  const end = samples.at(-1)?.atMs ?? 1
  const top = niceCeil(Math.max(1, ...samples.map(({ routesP50 }) => routesP50)))
  const points = samples.map(({ atMs, routesP50 }) => [atMs, routesP50] as const)
  return chart(
    axis([0, end], [0, top], minutes, count => String(Math.round(count))) +
      polyline(points, [0, end], [0, top], INK.line),
  )
}

type Range = readonly [number, number]

function inner(): [number, number] {
  return [CHART.width - CHART.left - CHART.right, CHART.height - CHART.top - CHART.bottom]
}

function chart(body: string): string {
  return `<svg viewBox="0 0 ${CHART.width} ${CHART.height}">${body}</svg>`
}

function polyline(points: readonly (readonly [number, number])[], xs: Range, ys: Range, colour: string): string {
  const [innerWidth, innerHeight] = inner()
  const path = points.map(([x, y]) => {
    const left = CHART.left + ((x - xs[0]) / (xs[1] - xs[0])) * innerWidth
    const top = CHART.top + innerHeight - ((y - ys[0]) / (ys[1] - ys[0])) * innerHeight
    return `${left.toFixed(1)},${top.toFixed(1)}`
  })
  return `<polyline points="${path.join(' ')}" fill="none" stroke="${colour}" stroke-width="1.6" stroke-linejoin="round"/>`
}

function axis(xs: Range, ys: Range, showX: (x: number) => string, showY: (y: number) => string, rows = 4): string {
  const [innerWidth, innerHeight] = inner()
  let body = ''
  for (let i = 0; i <= rows; i++) {
    const y = CHART.top + innerHeight - (i / rows) * innerHeight
    const value = ys[0] + (i / rows) * (ys[1] - ys[0])
    body += `<line x1="${CHART.left}" x2="${CHART.width - CHART.right}" y1="${y.toFixed(1)}" y2="${y.toFixed(1)}" stroke="${INK.grid}"/>`
    body += `<text x="${CHART.left - 8}" y="${(y + 4).toFixed(1)}" text-anchor="end">${showY(value)}</text>`
  }
  for (let i = 0; i <= 4; i++) {
    const x = CHART.left + (i / 4) * innerWidth
    const anchor = i === 4 ? 'end' : i === 0 ? 'start' : 'middle'
    body += `<text x="${x.toFixed(1)}" y="${CHART.height - 12}" text-anchor="${anchor}">${showX(xs[0] + (i / 4) * (xs[1] - xs[0]))}</text>`
  }
  return body
}

function minutes(ms: number): string {
  return `${(ms / 60_000).toFixed(1)} min`
}

function bytesLabel(bytes: number): string {
  return bytes >= 1_000_000 ? `${bytes / 1e6} MB` : bytes >= 1000 ? `${bytes / 1000} kB` : `${Math.round(bytes)} B`
}

/** The next of 1, 2, 2.5, 5, 10 times a power of ten. */
function niceCeil(value: number): number {
  if (value <= 0) return 1
  const power = 10 ** Math.floor(Math.log10(value))
  return (([1, 2, 2.5, 5, 10] as const).find(step => step * power >= value) ?? 10) * power
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, character => `&#${character.charCodeAt(0)};`)
}
