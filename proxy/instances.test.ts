import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { LocalService } from '../router/model.ts'
import { type InstanceState, Instances, type ServiceInstances } from './instances.ts'

function orders(...addresses: string[]): ServiceInstances {
  const instances = addresses.map(text => {
    const [address = '', weight = '1'] = text.split('*')
    return { id: address, address, weight: Number(weight) }
  })
  return { name: 'orders', protocol: 'http', labels: {}, instances }
}
function create(...definitions: ServiceInstances[]): { instances: Instances; told: string[] } {
  const told: string[] = []
  const onChange = ({ name, instances, healthy, weight }: LocalService): void => {
    told.push(`${name} ${healthy}/${instances} weight ${weight}`)
  }
  const instances = new Instances({ onChange })
  instances.replace(definitions)
  return { instances, told }
}
const at = (instances: Instances, address: string): InstanceState => {
  const found = [...instances.all()].find(instance => instance.address === address)
  if (found === undefined) throw new Error(`no instance at ${address}`)
  return found
}

test('counts are told when they change, and only then', () => {
  const { instances, told } = create(orders('a:1', 'b:1*3'))
  expect(told.splice(0)).toEqual(['orders 2/2 weight 4'])
  instances.replace([orders('a:1', 'b:1*3')])
  expect(told).toEqual([])
  instances.setHealth(at(instances, 'b:1'), false, 'refused')
  instances.setHealth(at(instances, 'b:1'), false, 'refused again')
  expect(told.splice(0)).toEqual(['orders 1/2 weight 1'])
  instances.replace([orders('a:1')])
  expect(told.splice(0)).toEqual(['orders 1/1 weight 1'])
  instances.replace([])
  expect(told).toEqual(['orders 0/0 weight 0'])
  expect(instances.has('orders')).toBe(false)
})

test('what is known of an instance outlives a re-reading of the registry, and ends with its removal', () => {
  const { instances } = create(orders('a:1', 'b:1'))
  const known = at(instances, 'a:1')
  instances.setHealth(known, false, 'refused')
  known.inFlight = 7
  instances.replace([orders('b:1', 'a:1*5')])
  expect(at(instances, 'a:1')).toBe(known)
  expect(known).toMatchObject({ weight: 5, inFlight: 7, isHealthy: false, reason: 'refused' })
  instances.replace([orders('b:1')])
  instances.replace([orders('a:1')])
  expect(at(instances, 'a:1')).toMatchObject({ inFlight: 0, isHealthy: true })
})

test('health of an instance that was removed meanwhile is told to nobody', () => {
  const { instances, told } = create(orders('a:1'))
  const gone = at(instances, 'a:1')
  instances.replace([])
  told.length = 0
  instances.setHealth(gone, false, 'refused')
  expect(told).toEqual([])
})

test('equals take turns', () => {
  const { instances } = create(orders('a:1', 'b:1', 'c:1'))
  const chosen = Array.from({ length: 6 }, () => instances.choose('orders')?.address)
  expect(chosen).toEqual(['a:1', 'b:1', 'c:1', 'a:1', 'b:1', 'c:1'])
})

test('calls spread by weight', () => {
  const { instances } = create(orders('a:1*1', 'b:1*3'))
  for (let i = 0; i < 40; i++) (instances.choose('orders') as InstanceState).inFlight++
  expect([at(instances, 'a:1').inFlight, at(instances, 'b:1').inFlight]).toEqual([10, 30])
})

test('the choice is the least busy for its weight of those that are healthy and untried, whatever the state', () => {
  const row = fc.record({
    weight: fc.integer({ min: 1, max: 5 }),
    inFlight: fc.nat(9),
    isHealthy: fc.boolean(),
    isTried: fc.boolean(),
  })
  fc.assert(
    fc.property(fc.array(row, { minLength: 1, maxLength: 6 }), fc.nat(5), (rows, turns) => {
      const { instances } = create(orders(...rows.map(({ weight }, i) => `h:${i}*${weight}`)))
      const states = [...instances.all()]
      for (const [i, state] of states.entries()) {
        state.inFlight = rows[i]?.inFlight ?? 0
        state.isHealthy = rows[i]?.isHealthy ?? false
      }
      const tried = new Set(states.filter((_, i) => rows[i]?.isTried))
      for (let i = 0; i < turns; i++) instances.choose('orders')
      const open = states.filter(state => state.isHealthy && !tried.has(state))
      const load = (state: InstanceState): number => (state.inFlight + 1) / state.weight
      const chosen = instances.choose('orders', tried)
      if (open.length === 0) expect(chosen).toBeUndefined()
      else {
        expect(open).toContain(chosen)
        expect(chosen === undefined ? -1 : load(chosen)).toBe(Math.min(...open.map(load)))
      }
    }),
    { numRuns: 300 },
  )
})

test('a service that is not known, or has no instances, has nothing to choose', () => {
  const { instances } = create(orders())
  expect([instances.choose('orders'), instances.choose('nothing')]).toEqual([undefined, undefined])
})
