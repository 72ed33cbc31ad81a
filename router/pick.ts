/** One of `from` by chance, all as likely; undefined if there is none. `random` is uniform in [0, 1). */
export function pickOne<T>(from: readonly T[], random: () => number): T | undefined {
  return from[Math.floor(random() * from.length)]
}
