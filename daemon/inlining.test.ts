import { execFileSync } from 'node:child_process'
import { expect, test } from 'vitest'
import { INLINING_FLAGS } from './inlining.ts'

test.each(INLINING_FLAGS)('this V8 knows %s, else it would complain at every start', flag => {
  const options = execFileSync(process.execPath, ['--v8-options'], { encoding: 'utf8' })
  const [name] = flag.split('=')
  expect(options.split(/\s+/)).toContain(name)
})
