import { createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { decodeBatch, signedBytes } from '../router/batch.ts'
import { DigestIndex } from '../router/digest-index.ts'
import { decodeLinkInfo } from '../router/entry.ts'
import { decodeGossipFrame, encodeGossipFrame } from '../router/frame.ts'
import { decodeMsgpack } from '../router/msgpack.ts'
import { nodeIdOfPublicKey } from './peer-identity.ts'
import { signAs, verifySignature } from './signature.ts'

const { privateKey, publicKey } = generateKeyPairSync('ed25519')
const signer = nodeIdOfPublicKey(publicKey)
const BYTES = Buffer.from('what was said')

/** Bytes of an example in docs/wire.md. */
function example(name: string): Buffer {
  const page = readFileSync(new URL('../docs/wire.md', import.meta.url), 'utf8')
  const text = new RegExp(`\`\`\`gossip-${name}\\n([^\`]+)\`\`\``).exec(page)?.[1]
  if (text === undefined) throw new Error(`docs/wire.md has no example gossip-${name}`)
  return Buffer.from(text.replace(/\s/g, ''), 'hex')
}

test('what a node signed is known as its own, by its id alone', () => {
  const signature = signAs(privateKey)(BYTES)
  expect(verifySignature(signer, BYTES, signature)).toBe(true)
  // The second time from the keys that are kept.
  expect(verifySignature(signer, BYTES, signature)).toBe(true)
})

test('other bytes, another signer and a signature that is changed or cut are refused', () => {
  const signature = Buffer.from(signAs(privateKey)(BYTES))
  const other = nodeIdOfPublicKey(generateKeyPairSync('ed25519').publicKey)
  const changed = Buffer.from(signature)
  changed[5] = (changed[5] ?? 0) ^ 1
  expect(verifySignature(signer, Buffer.from('what was not'), signature)).toBe(false)
  expect(verifySignature(other, BYTES, signature)).toBe(false)
  expect(verifySignature(signer, BYTES, changed)).toBe(false)
  expect(verifySignature(signer, BYTES, signature.subarray(0, 63))).toBe(false)
  expect(verifySignature(signer, BYTES, new Uint8Array(0))).toBe(false)
})

test.each([
  '',
  'nobody',
  '12D3KooW',
  'QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N',
  '\u0000',
  'x'.repeat(10_000),
])('an id that holds no Ed25519 key has signed nothing, and does not throw: %j', node => {
  expect(verifySignature(node, BYTES, signAs(privateKey)(BYTES))).toBe(false)
})

test('the example batch in docs/wire.md is true: its bytes, its id and its signature', () => {
  const seed = Buffer.alloc(32, 1)
  const der = Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), seed])
  const key = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' })
  const [payload, signature] = [example('payload'), example('signature')]
  const decoded = decodeBatch(payload, signature)
  const origin = nodeIdOfPublicKey(createPublicKey(key))
  expect(decoded.ok && decoded.batch).toMatchObject({
    ...{ origin, incarnation: 7, seq: 2, base: 1 },
    entries: [
      { key: 'service/orders', value: { i: 2, h: 1, w: 1 } },
      { key: 'link/x', value: undefined },
    ],
  })
  expect(verifySignature(origin, signedBytes(payload), signature)).toBe(true)
  expect(Buffer.from(signAs(key)(signedBytes(payload))).equals(signature)).toBe(true)
})

test('the example frames in docs/wire.md are read as the page says', () => {
  const frame = (name: string): unknown => {
    const decoded = decodeGossipFrame(example(name))
    return decoded.ok ? decoded.frame : decoded.reason
  }
  const versions = new Map([['a', { incarnation: 7, contiguous: 2 }]])
  const known = new DigestIndex()
  for (const [origin, version] of versions) known.set(origin, version, 0)
  expect(Buffer.from(encodeGossipFrame({ type: 'summary', hashes: known.summary(), handOn: true, load: 2 }))).toEqual(
    example('summary'),
  )
  expect(frame('summary')).toMatchObject({ type: 'summary' })
  expect(frame('digest')).toEqual({ type: 'digest', reply: true, versions })
  expect(frame('scoped')).toEqual({
    ...{ type: 'digest', reply: true, versions },
    scope: { count: 2, indexes: new Set([1]) },
  })
  expect(frame('batches')).toMatchObject({ type: 'batches', proofs: [], isAnswer: false })
  const decoded = decodeMsgpack(example('link'))
  expect(decoded.ok && decodeLinkInfo(decoded.value)).toEqual({ rttMs: 12.3, lossRatio: 0.06 })
  const message = example('message')
  expect(message.readUInt32BE(0)).toBe(message.length - 4)
  expect([message[4], message.subarray(5)]).toEqual([0, example('summary')])
})
