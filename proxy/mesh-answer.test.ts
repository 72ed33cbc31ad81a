import { expect, test } from 'vitest'
import type { ResponseHead } from './http1-head.ts'
import { ResponseReader } from './http1-reader.ts'
import { meshAnswer, meshStatus } from './mesh-answer.ts'

/** The answer as the strict reader of this project reads it. */
function parse(bytes: Buffer, method = 'GET'): { head: ResponseHead; body: string; isWhole: boolean } {
  const seen: { head?: ResponseHead; body: string; isWhole: boolean } = { body: '', isWhole: false }
  const reader = new ResponseReader({
    onHead: head => (seen.head = head),
    onData: chunk => (seen.body += chunk.toString()),
    onTrailers() {},
    onEnd: () => (seen.isWhole = true),
    onError: fault => {
      throw new Error(fault.reason)
    },
  })
  reader.expect(method, false)
  reader.push(bytes)
  if (seen.head === undefined) throw new Error('no head was read')
  return { ...seen, head: seen.head }
}
const field = (head: ResponseHead, name: string): string | undefined => {
  const at = head.fields.findIndex((text, i) => i % 2 === 0 && text.toLowerCase() === name)
  return at === -1 ? undefined : head.fields[at + 1]
}

test('an answer of the mesh says so in its head, and who made it and why in its body', () => {
  const attempts = [{ node: 'b', code: 'instance-refused' as const, reason: 'port "9000" closed' }]
  const failure = { code: 'instance-refused' as const, reason: 'nobody', node: 'a', service: 'orders', attempts }
  const { head, body, isWhole } = parse(meshAnswer(failure, 'GET', true))
  expect([head.status, isWhole]).toEqual([503, true])
  expect(field(head, 'x-flatmesh-error')).toBe('instance-refused')
  expect(field(head, 'x-flatmesh-node')).toBe('a')
  expect(field(head, 'retry-after')).toBe('3')
  expect(field(head, 'connection')).toBeUndefined()
  expect(JSON.parse(body)).toEqual({
    error: { code: 'instance-refused', message: 'nobody', node: 'a', service: 'orders', attempts },
  })
})

test('a HEAD request gets the length of the body it would have had, and no body', () => {
  const failure = { code: 'unknown-service' as const, reason: 'ünknown', node: 'a' }
  const [get, head] = [meshAnswer(failure, 'GET', true), meshAnswer(failure, 'HEAD', true)]
  expect(get.subarray(0, head.length).equals(head)).toBe(true)
  expect(parse(head, 'HEAD')).toMatchObject({ body: '', isWhole: true })
  expect(parse(get).body).toContain('ünknown')
})

test('a connection that is closed afterwards is announced', () => {
  const { head } = parse(meshAnswer({ code: 'bad-request', reason: 'x', node: 'a' }, 'GET', false))
  expect(field(head, 'connection')).toBe('close')
})

test('only what is worth trying again asks to be tried again', () => {
  const retries = (code: Parameters<typeof meshStatus>[0]): boolean =>
    meshAnswer({ code, reason: '', node: 'a' }, 'GET', true).includes('Retry-After')
  expect([retries('draining'), retries('unknown-service'), retries('deadline')]).toEqual([true, false, false])
})

test('a code without a status of its own is a bug of the mesh', () => {
  expect(meshStatus('internal')).toEqual([500, 'Internal Server Error'])
  expect(meshStatus('loop')).toEqual([508, 'Loop Detected'])
})

test('a reason with line ends cannot add fields to the head', () => {
  const reason = 'x\r\nset-cookie: a=b\r\n\r\n'
  const { head, body } = parse(meshAnswer({ code: 'internal', reason, node: 'a' }, 'GET', true))
  expect(field(head, 'set-cookie')).toBeUndefined()
  expect(JSON.parse(body)).toMatchObject({ error: { message: reason } })
})
