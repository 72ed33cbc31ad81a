/** FNV's offset basis: where hashes begin unless they must differ from others. */
const SEED = 0x811c9dc5
const FNV_PRIME = 0x01000193

/** FNV-1a finished as murmur3 does; 32 bits, unsigned. Over UTF-16 units: ids are ASCII. */
export function hashText(text: string, seed: number = SEED): number {
  return endHash(runHash(text, seed))
}

/** The hash of a text whose beginning has been run already, up to its finish. */
export function runHash(text: string, seed: number): number {
  let hash = seed
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), FNV_PRIME)
  return hash
}

export function endHash(run: number): number {
  let hash = Math.imul(run ^ (run >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}
