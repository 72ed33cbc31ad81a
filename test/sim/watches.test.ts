import { expect, test } from 'vitest'
import type { LocalService } from '../../router/model.ts'
import { Watches } from './watches.ts'

const service = (name: string): LocalService => ({
  ...{ name, protocol: 'http', instances: 1, healthy: 1, weight: 1, labels: {} },
})
const node = { has: (owner: string) => owner !== 'c', shows: (owner: string) => owner === 'a' }

test('what a node shows is looked at for watched routes of services that changed, and for no others', () => {
  const watches = new Watches()
  watches.add('a', service('orders'), 1)
  watches.add('b', service('orders'), 2)
  watches.add('c', service('billing'), 3)
  watches.add('b', service('orders'), 4)
  const sights = watches.look(node, [
    { type: 'routes-changed', service: 'orders' },
    { type: 'routes-changed', service: 'search' },
    { type: 'wake-at', atMs: 1 },
  ])
  expect([...sights.keys()]).toEqual(['orders'])
  expect(Object.fromEntries(sights.get('orders') ?? [])).toEqual({
    a: { watch: 1, has: true, shows: true },
    b: { watch: 4, has: true, shows: false },
  })
  for (const owner of ['a', 'b']) watches.delete(owner, 'orders')
  expect(watches.look(node, [{ type: 'routes-changed', service: 'orders' }]).size).toBe(0)
})
