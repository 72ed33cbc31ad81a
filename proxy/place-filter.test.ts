import http from 'node:http'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { readPlaceFilter } from './place-filter.ts'
import { deadAddress, TestPlaces } from './test-places.ts'

describe('what a request asks of a place', () => {
  test.each([
    ['nothing', [], undefined],
    ['a region', ['X-Flatmesh-Region', 'aws-us-east-1'], { region: 'aws-us-east-1' }],
    ['the beginning of one', ['x-flatmesh-region', 'aws-*'], { region: 'aws-*' }],
    ['a label', ['x-flatmesh-label', 'version=v2'], { labels: { version: 'v2' } }],
    ['a list of labels', ['x-flatmesh-label', 'version=v2 ,\ttier=gold'], { labels: { version: 'v2', tier: 'gold' } }],
    [
      'labels in two fields, and a region between them',
      ['x-flatmesh-label', 'a=1', 'x-flatmesh-region', 'r', 'x-flatmesh-label', 'b=2'],
      { region: 'r', labels: { a: '1', b: '2' } },
    ],
    [
      'a value with a comma and letters beyond ASCII',
      ['x-flatmesh-label', 'n=M%C3%BC%2C x'],
      { labels: { n: 'Mü, x' } },
    ],
    ['a value with an equals sign', ['x-flatmesh-label', 'n=a=b'], { labels: { n: 'a=b' } }],
    ['an empty value', ['x-flatmesh-label', 'n='], { labels: { n: '' } }],
  ])('%s', (_, fields, filter) => {
    const asked = readPlaceFilter({ fields: ['host', 'x', ...fields] })
    expect(asked).toEqual({ ok: true, filter: filter && expect.objectContaining(filter) })
  })

  test.each([
    ['an empty region', ['x-flatmesh-region', ''], 'expected a region'],
    ['a region with a star in the middle', ['x-flatmesh-region', 'a*b'], 'found "a*b"'],
    ['a region longer than any', ['x-flatmesh-region', 'a'.repeat(64)], 'expected a region'],
    ['two regions', ['x-flatmesh-region', 'a', 'x-flatmesh-region', 'a'], 'found two fields'],
    ['an empty label', ['x-flatmesh-label', ''], 'expected a label such as version=v2, found ""'],
    ['a list of nothing', ['x-flatmesh-label', ' , '], 'expected a label such as version=v2, found ""'],
    ['a label without a value', ['x-flatmesh-label', 'version'], 'found "version"'],
    ['a label without a key', ['x-flatmesh-label', '=v2'], 'found "=v2"'],
    ['a key that no label has', ['x-flatmesh-label', '__proto__=v2'], 'found "__proto__=v2"'],
    ['a value longer than any', ['x-flatmesh-label', `v=${'x'.repeat(64)}`], 'expected a label'],
    ['a value with a control character', ['x-flatmesh-label', 'v=%00'], 'expected a label'],
    ['a broken percent-encoding', ['x-flatmesh-label', 'v=%zz'], 'expected a label'],
    ['one label twice', ['x-flatmesh-label', 'v=1', 'x-flatmesh-label', 'v=1'], 'a second one of v'],
    ['nine labels', ['x-flatmesh-label', 'a=1,b=1,c=1,d=1,e=1,f=1,g=1,h=1,i=1'], 'at most 8 labels, found 9'],
  ])('%s is refused, and the reason names the field', (_, fields, problem) => {
    const asked = readPlaceFilter({ fields })
    expect(asked).toEqual({ ok: false, problem: expect.stringContaining(problem) })
    expect(asked.ok ? '' : asked.problem).toContain(fields[0])
  })
})

describe('a call that asks for a place', () => {
  let places: TestPlaces
  /** Fields of the last request that reached an instance. */
  let arrived: http.IncomingHttpHeaders
  beforeEach(async () => {
    arrived = {}
    places = new TestPlaces()
    const backend = http.createServer((request, response) => {
      arrived = request.headers
      response.end()
    })
    const orders = { orders: [await places.listen(backend)] }
    places
      .place('near', orders, 'http', { labels: { version: 'v1' } })
      .place('far', orders, 'http', { labels: { version: 'v2' } })
    await places.start()
  })
  afterEach(() => places.stop())

  const call = (fields: Record<string, string | string[]>): Promise<{ status: number; body: string }> =>
    new Promise((resolve, reject) => {
      const asked = http.get({ port: places.port, headers: { host: 'orders.mesh', ...fields }, agent: false })
      asked.on('error', reject)
      asked.on('response', async answer => {
        let body = ''
        for await (const chunk of answer) body += chunk
        resolve({ status: answer.statusCode ?? 0, body })
      })
    })

  test('goes to the nearest that has the label, and the instance does not see what was asked', async () => {
    expect(await call({})).toMatchObject({ status: 200 })
    expect(await call({ 'x-flatmesh-label': 'version=v2' })).toMatchObject({ status: 200 })
    expect(await call({ 'X-Flatmesh-Region': 'fa*', 'x-other': 'kept' })).toMatchObject({ status: 200 })
    expect(places.opened).toEqual(['near', 'far', 'far'])
    expect(arrived).toMatchObject({ 'x-other': 'kept' })
    expect(Object.keys(arrived).filter(name => name.startsWith('x-flatmesh'))).toEqual([])
  })

  test('is never tried elsewhere when the place it asks for fails', async () => {
    places.place('lost', { orders: [await deadAddress()] })
    const answer = await call({ 'x-flatmesh-region': 'lost' })
    expect(answer.status).toBe(503)
    expect(JSON.parse(answer.body).error).toMatchObject({ code: 'instance-refused' })
    expect(places.opened).toEqual(['lost'])
  })

  test('is told that the service is nowhere with it, which is another thing than not healthy or not known', async () => {
    const codeOf = async (fields: Record<string, string>) => JSON.parse((await call(fields)).body).error
    expect(await codeOf({ 'x-flatmesh-region': 'near', 'x-flatmesh-label': 'version=v2' })).toMatchObject({
      code: 'no-matching-place',
      message: 'orders is offered, but nowhere with region near, label version=v2, which the call asks for',
    })
    places.sick.add('far')
    expect(await codeOf({ 'x-flatmesh-region': 'far' })).toMatchObject({
      code: 'no-healthy-place',
      message: 'no reachable node with region far has a healthy instance of orders now',
    })
    expect(await codeOf({ host: 'nobody.mesh', 'x-flatmesh-region': 'far' })).toMatchObject({ code: 'unknown-service' })
    expect(places.opened).toEqual([])
  })

  test('is refused when it cannot be read, and goes nowhere', async () => {
    const answer = await call({ 'x-flatmesh-label': 'v2' })
    expect(answer.status).toBe(400)
    expect(JSON.parse(answer.body).error).toMatchObject({
      code: 'bad-request',
      message: 'x-flatmesh-region, x-flatmesh-label: expected a label such as version=v2, found "v2"',
    })
    expect(places.opened).toEqual([])
  })
})
