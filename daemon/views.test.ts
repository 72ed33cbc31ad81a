import { describe, expect, test } from 'vitest'
import { Catalog } from '../registry/catalog.ts'
import { encodeLinkInfo, encodeNodeInfo, encodeServiceInfo, linkKey, NODE_KEY, serviceKey } from '../router/entry.ts'
import { silentLog } from '../router/log.ts'
import type { NodeId, NodeInfo, ServiceInfo } from '../router/model.ts'
import { Router } from '../router/router.ts'
import type { CallPlane } from '../tunnel/call-plane.ts'
import type { Overlay, OverlayLink } from '../tunnel/overlay.ts'
import { createTestMesh } from '../tunnel/test-identities.ts'
import { Views } from './views.ts'

const identity = createTestMesh().identity('me')
const NOW_MS = 5000

/** A router whose table was filled by hand: `me` – 10 ms – near – 20 ms – far; `lost` has no link. */
function createViews(state: 'up' | 'draining' = 'up'): { views: Views; router: Router } {
  const router = new Router({
    ...{ self: identity.nodeId, incarnation: 1, proof: new Uint8Array(1), random: () => 0.5 },
    ...{ sign: () => new Uint8Array(64), verify: () => true, verifyProof: () => undefined },
  })
  const { table } = router
  const node = (id: string, name: string, over: Partial<NodeInfo> = {}): void => {
    const info = {
      name,
      region: `region-${name}`,
      version: '1.2.3',
      overlay: [],
      calls: [`${name}:1`],
      state: 'up' as const,
    }
    table.update(id, { key: NODE_KEY, value: encodeNodeInfo({ ...info, ...over }) }, 0)
  }
  const link = (a: string, b: string, rttMs: number): void => {
    table.update(a, { key: linkKey(b), value: encodeLinkInfo({ rttMs, lossRatio: 0 }) }, 0)
    table.update(b, { key: linkKey(a), value: encodeLinkInfo({ rttMs, lossRatio: 0 }) }, 0)
  }
  const serve = (id: string, name: string, healthy: number, over: Partial<ServiceInfo> = {}): void => {
    const info: ServiceInfo = { protocol: 'http', instances: 2, healthy, weight: healthy, labels: {}, ...over }
    table.update(id, { key: serviceKey(name), value: encodeServiceInfo(info) }, 2000)
  }
  node(identity.nodeId, 'me', { state })
  node('id-near', 'near')
  node('id-far', 'far')
  node('id-lost', 'lost')
  link(identity.nodeId, 'id-near', 10)
  link('id-near', 'id-far', 20)
  for (const id of ['id-far', 'id-lost']) serve(id, 'orders', 2, id === 'id-far' ? { labels: { version: 'v2' } } : {})
  serve('id-near', 'orders', 0)
  serve(identity.nodeId, 'billing', 1, { protocol: 'tcp' })
  // A node that was heard of, and has not said yet who it is.
  serve('id-nameless', 'orders', 1)

  const overlayLink: OverlayLink = {
    ...{ node: 'id-near', rttMs: 10.04, lossRatio: 0.01234, address: '/ip4/1.2.3.4/tcp/1' },
    ...{ dialled: true, isInUse: false, sinceMs: Date.now() },
  }
  const overlay: Overlay = {
    start: async () => [],
    stop: async () => {},
    send() {},
    learn() {},
    forget() {},
    choose() {},
    leave() {},
    isLinked: () => true,
    openCalls: () => Promise.reject(new Error('no streams here')),
    links: () => [overlayLink],
  }
  const callLinks = [
    { peer: 'id-near', state: 'up', address: 'near:1', calls: 3 },
    { peer: 'id-near', state: 'retiring', address: 'near:1', calls: 2 },
  ]
  const carriers = new Map([
    ['id-near', { carrier: 'direct', via: [] }],
    ['id-far', { carrier: 'relayed', via: ['id-near', 'id-lost'] }],
  ])
  const views = new Views({
    ...{ identity, version: '1.2.3', router, overlay, http: undefined, nowMs: () => NOW_MS },
    callPlane: {
      links: () => callLinks,
      linkTo: (peer: NodeId) => carriers.get(peer),
    } as unknown as CallPlane,
    catalog: new Catalog({ sources: [], log: silentLog }),
    metrics: () => '',
    state: () => 'up',
    listen: () => ({ overlay: 'o:1', calls: 'c:2', http: 'h:3', admin: 'a:4', tcp: [] }),
    advertise: () => ['203.0.113.7'],
    calls: () => ({ inFlight: 1, total: 2, failed: 3 }),
  })
  return { views, router }
}

describe('the views', () => {
  test('nodes come nearest first, this one before all, those out of reach last and without a round trip', () => {
    expect(createViews().views.nodes()).toEqual([
      { node: 'me', id: identity.nodeId, region: 'region-me', state: 'self', rttMs: 0, via: '', version: '1.2.3' },
      { node: 'near', id: 'id-near', region: 'region-near', state: 'up', rttMs: 10, via: '', version: '1.2.3' },
      { node: 'far', id: 'id-far', region: 'region-far', state: 'up', rttMs: 30, via: 'near', version: '1.2.3' },
      {
        node: 'lost',
        id: 'id-lost',
        region: 'region-lost',
        state: 'unreachable',
        rttMs: null,
        via: '',
        version: '1.2.3',
      },
    ])
  })

  test('status tells what is held back and what was refused, and counts routes without asking for each', () => {
    const { views, router } = createViews()
    const flaky = { name: 'flaky', protocol: 'http' as const, instances: 1, healthy: 1, weight: 1, labels: {} }
    for (let i = 0; i < 12; i++) {
      router.step({ type: 'local', service: { ...flaky, instances: i % 2, healthy: i % 2 } }, NOW_MS + i * 100)
      router.step({ type: 'wake' }, NOW_MS + i * 100 + 50)
    }
    router.step({ type: 'frame', from: 'id-near', bytes: Uint8Array.of(0xc1) }, NOW_MS)
    const { gossip, routes } = views.status()
    expect(gossip.refused).toEqual({ 'bad-frame': 1 })
    expect(gossip.heldBack).toEqual([{ service: 'flaky', forMs: expect.any(Number) }])
    expect(gossip.heldBack[0]?.forMs).toBeGreaterThan(0)
    expect(gossip.heldBytes).toBeGreaterThan(0)
    expect(routes).toBe(router.table.routeCount)
  })

  test('a node that is stopping says so of itself', () => {
    expect(createViews('draining').views.nodes()[0]).toMatchObject({ node: 'me', state: 'draining' })
  })

  test('routes tell state, cost, relays and age; a cost that is infinite is null in JSON', () => {
    const orders = createViews()
      .views.routes()
      .filter(({ service }) => service === 'orders')
    const cells = orders.map(({ node, state, costMs, via, carrier, ageMs }) => [
      ...[node, state, costMs, via],
      ...[carrier, ageMs],
    ])
    expect(cells).toEqual([
      ['far', 'ready', 34, 'near', 'relayed via near>lost', 3000],
      ['near', 'no-healthy-instance', 12, '', 'direct', 3000],
      ['lost', 'unreachable', null, '', '', 3000],
    ])
    expect(JSON.parse(JSON.stringify(orders))).toEqual(orders)
  })

  test('services count what can be reached, and name who would answer', () => {
    expect(createViews().views.services()).toEqual([
      { service: 'billing', protocol: 'tcp', nodes: 1, instances: 2, healthy: 1, closest: 'me' },
      { service: 'orders', protocol: 'http', nodes: 2, instances: 4, healthy: 2, closest: 'far' },
    ])
  })

  test('an explanation says of each place why it is first, or out', () => {
    const explained = createViews().views.explain('orders')
    expect(explained).toMatchObject({ service: 'orders', node: 'me', known: true, choice: 'far' })
    expect(explained.candidates.map(({ node, rank, why }) => [node, rank, why])).toEqual([
      ['far', 1, 'nearest of those that can answer'],
      ['near', null, 'out: none of its 2 instances is healthy'],
      ['lost', null, 'out: no path of live links leads there'],
    ])
    expect(explained.candidates.map(({ carrier }) => carrier)).toEqual(['relayed via near>lost', 'direct', ''])
    expect(explained.candidates[0]?.parts).toEqual({ rttMs: 30, hopsMs: 4 })
    expect(explained.summary).toContain('answered at far, 34 ms away; 1 of 3 places can answer')
  })

  test('an explanation for a call that asks for a place shows the same choice, and why others are not asked', () => {
    const { views, router } = createViews()
    const filter = { labels: { version: 'v2' } }
    const explained = views.explain('orders', filter)
    expect(explained.choice).toBe(router.candidates('orders', filter)[0]?.name)
    expect(explained.candidates.map(({ node, rank, state, why }) => [node, rank, state, why])).toEqual([
      ['far', 1, 'ready', 'nearest of those that can answer'],
      ['near', null, 'not-matching', 'out: it has no label version'],
      ['lost', null, 'not-matching', 'out: it has no label version'],
    ])
    expect(explained.summary).toBe(
      'a call for orders with label version=v2 made at me is answered at far, 34 ms away; 1 of 1 places can answer',
    )
    const elsewhere = views.explain('orders', { region: 'region-l*' })
    expect([elsewhere.choice, elsewhere.candidates[0]?.state]).toEqual([null, 'unreachable'])
    expect(elsewhere.summary).toBe('orders with region region-l* is known, but no place can answer it now')
    const nowhere = views.explain('orders', { region: 'mars' })
    expect([nowhere.choice, nowhere.known]).toEqual([null, true])
    expect(nowhere.summary).toBe('orders is offered, but nowhere with region mars')
  })

  test('a service nobody offers is explained as such', () => {
    expect(createViews().views.explain('nothing')).toMatchObject({
      ...{ known: false, candidates: [], choice: null },
      summary: 'no node of the mesh offers nothing',
    })
  })

  test('a service answered here says so', () => {
    const explained = createViews().views.explain('billing')
    expect(explained.candidates[0]).toMatchObject({
      rank: 1,
      carrier: 'here',
      why: 'this node itself: no travel',
      costMs: 0,
    })
    expect(explained.summary).toContain('answered here')
  })

  test('links join what the overlay and the call plane know, and list nodes without a link as down', () => {
    const links = createViews().views.links()
    expect(links.map(({ carrier }) => carrier)).toEqual(['relayed via near>lost', '', '', 'direct'])
    expect(links.map(({ node, overlay, calls, inFlight }) => [node, overlay, calls, inFlight])).toEqual([
      ['far', 'down', 'down', 0],
      ['id-nameless', 'down', 'down', 0],
      ['lost', 'down', 'down', 0],
      ['near', 'up', 'up', 5],
    ])
    expect(links[3]).toMatchObject({ rttMs: 10, lossRatio: 0.012, address: 'near:1' })
    expect(links[0]).toMatchObject({ rttMs: null, address: 'far:1' })
  })

  test('the status counts nodes, services and routes, and passes on what the daemon says of itself', () => {
    const status = createViews().views.status()
    expect(status).toMatchObject({
      ...{
        node: 'me',
        id: identity.nodeId,
        mesh: 'test',
        state: 'up',
        services: 2,
        // Also that of a node which has not said yet who it is.
        routes: 5,
        advertise: ['203.0.113.7'],
      },
      nodes: { known: 4, reachable: 3 },
      calls: { inFlight: 1, total: 2, failed: 3 },
      listen: { admin: 'a:4' },
    })
    expect(status.memory.rssBytes).toBeGreaterThan(0)
  })

  test('a node without the http registry says how to have one', () => {
    expect(() => createViews().views.register('orders', 'a', {})).toThrow(
      expect.objectContaining({ code: 'bad-registry', message: expect.stringContaining('{ type: http }') }),
    )
    expect(createViews().views.registrations()).toEqual([])
  })
})
