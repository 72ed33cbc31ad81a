import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { parse } from 'yaml'
import { makeFolder, run, startAdmin } from './command-fixture.ts'

/** A node’s folder whose daemon is not running. */
async function makeNode(
  registries = '',
): Promise<{ folder: string; services: () => unknown; [Symbol.dispose](): void }> {
  const made = makeFolder()
  const gone = await startAdmin()
  await gone[Symbol.asyncDispose]()
  const text = `mesh: a\nnode: b\nregion: c\nlisten: { admin: '${gone.text}' }\n${registries}`
  writeFileSync(join(made.folder, 'flatmesh.yaml'), text)
  return {
    folder: made.folder,
    services: () => parse(readFileSync(join(made.folder, 'services.yaml'), 'utf8')),
    [Symbol.dispose]: () => made[Symbol.dispose](),
  }
}

test('service add and remove edit the services file, whether the daemon runs or not', async () => {
  using node = await makeNode()
  const cwd = node.folder
  const add = [
    'service',
    'add',
    'orders',
    '127.0.0.1:9000',
    '--label',
    'version=v1',
    '--label',
    'tier=a=b',
    '--weight',
    '5',
  ]
  expect(await run(add, { cwd })).toEqual({
    code: 0,
    out: 'orders at 127.0.0.1:9000 added to services.yaml\n',
    err: '',
  })
  expect(node.services()).toEqual({
    services: [
      { name: 'orders', labels: { version: 'v1', tier: 'a=b' }, instances: [{ address: '127.0.0.1:9000', weight: 5 }] },
    ],
  })
  expect((await run(add, { cwd })).out).toBe('orders at 127.0.0.1:9000 was already in services.yaml\n')
  await run(['service', 'add', 'db', '10.0.0.1:5432', '--protocol', 'tcp'], { cwd })
  expect((await run(['service', 'list'], { cwd })).out).toBe(
    [
      'SERVICE  ADDRESS         PROTOCOL  WEIGHT  LABELS               FROM                EXPIRES',
      'orders   127.0.0.1:9000  http           5  version=v1 tier=a=b  file services.yaml    never',
      'db       10.0.0.1:5432   tcp            1  -                    file services.yaml    never',
      '',
    ].join('\n'),
  )
  const removed = await run(['service', 'remove', 'orders', '127.0.0.1:9000', '--json'], { cwd })
  expect(JSON.parse(removed.out)).toEqual({
    service: 'orders',
    address: '127.0.0.1:9000',
    file: join(cwd, 'services.yaml'),
    changed: true,
  })
  expect((await run(['service', 'remove', 'db'], { cwd })).out).toBe('db removed from services.yaml\n')
  expect(node.services()).toEqual({ services: [] })
})

test('service list says on stderr that it reads the file only', async () => {
  using node = await makeNode()
  const ran = await run(['service', 'list', '--json'], { cwd: node.folder })
  expect([ran.code, JSON.parse(ran.out)]).toEqual([0, []])
  expect(ran.err).toBe('flatmesh: the daemon is not running; this is what the services files say\n')
})

test('service list asks the running daemon, which knows more than the file', async () => {
  using made = makeFolder()
  await using admin = await startAdmin()
  writeFileSync(join(made.folder, 'flatmesh.yaml'), `mesh: a\nnode: b\nregion: c\nlisten: { admin: '${admin.text}' }\n`)
  expect(await run(['service', 'list'], { cwd: made.folder })).toEqual({
    code: 0,
    out: [
      'SERVICE  ADDRESS         PROTOCOL  WEIGHT  LABELS      FROM  EXPIRES',
      'orders   127.0.0.1:9000  http          10  version=v1  http   in 12s',
      '',
    ].join('\n'),
    err: '',
  })
})

test('removing what is not there is exit code 4 and changes nothing', async () => {
  using node = await makeNode()
  const ran = await run(['service', 'remove', 'orders', '127.0.0.1:9000'], { cwd: node.folder })
  expect([ran.code, ran.out]).toEqual([4, ''])
  expect(ran.err).toContain('orders at 127.0.0.1:9000 is not in services.yaml')
  expect(existsSync(join(node.folder, 'services.yaml'))).toBe(false)
})

test('the first file registry is the one that is edited; without one, that is said', async () => {
  using node = await makeNode(
    'registries: [{ type: http }, { type: file, path: a.yaml }, { type: file, path: b.yaml }]\n',
  )
  await run(['service', 'add', 'orders', 'h:1'], { cwd: node.folder })
  expect([existsSync(join(node.folder, 'a.yaml')), existsSync(join(node.folder, 'b.yaml'))]).toEqual([true, false])
  using bare = await makeNode('registries: [{ type: http }]\n')
  const ran = await run(['service', 'add', 'orders', 'h:1'], { cwd: bare.folder })
  expect(ran.code).toBe(1)
  expect(ran.err).toContain('the config has no registry of type file to write to')
})

test('a services file with a mistake in it is named with its line', async () => {
  using node = await makeNode()
  writeFileSync(join(node.folder, 'services.yaml'), 'services:\n  - name: UPPER\n    instances: []\n')
  const ran = await run(['service', 'list'], { cwd: node.folder })
  expect(ran.code).toBe(1)
  expect(ran.err).toContain('services.yaml:2')
})

test.each([
  [['add', 'orders'], 'service add takes NAME ADDRESS, found orders'],
  [['add', 'Orders', 'h:1'], 'NAME takes 1 to 63 characters'],
  [['add', 'orders', 'h'], 'ADDRESS takes host:port, such as 127.0.0.1:9000, found "h"'],
  [['add', 'orders', 'h:0'], 'ADDRESS takes host:port'],
  [['add', 'orders', 'h:1', '--protocol', 'udp'], '--protocol takes http, h2 or tcp, found "udp"'],
  [['add', 'orders', 'h:1', '--label', '=x'], '--label takes KEY=VALUE, found "=x"'],
  [['add', 'orders', 'h:1', '--weight', '0'], '--weight takes a whole number from 1 to 1000, found "0"'],
  [['add', 'orders', 'h:1', '--weight', '1e3'], '--weight takes a whole number'],
  [['remove', 'orders', 'h'], 'ADDRESS takes host:port'],
  [['list', 'x'], 'service list takes nothing behind its name, found x'],
])('service %j is wrong usage, and is told so', async (words, message) => {
  using node = await makeNode()
  const ran = await run(['service', ...words], { cwd: node.folder })
  expect([ran.code, ran.out]).toEqual([2, ''])
  expect(ran.err).toContain(message)
})
