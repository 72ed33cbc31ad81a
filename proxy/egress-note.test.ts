import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { decodeEgressNote, egressNoteLine, splitEgressNote } from './egress-note.ts'
import { decodeResponseHead, type ResponseHead } from './http1-head.ts'

function headOf(lines: string): ResponseHead {
  const head = decodeResponseHead(Buffer.from(`HTTP/1.1 200 OK\r\n${lines}Content-Length: 0\r\n\r\n`))
  if ('code' in head) throw new Error(head.reason)
  return head
}

describe('the note of an egress', () => {
  test('comes out at the ingress as it went in at the egress, to the microsecond', () => {
    const { note, head } = splitEgressNote(headOf(`X-Own: 1\r\n${egressNoteLine('[::1]:9000', 0.25, 1234.5678)}`))
    expect(decodeEgressNote(note ?? '')).toEqual({ address: '[::1]:9000', queueMs: 0.25, instanceMs: 1234.568 })
    expect(head.fields).toEqual(['X-Own', '1', 'Content-Length', '0'])
  })

  test('never reaches the client, however often and however spelt another node sends it', () => {
    const lines = 'X-FLATMESH-EGRESS: a 1 1\r\nX-Own: x-flatmesh-egress\r\nx-flatmesh-egress: b 2 2\r\n'
    const { note, head } = splitEgressNote(headOf(lines))
    expect(head.fields).toEqual(['X-Own', 'x-flatmesh-egress', 'Content-Length', '0'])
    expect(note).toBe('b 2 2')
  })

  test('of another node is read or not, whatever it is, and never throws', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: 'binary' }), fc.stringMatching(/^\S{1,9} \d{0,14} \d{0,14}$/)), note => {
        const read = decodeEgressNote(note)
        if (read === undefined) return
        expect(egressNoteLine(read.address, read.queueMs, read.instanceMs)).toMatch(
          /^X-Flatmesh-Egress: [!-~]+ \d+ \d+\r\n$/,
        )
      }),
      { numRuns: 20_000, seed: 1 },
    )
  })

  test('leaves a head alone that has none', () => {
    const head = headOf('X-Own: 1\r\n')
    expect(splitEgressNote(head)).toEqual({ head, note: undefined })
  })

  test.each([
    ['', 'nothing'],
    ['a 1', 'a missing part'],
    ['a 1 2 3', 'a part too many'],
    ['a -1 2', 'a negative time'],
    ['a 1 1e9', 'a number in another form'],
    ['a 1 9999999999999', 'a time of more than eleven days'],
    ['ä 1 1', 'an address of other characters'],
    [`${'a'.repeat(301)} 1 1`, 'an address without end'],
  ])('%j is not taken for one: %s', note => {
    expect(decodeEgressNote(note)).toBeUndefined()
  })
})
