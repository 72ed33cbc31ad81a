/** One of `from` by chance, all as likely; undefined if there is none. `random` is uniform in [0, 1). */
export function pickOne<T>(from: readonly T[], random: () => number): T | undefined {
  return from[Math.floor(random() * from.length)]
}

/** Up to `count` different ones of `from`, all as likely. */
export function pickSome<T>(from: readonly T[], count: number, random: () => number): T[] {
  const left = [...from]
  const picked: T[] = []
  while (picked.length < count && left.length > 0) {
    const at = Math.floor(random() * left.length)
    picked.push(left[at] as T)
    left[at] = left.at(-1) as T
    left.pop()
  }
  return picked
}
