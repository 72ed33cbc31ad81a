import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { stringify } from 'yaml'
import { MeshError } from '../router/errors.ts'
import {
  decodeAddress,
  decodeServices,
  INSTANCES_PER_SERVICE_MAX,
  parseRegistration,
  SERVICES_MAX,
  sharedLabels,
} from './service-schema.ts'

async function problemsOf(text: string): Promise<readonly string[]> {
  return (await decodeServices(text, 'services.yaml')).problem?.split('\n') ?? []
}

describe('services file', () => {
  test('reads the long and the short form of an instance and fills in what is left out', async () => {
    const text = `
services:
  - { name: orders, protocol: http, labels: { version: v1 }, instances: [{ address: 127.0.0.1:9000, weight: 3 }] }
  - name: mail
    protocol: tcp
    instances: [Mail.Internal:25, "[0:0::1]:25"]
`
    expect((await decodeServices(text, 'f')).services).toEqual([
      {
        name: 'orders',
        protocol: 'http',
        labels: { version: 'v1' },
        instances: [{ id: '127.0.0.1:9000', address: '127.0.0.1:9000', weight: 3 }],
      },
      {
        name: 'mail',
        protocol: 'tcp',
        labels: {},
        instances: [
          { id: 'mail.internal:25', address: 'mail.internal:25', weight: 1 },
          { id: '[::1]:25', address: '[::1]:25', weight: 1 },
        ],
      },
    ])
  })

  test('keeps h2 as a label, so that it is the same to the mesh as writing the label', async () => {
    const written = 'services: [{ name: a, protocol: h2, labels: { v: x }, instances: ["h:1"] }]'
    const labelled = 'services: [{ name: a, labels: { v: x, protocol: h2 }, instances: ["h:1"] }]'
    const expected = { protocol: 'http', labels: { v: 'x', protocol: 'h2' } }
    for (const text of [written, labelled])
      expect((await decodeServices(text, 'f')).services?.[0]).toMatchObject(expected)
    const registration = { service: 'a', address: 'h:1', protocol: 'h2', labels: { v: 'x' } }
    expect(parseRegistration(registration, 1000)).toMatchObject(expected)
    const torn = 'services: [{ name: a, protocol: h2, labels: { protocol: thrift }, instances: ["h:1"] }]'
    expect((await decodeServices(torn, 'f')).problem).toContain('expected no such label, or h2, beside protocol: h2')
  })

  test('reads anchors and aliases, and JSON, as the YAML they are', async () => {
    const aliased = 'services:\n  - name: a\n    instances: &all [h:1]\n  - name: b\n    instances: *all\n'
    expect((await decodeServices(aliased, 'f')).services?.[1]?.instances[0]?.address).toBe('h:1')
    const json = JSON.stringify({ services: [{ name: 'a', instances: ['h:1'] }] })
    expect((await decodeServices(json, 'f')).services?.[0]?.name).toBe('a')
  })

  test('tells all problems at once, each with line, path, what is accepted and what was found', async () => {
    const text = `services:
  - name: Orders
    protcol: http
    labels: { version: 1 }
    instances:
      - address: localhost
        weight: 0
      - 9000
  - name: mail
`
    const name = 'expected a service name (1 to 63 of a-z, 0-9 and -, not - at either end)'
    const address = 'expected host:port, such as 127.0.0.1:9000, db.internal:5432 or "[::1]:9000"'
    expect((await problemsOf(text)).toSorted()).toEqual([
      `services.yaml:2 services[0].name: ${name}, found "Orders"`,
      'services.yaml:3 services[0].protcol: unknown key; did you mean "protocol"? accepted here: name, protocol, labels, instances',
      'services.yaml:4 services[0].labels.version: expected a text, found 1 (put it in quotes: "1")',
      `services.yaml:6 services[0].instances[0].address: ${address}, found "localhost"`,
      'services.yaml:7 services[0].instances[0].weight: expected a whole number from 1 to 1000, found 0',
      'services.yaml:8 services[0].instances[1]: expected an address such as 127.0.0.1:9000, or { address, weight }, found 9000',
      'services.yaml:9 services[1]: the key "instances" is missing',
    ])
  })

  test.each([
    ['nothing at all', '', ':1 is empty; write "services: []"'],
    ['only comments', '# soon\n', ':1 is empty; write "services: []"'],
    ['no list', 'services:\n', ':1 services: expected a list of services ([] for none), found nothing'],
    ['no YAML', 'services: []\n  x: [\n', ':2 not YAML'],
    ['two documents', 'services: []\n---\nservices: []\n', 'more than one document'],
    ['a key written twice', 'services: []\nservices: []\n', ':2 the key "services" is written twice'],
    ['an unknown alias', 'services: *all\n', 'cannot be read as YAML'],
    [
      'a service twice',
      'services:\n- {name: a, instances: []}\n- {name: a, instances: []}\n',
      ':3 services[1].name: "a" is already services[0]',
    ],
    ['an instance twice', 'services: [{name: a, instances: [h:1, "H:1"]}]', '"h:1" is already instances[0]'],
    [
      'another protocol',
      'services: [{name: a, protocol: udp, instances: []}]',
      'expected http, h2 or tcp, found "udp"',
    ],
    ['a prototype as label', 'services: [{name: a, labels: {__proto__: x}, instances: []}]', 'expected a label key'],
  ])('refuses %s', async (_, text, problem) => {
    expect((await problemsOf(text)).join('\n')).toContain(problem)
  })

  test('tells 20 problems and counts the rest', async () => {
    const problems = await problemsOf(stringify({ services: Array.from({ length: 50 }, () => 7) }))
    expect(problems).toHaveLength(21)
    expect(problems.at(-1)).toBe('and 30 more')
  })

  test('refuses more services or instances than the limits before it looks at each', async () => {
    const services = JSON.stringify({ services: Array.from({ length: SERVICES_MAX + 1 }, () => 1) })
    expect(await problemsOf(services)).toEqual([
      `services.yaml:1 services: expected at most ${SERVICES_MAX} services, found ${SERVICES_MAX + 1}`,
    ])
    const instances = Array.from({ length: INSTANCES_PER_SERVICE_MAX + 1 }, () => 1)
    expect((await problemsOf(JSON.stringify({ services: [{ name: 'a', instances }] })))[0]).toContain(
      'at most 1000 instances',
    )
  })

  test('outlives aliases that unfold without end and nesting deeper than the stack', async () => {
    const levels = ['a: &a [x, x, x, x, x, x, x, x, x, x]']
    for (const [from, to] of ['ab', 'bc', 'cd', 'de', 'ef', 'fg'].map(pair => [...pair])) {
      levels.push(`${to}: &${to} [${Array.from({ length: 10 }, () => `*${from}`).join(', ')}]`)
    }
    expect((await problemsOf(levels.join('\n')))[0]).toContain('cannot be read as YAML')
    expect((await problemsOf('['.repeat(20_000))).length).toBeGreaterThan(0)
    expect((await problemsOf('services: &a [{ name: a, instances: *a }]')).length).toBeGreaterThan(0)
  })

  test('lets the event loop run while it reads a long file', async () => {
    const instances = ['h:1', 'h:2', 'h:3']
    const services = Array.from({ length: 1_500 }, (_, i) => ({ name: `s${i}`, instances }))
    let turns = 0
    const counting = setInterval(() => turns++)
    const decoded = await decodeServices(stringify({ services }, { aliasDuplicateObjects: false }), 'f')
    clearInterval(counting)
    expect(decoded.services).toHaveLength(1_500)
    expect(turns).toBeGreaterThan(2)
  })

  test('answers any text with services or with problems on single lines without control characters', async () => {
    const words = fc.constantFrom(
      'services',
      'name',
      'instances',
      ': ',
      '- ',
      '[',
      ']',
      '{',
      '}',
      ', ',
      '\n',
      '  ',
      '&a ',
      '*a',
      '"',
      'h:1',
      '#',
      '|',
      '\u001b[31m',
      '\r',
      '\u202e',
    )
    const text = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.array(words, { maxLength: 60 }).map(all => all.join('')),
    )
    await fc.assert(
      fc.asyncProperty(text, async one => {
        const decoded = await decodeServices(one, 'f')
        if (decoded.problem === undefined) return Array.isArray(decoded.services)
        return (
          decoded.problem.split('\n').every(line => line.startsWith('f:') || /^and \d+ more$/.test(line)) &&
          !['\u001b', '\u202e', '\r'].some(one => decoded.problem.includes(one))
        )
      }),
      { numRuns: 1_500, interruptAfterTimeLimit: 2_000 },
    )
  })
})

describe('addresses', () => {
  test.each([
    ['127.0.0.1:9000', '127.0.0.1:9000'],
    ['DB.internal:5432', 'db.internal:5432'],
    ['db.internal.:1', 'db.internal.:1'],
    ['my_box-1:65535', 'my_box-1:65535'],
    ['[::1]:80', '[::1]:80'],
    ['[2001:DB8:0:0::1]:80', '[2001:db8::1]:80'],
  ])('takes %s as %s', (text, address) => {
    expect(decodeAddress(text)).toEqual({ address })
  })

  test.each([
    '',
    ':',
    'h',
    'h:',
    ':1',
    'h:0',
    'h:65536',
    'h:080',
    'h:1 ',
    ' h:1',
    'h:-1',
    'h:1:2',
    '::1',
    '[::1]',
    '[h]:1',
    '[fe80::1%eth0]:1',
    'http://h:1',
    'h/x:1',
    'a..b:1',
    '-a:1',
    '1.2.3:1',
    '127.1:1',
    '0x7f000001:1',
    '256.1.1.1:1',
    '0.0.0.0:1',
    '[::]:1',
    'h\n:1',
    'ä:1',
    `${'a'.repeat(64)}:1`,
  ])('refuses %j', text => {
    expect(decodeAddress(text)).toHaveProperty('reason')
  })

  test('has one form for each address: what it gives back it takes unchanged', () => {
    const host = fc.oneof(
      fc.domain(),
      fc.ipV4(),
      fc.ipV6().map(ip => `[${ip}]`),
      fc.string(),
    )
    fc.assert(
      fc.property(host, fc.integer({ min: 0, max: 70_000 }), (name, port) => {
        const first = decodeAddress(`${name}:${port}`)
        if ('address' in first) expect(decodeAddress(first.address)).toEqual(first)
      }),
      { numRuns: 2_000 },
    )
  })
})

describe('registration', () => {
  test('fills in what is left out', () => {
    expect(parseRegistration({ service: 'orders', address: 'H:1' }, 5_000)).toEqual({
      service: 'orders',
      address: 'h:1',
      id: 'h:1',
      protocol: 'http',
      labels: {},
      weight: 1,
      ttlMs: 5_000,
    })
  })

  test.each([
    ['no object', 'orders', 'expected a map with the keys service, address, id'],
    ['nothing', undefined, 'found nothing'],
    ['a list', [], 'found a list of 0'],
    ['no service', { address: 'h:1' }, 'the key "service" is missing'],
    ['no address', { service: 'a' }, 'the key "address" is missing'],
    ['an unknown key', { service: 'a', address: 'h:1', ttl: 5 }, 'did you mean "ttlMs"?'],
    [
      'a short ttl',
      { service: 'a', address: 'h:1', ttlMs: 999 },
      'ttlMs: expected a whole number from 1000 to 86400000, found 999',
    ],
    ['a long ttl', { service: 'a', address: 'h:1', ttlMs: 86_400_001 }, 'found 86400001'],
    ['half a weight', { service: 'a', address: 'h:1', weight: 1.5 }, 'weight: expected a whole number'],
    ['an id that is no URL segment', { service: 'a', address: 'h:1', id: '../x' }, 'id: expected an id'],
    ['a long id', { service: 'a', address: 'h:1', id: 'x'.repeat(261) }, 'id: expected an id'],
    [
      'many labels',
      {
        service: 'a',
        address: 'h:1',
        labels: Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`k${i}`, 'v'])),
      },
      'at most 16 labels',
    ],
    ['a long label', { service: 'a', address: 'h:1', labels: { k: 'v'.repeat(64) } }, 'labels.k: expected at most 63'],
    [
      'a label with a control character',
      { service: 'a', address: 'h:1', labels: { k: 'a\nb' } },
      'labels.k: expected at most 63 printable',
    ],
  ])('refuses %s', (_, body, problem) => {
    expect(() => parseRegistration(body, 5_000)).toThrow(
      expect.objectContaining({ code: 'bad-registry', message: expect.stringContaining(problem) }),
    )
  })

  test('refuses any other body with a MeshError, never with a crash', () => {
    const body = fc.oneof(
      fc.jsonValue(),
      fc.record(
        {
          service: fc.jsonValue(),
          address: fc.oneof(fc.constant('h:1'), fc.jsonValue()),
          labels: fc.jsonValue(),
          id: fc.jsonValue(),
        },
        { requiredKeys: [] },
      ),
    )
    fc.assert(
      fc.property(body, one => {
        try {
          parseRegistration(one, 5_000)
        } catch (error) {
          expect(error).toBeInstanceOf(MeshError)
          expect(String(error).length).toBeLessThan(10_000)
        }
      }),
      { numRuns: 2_000 },
    )
  })
})

test('labels are shared only if all have them with the same value', () => {
  expect(sharedLabels([])).toEqual({})
  expect(sharedLabels([{ a: '1' }])).toEqual({ a: '1' })
  expect(
    sharedLabels([
      { a: '1', b: '2', c: '3' },
      { a: '1', b: '3' },
    ]),
  ).toEqual({ a: '1' })
  expect(sharedLabels([{ constructor: 'x' }, {}])).toEqual({})
})
