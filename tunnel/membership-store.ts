import { createHash, createPrivateKey, createPublicKey, type KeyObject, randomBytes } from 'node:crypto'
import {
  appendFileSync,
  closeSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { MeshError, messageOf } from '../router/errors.ts'
import { readRootCertificate } from './certificate.ts'

/**
 * The files of the data folder that make a node a member (docs/trust.md says what each is worth).
 *
 * Everything is synchronous: these are a few small files, touched when a daemon starts and when a node joins, and a
 * rename that decides a race must not have an `await` beside it. Two processes use one folder at the same time (the
 * daemon, and the command line that issues tokens), so whatever decides something is one file system operation that
 * fails for all but one.
 */
export const NODE_KEY = 'node.key'
export const NODE_CERTIFICATE = 'node.crt'
export const ROOT_CERTIFICATE = 'root.crt'
export const ROOT_KEY = 'root.key'
const TOKENS = 'tokens'
const ISSUED = 'issued.jsonl'
const MEMBER_FILES = [NODE_KEY, NODE_CERTIFICATE, ROOT_CERTIFICATE, ROOT_KEY] as const

/** A file of ours is below 2 KiB. What is longer was not written by us, and is not read into memory. */
const FILE_BYTES_MAX = 64 * 1024

/** What a new member writes. `rootKeyPem` only where the mesh was created. */
export interface MemberFiles {
  readonly keyPem: string
  readonly certificatePem: string
  readonly rootPem: string
  readonly rootKeyPem?: string
}

/** A place in the data folder that is being made a member: nothing shows until `commit`, nothing stays after `abandon`. */
export interface StagedMember {
  commit(files: MemberFiles): void
  /** Removes every trace, folders made for it included. No-op after a commit. */
  abandon(): void
}

/**
 * Prepares `dataDir` for a new member: makes it if need be, and proves that it can be written *before* a token is
 * spent or a key is made.
 *
 * Commit writes all files aside, flushes them, then links them into place, the key first. A link fails where a file
 * exists, so no key is ever overwritten, not even by two commands at once: the second finds `node.key`. A power cut
 * between two links leaves a folder that `loadIdentity` calls incomplete, never one that works by halves.
 * Errors: MeshError `data-dir` if the folder holds any file of a member already, or cannot be written.
 */
export function stageMember(dataDir: string): StagedMember {
  const firstMade = attempt(`make the data folder ${dataDir}`, () =>
    mkdirSync(dataDir, { recursive: true, mode: 0o700 }),
  )
  const stage = join(dataDir, `.new-${randomBytes(6).toString('hex')}`)
  const removeFolders = () => {
    rmSync(stage, { recursive: true, force: true })
    if (firstMade !== undefined) removeEmptyFolders(resolve(dataDir), resolve(firstMade))
  }
  try {
    refuseIfMember(dataDir)
    attempt(`write in the data folder ${dataDir}`, () => mkdirSync(stage, { mode: 0o700 }))
  } catch (error) {
    removeFolders()
    throw error
  }
  let committed = false
  return {
    commit(files) {
      const contents: [string, string, number][] = [[NODE_KEY, files.keyPem, 0o600]]
      if (files.rootKeyPem !== undefined) contents.push([ROOT_KEY, files.rootKeyPem, 0o600])
      contents.push([NODE_CERTIFICATE, files.certificatePem, 0o644], [ROOT_CERTIFICATE, files.rootPem, 0o644])
      attempt(`write in the data folder ${dataDir}`, () => {
        for (const [name, text, mode] of contents) writeWhole(join(stage, name), text, mode)
      })
      const linked: string[] = []
      try {
        attempt(`put new files into the data folder ${dataDir}`, () => {
          for (const [name] of contents) {
            linkSync(join(stage, name), join(dataDir, name))
            linked.push(name)
          }
        })
      } catch (error) {
        for (const name of linked.reverse()) rmSync(join(dataDir, name), { force: true })
        if (error instanceof MeshError && hasCode(error.cause, 'EEXIST')) refuseIfMember(dataDir)
        throw error
      }
      flushFolder(dataDir)
      committed = true
      rmSync(stage, { recursive: true, force: true })
    },
    abandon() {
      if (!committed) removeFolders()
    },
  }
}

function refuseIfMember(dataDir: string): void {
  const found = attempt(`read the data folder ${dataDir}`, () => readdirSync(dataDir))
  const taken = MEMBER_FILES.filter(name => found.includes(name))
  if (taken.length === 0) return
  throw new MeshError(
    'data-dir',
    `expected a data folder without an identity, found ${taken.join(', ')} in ${dataDir}; keys are never overwritten: ` +
      'choose another folder, or move this one away if its node is gone for good',
  )
}

/** The text of a file of this member, or undefined if there is none. Errors: MeshError `data-dir` if it cannot be read. */
export function readMemberFile(dataDir: string, name: (typeof MEMBER_FILES)[number]): string | undefined {
  const path = join(dataDir, name)
  return attempt(`read ${path}`, () => {
    const bytes = readIfThere(path)
    return bytes?.toString('utf8')
  })
}

/**
 * Who else may use a private key file: `all` users of the machine, the file's `group`, or `nobody`.
 * Windows keeps no such bits; Node reports 0666 there, so nothing is said about it.
 */
export function keyExposure(dataDir: string, name: typeof NODE_KEY | typeof ROOT_KEY): 'nobody' | 'group' | 'all' {
  if (process.platform === 'win32') return 'nobody'
  const path = join(dataDir, name)
  const { mode } = attempt(`read ${path}`, () => statSync(path))
  if ((mode & 0o007) !== 0) return 'all'
  return (mode & 0o070) !== 0 ? 'group' : 'nobody'
}

/** The mesh's root with its private key, as far as this node holds it. */
export interface RootAuthority {
  readonly mesh: string
  readonly certificatePem: string
  readonly key: KeyObject
}

/**
 * The root's certificate and private key, to invite and to issue with.
 * Errors: MeshError `data-dir` if this node may not invite (no `root.key` here), or the two do not fit or cannot be read.
 */
export function readRootAuthority(dataDir: string): RootAuthority {
  const keyPem = readMemberFile(dataDir, ROOT_KEY)
  const certificatePem = readMemberFile(dataDir, ROOT_CERTIFICATE)
  if (keyPem === undefined || certificatePem === undefined) {
    const missing = keyPem === undefined ? ROOT_KEY : ROOT_CERTIFICATE
    throw new MeshError(
      'data-dir',
      `inviting needs the mesh's root, and ${missing} is not in ${dataDir}; invite on the node that created the mesh`,
    )
  }
  const read = readRootCertificate(certificatePem)
  if (!read.ok) throw new MeshError('data-dir', `${join(dataDir, ROOT_CERTIFICATE)} is unusable: ${read.reason}`)
  const key = parseKey(join(dataDir, ROOT_KEY), keyPem)
  if (!createPublicKey(key).equals(read.certificate.publicKey)) {
    throw new MeshError('data-dir', `${ROOT_KEY} in ${dataDir} does not belong to ${ROOT_CERTIFICATE} beside it`)
  }
  return { mesh: read.mesh, certificatePem, key }
}

/** An Ed25519 private key from PEM. Errors: MeshError `data-dir`, which never quotes the file. */
export function parseKey(path: string, pem: string): KeyObject {
  let key: KeyObject | undefined
  try {
    key = createPrivateKey(pem)
  } catch {
    // OpenSSL's words would help nobody, and the text must not reach a log.
  }
  if (key?.asymmetricKeyType === 'ed25519') return key
  throw new MeshError('data-dir', `expected an Ed25519 private key (PKCS#8 PEM) in ${path}, found something else`)
}

/** Appends one line about an issued certificate, flushed: no certificate leaves this node without its line. */
export function appendIssued(
  dataDir: string,
  line: {
    readonly atMs: number
    readonly serial: string
    readonly node: string
    readonly name: string
    readonly region: string
    readonly expiresAtMs: number
    readonly token: string
    readonly remote: string
  },
): void {
  const path = join(dataDir, ISSUED)
  attempt(`append to ${path}`, () => {
    const file = openSync(path, 'a', 0o600)
    try {
      appendFileSync(file, `${JSON.stringify(line)}\n`)
      fsyncSync(file)
    } finally {
      closeSync(file)
    }
  })
}

/** What is kept of an issued token: never its secret, only the secret's hash, as the file's name. */
export interface TokenEntry {
  readonly mesh: string
  readonly issuedAtMs: number
  readonly expiresAtMs: number
}

export type TokenState = 'ok' | 'token-used' | 'token-expired' | 'bad-token'

/** SHA-256 of a token's secret, hex: the name of its file. The secret is 128 random bits, so no salt and no slow hash. */
export function tokenName(secret: Uint8Array): string {
  return createHash('sha256').update(secret).digest('hex')
}

/** Notes a new token, and sweeps those (and the marks of used ones) that have expired. */
export function addToken(dataDir: string, secret: Uint8Array, entry: TokenEntry): void {
  const folder = join(dataDir, TOKENS)
  attempt(`write in ${folder}`, () => {
    mkdirSync(folder, { recursive: true, mode: 0o700 })
    sweepTokens(folder, entry.issuedAtMs)
    writeWhole(join(folder, tokenName(secret)), `${JSON.stringify(entry)}\n`, 0o600)
    flushFolder(folder)
  })
}

/** What a token is worth now, without using it. */
export function tokenState(dataDir: string, secret: Uint8Array, nowMs: number): TokenState {
  const path = join(dataDir, TOKENS, tokenName(secret))
  return attempt(`read ${path}`, () => {
    const entry = readToken(path)
    if (entry === undefined) return readIfThere(`${path}${USED}`) === undefined ? 'bad-token' : 'token-used'
    return entry.expiresAtMs <= nowMs ? 'token-expired' : 'ok'
  })
}

/**
 * Uses a token up: `ok` exactly once, whoever races, in this process or another. A rename decides: it succeeds for
 * one, and for the others the file is gone. What it leaves tells a second user "used" until the token would have expired.
 */
export function takeToken(dataDir: string, secret: Uint8Array, nowMs: number): TokenState {
  const state = tokenState(dataDir, secret, nowMs)
  if (state !== 'ok') return state
  const folder = join(dataDir, TOKENS)
  const path = join(folder, tokenName(secret))
  return attempt(`write in ${folder}`, () => {
    try {
      renameSync(path, `${path}${USED}`)
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return 'token-used'
      throw error
    }
    flushFolder(folder)
    return 'ok'
  })
}

const USED = '.used'
const TOKEN_FILE = /^[0-9a-f]{64}(\.used)?$/

/** Removes what has expired. A file that does not parse may be one that another process is writing: it stays. */
function sweepTokens(folder: string, nowMs: number): void {
  for (const name of readdirSync(folder)) {
    if (!TOKEN_FILE.test(name)) continue
    const entry = readToken(join(folder, name))
    if (entry !== undefined && entry.expiresAtMs <= nowMs) rmSync(join(folder, name), { force: true })
  }
}

function readToken(path: string): TokenEntry | undefined {
  const bytes = readIfThere(path)
  if (bytes === undefined) return undefined
  try {
    const value: unknown = JSON.parse(bytes.toString('utf8'))
    if (typeof value !== 'object' || value === null) return undefined
    const { mesh, issuedAtMs, expiresAtMs } = value as Partial<Record<keyof TokenEntry, unknown>>
    if (typeof mesh !== 'string' || typeof issuedAtMs !== 'number' || typeof expiresAtMs !== 'number') return undefined
    return { mesh, issuedAtMs, expiresAtMs }
  } catch {
    return undefined
  }
}

function readIfThere(path: string): Buffer | undefined {
  try {
    const { size } = statSync(path)
    if (size > FILE_BYTES_MAX) throw new Error(`${size} bytes, expected at most ${FILE_BYTES_MAX}`)
    return readFileSync(path)
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return undefined
    throw error
  }
}

/** A new file, whole and flushed. Fails if there is one. */
function writeWhole(path: string, text: string, mode: number): void {
  const file = openSync(path, 'wx', mode)
  try {
    writeFileSync(file, text)
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
}

/** Makes renames and links in a folder survive a power cut, where the file system can. */
function flushFolder(folder: string): void {
  try {
    const handle = openSync(folder, 'r')
    try {
      fsyncSync(handle)
    } finally {
      closeSync(handle)
    }
  } catch {
    // Some file systems, and Windows, cannot flush a folder. Then a crash in this very moment can undo the rename.
  }
}

/** Removes `from` and its parents up to `until`, as long as they are empty. */
function removeEmptyFolders(from: string, until: string): void {
  try {
    for (let folder = from; ; folder = dirname(folder)) {
      rmdirSync(folder)
      if (folder === until) return
    }
  } catch {
    // Somebody else has put something there meanwhile: it is theirs now.
  }
}

function attempt<T>(what: string, action: () => T): T {
  try {
    return action()
  } catch (error) {
    if (error instanceof MeshError) throw error
    const reason = messageOf(error)
    throw new MeshError('data-dir', `cannot ${what}: ${reason}; check the path, its owner and the space left`, {
      cause: error,
    })
  }
}

function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code
}
