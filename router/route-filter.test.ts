import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { ServiceInfo } from './model.ts'
import { decodeRouteFilter, explainMismatch, filterKey, formatFilter, matchesFilter } from './route-filter.ts'

const info: ServiceInfo = {
  protocol: 'http',
  instances: 1,
  healthy: 1,
  weight: 1,
  labels: { version: 'v2', tier: 'gold' },
}

describe('a filter of routes', () => {
  test.each([
    ['nothing asked', {}, true],
    ['its region', { region: 'aws-us-east-1' }, true],
    ['another region', { region: 'aws-us-east-2' }, false],
    ['the beginning of its region, without a star', { region: 'aws' }, false],
    ['the beginning of its region and a star', { region: 'aws-*' }, true],
    ['the beginning of another and a star', { region: 'gcp-*' }, false],
    ['its protocol', { protocol: 'http' as const }, true],
    ['another protocol', { protocol: 'tcp' as const }, false],
    ['one of its labels', { labels: { version: 'v2' } }, true],
    ['both of its labels', { labels: { version: 'v2', tier: 'gold' } }, true],
    ['a label with another value', { labels: { version: 'v1' } }, false],
    ['a label it has not', { labels: { zone: 'a' } }, false],
    ['a label that every object inherits', { labels: { toString: 'x' } }, false],
    ['the right region with the wrong label', { region: 'aws-us-east-1', labels: { version: 'v1' } }, false],
  ])('%s', (_, filter, expected) => {
    expect(matchesFilter(filter, 'aws-us-east-1', info)).toBe(expected)
  })

  test('has the same key as another just when it asks the same', () => {
    const filter = fc.record(
      {
        region: fc.constantFrom('a', 'b', 'a*'),
        protocol: fc.constantFrom('http' as const, 'tcp' as const),
        labels: fc.dictionary(fc.constantFrom('x', 'y', '"x"'), fc.constantFrom('1', '2', ',')),
      },
      { requiredKeys: [] },
    )
    const sorted = (labels: Record<string, string> = {}): [string, string][] => Object.entries(labels).sort()
    fc.assert(
      fc.property(filter, filter, (a, b) => {
        const isSame =
          a.region === b.region &&
          a.protocol === b.protocol &&
          JSON.stringify(sorted(a.labels)) === JSON.stringify(sorted(b.labels))
        expect(filterKey(a) === filterKey(b)).toBe(isSame)
      }),
      { numRuns: 500 },
    )
  })

  test('says of what it does not let through why', () => {
    const why = (filter: Parameters<typeof explainMismatch>[0]) => explainMismatch(filter, 'aws-us-east-1', info)
    expect(why({ region: 'aws-*', labels: { version: 'v2' } })).toBeUndefined()
    expect(why({ region: 'gcp-*' })).toBe('its region is aws-us-east-1, not gcp-*')
    expect(why({ protocol: 'tcp' })).toBe('its protocol is http, not tcp')
    expect(why({ labels: { version: 'v1' } })).toBe('its label version is v2, not v1')
    expect(why({ labels: { toString: 'x' } })).toBe('it has no label toString')
  })

  test('in words names all that is asked', () => {
    const asked = { region: 'aws-*', protocol: 'http' as const, labels: { version: 'v2', tier: 'gold' } }
    expect(formatFilter(asked)).toBe('region aws-*, protocol http, label version=v2, label tier=gold')
  })

  test('read from any text is refused, or asks for no more than was written', () => {
    const text = fc.oneof(fc.string(), fc.string({ unit: 'binary' }), fc.constantFrom('version=v2', 'a=b=c', '=', 'x='))
    fc.assert(
      fc.property(fc.option(text, { nil: undefined }), fc.array(text, { maxLength: 12 }), (region, labels) => {
        const decoded = decodeRouteFilter(region, labels)
        if (!decoded.ok) expect(decoded.problem.length).toBeLessThan(700)
        else {
          expect(decoded.filter?.region).toBe(region)
          expect(Object.entries(decoded.filter?.labels ?? {}).map(pair => pair.join('='))).toEqual(
            expect.arrayContaining(labels),
          )
          expect(Object.keys(decoded.filter?.labels ?? {})).toHaveLength(labels.length)
        }
      }),
      { numRuns: 2000, seed: 1 },
    )
  })
})
