import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { createRootCertificate, issueNodeCertificate } from './certificate.ts'
import type { Identity } from './identity.ts'
import { nodeIdOfPublicKey } from './peer-identity.ts'

const HOUR_MS = 3_600_000

/** A mesh for tests: a root, and identities issued by it. */
export interface TestMesh {
  readonly rootPem: string
  /** A member; issued `agoMs` ago for an hour, so 2 hours ago makes an expired one. */
  identity(name: string, agoMs?: number): Identity
}

function createKey(): { key: KeyObject; keyPem: string; publicKey: KeyObject } {
  const key = generateKeyPairSync('ed25519').privateKey
  const keyPem = key.export({ type: 'pkcs8', format: 'pem' }).toString()
  return { key, keyPem, publicKey: createPublicKey(key) }
}

export function createTestMesh(mesh = 'test'): TestMesh {
  const root = createKey()
  const rootPem = createRootCertificate(mesh, root.key, Date.now() - 24 * HOUR_MS)
  return {
    rootPem,
    identity(name, agoMs = 0) {
      const { key, keyPem, publicKey } = createKey()
      const region = 'test-1'
      const { certificatePem, expiresAtMs } = issueNodeCertificate(
        { certificatePem: rootPem, key: root.key },
        { name, region, publicKey },
        Date.now() - agoMs,
        HOUR_MS,
      )
      return {
        nodeId: nodeIdOfPublicKey(publicKey),
        mesh,
        name,
        region,
        key,
        keyPem,
        certificatePem,
        rootPem,
        expiresAtMs,
      }
    },
  }
}
