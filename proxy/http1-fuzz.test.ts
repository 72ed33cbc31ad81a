import { expect, it } from 'vitest'
import { Http1Fault } from './http1-fault.ts'
import { differentialCase, differentialFuzz } from './http1-fuzz.ts'
import { decodeRequestHead } from './http1-head.ts'

it('reads no message otherwise than the parser of Node does, before and after forwarding it', () => {
  const report = differentialFuzz(20_261_122, 2000)
  expect(report.disagreements).toEqual([])
  // Were nearly everything refused, agreement would mean nothing.
  expect(report.accepted).toBeGreaterThan(report.tried / 4)
  expect(report.withBody).toBeGreaterThan(report.tried / 20)
  expect(report.refused).toBeGreaterThan(report.tried / 20)
})

it('tries the same case for the same seed', () => {
  for (let seed = 1; seed <= 50; seed++) expect(differentialCase(seed)).toEqual(differentialCase(seed))
})

it('never repeats raw bytes of a peer in a reason', () => {
  let refused = 0
  for (let seed = 0; seed < 2000; seed++) {
    const { fault } = differentialCase(seed)
    if (fault === undefined) continue
    refused++
    expect(fault.reason).toMatch(/^[\x20-\x7e]{10,400}$/)
  }
  expect(refused).toBeGreaterThan(100)
  expect(
    decodeRequestHead(Buffer.from(`GET / HTTP/1.1\r\nHost: ${'\xff'.repeat(1000)}\r\n\r\n`, 'latin1')),
  ).toBeInstanceOf(Http1Fault)
})
