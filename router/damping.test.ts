import { describe, expect, test } from 'vitest'
import { Damping } from './damping.ts'

describe('damping', () => {
  test('a restart or two are nobody’s business', () => {
    const damping = new Damping()
    damping.onReturn('orders', 0)
    damping.onReturn('orders', 10_000)
    expect(damping.heldUntilMs('orders', 10_000)).toBeUndefined()
  })

  test('a crash loop is held back until it has calmed down, and other services are not', () => {
    const damping = new Damping()
    for (let i = 0; i < 4; i++) damping.onReturn('orders', i * 1000)
    const untilMs = damping.heldUntilMs('orders', 3000) ?? 0
    expect(untilMs).toBeGreaterThan(10_000)
    expect(damping.heldUntilMs('billing', 3000)).toBeUndefined()
    expect(damping.heldUntilMs('orders', untilMs - 1)).toBeDefined()
    expect(damping.heldUntilMs('orders', untilMs + 1)).toBeUndefined()
  })

  test('nobody is held back for longer than a minute, however it flaps', () => {
    const damping = new Damping()
    for (let ms = 0; ms < 59_000; ms += 100) damping.onReturn('orders', ms)
    expect(damping.heldUntilMs('orders', 59_000)).toBeLessThanOrEqual(60_400)
    expect(damping.heldUntilMs('orders', 60_401)).toBeUndefined()
  })
})
