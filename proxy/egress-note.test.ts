import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { decodeEgressNote, egressNoteLine, egressNoteOf, NOTE_FIELDS } from './egress-note.ts'
import { h2ResponseFields } from './h2-forward.ts'
import { chooseAnswerFraming, forwardResponseHead } from './http1-forward.ts'
import { decodeResponseHead, type ResponseHead } from './http1-head.ts'

function headOf(lines: string): ResponseHead {
  const head = decodeResponseHead(Buffer.from(`HTTP/1.1 200 OK\r\n${lines}Content-Length: 0\r\n\r\n`))
  if ('code' in head) throw new Error(head.reason)
  return head
}

/** What an HTTP/1 client gets of a head. */
const forwarded = (head: ResponseHead): string =>
  forwardResponseHead(head, 11, chooseAnswerFraming(head, 'GET', 11, true), { drop: NOTE_FIELDS, add: '' }).toString()

describe('the note of an egress', () => {
  test('comes out at the ingress as it went in at the egress, to the microsecond', () => {
    const note = egressNoteOf(headOf(`X-Own: 1\r\n${egressNoteLine('[::1]:9000', 0.25, 1234.5678)}`))
    expect(decodeEgressNote(note ?? '')).toEqual({ address: '[::1]:9000', queueMs: 0.25, instanceMs: 1234.568 })
  })

  test('never reaches the client, however often and however spelt another node sends it', () => {
    const head = headOf('X-FLATMESH-EGRESS: a 1 1\r\nX-Own: x-flatmesh-egress\r\nx-flatmesh-egress: b 2 2\r\n')
    expect(egressNoteOf(head)).toBe('a 1 1')
    expect(forwarded(head)).toBe('HTTP/1.1 200 OK\r\nX-Own: x-flatmesh-egress\r\nContent-Length: 0\r\n\r\n')
    const fields = [':status', '200', 'x-own', 'x-flatmesh-egress', 'content-length', '0']
    expect(h2ResponseFields(head, '')).toEqual(fields)
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

  test('is not there in a head that has none', () => {
    expect(egressNoteOf(headOf('X-Own: 1\r\n'))).toBe(undefined)
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
