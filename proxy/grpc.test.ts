import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { formatGrpcTimeout, grpcFailure, parseGrpcTimeoutMs } from './grpc.ts'
import { isGrpc } from './h2-forward.ts'

describe('grpc-timeout', () => {
  test.each<[string, number | undefined]>([
    ['1H', 3_600_000],
    ['2M', 120_000],
    ['3S', 3000],
    ['1500m', 1500],
    ['250000u', 250],
    ['99999999n', 99.999999],
    ['0m', 0],
    ['123456789m', undefined],
    ['1', undefined],
    ['m', undefined],
    ['-1m', undefined],
    ['1.5S', undefined],
    ['1s', undefined],
    ['1 S', undefined],
    ['', undefined],
  ])('%j is %s milliseconds', (field, ms) => {
    expect(parseGrpcTimeoutMs(field)).toBe(ms)
  })

  test('what is written can be read, is never longer than it was, and loses less than a hundredth', () => {
    fc.assert(
      fc.property(fc.double({ min: 0, max: 1e14, noNaN: true }), ms => {
        const read = parseGrpcTimeoutMs(formatGrpcTimeout(ms)) ?? Number.NaN
        // 1 ns stands for no time at all.
        expect(read).toBeLessThanOrEqual(Math.max(ms * (1 + 1e-9), 1e-6))
        expect(read).toBeGreaterThanOrEqual(ms * 0.99 - 1e-6)
      }),
    )
  })
})

test('a failure is told in fields that HTTP/2 can carry, whatever stands in its reason', () => {
  const fields = grpcFailure({ code: 'deadline', reason: 'zu spät\r\n100 %', node: 'a' })
  expect(fields).toEqual([
    ...['grpc-status', '4', 'grpc-message', 'flatmesh: zu sp%C3%A4t%0D%0A100 %25'],
    ...['x-flatmesh-error', 'deadline', 'x-flatmesh-node', 'a'],
  ])
  expect(grpcFailure({ code: 'internal', reason: 'x'.repeat(1e6), node: 'a' }).join('').length).toBeLessThan(2000)
})

test.each<[string, boolean]>([
  ['application/grpc', true],
  ['application/grpc+proto', true],
  ['Application/gRPC;charset=utf-8', true],
  ['application/grpc-web', false],
  ['application/json', false],
])('%s is gRPC: %s', (type, is) => {
  expect(isGrpc({ fields: ['Content-Type', type] })).toBe(is)
  expect(isGrpc({ fields: ['accept', type] })).toBe(false)
})
