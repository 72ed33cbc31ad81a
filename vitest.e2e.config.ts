import { defineConfig } from 'vitest/config'

/** Real daemons as real processes: one file at a time, so that a slow machine does not time out a neighbour. */
export default defineConfig({
  test: {
    include: ['test/e2e/**/*.test.ts'],
    testTimeout: 120_000,
    hookTimeout: 120_000,
    fileParallelism: false,
  },
})
