import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { MeshError } from '../router/errors.ts'
import { SERVICE_NAME } from '../router/model.ts'
import { MESH_NAME, NODE_NAME, REGION } from '../tunnel/certificate.ts'
import { makeFolder } from './command-fixture.ts'
import { CONFIG_DEFAULTS, CONFIG_KEYS, loadConfig, parseConfig } from './config.ts'

const NAMES = 'mesh: acme\nnode: use1-a\nregion: aws-us-east-1\n'

function problemOf(text: string): string {
  try {
    parseConfig(text, '/etc/f.yaml', 'f.yaml')
  } catch (error) {
    if (error instanceof MeshError && error.code === 'bad-config') return error.message
    throw error
  }
  return 'no problem'
}

const LIMITS = { instanceConnectionsMax: 1024, queueMax: 1024, queueTimeoutMs: 5000, clientConnectionsMax: 32_768 }

test('three names are enough: everything else has a default', () => {
  const config = parseConfig(NAMES, '/etc/flatmesh/flatmesh.yaml')
  expect(config).toEqual({
    file: '/etc/flatmesh/flatmesh.yaml',
    mesh: 'acme',
    node: 'use1-a',
    region: 'aws-us-east-1',
    dataDir: '/etc/flatmesh/data',
    listen: {
      overlay: { host: '0.0.0.0', port: 4700 },
      calls: { host: '0.0.0.0', port: 4701 },
      http: { host: '127.0.0.1', port: 4780 },
      admin: { host: '127.0.0.1', port: 4790 },
    },
    advertise: [],
    join: [],
    dial: new Map(),
    registries: [
      { type: 'file', path: '/etc/flatmesh/services.yaml' },
      { type: 'http', ttlMs: 30_000 },
    ],
    listeners: [],
    proxy: { timeoutMs: 60_000, retryBodyBytes: 65_536, drainMs: 30_000, tcpIdleMs: 3_600_000, ...LIMITS },
    overlay: { fullMeshMax: 64 },
    relay: true,
    log: { level: 'info', access: 'off', accessRatio: 0.01, accessFile: '/etc/flatmesh/access.log' },
  })
})

test('every field can be set, and paths start from the folder of the file', () => {
  const text = `${NAMES}
dataDir: /var/lib/flatmesh
listen: { overlay: '[::]:0', calls: 10.0.0.1:1, http: localhost:0, admin: 'unix:run/admin.sock' }
advertise: [203.0.113.7, '2001:db8::7', a.example.com]
join: [/ip4/198.51.100.4/tcp/4700]
dial:
  euw3-a: { overlay: [/dns/b.example/tcp/4700], calls: ['[::1]:4701'] }
  apse-1: { calls: [10.8.0.2:4701] }
registries: [{ type: http, ttlMs: 1000 }, { type: file, path: ../x.yaml }, { type: file }]
listeners: [{ tcp: '[::1]:0', service: postgres }, { tcp: 127.0.0.1:6379, service: redis, connectionsMax: 5 }]
proxy: { timeoutMs: 0, retryBodyBytes: 0, drainMs: 1, tcpIdleMs: 0, instanceConnectionsMax: 1, queueMax: 0, queueTimeoutMs: 1, clientConnectionsMax: 1 }
overlay: { fullMeshMax: 1000 }
relay: false
log: { level: debug, access: sampled, accessRatio: 0.5, accessFile: /var/log/calls }
`
  expect(parseConfig(text, '/etc/fm/f.yaml')).toMatchObject({
    dataDir: '/var/lib/flatmesh',
    listen: {
      overlay: { host: '::', port: 0 },
      calls: { host: '10.0.0.1', port: 1 },
      http: { host: 'localhost', port: 0 },
      admin: { socketPath: '/etc/fm/run/admin.sock' },
    },
    advertise: ['203.0.113.7', '2001:db8::7', 'a.example.com'],
    join: ['/ip4/198.51.100.4/tcp/4700'],
    dial: new Map([
      ['euw3-a', { overlay: ['/dns/b.example/tcp/4700'], calls: ['[::1]:4701'] }],
      ['apse-1', { calls: ['10.8.0.2:4701'] }],
    ]),
    registries: [
      { type: 'http', ttlMs: 1000 },
      { type: 'file', path: '/etc/x.yaml' },
      { type: 'file', path: '/etc/fm/services.yaml' },
    ],
    listeners: [
      { tcp: { host: '::1', port: 0 }, service: 'postgres', connectionsMax: 10_000 },
      { tcp: { host: '127.0.0.1', port: 6379 }, service: 'redis', connectionsMax: 5 },
    ],
    proxy: {
      ...{ timeoutMs: 0, retryBodyBytes: 0, drainMs: 1, tcpIdleMs: 0 },
      ...{ instanceConnectionsMax: 1, queueMax: 0, queueTimeoutMs: 1, clientConnectionsMax: 1 },
    },
    overlay: { fullMeshMax: 1000 },
    relay: false,
    log: { level: 'debug', access: 'sampled', accessRatio: 0.5, accessFile: '/var/log/calls' },
  })
})

test('a config cannot be changed once it is read', () => {
  const config = parseConfig(NAMES, '/f.yaml')
  expect(Object.isFrozen(config)).toBe(true)
  expect(Object.isFrozen(config.listen.overlay)).toBe(true)
  expect(Object.isFrozen(config.registries)).toBe(true)
})

test.each([
  ['nodes: x', 'f.yaml:4: nodes: found "nodes" as a key (did you mean node?); expected one of mesh, node,'],
  ['zzz: x', 'f.yaml:4: zzz: found "zzz" as a key; expected one of mesh,'],
  ['listen: 5', 'f.yaml:4: listen: found 5 (a number); expected a mapping of overlay, calls, http, admin'],
  ['listen:\n  htp: x', 'f.yaml:5: listen.htp: found "htp" as a key (did you mean http?); expected one of overlay'],
  ['listen: { http: 4780 }', 'f.yaml:4: listen.http: found 4780 (a number); expected host:port'],
  ['listen: { http: a:70000 }', 'f.yaml:4: listen.http: found "a:70000"; expected host:port'],
  ['listen: { http: "::1:80" }', 'listen.http: found "::1:80"; expected host:port, such as 0.0.0.0:4700 or [::1]:0'],
  ['listen:\n  http: 127.0.0.1:4790', 'listen.admin: found nothing; expected an address of its own: listen.http has'],
  [
    'listen: { admin: 0.0.0.0:1 }',
    'found "0.0.0.0:1"; expected a loopback address such as 127.0.0.1:4790, or unix:PATH: the admin API has no authentication of its own',
  ],
  ['listen: { admin: "[::]:1" }', 'the admin API has no authentication of its own'],
  ['listen: { admin: "unix:" }', 'listen.admin: found "unix:"; expected host:port on a loopback address'],
  [`listen: { admin: "unix:/${'a'.repeat(100)}" }`, 'expected a socket path of at most 94 bytes'],
  ['relay: 1', 'f.yaml:4: relay: found 1 (a number); expected true or false'],
  [
    'overlay: { fullMeshMax: 0 }',
    'f.yaml:4: overlay.fullMeshMax: found 0 (a number); expected a whole number from 1 to 1000',
  ],
  ['dataDir: 7', 'f.yaml:4: dataDir: found 7 (a number); expected a folder'],
  ['dataDir: ""', 'f.yaml:4: dataDir: found ""; expected a folder'],
  ['advertise: 1.2.3.4', 'f.yaml:4: advertise: found "1.2.3.4"; expected a list'],
  [
    'advertise:\n  - 1.2.3.4\n  - 1.2.3.4:80',
    'f.yaml:6: advertise[1]: found "1.2.3.4:80"; expected a host without port',
  ],
  [`advertise: [${'a, '.repeat(17)}]`, 'f.yaml:4: advertise: found ["a","a",'],
  ['join: [1.2.3.4:4700]', 'f.yaml:4: join[0]: found "1.2.3.4:4700"; expected a multiaddr over TCP, such as /ip4/'],
  ['dial: { use1-a: {} }', 'f.yaml:4: dial.use1-a: found "use1-a"; expected the name of another node'],
  ['dial: { B!: {} }', 'f.yaml:4: dial.B!: found "B!"; expected a node\'s name as key'],
  ['dial: { b: { call: [] } }', 'dial.b.call: found "call" as a key (did you mean calls?)'],
  [
    'dial:\n  b:\n    calls: [1.2.3.4:0]',
    'f.yaml:6: dial.b.calls[0]: found "1.2.3.4:0"; expected host:port with a port above 0',
  ],
  ['dial: { b: { overlay: [x] } }', 'dial.b.overlay[0]: found "x"; expected a multiaddr'],
  ['registries: {}', 'f.yaml:4: registries: found {}; expected a list'],
  ['registries: [{}]', 'f.yaml:4: registries[0].type: found nothing; expected file or http'],
  [
    'registries:\n- type: http\n- type: http',
    'f.yaml:6: registries[1]: found {"type":"http"}; expected each registry once',
  ],
  [
    'registries: [{ type: file, ttlMs: 5 }]',
    'registries[0].ttlMs: found 5 (a number); expected no ttlMs here: it belongs to type http',
  ],
  [
    'registries: [{ type: http, path: x }]',
    'registries[0].path: found "x"; expected no path here: it belongs to type file',
  ],
  ['registries: [{ type: http, ttlMs: 999 }]', 'found 999 (a number); expected a whole number from 1000 to 86400000'],
  ['registries: [{ type: consul }]', 'registries[0].type: found "consul"; expected file or http'],
  ['proxy: { timeoutMs: -1 }', 'proxy.timeoutMs: found -1 (a number); expected a whole number from 0 to 3600000'],
  ['proxy: { timeoutMs: 60s }', 'proxy.timeoutMs: found "60s"; expected a whole number'],
  ['proxy: { instanceConnectionsMax: 0 }', 'proxy.instanceConnectionsMax: found 0'],
  ['proxy: { queueMax: -1 }', 'proxy.queueMax: found -1'],
  ['proxy: { drainMs: 1.5 }', 'proxy.drainMs: found 1.5'],
  [
    'proxy: { retryBodyBytes: 99999999 }',
    'proxy.retryBodyBytes: found 99999999 (a number); expected a whole number from 0 to 16777216',
  ],
  ['listeners: { tcp: a:1 }', 'f.yaml:4: listeners: found {"tcp":"a:1"}; expected a list'],
  ['listeners: [{ service: a }]', 'f.yaml:4: listeners[0].tcp: found nothing; expected host:port'],
  ['listeners: [{ tcp: a:1 }]', 'f.yaml:4: listeners[0].service: found nothing; expected a name of 1 to 63 characters'],
  ['listeners: [{ tcp: a:1, service: A.b }]', 'listeners[0].service: found "A.b"; expected a name'],
  ['listeners: [{ tcp: a:1, services: b }]', 'found "services" as a key (did you mean service?)'],
  [
    'listeners: [{ tcp: a:1, service: b, connectionsMax: 0 }]',
    'listeners[0].connectionsMax: found 0 (a number); expected a whole number from 1 to 1000000',
  ],
  [
    'listeners:\n- { tcp: 127.0.0.1:4780, service: a }',
    'f.yaml:5: listeners[0].tcp: found "127.0.0.1:4780"; expected an address of its own: listen.http has this one',
  ],
  [
    'listeners:\n- { tcp: a:1, service: a }\n- { tcp: a:1, service: b }',
    'f.yaml:6: listeners[1].tcp: found "a:1"; expected an address of its own: listeners[0].tcp has this one',
  ],
  ['log: { level: trace }', 'log.level: found "trace"; expected error, warn, info or debug'],
  ['log: { access: some }', 'log.access: found "some"; expected off, sampled or all'],
  ['log: { accessRatio: 5 }', 'log.accessRatio: found 5 (a number); expected a share from 0 to 1'],
  ['log: { accessFile: "" }', 'log.accessFile: found ""; expected a file'],
  ['mesh: other', 'f.yaml:4: not YAML: Map keys must be unique'],
  ['log: [', 'f.yaml:5: not YAML: '],
  ['zzz: *nothing', 'f.yaml:1: not usable YAML: Unresolved alias'],
])('%j is refused with the line, the place, what was found and what is accepted', (text, problem) => {
  expect(problemOf(`${NAMES}${text}\n`)).toContain(problem)
})

test('names that are missing or of other characters are refused', () => {
  expect(problemOf('')).toContain('f.yaml:1: mesh: found nothing; expected a name of 1 to 63 characters')
  expect(problemOf('mesh: Acme\nnode: 7\nregion: a b\n')).toBe(
    [
      'f.yaml has 3 problems:',
      '  f.yaml:1: mesh: found "Acme"; expected a name of 1 to 63 characters of a-z, 0-9 and -, beginning and ending with a letter or digit',
      '  f.yaml:2: node: found 7 (a number); expected a name of 1 to 63 characters of a-z, 0-9 and -, beginning and ending with a letter or digit',
      '  f.yaml:3: region: found "a b"; expected a name of 1 to 63 letters, digits and . _ -, beginning with a letter or digit',
    ].join('\n'),
  )
  expect(problemOf('- a list')).toContain('f.yaml:1: found ["a list"]; expected a mapping of mesh, node,')
})

test('names are accepted here exactly when the certificate accepts them', () => {
  expect([MESH_NAME.source, NODE_NAME.source]).toEqual([SERVICE_NAME.source, SERVICE_NAME.source])
  fc.assert(
    fc.property(fc.string({ maxLength: 70 }), region => {
      const text = JSON.stringify({ mesh: 'm', node: 'n', region })
      expect(problemOf(text) === 'no problem').toBe(REGION.test(region))
    }),
    { numRuns: 200 },
  )
})

test('all problems are told at once, but no more than twenty', () => {
  const text = `${NAMES}join: [${Array.from({ length: 30 }, (_, i) => `x${i}`).join(', ')}]\n`
  const lines = problemOf(text).split('\n')
  expect(lines[0]).toBe('f.yaml has 30 problems:')
  expect(lines).toHaveLength(22)
  expect(lines.at(-1)).toBe('  and 10 more')
})

test('of a text that is not YAML, nothing is told but where', () => {
  expect(problemOf('log: [\n')).toMatch(/^f\.yaml:2: not YAML: [^\n]*$/)
})

test('a long value is shown shortened', () => {
  const problem = problemOf(`${NAMES}advertise: ["${'a b'.repeat(1000)}"]\n`)
  expect(problem.length).toBeLessThan(250)
})

test('aliases that multiply are refused and not expanded', () => {
  const layers = Array.from({ length: 30 }, (_, i) => `l${i + 1}: &l${i + 1} [*l${i}, *l${i}, *l${i}]`)
  expect(problemOf(`${NAMES}l0: &l0 [x]\n${layers.join('\n')}\n`)).toContain('not usable YAML')
})

test('no text makes the reader throw anything but bad-config', () => {
  const piece = fc.constantFrom(
    'mesh',
    'listen',
    ': ',
    '\n',
    '  ',
    '- ',
    '[',
    ']',
    '{',
    '}',
    '&a ',
    '*a',
    '__proto__',
    '"',
    '|',
    '!!x ',
    '1',
    '~',
  )
  fc.assert(
    fc.property(fc.array(fc.oneof(piece, fc.string({ maxLength: 5 })), { maxLength: 30 }), pieces => {
      expect(problemOf(pieces.join(''))).not.toBe('')
    }),
    { numRuns: 500 },
  )
})

test('a missing file says how to make one, an unreadable one why', () => {
  using made = makeFolder()
  const missing = join(made.folder, 'flatmesh.yaml')
  expect(() => loadConfig(missing, 'flatmesh.yaml')).toThrow(
    'there is no config file flatmesh.yaml: make one with flatmesh init or flatmesh join, or name yours with --config FILE',
  )
  expect(() => loadConfig(made.folder)).toThrow(/cannot be read: EISDIR/)
  writeFileSync(missing, `# ${'x'.repeat(1024 * 1024)}\n${NAMES}`)
  expect(() => loadConfig(missing)).toThrow(/larger than 1048576 bytes/)
})

const docs = readFileSync(new URL('../docs/config.md', import.meta.url), 'utf8')

/** Every field as docs/config.md writes it, groups left out: `listen.overlay`, `dial.*.calls`, `registries[].type`. */
function fieldPaths(): string[] {
  const parents = Object.keys(CONFIG_KEYS)
  return Object.entries(CONFIG_KEYS)
    .flatMap(([parent, keys]) => keys.map(key => (parent === '' ? key : `${parent}.${key}`)))
    .filter(path => ![path, `${path}.*`, `${path}[]`].some(group => parents.includes(group)))
}

function docRows(): Map<string, string[]> {
  const rows = docs.split('\n').filter(line => line.startsWith('| `'))
  return new Map(
    rows.map(row => {
      const cells = row.split('|').map(cell => cell.trim())
      return [(cells[1] ?? '').replaceAll('`', ''), cells]
    }),
  )
}

test('docs/config.md has a row for every field, and none for a field that is not', () => {
  expect([...docRows().keys()].sort()).toEqual(fieldPaths().sort())
})

test('docs/config.md gives the defaults that hold', () => {
  const { registries, listeners, ...groups } = CONFIG_DEFAULTS
  const defaults: [string, string | number][] = Object.entries(groups).flatMap(([group, value]) =>
    typeof value === 'string'
      ? [[group, value]]
      : Object.entries(value).map(([key, inner]): [string, string | number] => [`${group}.${key}`, inner]),
  )
  defaults.push(['registries[].path', registries.path], ['registries[].ttlMs', registries.ttlMs])
  defaults.push(['listeners[].connectionsMax', listeners.connectionsMax])
  for (const [path, value] of defaults) expect(docRows().get(path)?.[4], path).toBe(`\`${value}\``)
})

test('the example in docs/config.md is a config that works', () => {
  const example = /```yaml\n([^`]*)```/.exec(docs)?.[1] ?? ''
  expect(parseConfig(example, '/f.yaml')).toMatchObject({ node: 'use1-a', log: { level: 'info' } })
})

test('the files of proxy.tls are found from the folder of the config, and come in a pair', () => {
  const text = 'mesh: m\nnode: n\nregion: r\nproxy: { tls: { cert: tls/c.pem, key: /k.pem } }\n'
  expect(parseConfig(text, '/etc/flatmesh/f.yaml').proxy.tls).toEqual({
    cert: '/etc/flatmesh/tls/c.pem',
    key: '/k.pem',
  })
  expect(() => parseConfig(text.replace(', key: /k.pem', ''), '/f.yaml')).toThrow('proxy.tls.key')
})
