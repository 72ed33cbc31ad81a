import { defineConfig } from 'vitest/config'

/** Unit and contract tests live beside the code; real processes are the end-to-end suite's (vitest.e2e.config.ts). */
export default defineConfig({
  test: {
    include: ['{daemon,registry,router,tunnel,proxy}/**/*.test.ts', 'test/*.test.ts', 'test/{sim,soak}/**/*.test.ts'],
    testTimeout: 20_000,
  },
})
