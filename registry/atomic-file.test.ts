import { chmod, lstat, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { replaceFile } from './atomic-file.ts'

let folder: string
let path: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'flatmesh-atomic-'))
  path = join(folder, 'file')
})
afterEach(() => rm(folder, { recursive: true }))

test('creates a file with the mode asked for, and leaves nothing else', async () => {
  expect(await replaceFile(path, 'new', { mode: 0o600 })).toBe(true)
  expect(await readFile(path, 'utf8')).toBe('new')
  expect((await stat(path)).mode & 0o777).toBe(0o600)
  expect(await readdir(folder)).toEqual(['file'])
})

test('keeps the mode a file has, also one that the umask would narrow', async () => {
  await writeFile(path, 'old')
  await chmod(path, 0o666)
  await replaceFile(path, 'new', { mode: 0o600 })
  expect((await stat(path)).mode & 0o777).toBe(0o666)
})

test('puts another file in place instead of writing into the old one, which a reader may have open', async () => {
  await writeFile(path, 'old')
  const before = await stat(path)
  await replaceFile(path, 'new')
  expect((await stat(path)).ino).not.toBe(before.ino)
})

test('replaces what a link leads to and keeps the link', async () => {
  await writeFile(path, 'old')
  const link = join(folder, 'link')
  await symlink('file', link)
  await replaceFile(link, 'new')
  expect((await lstat(link)).isSymbolicLink()).toBe(true)
  expect(await readFile(path, 'utf8')).toBe('new')
})

test('leaves the file alone when the last question is answered no', async () => {
  await writeFile(path, 'old')
  expect(await replaceFile(path, 'new', { onlyIf: () => false })).toBe(false)
  expect(await readFile(path, 'utf8')).toBe('old')
  expect(await readdir(folder)).toEqual(['file'])
})

test('fails without a trace when the folder is missing or the target cannot be replaced', async () => {
  await expect(replaceFile(join(folder, 'none', 'file'), 'new')).rejects.toMatchObject({ code: 'ENOENT' })
  await expect(replaceFile(folder, 'new')).rejects.toThrow()
  const refusing = () => {
    throw new Error('no')
  }
  await expect(replaceFile(path, 'new', { onlyIf: refusing })).rejects.toThrow('no')
  expect(await readdir(folder)).toEqual([])
})

test('a reader sees the old or the new content, never a part', async () => {
  const contents = ['a', 'b'].map(letter => letter.repeat(200_000))
  await writeFile(path, contents[0] ?? '')
  let writing = true
  const writer = (async () => {
    for (let i = 0; i < 20; i++) await replaceFile(path, contents[i % 2] ?? '')
    writing = false
  })()
  let reads = 0
  while (writing) {
    expect(contents.includes(await readFile(path, 'utf8'))).toBe(true)
    reads++
  }
  await writer
  expect(reads).toBeGreaterThan(0)
})
