/** The number after `--name` on the command line. */
export function numberOption(name: string, fallback: number): number {
  const at = process.argv.indexOf(`--${name}`)
  return at === -1 ? fallback : Number(process.argv[at + 1])
}

/** Whether `--name` is on the command line. */
export function hasOption(name: string): boolean {
  return process.argv.includes(`--${name}`)
}
