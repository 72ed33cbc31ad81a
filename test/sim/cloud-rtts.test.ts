import { expect, test } from 'vitest'
import { CLOUD_PLACES, CLOUD_REGIONS, cloudPlace, cloudRttMs } from './cloud-rtts.ts'

test('every pair of regions of the table has one round trip, the same both ways', () => {
  for (const a of CLOUD_REGIONS) {
    for (const b of CLOUD_REGIONS) {
      const rttMs = cloudRttMs(a, b)
      expect(rttMs, `${a} to ${b}`).toBe(cloudRttMs(b, a))
      expect(rttMs, `${a} to ${b}`).toBeGreaterThan(0)
    }
  }
})

test('each region stands in the order once, and 38 nodes are in 38 places', () => {
  expect(new Set(CLOUD_REGIONS).size).toBe(CLOUD_REGIONS.length)
  expect(CLOUD_REGIONS).toHaveLength(CLOUD_PLACES.flatMap(place => place.regions).length)
  expect(new Set(CLOUD_REGIONS.slice(0, 38).map(cloudPlace)).size).toBe(38)
})

test('no round trip is faster than light in glass along the surface of the earth', () => {
  const radiusKm = 6371
  // About two thirds of the speed of light, there and back.
  const kmPerMs = 100
  for (const a of CLOUD_PLACES) {
    for (const b of CLOUD_PLACES) {
      const radians = (degrees: number): number => (degrees * Math.PI) / 180
      const [p, q] = [radians(a.latitude), radians(b.latitude)]
      const half =
        Math.sin((p - q) / 2) ** 2 + Math.cos(p) * Math.cos(q) * Math.sin(radians(a.longitude - b.longitude) / 2) ** 2
      const km = 2 * radiusKm * Math.asin(Math.sqrt(half))
      // The towns stand for datacenters some tens of kilometres away.
      const least = Math.max(0, (km - 150) / kmPerMs)
      expect(cloudRttMs(a.regions[0] ?? '', b.regions[0] ?? ''), `${a.place} to ${b.place}`).toBeGreaterThanOrEqual(
        least,
      )
    }
  }
})

test('a region that nobody has measured has no round trip', () => {
  expect(cloudRttMs('aws-us-east-1', 'moon-1')).toBeUndefined()
})
