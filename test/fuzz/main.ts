import { parseArgs } from 'node:util'
import { randomFor } from '../sim/rng.ts'
import { makeTargets, type Target } from './targets.ts'

const HELP = `npm run fuzz -- [options]: gives every decoder changed copies of good input, for a while.

  --seconds N    in all (20)
  --seed N       (drawn anew each time, and printed)
  --only NAMES   some targets, with commas between them
  --case N       that case alone, of the one target named by --only

Exit code 1 if anything threw, broke a promise or cost more than a second; the line that repeats it is printed.`

/** A single input that takes longer holds up everything else a daemon does. */
const CASE_MS_MAX = 1000
/** Cases between two looks at the clock. */
const SLICE = 50

function main(args: readonly string[]): number {
  const { values } = parseArgs({
    args: [...args],
    options: {
      seconds: { type: 'string', default: '20' },
      seed: { type: 'string', default: String(Math.floor(Math.random() * 2 ** 31)) },
      only: { type: 'string' },
      case: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    console.log(HELP)
    return 0
  }
  const seed = Number(values.seed)
  const names = values.only?.split(',')
  const targets = makeTargets().filter(({ name }) => names === undefined || names.includes(name))
  if (targets.length === 0)
    throw new Error(
      `--only: expected some of ${makeTargets()
        .map(({ name }) => name)
        .join(', ')}`,
    )
  if (values.case !== undefined) return targets.every(target => runCase(target, seed, Number(values.case))) ? 0 : 1
  return fuzz(targets, seed, Number(values.seconds))
}

/** Every target gets an equal share of the time. */
function fuzz(targets: readonly Target[], seed: number, seconds: number): number {
  console.log(`fuzz: seed ${seed}, ${seconds} s for ${targets.length} decoders`)
  let failed = 0
  for (const target of targets) {
    const endMs = performance.now() + (seconds * 1000) / targets.length
    let cases = 0
    let isClean = true
    while (isClean && performance.now() < endMs) {
      for (let i = 0; i < SLICE && isClean; i++) isClean = runCase(target, seed, cases++)
    }
    if (!isClean) failed++
    console.log(`${target.name.padEnd(14)} ${String(cases).padStart(9)} cases  ${isClean ? 'clean' : 'FAILED'}`)
  }
  console.log(`fuzz: ${targets.length - failed} clean, ${failed} failed`)
  return failed === 0 ? 0 : 1
}

function runCase(target: Target, seed: number, number: number): boolean {
  const random = randomFor(seed, `${target.name} ${number}`)
  const before = process.cpuUsage()
  try {
    target.run(n => Math.floor(random() * n), Math.floor(random() * 2 ** 31))
  } catch (error) {
    console.error(error)
    return fail(target, seed, number)
  }
  const { user, system } = process.cpuUsage(before)
  const tookMs = (user + system) / 1000
  if (tookMs < CASE_MS_MAX) return true
  console.error(`expected an input to cost less than ${CASE_MS_MAX} ms of CPU, found ${Math.round(tookMs)} ms`)
  return fail(target, seed, number)
}

function fail(target: Target, seed: number, number: number): false {
  const isAlone = target.name === 'router' ? ' (it lives on from case to case: leave --case out)' : ''
  console.error(`again with: npm run fuzz -- --only ${target.name} --seed ${seed} --case ${number}${isAlone}`)
  return false
}

try {
  process.exitCode = main(process.argv.slice(2))
} catch (error) {
  console.error(`${error instanceof Error ? error.message : error}\n\n${HELP}`)
  process.exitCode = 2
}
