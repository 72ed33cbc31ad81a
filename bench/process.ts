import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { endWithThisProcess } from '../test/e2e/daemon-process.ts'
import { canConnect } from '../test/e2e/local-port.ts'

/** Ticks of /proc/PID/stat in a second; 100 on every Linux that Node runs on (USER_HZ is fixed in the ABI). */
const TICKS_PER_SECOND = 100
const START_MS = 10_000

/** A process of a benchmark: started, waited for, measured, ended. */
export class BenchProcess {
  readonly name: string
  readonly child: ChildProcess
  private output = ''

  constructor(name: string, command: string, args: readonly string[], cwd: string) {
    this.name = name
    this.child = spawn(command, args, { cwd, stdio: ['ignore', 'pipe', 'pipe'] })
    this.child.stdout?.on('data', chunk => this.keep(chunk))
    this.child.stderr?.on('data', chunk => this.keep(chunk))
    endWithThisProcess(this.child)
  }

  private keep(chunk: Buffer): void {
    this.output = (this.output + chunk).slice(-4000)
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new Error(`${this.name} did not start`)
    return this.child.pid
  }

  /** Waits until something listens on the port. */
  async listening(port: number): Promise<void> {
    const untilMs = Date.now() + START_MS
    while (Date.now() < untilMs) {
      if (this.child.exitCode !== null) throw new Error(`${this.name} ended: ${this.output}`)
      if (await canConnect(port)) return
      await new Promise(resolve => setTimeout(resolve, 20))
    }
    throw new Error(`${this.name} does not listen on port ${port}: ${this.output}`)
  }

  async stop(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return
    const ended = new Promise(resolve => this.child.once('exit', resolve))
    this.child.kill('SIGTERM')
    const timer = setTimeout(() => this.child.kill('SIGKILL'), 3000)
    await ended
    clearTimeout(timer)
  }
}

/** CPU time of a process and the workers it forked, seconds. */
export function cpuSeconds(pid: number): number {
  let ticks = 0
  for (const each of [pid, ...childrenOf(pid)]) {
    const fields = readFileSync(`/proc/${each}/stat`, 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ')
    ticks += Number(fields[11]) + Number(fields[12])
  }
  return ticks / TICKS_PER_SECOND
}

/** Resident memory of a process and the workers it forked, bytes. */
export function rssBytes(pid: number): number {
  let kilobytes = 0
  for (const each of [pid, ...childrenOf(pid)]) {
    kilobytes += Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${each}/status`, 'utf8'))?.[1] ?? 0)
  }
  return kilobytes * 1024
}

function childrenOf(pid: number): number[] {
  const children: number[] = []
  for (const task of readdirSync(`/proc/${pid}/task`)) {
    const text = readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').trim()
    if (text !== '') children.push(...text.split(' ').map(Number))
  }
  return children
}

export function hasProgram(name: string): boolean {
  try {
    execFileSync('which', [name], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}
