/**
 * The known word a person most likely meant, or undefined when none is near.
 *
 * Near means at most one slip in words of up to five characters and one more per three characters beyond (a guess
 * that suggests `services` for `servcies` but never `up` for `ip4`).
 * Source: optimal string alignment distance: insert, delete, change, swap of neighbours cost one each.
 */
export function chooseNearest(word: string, known: readonly string[]): string | undefined {
  const slipsMax = Math.max(1, Math.floor(word.length / 3))
  let best: string | undefined
  let bestSlips = slipsMax + 1
  for (const candidate of known) {
    // Longer than this by more than the slips allowed cannot be near; this also bounds the work for absurd words.
    if (Math.abs(candidate.length - word.length) > slipsMax) continue
    const slips = countSlips(word.toLowerCase(), candidate.toLowerCase())
    if (slips < bestSlips && slips < candidate.length) {
      best = candidate
      bestSlips = slips
    }
  }
  return best
}

/** ` (did you mean …?)`, or nothing: to be put behind what was found. */
export function suggest(word: string, known: readonly string[]): string {
  const nearest = chooseNearest(word, known)
  return nearest === undefined ? '' : ` (did you mean ${nearest}?)`
}

function countSlips(a: string, b: string): number {
  let beforeLast: number[] = []
  let last = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const change = at(last, j - 1) + (a[i - 1] === b[j - 1] ? 0 : 1)
      let slips = Math.min(change, at(last, j) + 1, at(row, j - 1) + 1)
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        slips = Math.min(slips, at(beforeLast, j - 2) + 1)
      row.push(slips)
    }
    beforeLast = last
    last = row
  }
  return at(last, b.length)
}

function at(row: readonly number[], index: number): number {
  return row[index] ?? Number.POSITIVE_INFINITY
}
