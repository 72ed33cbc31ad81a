import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { lockDataDir } from './data-lock.ts'

let folder: string
let path: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'flatmesh-lock-'))
  path = join(folder, 'daemon.pid')
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

test('a lock holds this process, and is gone when it is given up', () => {
  const unlock = lockDataDir(folder)
  expect(readFileSync(path, 'utf8')).toBe(`${process.pid}\n`)
  unlock()
  expect(existsSync(path)).toBe(false)
  lockDataDir(folder)()
})

test('a folder in use by a living process is refused, and the process named', async () => {
  const other = spawn(process.execPath, ['-e', 'process.stdin.resume()'], { stdio: ['pipe', 'ignore', 'ignore'] })
  try {
    await once(other, 'spawn')
    writeFileSync(path, `${other.pid}\n`)
    expect(() => lockDataDir(folder)).toThrow(
      expect.objectContaining({ code: 'data-dir', message: expect.stringContaining(`process ${other.pid}`) }),
    )
    expect(readFileSync(path, 'utf8')).toBe(`${other.pid}\n`)
  } finally {
    const gone = once(other, 'exit')
    other.stdin?.end()
    await gone
  }
})

test('a lock left by a process that is no more is taken over', async () => {
  const other = spawn(process.execPath, ['-e', ''], { stdio: 'ignore' })
  await once(other, 'exit')
  writeFileSync(path, `${other.pid}\n`)
  lockDataDir(folder)
  expect(readFileSync(path, 'utf8')).toBe(`${process.pid}\n`)
})

test.each(['', 'rubbish', '-1', '0', '1e99'])('a lock that names no process is taken over: "%s"', text => {
  writeFileSync(path, text)
  lockDataDir(folder)
  expect(readFileSync(path, 'utf8')).toBe(`${process.pid}\n`)
})

test('a folder that is not there is refused with its path', () => {
  const missing = join(folder, 'missing')
  expect(() => lockDataDir(missing)).toThrow(
    expect.objectContaining({ code: 'data-dir', message: expect.stringContaining(missing) }),
  )
})
