import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { join } from 'node:path'
import { MeshError } from '../router/errors.ts'
import { type Log, silentLog } from '../router/log.ts'
import type { NodeId } from '../router/model.ts'
import {
  createRootCertificate,
  issueNodeCertificate,
  MESH_NAME,
  NODE_NAME,
  REGION,
  verifyNodeCertificate,
} from './certificate.ts'
import {
  keyExposure,
  NODE_CERTIFICATE,
  NODE_KEY,
  parseKey,
  ROOT_CERTIFICATE,
  ROOT_KEY,
  readMemberFile,
  stageMember,
} from './membership-store.ts'

/** Who this node is and how it proves it: one Ed25519 key, used for libp2p, for TLS and for signing records. */
export interface Identity {
  readonly nodeId: NodeId
  readonly mesh: string
  readonly name: string
  readonly region: string
  /** Ed25519 private key. */
  readonly key: KeyObject
  readonly keyPem: string
  /** X.509 certificate for `key`, issued by the mesh's root. */
  readonly certificatePem: string
  readonly rootPem: string
  /** The certificate's last valid instant, Unix milliseconds. */
  readonly expiresAtMs: number
}

/** What a node is called. */
export interface NodeNames {
  readonly mesh: string
  readonly name: string
  readonly region: string
}

/** The first thing that is wrong with these names, in the operator's words, or undefined. */
export function wrongNames(names: Partial<NodeNames>): string | undefined {
  const { mesh, name, region } = names
  const label = 'expected 1 to 63 characters of a-z, 0-9 and -, beginning and ending with a letter or digit'
  if (mesh !== undefined && !MESH_NAME.test(mesh)) return `mesh name ${shown(mesh)}: ${label}`
  if (name !== undefined && !NODE_NAME.test(name)) return `node name ${shown(name)}: ${label}`
  if (region !== undefined && !REGION.test(region)) {
    const accepted = 'expected 1 to 63 characters of a-z, A-Z, 0-9, ., _ and -, beginning with a letter or digit'
    return `region ${shown(region)}: ${accepted}`
  }
  return undefined
}

/** For a name that did not pass: quoted, so that control characters cannot play with a terminal, and not too long. */
function shown(name: string): string {
  return JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}…` : name)
}

/** A new private key for a node or a root, as key and as PKCS#8 PEM. */
export function createKey(): { key: KeyObject; keyPem: string } {
  const key = generateKeyPairSync('ed25519').privateKey
  return { key, keyPem: key.export({ type: 'pkcs8', format: 'pem' }).toString() }
}

/**
 * Makes a new mesh: its root, and this node as its first member, in `dataDir`.
 *
 * Units: `nowMs` is Unix milliseconds.
 * Errors: MeshError `usage` for a malformed name; `data-dir` if the folder already holds an identity or cannot be
 * written. Whatever fails, nothing new is left there.
 */
export function createMesh(dataDir: string, options: NodeNames & { readonly nowMs: number }): Identity {
  const { mesh, name, region, nowMs } = options
  const wrong = wrongNames(options)
  if (wrong !== undefined) throw new MeshError('usage', wrong)
  const stage = stageMember(dataDir)
  try {
    const root = createKey()
    const rootPem = createRootCertificate(mesh, root.key, nowMs)
    const node = createKey()
    const publicKey = createPublicKey(node.key)
    const issued = issueNodeCertificate({ certificatePem: rootPem, key: root.key }, { name, region, publicKey }, nowMs)
    const files = { keyPem: node.keyPem, certificatePem: issued.certificatePem, rootPem }
    const identity = parseIdentity(dataDir, files, nowMs)
    stage.commit({ ...files, rootKeyPem: root.keyPem })
    return identity
  } finally {
    stage.abandon()
  }
}

/**
 * This node's identity from its data folder.
 *
 * Units: `nowMs` is Unix milliseconds.
 * Errors: MeshError `no-identity` if this folder has never been a member's; `clock-wrong` if now is outside the
 * certificate's life (which begins 5 minutes before it was issued, so smaller differences of clocks do no harm);
 * `data-dir` if files are missing, unreadable or do not fit, or the key is open to every user of the machine. A key
 * open to its group is only warned of: Kubernetes opens mounted volumes to a group, and nobody can change that there.
 */
export function loadIdentity(dataDir: string, nowMs: number, log: Log = silentLog): Identity {
  const keyPem = readMemberFile(dataDir, NODE_KEY)
  const certificatePem = readMemberFile(dataDir, NODE_CERTIFICATE)
  const rootPem = readMemberFile(dataDir, ROOT_CERTIFICATE)
  if (keyPem === undefined && certificatePem === undefined) {
    throw new MeshError(
      'no-identity',
      `expected this node's identity (${NODE_KEY}, ${NODE_CERTIFICATE}, ${ROOT_CERTIFICATE}) in ${dataDir}, found none: ` +
        'run flatmesh init to create a mesh, or flatmesh join with a token to enter one, or check the data folder given',
    )
  }
  if (keyPem === undefined || certificatePem === undefined || rootPem === undefined) {
    const missing = keyPem === undefined ? NODE_KEY : certificatePem === undefined ? NODE_CERTIFICATE : ROOT_CERTIFICATE
    throw new MeshError(
      'data-dir',
      `${missing} is missing in ${dataDir}, though other files of an identity are there: restore it from a backup, ` +
        'or move the rest away and join again with a new token',
    )
  }
  checkExposure(dataDir, NODE_KEY, log)
  if (readMemberFile(dataDir, ROOT_KEY) !== undefined) checkExposure(dataDir, ROOT_KEY, log)
  return parseIdentity(dataDir, { keyPem, certificatePem, rootPem }, nowMs)
}

function checkExposure(dataDir: string, name: typeof NODE_KEY | typeof ROOT_KEY, log: Log): void {
  const exposure = keyExposure(dataDir, name)
  if (exposure === 'nobody') return
  const path = join(dataDir, name)
  if (exposure === 'group') {
    log.warn({ code: 'data-dir', reason: `${path} is open to its group; chmod 600 ${path}` }, 'private key is exposed')
    return
  }
  throw new MeshError(
    'data-dir',
    `${path} is open to every user of this machine, expected its owner alone: chmod 600 ${path}, and if others may ` +
      'have read it, join again with a new key',
  )
}

/**
 * The identity that three files make. `dataDir` is for the messages only.
 * Errors: MeshError `data-dir` if they do not fit each other, `clock-wrong` if now is outside the certificate's life.
 */
export function parseIdentity(
  dataDir: string,
  files: { readonly keyPem: string; readonly certificatePem: string; readonly rootPem: string },
  nowMs: number,
): Identity {
  const key = parseKey(join(dataDir, NODE_KEY), files.keyPem)
  const verdict = verifyNodeCertificate(files.certificatePem, files.rootPem, nowMs)
  if (!verdict.ok && verdict.code === 'clock-wrong') {
    throw new MeshError(
      'clock-wrong',
      `${verdict.reason}; set this machine's clock, or, if it is right, the certificate has run out: ` +
        'join again into a new data folder with a new token',
    )
  }
  if (!verdict.ok) throw new MeshError('data-dir', `${join(dataDir, NODE_CERTIFICATE)} is unusable: ${verdict.reason}`)
  if (!createPublicKey(key).equals(verdict.publicKey)) {
    throw new MeshError('data-dir', `${NODE_CERTIFICATE} in ${dataDir} is not for the key in ${NODE_KEY} beside it`)
  }
  const { nodeId, mesh, name, region, expiresAtMs } = verdict
  const { keyPem, certificatePem, rootPem } = files
  return { nodeId, mesh, name, region, key, keyPem, certificatePem, rootPem, expiresAtMs }
}

/**
 * What a TLS server of this node must present: `cert: certificateChainPem(identity)`. The root goes along because a
 * joiner does not have it yet: it knows the root's fingerprint only, and finds the root to check against in this chain.
 */
export function certificateChainPem(identity: Identity): string {
  return identity.certificatePem + identity.rootPem
}
