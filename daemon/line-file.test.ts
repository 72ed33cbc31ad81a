import { existsSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { silentLog } from '../router/log.ts'
import { LineFile } from './line-file.ts'

let folder = ''
let path = ''
let warned: unknown[] = []
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'flatmesh-lines-'))
  path = join(folder, 'access.log')
  warned = []
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const log = { ...silentLog, warn: (fields: unknown) => void warned.push(fields) }
let nowMs = 0

async function started(options: { path?: string; waitingBytesMax?: number } = {}): Promise<LineFile> {
  const file = new LineFile({ log, nowMs: () => nowMs }, { path, ...options })
  await file.start()
  return file
}

describe('a file of lines', () => {
  test('has every line once and in order, also of more than one piece, and after what was in it before', async () => {
    const first = await started()
    first.write('before\n')
    await first.stop()
    const file = await started()
    const lines = Array.from({ length: 5000 }, (_, i) => `line ${i} ${'x'.repeat(i % 400)} ’\n`)
    for (const [i, line] of lines.entries()) {
      file.write(line)
      if (i % 1000 === 0) await file.flush()
    }
    await file.stop()
    expect(readFileSync(path, 'utf8')).toBe(`before\n${lines.join('')}`)
    expect(file.counts).toEqual({ written: 5000, dropped: 0 })
  })

  test('writes what came by itself, so that whoever follows the file sees it', async () => {
    const file = await started()
    file.write('one\n')
    const endAtMs = performance.now() + 10_000
    while (readFileSync(path, 'utf8') !== 'one\n') {
      expect(performance.now()).toBeLessThan(endAtMs)
      await new Promise(resolve => setTimeout(resolve, 20))
    }
    await file.stop()
  })

  test('drops and counts what a slow disk leaves waiting, keeps no more than that, and goes on afterwards', async () => {
    const file = await started({ waitingBytesMax: 512 * 1024 })
    const line = `${'x'.repeat(999)}\n`
    // Nothing is written within this turn: no disk could be slower.
    for (let i = 0; i < 4000; i++) file.write(line)
    expect(file.counts.dropped).toBeGreaterThan(3000)
    await file.flush()
    file.write('after\n')
    await file.stop()
    const text = readFileSync(path, 'utf8')
    expect(text.length).toBeLessThanOrEqual(512 * 1024 + 2 * 256 * 1024)
    expect(text.endsWith(`${line}after\n`)).toBe(true)
    expect(file.counts.written + file.counts.dropped).toBe(4001)
    expect(text.split('\n').length - 1).toBe(file.counts.written)
  })

  test('drops a line that is longer than a piece, and no other', async () => {
    const file = await started()
    file.write('a\n')
    file.write(`${'x'.repeat(300_000)}\n`)
    file.write('b\n')
    await file.stop()
    expect(readFileSync(path, 'utf8')).toBe('a\nb\n')
    expect(file.counts).toEqual({ written: 2, dropped: 1 })
  })

  test('is made anew when it was moved or removed, and what came before the move is in the old one', async () => {
    const file = await started()
    file.write('old\n')
    renameSync(path, `${path}.1`)
    await file.flush()
    file.write('new\n')
    await file.flush()
    rmSync(path)
    await file.flush()
    file.write('newer\n')
    await file.stop()
    expect(readFileSync(`${path}.1`, 'utf8')).toBe('old\n')
    expect(readFileSync(path, 'utf8')).toBe('newer\n')
    expect(file.counts).toEqual({ written: 3, dropped: 0 })
  })

  test('goes on in the file it has while its name cannot be had, and comes back to it', async () => {
    const file = await started()
    renameSync(folder, `${folder}-away`)
    file.write('one\n')
    await file.flush()
    file.write('two\n')
    await file.flush()
    expect(warned).toHaveLength(1)
    expect(readFileSync(join(`${folder}-away`, 'access.log'), 'utf8')).toBe('one\ntwo\n')
    renameSync(`${folder}-away`, folder)
    file.write('three\n')
    await file.stop()
    expect(readFileSync(path, 'utf8')).toBe('one\ntwo\nthree\n')
  })

  test('of a disk that is full loses lines and nothing else, and says so once a minute', async () => {
    const file = await started({ path: '/dev/full' })
    for (let i = 0; i < 3; i++) {
      file.write('lost\n')
      await file.flush()
    }
    expect(file.counts).toEqual({ written: 0, dropped: 3 })
    expect(warned).toEqual([{ file: '/dev/full', reason: expect.stringContaining('ENOSPC') }])
    nowMs += 60_000
    file.write('lost\n')
    await file.stop()
    expect(warned).toHaveLength(2)
  })

  test('that filled up inside a line goes on with a line of its own when there is room again', async () => {
    const file = new LineFile(
      {
        ...{ log, nowMs: () => nowMs },
        async open(...args) {
          const handle = await open(...args)
          const write = handle.write.bind(handle)
          let calls = 0
          // The first write takes three bytes, the second none, as on a disk that fills up.
          const full = async (...words: [Buffer, number, number]): Promise<unknown> => {
            calls++
            if (calls === 2) throw new Error('ENOSPC')
            return calls === 1 ? write(words[0], words[1], 3) : write(...words)
          }
          return Object.assign(handle, { write: full })
        },
      },
      { path },
    )
    await file.start()
    file.write('lost\n')
    await file.flush()
    file.write('whole\n')
    await file.stop()
    expect(readFileSync(path, 'utf8')).toBe('los\nwhole\n')
    expect(file.counts).toEqual({ written: 1, dropped: 1 })
  })

  test('that cannot be opened is told of at the start, as a matter of the config', async () => {
    await expect(started({ path: join(folder, 'no', 'such') })).rejects.toMatchObject({
      code: 'bad-config',
      message: expect.stringContaining('log.accessFile: '),
    })
    expect(existsSync(join(folder, 'no'))).toBe(false)
  })

  test('is not for everyone to read', async () => {
    await (await started()).stop()
    expect(statSync(path).mode & 0o007).toBe(0)
  })
})
