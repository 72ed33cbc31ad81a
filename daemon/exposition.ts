import { invariant } from '../router/errors.ts'
import type { Histogram } from './histogram.ts'

export type Labels = Readonly<Record<string, string>>
/** What a sample is about, and its value. */
export type Sample<T = number> = readonly [labels: Labels, value: T]

const METRIC_NAME = /^[a-z][a-z0-9_]*$/
const LABEL_NAME = /^[a-z][a-z0-9_]*$/
export const CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

/**
 * Writes metrics as Prometheus reads them: text format 0.0.4, one family after the other.
 *
 * Units are base units (seconds, bytes) and end the name; counters end in `_total`. Breaking these rules is a bug.
 * Source: prometheus.io/docs/instrumenting/exposition_formats and /docs/practices/naming.
 */
export class Exposition {
  private text = ''
  private readonly names = new Set<string>()

  counter(name: string, help: string, samples: Iterable<Sample> | number): void {
    invariant(name.endsWith('_total'), `the counter ${name} ends in _total`)
    this.family(name, 'counter', help)
    this.samples(name, samples)
  }

  gauge(name: string, help: string, samples: Iterable<Sample> | number): void {
    invariant(!name.endsWith('_total'), `${name} is no counter`)
    this.family(name, 'gauge', help)
    this.samples(name, samples)
  }

  histogram(name: string, help: string, samples: Iterable<Sample<Histogram>>): void {
    invariant(/_(seconds|bytes)$/.test(name), `the histogram ${name} ends in its unit`)
    this.family(name, 'histogram', help)
    for (const [labels, { bounds, counts, sum }] of samples) {
      const inner = formatLabels(labels)
      const comma = inner === '' ? '' : ','
      let count = 0
      for (const [i, bound] of bounds.entries()) {
        count += counts[i] ?? 0
        this.text += `${name}_bucket{${inner}${comma}le="${bound}"} ${count}\n`
      }
      count += counts[bounds.length] ?? 0
      this.text += `${name}_bucket{${inner}${comma}le="+Inf"} ${count}\n`
      this.line(`${name}_sum`, inner, sum)
      this.line(`${name}_count`, inner, count)
    }
  }

  toString(): string {
    return this.text
  }

  private family(name: string, type: string, help: string): void {
    invariant(METRIC_NAME.test(name) && !this.names.has(name), `${name} is the name of one metric`)
    this.names.add(name)
    this.text += `# HELP ${name} ${help.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')}\n# TYPE ${name} ${type}\n`
  }

  private samples(name: string, samples: Iterable<Sample> | number): void {
    if (typeof samples === 'number') this.line(name, '', samples)
    else for (const [labels, value] of samples) this.line(name, formatLabels(labels), value)
  }

  private line(name: string, labels: string, value: number): void {
    this.text += labels === '' ? `${name} ${formatValue(value)}\n` : `${name}{${labels}} ${formatValue(value)}\n`
  }
}

function formatLabels(labels: Labels): string {
  let text = ''
  for (const [name, value] of Object.entries(labels)) {
    invariant(LABEL_NAME.test(name) && name !== 'le', `${name} is the name of a label`)
    text += `${text === '' ? '' : ','}${name}="${escapeValue(value)}"`
  }
  return text
}

function escapeValue(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')
}

function formatValue(value: number): string {
  if (Number.isFinite(value)) return String(value)
  return Number.isNaN(value) ? 'NaN' : value > 0 ? '+Inf' : '-Inf'
}
