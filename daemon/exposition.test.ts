import { describe, expect, test } from 'vitest'
import { Exposition } from './exposition.ts'
import { readExposition } from './exposition-fixture.ts'
import { Histogram } from './histogram.ts'

describe('the text for Prometheus', () => {
  test('is as its format says, byte for byte', () => {
    const text = new Exposition()
    text.counter('calls_total', 'Calls.', [
      [{ service: 'a', status: '2xx' }, 3],
      [{ service: 'b', status: '' }, 0],
    ])
    text.gauge('up', 'Whether\nit is \\ up.', 1)
    const seconds = new Histogram([0.5, 1])
    for (const value of [0.1, 0.5, 0.75, 7]) seconds.observe(value)
    text.histogram('delay_seconds', 'Delay.', [[{ at: 'x' }, seconds]])
    text.histogram('other_seconds', 'Delay.', [[{}, new Histogram([1])]])
    expect(text.toString()).toBe(`# HELP calls_total Calls.
# TYPE calls_total counter
calls_total{service="a",status="2xx"} 3
calls_total{service="b",status=""} 0
# HELP up Whether\\nit is \\\\ up.
# TYPE up gauge
up 1
# HELP delay_seconds Delay.
# TYPE delay_seconds histogram
delay_seconds_bucket{at="x",le="0.5"} 2
delay_seconds_bucket{at="x",le="1"} 3
delay_seconds_bucket{at="x",le="+Inf"} 4
delay_seconds_sum{at="x"} 8.35
delay_seconds_count{at="x"} 4
# HELP other_seconds Delay.
# TYPE other_seconds histogram
other_seconds_bucket{le="1"} 0
other_seconds_bucket{le="+Inf"} 0
other_seconds_sum 0
other_seconds_count 0
`)
    expect([...readExposition(text.toString()).keys()]).toEqual(['calls_total', 'up', 'delay_seconds', 'other_seconds'])
  })

  test('keeps every value of a label apart, whatever it holds: another node chose its name', () => {
    const values = ['"', '\\', '\n', '\\n', '"} 1\nevil 2', '', '’ü', 'a,b="c"']
    const text = new Exposition()
    text.gauge(
      'names',
      'Names.',
      values.map(name => [{ name, last: 'x' }, 1]),
    )
    const samples = readExposition(text.toString()).get('names')?.samples ?? []
    expect(samples.map(({ labels }) => labels)).toEqual(values.map(name => ({ name, last: 'x' })))
  })

  test('knows numbers that JSON does not', () => {
    const text = new Exposition()
    const values = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 1e21, 1e-7, -0.5]
    text.gauge(
      'numbers',
      'Numbers.',
      values.map((value, i) => [{ i: String(i) }, value]),
    )
    expect(
      readExposition(text.toString())
        .get('numbers')
        ?.samples.map(({ value }) => value),
    ).toEqual(values)
  })

  test.each([
    ['a counter that does not end in _total', (text: Exposition) => text.counter('calls', 'x', 1)],
    ['a gauge that ends in _total', (text: Exposition) => text.gauge('calls_total', 'x', 1)],
    ['a histogram without its unit', (text: Exposition) => text.histogram('calls', 'x', [])],
    ['a name of other characters', (text: Exposition) => text.gauge('a-b', 'x', 1)],
    ['a label of other characters', (text: Exposition) => text.gauge('a', 'x', [[{ 'a-b': '' }, 1]])],
    ['a label that is a histogram’s own', (text: Exposition) => text.gauge('a', 'x', [[{ le: '' }, 1]])],
  ])('%s is a bug', (_, write) => {
    expect(() => write(new Exposition())).toThrow(/^bug: /)
  })

  test('a name that is there already is a bug', () => {
    const text = new Exposition()
    text.gauge('a', 'x', 1)
    expect(() => text.gauge('a', 'x', 1)).toThrow(/^bug: /)
  })
})

describe('the reader that the tests judge with', () => {
  const HEAD = '# HELP a x\n# TYPE a gauge\n'
  test.each([
    ['a 1\n', 'a sample without a family'],
    [`${HEAD}a 1`, 'a last line without its end'],
    [`${HEAD}b 1\n`, 'a sample of another family'],
    [`${HEAD}a 1\na 1\n`, 'a sample twice'],
    [`${HEAD}a one\n`, 'a value that is no number'],
    [`${HEAD}a{b="c} 1\n`, 'a label without its end'],
    [`${HEAD}a{b="c",} 1\n`, 'a comma too many'],
    [`${HEAD}a{b="\\x"} 1\n`, 'an unknown escape'],
    [`${HEAD}${HEAD}`, 'a family twice'],
    ['# HELP a x\na 1\n', 'no type'],
    ['# HELP h x\n# TYPE h histogram\nh_bucket{le="1"} 1\nh_sum 1\nh_count 1\n', 'no +Inf'],
    ['# HELP h x\n# TYPE h histogram\nh_bucket{le="1"} 2\nh_bucket{le="+Inf"} 1\nh_sum 1\nh_count 1\n', 'a fall'],
  ])('refuses %j: %s', text => {
    expect(() => readExposition(text)).toThrow()
  })
})

describe('a histogram', () => {
  test('counts a value in the first bucket that is not below it, and what is beyond all in the last', () => {
    const histogram = new Histogram([1, 2])
    for (const value of [0, 1, 1.5, 2, 2.01]) histogram.observe(value)
    expect(histogram).toMatchObject({ counts: [2, 2, 1], sum: 6.51 })
  })
})
