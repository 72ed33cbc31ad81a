import fc from 'fast-check'
import { expect, test } from 'vitest'
import { type Column, displayWidth, formatPairs, formatTable, printable } from './table.ts'

const plain = { color: false, width: undefined }
const columns: Column[] = [
  { title: 'NODE', shrinks: true },
  { title: 'RTT MS', align: 'right' },
  { title: 'WHY', shrinks: true },
]

test('columns line up, numbers at their last digit, and no line ends in blanks', () => {
  const rows = [
    ['use1-a', '0', ''],
    ['b', '1024', 'far'],
  ]
  expect(formatTable(columns, rows, plain)).toBe('NODE    RTT MS  WHY\nuse1-a       0\nb         1024  far\n')
})

test('a character that is two columns wide takes two, a combining mark none', () => {
  expect(displayWidth('東京')).toBe(4)
  expect(displayWidth('e\u0301')).toBe(1)
  expect(displayWidth('🙂')).toBe(2)
  expect(formatTable(columns, [['東京', '1', 'x']], plain)).toBe('NODE  RTT MS  WHY\n東京       1  x\n')
})

test('a narrow terminal cuts the widest columns that may shrink, never a number', () => {
  const rows = [['a-very-long-node-name', '123456', 'because it is the closest of them all']]
  const table = formatTable(columns, rows, { color: false, width: 40 })
  expect(table).toBe('NODE             RTT MS  WHY\na-very-long-no…  123456  because it is …\n')
  for (const line of table.trimEnd().split('\n')) expect(displayWidth(line)).toBeLessThanOrEqual(40)
})

test('colour surrounds the text and not the padding, and only where it is asked for', () => {
  const rows = [[{ text: 'up', tone: 'good' as const }, '1', 'x']]
  expect(formatTable(columns, rows, plain)).not.toContain('\u001b')
  const [, row] = formatTable(columns, rows, { color: true, width: undefined }).split('\n')
  expect(row).toBe('\u001b[32mup\u001b[0m         1  x')
})

test('a name from another node cannot steer the terminal', () => {
  expect(printable('a\u001b[2Jb\u202ec\nd\u009b')).toBe('a\ufffd[2Jb\ufffdc\ufffdd\ufffd')
  const table = formatTable(columns, [['\u001b]0;x\u0007', '1', '\r']], plain)
  expect(table).toBe('NODE    RTT MS  WHY\n\ufffd]0;x\ufffd       1  \ufffd\n')
  expect(formatPairs([['node', '\u001b[31m']], { color: false })).toBe('node  \ufffd[31m\n')
})

test('whatever stands in the cells, a table keeps one line a row and its width', () => {
  const text = fc.string({ unit: 'grapheme', maxLength: 40 })
  fc.assert(
    fc.property(fc.array(fc.tuple(text, text, text), { maxLength: 5 }), rows => {
      const lines = formatTable(
        columns.map(column => ({ ...column, shrinks: true })),
        rows,
        { color: false, width: 60 },
      ).split('\n')
      expect(lines).toHaveLength(rows.length + 2)
      for (const line of lines) expect(displayWidth(line)).toBeLessThanOrEqual(60)
    }),
    { numRuns: 200 },
  )
})

test('a table of very many rows is still a table', () => {
  const rows = Array.from({ length: 200_000 }, () => ['a', '1', 'b'])
  expect(formatTable(columns, rows, plain).split('\n')).toHaveLength(200_002)
})

test('pairs stand below each other with their values aligned', () => {
  const pairs: [string, string][] = [
    ['node', 'a'],
    ['certificate', 'fine'],
  ]
  expect(formatPairs(pairs, { color: false })).toBe('node         a\ncertificate  fine\n')
})
