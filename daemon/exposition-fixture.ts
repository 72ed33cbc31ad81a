/** One sample of a family, as it stands in the text. */
export interface ReadSample {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

export interface ReadFamily {
  readonly help: string
  readonly type: string
  readonly samples: readonly ReadSample[]
}

const SAMPLE = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$/
const LABEL = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\n"])*)"(,|$)/
const VALUE = /^(?:[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?|NaN|[+-]Inf)$/
const SUFFIXES: Readonly<Record<string, readonly string[]>> = {
  counter: [''],
  gauge: [''],
  histogram: ['_bucket', '_sum', '_count'],
}

/**
 * Reads Prometheus' text format 0.0.4, stricter than Prometheus itself: each family has HELP, then TYPE, then all its
 * samples together, none twice; a histogram's buckets rise to +Inf, which is its count.
 *
 * Errors: Error with the line.
 */
export function readExposition(text: string): Map<string, ReadFamily> {
  const families = new Map<string, { help: string; type: string; samples: ReadSample[] }>()
  let name = ''
  const seen = new Set<string>()
  if (!text.endsWith('\n')) throw new Error('the last line has no end')
  const lines = text.slice(0, -1).split('\n')
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i] ?? ''
    const fail = (why: string): Error => new Error(`line ${i + 1}: ${why}: ${line}`)
    const help = /^# HELP (\S+) (\S.*)$/.exec(line)
    if (help !== null) {
      name = help[1] ?? ''
      if (families.has(name)) throw fail('a family twice')
      const type = new RegExp(`^# TYPE ${name} (counter|gauge|histogram)$`).exec(lines[++i] ?? '')?.[1]
      if (type === undefined) throw fail('no TYPE after HELP')
      families.set(name, { help: help[2] ?? '', type, samples: [] })
      continue
    }
    const family = families.get(name)
    const sample = readSample(line)
    if (family === undefined || sample === undefined) throw fail('not a sample of a family')
    if (!SUFFIXES[family.type]?.includes(sample.name.slice(name.length)) || !sample.name.startsWith(name)) {
      throw fail(`not of ${name}`)
    }
    const key = `${sample.name} ${JSON.stringify(Object.entries(sample.labels).sort())}`
    if (seen.has(key)) throw fail('a sample twice')
    seen.add(key)
    family.samples.push(sample)
  }
  for (const [each, { type, samples }] of families) if (type === 'histogram') checkHistogram(each, samples)
  return families
}

function readSample(line: string): ReadSample | undefined {
  const [, name = '', inner = '', value = ''] = SAMPLE.exec(line) ?? []
  if (name === '' || !VALUE.test(value)) return undefined
  const labels: Record<string, string> = {}
  for (let rest = inner; rest !== ''; ) {
    const [whole = '', label = '', text = ''] = LABEL.exec(rest) ?? []
    if (whole === '' || label in labels) return undefined
    labels[label] = text.replace(/\\(.)/g, (_, c: string) => (c === 'n' ? '\n' : c))
    rest = rest.slice(whole.length)
    if (rest === '' && whole.endsWith(',')) return undefined
  }
  return { name, labels, value: Number(value.replace('Inf', 'Infinity')) }
}

function checkHistogram(name: string, samples: readonly ReadSample[]): void {
  const series = new Map<string, ReadSample[]>()
  for (const sample of samples) {
    const { le: _, ...labels } = sample.labels
    const key = JSON.stringify(Object.entries(labels).sort())
    series.set(key, [...(series.get(key) ?? []), sample])
  }
  for (const [key, its] of series) {
    const buckets = its.filter(sample => sample.name === `${name}_bucket`)
    const ends = buckets.map(({ labels: { le = '' } }) => Number(le.replace('Inf', 'Infinity')))
    const counts = buckets.map(({ value }) => value)
    const count = its.find(sample => sample.name === `${name}_count`)?.value
    const isRising = (all: readonly number[]): boolean => all.every((each, i) => i === 0 || each >= (all[i - 1] ?? 0))
    const isWhole = ends.at(-1) === Number.POSITIVE_INFINITY && counts.at(-1) === count
    if (!isRising(ends) || !isRising(counts) || !isWhole || !its.some(sample => sample.name === `${name}_sum`)) {
      throw new Error(`the histogram ${name} of ${key} is not whole`)
    }
  }
}
