import { CLOUD_REGIONS, cloudPlace, cloudRttMs } from './cloud-rtts.ts'
import { randomFor } from './rng.ts'

export const TOPOLOGIES = ['full', 'ring', 'line', 'star', 'grid', 'geometric', 'islands', 'clouds'] as const
export type TopologyName = (typeof TOPOLOGIES)[number]

export interface TopologyNode {
  readonly name: string
  readonly region: string
  /** Where to draw it, 0..1 each; y grows downwards. */
  readonly x: number
  readonly y: number
}

/** Who is where, and how far apart. */
export interface Topology {
  readonly nodes: readonly TopologyNode[]
  /** Round trip between nodes i and j, milliseconds; undefined: no wire joins them. */
  rttMs(i: number, j: number): number | undefined
}

/** Round trip of each wire in the topologies that have no geography. Guess: two datacenters of one continent. */
const WIRE_RTT_MS = 20
/** Within an island and between islands. */
const ISLAND_RTT_MS = 5
const SEA_RTT_MS = 80
const ISLANDS = 4
/** Round trip across the whole square of `geometric`: half the globe. */
const SQUARE_RTT_MS = 200

export function createTopology(name: TopologyName, count: number, seed: number): Topology {
  switch (name) {
    case 'full':
      return circle(count, () => WIRE_RTT_MS)
    case 'ring':
      return circle(count, (i, j) => (isBeside(i, j, count) ? WIRE_RTT_MS : undefined))
    case 'line':
      return circle(count, (i, j) => (Math.abs(i - j) === 1 ? WIRE_RTT_MS : undefined))
    case 'star':
      return circle(count, (i, j) => (i === 0 || j === 0 ? WIRE_RTT_MS : undefined))
    case 'grid':
      return grid(count)
    case 'geometric':
      return geometric(count, seed)
    case 'islands':
      return islands(count)
    case 'clouds':
      return clouds(count)
  }
}

function isBeside(i: number, j: number, count: number): boolean {
  const apart = Math.abs(i - j)
  return apart === 1 || apart === count - 1
}

function circle(count: number, rttMs: Topology['rttMs']): Topology {
  const nodes = Array.from({ length: count }, (_, i) => {
    const angle = (2 * Math.PI * i) / count
    return { name: `n${i}`, region: `region-${i}`, x: 0.5 + 0.48 * Math.cos(angle), y: 0.5 + 0.48 * Math.sin(angle) }
  })
  return { nodes, rttMs }
}

function grid(count: number): Topology {
  const width = Math.ceil(Math.sqrt(count))
  const nodes = Array.from({ length: count }, (_, i) => {
    const [column, row] = [i % width, Math.floor(i / width)]
    return { name: `n${i}`, region: `region-${i}`, x: (column + 0.5) / width, y: (row + 0.5) / width }
  })
  return {
    nodes,
    rttMs: (i, j) => {
      const [across, down] = [
        Math.abs((i % width) - (j % width)),
        Math.abs(Math.floor(i / width) - Math.floor(j / width)),
      ]
      return across + down === 1 ? WIRE_RTT_MS : undefined
    },
  }
}

/** Nodes scattered over a square; wires to all within a radius that keeps the whole connected, and to the node before. */
function geometric(count: number, seed: number): Topology {
  const random = randomFor(seed, 'geometric')
  const nodes = Array.from({ length: count }, (_, i) => ({
    ...{ name: `n${i}`, region: `region-${i}` },
    ...{ x: random(), y: random() },
  }))
  // A random geometric graph is connected with high probability from sqrt(ln n / (pi n)) on (Gupta and Kumar, 1998).
  const radius = 1.5 * Math.sqrt(Math.log(Math.max(count, 2)) / (Math.PI * count))
  return {
    nodes,
    rttMs: (i, j) => {
      const [a, b] = [nodes[i], nodes[j]]
      if (a === undefined || b === undefined) return undefined
      const distance = Math.hypot(a.x - b.x, a.y - b.y)
      return distance <= radius || Math.abs(i - j) === 1 ? 1 + distance * SQUARE_RTT_MS : undefined
    },
  }
}

function islands(count: number): Topology {
  const nodes = Array.from({ length: count }, (_, i) => {
    const [island, place] = [i % ISLANDS, Math.floor(i / ISLANDS)]
    const perIsland = Math.ceil(count / ISLANDS)
    const [centre, around] = [(2 * Math.PI * island) / ISLANDS, (2 * Math.PI * place) / perIsland]
    return {
      ...{ name: `n${i}`, region: `island-${island}` },
      x: 0.5 + 0.33 * Math.cos(centre) + 0.14 * Math.cos(around),
      y: 0.5 + 0.33 * Math.sin(centre) + 0.14 * Math.sin(around),
    }
  })
  return { nodes, rttMs: (i, j) => (i % ISLANDS === j % ISLANDS ? ISLAND_RTT_MS : SEA_RTT_MS) }
}

function clouds(count: number): Topology {
  const nodes = Array.from({ length: count }, (_, i) => {
    const region = CLOUD_REGIONS[i % CLOUD_REGIONS.length] as string
    const place = cloudPlace(region)
    const copy = Math.floor(i / CLOUD_REGIONS.length)
    return {
      ...{ name: `n${i}`, region },
      // Plate carrée; copies and neighbours a little apart, so that each can be seen.
      x: ((place?.longitude ?? 0) + 180) / 360 + 0.006 * Math.cos(i) * Math.min(copy + 1, 3),
      y: (85 - (place?.latitude ?? 0)) / 135 + 0.012 * Math.sin(i) * Math.min(copy + 1, 3),
    }
  })
  return { nodes, rttMs: (i, j) => cloudRttMs(nodes[i]?.region ?? '', nodes[j]?.region ?? '') }
}
