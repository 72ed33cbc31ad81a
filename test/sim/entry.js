// What `import { mesh } from 'flatmesh/sim'` loads: the TypeScript of a checkout, or what the published package was
// built to, since Node strips no types below node_modules.
import { existsSync } from 'node:fs'

const source = new URL('./mesh.ts', import.meta.url)
const built = new URL('../../dist/test/sim/mesh.js', import.meta.url)

export const { mesh } = await import((existsSync(source) ? source : built).href)
