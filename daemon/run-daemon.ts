import { rmSync } from 'node:fs'
import { MeshError } from '../router/errors.ts'
import { type Identity, loadIdentity } from '../tunnel/identity.ts'
import type { Config } from './config.ts'
import { Daemon } from './daemon.ts'
import { lockDataDir } from './data-lock.ts'
import { widenInlining } from './inlining.ts'
import { listenFile, writeListenFile } from './listen-file.ts'
import type { DaemonIo } from './rooms.ts'

/** Runs a daemon from its config until `io.stop`, then drains. See RunDaemon. */
export async function runDaemon(config: Config, io: DaemonIo): Promise<number> {
  const identity = loadIdentity(config.dataDir, Date.now(), io.log)
  checkIdentity(config, identity)
  const unlock = lockDataDir(config.dataDir)
  widenInlining()
  const daemon = new Daemon(config, identity, io.log)
  try {
    const listen = await daemon.start()
    writeListenFile(config.dataDir, listen)
    const { name: node, region, mesh, nodeId } = identity
    io.log.info({ node, region, mesh, id: nodeId, listen }, 'the daemon is up')
    io.stdout.write(`flatmesh: ${node} (${region}) of mesh ${mesh} is up; call services at http://${listen.http}\n`)
    await aborted(io.stop)
    io.log.info({ node }, 'draining')
    await daemon.drain()
    io.log.info({ node }, 'the daemon has stopped')
    return 0
  } catch (error) {
    await daemon.stop()
    throw error
  } finally {
    rmSync(listenFile(config.dataDir), { force: true })
    unlock()
  }
}

/** The certificate says who this node is; the config only repeats it, and must not say otherwise. */
function checkIdentity(config: Config, identity: Identity): void {
  for (const [field, found, proven] of [
    ['mesh', config.mesh, identity.mesh],
    ['node', config.node, identity.name],
    ['region', config.region, identity.region],
  ] as const) {
    if (found === proven) continue
    const where = `${config.file}: ${field}: found "${found}", but the certificate in ${config.dataDir} is for "${proven}"`
    throw new MeshError('bad-config', `${where}; correct the config, or point dataDir to the identity you mean`)
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}
